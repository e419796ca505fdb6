"""Batches from training sets on disk: each a function of recipe, step, stage and part alone."""

import random
from pathlib import Path

import torch
from torch import Tensor

from everview.errors import ConfigError, InputError
from everview.geometry.cameras import points_from_depth
from everview.geometry.rotations import invert_rigid
from everview.training.datasets.colour import ColourJitter
from everview.training.datasets.mixture import (
    MixtureSettings,
    PlannedBatch,
    Share,
    parse_mixture,
    plan_epoch,
)
from everview.training.datasets.recognise import open_dataset
from everview.training.datasets.samples import Mixture, SampleBatch
from everview.training.datasets.view import Dataset
from everview.training.feed.batch import Batch, Request, truth_of_clips
from everview.training.feed.procedural import has_tracks
from everview.training.feed.rendering import num_clips
from everview.training.losses.target import Target
from everview.training.recipe.recipe import TrainingRecipe
from everview.training.recipe.settings import Stage
from everview.training.teacher import sample_query_points


class FolderSource:
    """Draws samples of a mixture of sets under a budget of images per step.

    The samples of an epoch are a shuffled list. A step takes from it the most clips that any of its
    lengths would need; what a shorter step leaves is not seen in that epoch.

    Args:
        recipe: names the folders.
        num_parts: into how many parts a step is split.

    Raises:
        InputError: if a folder is absent, holds nothing, or too little for one step.
        ConfigError: if the mixture names a set that no folder holds.
    """

    def __init__(self, recipe: TrainingRecipe, *, num_parts: int = 1) -> None:
        self.recipe, self.num_parts = recipe, num_parts
        datasets = dict(_open(text) for text in recipe.data.folders)
        data = recipe.data
        shares = tuple(Share(dataset=name, samples=len(d)) for name, d in datasets.items())
        jitter = ColourJitter()
        colour = ColourJitter(
            brightness=min(1.0, jitter.brightness * data.colours),
            contrast=min(1.0, jitter.contrast * data.colours),
            saturation=min(1.0, jitter.saturation * data.colours),
            hue=min(0.5, jitter.hue * data.colours),
        )
        settings = MixtureSettings(
            shares=shares if data.mixture is None else parse_mixture(data.mixture),
            resolutions={(data.width, height): 1.0 for height in data.heights},
            colour=colour if data.colours else None,
            seed=recipe.run.seed,
        )
        self.mixture = Mixture(settings, datasets)
        self._epoch: tuple[int, list[PlannedBatch]] | None = None

    def batch(self, request: Request) -> Batch:
        """Read the files of one part of a step.

        Raises:
            InputError: if no usable sample could be read; names the last file.
        """
        step, epoch = self._place(request)
        plan, numbers = self._plan(request, step, epoch)
        samples = self.mixture.load(plan)
        labels = tuple(f"{names[0]} .. {names[-1]}" for names in samples.labels)
        has_truth = bool((samples.has_depth & samples.has_pose).all())
        has_truth &= bool(torch.isfinite(samples.intrinsics).all())
        with_tracks = has_tracks(self.recipe.stages[request.stage], step)
        valid = samples.valid | ~samples.has_depth[:, None, None, None]
        return Batch(
            request=request,
            images=samples.images,
            queries=self._queries(valid, step, numbers) if with_tracks else None,
            truth=_truth(samples) if has_truth else None,
            valid=valid,
            still=None,
            labels=labels,
            numbers=numbers,
        )

    def _place(self, request: Request) -> tuple[int, int]:
        """The step whose chance rules a request, and its epoch: the first's if all are alike."""
        stage = self.recipe.stages[request.stage]
        per_epoch = self._steps_per_epoch(self._stride(stage))
        if self.recipe.data.identical_epochs:
            return request.step % per_epoch, 0
        return request.step, request.step // per_epoch

    def _stride(self, stage: Stage) -> int:
        """Samples of a step of the shortest clips."""
        return num_clips(stage, stage.frames[0], self.num_parts)

    def _plan(
        self, request: Request, step: int, epoch: int
    ) -> tuple[PlannedBatch, tuple[int, ...]]:
        """Samples of one part, and their places in the step."""
        stage, data = self.recipe.stages[request.stage], self.recipe.data
        dice = random.Random(f"{self.recipe.run.seed} {step} folders")
        length = dice.randint(*stage.frames)
        height = dice.choice(data.heights)
        stride = self._stride(stage)
        place = step % self._steps_per_epoch(stride)
        samples = [batch.samples[0] for batch in self._plans(epoch)]
        numbers = tuple(
            range(request.part, num_clips(stage, length, self.num_parts), self.num_parts)
        )
        chosen = tuple(samples[place * stride + number] for number in numbers)
        plan = PlannedBatch(
            epoch=epoch, step=step, samples=chosen, size=(height, data.width),
            num_views=length,
        )  # fmt: skip
        return plan, numbers

    def _plans(self, epoch: int) -> list[PlannedBatch]:
        if self._epoch is None or self._epoch[0] != epoch:
            plans = plan_epoch(self.mixture.settings, self.mixture.lengths, epoch=epoch)
            self._epoch = (epoch, plans)
        return self._epoch[1]

    def _steps_per_epoch(self, stride: int) -> int:
        steps = len(self._plans(self._epoch[0] if self._epoch else 0)) // stride
        if not steps:
            raise InputError(
                f"{', '.join(self.recipe.data.folders)}: an epoch has fewer samples than the "
                f"{stride} of one step: lower the images of a stage, or raise the mixture's numbers"
            )
        return steps

    def _queries(self, valid: Tensor, step: int, numbers: tuple[int, ...]) -> Tensor:
        points = []
        for place, number in enumerate(numbers):
            seed = random.Random(f"{self.recipe.run.seed} {step} {number}").getrandbits(63)
            points.append(
                sample_query_points(
                    valid[place : place + 1, 0],
                    num_points=self.recipe.data.tracked_points,
                    generator=torch.Generator().manual_seed(seed),
                )
            )
        return torch.cat(points)


def _open(text: str) -> tuple[str, Dataset]:
    """The set in `PATH` or `SET=PATH`, by its name."""
    name, separator, path = text.partition("=")
    if separator and not path:
        raise ConfigError(f"DataSettings.folders: {text!r} names no path: write SET=PATH or PATH")
    dataset = open_dataset(Path(path), name) if separator else open_dataset(Path(text))
    return dataset.name, dataset


def _truth(samples: SampleBatch) -> Target:
    camera_from_first = invert_rigid(samples.world_from_camera)
    points = points_from_depth(samples.depth, camera_from_first, samples.intrinsics)
    return truth_of_clips(
        samples.depth, points, samples.valid, camera_from_first, samples.intrinsics
    )
