"""Config: the architecture as data, in the schema of a model folder's `config.json`."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from everview.errors import ConfigError

FORMAT = 1
"""Version of the `config.json` schema that this package reads and writes."""

NOT_ARCHITECTURE = frozenset(
    {"model", "num_parameters", "weights_storage_dtype", "cases", "info", "quantization"}
)
"""Keys of a `config.json` that describe the file, not the network; ignored here."""


@dataclass(frozen=True, kw_only=True)
class PatchEncoderConfig:
    """The DINOv2-shaped encoder that turns each frame into patch tokens."""

    type: str = "dinov2_reg"
    """Kind of encoder; only DINOv2 with registers exists."""
    img_size: int = 518
    """Side in pixels of the square image that the position embedding belongs to."""
    embed_dim: int = 1024
    """Channels of a token; equals the aggregator's."""
    depth: int = 24
    """Number of blocks."""
    num_heads: int = 16
    """Attention heads."""
    mlp_ratio: float = 4.0
    """Hidden channels of the MLP per channel."""
    num_register_tokens: int = 4
    """Register tokens inside the encoder; dropped at its end."""
    interpolate_antialias: bool = True
    """Antialiased bicubic resize of the position embedding."""
    interpolate_offset: float = 0.0
    """Only 0: the resize is given the output size."""
    norm_eps: float = 1e-6
    """Epsilon of all its LayerNorms."""


@dataclass(frozen=True, kw_only=True)
class AggregatorConfig:
    """The alternating frame and global attention blocks."""

    embed_dim: int = 1024
    """Channels of a token."""
    depth: int = 24
    """Number of pairs of one frame block and one global block."""
    num_heads: int = 16
    """Attention heads; channels per head must be a multiple of 4."""
    mlp_ratio: float = 4.0
    """Hidden channels of the MLP per channel."""
    num_register_tokens: int = 4
    """Register tokens per frame, beside the camera token."""
    qk_norm: bool = True
    """LayerNorm of queries and keys, per head."""
    rope_freq: float = 100.0
    """Base frequency of the rotary embedding."""
    aa_order: tuple[str, ...] = ("frame", "global")
    """Order of the two kinds of blocks; only frame, then global."""
    aa_block_size: int = 1
    """Blocks of one kind in a row; only 1."""
    norm_eps: float = 1e-5
    """Epsilon of its LayerNorms, q_norm and k_norm included."""


@dataclass(frozen=True, kw_only=True)
class CameraHeadConfig:
    """The head that refines the pose encoding of each frame."""

    dim_in: int = 2048
    """Channels of its input: twice the aggregator's."""
    trunk_depth: int = 4
    """Number of blocks, run once per refinement round."""
    num_heads: int = 16
    """Attention heads."""
    mlp_ratio: float = 4.0
    """Hidden channels of the MLP per channel."""
    num_iterations: int = 4
    """Refinement rounds."""


@dataclass(frozen=True, kw_only=True)
class DenseHeadConfig:
    """A DPT head: four layers of tokens to one dense map."""

    dim_in: int = 2048
    """Channels of its input: twice the aggregator's."""
    features: int = 256
    """Channels of the fusion stages."""
    out_channels: tuple[int, ...] = (256, 512, 1024, 1024)
    """Channels of the four levels, fine to coarse."""
    intermediate_layer_idx: tuple[int, ...] = (4, 11, 17, 23)
    """Which aggregator layers (pairs, from 0) feed the four levels."""
    output_dim: int = 2
    """Channels of the map, the last one being the confidence logit."""
    activation: str = "exp"
    """How values leave: exp (depth) or sign(z) * expm1(|z|) (points)."""
    conf_activation: str = "expp1"
    """How confidence leaves: 1 + exp."""
    pos_embed: bool = True
    """Whether the UV position embedding is added."""
    down_ratio: int = 1
    """Image pixels per map pixel."""


