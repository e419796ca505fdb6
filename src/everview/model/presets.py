"""The known sizes, as data."""

from dataclasses import dataclass, replace
from types import MappingProxyType

from everview.model.config import (
    AggregatorConfig,
    CameraHeadConfig,
    Config,
    DenseHeadConfig,
    PatchEncoderConfig,
    TrackHeadConfig,
)


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """The numbers in which small networks differ."""

    width: int
    encoder_depth: int
    depth: int
    heads: int
    image: int
    features: int
    channels: tuple[int, int, int, int]
    layers: tuple[int, int, int, int]


def _small(sizes: _Sizes, tracker: TrackHeadConfig) -> Config:
    """A causal network below the published size."""
    dense = DenseHeadConfig(
        dim_in=2 * sizes.width,
        features=sizes.features,
        out_channels=sizes.channels,
        intermediate_layer_idx=sizes.layers,
    )
    return Config(
        attention="causal",
        patch_embed=PatchEncoderConfig(
            img_size=sizes.image,
            embed_dim=sizes.width,
            depth=sizes.encoder_depth,
            num_heads=sizes.heads,
        ),
        aggregator=AggregatorConfig(
            embed_dim=sizes.width, depth=sizes.depth, num_heads=sizes.heads
        ),
        camera_head=CameraHeadConfig(dim_in=2 * sizes.width, trunk_depth=2, num_heads=sizes.heads),
        depth_head=dense,
        point_head=replace(dense, output_dim=4, activation="inv_log"),
        track_head=replace(
            tracker,
            dim_in=dense.dim_in,
            features=dense.features,
            out_channels=dense.out_channels,
            intermediate_layer_idx=dense.intermediate_layer_idx,
        ),
    )


MINI = _Sizes(
    width=192, encoder_depth=4, depth=6, heads=6, image=140, features=48,
    channels=(48, 64, 96, 96), layers=(1, 3, 4, 5),
)  # fmt: skip
MINI_TRACKER = TrackHeadConfig(
    corr_levels=4, corr_radius=3, hidden_size=96, depth=2, num_heads=4, num_virtual_tracks=16,
    max_scale=140.0,
)  # fmt: skip
TINY = _Sizes(
    width=32, encoder_depth=2, depth=4, heads=2, image=56, features=16,
    channels=(8, 12, 16, 16), layers=(0, 1, 2, 3),
)  # fmt: skip
TINY_TRACKER = TrackHeadConfig(
    corr_levels=3, corr_radius=3, hidden_size=32, depth=2, num_heads=4, num_virtual_tracks=16,
    max_scale=56.0,
)  # fmt: skip

presets: MappingProxyType[str, Config] = MappingProxyType(
    {
        "vggt-1b": Config(attention="global"),
        "streamvggt-1b": Config(attention="causal"),
        "mini": _small(MINI, MINI_TRACKER),
        "tiny": _small(TINY, TINY_TRACKER),
    }
)
"""Name -> Config. `vggt-1b` and `streamvggt-1b` have the published sizes and parameter names; the
small ones have trackers whose pyramid fits their image size."""
