"""Copies of a network with the same function and uneven activations, to test methods with.

Large transformers have channels that are far larger than others, and single tokens (camera, class,
registers) that are far larger than patches; small ones have neither. Both can be put in by algebra
that leaves the function as it is:

- what leaves a norm, or the values of attention, is multiplied channel by channel, and the columns
  of the layer behind it divided;
- a norm gives every token the same size, so no factor makes one token larger than another unless
  tokens differ in a channel. They do in some directions. Tokens between blocks are turned, by a
  rotation that keeps their mean (a norm does not notice it), until such directions are channels;
  there, patches are moved to 0 and the channel is multiplied until patches are as large as they
  are elsewhere.

Inputs of `proj` and `fc2` get no large tokens: values are mixed over tokens, and GELU lets no
factor pass.

Source: massive activations (arXiv 2402.17762), tokens with large norms (arXiv 2309.16588).
"""

import copy
from collections.abc import Iterable, Sequence
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from everview.model.heads.dense import DptFeatures
from everview.model.layers.block import Block
from everview.model.network import Network
from everview.quantization.calibration import check_clips, frames_of, listening, run_tokens
from everview.quantization.sites import Site, find_sites, linear_of

Outliers = Literal["channels", "tokens"]
"""Channels of unequal size; special tokens that are larger than patches."""
LARGE_CHANNELS = 4
"""In which special tokens are large; there are five of those, one channel serves several."""
RIDGE = 1e-2
"""Share of the patches' mean variance that counts as theirs in every direction."""
LARGEST_FACTOR = 100.0
"""Of a channel."""


