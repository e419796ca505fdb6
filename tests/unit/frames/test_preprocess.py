import dataclasses
import hashlib
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from everview.errors import ConfigError, InputError
from everview.frames.preprocess import _check, preprocess, preprocess_batch, preprocess_square
from everview.frames.reader import read
from everview.geometry.pixel_map import PixelMap
from everview.geometry.prediction import Prediction

GOLDEN = Path(__file__).parents[2] / "golden" / "preprocess"
MANIFEST = json.loads((GOLDEN / "manifest.json").read_text())
PLAIN = [e for e in MANIFEST["singles"] if "alpha" not in e["file"] and "rgba" not in e["file"]]


def bytes_of(image: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray((image * 255).round().byte().movedim(-3, -1).numpy())


def digest(image: torch.Tensor) -> str:
    return hashlib.sha256(bytes_of(image).tobytes()).hexdigest()


def entry_name(entry: dict) -> str:
    return f"{entry['file']}-{entry.get('mode', 'square')}"


@pytest.mark.parametrize("entry", MANIFEST["singles"], ids=entry_name)
def test_strict_preprocessing_is_the_reference_to_the_bit(entry):
    image, pixel_map = preprocess(GOLDEN / entry["file"], fit=entry["mode"], strict_reference=True)
    assert list(image.shape) == [3, *entry["shape_hwc"][:2]]
    assert pixel_map.network_size == tuple(entry["shape_hwc"][:2])
    every7 = np.asarray(Image.open(GOLDEN / entry["expected_every7"]))
    np.testing.assert_array_equal(bytes_of(image)[::7, ::7], every7)
    assert digest(image) == entry["sha256_uint8_hwc"]


@pytest.mark.parametrize("entry", PLAIN, ids=entry_name)
@pytest.mark.parametrize("given_as", ["path", "pillow", "array"])
def test_default_preprocessing_is_the_reference_for_plain_images(entry, given_as):
    path = GOLDEN / entry["file"]
    with Image.open(path) as opened:
        picture = opened.copy()
    if given_as == "array":
        picture = np.asarray(picture.convert("RGB") if picture.mode == "P" else picture)
    image, _ = preprocess(path if given_as == "path" else picture, fit=entry["mode"])
    assert digest(image) == entry["sha256_uint8_hwc"]


@pytest.mark.parametrize("given_as", ["uint8", "float", "half of a batch", "float array"])
def test_tensors_and_floats_are_the_same_picture_as_their_bytes(given_as):
    pixels = np.asarray(Image.open(GOLDEN / "rgb_101x57.png"))
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    picture = {
        "uint8": tensor,
        "float": tensor.float() / 255,
        "half of a batch": (tensor.double() / 255)[None].repeat(2, 1, 1, 1)[1],
        "float array": pixels.astype(np.float32) / 255,
    }[given_as]
    expected, got = preprocess(pixels, 140), preprocess(picture, 140)
    assert torch.equal(got.image, expected.image)
    assert got.pixel_map == expected.pixel_map


def test_frames_with_their_original_pixels_can_be_preprocessed_later():
    office = Path(__file__).parents[3] / "src" / "everview" / "assets" / "clips" / "office.mp4"
    with read(office, every=60) as frames, read(office, every=60, size=140) as expected:
        assert torch.equal(preprocess(next(frames).image, 140).image, next(expected).image)


def test_images_are_exact_multiples_of_one_255th():
    image, _ = preprocess(GOLDEN / "rgb_101x57.png")
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    np.testing.assert_array_equal(
        image.movedim(0, 2).numpy(), bytes_of(image).astype(np.float32) / np.float32(255)
    )


@pytest.mark.parametrize("entry", MANIFEST["batches"], ids=lambda e: e["files"][0])
def test_batches_are_padded_as_in_the_reference(entry):
    paths = [GOLDEN / name for name in entry["files"]]
    images, maps = preprocess_batch(paths, fit=entry["mode"], strict_reference=True)
    assert digest(images) == entry["sha256_uint8_nhwc"]
    for image, pixel_map in zip(images, maps, strict=True):
        assert pixel_map.network_size == tuple(images.shape[2:])
        top, bottom, left, right = pixel_map.valid_rectangle()
        outside = torch.ones_like(image, dtype=torch.bool)
        outside[:, top:bottom, left:right] = False
        assert image[outside].eq(1).all()  # white


@pytest.mark.parametrize("entry", MANIFEST["squares"], ids=entry_name)
def test_squares_are_the_reference_with_its_rectangle(entry):
    size = entry["target_size"]
    image, pixel_map = preprocess_square(GOLDEN / entry["file"], size, strict_reference=True)
    assert digest(image) == entry["sha256_uint8_hwc"]
    height, width = pixel_map.original_size
    (left, top), (across, down) = pixel_map.offset, pixel_map.scale
    corners = [left, top, left + width * across, top + height * down, width, height]
    np.testing.assert_allclose(corners, entry["coords"], rtol=1e-6)


@pytest.mark.parametrize("size", [140, 224, 518])
def test_the_same_rule_holds_at_other_sizes(size):
    picture = np.zeros((480, 640, 3), np.uint8)
    assert preprocess(picture, size).image.shape == (3, 14 * round(480 * size / 640 / 14), size)
    assert preprocess(picture, size, fit="pad").image.shape == (3, size, size)


@pytest.mark.parametrize("size", [0, -14, 500, 13])
def test_a_size_that_is_no_multiple_of_14_is_refused(size):
    with pytest.raises(ConfigError, match=f"multiple of 14; got {size}: use"):
        preprocess(np.zeros((9, 9, 3), np.uint8), size)


def test_an_unknown_fit_is_refused():
    with pytest.raises(ConfigError, match='"crop" or "pad"; got'):
        _check(140, "stretch")  # the public functions' types are checked before, in tests


def test_an_empty_batch_is_refused():
    with pytest.raises(ConfigError, match="at least one image"):
        preprocess_batch([])


def test_a_very_wide_image_gets_one_row_of_patches_and_a_warning():
    picture = np.full((10, 1000, 3), 90, np.uint8)
    with pytest.warns(UserWarning, match="10x1000 .* one patch"):
        image, pixel_map = preprocess(picture)
    assert image.shape == (3, 14, 518)
    assert pixel_map.scale == (0.518, 1.4)
    with pytest.warns(UserWarning, match="one patch"):
        assert preprocess(picture.transpose(1, 0, 2), fit="pad").image.shape == (3, 518, 518)
    with pytest.raises(InputError, match="strict_reference=False can"):
        preprocess(picture, strict_reference=True)
    with warnings.catch_warnings(action="error"):
        assert preprocess(np.zeros((20, 1000, 3), np.uint8)).image.shape == (3, 14, 518)


def test_cropped_portraits_say_which_rows_were_cut():
    picture = np.zeros((200, 100, 3), np.uint8)
    picture[:, :, 0] = np.arange(200)[:, None]
    image, pixel_map = preprocess(picture, 140)
    assert image.shape == (3, 140, 140)
    assert pixel_map.offset == (0.0, -70.0)  # 280 rows after the resize: 70 cut at either end
    row = pixel_map.to_original(torch.tensor([0.0, 50.0]))[1]
    assert float(image[0, 50, 0]) * 255 == pytest.approx(float(row), abs=0.6)


sizes = st.tuples(st.integers(100, 3000), st.integers(100, 3000))


@given(size=sizes, network=st.integers(10, 40), fit=st.sampled_from(["crop", "pad"]))
@settings(deadline=None, max_examples=30)
def test_original_pixels_come_back_within_a_hundredth_of_a_pixel(size, network, fit):
    height, width = (min(n, 400) for n in size)
    picture = np.zeros((height, width, 3), np.uint8)
    image, pixel_map = preprocess(picture, 14 * network, fit=fit)
    assert pixel_map.network_size == tuple(image.shape[1:])
    # the map of the large image: the same arithmetic without its pixels
    scale = tuple(s * n / full for s, n, full in zip(
        pixel_map.scale, (width, height), size[::-1], strict=True
    ))  # fmt: skip
    large = dataclasses.replace(pixel_map, original_size=size, scale=scale)
    points = torch.rand(100, 2) * torch.tensor(size[::-1])
    assert (large.to_original(large.to_network(points)) - points).abs().max() < 0.01


@given(
    size=st.sampled_from([(120, 160), (90, 200), (200, 90), (131, 77), (64, 64)]),
    network=st.sampled_from([70, 140, 280]),
    fit=st.sampled_from(["crop", "pad", "square"]),
    where=st.tuples(st.floats(0.4, 0.6), st.floats(0.4, 0.6)),
)
@settings(deadline=None, max_examples=25)
def test_a_spot_appears_where_the_map_says(size, network, fit, where):
    height, width = size
    x, y = where[0] * width, where[1] * height
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    spot = 250 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 3.0**2))
    picture = np.repeat(spot.round().astype(np.uint8)[:, :, None], 3, axis=2)
    image, pixel_map = (
        preprocess_square(picture, network)
        if fit == "square"
        else preprocess(picture, network, fit=fit)
    )
    top, bottom, left, right = pixel_map.valid_rectangle()
    weights = image[0].double().clone()
    outside = torch.ones_like(weights, dtype=torch.bool)
    outside[top:bottom, left:right] = False
    weights[outside] = 0
    grid_y, grid_x = torch.meshgrid(
        *(torch.arange(n, dtype=torch.float64) for n in weights.shape), indexing="ij"
    )
    centre = torch.stack([(grid_x * weights).sum(), (grid_y * weights).sum()]) / weights.sum()
    back = pixel_map.to_original(centre)
    assert (back - torch.tensor([x, y])).abs().max() < 0.1  # the spot is rounded to 8 bits


