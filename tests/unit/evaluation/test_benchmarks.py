"""Each benchmark on a folder in its official layout, where the truth is known."""

import gzip
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from everview.errors import ConfigError, InputError
from everview.evaluation.benchmarks.clip import Choice
from everview.evaluation.benchmarks.registry import BENCHMARKS
from everview.evaluation.runs.run import RunSettings, predict, score
from everview.world.layouts.registry import LAYOUTS

sys.path.insert(0, str(Path(__file__).parent))
from benchmark_folders import LAYOUT_OF, SIZE, WorldPredictor, world_clips

PERFECT = {"abs_rel": 0.0, "rmse": 0.0, "log_rmse": 0.0, "delta1": 1.0, "ate": 0.0,
           "rpe_translation": 0.0, "rpe_rotation": 0.0, "auc30": 1.0, "auc3": 1.0, "accuracy": 0.0,
           "completeness": 0.0, "chamfer": 0.0}  # fmt: skip
QUANTISED = {"bonn": 1e-4, "kitti": 3e-3, "7scenes": 1e-3, "nrgbd": 1e-3}
"""Half a step of stored depth, in metres, and its effect on distances."""
STRIDES = {"7scenes": 2, "eth3d": None, "nrgbd": 2}


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Benchmark -> folder in its layout."""
    made = {}

    def folder(benchmark):
        layout = LAYOUT_OF[benchmark]
        if layout not in made:
            made[layout] = tmp_path_factory.mktemp(layout)
            LAYOUTS[layout](made[layout], world_clips(layout))
        return made[layout]

    return folder


def _settings(name, folder, store, **choice):
    stride = choice.pop("stride", STRIDES.get(name))
    return RunSettings(
        benchmark=BENCHMARKS[name], data=folder, store=store, choice=Choice(stride=stride, **choice)
    )


def _predictor(settings, **changes):
    name = settings.benchmark.name
    sequences = world_clips(LAYOUT_OF[name])
    names = [clip.name for clip in settings.clips()[0]]
    by_position = name.split("-")[0] in ("bonn", "tum")
    first = {"sintel": 1, "kitti": 5}.get(name.split("-")[0], 0)
    return WorldPredictor(sequences, names, first=first, by_position=by_position, **changes)


def _run(name, folders, tmp_path, *, alignment=None, choice=None, **changes):
    settings = _settings(name, folders(name), tmp_path / "predictions", **(choice or {}))
    predictor = _predictor(settings, **changes)
    predict(settings, predictor, predictor.facts())
    return score(settings, alignment=alignment)


@pytest.mark.parametrize("name", LAYOUT_OF)
def test_a_perfect_predictor_scores_perfectly_in_any_unit(name, folders, tmp_path):
    result = _run(name, folders, tmp_path, unit=0.25)
    assert result["data"]["skipped"] == []
    tolerance = QUANTISED.get(name.split("-")[0], 2e-4)
    if name == "dtu":
        tolerance = 2e-2  # millimetres
    if name == "long3d":
        tolerance = 2e-3
    for metric, summary in result["summary"].items():
        if metric in PERFECT:
            assert summary["mean"] == pytest.approx(PERFECT[metric], abs=tolerance), metric
    if "normal_consistency" in result["summary"]:
        assert result["summary"]["normal_consistency"]["mean"] > 0.98


@pytest.mark.parametrize("name", [n for n in LAYOUT_OF if BENCHMARKS[n].task.startswith("depth")])
def test_depth_ten_percent_too_large_has_an_error_of_a_tenth(name, folders, tmp_path):
    result = _run(name, folders, tmp_path, unit=1 / 1.1, alignment="none")
    assert result["summary"]["abs_rel"]["mean"] == pytest.approx(0.1, abs=3e-3)
    assert result["summary"]["delta1"]["mean"] == 1
    assert result["protocol"]["alignment"] == "none"


@pytest.mark.parametrize("name", ["sintel-pose", "tum-pose", "scannet-pose"])
def test_cameras_that_stand_beside_the_path_have_that_distance_as_error(name, folders, tmp_path):
    def shift(values, index, count):
        values["pose"][:3, 3] += torch.tensor([0.3, 0.0, 0.4]).double() * (-1) ** index

    result = _run(name, folders, tmp_path, alignment="none", change=shift)
    assert result["summary"]["ate"]["mean"] == pytest.approx(0.5, abs=1e-5)


def test_one_camera_turned_by_ten_degrees_and_a_half_costs_what_it_should(folders, tmp_path):
    def turn(values, index, count):
        if index == count - 1:
            a = math.radians(10.5)
            c, s = math.cos(a), math.sin(a)
            values["pose"][:3, :3] @= torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]]).double()

    result = _run("co3d-pose", folders, tmp_path, change=turn)
    turned = 9 / 45  # pairs of ten frames
    expected = {"auc30": 1 - turned * 10 / 30, "auc15": 1 - turned * 10 / 15, "auc3": 1 - turned}
    for metric, value in expected.items():
        assert result["summary"][metric]["mean"] == pytest.approx(value, abs=1e-6)
    assert set(result["groups"]) == {"apple", "teddybear"}


@pytest.mark.parametrize("name", ["7scenes", "nrgbd", "eth3d", "dtu"])
def test_points_without_a_prediction_are_counted_and_left_out_of_both_clouds(
    name, folders, tmp_path
):
    def tear(values, index, count):
        if index == 1:
            values["points"][:] = float("nan")

    result = _run(name, folders, tmp_path, change=tear)
    for clip in result["clips"]:
        assert clip["details"]["pixels_without_prediction"] > 0
        assert clip["scores"]["accuracy"] < (0.05 if name == "dtu" else 2e-3)


def _plane(name, tilt):
    """A generated clip in which every camera sees one plane; and the plane's normal in the world.

    Args:
        tilt: degrees between the normal and the first camera's axis.
    """
    clip = world_clips(LAYOUT_OF[name])[0]
    poses, K = clip.world_from_camera.double(), clip.intrinsics.double()
    a = math.radians(tilt)
    normal = poses[0, :3, :3] @ torch.tensor([math.sin(a), 0.0, math.cos(a)]).double()
    reach = normal @ (poses[0, :3, 3] + 2 * poses[0, :3, 2])  # two metres before the first camera
    v, u = torch.meshgrid(*(torch.arange(n).double() for n in SIZE), indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)], dim=-1)
    rays = pixels[None] @ torch.linalg.inv(K).mT[:, None] @ poses[:, None, :3, :3].mT
    depth = (reach - poses[:, :3, 3] @ normal)[:, None, None] / (rays @ normal)
    assert float(depth.min()) > 0.5
    assert float(depth.max()) < 9
    points = poses[:, None, None, :3, 3] + rays * depth[..., None]
    return replace(clip, depth=depth.float(), points=points), normal


@pytest.mark.parametrize(
    ("name", "unit", "distance"), [("7scenes", 1.0, 0.25), ("dtu", 1e-3, 250.0)]
)
@pytest.mark.parametrize(
    ("alignment", "tilt", "share"),
    [("none", 0.0, 1.0), ("none", 20.0, 1.0), ("median shift and scale", 0.0, 0.0)],
)
def test_a_plane_beside_the_true_one_has_that_distance_as_error(
    name, unit, distance, alignment, tilt, share, tmp_path
):
    """ICP does not reach so far; the shift of medians takes away what lies along the axis."""
    clip, normal = _plane(name, tilt)
    LAYOUTS[LAYOUT_OF[name]](tmp_path / "data", [clip])
    settings = _settings(name, tmp_path / "data", tmp_path / "predictions")
    names = [found.name for found in settings.clips()[0]]
    first = clip.world_from_camera[0].double()

    def push(values, index, count):
        values["points"] += distance * (first[:3, :3].mT @ normal)

    predictor = WorldPredictor([clip], names, unit=unit, change=push)
    predict(settings, predictor, predictor.facts())
    (scored,) = score(settings, alignment=alignment)["clips"]
    half_step = 1e-3 if name == "7scenes" else 2e-2
    for metric in ("accuracy", "accuracy_median", "completeness", "chamfer"):
        assert scored["scores"][metric] == pytest.approx(share * distance, abs=half_step), metric
    assert scored["scores"]["normal_consistency"] > 0.99
    assert scored["details"]["icp_fitness"] == (0 if share else 1)


@pytest.mark.parametrize("name", ["sintel-depth", "kitti-video", "tum-pose", "co3d-pose"])
def test_a_clip_with_a_prediction_that_is_no_number_is_skipped_aloud(name, folders, tmp_path):
    names = []

    def break_first(values, index, count):
        if not names:
            names.append(index)
            values["depth"][:] = float("nan")
            values["pose"][0, 3] = float("nan")

    result = _run(name, folders, tmp_path, change=break_first)
    assert len(result["data"]["skipped"]) == 1
    assert "finite" in result["data"]["skipped"][0]["reason"]
    assert result["data"]["clips_scored"] == 1


def test_lost_poses_of_scannet_are_shown_and_not_scored(folders, tmp_path):
    result = _run("scannet-pose", folders, tmp_path)
    assert [clip["details"]["frames_without_pose"] for clip in result["clips"]] == [1, 1]


def test_the_published_draw_of_co3d_is_in_no_order(folders, tmp_path):
    frames = {
        preset: [clip.frames for clip in _settings(
            "co3d-pose", folders("co3d-pose"), tmp_path, preset=preset).clips()[0]]
        for preset in ("paper", "strict")
    }  # fmt: skip
    for drawn, ordered in zip(frames["paper"], frames["strict"], strict=True):
        assert list(ordered) == sorted(drawn)
        assert list(drawn) != sorted(drawn)
        assert len(drawn) == 10


@pytest.mark.parametrize("name", LAYOUT_OF)
def test_an_empty_folder_is_no_data(name, tmp_path):
    with pytest.raises(InputError, match=str(tmp_path)):
        RunSettings(benchmark=BENCHMARKS[name], data=tmp_path, store=tmp_path / "s").clips()


@pytest.mark.parametrize(
    ("name", "pattern"),
    [("7scenes", "**/*.proj.png"), ("kitti-video", "**/image_gathered/*/*.png"),
     ("sintel-pose", "**/*.cam"), ("dtu", "**/*_cam.txt"), ("nyu-depth", "**/*.npy"),
     ("bonn-video", "**/depth_110/*.png"), ("eth3d", "**/dslr_images/*"),
     ("co3d-pose", "apple/**/*.jpg"), ("tum-pose", "**/rgb_90/*.png")],
)  # fmt: skip
def test_an_absent_file_is_named(name, pattern, tmp_path):
    LAYOUTS[LAYOUT_OF[name]](tmp_path, world_clips(LAYOUT_OF[name]))
    for path in tmp_path.glob(pattern):
        path.unlink()
    with pytest.raises(InputError) as caught:
        _settings(name, tmp_path, tmp_path / "s", stride=1).clips()
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [("sintel-video", "**/*.dpt"), ("sintel-pose", "**/*.cam"), ("kitti-depth", "**/gro*/*/*.png"),
     ("eth3d", "**/ground_truth_depth/**/*.JPG"), ("nyu-depth", "**/*.npy"),
     ("7scenes", "**/*.pose.txt"), ("dtu", "**/*_cam.txt"), ("long3d", "**/*.pcd")],
)  # fmt: skip
def test_a_damaged_file_is_named(name, pattern, tmp_path):
    LAYOUTS[LAYOUT_OF[name]](tmp_path, world_clips(LAYOUT_OF[name]))
    broken = sorted(tmp_path.glob(pattern))
    for path in broken:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    settings = _settings(name, tmp_path, tmp_path / "s", stride=1)
    predictor = _predictor(settings)
    predict(settings, predictor, predictor.facts())
    with pytest.raises(InputError) as caught:
        score(settings)
    assert any(str(path) in str(caught.value) for path in broken)


def test_other_settings_need_another_store(folders, tmp_path):
    _run("tum-pose", folders, tmp_path)
    with pytest.raises(ConfigError, match="another choice"):
        _run("tum-pose", folders, tmp_path, choice={"frames": 3})


def test_broken_annotations_of_co3d_are_named(folders, tmp_path):
    path = tmp_path / "annotations" / "apple_test.jgz"
    path.parent.mkdir()
    with gzip.open(path, "wt") as file:
        json.dump({"1": [{"filepath": "a.jpg"}]}, file)
    with pytest.raises(InputError, match="lacks filepath, R or T"):
        _settings("co3d-pose", tmp_path, tmp_path).clips()
