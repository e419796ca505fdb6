"""Dense heads (DPT): tokens of four layers to a map per frame."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from everview.model.config import DenseHeadConfig, TrackHeadConfig

LAST_CHANNELS = 32
"""Channels inside the last convolution; the same at every size of network."""


class ResidualUnit(nn.Module):
    """conv2(relu(conv1(relu(z)))) + relu(z).

    The skip path adds relu(z), not z: the published weights were trained with an activation that
    overwrote its input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, z: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Same shape."""
        z = F.relu(z)
        return self.conv2(F.relu(self.conv1(z))) + z


class Fusion(nn.Module):
    """Adds a finer level to the coarser ones, then upsamples."""

    def __init__(self, channels: int, *, coarsest: bool) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(channels, channels, 1)
        if not coarsest:
            self.resConfUnit1 = ResidualUnit(channels)
        self.resConfUnit2 = ResidualUnit(channels)

    def forward(
        self, level: Tensor, coarser: Tensor | None, size: tuple[int, int]
    ) -> Float[Tensor, "n c height width"]:
        """Fuse, then resize bilinearly to `size` (height, width)."""
        y = level if coarser is None else coarser + self.resConfUnit1(level)
        y = F.interpolate(self.resConfUnit2(y), size=size, mode="bilinear", align_corners=True)
        return self.out_conv(y)


class DptFeatures(nn.Module):
    """The part that the dense heads and the tracker share: tokens to one feature map per frame.

    Source: DPT (arXiv 2103.13413) Sec. 3.1; VGGT Sec. 3.3, dense predictions.
    """

    def __init__(self, config: DenseHeadConfig | TrackHeadConfig, patch_size: int) -> None:
        super().__init__()
        features, channels = config.features, config.out_channels
        self.layers = config.intermediate_layer_idx
        self.patch_size = patch_size
        self.down_ratio = config.down_ratio
        self.pos_embed = config.pos_embed
        self.norm = nn.LayerNorm(config.dim_in)
        self.projects = nn.ModuleList(nn.Conv2d(config.dim_in, c, 1) for c in channels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(channels[0], channels[0], 4, stride=4),
                nn.ConvTranspose2d(channels[1], channels[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(channels[3], channels[3], 3, stride=2, padding=1),
            ]
        )
        self.scratch: Any = nn.Module()  # its parts have the published, numbered names
        for k, c in enumerate(channels, start=1):
            conv = nn.Conv2d(c, features, 3, padding=1, bias=False)
            self.scratch.add_module(f"layer{k}_rn", conv)
        for k in range(1, 5):
            self.scratch.add_module(f"refinenet{k}", Fusion(features, coarsest=k == 4))
        out = features if isinstance(config, TrackHeadConfig) else features // 2
        self.scratch.output_conv1 = nn.Conv2d(features, out, 3, padding=1)

    def forward(
        self, tokens: Mapping[int, Float[Tensor, "n p c"]], image_size: tuple[int, int]
    ) -> Float[Tensor, "n f height width"]:
        """Feature map at the image size divided by `down_ratio`."""
        levels = self.levels(tokens, image_size)
        x = self.scratch.output_conv1(self.fuse(levels))
        size = (image_size[0] // self.down_ratio, image_size[1] // self.down_ratio)
        x = F.interpolate(x, size=size, mode="bilinear", align_corners=True)
        return self._add_position(x, image_size)

    def levels(
        self, tokens: Mapping[int, Float[Tensor, "n p c"]], image_size: tuple[int, int]
    ) -> list[Float[Tensor, "n _ _ _"]]:
        """The four levels, fine to coarse, each with its own number of channels."""
        grid = (image_size[0] // self.patch_size, image_size[1] // self.patch_size)
        num_patches = grid[0] * grid[1]
        levels = []
        for layer, project, resize in zip(
            self.layers, self.projects, self.resize_layers, strict=True
        ):
            x = self.norm(tokens[layer][:, -num_patches:].to(self.norm.weight.dtype))
            x = project(x.transpose(1, 2).unflatten(2, grid))  # n c h w
            levels.append(resize(self._add_position(x, image_size)))
        return levels

    def fuse(self, levels: list[Float[Tensor, "n _ _ _"]]) -> Float[Tensor, "n f height width"]:
        """From coarse to fine, ending at twice the size of the finest level."""
        narrow = [getattr(self.scratch, f"layer{k}_rn")(x) for k, x in enumerate(levels, start=1)]
        y: Tensor | None = None
        for k in (4, 3, 2, 1):
            height, width = narrow[k - 2].shape[-2:] if k > 1 else narrow[0].shape[-2:]
            size = (height, width) if k > 1 else (2 * height, 2 * width)
            y = getattr(self.scratch, f"refinenet{k}")(narrow[k - 1], y, size)
        assert y is not None, "the loop ran"
        return y

    def _add_position(self, x: Tensor, image_size: tuple[int, int]) -> Tensor:
        if not self.pos_embed:
            return x
        along_x, along_y = uv_embedding(x, aspect=image_size[1] / image_size[0])
        half = x.shape[1] // 2
        return torch.cat(
            [x[:, :half] + 0.1 * along_x[:, None, :], x[:, half:] + 0.1 * along_y[:, :, None]],
            dim=1,
        )


class DenseHead(DptFeatures):
    """A map of values with a confidence: depth, or points in the first camera's frame."""

    def __init__(self, config: DenseHeadConfig, patch_size: int) -> None:
        super().__init__(config, patch_size)
        self.activation = config.activation
        self.scratch.output_conv2 = nn.Sequential(
            nn.Conv2d(config.features // 2, LAST_CHANNELS, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(LAST_CHANNELS, config.output_dim, 1),
        )

    def predict(
        self, tokens: Mapping[int, Float[Tensor, "n p c"]], image_size: tuple[int, int]
    ) -> tuple[Float[Tensor, "n H W _"], Float[Tensor, "n H W"]]:
        """Values and their confidence (>= 1) for every pixel."""
        logits = self.scratch.output_conv2(self(tokens, image_size))
        values, confidence = logits[:, :-1].permute(0, 2, 3, 1), logits[:, -1]
        return _activate(values, self.activation), 1 + confidence.exp()


def _activate(z: Tensor, kind: str) -> Tensor:
    return z.exp() if kind == "exp" else z.sign() * z.abs().expm1()


def uv_embedding(
    like: Float[Tensor, "n c h w"], *, aspect: float
) -> tuple[Float[Tensor, "half w"], Float[Tensor, "half h"]]:
    """Sine and cosine of the position in the image, apart for x and y, half the channels each.

    The full embedding of c channels is [sin x, cos x, sin y, cos y]; a channel depends on one axis
    only, so the two halves are kept as rows and broadcast.

    Args:
        like: the map to which it will be added; gives size, channels, dtype and device.
        aspect: width / height of the image, at every level.

    Source: VGGT dense heads; base frequency 100, coordinates on the unit diagonal.
    """
    c, h, w = like.shape[1:]
    diagonal = (aspect**2 + 1) ** 0.5
    frequencies = 100 ** -(torch.arange(c // 4, dtype=torch.float64, device=like.device) / (c / 4))
    rows = []
    for cells, extent in ((w, aspect / diagonal), (h, 1 / diagonal)):
        edge = extent * (cells - 1) / cells
        at = torch.linspace(-edge, edge, cells, dtype=torch.float32, device=like.device)
        phase = frequencies[:, None] * at.double()
        rows.append(torch.cat([phase.sin(), phase.cos()]).float().to(like.dtype))
    return rows[0], rows[1]
