"""Which frames of a set are looked at, and which of them cannot be read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from everview.errors import InputError
from everview.training.datasets.processed_scene import ProcessedScene
from everview.training.datasets.view import Dataset, Scene, View

Pair = tuple[View, View]

MIN_DETERMINANT = 1e-6
"""Of a matrix that can be inverted; that of a rotation is 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectionSettings:
    """How much of a set is looked at."""

    scenes: int = 20
    """Scenes, evenly spread over the set."""
    frames: int = 8
    """Frames of each that are decoded."""
    every_file: bool = False
    """Decode every frame of these scenes, to find damaged files."""


@dataclass(kw_only=True)
class LookedAt:
    """What could be read, and what could not."""

    scenes: list[Scene] = field(default_factory=list)
    """Those that were chosen."""
    blocks: list[list[View]] = field(default_factory=list)
    """Frames that see the same, from one scene each."""
    problems: list[str] = field(default_factory=list)
    """Files that are absent or damaged, with the reason."""
    num_read: int = 0
    """Frames that were decoded."""

    @property
    def views(self) -> Iterator[View]:
        """All frames of the blocks."""
        return (view for block in self.blocks for view in block)

    def pairs(self, *, adjacent: bool = False) -> list[list[Pair]]:
        """Per block the frames half a block apart, so that the camera has moved; or neighbours.

        Only frames with depth, pose and intrinsics; blocks without a pair are left out.
        """
        found = []
        for block in self.blocks:
            gap = 1 if adjacent else max(1, len(block) // 2)
            pairs = zip(block[:-gap], block[gap:], strict=True)
            found.append([pair for pair in pairs if all(map(_has_all_truths, pair))])
        return [pairs for pairs in found if pairs]


def look_at(dataset: Dataset, settings: InspectionSettings) -> LookedAt:
    """Read frames here and there."""
    found = LookedAt()
    for number in _spread(len(dataset.scenes), settings.scenes):
        scene = dataset.scenes[number]
        found.scenes.append(scene)
        if isinstance(scene, ProcessedScene):
            found.problems += [f"{path} does not exist" for path in missing_files(scene)]
        blocks = _blocks(scene, settings.frames, scene.max_gap or dataset.rules.max_gap)
        for positions in blocks:
            found.blocks.append(_read(scene, positions, found))
        if settings.every_file:
            done = {position for block in blocks for position in block}
            for position in sorted(set(range(len(scene))) - done):
                _read(scene, [position], found)
    found.problems = list(dict.fromkeys(found.problems))
    return found


def missing_files(scene: ProcessedScene) -> list[Path]:
    """Depth and camera files that images of the scene lack, without opening any."""
    wanted = (
        path
        for position in range(len(scene))
        for path in (scene.depth_path(position), scene.camera_path(position))
    )
    return [path for path in dict.fromkeys(wanted) if not path.exists()]


def _read(scene: Scene, positions: Sequence[int], found: LookedAt) -> list[View]:
    """The frames that can be read; the reasons of the others are kept."""
    try:
        views = scene.views(positions)
    except InputError as error:
        if len(positions) == 1:
            found.problems.append(str(error))
            return []
        return [view for position in positions for view in _read(scene, [position], found)]
    found.num_read += len(views)
    return views


def _blocks(scene: Scene, count: int, max_gap: int) -> list[list[int]]:
    """Positions of frames that are likely to see the same: near in time, and linked ones.

    Frames half a block apart are about as far apart as samples of the set may step.
    """
    blocks = []
    length = scene.num_ordered or (0 if scene.links else len(scene))
    if length:
        step = max(1, min(2 * max_gap // count, length // count))
        start = max(0, (length - step * count) // 2)
        blocks.append(list(range(start, min(length, start + step * count), step)))
    if scene.links is not None and scene.links.sets:
        largest = max(scene.links.sets, key=len)
        blocks.append(list(largest[:count]))
    elif scene.links is not None and scene.links.neighbours:
        first, others = max(scene.links.neighbours.items(), key=lambda item: len(item[1]))
        blocks.append([first, *others[: count - 1]])
    return blocks


def _spread(total: int, wanted: int) -> list[int]:
    """Up to `wanted` numbers below `total`, evenly spread."""
    if total <= wanted:
        return list(range(total))
    return [(2 * i + 1) * total // (2 * wanted) for i in range(wanted)]


def _has_all_truths(view: View) -> bool:
    """Depth, intrinsics, and a pose that can be inverted."""
    pose = view.world_from_camera.double()
    is_pose = bool(pose.isfinite().all()) and abs(float(torch.linalg.det(pose))) > MIN_DETERMINANT
    return view.has_depth and view.has_pose and view.has_intrinsics and is_pose
