"""Block by block: factors and clipping learnt from what the block should say."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from everview.model.network import Network
from everview.quantization.calibration import run_tokens
from everview.quantization.folding import PreparedLinear
from everview.quantization.grids import (
    ClipFactors,
    clip_weights,
    fit_tokens,
    fit_weights,
    in_groups,
    on_grid,
)
from everview.quantization.hadamard import Rotation
from everview.quantization.linear import QuantizedLinear
from everview.quantization.sites import Site, replace_linear
from everview.quantization.smoothing import InputTransform
from everview.quantization.spec import LinearSpec

FIRST_LOGIT = 4.0
"""Of clipping: sigmoid(4) = 0.982 of the range is kept at first."""
FACTOR_RATE, CLIP_RATE, LAST_RATE = 1e-3, 1e-2, 1e-6
"""Learning rates of factors and clipping at first, and of both at last (cosine)."""


class LearnableLinear(nn.Module):
    """A prepared layer whose factors and clipping learn; rounds with the straight-through rule.

    Source: QuantVGGT (arXiv 2509.21302) Sec. 3.2; constants of its published code (design page,
    Sec. 2.5 and 2.6).
    """

    def __init__(
        self, prepared: PreparedLinear, spec: LinearSpec, *, is_smoothing_last: bool, is_free: bool
    ) -> None:
        """Begin where the prepared layer is.

        Args:
            is_smoothing_last: factors act behind the rotation, as in the paper's order.
            is_free: whether factors learn; not where the values of attention took them over.
        """
        super().__init__()
        self.prepared, self.spec, self.is_last = prepared, spec, is_smoothing_last
        width, out = prepared.weight.shape[1], len(prepared.weight)
        like = prepared.weight
        self.log_factors = nn.Parameter(torch.zeros(width).to(like)) if is_free else None
        self.clip_weight = nn.Parameter(torch.full((2, out), FIRST_LOGIT).to(like))
        self.clip_tokens = nn.Parameter(torch.full((2, 1), FIRST_LOGIT).to(like))
        self.products: Tensor | None = None
        self.is_listening = False

    def forward(self, x: Float[Tensor, "*tokens n"]) -> Float[Tensor, "*tokens out"]:
        """The layer with both sides on their grids."""
        h = self.transform().of_input(x)
        if self.is_listening:
            rows = h.flatten(0, -2)
            product = rows.T @ rows / len(rows)
            self.products = product if self.products is None else self.products + product
        if self.spec.rounds_tokens:
            grid = self.spec.token_grid
            h = on_grid(h, fit_tokens(h, grid, ClipFactors.of_logits(*self.clip_tokens)), grid)
        grid = self.spec.weight_grid
        weight = clip_weights(self.folded_weight(), ClipFactors.of_logits(*self.clip_weight))
        groups = in_groups(weight, self.spec.group)
        rounded = on_grid(groups, fit_weights(groups, grid), grid).flatten(1)
        return F.linear(h, rounded, self.prepared.bias)

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes."""
        return self.prepared.weight.dtype

    input_dtype = dtype

    def transform(self) -> InputTransform:
        """What happens to the input now."""
        online = self.prepared.online
        if self.log_factors is None:
            return online
        inverse = (-self.log_factors).exp()
        if self.is_last:
            after = inverse if online.after is None else online.after * inverse
            return InputTransform(before=online.before, rotation=online.rotation, after=after)
        before = inverse if online.before is None else online.before * inverse
        return InputTransform(before=before, rotation=online.rotation, after=online.after)

    def folded_weight(self) -> Float[Tensor, "out n"]:
        """The transformed weight that belongs to it."""
        weight: Tensor = self.prepared.weight
        if self.log_factors is None:
            return weight
        factors = self.log_factors.exp()
        rotation, after = self.prepared.online.rotation, self.prepared.online.after
        if self.is_last or rotation is None:
            return weight * factors
        if after is not None:
            weight = weight * after
        unsigned = Rotation(None, rotation.block)  # signs and factors commute
        weight = unsigned.apply(unsigned.undo(weight) * factors)
        return weight if after is None else weight / after

    @torch.no_grad()
    def quantized(self, site: Site, *, second_order: bool) -> QuantizedLinear:
        """The layer as integers; a norm that feeds it takes over what it can."""
        online = self.transform()
        if site.norm is not None and online.before is not None:
            site.norm.weight.data = site.norm.weight.data * online.before
            site.norm.bias.data = site.norm.bias.data * online.before
            online = InputTransform(rotation=online.rotation, after=online.after)
        clip_tokens = ClipFactors.of_logits(*self.clip_tokens) if self.spec.rounds_tokens else None
        return QuantizedLinear.of_transformed(
            self.folded_weight(), self.prepared.bias, self.spec, online,
            hessian=self.products if second_order else None,
            weight_clip=ClipFactors.of_logits(*self.clip_weight), activation_clip=clip_tokens,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a block: what it got, and what it should say."""

    method: str
    """`forward`, or `causal` of a block."""
    arguments: tuple[Any, ...]
    """Tokens first."""
    options: dict[str, Any]
    """The rest."""
    output: Tensor
    """What it said."""


@dataclass(frozen=True, eq=False)
class Recorder:
    """Calls of one block while it is watched."""

    block: nn.Module
    calls: list[Call] = field(default_factory=list)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keep all calls inside the block."""
        methods = [name for name in ("forward", "causal") if hasattr(self.block, name)]
        for name in methods:
            self.block.__dict__[name] = self._kept(name, getattr(self.block, name))
        try:
            yield
        finally:
            for name in methods:
                del self.block.__dict__[name]

    def _kept(self, name: str, method: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def kept(*arguments: Any, **options: Any) -> Tensor:  # noqa: ANN401
            output = method(*arguments, **options)
            self.calls.append(Call(name, arguments, options, output))
            return output

        return kept


def record(network: Network, block: str, clips: Sequence[Tensor]) -> list[list[Call]]:
    """Calls of a block for each clip: true shapes, true attention across frames."""
    found = []
    for images in clips:
        recorder = Recorder(network.get_submodule(block))
        with recorder.watching():
            run_tokens(network, images)
        found.append(recorder.calls)
    return found


def replay(block: nn.Module, call: Call) -> Tensor:
    """Run a block again on what it got."""
    return getattr(block, call.method)(*call.arguments, **call.options)


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What became of one block: mean squared error of its output before and after learning."""

    before: float
    after: float
    is_kept: bool
    """Whether what was learnt is better than the start, which is taken otherwise."""


def learn_block(
    network: Network,
    block: str,
    layers: dict[str, LearnableLinear],
    calls: Sequence[Sequence[Call]],
    *,
    steps: int,
) -> Lesson:
    """Let factors and clipping of a block's layers learn; the better of start and end is kept.

    Args:
        layers: name -> learnable layer, in place in the network.
        calls: per clip, with the outputs of the float network as targets.
        steps: of AdamW, one clip each.
    """
    module = network.get_submodule(block)
    parameters = [p for layer in layers.values() for p in layer.parameters() if p.requires_grad]
    start = [p.detach().clone() for p in parameters]
    before = _error(module, calls)
    with torch.enable_grad():
        _descend(module, layers, calls, steps)
    after = _error(module, calls)
    if not after <= before:
        for parameter, value in zip(parameters, start, strict=True):
            parameter.data = value
    return Lesson(before=before, after=after, is_kept=after <= before)


def _descend(
    module: nn.Module,
    layers: dict[str, LearnableLinear],
    calls: Sequence[Sequence[Call]],
    steps: int,
) -> None:
    factors = [la.log_factors for la in layers.values() if la.log_factors is not None]
    clips = [p for layer in layers.values() for p in (layer.clip_weight, layer.clip_tokens)]
    groups = [{"params": clips, "lr": CLIP_RATE}]
    if factors:
        groups.append({"params": factors, "lr": FACTOR_RATE})
    optimiser = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, eta_min=LAST_RATE)
    for step in range(steps):
        of_clip = calls[step % len(calls)]
        loss = torch.stack([F.mse_loss(replay(module, c), c.output) for c in of_clip]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def _error(module: nn.Module, calls: Sequence[Sequence[Call]]) -> float:
    with torch.no_grad():
        errors = [F.mse_loss(replay(module, c), c.output) for of_clip in calls for c in of_clip]
    return float(torch.stack(errors).mean())


def make_learnable(
    network: Network,
    sites: Sequence[Site],
    specs: dict[str, LinearSpec],
    *,
    is_smoothing_last: bool,
) -> dict[str, LearnableLinear]:
    """Put learnable layers in the places of a block's prepared ones."""
    layers = {}
    for site in sites:
        prepared = network.get_submodule(site.name)
        assert isinstance(prepared, PreparedLinear), "all sites were prepared"
        is_free = site.qkv is None
        layers[site.name] = LearnableLinear(
            prepared, specs[site.name], is_smoothing_last=is_smoothing_last, is_free=is_free
        )
        replace_linear(network, site.name, layers[site.name])
    return layers
