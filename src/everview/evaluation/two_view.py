"""A classical baseline: essential matrices of neighbours, lengths by PnP, chained to a path."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from everview.errors import MissingExtraError

INSTALL = 'pip install "everview[eval]"'
LEAST_MATCHES = 20
"""Below so many the camera is taken to stand still."""
RATIO = 0.75
"""Of the nearest to the second nearest descriptor, below which a match is kept."""
FEATURES = 2000
"""Per image."""
PNP_PIXELS = 2.0
"""Largest reprojection error of a point that counts."""
LONGEST = 10.0
"""Largest ratio of neighbouring lengths that is believed, and its inverse the smallest."""

Matches = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Pixels n 2 in the first and second image, and the numbers n of the features in each."""


def is_available() -> bool:
    """Whether OpenCV is installed."""
    return find_spec("cv2") is not None


def neighbour_motions(
    picture: Callable[[int], Image.Image],
    count: int,
    *,
    camera: Float[np.ndarray, "3 3"],
    distortion: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0),
    step: int = 1,
) -> Float[Tensor, "n 4 4"]:
    """Pose of frame i + step in the camera of frame i, by SIFT matches and the five-point method.

    Args:
        picture: the n-th image.
        count: of images.
        camera: true K of the images; this baseline is told what the network has to guess.
        distortion: k1 k2 p1 p2.
        step: frames between the two of a pair.

    Returns:
        One motion for each i = 0 .. count - step - 1. Two views do not show how far it is: the
        first length is 1; with step 1 each next one comes from points of the pair before that are
        found again in a third view (PnP), and is that of the pair before where fewer than 20 are.
        The identity where fewer than 20 points match.

    Raises:
        MissingExtraError: if OpenCV is not installed.
    """
    cv2 = _opencv()
    cv2.setRNGSeed(0)
    sift = cv2.SIFT_create(FEATURES)
    lens = (camera, np.array(distortion, np.float64))
    seen = [sift.detectAndCompute(np.asarray(picture(i).convert("L")), None) for i in range(count)]
    pairs = zip(seen[:-step], seen[step:], strict=True)
    matches = [_matches(cv2, a, b) for a, b in pairs]
    motions = np.stack([_motion(cv2, found, *lens) for found in matches])
    if step == 1:
        ratios = [
            _length_ratio(cv2, before, after, motion, *lens)
            for before, after, motion in zip(matches[:-1], matches[1:], motions[:-1], strict=True)
        ]
        motions[:, :3, 3] *= np.cumprod([1.0, *ratios])[:, None]
    return torch.from_numpy(motions)


def chained(motions: Float[Tensor, "n 4 4"]) -> Float[Tensor, "s 4 4"]:
    """Poses from motions: s = n + 1, the first is the identity."""
    poses = [torch.eye(4, dtype=motions.dtype)]
    for motion in motions:
        poses.append(poses[-1] @ motion)
    return torch.stack(poses)


def _opencv() -> Any:  # noqa: ANN401  -- a module without types
    try:
        return import_module("cv2")
    except ImportError as error:
        raise MissingExtraError(f"the classical baseline needs OpenCV: {INSTALL}") from error


def _matches(cv2: Any, first: Any, second: Any) -> Matches:  # noqa: ANN401
    """Places of both images that look alike and like nothing else."""
    (points, what), (other_points, other_what) = first, second
    if what is None or other_what is None or min(len(what), len(other_what)) < 2:
        return np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0, int), np.zeros(0, int)
    found = cv2.BFMatcher().knnMatch(what, other_what, k=2)
    good = [a for a, b in found if a.distance < RATIO * b.distance]
    numbers = np.array([(m.queryIdx, m.trainIdx) for m in good], int).reshape(-1, 2)
    here = np.array([points[a].pt for a, _ in numbers], np.float64).reshape(-1, 2)
    there = np.array([other_points[b].pt for _, b in numbers], np.float64).reshape(-1, 2)
    return here, there, numbers[:, 0], numbers[:, 1]


