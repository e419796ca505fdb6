"""Depth alignments, pose AUC, clouds and ICP give the numbers of the published evaluations."""

import json

import numpy as np
import pytest
import torch

from everview.evaluation.benchmarks.co3d import camera_from_world
from everview.evaluation.metrics import (
    align_by_medians,
    central_window,
    cloud_errors,
    depth_errors,
    estimate_normals,
    icp,
    pair_errors,
    path_errors,
    pose_auc,
    share_below,
    voxel_means,
    without_outliers,
)

POSES = ("tight", "medium", "loose", "mirrored_translation", "two_frames", "exact")
LIMITS = (3, 5, 10, 15, 30)


def _load(golden, name):
    return np.load(golden / "metrics" / f"{name}.npz")


def _expected(z, prefix):
    names = [k for k in z.files if k.startswith(f"{prefix}/") and z[k].ndim == 0]
    return {k.removeprefix(f"{prefix}/"): float(z[k]) for k in names}


@pytest.mark.parametrize(
    ("case", "alignment", "tolerance"),
    [
        ("video_lad_adam_near", "scale_shift_adam", 1e-3),
        ("video_lad_adam_far", "scale_shift_adam", 1e-3),
        ("video_lad_bfgs", "scale_shift", 1e-3),
        ("video_lstsq", "scale_shift_l2", 1e-4),
        ("disparity_lstsq", "scale_shift_l2", 1e-4),
    ],
)
def test_depth_after_scale_and_shift_is_that_of_the_reference(golden, case, alignment, tolerance):
    z = _load(golden, "depth_metrics")
    options = json.loads(str(z[f"{case}/opt"]))
    truth = z[f"{case}/in/gt"]
    found = depth_errors(
        z[f"{case}/in/pred"],
        truth,
        mask=truth < options["max_depth"],
        alignment=alignment,
        clip=(-np.inf, options["post_clip_max"] or np.inf),
        disparity=options["disp_input"],
    )
    expected = _expected(z, f"{case}/out")
    names = {"d1": "delta1", "d2": "delta2", "d3": "delta3", "valid_pixels": "num_pixels"}
    assert len(expected) >= 8
    for name, value in expected.items():
        ours = getattr(found, names.get(name, name))
        assert ours == pytest.approx(value, rel=tolerance), name


def test_an_exact_fit_does_not_stop_where_the_published_one_does(golden):
    z = _load(golden, "depth_metrics")
    depth, truth = (z[f"video_lad_adam_far/in/{name}"] for name in ("pred", "gt"))
    assert depth_errors(depth, truth, alignment="scale_shift").delta1 > 0.95
    assert 0.8 < depth_errors(depth, truth, alignment="scale_shift_l2").delta1 < 0.9
    assert depth_errors(depth, truth, alignment="scale_shift_adam").delta1 < 0.4


@pytest.mark.parametrize("group", ["out", "out_first_camera_variant"])
@pytest.mark.parametrize("case", POSES)
def test_errors_of_pairs_and_their_auc_are_those_of_the_reference(golden, case, group):
    z = _load(golden, "pose_auc")
    ours, true = (np.linalg.inv(z[f"{case}/in/{name}_w2c"]) for name in ("pred", "gt"))
    errors = pair_errors(ours, true, first_camera=group != "out")
    for found, name in ((errors.rotation_degrees, "rot"), (errors.blind_degrees, "trans")):
        np.testing.assert_allclose(found, z[f"{case}/{group}/{name}_err_deg"], rtol=0, atol=1e-4)
    for limit in LIMITS:
        expected = float(z[f"{case}/{group}/auc{limit}"])
        assert pose_auc(errors.pose_degrees, limit) == pytest.approx(expected, abs=1e-9)
    if group == "out":
        assert share_below(errors.rotation_degrees, 5) == float(z[f"{case}/out/rra5"])
        assert share_below(errors.blind_degrees, 5) == float(z[f"{case}/out/rta5"])


