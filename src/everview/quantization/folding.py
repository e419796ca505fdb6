"""Factors and rotations of layers' inputs put where they cost nothing.

A layer's input is scaled and rotated, and its weight inversely. What precedes the layer takes over
as much of the first part as exact algebra allows: a LayerNorm that feeds it alone takes factors and
signs, the values of attention take everything that stays within a head. LayerScale behind a layer
goes into its rows.

Source: design in docs/quantization.md; QuaRot (arXiv 2404.00456) Sec. 3 for the rotation of values.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from everview.model.network import Network
from everview.quantization.hadamard import Rotation
from everview.quantization.linear import QuantizedLinear
from everview.quantization.sites import Site, linear_of, replace_linear
from everview.quantization.smoothing import InputTransform


class PreparedLinear(nn.Module):
    """A layer between folding and rounding: floats, and what must be done to its input online."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, online: InputTransform, *, full: InputTransform
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(full.of_weight(weight), requires_grad=False)
        """Transformed by all of `full`."""
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.online = online
        """The part of the transform that nothing before the layer could take over."""

    def forward(self, x: Float[Tensor, "*tokens n"]) -> Float[Tensor, "*tokens out"]:
        """What the layer said before."""
        return F.linear(self.online.of_input(x), self.weight, self.bias)

    def quantized(self, spec: object, **options: object) -> QuantizedLinear:
        """On a grid; options as in `QuantizedLinear.of_transformed`."""
        return QuantizedLinear.of_transformed(
            self.weight.detach(), None if self.bias is None else self.bias.detach(),
            spec, self.online, **options,  # type: ignore[arg-type]
        )  # fmt: skip


def fold(network: Network, site: Site, transform: InputTransform) -> PreparedLinear:
    """Transform the input of one layer; the network's function stays what it is.

    Layers of a block go from the last to the first: values can only change while the layer that
    makes them is as it was.
    """
    linear = linear_of(network, site.name)
    weight, bias = linear.weight.data, None if linear.bias is None else linear.bias.data
    if site.layer_scale is not None:
        gamma = site.layer_scale.gamma.data
        weight = weight * gamma[:, None]
        bias = None if bias is None else bias * gamma
        site.layer_scale.gamma.data = torch.ones_like(gamma)
    online = transform
    if site.norm is not None:
        online = _into_norm(site.norm, transform)
    elif site.qkv is not None and stays_within_heads(transform, linear.in_features, site.num_heads):
        _into_values(linear_of(network, site.qkv), transform)
        online = InputTransform()
    prepared = PreparedLinear(weight, bias, online, full=transform)
    replace_linear(network, site.name, prepared)
    return prepared


def stays_within_heads(transform: InputTransform, width: int, num_heads: int) -> bool:
    """Whether a rotation mixes no channels of different heads."""
    rotation = transform.rotation
    return rotation is None or (width // num_heads) % rotation.block == 0


def _into_norm(norm: nn.LayerNorm, transform: InputTransform) -> InputTransform:
    """Give a norm all that precedes the rotation; returns the rest."""
    for vector in (
        transform.before,
        None if transform.rotation is None else transform.rotation.signs,
    ):
        if vector is not None:
            norm.weight.data = norm.weight.data * vector.to(norm.weight)
            norm.bias.data = norm.bias.data * vector.to(norm.bias)
    rotation = transform.rotation
    rest = None if rotation is None else Rotation(None, rotation.block)
    return InputTransform(rotation=rest, after=transform.after)


def _into_values(qkv: nn.Linear, transform: InputTransform) -> None:
    """Make the values what the transform would make of them."""
    width = qkv.in_features
    rows = slice(2 * width, 3 * width)
    weight, bias = qkv.weight.data.clone(), qkv.bias.data.clone()
    weight[rows] = transform.of_input(weight[rows].T).T
    bias[rows] = transform.of_input(bias[rows])
    qkv.weight.data, qkv.bias.data = weight, bias
