"""Which linear layers of a network are quantized, and what stands before and behind them."""

import fnmatch
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast

from torch import nn

from everview.errors import ConfigError
from everview.model.layers.block import Block, LayerScale
from everview.model.network import Network
from everview.quantization.spec import LinearSpec, parse_scheme

Part = Literal["encoder", "frame", "global", "camera"]
"""Where in the network a layer is."""
FLOAT = "float"
"""What `keep` says of layers that are not quantized."""
CAMERA_BITS = 8
"""Fewest bits in the camera head: its errors feed back through the refinement rounds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Site:
    """A linear layer and its surroundings."""

    name: str
    """Its name in the network."""
    part: Part
    """Where it is."""
    block: str
    """Name of the block it belongs to: what is calibrated together."""
    norm: nn.LayerNorm | None = None
    """Feeds this layer alone, so that factors of its input can be folded into it."""
    qkv: str | None = None
    """Name of the layer whose values feed this one through attention."""
    num_heads: int = 1
    """Heads of that attention."""
    layer_scale: LayerScale | None = None
    """Multiplies its output."""


def linear_of(network: Network, name: str) -> nn.Linear:
    """The layer at a site, before it is replaced."""
    return cast(nn.Linear, network.get_submodule(name))


def replace_linear(network: Network, name: str, layer: nn.Module) -> None:
    """Put another layer in the place of one."""
    owner, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(owner), leaf, layer)


def find_sites(network: Network) -> list[Site]:
    """All linear layers that can be quantized, in the order in which they run.

    Dense heads, the tracker, the embedding of a pose (9 inputs) and the layer that says a pose (9
    outputs) stay in floating point.
    """
    sites: list[Site] = []
    agg = network.aggregator
    for i, block in enumerate(agg.patch_embed.blocks):
        sites += _of_block(cast(Block, block), f"aggregator.patch_embed.blocks.{i}", "encoder")
    pairs = zip(agg.frame_blocks, agg.global_blocks, strict=True)
    for i, (frame, global_) in enumerate(pairs):
        sites += _of_block(cast(Block, frame), f"aggregator.frame_blocks.{i}", "frame")
        sites += _of_block(cast(Block, global_), f"aggregator.global_blocks.{i}", "global")
    head = network.camera_head
    last = "camera_head.pose_branch"
    sites.append(
        Site(
            name="camera_head.poseLN_modulation.1",
            part="camera",
            block="camera_head.poseLN_modulation",
        )
    )
    for i, block in enumerate(head.trunk):
        sites += _of_block(cast(Block, block), f"camera_head.trunk.{i}", "camera")
    sites.append(Site(name=f"{last}.fc1", part="camera", block=last, norm=head.trunk_norm))
    return sites


def _of_block(block: Block, name: str, part: Part) -> list[Site]:
    qkv = f"{name}.attn.qkv"
    proj = Site(
        name=f"{name}.attn.proj", part=part, block=name, qkv=qkv,
        num_heads=block.attn.num_heads, layer_scale=block.ls1,
    )  # fmt: skip
    return [
        Site(name=qkv, part=part, block=name, norm=block.norm1),
        proj,
        Site(name=f"{name}.mlp.fc1", part=part, block=name, norm=block.norm2),
        Site(name=f"{name}.mlp.fc2", part=part, block=name, layer_scale=block.ls2),
    ]


def choose_specs(
    network: Network, sites: list[Site], scheme: LinearSpec, keep: Mapping[str, str]
) -> dict[str, LinearSpec]:
    """Name of each quantized layer -> its grids.

    The camera head has at least 8 bits everywhere. Groups that do not fill a layer's rows shrink
    to what does.

    Args:
        scheme: of all layers.
        keep: pattern of names (`aggregator.frame_blocks.1[47].*`) -> `float`, or a scheme such as
            `w8a8`.

    Raises:
        ConfigError: if a pattern fits no layer.
    """
    specs: dict[str, LinearSpec] = {}
    for site in sites:
        spec = scheme
        if site.part == "camera":
            spec = replace(
                spec,
                weight_bits=max(CAMERA_BITS, spec.weight_bits),
                activation_bits=max(CAMERA_BITS, spec.activation_bits),
                group=None,
            )
        specs[site.name] = spec
    for pattern, word in keep.items():
        fitting = fnmatch.filter(specs, pattern)
        if not fitting:
            raise ConfigError(
                f"keep: {pattern!r} fits no layer; names are such as {sites[0].name} or "
                f"{sites[-1].name}"
            )
        for name in fitting:
            if word == FLOAT:
                del specs[name]
            else:
                specs[name] = parse_scheme(word)
    return {
        name: spec
        if spec.group is None
        else replace(spec, group=_fitting(network, name, spec.group))
        for name, spec in specs.items()
    }


def _fitting(network: Network, name: str, group: int) -> int:
    """The largest group of at most this size that fills the rows of a layer."""
    return math.gcd(group, linear_of(network, name).in_features)
