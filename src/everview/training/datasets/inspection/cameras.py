"""Are poses rotations and translations, and intrinsics those of a camera?"""

from collections.abc import Sequence

import torch

from everview.geometry.cameras import fov_from_intrinsics
from everview.training.datasets.inspection.finding import Finding
from everview.training.datasets.view import View

Measures = dict[str, float | str | None]

MAX_SKEWED, MAX_ROUGH = 1e-2, 1e-3
"""Largest entry of R R^T - I: above the first it is no rotation, above the second badly rounded."""
FIELDS_OF_VIEW = (5.0, 160.0)
"""Degrees that a pinhole camera may span."""
CENTRAL = (0.25, 0.75)
"""Where the principal point may lie, as a share of the side; crops leave it near the middle."""
MAX_STRETCH = 1.5
"""Largest ratio of the two focal lengths."""


def inspect_poses(views: Sequence[View]) -> tuple[Measures, list[Finding]]:
    """Finite, orthonormal, right-handed."""
    known = [view for view in views if view.has_pose]
    finite = [view for view in known if view.world_from_camera.isfinite().all()]
    measures: Measures = {"finite_poses": len(finite) / len(known) if known else None}
    findings = _not_finite(known, len(finite))
    if not finite:
        return {**measures, "rotation_error": None}, findings
    poses = torch.stack([view.world_from_camera.double() for view in finite])
    rotation = poses[:, :3, :3]
    gram = rotation @ rotation.mT - torch.eye(3, dtype=torch.float64)
    worst = gram.abs().amax(dim=(1, 2))
    measures["rotation_error"] = float(worst.max())
    label = finite[int(worst.argmax())].label
    if worst.max() > MAX_ROUGH:
        findings.append(_rough_rotation(float(worst.max()), label))
    mirrored = [v.label for v, d in zip(finite, torch.linalg.det(rotation), strict=True) if d < 0]
    if mirrored:
        findings.append(
            Finding(
                level="fault",
                check="rotations",
                text=f"{len(mirrored)} of {len(finite)} rotations mirror the scene (determinant "
                f"-1), such as {mirrored[0]}",
                advice="one axis was flipped alone: turn the camera's axes with "
                "diag(1, -1, -1), never with diag(1, -1, 1)",
            )
        )
    if not torch.allclose(poses[:, 3], poses.new_tensor([0.0, 0.0, 0.0, 1.0])):
        findings.append(
            Finding(
                level="fault",
                check="rotations",
                text="the last row of the poses is not 0 0 0 1",
                advice="store 4x4 matrices row by row; a transposed matrix has the translation "
                "in its last row",
            )
        )
    return measures, findings


def inspect_intrinsics(views: Sequence[View]) -> tuple[Measures, list[Finding]]:
    """Focal lengths and principal point of a pinhole camera of this image."""
    known = [view for view in views if view.has_intrinsics]
    if not known:
        return {"field_of_view": None}, []
    angles = [_horizontal_angle(view) for view in known]
    measures: Measures = {"field_of_view": float(torch.tensor(angles).median())}
    for view, angle in zip(known, angles, strict=True):
        reason, advice = _implausible(view, angle)
        if reason:
            text = f"{reason} in {view.label}"
            finding = Finding(level="fault", check="intrinsics", text=text, advice=advice)
            return measures, [finding]
    return measures, []


def _not_finite(known: Sequence[View], num_finite: int) -> list[Finding]:
    num_bad = len(known) - num_finite
    if not num_bad:
        return []
    return [
        Finding(
            level="fault" if 2 * num_bad > len(known) else "warning",
            check="rotations",
            text=f"{num_bad} of {len(known)} poses are not finite",
            advice="samples that meet one are drawn anew; delete the images of lost frames to "
            "save the time",
        )
    ]


def _rough_rotation(error: float, label: str) -> Finding:
    is_none = error > MAX_SKEWED
    return Finding(
        level="fault" if is_none else "warning",
        check="rotations",
        text=f"R R^T differs from the identity by up to {error:.2g} in {label}",
        advice=(
            "this is no rotation: a scale was multiplied in, or rows and columns are mixed up"
            if is_none
            else "project rotations onto the nearest orthonormal matrix (SVD) when converting"
        ),
    )


def _horizontal_angle(view: View) -> float:
    angle = fov_from_intrinsics(view.intrinsics.double(), view.size)[1]
    return float(torch.rad2deg(angle))


def _implausible(view: View, angle: float) -> tuple[str, str]:
    """What is wrong with K, and what to do; empty if nothing."""
    height, width = view.size
    (fx, skew, cx), (_, fy, cy), _ = view.intrinsics.tolist()
    if not view.intrinsics.isfinite().all() or min(fx, fy) <= 0:
        return f"focal lengths {fx:.4g} and {fy:.4g}", "they are pixels and must be above 0"
    if max(fx, fy) < 10 and max(cx, cy) <= 1:
        return (
            f"focal lengths {fx:.3g} and {fy:.3g}",
            "K looks normalised: multiply its rows by the width and height of the image",
        )
    if not FIELDS_OF_VIEW[0] <= angle <= FIELDS_OF_VIEW[1]:
        return (
            f"a field of view of {angle:.1f} degrees",
            "K belongs to another image size: scale its first two rows to this one",
        )
    shares = (cx / width, cy / height)
    if not all(CENTRAL[0] <= share <= CENTRAL[1] for share in shares):
        return (
            f"the principal point ({cx:.1f}, {cy:.1f}) in an image of {width} x {height}",
            "K belongs to another image size, or width and height are swapped",
        )
    if max(fx / fy, fy / fx) > MAX_STRETCH or abs(skew) > 0.1 * fx:
        return (
            f"focal lengths {fx:.4g} and {fy:.4g}, skew {skew:.3g}",
            "pixels are taken for square and unskewed: rectify the images",
        )
    return "", ""
