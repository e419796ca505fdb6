"""From a planned batch to tensors: read, redraw what cannot be used, crop, colour, stack."""

import dataclasses
import logging
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from everview.errors import ConfigError, InputError
from everview.geometry.rotations import invert_rigid
from everview.training.datasets.crops import fit_view
from everview.training.datasets.frame_choice import choose_frames
from everview.training.datasets.mixture import (
    MixtureSettings,
    PlannedBatch,
    PlannedSample,
    plan_epoch,
)
from everview.training.datasets.view import Dataset, View

MAX_DRAWS = 20
"""Draws of a sample before the set is given up."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Views of one scene in the order in which the network sees them."""

    views: tuple[View, ...]
    """All of one size once they are cropped."""
    is_video: bool
    """Whether they are in order of time."""


@dataclass(frozen=True, kw_only=True)
class SampleBatch:
    """Samples as tensors. World frame: the first camera of each sample, OpenCV axes."""

    images: Float[Tensor, "b s 3 H W"]
    """RGB in [0, 1]."""
    depth: Float[Tensor, "b s H W"]
    """z-depth in the sample's own unit, metres where `is_metric`; 0 where it is not valid."""
    valid: Bool[Tensor, "b s H W"]
    """Where depth may be used; false everywhere for plain video."""
    sky: Bool[Tensor, "b s H W"]
    """Where the sky is known to be seen."""
    world_from_camera: Float[Tensor, "b s 4 4"]
    """Poses in the first view's frame; NaN where `has_pose` is false."""
    intrinsics: Float[Tensor, "b s 3 3"]
    """K in pixels; NaN where it is not known."""
    times: Float[Tensor, "b s"]
    """Time or number of each frame, see `View.time`."""
    is_metric: Bool[Tensor, " b"]
    """Whether lengths are metres."""
    is_video: Bool[Tensor, " b"]
    """Whether frames are in order of time."""
    has_depth: Bool[Tensor, " b"]
    """Whether the set knows depth."""
    has_pose: Bool[Tensor, " b"]
    """Whether the set knows poses."""
    has_intrinsics: Bool[Tensor, " b"]
    """Whether the set knows intrinsics."""
    labels: tuple[tuple[str, ...], ...]
    """Set, scene and file of each frame."""


class Mixture:
    """Batches of a mixture of sets, each a function of seed, epoch and step alone."""

    def __init__(self, settings: MixtureSettings, datasets: Mapping[str, Dataset]) -> None:
        """Keep the sets; nothing is read.

        Raises:
            ConfigError: if the mixture names a set that is not given.
        """
        self.settings = settings
        self.datasets = dict(datasets)
        self.lengths = {name: len(dataset) for name, dataset in datasets.items()}
        unknown = sorted({share.dataset for share in settings.shares} - self.datasets.keys())
        if unknown:
            raise ConfigError(
                f"the mixture names {unknown[0]!r}; given are {', '.join(self.datasets) or 'none'}"
            )

    def epoch(self, epoch: int, *, rank: int = 0, num_ranks: int = 1) -> "EpochBatches":
        """The batches of an epoch for one rank.

        Raises:
            ConfigError: if a set is empty, or the rank is out of range.
        """
        plans = plan_epoch(self.settings, self.lengths, epoch=epoch, rank=rank, num_ranks=num_ranks)
        return EpochBatches(self, plans)

    def load(self, plan: PlannedBatch) -> SampleBatch:
        """Read a batch.

        Raises:
            InputError: if a sample could not be made in `MAX_DRAWS` draws; names the last reason.
        """
        drawn = [self._draw(plan, sample) for sample in plan.samples]
        size = _upright(plan.size, [sample for sample, _ in drawn])
        finished = [_finish(self.settings, sample, size, dice) for sample, dice in drawn]
        return collate(finished)

    def _draw(self, plan: PlannedBatch, planned: PlannedSample) -> tuple[Sample, random.Random]:
        """Read a sample; what cannot be used is drawn anew from another start."""
        dataset, reason = self.datasets[planned.dataset], ""
        for attempt in range(MAX_DRAWS):
            dice = random.Random(f"{self.settings.seed} {plan.epoch} {planned.number} {attempt}")
            start = planned.start if attempt == 0 else dice.randrange(len(dataset))
            try:
                sample = draw_sample(dataset, start, num_views=plan.num_views, dice=dice)
            except InputError as error:
                _logger.warning("a sample of %s is drawn anew: %s", planned.dataset, error)
                reason = str(error)
                continue
            if sample is not None and all(_has_finite_pose(view) for view in sample.views):
                return sample, dice
            reason = (
                f"a scene with fewer than {plan.num_views} frames that belong together"
                if sample is None
                else "a pose that is not finite"
            )
        raise InputError(
            f"the set {planned.dataset} gave no usable sample in {MAX_DRAWS} draws; the last one "
            f"failed for: {reason}. `everview data check` names what is wrong"
        )


