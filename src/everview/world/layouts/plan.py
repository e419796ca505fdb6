"""What a layout looks like: where the parts of a frame go, and how depth is stored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from everview.world.clip import WorldSequence

Writer = Callable[[Path, Sequence[WorldSequence]], None]
"""Writes clips into a folder; makes the folder, and replaces files of the same names."""

Finish = Callable[[Path, "LayoutPlan", Sequence[WorldSequence]], None]
"""Adds the files that belong to the whole set, such as lists of scenes."""


@dataclass(frozen=True, kw_only=True)
class LayoutPlan:
    """One layout. Paths of a frame are relative to its scene; `{frame}` is its number."""

    scene: str
    """Folder of a scene below the set's; `{scene}` is the number of the clip."""
    image: str
    """`.jpg` (quality 95, no subsampling of colour) or `.png`."""
    depth: str
    """`.png` (16 bit), `.npy` or `.exr` (float32)."""
    depth_step: float = 1e-3
    """Metres per stored step of a 16-bit PNG."""
    sky_step: int = 0
    """What a 16-bit PNG holds where there is no depth."""
    is_depth_relative: bool = False
    """Whether a 16-bit PNG spans each frame's own range, whose end the camera file names."""
    unit: float = 1.0
    """Stored lengths per metre, of depth and translation."""
    camera: str | None = None
    """`.npz` with `intrinsics` 3 3 and `pose` 4 4 (world_from_camera)."""
    scene_camera: str | None = None
    """`.npz` with `images`, `intrinsics` and `poses` of all frames."""
    groups: bool = False
    """Whether the scene's file also names groups of frames that see the same."""
    mask: str | None = None
    """`.png`: white where the nearer half of the pixels is, in place of an object."""
    finish: Finish | None = None
    """What else the set has."""

    def scene_folder(self, root: Path, number: int) -> Path:
        """Folder of the n-th clip."""
        return root / self.scene.format(scene=number)

    def part(self, template: str, frame: int) -> str:
        """Path of a part of a frame."""
        return template.format(frame=frame)
