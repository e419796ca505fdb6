"""Groups of procedural clips: what is rendered once, to be shown several times."""

import random
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from everview.training.feed.choice import frames_to_render
from everview.training.recipe.recipe import TrainingRecipe
from everview.training.recipe.settings import Stage
from everview.world.clip import Options, WorldSequence, sequence, training_seed

CLIPS_PER_STEP = 1024
"""Seeds reserved for a step, so that a step's clips depend on its number alone."""
CANDIDATES = 4
"""Points followed per query point wanted, as not all are seen in the first frame shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupRequest:
    """Which clips are wanted; together with the recipe it says everything about them."""

    number: int
    """Of the group, from 0."""
    stage: int
    """Whose clips they are."""
    part: int = 0
    """Which of the parts that ranks and accumulation make of a step."""


@dataclass(frozen=True, kw_only=True)
class ClipGroup:
    """Clips of one size and length as they come from the renderer. World: the place's frame."""

    request: GroupRequest
    """What was asked for."""
    length: int
    """Frames of a clip that are shown at a time."""
    images: UInt8[Tensor, "n s 3 H W"]
    """RGB."""
    depth: Float[Tensor, "n s H W"]
    """z-depth in metres; 0 where nothing is."""
    moving: Bool[Tensor, "n s H W"]
    """What may move by itself."""
    world_from_camera: Float[Tensor, "n s 4 4"]
    """Poses."""
    intrinsics: Float[Tensor, "n 3 3"]
    """K in pixels."""
    tracks: Float[Tensor, "n s c 2"] | None
    """Pixels of candidates for query points; None in stages without tracks."""
    visible: Bool[Tensor, "n s c"] | None
    """Whether they are seen."""
    labels: tuple[str, ...]
    """Seed and kind of each clip."""
    numbers: tuple[int, ...]
    """Place of each clip in its step, over all parts."""


class GroupRenderer:
    """Renders groups, in this process or in others.

    Args:
        recipe: what clips are like.
        num_parts: into how many parts a step is split.
        device: where to render.
    """

    def __init__(self, recipe: TrainingRecipe, *, num_parts: int = 1, device: str = "cpu") -> None:
        self.recipe, self.num_parts, self.device = recipe, num_parts, device

    def group(self, request: GroupRequest) -> ClipGroup:
        """A function of the request alone."""
        stage, data = self.recipe.stages[request.stage], self.recipe.data
        dice = random.Random(f"{self.recipe.run.seed} {request.number}")
        length = dice.randint(*stage.frames)
        size = (dice.choice(data.heights), data.width)
        total = num_clips(stage, length, self.num_parts)
        numbers = tuple(range(request.part, total, self.num_parts))
        clips = [self._clip(request.number, number, stage, length, size) for number in numbers]
        tracks = None
        if stage.track_every:
            tracks = [
                self._tracks(clip, request.number, number)
                for clip, number in zip(clips, numbers, strict=True)
            ]
        return ClipGroup(
            request=request,
            length=length,
            images=torch.stack([(clip.images * 255).round().byte() for clip in clips]),
            depth=torch.stack([clip.depth for clip in clips]),
            moving=torch.stack([clip.moving for clip in clips]),
            world_from_camera=torch.stack([clip.world_from_camera for clip in clips]),
            intrinsics=torch.stack([clip.intrinsics[0] for clip in clips]),
            tracks=None if tracks is None else torch.stack([pixels for pixels, _ in tracks]),
            visible=None if tracks is None else torch.stack([seen for _, seen in tracks]),
            labels=tuple(
                f"procedural clip of seed {self._seed(request.number, number)} ({clip.kind})"
                for clip, number in zip(clips, numbers, strict=True)
            ),
            numbers=numbers,
        )

    def _clip(
        self, group: int, number: int, stage: Stage, length: int, size: tuple[int, int]
    ) -> WorldSequence:
        slow, fast = stage.speeds
        return sequence(
            self._seed(group, number),
            frames_to_render(stage, length),
            size=size,
            speed=slow + (fast - slow) * self._dice(group, number, "speed").random(),
            kind=self._kind(stage, group, number),
            options=Options(
                motion=stage.motion,
                moving=stage.moving,
                tilt=self._tilt(stage, group, number),
                device=self.device,
            ),
        )

    def _kind(self, stage: Stage, group: int, number: int) -> str:
        """Drawn here if the stage has shares of its own, else by the world."""
        if not stage.kind_shares:
            return stage.kind
        kinds, shares = zip(*stage.kind_shares.items(), strict=True)
        (kind,) = self._dice(group, number, "kind").choices(kinds, shares)
        return str(kind)

    def _tilt(self, stage: Stage, group: int, number: int) -> float:
        """Degrees upwards."""
        dice = self._dice(group, number, "tilt")
        return dice.uniform(*stage.tilts) if dice.random() < stage.tilted_share else 0.0

    def _tracks(self, clip: WorldSequence, group: int, number: int) -> tuple[Tensor, Tensor]:
        """Candidates for query points, drawn in the first frame rendered."""
        height, width = clip.depth.shape[-2:]
        dice = self._dice(group, number, "candidates")
        count = CANDIDATES * self.recipe.data.tracked_points
        points = [[dice.uniform(0, width - 1), dice.uniform(0, height - 1)] for _ in range(count)]
        return clip.tracks(torch.tensor(points, device=clip.depth.device))

    def _seed(self, group: int, number: int) -> int:
        return training_seed((self.recipe.run.seed * 1_000_003 + group) * CLIPS_PER_STEP + number)

    def _dice(self, group: int, number: int, purpose: str) -> random.Random:
        return random.Random(f"{self.recipe.run.seed} {group} {number} {purpose}")


def num_clips(stage: Stage, length: int, num_parts: int) -> int:
    """Clips of a step: as many as the budget of images allows, and equally many in each part."""
    wanted = max(1, stage.images // length)
    return min(CLIPS_PER_STEP // num_parts, max(1, wanted // num_parts)) * num_parts
