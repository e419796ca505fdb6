import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from everview.errors import ConfigError, InputError
from everview.frames.preprocess import preprocess
from everview.frames.rgb import _path, rgb_from_picture


def first_pixel(picture, **options) -> tuple[int, ...]:
    return rgb_from_picture(picture, **options).getpixel((0, 0))


def with_transparency(mode: str) -> Image.Image:
    """A black picture, wholly transparent."""
    if mode == "P":
        image = Image.new("P", (4, 4), 0)
        image.putpalette([0, 0, 0, 255, 0, 0])
        image.info["transparency"] = 0
        return image
    return Image.new(mode, (4, 4), (0,) * len(mode))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_any_transparency_is_laid_on_white(mode, tmp_path):
    image = with_transparency(mode)
    image.save(tmp_path / "image.png")
    assert first_pixel(image) == (255, 255, 255)
    assert first_pixel(tmp_path / "image.png") == (255, 255, 255)


@pytest.mark.parametrize(("mode", "value"), [("RGBA", 255), ("LA", 0), ("P", 0)])
def test_the_reference_lays_only_rgba_on_white(mode, value):
    assert first_pixel(with_transparency(mode), strict_reference=True) == (value,) * 3


def test_a_colour_marked_as_transparent_is_laid_on_white(tmp_path):
    path = tmp_path / "key.png"
    Image.new("RGB", (4, 4), (10, 20, 30)).save(path, transparency=(10, 20, 30))
    assert first_pixel(path) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_and_ignored_by_the_reference(orientation, tmp_path):
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:10, :10] = 255  # a bright corner, top left as stored
    stored = Image.fromarray(pixels)
    exif = stored.getexif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo.png", exif=exif)
    upright = rgb_from_picture(tmp_path / "photo.png")
    with Image.open(tmp_path / "photo.png") as image:
        expected = ImageOps.exif_transpose(image)
    assert upright.size == ((20, 40) if orientation >= 5 else (40, 20))
    np.testing.assert_array_equal(np.asarray(upright), np.asarray(expected))
    assert rgb_from_picture(tmp_path / "photo.png", strict_reference=True).size == (40, 20)
    assert preprocess(tmp_path / "photo.png", 140).pixel_map.original_size == upright.size[::-1]


@pytest.mark.parametrize("name", ["grey.png", "grey.tif"])
def test_16_bits_are_scaled_and_saturate_in_the_reference(name, tmp_path):
    values = np.array([[0, 257, 25700, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / name)
    for picture in (tmp_path / name, values, values[:, :, None].repeat(3, axis=2)):
        assert list(np.asarray(rgb_from_picture(picture))[0, :, 0]) == [0, 1, 100, 255]
        strict = rgb_from_picture(picture, strict_reference=True)
        assert list(np.asarray(strict)[0, :, 0]) == [0, 255, 255, 255]


def test_grey_levels_in_a_32_bit_field_are_taken_as_16_bits():
    image = Image.fromarray(np.array([[0, 25700, 65535]], np.int32))
    assert list(np.asarray(rgb_from_picture(image))[0, :, 1]) == [0, 100, 255]


@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
def test_arrays_of_any_number_of_channels_become_rgb(channels):
    shape = (5, 7) if channels is None else (5, 7, channels)
    image = rgb_from_picture(np.full(shape, 255, np.uint8))
    assert (image.mode, image.size) == ("RGB", (7, 5))
    assert image.getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize("shape", [(5,), (5, 7, 5), (1, 5, 7, 3), (0, 7, 3)])
def test_arrays_of_no_image_shape_are_refused(shape):
    with pytest.raises(ConfigError, match=r"an image array is \(H, W\)"):
        rgb_from_picture(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("values", [[0, 255.0], [-0.5, 1], [0, np.nan], [np.inf, 0]])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_floats_beyond_the_unit_range_are_refused_with_the_remedy(values, as_tensor):
    array = np.array([*values, 0.5], np.float32).reshape(3, 1, 1).repeat(4, 2)
    with pytest.raises(ConfigError, match=r"in \[0, 1\]; got .*divide 8-bit values by 255"):
        rgb_from_picture(torch.from_numpy(array) if as_tensor else array)


def test_a_little_beyond_the_unit_range_as_resizing_leaves_it_is_clamped():
    array = np.array([[-0.0005, 1.0004, 0.6]], np.float32)
    assert list(np.asarray(rgb_from_picture(array))[0, :, 0]) == [0, 255, 153]


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (2, 3, 5, 7), (4, 5, 7), (3, 0, 7)])
def test_tensors_of_another_shape_are_refused_with_the_remedy(shape):
    with pytest.raises(ConfigError, match=r"\(3, H, W\).*; got \(.*one image at a time"):
        rgb_from_picture(torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_tensors_of_other_types_are_refused(dtype):
    with pytest.raises(ConfigError, match="uint8 or floats"):
        rgb_from_picture(torch.zeros(3, 5, 7, dtype=dtype))


def test_arrays_of_other_types_are_refused():
    with pytest.raises(ConfigError, match="int64"):
        rgb_from_picture(np.zeros((5, 7, 3), np.int64))


def test_other_things_than_pictures_are_refused():
    with pytest.raises(ConfigError, match=r"a picture is a path.*got list"):
        _path([1, 2])  # the public functions' types are checked before, in tests


def test_tensors_of_any_precision_are_taken():
    picture = torch.full((3, 2, 4), 0.2, dtype=torch.bfloat16, requires_grad=True)
    assert np.asarray(rgb_from_picture(picture))[0, 0, 0] == 51
    assert rgb_from_picture(picture).size == (4, 2)


def test_float_images_are_refused():
    with pytest.raises(InputError, match="no agreed range"):
        rgb_from_picture(Image.new("F", (4, 4)))


def test_absent_and_damaged_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.png does not exist"):
        rgb_from_picture(tmp_path / "absent.png")
    (tmp_path / "noise.jpg").write_bytes(b"no image" * 9)
    with pytest.raises(InputError, match=r"noise\.jpg cannot be read as an image"):
        rgb_from_picture(tmp_path / "noise.jpg")


def test_a_file_that_breaks_off_is_damaged(tmp_path):
    path = tmp_path / "cut.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"cut\.jpg cannot be read"):
        rgb_from_picture(path)


def test_the_callers_picture_stays_as_it_is():
    image = Image.new("RGBA", (4, 4), (1, 2, 3, 4))
    before = image.tobytes()
    rgb_from_picture(image)
    assert (image.mode, image.tobytes()) == ("RGBA", before)
