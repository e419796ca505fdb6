"""Settings of a training run, part by part. Every field is checked when it is set."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from everview.errors import ConfigError
from everview.training.degrade import Faults
from everview.training.losses.distillation import DISTILLATION, SUPERVISION
from everview.world.kinds import KINDS
from everview.world.motion import MOTIONS

TRUTH_LOSSES = ("procedural", *SUPERVISION)
"""Losses with ground truth, by name."""
PATCH = 14
"""Sides of training images are multiples of it in all presets."""


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Low-rank updates beside frozen weights, merged when the model is saved.

    Source: LoRA (arXiv 2106.09685) Eq. 3.
    """

    rank: int = 16
    """Channels of the update."""
    alpha: float = 16.0
    """The update counts alpha / rank."""
    layers: tuple[str, ...] = ("aggregator.*_blocks.*",)
    """Patterns of the names of linear layers that get one; `*` also stands for dots."""

    def __post_init__(self) -> None:
        """Refuse an update without channels."""
        if self.rank < 1 or not self.layers:
            raise ConfigError(
                f"LoraSettings needs rank >= 1 and a pattern; got {self.rank}, {self.layers}"
            )


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Which network, from which weights, and which of them learn."""

    preset: str = "mini"
    """Architecture: a name in `everview.presets`, or the path of a `config.json`."""
    attention: Literal["global", "causal"] | None = None
    """Which frames a token sees; the preset's own if None."""
    start: str | None = None
    """Weights to start from: anything `everview.load` takes; random ones if None."""
    layer_scale: float | None = 0.3
    """Initial LayerScale of random weights: the published 0.01 (None) is made for a pretrained
    encoder."""
    frozen: tuple[str, ...] = ()
    """Patterns of the names of parameters that stay as they are; `*` also stands for dots."""
    trainable_parameters: int | None = None
    """How many numbers shall learn: a run with another count is refused; None: any."""
    lora: LoraSettings | None = None
    """Low-rank updates; all other parameters of the network are frozen then."""
    frozen_precision: Literal["float32", "bfloat16"] = "float32"
    """How the frozen projections of a network with low-rank updates are kept."""


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Where clips come from."""

    folders: tuple[str, ...] = ()
    """Training sets, each PATH or SET=PATH; the procedural world if there is none."""
    mixture: str | None = None
    """`4500 @ co3d + 2250 @ waymo`: samples of each set per epoch; None: each frame once."""
    identical_epochs: bool = False
    """Every epoch of training sets shows the same samples in the same order, with the same crops,
    colours and query points: a teacher's cache answers from the second one on."""
    heights: tuple[int, ...] = (84, 98, 112)
    """Image heights in pixels; one per step."""
    width: int = 140
    """Image width in pixels."""
    reuse: int = 1
    """How often a rendered clip is used, with other frames, order, colours and queries."""
    colours: float = 0.0
    """Strength of random gain and gamma of the procedural world's clips, beyond its own; 1 is much.
    Training sets have the published jitter, times this."""
    tracked_points: int = 32
    """Query points per clip."""
    processes: int = 1
    """Processes that make clips; 0 makes them in between steps. One per rank."""
    ahead: int = 6
    """Batches that each of them makes in advance."""
    device: str = "auto"
    """Where the world is rendered: auto is the training device if that is a GPU, else the CPU."""

    def __post_init__(self) -> None:
        """Refuse sizes off the patch grid and counts below their least."""
        sides = (*self.heights, self.width)
        if not self.heights or any(side < PATCH or side % PATCH for side in sides):
            raise ConfigError(
                f"DataSettings.heights {self.heights} and width {self.width} must be multiples of "
                f"{PATCH}"
            )
        if min(self.reuse, self.tracked_points, self.ahead) < 1 or self.processes < 0:
            raise ConfigError(
                "DataSettings needs reuse, tracked_points, ahead >= 1 and processes >= 0; got "
                f"{self.reuse}, {self.tracked_points}, {self.ahead}, {self.processes}"
            )
        if not 0 <= self.colours < math.inf:
            raise ConfigError(f"DataSettings.colours must be >= 0, got {self.colours}")
        if self.identical_epochs and not self.folders:
            raise ConfigError(
                "DataSettings.identical_epochs needs folders: the procedural world has no epochs"
            )


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """What a network is punished for: the truth, what a teacher says, or both.

    Terms are called `truth/depth`, `teacher/depth`, `guide/flow` and so on, as in the log.
    """

    truth: str | None = "procedural"
    """Loss with ground truth: procedural (ours), released or paper (VGGT's); None: no truth."""
    teacher: str | None = None
    """Loss with a teacher: corrected (ours), released or paper (StreamVGGT's); None: no teacher."""
    truth_weight: float = 1.0
    """Of all terms of `truth`."""
    teacher_weight: float = 1.0
    """Of all terms of `teacher`."""
    guide: Literal["truth", "teacher"] | None = "truth"
    """Who tells the auxiliary tasks (`training/matching.py`) what is right; None: none of them."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Weight of single terms in place of their loss's own; 0 only watches."""
    masks: bool = True
    """A teacher's maps count only where the data know depth; False: everywhere."""

    def __post_init__(self) -> None:
        """Refuse unknown losses and an objective without anything."""
        _require_one_of("ObjectiveSettings.truth", self.truth, TRUTH_LOSSES)
        _require_one_of("ObjectiveSettings.teacher", self.teacher, tuple(DISTILLATION))
        if self.truth is None and self.teacher is None and self.guide is None:
            raise ConfigError("ObjectiveSettings needs a truth, a teacher or a guide; got none")

    @property
    def asks_teacher(self) -> bool:
        """Whether there has to be a teacher."""
        return self.teacher is not None or self.guide == "teacher"


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """Who teaches, and how well."""

    model: str | None = None
    """A network with global attention: anything `everview.load` takes."""
    precision: str = "auto"
    """See `everview.load`."""
    cache: str | None = None
    """Folder for what it said of the very same pixels; None asks it anew each time. It answers
    from the second epoch on with `data.identical_epochs`, and where other students see the same
    clips (same data, stages and seed); else clips come again otherwise cut and coloured."""
    half: bool = True
    """Cached maps in float16."""
    shrink: int = 1
    """Cached maps at 1 / shrink of their size."""
    faults: Faults = field(default_factory=Faults)
    """How wrong it is made, for experiments."""


