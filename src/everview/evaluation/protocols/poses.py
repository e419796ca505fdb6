"""Cameras against the truth: trajectories after Sim(3), and relative poses of all pairs."""

import torch
from jaxtyping import Float
from torch import Tensor

from everview.errors import ConfigError
from everview.evaluation.benchmarks.clip import EvalClip
from everview.evaluation.metrics.pairs import pair_errors, pose_auc
from everview.evaluation.metrics.poses import (
    align_paths,
    checked_poses,
    motion_errors,
    moved_path,
    path_errors,
    rmse,
)
from everview.evaluation.protocols.scores import ClipScores, Meaning, Settings
from everview.evaluation.runs.store import StoredClip

TRAJECTORY = {
    "ate": Meaning(meaning="RMS distance of camera centres", unit="unit of the truth"),
    "rpe_translation": Meaning(
        meaning="RMS error of the translation from frame to frame", unit="unit of the truth"
    ),
    "rpe_rotation": Meaning(
        meaning="RMS error of the rotation from frame to frame", unit="degrees"
    ),
}
LIMITS = (30, 15, 5, 3)
PAIRS = {
    f"auc{limit}": Meaning(
        meaning=f"area under the share of pairs whose larger error is below 1 .. {limit} degrees",
        better="higher",
    )
    for limit in LIMITS
}


def defaults(task: str, _: str) -> dict[str, object]:
    """Settings of published tables."""
    if task == "poses":
        return {"alignment": "none", "average": "groups"}
    return {"alignment": "sim3", "average": "clips"}


def score_trajectory(clip: EvalClip, stored: StoredClip, settings: Settings) -> ClipScores:
    """ATE and RPE of the frames whose true pose is known.

    Raises:
        ConfigError: if fewer than two poses are known, the true camera stands still, or a
            prediction is not finite.
    """
    truth, known = true_poses(clip)
    estimated, true = checked_poses(stored.world_from_camera[known], truth)
    alignment = str(settings["alignment"])
    path = path_errors(estimated, true, alignment=alignment)
    aligned = moved_path(estimated, align_paths(estimated, true, alignment=alignment))
    motion = motion_errors(aligned, true)
    return ClipScores(
        scores={
            "ate": path.rmse,
            "rpe_translation": rmse(motion.translation),
            "rpe_rotation": rmse(motion.rotation_degrees),
        },
        details={
            "scale": path.scale,
            "path_length": path.path_length,
            "frames_without_pose": len(clip.frames) - len(known),
        },
    )


def score_pairs(clip: EvalClip, stored: StoredClip, _: Settings) -> ClipScores:
    """AUC over all pairs of frames; the weighted mean over clips pools their pairs.

    Raises:
        ConfigError: if fewer than two poses are known, or a prediction is not finite.
    """
    truth, known = true_poses(clip)
    estimated, true = checked_poses(stored.world_from_camera[known], truth)
    errors = pair_errors(estimated, true)
    worst = errors.pose_degrees
    return ClipScores(
        scores={f"auc{limit}": pose_auc(worst, limit) for limit in LIMITS},
        weight=float(len(worst)),
        details={
            "rotation_degrees": float(errors.rotation_degrees.mean()),
            "direction_degrees": float(errors.blind_degrees.mean()),
        },
    )


def true_poses(clip: EvalClip) -> tuple[Float[Tensor, "k 4 4"], list[int]]:
    """True world_from_camera of the frames where it is known, and the numbers of these frames.

    Raises:
        ConfigError: if they are fewer than two.
    """
    if clip.poses is not None:
        return clip.poses(), list(range(len(clip.frames)))
    poses = [clip.truth(index).world_from_camera for index in range(len(clip.frames))]
    known = [i for i, pose in enumerate(poses) if pose is not None]
    if len(known) < 2:
        raise ConfigError(f"the pose of {len(known)} frames is known; two are needed")
    return torch.stack([pose.double() for pose in poses if pose is not None]), known
