"""Endless batches of procedural clips, rendered by a process of their own."""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import parent_process
from queue import Full

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch import multiprocessing as mp

from everview.geometry.cameras import pose_encoding_from_camera
from everview.geometry.rotations import invert_rigid
from everview.training.losses.scale import scene_scale
from everview.training.recipe import TrainingRecipe
from everview.world.clip import WorldSequence, sequence, training_seed

CLIPS_PER_STEP = 64
"""Seeds reserved for a step, so that a step's clips depend on its number alone."""

AHEAD = 6
"""Batches rendered ahead."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Clips of one shape with their truth in units of the scene's scale."""

    images: Float[Tensor, "b s 3 H W"]
    """RGB in [0, 1]."""
    depth: Float[Tensor, "b s H W"]
    """z-depth divided by the scale of the clip."""
    points: Float[Tensor, "b s H W 3"]
    """In the first camera's frame, divided by the scale."""
    pose_encoding: Float[Tensor, "b s 9"]
    """camera_from_world, translation divided by the scale."""
    queries: Float[Tensor, "b t 2"]
    """Pixels of the first frame to be tracked."""
    tracks: Float[Tensor, "b s t 2"]
    """Where they are in every frame."""
    visible: Bool[Tensor, "b s t"]
    """Whether they are seen there."""

    def tensors(self) -> dict[str, Tensor]:
        """All fields by name, to cross the border between processes."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def make_batch(recipe: TrainingRecipe, step: int) -> Batch:
    """The batch of a step: a function of recipe and step, so that a resumed run sees the same."""
    dice = random.Random(f"{recipe.seed} {step}")
    length = dice.randint(*recipe.clip_lengths)
    size = (dice.choice(recipe.heights), recipe.width)
    slow, fast = recipe.speeds
    num_clips = min(CLIPS_PER_STEP, max(1, recipe.images_per_step // length))
    first = (recipe.seed * 1_000_003 + step) * CLIPS_PER_STEP
    clips = [
        sequence(
            training_seed(first + i), length, size=size,
            speed=slow + (fast - slow) * dice.random(),
        )
        for i in range(num_clips)
    ]  # fmt: skip
    queries = torch.tensor(
        [
            [[dice.uniform(0, size[1] - 1), dice.uniform(0, size[0] - 1)]
             for _ in range(recipe.tracked_points)]
            for _ in clips
        ]
    )  # fmt: skip
    return _collate(clips, queries)


def batches(recipe: TrainingRecipe, first_step: int) -> Iterator[Batch]:
    """Batches from `first_step` on, for ever; the rendering process ends with the iterator."""
    context = mp.get_context("spawn")
    queue = context.Queue(AHEAD)
    process = context.Process(target=_render, args=(queue, recipe, first_step), daemon=True)
    process.start()
    try:
        while True:
            yield Batch(**queue.get())
    finally:
        process.terminate()
        process.join()


def _render(queue: "mp.Queue[dict[str, Tensor]]", recipe: TrainingRecipe, step: int) -> None:
    """Fill the queue until the process that empties it is gone, killed ones included."""
    torch.set_num_threads(1)
    os.nice(5)
    parent = parent_process()
    while True:
        tensors = make_batch(recipe, step).tensors()
        while True:
            try:
                queue.put(tensors, timeout=5)
                break
            except Full:
                if parent is None or not parent.is_alive():
                    return
        step += 1


def _collate(clips: list[WorldSequence], queries: Float[Tensor, "b t 2"]) -> Batch:
    points = torch.stack([clip.points for clip in clips])
    scale = scene_scale(points)
    followed = [clip.tracks(q) for clip, q in zip(clips, queries, strict=True)]
    encodings = []
    for clip, unit in zip(clips, scale, strict=True):
        camera_from_world = invert_rigid(clip.world_from_camera)
        camera_from_world[:, :3, 3] /= unit
        size = (clip.images.shape[-2], clip.images.shape[-1])
        encodings.append(pose_encoding_from_camera(camera_from_world, clip.intrinsics, size))
    return Batch(
        images=torch.stack([clip.images for clip in clips]),
        depth=torch.stack([clip.depth for clip in clips]) / scale[:, None, None, None],
        points=points / scale[:, None, None, None, None],
        pose_encoding=torch.stack(encodings),
        queries=queries,
        tracks=torch.stack([track for track, _ in followed]),
        visible=torch.stack([visible for _, visible in followed]),
    )
