import numpy as np
import pytest
import torch

from everview.errors import ConfigError
from everview.geometry.pixel_map import PixelMap
from everview.geometry.prediction import Prediction

CROPPED = PixelMap(
    original_size=(90, 60), network_size=(28, 28), scale=(28 / 60, 42 / 90), offset=(0.0, -7.0)
)
"""Portrait: resized to 42 x 28, rows 7 to 34 kept."""


def prediction(pixel_map=None, **changes):
    encoding = torch.tensor([0.1, 0.2, 0.3, 0, 0, 0, 1, 0.9, 0.9]).expand(1, 2, 9)
    values = {
        "pose_encoding": encoding,
        "pose_encoding_iterations": encoding[None],
        "network_size": (28, 28),
        "depth": torch.rand(1, 2, 28, 28) + 1,
        "depth_confidence": torch.rand(1, 2, 28, 28) + 1,
        "points": torch.randn(1, 2, 28, 28, 3),
        "points_confidence": torch.rand(1, 2, 28, 28) + 1,
        "tracks": torch.rand(1, 2, 5, 2) * 28,
        "pixel_map": pixel_map,
    }
    return Prediction(**values | changes)


def test_poses_are_inverse_to_each_other():
    pred = prediction()
    product = pred.world_from_camera @ pred.camera_from_world
    torch.testing.assert_close(product, torch.eye(4).expand(1, 2, 4, 4))


def test_numpy_gives_arrays_everywhere_and_the_same_cameras():
    pred = prediction()
    arrays = pred.numpy()
    assert isinstance(arrays.depth, np.ndarray)
    assert isinstance(arrays.intrinsics, np.ndarray)
    np.testing.assert_allclose(arrays.world_from_camera, pred.world_from_camera.numpy())
    np.testing.assert_allclose(arrays.points_from_depth(), pred.points_from_depth().numpy())


def test_a_frame_of_a_prediction_is_a_prediction_of_one_frame():
    pred = prediction()
    torch.testing.assert_close(pred.frame(-1).depth, pred.depth[:, 1:])
    assert pred.frame(0).pose_encoding_iterations.shape == (1, 1, 1, 9)


def test_the_original_grid_needs_to_be_known():
    with pytest.raises(ConfigError, match="give the network a Frame"):
        prediction().at("original")
    with pytest.raises(ConfigError, match="got 'half'"):
        prediction(CROPPED).at("half")
    with pytest.raises(ConfigError, match="before it was mapped"):
        prediction(CROPPED).at("original").at("network")


def test_without_a_depth_head_points_from_depth_say_so():
    with pytest.raises(ConfigError, match="no depth head"):
        prediction(depth=None).points_from_depth()


def test_on_the_original_grid_unseen_rows_are_nan_and_have_no_confidence():
    pred = prediction(CROPPED).at("original")
    assert pred.depth.shape == (1, 2, 90, 60)
    seen = pred.depth.isfinite().all(dim=-1)[0, 0]
    assert seen[16:74].all()
    assert not seen[:14].any()
    assert not seen[76:].any()
    assert (pred.depth_confidence[0, 0, :14] == 0).all()


def test_the_original_grid_has_the_same_rays_as_the_networks():
    """A constant depth unprojected on either grid is the same plane, point by point."""
    small = prediction(CROPPED, depth=torch.full((1, 2, 28, 28), 2.0))
    large = small.at("original")
    assert large.pixel_map is not None
    points = large.points_from_depth()[0, 0]
    at = CROPPED.to_original(torch.tensor([[3.0, 5.0]]))[0]
    column, row = at.tolist()
    weight = row - int(row), column - int(column)
    patch = points[int(row) : int(row) + 2, int(column) : int(column) + 2]
    rows = torch.lerp(patch[0], patch[1], weight[0])
    between = torch.lerp(rows[0], rows[1], weight[1])
    torch.testing.assert_close(between, small.points_from_depth()[0, 0, 5, 3], atol=1e-5, rtol=0)


def test_tracks_and_pixels_survive_a_round_trip():
    pred = prediction(CROPPED)
    back = CROPPED.to_network(pred.at("original").tracks)
    assert (back - pred.tracks).abs().max() < 1e-4


def test_half_precision_leaves_as_float32():
    pred = prediction(depth=torch.ones(1, 2, 28, 28, dtype=torch.bfloat16))
    assert pred.numpy().depth.dtype == np.float32
