"""Quaternions, rotation matrices and rigid transforms. Quaternions are x y z w (scalar last)."""

import torch
from jaxtyping import Float
from torch import Tensor


def matrix_from_quaternion(quaternion: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Turn quaternions of any length but zero into rotation matrices.

    Args:
        quaternion: x y z w; need not be normalised. A quaternion shorter than 1e-8 is no rotation:
            the result is then finite, but meaningless.

    Source: the usual formula with s = 2 / |q|^2, which makes normalisation unnecessary.
    """
    i, j, k, r = quaternion.unbind(-1)
    s = 2 / quaternion.square().sum(-1).clamp_min(1e-16)
    rows = [
        1 - s * (j * j + k * k), s * (i * j - k * r), s * (i * k + j * r),
        s * (i * j + k * r), 1 - s * (i * i + k * k), s * (j * k - i * r),
        s * (i * k - j * r), s * (j * k + i * r), 1 - s * (i * i + j * j),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def quaternion_from_matrix(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Turn rotation matrices into unit quaternions x y z w with w >= 0.

    Of the four algebraically equal expressions the one with the largest denominator is taken, so
    that half turns are exact too (there q and -q are equally valid).

    Source: VGGT pose encoding; the choice goes to the first of w, x, y, z on ties.
    """
    m = rotation
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    squares = torch.stack(
        [1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz], dim=-1
    ).clamp_min(0)  # *batch 4: four times the square of w, x, y, z
    yz, zx, xy = m[..., 2, 1], m[..., 0, 2], m[..., 1, 0]
    zy, xz, yx = m[..., 1, 2], m[..., 2, 0], m[..., 0, 1]
    w2, x2, y2, z2 = squares.unbind(-1)
    candidates = torch.stack(
        [
            torch.stack([w2, yz - zy, zx - xz, xy - yx], dim=-1),
            torch.stack([yz - zy, x2, xy + yx, zx + xz], dim=-1),
            torch.stack([zx - xz, xy + yx, y2, zy + yz], dim=-1),
            torch.stack([xy - yx, xz + zx, yz + zy, z2], dim=-1),
        ],
        dim=-2,
    )  # *batch (which) (w x y z)
    candidates = candidates / (2 * squares.sqrt().clamp_min(0.1)).unsqueeze(-1)
    best = squares.argmax(dim=-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    wxyz = candidates.gather(-2, best).squeeze(-2)
    xyzw = wxyz.roll(-1, dims=-1)
    return torch.where(xyzw[..., 3:] < 0, -xyzw, xyzw)


def invert_rigid(transform: Float[Tensor, "*batch n 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Invert [R | t] (three rows) or [R | t; 0 1] (four rows): [R^T | -R^T t; 0 1]."""
    rotation = transform[..., :3, :3].transpose(-1, -2)
    translation = -(rotation @ transform[..., :3, 3:])
    return rigid(rotation, translation.squeeze(-1))


def rigid(
    rotation: Float[Tensor, "*batch 3 3"], translation: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 4 4"]:
    """Assemble the homogeneous matrix [R | t; 0 1]."""
    top = torch.cat([rotation, translation.unsqueeze(-1)], dim=-1)  # *batch 3 4
    bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*top.shape[:-2], 1, 4)
    return torch.cat([top, bottom], dim=-2)
