"""Choice of calibration clips: noise-filtered diverse sampling.

Clips whose deep activations are unlike those of the pool are left out, the others are clustered by
how their frames relate to the first one, and each cluster gives the same number of clips.

Source: QuantVGGT (arXiv 2509.21302) Sec. 3.3. The published code computes its filter and then
clusters all clips; here the filter filters.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from everview.errors import ConfigError, InputError

EPSILON = 1e-8
"""Added to the variances of the pool, so that a layer without spread counts for nothing."""
FEWEST_OF_A_CATEGORY = 4
"""Categories with fewer clips have no quartiles worth the name: nothing is removed there."""
MOST_ROUNDS = 300

Choice = Literal["random", "filter", "cluster", "nfds"]
"""How clips are chosen: by chance, filtered, clustered, or filtered and clustered."""


def outlier_scores(
    mean: Float[Tensor, "clips layers"], variance: Float[Tensor, "clips layers"]
) -> Float[Tensor, " clips"]:
    """How far each clip's moments are from those of the pool, in deviations of the pool.

    The root of the sum over layers of the squared z-scores of mean and variance.

    Source: QuantVGGT Eq. for the noise score (design page, Sec. 2.7).
    """
    total = torch.zeros(len(mean), dtype=torch.float64)
    for moments in (mean.double(), variance.double()):
        spread = moments.var(0, correction=0) + EPSILON
        total += ((moments - moments.mean(0)) ** 2 / spread).sum(1)
    return total.sqrt()


def quartile_outliers(
    statistics: Float[Tensor, "clips statistics"], category: Int64[Tensor, " clips"]
) -> Int64[Tensor, " outliers"]:
    """Clips outside 1.5 interquartile ranges of their category in any statistic, ascending.

    This is the rule of the published code, whose result is not used there.
    """
    is_outlier = np.zeros(len(statistics), dtype=bool)
    values = statistics.numpy()
    for kind in category.unique().tolist():
        members = np.flatnonzero(category.numpy() == kind)
        if len(members) < FEWEST_OF_A_CATEGORY:
            continue
        low, high = np.quantile(values[members], (0.25, 0.75), axis=0)
        reach = 1.5 * (high - low)
        beyond = (values[members] < low - reach) | (values[members] > high + reach)
        is_outlier[members[beyond.any(1)]] = True
    return torch.from_numpy(np.flatnonzero(is_outlier))


def frame_correlations(
    features: Float[Tensor, "clips s p c"], *, by: Literal["token", "frame"] = "token"
) -> Float[Tensor, "clips others"]:
    """Cosine of every later frame to the first one.

    Args:
        by: `token`: mean over tokens of the cosine of each token to the same token of frame 0 (as
            published in code; a few large tokens do not decide); `frame`: cosine of whole frames
            as vectors (as in the paper).
    """
    flat = features if by == "token" else features.flatten(2).unsqueeze(2)
    cosine = F.cosine_similarity(flat[:, 1:], flat[:, :1], dim=-1)  # clips s-1 p
    return cosine.mean(-1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Clusters:
    """Result of `k_means`."""

    labels: Int64[Tensor, " points"]
    """Cluster of each point."""
    centers: Float[Tensor, "clusters axes"]
    """Means of the clusters."""
    inertia: float
    """Sum of the squared distances of the points to their centers."""


def k_means(
    points: Float[Tensor, "points axes"], clusters: int, *, restarts: int = 50, seed: int = 42
) -> Clusters:
    """Clusters by Lloyd's iteration from k-means++ starts; the best of all restarts.

    Raises:
        ConfigError: if there are fewer points than clusters.
    """
    if not 1 <= clusters <= len(points):
        raise ConfigError(f"{len(points)} points cannot form {clusters} clusters; ask for fewer")
    generator = torch.Generator().manual_seed(seed)
    x = points.double()
    runs = [_lloyd(x, _first_centers(x, clusters, generator)) for _ in range(restarts)]
    return min(runs, key=lambda run: run.inertia)


def _first_centers(x: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Points far apart, drawn with probability proportional to the squared distance (k-means++)."""
    centers = [x[int(torch.randint(len(x), (), generator=generator))]]
    for _ in range(clusters - 1):
        distance = torch.cdist(x, torch.stack(centers)).amin(1) ** 2
        if not distance.any():  # fewer different points than clusters
            distance = torch.ones_like(distance)
        centers.append(x[int(torch.multinomial(distance, 1, generator=generator))])
    return torch.stack(centers)