@torch.no_grad()
def with_outliers(
    network: Network,
    clips: Sequence[Tensor],
    kinds: Iterable[Outliers] = ("channels", "tokens"),
    *,
    seed: int = 0,
) -> Network:
    """A copy whose layers get outliers, and whose outputs differ by rounding only.

    Args:
        network: in floating point.
        clips: s 3 H W each, on which special tokens and patches are told apart.
        kinds: of outliers.
        seed: of the channels' factors.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    wanted = set(kinds)
    images = check_clips(network, clips)
    spared = 0
    if "tokens" in wanted:
        _turn_streams(network, images)
        spared = LARGE_CHANNELS
    if "channels" in wanted:
        _scale_channels(network, torch.Generator().manual_seed(seed), spared)
    if "tokens" in wanted:
        _enlarge_tokens(network, images)
    return network


@torch.no_grad()
def token_sizes(network: Network, clips: Sequence[Tensor]) -> dict[str, float]:
    """How many times as large as patches special tokens are, by name of the layer they go into.

    A token's size is its largest magnitude, which sets its step; medians over tokens.
    """
    ratios = {}
    for site, frames in _inputs(network, check_clips(network, clips)).items():
        size = frames.abs().amax(-1)  # frames p
        special = _num_special(network, site)
        ratios[site.name] = float(size[:, :special].median() / size[:, special:].median())
    return ratios


def _scale_channels(network: Network, generator: torch.Generator, spared: int) -> None:
    """Multiply what goes into `qkv`, `proj` and `fc1` by heavy-tailed factors.

    They are the exponential of 1.2 times Student's t with 3 degrees of freedom, from 0.01 to 100.

    Args:
        spared: first channels of norms in encoder and aggregator that keep their size.
    """
    large = {id(block) for blocks in _streams(network) for block in blocks}
    for block in (m for m in network.modules() if isinstance(m, Block)):
        for norm, linear in _read_by(block):
            factors = _heavy(linear.in_features, generator)
            if id(block) in large:
                factors[:spared] = 1
            norm.weight.mul_(factors)
            norm.bias.mul_(factors)
            linear.weight.div_(factors)
        factors = _heavy(block.attn.proj.in_features, generator)
        values = slice(2 * len(factors), None)
        block.attn.qkv.weight[values].mul_(factors[:, None])
        block.attn.qkv.bias[values].mul_(factors)
        block.attn.proj.weight.div_(factors)


def _heavy(width: int, generator: torch.Generator) -> Float[Tensor, " width"]:
    normal = torch.randn(4, width, generator=generator)
    student = normal[0] / (normal[1:] ** 2).mean(0).sqrt()
    return (1.2 * student).exp().clamp(1 / LARGEST_FACTOR, LARGEST_FACTOR)


def _streams(network: Network) -> tuple[list[Block], list[Block]]:
    """Blocks of the encoder and of the aggregator: each kind adds to tokens of its own."""
    agg = network.aggregator
    of_encoder, of_aggregator = agg.patch_embed.blocks, [*agg.frame_blocks, *agg.global_blocks]
    return list(of_encoder), list(of_aggregator)  # type: ignore[arg-type]


def _read_by(block: Block) -> tuple[tuple[nn.LayerNorm, nn.Linear], ...]:
    return (block.norm1, block.attn.qkv), (block.norm2, block.mlp.fc1)


def _num_special(network: Network, site: Site) -> int:
    agg = network.aggregator
    return 1 + agg.patch_embed.num_registers if site.part == "encoder" else agg.num_special


def _inputs(
    network: Network, clips: Sequence[Tensor], *, behind_norm: bool = False
) -> dict[Site, Float[Tensor, "frames p n"]]:
    """Inputs of the layers of encoder and aggregator, of all clips.

    Args:
        behind_norm: only of those that a norm feeds.
    """
    sites = [site for site in find_sites(network) if site.part != "camera"]
    if behind_norm:
        sites = [site for site in sites if site.norm is not None]
    found: dict[Site, list[Tensor]] = {site: [] for site in sites}
    for images in clips:

        def take(site: Site, x: Tensor, images: Tensor = images) -> None:
            found[site].append(frames_of(network, site, x, images, with_special=True))

        with listening(network, sites, take):
            run_tokens(network, images)
    return {site: torch.cat(frames) for site, frames in found.items()}


def _turn_streams(network: Network, clips: Sequence[Tensor]) -> None:
    """Turn the tokens of encoder and aggregator; nothing behind them notices."""
    agg = network.aggregator
    encoder = agg.patch_embed
    inputs = _inputs(network, clips, behind_norm=True)
    in_encoder, in_aggregator = (
        _turn_of(network, {s: x for s, x in inputs.items() if (s.part == "encoder") == is_encoder})
        for is_encoder in (True, False)
    )
    for blocks, turn in zip(_streams(network), (in_encoder, in_aggregator), strict=True):
        for block in blocks:
            _turn_block(block, turn)
    for tokens in (encoder.cls_token, encoder.register_tokens, encoder.pos_embed):
        tokens.copy_(tokens @ in_encoder.T)
    projection = encoder.patch_embed.proj
    projection.weight.copy_(torch.einsum("dc,c...->d...", in_encoder, projection.weight))
    assert projection.bias is not None, "made with one"
    projection.bias.copy_(in_encoder @ projection.bias)
    for tokens in (agg.camera_token, agg.register_token):
        tokens.copy_(tokens @ in_aggregator.T)
    last = _turned_norm(encoder.norm, in_encoder.T, in_aggregator)
    encoder.norm = last  # type: ignore[assignment]
    back = torch.block_diag(in_aggregator.T, in_aggregator.T)
    head = network.camera_head
    first = _turned_norm(head.token_norm, back, torch.eye(len(back)).to(back))
    head.token_norm = first  # type: ignore[assignment]
    _turn_dense_heads(network, back)


def _turn_dense_heads(network: Network, back: Float[Tensor, "n n"]) -> None:
    """Let dense heads and tracker read turned tokens."""
    for head in (m for m in network.modules() if isinstance(m, DptFeatures)):
        for project in cast(list[nn.Conv2d], list(head.projects)):
            assert project.bias is not None, "made with one"
            matrix = project.weight[..., 0, 0]  # out n
            project.bias.add_(matrix @ head.norm.bias)
            project.weight.copy_(((matrix * head.norm.weight) @ back)[..., None, None])
        _make_plain(head.norm)


def _turn_of(
    network: Network, inputs: dict[Site, Float[Tensor, "frames p n"]]
) -> Float[Tensor, "n n"]:
    """An orthogonal matrix whose first rows are where special tokens differ most from patches.

    Its rows sum to 1, so the mean over channels stays. Directions are those of the largest ratio
    of second moments about the patches' mean, special tokens over patches, in all layers together.
    """
    n = next(iter(inputs.values())).shape[-1]
    special, patches = torch.zeros(2, n, n, dtype=torch.float64)
    for site, x in inputs.items():
        assert site.norm is not None, "only those behind norms"
        z = ((x - site.norm.bias) / site.norm.weight).double()
        count = _num_special(network, site)
        off = z - z[:, count:].mean((0, 1))
        here, there = off[:, :count].flatten(0, 1), off[:, count:].flatten(0, 1)
        special += here.T @ here / len(here)
        patches += there.T @ there / len(there)
    inverse = torch.linalg.inv(
        torch.linalg.cholesky(patches + RIDGE * patches.trace() / n * torch.eye(n).double())
    )
    directions = inverse.T @ torch.linalg.eigh(inverse @ special @ inverse.T)[1].flip(1)
    chosen = directions[:, :LARGE_CHANNELS]
    axes = torch.eye(n).double()[:, :LARGE_CHANNELS]
    start, end = (torch.linalg.qr(v - v.mean(0))[0] for v in (chosen, axes))
    turn = torch.eye(n).double()
    for i in range(LARGE_CHANNELS):  # mirrors that bring one direction after the other to its axis
        mirror = turn @ start[:, i] - end[:, i]
        turn -= 2 * mirror[:, None] * (mirror @ turn) / (mirror @ mirror)
    return turn.to(next(iter(inputs.values())))


def _turn_block(block: Block, turn: Float[Tensor, "n n"]) -> None:
    """Let a block read and write turned tokens."""
    for norm, linear in _read_by(block):
        linear.bias.add_(linear.weight @ norm.bias)
        linear.weight.copy_((linear.weight * norm.weight) @ turn.T)
        _make_plain(norm)
    for scale, linear in ((block.ls1, block.attn.proj), (block.ls2, block.mlp.fc2)):
        linear.weight.copy_(turn @ (scale.gamma[:, None] * linear.weight))
        linear.bias.copy_(turn @ (scale.gamma * linear.bias))
        scale.gamma.fill_(1)


def _turned_norm(norm: nn.LayerNorm, back: Tensor, turn: Tensor) -> nn.Sequential:
    """A norm of tokens that are turned back, and its output turned."""
    linear = nn.Linear(len(turn), len(turn), device=turn.device, dtype=turn.dtype)
    linear.weight.copy_(turn @ (norm.weight[:, None] * back))
    linear.bias.copy_(turn @ norm.bias)
    _make_plain(norm)
    return nn.Sequential(norm, linear.requires_grad_(False))


def _make_plain(norm: nn.LayerNorm) -> None:
    norm.weight.fill_(1)
    norm.bias.fill_(0)


def _enlarge_tokens(network: Network, clips: Sequence[Tensor]) -> None:
    """Multiply the channels of special tokens until patches are as large there as elsewhere."""
    for site, x in _inputs(network, clips, behind_norm=True).items():
        norm, linear = site.norm, linear_of(network, site.name)
        assert norm is not None, "only those behind norms"
        patches = x[:, _num_special(network, site) :].flatten(0, 1)
        usual = patches[:, LARGE_CHANNELS:].abs().amax(-1).median()
        centre = patches.mean(0)
        centre[LARGE_CHANNELS:] = 0
        reach = (patches - centre).abs().amax(0)
        factors = (usual / reach).clamp(min=1)
        factors[LARGE_CHANNELS:] = 1
        linear.bias.add_(linear.weight @ centre)
        linear.weight.div_(factors)
        norm.bias.copy_((norm.bias - centre) * factors)
        norm.weight.mul_(factors)