class EpochBatches(TorchDataset[SampleBatch]):
    """The batches of one epoch, read when they are asked for.

    A map-style data set for `torch.utils.data.DataLoader(..., batch_size=None)`; to resume, give it
    `sampler=range(next_step, len(batches))`.
    """

    def __init__(self, mixture: Mixture, plans: Sequence[PlannedBatch]) -> None:
        """Keep the plans of one rank."""
        self.mixture = mixture
        self.plans = plans

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, step: int) -> SampleBatch:
        return self.mixture.load(self.plans[step])

    def since(self, step: int) -> Iterator[SampleBatch]:
        """Batches from a step of this rank on."""
        return (self[position] for position in range(step, len(self)))


def draw_sample(
    dataset: Dataset, start: int, *, num_views: int, dice: random.Random
) -> Sample | None:
    """Choose frames and read them.

    Args:
        dataset: the set.
        start: number of the frame in the set that the sample starts from.
        num_views: frames of the sample.
        dice: decides.

    Returns:
        None if the scene cannot give so many frames.

    Raises:
        InputError: if a file is absent or damaged, by name.
    """
    scene, position = dataset.locate(start)
    choice = choose_frames(scene, position, num_views=num_views, rules=dataset.rules, dice=dice)
    if choice is None:
        return None
    views = scene.views(choice.positions)
    if dice.random() < dataset.rules.background_masked:
        views = [_without_background(view) for view in views]
    return Sample(views=tuple(views), is_video=choice.is_video)


def collate(samples: Sequence[Sample]) -> SampleBatch:
    """Stack samples of one shape; poses become relative to each sample's first view."""
    views = [sample.views for sample in samples]
    firsts = [sample.views[0] for sample in samples]

    def stack(field: str) -> Tensor:
        return torch.stack([torch.stack([getattr(v, field) for v in row]) for row in views])

    def flags(field: str) -> Bool[Tensor, " b"]:
        return torch.tensor([all(getattr(v, field) for v in row) for row in views])

    return SampleBatch(
        images=stack("image").float(),
        depth=(stack("depth") * stack("valid")).float(),
        valid=stack("valid"),
        sky=torch.stack([torch.stack([_sky(v) for v in row]) for row in views]),
        world_from_camera=_relative_to_first(stack("world_from_camera")),
        intrinsics=stack("intrinsics").float(),
        times=torch.tensor([[view.time for view in row] for row in views], dtype=torch.float64),
        is_metric=torch.tensor([view.is_metric for view in firsts]),
        is_video=torch.tensor([sample.is_video for sample in samples]),
        has_depth=flags("has_depth"),
        has_pose=flags("has_pose"),
        has_intrinsics=flags("has_intrinsics"),
        labels=tuple(tuple(view.label for view in row) for row in views),
    )


def _finish(
    settings: MixtureSettings, sample: Sample, size: tuple[int, int], dice: random.Random
) -> Sample:
    """Crop and colour; one extra and one change of colour for all views of the sample."""
    extra = dice.randint(0, settings.extra_pixels)
    views = [fit_view(view, size, extra_pixels=extra) for view in sample.views]
    if settings.colour is not None:
        change = settings.colour.draw(dice)
        views = [dataclasses.replace(view, image=change.apply(view.image)) for view in views]
    return dataclasses.replace(sample, views=tuple(views))


def _upright(size: tuple[int, int], samples: Sequence[Sample]) -> tuple[int, int]:
    """Turn a landscape shape if most samples are portrait: a batch has one shape."""
    num_portrait = sum(sample.views[0].size[0] > sample.views[0].size[1] for sample in samples)
    is_turned = size[1] > size[0] and 2 * num_portrait > len(samples)
    return (size[1], size[0]) if is_turned else size


def _relative_to_first(poses: Float[Tensor, "b s 4 4"]) -> Float[Tensor, "b s 4 4"]:
    poses = poses.double()
    relative = invert_rigid(poses[:, :1]) @ poses
    relative[:, 0] = torch.where(
        torch.isfinite(poses[:, 0]), torch.eye(4, dtype=poses.dtype), math.nan
    )
    return relative.float()


def _has_finite_pose(view: View) -> bool:
    return not view.has_pose or bool(torch.isfinite(view.world_from_camera).all())


def _without_background(view: View) -> View:
    if view.foreground is None:
        return view
    return dataclasses.replace(view, valid=view.valid & view.foreground)


def _sky(view: View) -> Bool[Tensor, "H W"]:
    return torch.zeros_like(view.valid) if view.sky is None else view.sky
