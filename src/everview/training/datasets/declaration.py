"""What has to be said about a processed set: paths, units, what is invalid, how to sample."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from everview.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingRules:
    """How the frames of a sample are drawn from a scene."""

    max_gap: int = 1
    """Largest step between neighbouring frames, in frames of the set."""
    video: float = 0.5
    """Probability that an ordered sample counts as video and stays sorted."""
    fixed_gap: float = 0.5
    """Probability that all steps of a video sample are equal."""
    block: int | None = None
    """Samples that are no video are shuffled within blocks of so many frames; None: as a whole."""
    ordered_share: float = 1.0
    """Probability that a sample of a scene with links follows the order of time, not the links."""
    background_masked: float = 0.0
    """Probability that depth of the background counts as invalid, in sets of single objects."""
    samples_per_epoch: int = 0
    """Samples that the published mixture takes per epoch; 0 if it does not name the set."""

    def __post_init__(self) -> None:
        """Refuse gaps below 1 and probabilities outside [0, 1]."""
        shares = (self.video, self.fixed_gap, self.ordered_share, self.background_masked)
        if self.max_gap < 1 or (self.block is not None and self.block < 1):
            raise ConfigError(
                "SamplingRules.max_gap and block must be 1 or more; got "
                f"{self.max_gap} and {self.block}"
            )
        if not all(0 <= share <= 1 for share in shares):
            raise ConfigError(f"probabilities of SamplingRules lie in [0, 1]; got {shares}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthCode:
    """How stored numbers become depth. Zero, negative and non-finite values are invalid anyway."""

    unit: float = 1.0
    """Depth of the stored value 1: 0.001 for millimetres."""
    full_scale: str | None = None
    """Name of the number in the camera file that the largest 16-bit value stands for."""
    largest: float = math.inf
    """Depth above it is cut off."""
    percentile: float | None = None
    """Depth above this percentile of the image's own is cut off."""
    sky_from: float = math.inf
    """Depth from here on is sky."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SetDeclaration:
    """One processed set. Paths are relative to the scene's folder; `{id}` is the frame's name."""

    name: str
    """As in a mixture."""
    title: str
    """As in papers."""
    folder: str
    """Usual name of the set's folder."""
    is_metric: bool
    """Whether depth and poses are in metres."""
    scenes: tuple[str, ...]
    """Patterns of the scenes' folders below the set's."""
    images: str
    """Folder of a scene's images."""
    image_name: str
    """Regular expression of their names with a group `id` and perhaps `track`."""
    depth: str
    """Path of a frame's depth."""
    camera: str | None = None
    """Path of a frame's camera; None if one file holds all of the scene's."""
    scene_camera: str | None = None
    """File with the names, cameras and groups of a scene's frames."""
    mask: str | None = None
    """Path of a frame's foreground mask."""
    code: DepthCode = DepthCode()
    """How depth is stored."""
    rules: SamplingRules = SamplingRules()
    """How it is sampled."""
    marker: str | None = None
    """File in the set's folder by which it is recognised, with the links of its frames if any."""
    selection: str | None = None
    """File in the set's folder that names the scenes of a split."""
    excluded_scenes: tuple[str, ...] = ()
    """Scenes left out: the beginnings of their paths."""
    excluded_by: str | None = None
    """Sibling folder whose scenes are left out here."""
    unordered_name: str | None = None
    """Regular expression of the names of images that have no order in time."""
    excluded_tracks: tuple[str, ...] = ()
    """Tracks left out."""
    track_gaps: Mapping[str, int] = field(default_factory=dict)
    """Largest step of tracks that differ from the others."""
    is_video: bool = True
    """Whether frames are in order of time; false for collections."""
    scale_file: str | None = None
    """File in the set's folder with a number per scene; depth and translation are divided by 1000
    times it."""

    def parts(self, file_name: str) -> dict[str, str]:
        """What the name of an image says: `id` and perhaps `track`; empty if it is none."""
        match = re.fullmatch(self.image_name, file_name)
        return match.groupdict() if match else {}

    def is_unordered(self, file_name: str) -> bool:
        """Whether an image of this name has no place in time, such as a single photograph."""
        pattern = self.unordered_name
        return pattern is not None and re.fullmatch(pattern, file_name) is not None