@pytest.mark.parametrize("limit", LIMITS)
def test_auc_of_pooled_pairs_and_of_errors_on_borders_is_that_of_the_reference(golden, limit):
    z = _load(golden, "pose_auc")
    pooled = torch.cat([
        pair_errors(*(np.linalg.inv(z[f"{c}/in/{n}_w2c"]) for n in ("pred", "gt"))).pose_degrees
        for c in POSES
    ])  # fmt: skip
    assert pose_auc(pooled, limit) == pytest.approx(float(z[f"pooled/out/auc{limit}"]), abs=1e-9)
    edges = np.maximum(z["edges/in/rot_err_deg"], z["edges/in/trans_err_deg"])
    assert pose_auc(edges, limit) == pytest.approx(float(z[f"edges/out/auc{limit}"]), abs=1e-9)


@pytest.mark.parametrize("case", ["sintel_like_50", "tum_like_90", "short_8", "drift_60"])
def test_rotations_after_alignment_are_those_of_the_reference(golden, case):
    z = _load(golden, "trajectory")
    for alignment, group in (("se3", "se3"), ("scale", "scale_only"), ("none", "none")):
        found = path_errors(
            z[f"{case}/in/pred_c2w"], z[f"{case}/in/gt_c2w"], alignment=alignment
        ).rotation_degrees
        assert found == pytest.approx(float(z[f"{case}/out_{group}/are_deg_rmse"]), rel=1e-9)


def _check_clouds(found, expected):
    ours = {
        "acc_mean": found.accuracy, "acc_median": found.accuracy_median,
        "comp_mean": found.completeness, "comp_median": found.completeness_median,
        "nc_mean": found.normal_consistency, "nc_median": found.normal_consistency_median,
        "chamfer_half": found.chamfer, "chamfer_sum": found.chamfer_sum,
        "completion_ratio_005": found.recall.get(0.05),
    }  # fmt: skip
    compared = [n for n, value in ours.items() if n in expected and value is not None]
    assert len(compared) >= 7
    for name in compared:
        assert ours[name] == pytest.approx(expected[name], rel=1e-6), name


@pytest.mark.parametrize("case", ["given_normals", "stage_metrics"])
def test_clouds_with_given_normals_score_as_in_the_reference(golden, case):
    z = _load(golden, "point_clouds")
    clouds = [z[f"{case}/in/{name}"] for name in ("pred", "gt")]
    normals = tuple(z[f"{case}/in/{name}_normals"] for name in ("pred", "gt"))
    found = cloud_errors(*clouds, thresholds=(0.05,), given_normals=normals)
    _check_clouds(found, _expected(z, f"{case}/out"))


def test_our_own_normals_are_those_of_the_reference(golden):
    z = _load(golden, "point_clouds")
    for name in ("pred", "gt"):
        found = estimate_normals(z[f"stage_metrics/in/{name}"])
        cosine = (found * z[f"stage_metrics/in/{name}_normals"]).sum(axis=1)
        np.testing.assert_allclose(np.abs(cosine), 1, atol=1e-9)
    clouds = [torch.from_numpy(z[f"stage_metrics/in/{name}"]) for name in ("pred", "gt")]
    _check_clouds(cloud_errors(*clouds), _expected(z, "stage_metrics/out"))


def test_point_maps_are_aligned_as_in_the_reference(golden):
    z = _load(golden, "point_clouds")
    valid, world = z["stage_align/in/valid"], z["stage_align/in/gt_world"].astype(np.float64)
    to_first = np.linalg.inv(z["stage_align/in/camera_c2w"][0].astype(np.float64))
    true = world @ to_first[:3, :3].T + to_first[:3, 3]
    predicted = z["stage_align/in/pred"].astype(np.float64)
    found = align_by_medians(predicted[valid], true[valid])
    out = _expected(z, "stage_align/out")
    assert found.shift == pytest.approx(out["pred_shift_z"], rel=1e-4)
    assert found.true_shift == pytest.approx(out["gt_shift_z"], rel=1e-4)
    assert found.scale == pytest.approx(out["gt_scale"] / out["pred_scale"], rel=1e-4)
    moved = found.predicted(torch.from_numpy(predicted)), found.true(torch.from_numpy(true))
    for ours, name in zip(moved, ("pred_aligned", "gt_aligned"), strict=True):
        np.testing.assert_allclose(ours, z[f"stage_align/out/{name}"], rtol=1e-4, atol=1e-5)