@dataclass(frozen=True, kw_only=True)
class TrackHeadConfig:
    """DPT features at reduced resolution and the iterative tracker on them."""

    dim_in: int = 2048
    """Channels of its input: twice the aggregator's."""
    features: int = 128
    """Channels of the feature maps and of a point's feature."""
    out_channels: tuple[int, ...] = (256, 512, 1024, 1024)
    """Channels of the four levels, fine to coarse."""
    intermediate_layer_idx: tuple[int, ...] = (4, 11, 17, 23)
    """Which aggregator layers (pairs, from 0) feed the four levels."""
    pos_embed: bool = False
    """Whether the UV position embedding is added to the feature maps."""
    down_ratio: int = 2
    """Image pixels per feature pixel; equals `stride`."""
    iters: int = 4
    """Refinement rounds."""
    stride: int = 2
    """Image pixels per feature pixel."""
    corr_levels: int = 7
    """Levels of the correlation pyramid; the coarsest needs at least one cell per axis."""
    corr_radius: int = 4
    """Half side of the correlation window, in cells."""
    hidden_size: int = 384
    """Channels of the update transformer."""
    depth: int = 6
    """Number of time blocks, and of space stages."""
    num_heads: int = 8
    """Attention heads of the update transformer."""
    num_virtual_tracks: int = 64
    """Learned tracks through which points exchange information."""
    mlp_ratio: float = 4.0
    """Hidden channels of the MLPs per channel."""
    max_scale: float = 518.0
    """Motion is given to the transformer in units of this many feature pixels."""
    predict_conf: bool = True
    """Whether there is a confidence beside the visibility."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole network. `attention` tells VGGT ("global") from StreamVGGT ("causal").

    Nested parts may be given as mappings. A head set to None is not built.

    Raises:
        ConfigError: if a key is unknown or values contradict each other, by name.
    """

    attention: Literal["global", "causal"] = "causal"
    """Which frames a token sees in global blocks and camera head: all, or its own and earlier."""
    patch_size: int = 14
    """Side of a patch in pixels."""
    patch_embed: PatchEncoderConfig = field(default_factory=PatchEncoderConfig)
    aggregator: AggregatorConfig = field(default_factory=AggregatorConfig)
    camera_head: CameraHeadConfig = field(default_factory=CameraHeadConfig)
    depth_head: DenseHeadConfig | None = field(default_factory=DenseHeadConfig)
    point_head: DenseHeadConfig | None = field(
        default_factory=lambda: DenseHeadConfig(output_dim=4, activation="inv_log")
    )
    track_head: TrackHeadConfig | None = field(default_factory=TrackHeadConfig)

    def __post_init__(self) -> None:
        """Build nested parts from mappings and refuse what cannot work."""
        for name, part in _with_parts({name: getattr(self, name) for name in PARTS}).items():
            object.__setattr__(self, name, part)
        _check(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """Read the content of a `config.json`.

        Raises:
            ConfigError: if the format is unknown, a key is unknown or a value impossible.
        """
        values = dict(values)
        found = values.pop("format", FORMAT)
        if found != FORMAT:
            raise ConfigError(
                f"config format {found!r} is unknown, this version reads {FORMAT}; "
                "update everview (pip install -U everview)"
            )
        model = values.get("model")
        if "attention" not in values and model in ("vggt", "streamvggt"):
            values["attention"] = "global" if model == "vggt" else "causal"
        kept = {key: value for key, value in values.items() if key not in NOT_ARCHITECTURE}
        return _read(cls, _with_parts(kept), "config")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a `config.json`; `from_dict` reads them back."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @property
    def layers(self) -> tuple[int, ...]:
        """The aggregator layers (pairs, from 0) that any head reads, ascending."""
        heads = [h for h in (self.depth_head, self.point_head, self.track_head) if h is not None]
        dense = {i for head in heads for i in head.intermediate_layer_idx}
        return tuple(sorted(dense | {self.aggregator.depth - 1}))


PARTS: dict[str, type] = {
    "patch_embed": PatchEncoderConfig,
    "aggregator": AggregatorConfig,
    "camera_head": CameraHeadConfig,
    "depth_head": DenseHeadConfig,
    "point_head": DenseHeadConfig,
    "track_head": TrackHeadConfig,
}


def _with_parts(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings become the dataclasses that they describe."""
    return {
        name: _read(PARTS[name], value, name) if isinstance(value, Mapping) else value
        for name, value in values.items()
    }


def _read(kind: type, values: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401
    """Make a config dataclass from a mapping; lists become tuples."""
    known = {f.name for f in dataclasses.fields(kind)}
    unknown = sorted(values.keys() - known)
    if unknown:
        raise ConfigError(f"{name} has no key {unknown[0]!r}; it has {', '.join(sorted(known))}")
    frozen = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return kind(**frozen)


def _check(config: Config) -> None:
    """Refuse settings that cannot work, here and not in the middle of a forward pass."""
    agg, enc = config.aggregator, config.patch_embed
    _require(
        config.attention in ("global", "causal"),
        f"attention must be 'global' or 'causal', got {config.attention!r}",
    )
    _require(enc.type == "dinov2_reg", f"patch_embed.type must be 'dinov2_reg', got {enc.type!r}")
    _require(
        enc.embed_dim == agg.embed_dim,
        f"patch_embed.embed_dim {enc.embed_dim} must equal aggregator.embed_dim {agg.embed_dim}",
    )
    _require(
        enc.img_size % config.patch_size == 0,
        f"patch_embed.img_size {enc.img_size} must be a multiple of patch_size {config.patch_size}",
    )
    _require(
        enc.embed_dim % enc.num_heads == 0,
        f"patch_embed: {enc.embed_dim} channels cannot be split into {enc.num_heads} heads",
    )
    _require(enc.interpolate_offset == 0, "patch_embed.interpolate_offset must be 0")
    _require(
        agg.embed_dim % (4 * agg.num_heads) == 0,
        f"aggregator.embed_dim {agg.embed_dim} must be a multiple of 4 * num_heads "
        f"({4 * agg.num_heads}): rotary embedding needs it",
    )
    _require(
        agg.aa_order == ("frame", "global") and agg.aa_block_size == 1,
        "aggregator.aa_order must be ['frame', 'global'] with aa_block_size 1",
    )
    for name in ("camera_head", "depth_head", "point_head", "track_head"):
        _check_head(name, getattr(config, name), agg)


def _check_head(name: str, head: Any, aggregator: AggregatorConfig) -> None:  # noqa: ANN401
    if head is None:
        _require(name != "camera_head", "camera_head cannot be left out")
        return
    expected = 2 * aggregator.embed_dim
    _require(
        head.dim_in == expected, f"{name}.dim_in must be 2 * embed_dim = {expected}: {head.dim_in}"
    )
    layers = getattr(head, "intermediate_layer_idx", (0, 0, 0, 0))
    _require(
        len(layers) == 4 and all(0 <= i < aggregator.depth for i in layers),
        f"{name}.intermediate_layer_idx must be 4 layers within 0..{aggregator.depth - 1}, "
        f"got {list(layers)}",
    )
    _check_numbers(name, head)
    if isinstance(head, TrackHeadConfig):
        _require(
            head.down_ratio == head.stride,
            f"track_head.down_ratio {head.down_ratio} must equal track_head.stride {head.stride}",
        )


def _check_numbers(name: str, head: Any) -> None:  # noqa: ANN401
    """Counts, divisibility and kinds of activation of one head."""
    for key in ("num_iterations", "iters", "trunk_depth", "corr_levels", "num_virtual_tracks"):
        _require(getattr(head, key, 1) >= 1, f"{name}.{key} must be at least 1")
    if isinstance(head, DenseHeadConfig):
        _require(
            head.activation in ("exp", "inv_log") and head.conf_activation == "expp1",
            f"{name}.activation must be 'exp' or 'inv_log' and conf_activation 'expp1', got "
            f"{head.activation!r} and {head.conf_activation!r}",
        )
        _require(head.down_ratio == 1, f"{name}.down_ratio must be 1, got {head.down_ratio}")
        _require(head.output_dim >= 2, f"{name}.output_dim must be at least 2")
        _require(head.features % 2 == 0, f"{name}.features must be even, got {head.features}")
        embedded = (*head.out_channels, head.features // 2) if head.pos_embed else ()
        _require(
            all(channels % 4 == 0 for channels in embedded),
            f"{name}.out_channels and features / 2 must be multiples of 4 for the position "
            f"embedding, got {list(head.out_channels)} and {head.features}",
        )
    if isinstance(head, TrackHeadConfig):
        _require(head.features % 4 == 0, f"{name}.features must be a multiple of 4")
    heads, width = getattr(head, "num_heads", 1), getattr(head, "hidden_size", head.dim_in)
    _require(width % heads == 0, f"{name}: {width} channels cannot be split into {heads} heads")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)