@dataclass(frozen=True, kw_only=True)
class OptimiserSettings:
    """Steps, clipping and the moving average."""

    learning_rate: float = 8e-4
    """Peak."""
    matrices: Literal["adamw", "muon"] = "adamw"
    """How the weights of wide layers are changed; all else by AdamW. Muon makes the steps of a
    matrix equally large in all its directions; not with `compute.parallel=fsdp`. Updates of low
    rank are too narrow for it."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Of the moments."""
    weight_decay: float = 0.02
    """Of matrices; vectors have none."""
    clip_norm: float = 1.0
    """Largest norm of the whole gradient."""
    average_decay: float = 0.998
    """Of the moving average of the weights, which is what is kept in the end."""

    def __post_init__(self) -> None:
        """Refuse what does not learn."""
        decays = (self.average_decay, *self.betas)
        is_moving = 0 < self.learning_rate < math.inf and self.clip_norm > 0
        if not is_moving or not all(0 <= decay < 1 for decay in decays):
            raise ConfigError(
                "OptimiserSettings needs learning_rate > 0, clip_norm > 0, and average_decay and "
                f"betas in [0, 1); got {self.learning_rate}, {self.clip_norm}, "
                f"{self.average_decay}, {self.betas}"
            )
        if not 0 <= self.weight_decay < math.inf:
            raise ConfigError(
                f"OptimiserSettings.weight_decay must be >= 0, got {self.weight_decay}"
            )


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """How long a run is, and how the learning rate goes with it."""

    unit: Literal["minutes", "steps"] = "minutes"
    """Of `length`. Only steps make a resumed run equal an uninterrupted one to the bit."""
    length: float = 54.0
    """Of the run; minutes count all sittings."""
    shape: Literal["cosine", "constant"] = "cosine"
    """What follows the warm-up."""
    warm_up_steps: int = 100
    """Linear warm-up."""
    floor: float = 0.0
    """Learning rate at the end of the cosine."""

    def __post_init__(self) -> None:
        """Refuse a run without length."""
        is_short = self.unit == "steps" and self.warm_up_steps >= self.length
        if not 0 < self.length < math.inf or self.warm_up_steps < 0 or is_short:
            raise ConfigError(
                "the schedule needs schedule.length > 0 and schedule.warm_up_steps within it; got "
                f"{self.length} {self.unit}, {self.warm_up_steps} steps"
            )


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the run: which clips, and what counts."""

    name: str = "all"
    """For the log."""
    share: float = 1.0
    """Of the run, relative to the other stages."""
    images: int = 16
    """Images of a step over all ranks and accumulated parts; longer clips mean fewer clips."""
    frames: tuple[int, int] = (2, 8)
    """Fewest and most frames of a clip."""
    speeds: tuple[float, float] = (1.0, 6.0)
    """Motion between frames, as a multiple of the world's own; evenly distributed."""
    gaps: tuple[int, int] = (1, 1)
    """Smallest and largest step between neighbouring frames of a rendered clip."""
    spare_frames: int = 0
    """Frames rendered beyond the longest choice, so that a reused clip can start elsewhere."""
    reversed_share: float = 0.0
    """Probability that a clip runs backwards."""
    kind: str = "any"
    """Kind of place, see `everview.world.sequence`."""
    kind_shares: Mapping[str, float] = field(default_factory=dict)
    """How often each kind is shown where `kind` is any, relative to the others; those left out are
    not. Empty: the world's own shares."""
    motion: str = "any"
    """Way of the camera, such as `rotate`; see `everview.world.motion.MOTIONS`."""
    moving: float = 0.25
    """Share of clips in which something moves by itself."""
    tilted_share: float = 0.0
    """Probability that a clip's camera is tilted, beyond the world's own way of looking."""
    tilts: tuple[float, float] = (-40.0, 10.0)
    """By how many degrees upwards, evenly distributed."""
    dense_images: int | None = 8
    """Images of a step in which depth and points are made and punished, at least one per clip: the
    heads would be half the cost. None: all. 0: none, and no teacher's loss, which needs maps."""
    track_every: int = 6
    """Every how many steps the tracker is trained, with so many times its weight; 0: never."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Weights of single terms in this stage, in place of the objective's."""

    def __post_init__(self) -> None:
        """Refuse clips that cannot be made."""
        low, high = self.frames
        if not 1 <= low <= high <= self.images:
            raise ConfigError(
                f"Stage.frames must be (low, high) with 1 <= low <= high <= images {self.images}, "
                f"got {self.frames}"
            )
        is_moving = 0 < self.speeds[0] <= self.speeds[1] < math.inf
        if not 1 <= self.gaps[0] <= self.gaps[1] or not is_moving:
            raise ConfigError(
                "Stage.gaps (1 or more) and speeds (above 0) must be (low, high); got "
                f"{self.gaps}, {self.speeds}"
            )
        if not -90 <= self.tilts[0] <= self.tilts[1] <= 90:
            raise ConfigError(
                f"Stage.tilts must be (low, high) within 90 degrees; got {self.tilts}"
            )
        for name in ("tilted_share", "reversed_share", "moving"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"Stage.{name} must be from 0 to 1; got {getattr(self, name)}")
        _require_one_of("Stage.kind", self.kind, KINDS)
        for kind, part in self.kind_shares.items():
            _require_one_of("Stage.kind_shares", kind, KINDS[1:])
            if self.kind != "any" or not 0 < part < math.inf:
                raise ConfigError(
                    "Stage.kind_shares must be above 0, and kind any; got "
                    f"{kind}: {part}, {self.kind}"
                )
        _require_one_of("Stage.motion", self.motion, MOTIONS)
        if (
            not 0 < self.share < math.inf
            or min(self.dense_images or 0, self.track_every, self.spare_frames) < 0
        ):
            raise ConfigError(
                "Stage needs share > 0 and dense_images, track_every, spare_frames >= 0; got "
                f"{self.share}, {self.dense_images}, {self.track_every}, {self.spare_frames}"
            )


