"""The track head: follows query points over frames by iterative refinement."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from everview.errors import ConfigError
from everview.model.config import TrackHeadConfig
from everview.model.heads.correlation import CorrelationPyramid, sample_bilinear
from everview.model.heads.dense import DptFeatures
from everview.model.heads.update_transformer import UpdateTransformer
from everview.model.layers.block import Mlp

Tracks = tuple[Tensor, Tensor, Tensor | None]
"""Tracks of every round (rounds b s t 2) in pixels; visibility and confidence logits (b s t)."""


class TrackHead(nn.Module):
    """Feature maps and the tracker on them."""

    def __init__(self, config: TrackHeadConfig, patch_size: int) -> None:
        super().__init__()
        self.feature_extractor = DptFeatures(config, patch_size)
        self.tracker = Tracker(config)


class Tracker(nn.Module):
    """Refines tracks from correlation with the query's feature, motion and all other tracks.

    All frames given are used for every track, later ones too, and queries influence each other.

    Source: CoTracker2 (arXiv 2307.07635) Sec. 3; VGGT Sec. 3.3, tracking.
    """

    def __init__(self, config: TrackHeadConfig) -> None:
        super().__init__()
        latent = config.features
        self.config = config
        window = (2 * config.corr_radius + 1) ** 2
        width = 3 * latent + 4  # motion (latent + 4), correlation, feature
        self.query_ref_token = nn.Parameter(torch.zeros(1, 2, width))
        self.corr_mlp = Mlp(config.corr_levels * window, config.hidden_size, latent)
        self.updateformer = UpdateTransformer(config, dim_in=width, dim_out=latent + 2)
        self.fmap_norm = nn.LayerNorm(latent)
        self.ffeat_norm = nn.GroupNorm(1, latent)
        self.ffeat_updater = nn.Sequential(nn.Linear(latent, latent), nn.GELU())
        self.vis_predictor = nn.Sequential(nn.Linear(latent, 1))
        if config.predict_conf:
            self.conf_predictor = nn.Sequential(nn.Linear(latent, 1))

    def forward(
        self,
        feature_maps: Float[Tensor, "b s c h w"],
        queries: Float[Tensor, "b t 2"],
    ) -> Tracks:
        """Follow points of frame 0 through the others.

        Args:
            feature_maps: of the track head's feature extractor, before their norm.
            queries: pixel (x, y) in frame 0.

        Raises:
            ConfigError: if the maps are too small for the pyramid.
        """
        stride = self.config.stride
        maps = self.fmap_norm(feature_maps.movedim(2, -1)).movedim(-1, 2)
        self.check_size(maps)
        s = maps.shape[1]
        start = (queries / stride).to(maps.dtype)  # b t 2, feature pixels
        coords = start[:, None].expand(-1, s, -1, -1)  # b s t 2
        feature = sample_bilinear(maps[:, 0], start)  # b t c
        feature = feature[:, None].expand(-1, s, -1, -1)  # b s t c
        pyramid = CorrelationPyramid(maps, self.config.corr_levels, self.config.corr_radius)
        at_query = self._query_embedding(start, maps.shape[-2:], s)  # b s t width
        rounds = []
        for _ in range(self.config.iters):
            coords, feature = self._refine(pyramid, coords.detach(), feature, at_query)
            coords = torch.cat([start[:, None], coords[:, 1:]], dim=1)
            rounds.append(coords * stride)
        visibility = self.vis_predictor(feature).squeeze(-1)
        if not self.config.predict_conf:
            return torch.stack(rounds), visibility, None
        return torch.stack(rounds), visibility, self.conf_predictor(feature).squeeze(-1)

    def _refine(
        self, pyramid: CorrelationPyramid, coords: Tensor, feature: Tensor, at_query: Tensor
    ) -> tuple[Float[Tensor, "b s t 2"], Float[Tensor, "b s t c"]]:
        """One round: new coordinates and features."""
        correlation = self.corr_mlp(pyramid.sample(feature, coords))  # b s t c
        motion = motion_embedding(
            coords - coords[:, :1], channels=self.config.features // 2,
            max_scale=self.config.max_scale,
        )  # fmt: skip
        z = torch.cat([motion, correlation, feature], dim=-1) + at_query  # b s t width
        change = self.updateformer(z.transpose(1, 2)).transpose(1, 2)  # b s t (2 + c)
        normed = self.ffeat_norm(change[..., 2:].flatten(0, 2)).view_as(feature)
        return coords + change[..., :2], feature + self.ffeat_updater(normed)

    def _query_embedding(
        self, start: Tensor, size: torch.Size, num_frames: int
    ) -> Float[Tensor, "b s t c"]:
        """Where the query lies, and whether a frame is the query's own."""
        position = position_embedding(start, (size[0], size[1]), self.query_ref_token.shape[-1])
        first, other = self.query_ref_token[:, :1], self.query_ref_token[:, 1:]
        tokens = torch.cat([first, other.expand(-1, num_frames - 1, -1)], dim=1)  # 1 s width
        return position[:, None] + tokens[:, :, None]

    def check_size(self, maps: Float[Tensor, "*batch c h w"]) -> None:
        """Refuse maps too small for the pyramid, with a ConfigError that says which size fits."""
        needed = 2 ** (self.config.corr_levels - 1)
        if min(maps.shape[-2:]) < needed:
            pixels, stride = needed * self.config.stride, self.config.stride
            raise ConfigError(
                f"tracking needs images of at least {pixels} x {pixels} pixels for this network's "
                f"{self.config.corr_levels} correlation levels; got "
                f"{maps.shape[-2] * stride} x {maps.shape[-1] * stride}: use a larger size"
            )


