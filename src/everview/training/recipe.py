"""TrainingRecipe: every setting of a training run, typed, written beside its result."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from everview.errors import ConfigError, InputError


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """Supervised training on procedural clips."""

    preset: str = "mini"
    """Architecture: a name in `everview.presets`."""
    minutes: float = 54.0
    """Wall-clock time that the learning rate's schedule spans."""
    images_per_step: int = 16
    """Images of a step; longer clips mean fewer clips."""
    clip_lengths: tuple[int, int] = (2, 8)
    """Shortest and longest clip, in frames."""
    heights: tuple[int, ...] = (84, 98, 112)
    """Image heights in pixels; one per step."""
    width: int = 140
    """Image width in pixels."""
    speeds: tuple[float, float] = (1.0, 6.0)
    """Motion between frames, as a multiple of the world's own; evenly distributed."""
    dense_images: int = 8
    """Images of a step in which depth and points are punished: the heads would be half the cost."""
    track_every: int = 6
    """Every how many steps the tracker is trained."""
    tracked_points: int = 32
    """Query points per clip."""
    learning_rate: float = 8e-4
    """Peak of AdamW's learning rate."""
    warm_up_steps: int = 100
    """Linear warm-up."""
    weight_decay: float = 0.02
    """Of matrices; vectors have none."""
    layer_scale: float = 0.3
    """Initial LayerScale: the published 0.01 is made for a pretrained encoder."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    average_decay: float = 0.998
    """Of the moving average of the weights, which is what is kept in the end."""
    camera_weight: float = 5.0
    """Weight of the camera term."""
    relative_weight: float = 15.0
    """Weight of relative poses between neighbouring frames."""
    flow_weight: float = 2.0
    """Weight of the auxiliary displacement of patches."""
    attention_weight: float = 1.0
    """Weight of the auxiliary guidance of attention."""
    track_weight: float = 0.5
    """Weight of the track term."""
    confidence_alpha: float = 0.1
    """Reward of confidence."""
    seed: int = 0
    """Of the initial weights and of the order of clips."""
    checkpoint_minutes: float = 3.0
    """Minutes between checkpoints."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        low, high = self.clip_lengths
        if not 2 <= low <= high <= self.images_per_step:
            raise ConfigError(
                "TrainingRecipe.clip_lengths must be (low, high) with 2 <= low <= high <= "
                f"images_per_step {self.images_per_step}, got {self.clip_lengths}"
            )
        if any(side % 14 for side in (*self.heights, self.width)):
            raise ConfigError(
                f"TrainingRecipe.heights {self.heights} and width {self.width} must be multiples "
                "of 14"
            )

    def save(self, path: Path) -> None:
        """Write all settings as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "TrainingRecipe":
        """Read what `save` wrote; InputError names a file that is not one."""
        try:
            values: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is no training recipe: {error}") from error
        known = {field.name for field in fields(cls)}
        unknown = sorted(values.keys() - known)
        if unknown:
            raise InputError(f"{path}: {unknown[0]!r} is no setting of a recipe")
        settings: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**settings)


RECIPES = {"mini-v0": TrainingRecipe()}
"""Recipes by name, as the command line takes them."""
