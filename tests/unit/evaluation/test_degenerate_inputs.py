"""Every metric on inputs that say little or nothing: a finite result, or an error in words."""

import dataclasses
import time

import numpy as np
import pytest
import torch

from everview.errors import ConfigError
from everview.evaluation.metrics import (
    align_by_medians,
    cloud_errors,
    depth_errors,
    drift_by_length,
    drift_over_time,
    estimate_normals,
    icp,
    motion_errors,
    pair_errors,
    path_errors,
    pose_auc,
    umeyama,
    voxel_means,
    without_outliers,
)

LINE = np.outer(np.arange(40.0), [1.0, 2.0, 3.0])
CLOUDS = {
    "line": LINE,
    "two points": LINE[:2],
    "one point": LINE[:1],
    "one place": np.ones((30, 3)),
    "nothing": LINE[:0],
    "infinite": np.where(np.arange(40)[:, None] == 3, np.inf, LINE),
    "not a number": np.where(np.arange(40)[:, None] == 3, np.nan, LINE),
}
CLOUD_METRICS = {
    "distances": lambda c: cloud_errors(c, LINE, normals=False),
    "distances to it": lambda c: cloud_errors(LINE, c, normals=False),
    "distances and normals": lambda c: cloud_errors(c, c),
    "normals": estimate_normals,
    "icp": lambda c: icp(c, LINE, threshold=5.0),
    "icp onto it": lambda c: icp(LINE, c, threshold=5.0),
    "icp to planes": lambda c: icp(c, c, threshold=5.0, planes=True),
    "umeyama": lambda c: umeyama(torch.from_numpy(c), torch.from_numpy(c)),
    "medians": lambda c: align_by_medians(torch.from_numpy(c), torch.from_numpy(c)),
    "outliers": lambda c: without_outliers(c, neighbours=10),
    "voxels": lambda c: voxel_means(c, 0.1),
}
DEFINED = {
    "line": {"distances", "distances to it", "icp", "icp onto it", "medians"},
    "two points": {"distances", "distances to it", "icp", "icp onto it", "medians"},
    "one point": {"distances", "distances to it", "icp", "icp onto it"},
    "one place": {"distances", "distances to it", "icp", "icp onto it"},
}
"""What must not be refused, besides outliers and voxels."""

DEPTHS = {
    "no truth": (1.0, 0.0),
    "truth not a number": (1.0, np.nan),
    "truth infinite": (1.0, np.inf),
    "truth negative": (1.0, -1.0),
    "prediction not a number": (np.nan, 1.0),
    "prediction infinite": (np.inf, 1.0),
    "prediction zero": (0.0, 1.0),
    "prediction negative": (-1.0, 1.0),
    "prediction tiny": (1e-40, 1.0),
    "truth tiny": (1.0, 1e-40),
}
ALIGNMENTS = ("none", "median", "scale", "weiszfeld", "scale_l2", "scale_shift", "scale_shift_l2")


def numbers(found):
    """All numbers of a result, flat."""
    if dataclasses.is_dataclass(found):
        found = [getattr(found, entry.name) for entry in dataclasses.fields(found)]
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, list | tuple):
        return [n for part in found for n in numbers(part)]
    if isinstance(found, np.ndarray | torch.Tensor):
        return np.asarray(found, dtype=float).ravel().tolist()
    return [float(found)] if isinstance(found, int | float) else []


def outcome(measure):
    """The result's numbers, or None if it was refused in words."""
    try:
        return numbers(measure())
    except ConfigError:
        return None


@pytest.mark.parametrize("metric", CLOUD_METRICS)
@pytest.mark.parametrize("name", CLOUDS)
def test_clouds_give_finite_numbers_or_an_error(name, metric):
    found = outcome(lambda: CLOUD_METRICS[metric](CLOUDS[name]))
    assert found is None or np.isfinite(found).all()
    if name in ("nothing", "infinite", "not a number"):
        assert found is None
    if metric in DEFINED.get(name, set()) | {"voxels", "outliers"} and name in DEFINED:
        assert found


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("name", DEPTHS)
def test_depth_gives_finite_numbers_or_an_error(name, alignment):
    depth, truth = (torch.full((4, 5), value) for value in DEPTHS[name])
    found = outcome(lambda: depth_errors(depth, truth, alignment=alignment))
    assert found is None or np.isfinite(found).all()
    if name.startswith(("no truth", "truth not", "truth inf", "truth neg", "prediction not")):
        assert found is None


