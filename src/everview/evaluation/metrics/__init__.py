"""Every metric as a pure function on arrays."""

from everview.evaluation.metrics.depth import DepthErrors, depth_errors, mean_depth_errors
from everview.evaluation.metrics.poses import (
    MotionErrors,
    PathErrors,
    motion_errors,
    path_errors,
)

__all__ = [
    "DepthErrors",
    "MotionErrors",
    "PathErrors",
    "depth_errors",
    "mean_depth_errors",
    "motion_errors",
    "path_errors",
]