def _lloyd(x: Tensor, centers: Tensor) -> Clusters:
    labels = torch.full((len(x),), -1)
    for _ in range(MOST_ROUNDS):
        distance = ((x[:, None] - centers[None]) ** 2).sum(-1)
        new = distance.argmin(1)
        if torch.equal(new, labels):
            break
        labels = new
        centers = torch.stack(
            [x[labels == k].mean(0) if (labels == k).any() else centers[k]
             for k in range(len(centers))]
        )  # fmt: skip
    inertia = float(((x - centers[labels]) ** 2).sum())
    return Clusters(labels=labels, centers=centers, inertia=inertia)


def pick_balanced(
    labels: Int64[Tensor, " points"], per_cluster: int, *, seed: int
) -> Int64[Tensor, " picked"]:
    """The same number of points from each cluster, by chance, ascending.

    A cluster with too few members gives all; what is missing is drawn from the rest.
    """
    generator = torch.Generator().manual_seed(seed)
    clusters = labels.unique()
    wanted = min(per_cluster * len(clusters), len(labels))
    picked: list[int] = []
    for cluster in clusters:
        members = (labels == cluster).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        picked += members[order[:per_cluster]].tolist()
    rest = torch.tensor(sorted(set(range(len(labels))) - set(picked)), dtype=torch.int64)
    order = torch.randperm(len(rest), generator=generator)
    return torch.tensor(sorted(picked + rest[order[: wanted - len(picked)]].tolist()))


def select_clips(
    mean: Float[Tensor, "clips layers"],
    variance: Float[Tensor, "clips layers"],
    correlations: Float[Tensor, "clips others"],
    *,
    choice: Choice = "nfds",
    clusters: int = 5,
    per_cluster: int = 4,
    keep_fraction: float = 0.2,
    seed: int = 0,
) -> Int64[Tensor, " picked"]:
    """Indices of the clips to calibrate with, ascending; same seed, same clips.

    Args:
        mean: of the deep layers' inputs, see `outlier_scores`.
        variance: of the same.
        correlations: of `frame_correlations`.
        choice: which of the two steps are done.
        keep_fraction: of the pool, those with the lowest scores; never fewer than are wanted.

    Raises:
        ConfigError: if the pool is smaller than what is wanted, or a setting is out of range.
        InputError: if a clip's numbers are not finite; names it.
    """
    wanted = clusters * per_cluster
    if not 0 < keep_fraction <= 1 or wanted < 1:
        raise ConfigError(
            f"keep_fraction must be in (0, 1], clusters and per_cluster at least 1; got "
            f"{keep_fraction}, {clusters}, {per_cluster}"
        )
    if len(mean) < wanted:
        raise ConfigError(
            f"{len(mean)} candidate clips are too few to choose {clusters} x {per_cluster}; give "
            "more, or lower clusters or per_cluster"
        )
    for name, values in (("mean", mean), ("variance", variance), ("correlations", correlations)):
        bad = (~values.isfinite()).any(1).nonzero().flatten().tolist()
        if bad:
            raise InputError(f"candidate clip {bad[0]}: its {name} is not finite")
    pool = torch.arange(len(mean))
    if choice in ("filter", "nfds"):
        kept = max(wanted, round(keep_fraction * len(mean)))
        pool = outlier_scores(mean, variance).argsort(stable=True)[:kept].sort().values
    if choice in ("cluster", "nfds"):
        found = k_means(correlations[pool], clusters, seed=seed)
        return pool[pick_balanced(found.labels, per_cluster, seed=seed)]
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))
    return pool[order[:wanted]].sort().values
