"""Every metric as a pure function on arrays (torch or numpy); `docs/metrics.md` lists them."""

from everview.evaluation.metrics.clouds import CloudErrors, cloud_errors, estimate_normals
from everview.evaluation.metrics.confidence import (
    ProbabilityCurve,
    ReliabilityCurve,
    Sparsification,
    probability_curve,
    reliability_curve,
    sparsification,
)
from everview.evaluation.metrics.depth import DepthErrors, depth_errors, mean_depth_errors
from everview.evaluation.metrics.depth_alignment import DepthAlignment, align_depth
from everview.evaluation.metrics.drift import (
    RevisitErrors,
    SegmentDrift,
    TimeDrift,
    drift_by_length,
    drift_over_time,
    revisit_errors,
)
from everview.evaluation.metrics.neighbours import NearestPoints
from everview.evaluation.metrics.pairs import PairErrors, pair_errors, pose_auc, share_below
from everview.evaluation.metrics.point_maps import (
    MedianAlignment,
    align_by_medians,
    central_window,
)
from everview.evaluation.metrics.poses import (
    MotionErrors,
    PathErrors,
    align_paths,
    motion_errors,
    moved_path,
    path_errors,
)
from everview.evaluation.metrics.registration import Registration, icp
from everview.evaluation.metrics.streaming import (
    Latency,
    MemoryUse,
    latency,
    memory_use,
    percentile,
)
from everview.evaluation.metrics.tracks import TrackErrors, track_errors
from everview.evaluation.metrics.voxels import thinned, voxel_means, without_outliers
from everview.geometry.alignment import Similarity, umeyama

__all__ = [
    "CloudErrors",
    "DepthAlignment",
    "DepthErrors",
    "Latency",
    "MedianAlignment",
    "MemoryUse",
    "MotionErrors",
    "NearestPoints",
    "PairErrors",
    "PathErrors",
    "ProbabilityCurve",
    "Registration",
    "ReliabilityCurve",
    "RevisitErrors",
    "SegmentDrift",
    "Similarity",
    "Sparsification",
    "TimeDrift",
    "TrackErrors",
    "align_by_medians",
    "align_depth",
    "align_paths",
    "central_window",
    "cloud_errors",
    "depth_errors",
    "drift_by_length",
    "drift_over_time",
    "estimate_normals",
    "icp",
    "latency",
    "mean_depth_errors",
    "memory_use",
    "motion_errors",
    "moved_path",
    "pair_errors",
    "path_errors",
    "percentile",
    "pose_auc",
    "probability_curve",
    "reliability_curve",
    "revisit_errors",
    "share_below",
    "sparsification",
    "thinned",
    "track_errors",
    "umeyama",
    "voxel_means",
    "without_outliers",
]