def test_the_central_window_is_that_of_the_reference(golden):
    z = _load(golden, "point_clouds")
    for size, box in zip(z["crop224/in/size_hw"], z["crop224/out/ltrb"], strict=True):
        rows, columns = central_window((int(size[0]), int(size[1])), 224)
        assert [columns.start, rows.start, columns.stop, rows.stop] == box.tolist()


@pytest.mark.parametrize(("threshold", "group"), [(0.1, "out"), (0.5, "out_threshold_0.5")])
def test_icp_stops_where_the_reference_stops(golden, threshold, group):
    z = _load(golden, "point_clouds")
    found = icp(z["stage_icp/in/pred"], z["stage_icp/in/gt"], threshold=threshold)
    expected = z[f"stage_icp/{group}/transformation"]
    np.testing.assert_allclose(found.transform, expected, rtol=1e-6, atol=1e-9)
    assert found.fitness == pytest.approx(float(z[f"stage_icp/{group}/fitness"]), rel=1e-6)
    assert found.rmse == pytest.approx(float(z[f"stage_icp/{group}/inlier_rmse"]), rel=1e-6)


def test_chamfer_of_voxels_is_that_of_the_reference(golden):
    z = _load(golden, "point_clouds")
    clouds = [voxel_means(z[f"voxel_chamfer/in/{name}"], 0.05) for name in ("pred", "gt")]
    assert [len(c) for c in clouds] == [
        z[f"voxel_chamfer/out/n_voxels_{n}"] for n in ("pred", "gt")
    ]
    for limit, name in ((0.5, "cd_clip_05"), (1.0, "cd_clip_1")):
        found = cloud_errors(*clouds, normals=False, limit=limit).chamfer_sum
        assert found == pytest.approx(float(z[f"voxel_chamfer/out/{name}"]), rel=1e-6)


def _sorted(cloud):
    return cloud[np.lexsort(cloud.round(9).T)]


def test_the_whole_path_of_long3d_is_that_of_the_reference(golden):
    z = _load(golden, "point_clouds")
    options = json.loads(str(z["long3d/opt"]))
    lidar = np.linalg.inv(z["long3d/in/camera_wrt_lidar"])
    walk = z["long3d/in/pred_camera_frame"] @ lidar[:3, :3].T + lidar[:3, 3]
    for cloud, name in ((walk, "pred_clean"), (z["long3d/in/gt"], "gt_clean")):
        clean = without_outliers(voxel_means(cloud, options["voxel"]))
        np.testing.assert_allclose(_sorted(clean), _sorted(z[f"long3d/mid/{name}"]), rtol=1e-9)
    true = z["long3d/mid/gt_clean"]
    normals = estimate_normals(true, radius=2 * options["voxel"])
    cosine = np.abs((normals * z["long3d/mid/gt_normals_hybrid"]).sum(axis=1))
    np.testing.assert_allclose(cosine, 1, atol=1e-9)
    first = z["long3d/mid/init_transform_factor_1"]
    start = z["long3d/mid/pred_clean"] @ first[:3, :3].T + first[:3, 3]
    found = icp(
        start, true, threshold=options["icp_threshold"], rounds=options["icp_iterations"],
        planes=True, normal_radius=2 * options["voxel"],
    )  # fmt: skip
    whole = found.transform @ first
    np.testing.assert_allclose(whole, z["long3d/mid/icp_transformation"], rtol=1e-6, atol=1e-9)
    assert found.fitness == pytest.approx(float(z["long3d/mid/fitness"]), rel=1e-6)
    assert found.rmse == pytest.approx(float(z["long3d/mid/inlier_rmse"]), rel=1e-6)
    _check_clouds(cloud_errors(found.points, true), _expected(z, "long3d/out"))


def test_cameras_of_co3d_become_those_of_opencv(golden):
    stored = np.load(golden / "metrics" / "pose_auc.npz")
    turns, shifts = (stored[f"pytorch3d_to_opencv/in/{name}"] for name in "RT")
    expected = stored["pytorch3d_to_opencv/out/extrinsic_w2c"]
    for turn, shift, camera in zip(turns, shifts, expected, strict=True):
        found = camera_from_world({"R": turn.tolist(), "T": shift.tolist()})
        np.testing.assert_allclose(found[:3].numpy(), camera, rtol=0, atol=1e-6)
