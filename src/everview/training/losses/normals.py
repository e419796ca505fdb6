"""Surface normals of point maps, from each pixel's four neighbours."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

NEIGHBOURS = ((-1, 0), (0, -1), (1, 0), (0, 1))
"""Up, left, down, right, as steps in rows and columns; two in a row span a normal."""
CORNERS = ((0, 0), (-1, 0), (-1, -1), (0, -1))
"""Where both neighbours of the n-th normal lie outside the image."""
SHORTEST = 1e-6
"""Floor of the length by which published code divides a normal."""
STRIDES = (1, 2, 4)
"""Every pixel, every second, every fourth."""
FEWEST = 10
"""Known normals of a stride below which VGGT's released training counts it as 0."""


def normals(points: Float[Tensor, "m H W 3"]) -> Float[Tensor, "4 m H W 3"]:
    """Cross products of the offsets to (up, left), (left, down), (down, right), (right, up).

    Not normalised: their length is the area spanned. Neighbours outside the image lie at the
    origin; `known_normals` tells which do not.

    Source: VGGT released training, normal loss; StreamVGGT released training, point gradient.
    """
    padded = F.pad(points, (0, 0, 1, 1, 1, 1))
    offsets = [_moved(padded, step) - points for step in NEIGHBOURS]
    return torch.stack([torch.cross(offsets[i], offsets[(i + 1) % 4], dim=-1) for i in range(4)])


def known_normals(mask: Bool[Tensor, "m H W"]) -> Bool[Tensor, "4 m H W"]:
    """Where a pixel and both neighbours that span the normal count."""
    padded = F.pad(mask[..., None], (0, 0, 1, 1, 1, 1))
    seen = [_moved(padded, step)[..., 0] for step in NEIGHBOURS]
    return torch.stack([mask & seen[i] & seen[(i + 1) % 4] for i in range(4)])


def normal_error_everywhere(
    points: Float[Tensor, "m H W 3"], truth: Float[Tensor, "m H W 3"]
) -> Float[Tensor, ""]:
    """1 - cosine between normals, mean over all pixels, the four normals and strides 1, 2, 4.

    The corner normals that lie wholly outside count with cosine 0. In the published code they are
    rounding noise of a vanishing cross product, normalised to random unit vectors.

    Source: StreamVGGT released training, gradient term of the point map.
    """
    errors = []
    for stride in STRIDES:
        ours, theirs = (normals(p[:, ::stride, ::stride]) for p in (points, truth))
        cosine = F.cosine_similarity(_unit(ours), _unit(theirs), dim=-1)
        defined = torch.ones_like(cosine)
        for i, (row, column) in enumerate(CORNERS):
            defined[i, :, row, column] = 0
        errors.append((1 - cosine * defined).mean())
    return torch.stack(errors).mean()


def normal_error(
    points: Float[Tensor, "m H W 3"],
    truth: Float[Tensor, "m H W 3"],
    mask: Bool[Tensor, "m H W"],
    *,
    fewest: int = FEWEST,
) -> Float[Tensor, ""]:
    """1 - cosine between normals whose three pixels all count, mean over strides 1, 2, 4.

    Args:
        points: estimate.
        truth: in the same frame; the unit is free.
        mask: pixels that count.
        fewest: a stride with fewer known normals counts as 0.

    Source: VGGT released training, normal loss of the point map.
    """
    errors = []
    for stride in STRIDES:
        ours, theirs = (normals(p[:, ::stride, ::stride]) for p in (points, truth))
        known = known_normals(mask[:, ::stride, ::stride]).to(points.dtype)
        cosine = F.cosine_similarity(ours, theirs, dim=-1, eps=1e-12)
        count = known.sum()
        mean = ((1 - cosine) * known).sum() / count.clamp_min(1)
        errors.append(mean * (count >= fewest))
    return torch.stack(errors).mean()


def _unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(SHORTEST)


def _moved(padded: Tensor, step: tuple[int, int]) -> Tensor:
    """The neighbours of all pixels of a map with a border of one pixel."""
    height, width = padded.shape[1] - 2, padded.shape[2] - 2
    row, column = 1 + step[0], 1 + step[1]
    return padded[:, row : row + height, column : column + width]