def _length_ratio(
    cv2: Any,  # noqa: ANN401
    before: Matches,
    after: Matches,
    motion: np.ndarray,
    camera: np.ndarray,
    distortion: np.ndarray,
) -> float:
    """Length of the second of two motions, that of the first being 1."""
    _, in_before, in_after = np.intersect1d(before[3], after[2], return_indices=True)
    if len(in_before) < LEAST_MATCHES or not motion[:3, 3].any():
        return 1.0
    pixels = before[0][in_before], before[1][in_before], after[1][in_after]
    first, second, third = (
        cv2.undistortPoints(p[:, None], camera, distortion)[:, 0] for p in pixels
    )
    second_from_first = np.linalg.inv(motion)
    lifted = cv2.triangulatePoints(np.eye(4)[:3], second_from_first[:3], first.T, second.T)
    with np.errstate(divide="ignore", invalid="ignore"):
        points = (lifted[:3] / lifted[3]).T
    pixel = 1.0 / float(camera[0, 0])
    kept = _seen_by(points, first, np.eye(4), pixel) & _seen_by(
        points, second, second_from_first, pixel
    )
    if kept.sum() < LEAST_MATCHES:
        return 1.0
    found, turn, shift, _ = cv2.solvePnPRansac(
        points[kept], third[kept], np.eye(3), None, reprojectionError=PNP_PIXELS * pixel
    )
    if not found:
        return 1.0
    centre = -cv2.Rodrigues(turn)[0].T @ shift[:, 0]
    ratio = float(np.linalg.norm(centre - motion[:3, 3]) / np.linalg.norm(motion[:3, 3]))
    return ratio if 1 / LONGEST < ratio < LONGEST else 1.0


def _seen_by(
    points: np.ndarray, seen: np.ndarray, camera_from_first: np.ndarray, pixel: float
) -> np.ndarray:
    """Which points (n 3) lie in front of a camera and where it saw them (n 2, normalised)."""
    local = points @ camera_from_first[:3, :3].T + camera_from_first[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.linalg.norm(local[:, :2] / local[:, 2:] - seen, axis=1)
    return (local[:, 2] > 0) & (error < PNP_PIXELS * pixel)


def _motion(
    cv2: Any,  # noqa: ANN401
    matches: Matches,
    camera: np.ndarray,
    distortion: np.ndarray,
) -> Float[np.ndarray, "4 4"]:
    """Pose of the second camera in the first."""
    if len(matches[0]) < LEAST_MATCHES:
        return np.eye(4)
    p, q = (cv2.undistortPoints(m[:, None], camera, distortion)[:, 0] for m in matches[:2])
    pixel = 1.0 / float(camera[0, 0])
    essential, mask = cv2.findEssentialMat(
        p, q, np.eye(3), method=cv2.RANSAC, prob=0.999, threshold=pixel
    )
    if essential is None or essential.shape != (3, 3):
        return np.eye(4)
    kept = mask[:, 0] > 0
    turn, direction = _likely(cv2.decomposeEssentialMat(essential), p[kept], q[kept])
    second_from_first = np.eye(4)
    second_from_first[:3, :3], second_from_first[:3, 3] = turn, direction
    return np.linalg.inv(second_from_first)


def _likely(
    solutions: tuple[np.ndarray, np.ndarray, np.ndarray], p: np.ndarray, q: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of the four solutions the smaller turn, with the sign that puts more points in front.

    The usual test by points in front alone picks a half turn where the camera hardly moves.
    Points are in normalised coordinates, n 2. Returns second_from_first.
    """
    first, second, translation = solutions
    turn = max(first, second, key=np.trace)
    direction = translation[:, 0]
    here, there = (np.concatenate([x, np.ones((len(x), 1))], axis=1) for x in (p, q))
    lifted = np.cross(there, here @ turn.T)
    in_front = (lifted * np.cross(there, direction)).sum(axis=1) < 0  # sign of the depth
    share = float(in_front.mean()) if len(in_front) else 1.0
    return turn, direction if share >= 0.5 else -direction