def test_pixels_without_truth_do_not_count_and_an_empty_mask_is_refused():
    truth = torch.ones(4, 5)
    truth[:, ::2] = 0
    found = depth_errors(torch.full((4, 5), 2.0), truth, alignment="none")
    assert (found.num_pixels, found.abs_rel) == (8, 1.0)
    with pytest.raises(ConfigError, match="no pixel is valid"):
        depth_errors(truth, truth, mask=torch.zeros(4, 5, dtype=torch.bool))


def poses(centres):
    found = torch.eye(4, dtype=torch.float64).repeat(len(centres), 1, 1)
    found[:, :3, 3] = torch.as_tensor(centres)
    return found


@pytest.mark.parametrize("alignment", ["sim3", "se3", "scale", "none"])
@pytest.mark.parametrize("name", ["line", "two points", "one point", "one place"])
def test_paths_give_finite_numbers_or_an_error(name, alignment):
    path = poses(CLOUDS[name])
    still = poses(np.zeros_like(CLOUDS[name]))
    for estimated, true in ((path, path), (still, path), (path, still)):
        found = outcome(lambda e=estimated, t=true: path_errors(e, t, alignment=alignment))
        assert found is None or np.isfinite(found).all()
    if name == "one point":
        assert outcome(lambda: path_errors(path, path, alignment=alignment)) is None
    if name in ("line", "two points"):
        found = path_errors(path, path, alignment=alignment)
        assert found.rmse == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("measure", [
    motion_errors,
    pair_errors,
    lambda a, b: drift_over_time(a, b, window=5.0),
    lambda a, b: drift_by_length(a, b, [1.0]),
])  # fmt: skip
def test_a_path_of_one_pose_is_refused_and_a_line_is_not(measure):
    with pytest.raises(ConfigError, match="at least 2 poses"):
        measure(poses(LINE[:1]), poses(LINE[:1]))
    assert np.isfinite(numbers(measure(poses(LINE), poses(LINE)))).all()


def test_a_camera_that_stands_still_has_no_direction_but_rotations():
    still = poses(np.zeros((5, 3)))
    found = motion_errors(still, still)
    assert torch.isfinite(found.translation).all()
    assert torch.isnan(found.direction_degrees).all()
    assert not torch.isinf(found.length_ratio).any()
    pairs = pair_errors(still, still)
    assert torch.isfinite(pairs.pose_degrees).all()


@pytest.mark.parametrize("errors", [[], [np.nan, 1.0], [-1.0]])
def test_an_auc_of_nothing_is_refused(errors):
    with pytest.raises(ConfigError):
        pose_auc(np.array(errors), 30)
    assert pose_auc(np.array([np.inf, 0.5]), 30) == pytest.approx(0.5)


@pytest.mark.slow
def test_ten_million_points_of_500_views_are_scored_within_a_minute():
    rng = np.random.default_rng(0)
    true = rng.uniform(0, [8, 3, 6], (10_000_000, 3))
    wall = rng.integers(0, 6, len(true))
    for axis, far in enumerate((8.0, 3.0, 6.0)):
        true[wall == 2 * axis, axis] = 0.0
        true[wall == 2 * axis + 1, axis] = far
    predicted = true[rng.permutation(len(true))] + rng.normal(0, 0.02, true.shape)
    begin, worked = time.perf_counter(), time.process_time()
    clouds = voxel_means(predicted, 0.02), voxel_means(true, 0.02)
    found = cloud_errors(*clouds, normals=False)
    seconds = time.perf_counter() - begin, time.process_time() - worked
    assert min(seconds) < 60  # the second: what it takes where nobody else is at work
    assert 0 < found.completeness < found.accuracy < 0.05
    assert found.chamfer == pytest.approx((found.accuracy + found.completeness) / 2)
