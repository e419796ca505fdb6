"""The known sizes, as data."""

from types import MappingProxyType

from everview.model.config import (
    AggregatorConfig,
    CameraHeadConfig,
    Config,
    DenseHeadConfig,
    PatchEncoderConfig,
    TrackHeadConfig,
)


def _small(
    *, width: int, encoder_depth: int, depth: int, heads: int, image: int, features: int,
    channels: tuple[int, int, int, int], layers: tuple[int, int, int, int], corr_levels: int,
    tracker_width: int,
) -> Config:  # fmt: skip
    """A causal network below the published size; the tracker's pyramid fits its image size."""
    dense = {
        "dim_in": 2 * width, "features": features, "out_channels": channels,
        "intermediate_layer_idx": layers,
    }  # fmt: skip
    return Config(
        attention="causal",
        patch_embed=PatchEncoderConfig(
            img_size=image, embed_dim=width, depth=encoder_depth, num_heads=heads
        ),
        aggregator=AggregatorConfig(embed_dim=width, depth=depth, num_heads=heads),
        camera_head=CameraHeadConfig(dim_in=2 * width, trunk_depth=2, num_heads=heads),
        depth_head=DenseHeadConfig(**dense),
        point_head=DenseHeadConfig(**dense, output_dim=4, activation="inv_log"),
        track_head=TrackHeadConfig(
            **dense, corr_levels=corr_levels, corr_radius=3, hidden_size=tracker_width, depth=2,
            num_heads=4, num_virtual_tracks=16, max_scale=image,
        ),
    )  # fmt: skip


presets = MappingProxyType(
    {
        "vggt-1b": Config(attention="global"),
        "streamvggt-1b": Config(attention="causal"),
        "mini": _small(
            width=128, encoder_depth=4, depth=5, heads=4, image=140, features=32,
            channels=(32, 48, 64, 64), layers=(1, 2, 3, 4), corr_levels=4, tracker_width=96,
        ),
        "tiny": _small(
            width=32, encoder_depth=2, depth=4, heads=2, image=56, features=16,
            channels=(8, 12, 16, 16), layers=(0, 1, 2, 3), corr_levels=3, tracker_width=32,
        ),
    }
)  # fmt: skip
"""Name -> Config. `vggt-1b` and `streamvggt-1b` have the published sizes and parameter names."""
