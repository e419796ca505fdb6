"""What calibration clips tell of the inputs of layers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from everview.errors import ConfigError, InputError
from everview.model.layers.block import Block
from everview.model.network import Network
from everview.quantization.hadamard import Rotation
from everview.quantization.sampling import frame_correlations
from everview.quantization.sites import Site
from everview.quantization.smoothing import ChannelMaxima

FEWEST_CLIPS = 4
"""A statistic of fewer clips says more about them than about the network."""

Progress = Callable[[str, int, int], None]
"""Is told what is done, steps done, steps in all."""


def silent(_what: str, _done: int, _total: int) -> None:
    """Tell nobody."""


def check_clips(network: Network, clips: Sequence[Any]) -> list[Float[Tensor, "1 s 3 H W"]]:
    """Calibration clips as images for the network.

    Args:
        clips: each s 3 H W, RGB in [0, 1], all of one shape.

    Raises:
        ConfigError: if there are fewer than `FEWEST_CLIPS`, or their shapes are wrong or differ;
            names the clip.
        InputError: if a clip has values that are not finite.
    """
    if len(clips) < FEWEST_CLIPS:
        raise ConfigError(
            f"{len(clips)} calibration clips are too few; give at least {FEWEST_CLIPS}, or none "
            "(calibration=None, --calibration none) to a method that needs none"
        )
    checked: list[Tensor] = []
    for number, clip in enumerate(clips):
        images = torch.as_tensor(clip)
        images = images[None] if images.ndim == 4 else images
        try:
            images = network.check_images(images)
        except ConfigError as error:
            raise ConfigError(f"calibration clip {number}: {error}") from error
        if checked and images.shape != checked[0].shape:
            raise ConfigError(
                f"calibration clip {number} has shape {tuple(images.shape[1:])}, clip 0 "
                f"{tuple(checked[0].shape[1:])}: clips must have one length and one size"
            )
        if not images.isfinite().all():
            raise InputError(f"calibration clip {number} has values that are not finite")
        checked.append(images)
    return checked


def run_tokens(network: Network, images: Float[Tensor, "b s 3 H W"]) -> None:
    """Run what has layers to quantize: everything but dense heads and tracker."""
    with torch.no_grad(), network.own_precision():
        tokens = network.aggregator(images)
        network.camera_head(tokens[network.config.aggregator.depth - 1][:, :, 0])


def frames_of(
    network: Network, site: Site, x: Tensor, images: Tensor, *, with_special: bool
) -> Float[Tensor, "frames p n"]:
    """The input of a layer by frames, also where it holds the tokens of a whole clip.

    Args:
        with_special: whether camera and register tokens stay, which behave unlike patches.
    """
    if site.part == "camera":
        return x.reshape(len(images), -1, x.shape[-1])  # one token per frame
    patch = network.config.patch_size
    patches = (images.shape[-2] // patch) * (images.shape[-1] // patch)
    agg = network.aggregator
    special = 1 + agg.patch_embed.num_registers if site.part == "encoder" else agg.num_special
    frames = x.reshape(-1, special + patches, x.shape[-1])
    return frames if with_special else frames[:, special:]


Listener = Callable[[Site, Tensor, Tensor], None]
"""Gets a site, the input of its layer and the images of the clip."""


@contextmanager
def listening(
    network: Network, sites: Sequence[Site], listener: Callable[[Site, Tensor], None]
) -> Iterator[None]:
    """Tell of the input of every call of these layers, inside the block."""

    def hook_of(site: Site) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            listener(site, inputs[0].detach())

        return hook

    handles = [
        network.get_submodule(site.name).register_forward_pre_hook(hook_of(site)) for site in sites
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def activation_maxima(
    network: Network,
    sites: Sequence[Site],
    clips: Sequence[Float[Tensor, "1 s 3 H W"]],
    *,
    rotations: Mapping[str, Rotation] | None = None,
    with_special: bool = False,
    progress: Progress = silent,
) -> dict[str, Float[Tensor, " n"]]:
    """Channel maxima of the inputs of all layers, in one pass over the clips.

    Args:
        rotations: name -> rotation that inputs get first; None: inputs as they are.
        with_special: see `frames_of`.

    Raises:
        InputError: if activations are not finite; names layer and clip.
    """
    maxima = {site.name: ChannelMaxima() for site in sites}
    for number, images in enumerate(clips):

        def take(site: Site, x: Tensor, images: Tensor = images, number: int = number) -> None:
            frames = frames_of(network, site, x.float(), images, with_special=with_special)
            if rotations is not None:
                frames = rotations[site.name].apply(frames)
            try:
                maxima[site.name].update(frames)
            except InputError as error:
                raise InputError(f"{site.name}, calibration clip {number}: {error}") from error

        with listening(network, sites, take):
            run_tokens(network, images)
        progress("statistics", number + 1, len(clips))
    return {name: found.value for name, found in maxima.items() if found.value is not None}


DEEP_PAIRS = 4
"""Pairs of blocks, the last ones, whose inputs tell whether a clip is unusual."""
POOLED = 2
"""Channels and tokens that are averaged for the vector of a clip."""


def survey_clips(
    network: Network, clips: Sequence[Float[Tensor, "1 s 3 H W"]], *, progress: Progress = silent
) -> tuple[Float[Tensor, "clips l"], Float[Tensor, "clips l"], Float[Tensor, "clips others"]]:
    """What `sampling.select_clips` chooses by: moments of deep inputs, and frame correlations.

    Source: design in docs/quantization.md; QuantVGGT Sec. 3.3 with the published code's features.

    Returns:
        Mean and variance of the inputs of the last pairs' frame and global blocks; cosine of every
        later frame to the first, by pooled tokens of the last layer.
    """
    agg = network.aggregator
    norms = [
        block.norm1
        for pair in zip(agg.frame_blocks, agg.global_blocks, strict=True)
        for block in cast(tuple[Block, Block], pair)
    ][-2 * DEEP_PAIRS :]
    means, variances, correlations = [], [], []
    for number, images in enumerate(clips):
        moments: list[Tensor] = []

        def take(
            _module: nn.Module, inputs: tuple[Tensor, ...], to: list[Tensor] = moments
        ) -> None:
            to.append(torch.stack([inputs[0].double().mean(), inputs[0].double().var()]))

        handles = [norm.register_forward_pre_hook(take) for norm in norms]
        with torch.no_grad(), network.own_precision():
            tokens = agg(images)[network.config.aggregator.depth - 1]
        for handle in handles:
            handle.remove()
        found = torch.stack(moments)
        means.append(found[:, 0])
        variances.append(found[:, 1])
        correlations.append(frame_correlations(_pooled(tokens, agg.num_special))[0])
        progress("survey", number + 1, len(clips))
    return torch.stack(means), torch.stack(variances), torch.stack(correlations)


def _pooled(tokens: Float[Tensor, "1 s p c"], special: int) -> Float[Tensor, "1 s q d"]:
    """Channels and patch tokens averaged in twos; special tokens stay apart."""
    tokens = F.avg_pool1d(tokens.float().flatten(0, 1), POOLED)  # s p d
    patches = F.avg_pool1d(tokens[:, special:].transpose(1, 2), POOLED).transpose(1, 2)
    return torch.cat([tokens[:, :special], patches], dim=1)[None]


def input_products(
    network: Network,
    sites: Sequence[Site],
    clips: Sequence[Float[Tensor, "1 s 3 H W"]],
    transform_of: Callable[[Site, Tensor], Tensor],
    *,
    most_bytes: int,
    by_block: bool = False,
) -> Iterator[tuple[list[Site], dict[str, Float[Tensor, "n n"]]]]:
    """Mean of x x^T over tokens, for some layers after the other so that they fit into memory.

    Args:
        transform_of: what happens to an input before its product is taken.
        most_bytes: that the products of one pass may take.
        by_block: no pass goes beyond one block, so that what was done with earlier ones counts.

    Yields:
        Layers, in order, and their products by name.
    """
    for chosen in _portions(network, sites, most_bytes, by_block=by_block):
        products: dict[str, Tensor] = {}

        def take(site: Site, x: Tensor, products: dict[str, Tensor] = products) -> None:
            rows = transform_of(site, x.float()).flatten(0, -2)
            product = rows.T @ rows / len(rows)
            products[site.name] = products.get(site.name, 0) + product

        for images in clips:
            with listening(network, chosen, take):
                run_tokens(network, images)
        yield chosen, products


def _portions(
    network: Network, sites: Sequence[Site], most_bytes: int, *, by_block: bool
) -> Iterator[list[Site]]:
    """Consecutive layers whose products take at most so many bytes; at least one layer each."""
    portion: list[Site] = []
    used = 0
    for site in sites:
        weight = cast(Tensor, network.get_submodule(site.name).weight)
        size = 4 * weight.shape[1] ** 2
        is_new_block = by_block and bool(portion) and site.block != portion[-1].block
        if portion and (used + size > most_bytes or is_new_block):
            yield portion
            portion, used = [], 0
        portion.append(site)
        used += size
    if portion:
        yield portion
