"""Batches of procedural clips: each a function of recipe, step, stage and part alone."""

import random
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from everview.geometry.cameras import transform_points
from everview.geometry.rotations import invert_rigid
from everview.training.feed.batch import Batch, Request, truth_of_clips
from everview.training.feed.choice import Colours, choose_frames, frames_to_render
from everview.training.losses.target import Target
from everview.training.recipe.recipe import TrainingRecipe
from everview.training.recipe.settings import Stage
from everview.world.clip import Options, WorldSequence, sequence, training_seed
from everview.world.tracks import follow

CLIPS_PER_STEP = 1024
"""Seeds reserved for a step, so that a step's clips depend on its number alone."""
APART = 4
"""A reused clip comes back after so many times `reuse` steps and one."""
CANDIDATES = 4
"""Points followed per query point wanted, as not all are seen in the clip's first frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Clips that are rendered once."""

    number: int
    """Decides everything about the clips."""
    use: int
    """How often they were used before."""


@dataclass(frozen=True, kw_only=True)
class ChosenClip:
    """One clip as it is shown. World frame: its first camera."""

    images: Float[Tensor, "s 3 H W"]
    depth: Float[Tensor, "s H W"]
    points: Float[Tensor, "s H W 3"]
    valid: Bool[Tensor, "s H W"]
    moving: Bool[Tensor, "s H W"]
    camera_from_first: Float[Tensor, "s 4 4"]
    intrinsics: Float[Tensor, "s 3 3"]
    label: str
    tracks: Float[Tensor, "s t 2"] | None = None
    visible: Bool[Tensor, "s t"] | None = None


class ProceduralSource:
    """Renders what is asked for; keeps clips that will be used again.

    Args:
        recipe: what clips are like.
        num_parts: into how many parts a step is split.
        workers: how many sources take steps in turn; a clip is reused by its own.
        device: where to render.
    """

    def __init__(
        self, recipe: TrainingRecipe, *, num_parts: int = 1, workers: int = 1, device: str = "cpu"
    ) -> None:
        self.recipe, self.num_parts, self.workers, self.device = recipe, num_parts, workers, device
        self._rendered: dict[tuple[int, int, int], WorldSequence] = {}

    def batch(self, request: Request) -> Batch:
        """Render or take from memory, choose frames, colour."""
        stage, data = self.recipe.stages[request.stage], self.recipe.data
        group = locate(request.step, data.reuse, self.workers)
        dice = random.Random(f"{self.recipe.run.seed} {group.number}")
        length = dice.randint(*stage.frames)
        size = (dice.choice(data.heights), data.width)
        total = num_clips(stage, length, self.num_parts)
        numbers = tuple(range(request.part, total, self.num_parts))
        self._forget(request.step)
        with_tracks = has_tracks(stage, request.step)
        clips, queries = [], []
        for number in numbers:
            rendered = self._render(group, request.stage, number, length, size)
            clip, points = self._show(rendered, group, stage, number, length, with_tracks)
            clips.append(clip)
            queries.append(points)
        return Batch(
            request=request,
            images=torch.stack([clip.images for clip in clips]),
            queries=torch.stack(queries) if with_tracks else None,
            truth=_truth(clips),
            valid=torch.stack([clip.valid for clip in clips]),
            still=~torch.stack([clip.moving for clip in clips]),
            labels=tuple(clip.label for clip in clips),
            numbers=numbers,
        )

    def _render(
        self, group: Group, stage_number: int, number: int, length: int, size: tuple[int, int]
    ) -> WorldSequence:
        key = (group.number, stage_number, number)
        if key in self._rendered:
            return self._rendered[key]
        stage = self.recipe.stages[stage_number]
        slow, fast = stage.speeds
        clip = sequence(
            self._seed(group, number),
            frames_to_render(stage, length),
            size=size,
            speed=slow + (fast - slow) * self._dice(group, number, "speed").random(),
            kind=stage.kind,
            options=Options(motion=stage.motion, moving=stage.moving, device=self.device),
        )
        if self.recipe.data.reuse > 1:
            self._rendered[key] = clip
        return clip

    def _show(
        self,
        clip: WorldSequence,
        group: Group,
        stage: Stage,
        number: int,
        length: int,
        with_tracks: bool,
    ) -> tuple[ChosenClip, Tensor]:
        """The clip and its query points, which are none in steps without tracks."""
        dice = self._dice(group, number, f"use {group.use}")
        positions = choose_frames(stage, length, dice)
        colours = Colours.draw(self.recipe.data.colours, dice)
        label = (
            f"procedural clip of seed {self._seed(group, number)} ({clip.kind}), frames "
            f"{','.join(map(str, positions))}, use {group.use}"
        )
        chosen = choose(clip, positions, label)
        if self.recipe.data.colours:
            chosen = replace(chosen, images=colours.apply(chosen.images))
        if not with_tracks:
            return chosen, chosen.images.new_zeros(0, 2)
        return with_tracks_of(chosen, clip, positions, self.recipe.data.tracked_points, dice)

    def _seed(self, group: Group, number: int) -> int:
        return training_seed(
            (self.recipe.run.seed * 1_000_003 + group.number) * CLIPS_PER_STEP + number
        )

    def _dice(self, group: Group, number: int, purpose: str) -> random.Random:
        return random.Random(f"{self.recipe.run.seed} {group.number} {number} {purpose}")

    def _forget(self, step: int) -> None:
        """Drop clips that were used for the last time."""
        reuse = self.recipe.data.reuse
        newest = step // self.workers // reuse
        oldest = (newest - (reuse - 1) * APART) * self.workers
        for key in [key for key in self._rendered if key[0] < oldest]:
            del self._rendered[key]