@dataclass(frozen=True, kw_only=True)
class ComputeSettings:
    """How the work is done; none of it changes what is learnt, but for rounding."""

    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes the fastest. Each rank takes its own GPU."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of matrix products (autocast); weights and losses are float32."""
    accumulation: int = 1
    """Parts in which each rank does its share of a step, one after the other, to save memory."""
    checkpoint_activations: bool = False
    """Keep what enters a block and compute its inside again: less memory, a third more time."""
    compile: bool = False
    """Compile what surrounds attention in every block: fewer passes over memory on a GPU, after up
    to a minute of compiling."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """With several ranks: each has all weights, or a shard of them."""

    def __post_init__(self) -> None:
        """Refuse no parts."""
        if self.accumulation < 1:
            raise ConfigError(f"ComputeSettings.accumulation must be >= 1, got {self.accumulation}")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Chance, log and checkpoints."""

    seed: int = 0
    """Of the initial weights and of everything drawn."""
    log_every: int = 20
    """Steps between lines of the log, which are means over these steps."""
    checkpoint_minutes: float = 3.0
    """Minutes between checkpoints."""
    checkpoint_steps: int | None = None
    """Also after so many steps."""
    give_up_after: int = 5
    """Steps in a row without a finite loss after which the run ends."""
    tensorboard: bool = False
    """Also write TensorBoard's event files (extra `train`)."""
    weights_dtype: Literal["float32", "bfloat16", "float16"] = "float16"
    """Of the saved model."""
    shard_megabytes: float | None = None
    """Most MB of a file of the saved model, for places that take small files alone; None: one
    file."""

    def __post_init__(self) -> None:
        """Refuse counts below 1."""
        if min(self.log_every, self.give_up_after, self.checkpoint_steps or 1) < 1:
            raise ConfigError(
                "RunSettings needs log_every, give_up_after, checkpoint_steps >= 1; got "
                f"{self.log_every}, {self.give_up_after}, {self.checkpoint_steps}"
            )
        if self.shard_megabytes is not None and not 0.001 <= self.shard_megabytes < math.inf:
            raise ConfigError(
                f"RunSettings.shard_megabytes must be 0.001 or more, got {self.shard_megabytes}"
            )


def _require_one_of(name: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise ConfigError(f"{name} must be one of {', '.join(known)}; got {value!r}")
