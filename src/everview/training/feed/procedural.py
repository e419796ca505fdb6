"""Batches of procedural clips: each a function of recipe, step, stage and part alone.

Rendering costs more than a step on a GPU, so clips are rendered once, in groups, and shown several
times with other frames, order, colours and query points. Groups wait on the training device; what
is chosen from them is chosen for all clips at once.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from everview.geometry.cameras import points_from_depth
from everview.geometry.rotations import invert_rigid
from everview.training.feed.batch import Batch, Request, moved, truth_of_clips
from everview.training.feed.choice import Colours, choose_frames
from everview.training.feed.rendering import ClipGroup, GroupRenderer, GroupRequest
from everview.training.losses.target import Target
from everview.training.recipe.recipe import TrainingRecipe
from everview.training.recipe.settings import Stage

APART = 4
"""A reused group comes back after so many times `reuse` steps and one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Which clips a step shows."""

    number: int
    """Of the group; decides everything about its clips."""
    use: int
    """How often they were used before."""


class ProceduralSource:
    """Shows clips of groups, which it renders itself or is given (`take`).

    Args:
        recipe: what clips are like.
        num_parts: into how many parts a step is split.
        device: where to render.
        show_on: where groups wait and batches are made.
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        *,
        num_parts: int = 1,
        device: str = "cpu",
        show_on: torch.device | str | None = None,
    ) -> None:
        self.recipe = recipe
        self.renderer = GroupRenderer(recipe, num_parts=num_parts, device=device)
        self.show_on = torch.device(device if show_on is None else show_on)
        self._asked: dict[tuple[int, int], GroupRequest] = {}
        self._groups: dict[GroupRequest, ClipGroup] = {}

    def batch(self, request: Request) -> Batch:
        """Choose frames of the group's clips, colours and query points."""
        place = locate(request.step, self.recipe.data.reuse)
        self._forget(request.step)
        wanted = self.group_of(request)
        if wanted not in self._groups:
            self.take(self.renderer.group(wanted))
        return self._show(self._groups[wanted], request, place)

    def group_of(self, request: Request) -> GroupRequest:
        """The group that a batch is made of, with the clips of the stage that first asks for it."""
        number = locate(request.step, self.recipe.data.reuse).number
        key = (number, request.part)
        if key not in self._asked:
            schedule, stage = self.recipe.schedule, request.stage
            if schedule.unit == "steps":  # the same in a run that was interrupted
                stage = self.recipe.stage_at(number * self.recipe.data.reuse / schedule.length)
            self._asked[key] = GroupRequest(number=number, stage=stage, part=request.part)
        return self._asked[key]

    def take(self, group: ClipGroup) -> None:
        """Keep a rendered group until it is used no more."""
        self._groups[group.request] = moved(group, self.show_on)

    def new_groups(
        self, requests: Iterable[Request], waiting: list[Request]
    ) -> Iterator[GroupRequest]:
        """Groups in the order in which they are needed; requests passed on the way are kept."""
        for request in requests:
            waiting.append(request)
            known = len(self._asked)
            wanted = self.group_of(request)
            if len(self._asked) > known:
                yield wanted

    def has(self, request: Request) -> bool:
        """Whether the group of a batch is there."""
        return self.group_of(request) in self._groups

    def _show(self, group: ClipGroup, request: Request, place: Place) -> Batch:
        stage, data = self.recipe.stages[group.request.stage], self.recipe.data
        dice = [
            random.Random(f"{self.recipe.run.seed} {place.number} {number} use {place.use}")
            for number in group.numbers
        ]
        frames = [choose_frames(stage, group.length, die) for die in dice]
        index = torch.tensor(frames, device=self.show_on)
        images = _chosen(group.images, index).float() / 255
        if data.colours:
            images = Colours.apply_all([Colours.draw(data.colours, die) for die in dice], images)
        truth, valid = _truth(group, index)
        queries = None
        if has_tracks(self.recipe.stages[request.stage], request.step) and group.tracks is not None:
            truth, queries = _with_tracks(truth, group, index, data.tracked_points, dice)
        return Batch(
            request=request,
            images=images,
            queries=queries,
            truth=truth,
            valid=valid,
            still=~_chosen(group.moving, index),
            labels=tuple(
                f"{label}, frames {','.join(map(str, positions))}, use {place.use}"
                for label, positions in zip(group.labels, frames, strict=True)
            ),
            numbers=group.numbers,
        )

    def _forget(self, step: int) -> None:
        """Drop groups that were used for the last time."""
        reuse = self.recipe.data.reuse
        oldest = step // reuse - (reuse - 1) * APART
        for key in [key for key in self._asked if key[0] < oldest]:
            self._groups.pop(self._asked.pop(key), None)


def locate(step: int, reuse: int) -> Place:
    """Which clips a step shows. With `reuse` u every u-th step needs new ones.

    Step u q + j takes group q - j `APART`: each group is used u times, far apart, and a step's
    clips depend on its number alone. The first steps, which would need groups before the first,
    take those that are there once more.
    """
    newest, use = divmod(step, reuse)
    number = newest - use * APART
    return Place(number=number if number >= 0 else number % (newest + 1), use=use)


def has_tracks(stage: Stage, step: int) -> bool:
    """Whether the tracker is trained in a step."""
    return stage.track_every > 0 and step % stage.track_every == 0


def _chosen(values: Tensor, index: Tensor) -> Tensor:
    """Frames of each clip: n s ... and n t to n t ..."""
    return values[torch.arange(len(index), device=index.device)[:, None], index]


def _truth(group: ClipGroup, index: Tensor) -> tuple[Target, Tensor]:
    """Truth of the frames shown, whose first one becomes the world; and which pixels are known."""
    depth = _chosen(group.depth, index)
    poses = _chosen(group.world_from_camera, index)
    camera_from_first = invert_rigid(poses) @ poses[:, :1]
    camera_from_first[:, 0] = torch.eye(4, device=index.device)
    intrinsics = group.intrinsics[:, None].expand(-1, index.shape[1], -1, -1)
    points = points_from_depth(depth, camera_from_first, intrinsics)
    valid = depth > 0
    return truth_of_clips(depth, points, valid, camera_from_first, intrinsics), valid


def _with_tracks(
    truth: Target, group: ClipGroup, index: Tensor, count: int, dice: list[random.Random]
) -> tuple[Target, Float[Tensor, "n t 2"]]:
    """Tracks of points that are seen in the first frame shown, some taken twice if they are few.

    If none is, the clip's tracks count nowhere.
    """
    assert group.tracks is not None, "the caller has looked"
    assert group.visible is not None, "they come with the tracks"
    pixels, seen = _chosen(group.tracks, index), _chosen(group.visible, index)  # n t c 2, n t c
    order = torch.tensor([[die.random() for _ in range(seen.shape[2])] for die in dice])
    first = seen[:, 0]
    ranked = (order.to(index.device) + first).argsort(dim=1, descending=True)  # seen ones lead
    available = first.sum(dim=1, keepdim=True).clamp_min(1)
    places = torch.arange(count, device=index.device)[None] % available
    chosen = ranked.gather(1, places)[:, None].expand(-1, index.shape[1], -1)  # n t count
    tracks = pixels.gather(2, chosen[..., None].expand(-1, -1, -1, 2))
    visible = seen.gather(2, chosen)
    target = replace(truth, tracks=tracks, visibility=visible.float(), track_mask=visible)
    return target, tracks[:, 0].clone()
