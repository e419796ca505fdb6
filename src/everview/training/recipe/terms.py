"""Names of the terms of every loss, so that a mistyped weight is refused before a run."""

from types import MappingProxyType

_PAPER = (
    "camera", "depth", "depth_gradient", "depth_regulariser", "points", "points_gradient",
    "points_regulariser", "tracks", "visibility",
)  # fmt: skip
_RELEASED_DISTILLATION = (
    "translation", "rotation", "fov", "depth", "depth_gradient", "depth_regulariser", "points",
    "points_normals", "points_regulariser", "tracks", "visibility",
)  # fmt: skip

TERMS: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        "procedural": (
            "camera", "fov", "depth", "depth_gradient", "scale", "points", "tracks",
        ),
        "released": (
            "translation", "rotation", "fov", "depth_confidence", "depth_error", "depth_gradient",
            "points_confidence", "points_error", "points_normals", "tracks", "visibility",
            "track_confidence",
        ),
        "paper": _PAPER,
        "teacher corrected": (*_RELEASED_DISTILLATION, "track_regulariser", "scale"),
        "teacher released": _RELEASED_DISTILLATION,
        "teacher released-eval": _RELEASED_DISTILLATION,
        "teacher paper": _PAPER,
        "guide": ("flow", "attention", "rotation", "translation", "path", "turn"),
    }
)  # fmt: skip
"""Loss -> names of its terms; those of a teacher behind the word `teacher`."""

TRACK_TERMS = frozenset({"tracks", "visibility", "track_confidence", "track_regulariser"})
"""Terms that exist only in steps that train the tracker."""
