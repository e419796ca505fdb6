"""Relative poses of all pairs of cameras, and the area under the curve of their errors."""

import torch
from jaxtyping import Float
from torch import Tensor

from everview.evaluation.metrics.poses import rotation_degrees
from everview.geometry.rotations import invert_rigid


def pair_errors(
    estimated: Float[Tensor, "s 4 4"], true: Float[Tensor, "s 4 4"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Errors in degrees of rotation and of the direction of translation, of all pairs i < j.

    A direction and its opposite count as one, as in published tables.

    Args:
        estimated: world_from_camera.
        true: world_from_camera of the same frames.

    Source: relative pose accuracy of VGGT (2503.11651), Sec. 4.1; T_ij = T_i T_j^-1.
    """
    i, j = torch.triu_indices(len(true), len(true), offset=1)
    ours, theirs = (invert_rigid(p)[i] @ p[j] for p in (estimated, true))
    turned = rotation_degrees(ours[:, :3, :3] @ theirs[:, :3, :3].mT)
    a, b = ours[:, :3, 3], theirs[:, :3, 3]
    sine = torch.linalg.cross(a, b).norm(dim=-1)
    angle = torch.rad2deg(torch.atan2(sine, (a * b).sum(dim=-1).abs()))
    is_lost = (a.norm(dim=-1) == 0) & (b.norm(dim=-1) > 0)
    return turned, torch.where(is_lost, 90.0, angle)  # what a random direction has at worst


def pose_auc(errors: Float[Tensor, " n"], limit: int) -> float:
    """Mean over k = 1 .. limit of the share of errors below k degrees; `limit` itself counts."""
    bins = [(errors < k).double().mean() for k in range(1, limit)]
    bins.append((errors <= limit).double().mean())
    return float(torch.stack(bins).mean())
