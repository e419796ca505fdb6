"""How much memory a run will need, before it starts."""

from dataclasses import dataclass, fields

from torch import nn

from everview.model.config import Config, DenseHeadConfig, TrackHeadConfig
from everview.model.network import FRAMES_AT_ONCE
from everview.training.adapt.freezing import num_trainable
from everview.training.feed.rendering import num_clips
from everview.training.recipe.recipe import TrainingRecipe
from everview.training.recipe.settings import PATCH, Stage

FLOAT, HALF = 4, 2
"""Bytes of a number in float32."""
HALF_SHARE = 0.75
"""What bfloat16 autocast leaves of the activations of blocks; norms and residuals stay float32."""
HALF_DENSE_SHARE = 0.52
"""The same of convolutions."""
HALF_TRACKER_SHARE = 0.65
"""The same of the tracker."""
BYTES_PER_SCORE = 2 * HALF
"""Bytes that attention made of plain products keeps of each query and key (`run/precision.py`)."""
TEACHER_SHARE = 0.3
"""Activations of a forward pass without gradients, relative to one with."""


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes on the training device, per rank, at the peak of a step.

    Formulas count the tensors that autograd keeps; measured cases lie within a factor of 1.3 of
    the activations. What the allocator and kernels add (about 0.5 GB on CUDA) is not in it.
    """

    parameters: int
    """Weights in their dtypes."""
    gradients: int
    """Of what learns."""
    optimiser: int
    """Two moments of AdamW; Muon needs one less for what it changes."""
    average: int
    """Moving average of what learns."""
    activations: int
    """Kept for the way back, in the stage that needs most."""
    teacher: int
    """Its weights and its forward pass."""

    @property
    def total(self) -> int:
        """Sum of all."""
        return sum(getattr(self, field.name) for field in fields(self))


def estimate_memory(
    learner: nn.Module,
    config: Config,
    recipe: TrainingRecipe,
    *,
    num_ranks: int = 1,
    teacher_parameters: int = 0,
) -> MemoryEstimate:
    """Add up what a run of a recipe keeps on each rank.

    Args:
        learner: network and auxiliary tasks, frozen as they will be.
        config: of the network.
        recipe: images, precision, parts.
        num_ranks: that share a step, and the weights if `compute.parallel` is `fsdp`.
        teacher_parameters: bytes of the teacher's weights; 0: there is none.
    """
    shards = num_ranks if recipe.compute.parallel == "fsdp" else 1
    learning = FLOAT * num_trainable(learner) // shards
    parts = num_ranks * recipe.compute.accumulation
    on_cpu = next(learner.parameters()).device.type == "cpu"
    most = max(_activations(config, recipe, stage, parts, on_cpu) for stage in recipe.stages)
    if recipe.compute.precision == "bfloat16":  # autocast keeps its copies of weights
        most += HALF * sum(p.numel() for p in learner.parameters() if p.ndim > 1)
    forward = max(_forward(config, recipe, stage, parts) for stage in recipe.stages)
    return MemoryEstimate(
        parameters=sum(p.numel() * p.element_size() for p in learner.parameters()) // shards,
        gradients=learning,
        optimiser=2 * learning,
        average=learning,
        activations=most,
        teacher=teacher_parameters + forward if teacher_parameters else 0,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Load:
    """What a part of a step consists of."""

    images: int
    frames: int
    """Of one clip."""
    tokens: int
    """Of one image."""
    pixels: int
    """Of one image."""
    dense_images: int
    points: int
    """Tracked points of all its frames."""


def _activations(
    config: Config, recipe: TrainingRecipe, stage: Stage, parts: int, on_cpu: bool
) -> int:
    """Of the largest part of a step, going backward."""
    load = _load(recipe, stage, parts)
    is_half = recipe.compute.precision == "bfloat16"
    blocks, one_block = _blocks(config, load)
    dense, one_chunk = _dense(config, load)
    share, dense_share = (HALF_SHARE, HALF_DENSE_SHARE) if is_half else (1.0, 1.0)
    tracker = _tracker(config, load) * (HALF_TRACKER_SHARE if is_half else 1.0)
    scores, most_scores = _attention_scores(config, load) if is_half and on_cpu else (0.0, 0.0)
    if recipe.compute.checkpoint_activations:  # not of the tracker
        agg = config.aggregator
        inputs = FLOAT * load.images * load.tokens * agg.embed_dim
        kept = inputs * (2 * agg.depth + config.patch_embed.depth + 2 * len(config.layers))
        return int(kept + share * one_block + most_scores + dense_share * one_chunk + tracker)
    return int(share * blocks + dense_share * dense + tracker + scores)


def _forward(config: Config, recipe: TrainingRecipe, stage: Stage, parts: int) -> int:
    """Of a teacher of the same architecture, which gives maps of all images."""
    load = _load(recipe, stage, parts)
    _, one_block = _blocks(config, load)
    _, one_chunk = _dense(config, load)
    maps = 10 * FLOAT * load.images * load.pixels
    return int(TEACHER_SHARE * (one_block + one_chunk) + maps)


def _load(recipe: TrainingRecipe, stage: Stage, parts: int) -> _Load:
    data = recipe.data
    pixels = max(data.heights) * data.width
    lengths = range(stage.frames[0], stage.frames[1] + 1)
    images = max(length * num_clips(stage, length, parts) // parts for length in lengths)
    dense = images
    if stage.dense_images is not None:
        dense = min(images, -(-stage.dense_images * images // stage.images))
    return _Load(
        images=images,
        frames=stage.frames[1],
        tokens=pixels // PATCH**2,
        pixels=pixels,
        dense_images=dense,
        points=images * data.tracked_points if stage.track_every else 0,
    )


def _blocks(config: Config, load: _Load) -> tuple[float, float]:
    """All blocks of encoder, aggregator and camera head; one block.

    A block keeps per token and channel its two inputs, norms, queries, keys and values before and
    after norm and rotation (about 12.5 numbers), and two layers of its MLP.
    """
    agg, camera = config.aggregator, config.camera_head
    tokens = load.images * (load.tokens + 1 + agg.num_register_tokens)
    one = FLOAT * (12.5 + 2 * agg.mlp_ratio) * tokens * agg.embed_dim
    trunk = FLOAT * (12.5 + 2 * camera.mlp_ratio) * load.images * camera.dim_in
    count = 2 * agg.depth + config.patch_embed.depth
    return count * one + camera.num_iterations * camera.trunk_depth * 1.2 * trunk, one


def _attention_scores(config: Config, load: _Load) -> tuple[float, float]:
    """What plain attention keeps for pairs of query and key: all blocks; the one that has most."""
    agg, encoder = config.aggregator, config.patch_embed
    tokens = load.tokens + 1 + agg.num_register_tokens
    one_head = BYTES_PER_SCORE * load.images * tokens**2  # of which each token sees its own frame
    seen = load.frames if config.attention == "global" else (load.frames + 1) / 2
    heads = encoder.num_heads * encoder.depth + agg.num_heads * agg.depth * (1 + seen)
    return one_head * heads, one_head * agg.num_heads * seen


def _dense(config: Config, load: _Load) -> tuple[float, float]:
    """All dense heads; one head for as many frames as it handles at a time."""
    heads = [head for head in (config.depth_head, config.point_head) if head is not None]
    at_once = min(FRAMES_AT_ONCE, load.images)
    whole = sum(_numbers_per_pixel(head) * load.dense_images for head in heads)
    chunk = max((_numbers_per_pixel(head) * at_once for head in heads), default=0.0)
    if config.track_head is not None and load.points:
        whole += _numbers_per_pixel(config.track_head) * load.images
    return FLOAT * load.pixels * whole, FLOAT * load.pixels * chunk


def _numbers_per_pixel(head: DenseHeadConfig | TrackHeadConfig) -> float:
    """Full-size maps of a dense head (its last stages have 32 channels), coarser ones by area."""
    if isinstance(head, TrackHeadConfig):
        return 1.55 * head.features
    return 2.16 * head.features + 33.5


def _tracker(config: Config, load: _Load) -> float:
    """Points and virtual tracks in every round and layer of the update transformer."""
    head = config.track_head
    if head is None or not load.points:
        return 0.0
    tokens = 57 * load.points + 51 * (load.points + load.images * head.num_virtual_tracks)
    return FLOAT * tokens * head.hidden_size * head.depth * head.iters