@pytest.mark.parametrize(
    ("fit", "shape"), [("crop", (60, 80)), ("crop", (80, 60)), ("pad", (60, 80))]
)
def test_predictions_at_the_original_grid_lie_on_the_right_pixels(fit, shape):
    height, width = shape
    image, pixel_map = preprocess(np.zeros((height, width, 3), np.uint8), 140, fit=fit)
    rows, columns = image.shape[1:]
    at = torch.stack(torch.meshgrid(
        torch.arange(columns).float(), torch.arange(rows).float(), indexing="xy"
    ), dim=-1)  # H W 2  # fmt: skip
    original = pixel_map.to_original(at)
    prediction = Prediction(
        pose_encoding=torch.tensor([0, 0, 0, 0, 0, 0, 1, 1.0, 1.0]).view(1, 1, 9),
        pose_encoding_iterations=torch.zeros(1, 1, 1, 9),
        network_size=(rows, columns),
        depth=original[None, None, :, :, 0],  # the depth is the original's x coordinate
        tracks=torch.tensor([[[[3.0, 4.0]]]]),
        pixel_map=pixel_map,
    ).at("original")
    assert prediction.depth.shape == (1, 1, height, width)
    seen = ~prediction.depth[0, 0].isnan()
    assert bool(seen.all()) == (fit == "pad" or height < width)
    error = (prediction.depth[0, 0] - torch.arange(width))[:, 2:-2]
    assert error[seen[:, 2:-2]].abs().max() < 0.01
    back = pixel_map.to_network(prediction.tracks)
    assert (back - torch.tensor([3.0, 4.0])).abs().max() < 0.01


def test_the_map_survives_json():
    _, pixel_map = preprocess(np.zeros((20, 30, 3), np.uint8), 140)
    read_back = json.loads(json.dumps(pixel_map.as_dict()))
    assert PixelMap(**{key: tuple(value) for key, value in read_back.items()}) == pixel_map
