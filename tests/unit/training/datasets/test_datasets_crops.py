import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everview.errors import ConfigError
from everview.geometry.cameras import project_points, unproject_depth
from everview.training.datasets.colour import ColourChange, ColourJitter
from everview.training.datasets.crops import centred_rectangle, cut, fit_view, scale
from everview.training.datasets.view import View


def _view(height=60, width=80, cx=None, cy=None, **more):
    """A slanted plane whose image shows where each pixel is: red x, green y."""
    cx = width / 2 if cx is None else cx
    cy = height / 2 if cy is None else cy
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([u / 100, v / 100, torch.zeros(height, width)])
    depth = 4 + 0.01 * u + 0.02 * v
    K = torch.tensor([[70.0, 0, cx], [0, 75.0, cy], [0, 0, 1]], dtype=torch.float64)
    return View(
        image=image, depth=depth, valid=depth > 0, world_from_camera=torch.eye(4),
        intrinsics=K, time=0.0, index=0, label="plane", **more,
    )  # fmt: skip


def _ray_error(view, original):
    """How far, in original pixels, the camera says a pixel is from where its colour says it is."""
    points = unproject_depth(torch.ones(view.size, dtype=torch.float64), view.intrinsics)
    pixels = project_points(points.reshape(1, -1, 3), original.intrinsics[None])[0]
    shown = view.image[:2].permute(1, 2, 0).reshape(-1, 2) * 100
    inner = torch.zeros(view.size, dtype=torch.bool)
    inner[3:-3, 3:-3] = True  # resampling bends the ramp at the border
    return (pixels - shown)[inner.flatten()].abs().max()


def test_a_view_of_the_right_size_stays_as_it_is():
    view = _view()
    assert fit_view(view, (60, 80)) is view


@settings(max_examples=25)
@given(
    height=st.integers(40, 90), width=st.integers(40, 90), rows=st.integers(20, 70),
    columns=st.integers(20, 70), extra=st.integers(0, 16),
    x=st.floats(0.35, 0.65), y=st.floats(0.35, 0.65),
)  # fmt: skip
def test_intrinsics_follow_every_cut_and_scale(height, width, rows, columns, extra, x, y):
    view = _view(height, width, x * width, y * height)
    fitted = fit_view(view, (rows, columns), extra_pixels=extra)
    assert fitted.size == (rows, columns)
    assert fitted.depth.shape == fitted.valid.shape == (rows, columns)
    assert _ray_error(fitted, view) < 0.08


@settings(max_examples=25)
@given(x=st.floats(0.3, 0.7), y=st.floats(0.3, 0.7), side=st.integers(20, 60))
def test_the_principal_point_ends_in_the_middle(x, y, side):
    fitted = fit_view(_view(60, 80, 80 * x, 60 * y), (side, side + 10), extra_pixels=4)
    zoom = float(fitted.intrinsics[0, 0]) / 70
    assert abs(float(fitted.intrinsics[0, 2]) - (side + 10) / 2) <= 1 + zoom
    assert abs(float(fitted.intrinsics[1, 2]) - side / 2) <= 1 + zoom


def test_the_first_cut_is_symmetric_about_the_principal_point():
    assert centred_rectangle(_view(60, 80, 30.0, 40.0)) == (20, 60, 0, 60)
    assert centred_rectangle(_view(60, 80, 50.0, 20.0)) == (0, 40, 20, 80)
    assert centred_rectangle(_view(60, 80)) == (0, 60, 0, 80)
    assert centred_rectangle(_view(60, 80, 2.0, 30.0)) == (0, 60, 0, 80)  # too little would remain


def test_half_the_size_moves_the_principal_point_by_a_quarter_of_a_pixel():
    small = scale(_view(60, 80, 40.0, 30.0), (30, 40))
    assert small.intrinsics[:2, 2].tolist() == [19.75, 14.75]  # (c + 1/2) / 2 - 1/2


def test_extra_pixels_zoom_in_by_as_much():
    plain = fit_view(_view(), (30, 40))
    zoomed = fit_view(_view(), (30, 40), extra_pixels=15)
    ratio = float(zoomed.intrinsics[0, 0] / plain.intrinsics[0, 0])
    assert ratio == pytest.approx(45 / 30, abs=0.02)


def test_depth_is_never_mixed_and_masks_follow():
    view = _view(sky=torch.zeros(60, 80, dtype=torch.bool))
    view.depth[:, 40:] = 100.0
    view.valid[:20] = False
    view.sky[:10] = True
    small = scale(view, (30, 40))
    near, far = small.depth[small.depth < 50], small.depth[small.depth >= 50]
    assert near.max() < 8
    assert (far == 100).all()
    assert not small.valid[:10].any()
    assert small.valid[10:].all()
    assert small.sky.sum() == 5 * 40


def test_a_view_without_a_camera_is_cut_about_its_middle():
    view = _view(has_intrinsics=False)
    view.intrinsics[:] = torch.nan
    fitted = fit_view(view, (60, 40))
    assert float(fitted.image[0, 0, 0]) == pytest.approx(0.20, abs=1e-6)


def test_a_cut_moves_the_principal_point_by_whole_pixels():
    part = cut(_view(), (5, 50, 7, 70))
    assert part.size == (45, 63)
    assert part.intrinsics[:2, 2].tolist() == [33.0, 25.0]
    assert float(part.image[0, 0, 0]) == pytest.approx(0.07)


def test_colours_without_limits_stay_as_they_are():
    image = torch.rand(3, 20, 30)
    change = ColourJitter(brightness=0, contrast=0, saturation=0, hue=0).draw(random.Random(0))
    assert (change.apply(image) - image).abs().max() < 0.03  # 8 bits, and HSV's rounding


def test_a_change_of_brightness_is_a_factor():
    image = torch.full((3, 4, 4), 0.4)
    strong = ColourJitter(brightness=0.5, contrast=0, saturation=0, hue=0)
    factors = {float(strong.draw(random.Random(s)).apply(image)[0, 0, 0]) / 0.4 for s in range(80)}
    assert 0.48 < min(factors) < 0.56
    assert 1.44 < max(factors) < 1.52


def test_hue_turns_the_colour_circle_and_saturation_greys_out():
    red = torch.zeros(3, 4, 4)
    red[0] = 1
    by_name = {function.__name__: function for function, _ in _all_steps()}
    green = ColourChange(((by_name["_hue"], 1 / 3),)).apply(red)
    assert green[:, 0, 0].tolist() == pytest.approx([0, 1, 0], abs=0.02)
    grey = ColourChange(((by_name["_saturation"], 0.0),)).apply(red)
    assert np.ptp(grey[:, 0, 0].numpy()) == 0


def _all_steps():
    return ColourJitter().draw(random.Random(0)).steps


def test_order_and_strength_are_drawn():
    orders = {
        tuple(f.__name__ for f, _ in ColourJitter().draw(random.Random(seed)).steps)
        for seed in range(40)
    }
    assert len(orders) > 10
    assert all(len(order) == 4 for order in orders)


def test_jitter_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match=r"hue in \[0, 0\.5\]"):
        ColourJitter(hue=0.6)
    with pytest.raises(ConfigError, match=r"lie in \[0, 1\]"):
        ColourJitter(brightness=-0.1)