def motion_embedding(
    motion: Float[Tensor, "*batch 2"], *, channels: int, max_scale: float
) -> Float[Tensor, "*batch c"]:
    """Sines and cosines of the motion in feature pixels, x before y, then the motion itself, twice.

    Frequencies are linear, up to about 1000 radians per pixel, as the published weights need.

    Args:
        motion: displacement (x, y) since the query's frame.
        channels: per axis.
        max_scale: unit of the four plain numbers at the end.
    """
    k = torch.arange(channels // 2, dtype=motion.dtype, device=motion.device)
    phase = motion[..., None] * (2000 * k / channels)  # *batch 2 channels/2
    waves = torch.stack([phase.sin(), phase.cos()], dim=-1).flatten(-3)  # sin, cos interleaved
    plain = motion / max_scale
    return torch.cat([waves, plain, plain], dim=-1)


def position_embedding(
    at: Float[Tensor, "b t 2"], size: tuple[int, int], channels: int
) -> Float[Tensor, "b t c"]:
    """A table of sines and cosines of integer cells, sampled bilinearly at (x, y).

    A channel of the table depends on one axis only, so bilinear sampling is linear interpolation
    between two cells of that axis, and the table itself need not exist.

    Args:
        at: (x, y) in cells; clamped to the table's border.
        size: (height, width) of the table.
        channels: half of them for each axis, [sin x, cos x, sin y, cos y].
    """
    quarter = channels // 4
    k = torch.arange(quarter, dtype=torch.float64, device=at.device)
    frequencies = 10000 ** -(k / quarter)
    last = (size[1] - 1, size[0] - 1)
    at = torch.stack([at[..., axis].clamp(0, last[axis]) for axis in (0, 1)], dim=-1)
    low = at.floor()
    high = torch.stack([(low[..., axis] + 1).clamp_max(last[axis]) for axis in (0, 1)], dim=-1)
    weight = (at - low)[..., None]  # b t 2 1

    def waves(cell: Tensor) -> Tensor:
        phase = cell.double()[..., None] * frequencies  # b t 2 quarter
        return torch.cat([phase.sin(), phase.cos()], dim=-1).float().to(at.dtype)

    return torch.lerp(waves(low), waves(high), weight).flatten(-2)