def locate(step: int, reuse: int, workers: int = 1) -> Group:
    """Which clips a step uses. With `reuse` u every u-th step needs new ones.

    Step u q + j takes group q - j `APART`: each group is used u times, far apart, and a step's
    clips depend on its number alone. With several workers each does so among its own steps.
    """
    turn, worker = divmod(step, workers)
    newest, use = divmod(turn, reuse)
    return Group(number=(newest - use * APART) * workers + worker, use=use)


def num_clips(stage: Stage, length: int, num_parts: int) -> int:
    """Clips of a step: as many as the budget of images allows, and equally many in each part."""
    wanted = max(1, stage.images // length)
    return min(CLIPS_PER_STEP // num_parts, max(1, wanted // num_parts)) * num_parts


def has_tracks(stage: Stage, step: int) -> bool:
    """Whether the tracker is trained in a step."""
    return stage.track_every > 0 and step % stage.track_every == 0


def choose(clip: WorldSequence, positions: tuple[int, ...], label: str) -> ChosenClip:
    """Frames of a rendered clip; the first of them becomes the world."""
    index = list(positions)
    poses = clip.world_from_camera[index]
    first_from_world = invert_rigid(poses[0])
    points = transform_points(first_from_world.expand(len(index), 4, 4), clip.points[index])
    camera_from_first = invert_rigid(poses) @ poses[:1]
    camera_from_first[0] = torch.eye(4, device=poses.device)
    return ChosenClip(
        images=clip.images[index],
        depth=clip.depth[index],
        points=points,
        valid=clip.valid[index],
        moving=clip.moving[index],
        camera_from_first=camera_from_first,
        intrinsics=clip.intrinsics[index],
        label=label,
    )


def with_tracks_of(
    chosen: ChosenClip,
    clip: WorldSequence,
    positions: tuple[int, ...],
    num_points: int,
    dice: random.Random,
) -> tuple[ChosenClip, Float[Tensor, "t 2"]]:
    """Follow points of the earliest frame, and query them where they are in the first one shown.

    Points hidden in the first frame shown are left out and others taken twice; if all are, the
    clip's tracks count nowhere.
    """
    height, width = clip.depth.shape[-2:]
    candidates = torch.tensor(
        [[dice.uniform(0, width - 1), dice.uniform(0, height - 1)]
         for _ in range(CANDIDATES * num_points)], device=clip.depth.device,
    )  # fmt: skip
    earliest = min(positions)
    pixels, visible = follow(
        clip.place, candidates, clip.start + earliest, clip.start + max(positions) + 1,
        intrinsics=clip.intrinsics[0], size=(height, width),
    )  # fmt: skip
    index = [position - earliest for position in positions]
    pixels, visible = pixels[index], visible[index]
    seen = visible[0].nonzero()[:, 0].tolist()
    count = len(seen) or len(candidates)
    order = [(seen or range(count))[i % count] for i in range(num_points)]
    tracks = pixels[:, order]
    return replace(chosen, tracks=tracks, visible=visible[:, order]), tracks[0].clone()


def _truth(clips: list[ChosenClip]) -> Target:
    def stacked(name: str) -> Tensor:
        return torch.stack([getattr(clip, name) for clip in clips])

    truth = truth_of_clips(
        stacked("depth"), stacked("points"), stacked("valid"), stacked("camera_from_first"),
        stacked("intrinsics"),
    )  # fmt: skip
    if clips[0].tracks is None:
        return truth
    visible = stacked("visible")
    return replace(truth, tracks=stacked("tracks"), visibility=visible.float(), track_mask=visible)
