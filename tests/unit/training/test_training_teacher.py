from dataclasses import replace

import pytest
import torch

from everview.errors import ConfigError, InputError
from everview.geometry.prediction import Prediction
from everview.model.network import build
from everview.model.presets import presets
from everview.training.teacher import Teacher, sample_query_points
from everview.training.teacher_cache import TeacherCache, joined


@pytest.fixture(scope="module")
def network():
    return build(replace(presets["tiny"], attention="global"), seed=3)


@pytest.fixture
def images():
    return torch.rand(2, 2, 3, 28, 42)


@pytest.fixture
def queries():
    return 20 * torch.rand(2, 4, 2)


class Counting:
    """A network that remembers how many clips it was asked about."""

    def __init__(self, network, monkeypatch):
        self.clips = []
        forward = network.forward

        def counted(images, query_points=None):
            self.clips.append(len(images))
            return forward(images, query_points)

        monkeypatch.setattr(network, "forward", counted)


@pytest.fixture
def asked(network, monkeypatch):
    return Counting(network, monkeypatch).clips


def arrays(prediction):
    return {n: v for n, v in vars(prediction).items() if isinstance(v, torch.Tensor)}


def same(a, b):
    assert arrays(a).keys() == arrays(b).keys()
    for name, value in arrays(a).items():
        assert torch.equal(value, arrays(b)[name]), name


def test_a_teacher_has_no_gradients_and_stays_in_evaluation_mode(images):
    network = build(replace(presets["tiny"], attention="global"), seed=3).train()
    said = Teacher(network)(images)
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert not any(value.requires_grad for value in arrays(said).values())


def test_an_early_frame_of_the_teacher_knows_the_later_ones(network, images):
    other = images.clone()
    other[:, 1] = torch.rand_like(other[:, 1])
    teacher = Teacher(network)
    assert not torch.allclose(teacher(images).depth[:, 0], teacher(other).depth[:, 0])


def test_a_causal_teacher_is_refused(tiny):
    with pytest.raises(
        ConfigError, match=r"'causal' attention: give one with attention \"global\""
    ):
        Teacher(tiny)


def test_what_is_cached_is_read_and_not_computed_again(network, images, queries, tmp_path, asked):
    cache = TeacherCache(folder=tmp_path)
    first = Teacher(network, cache)(images, queries)
    again = Teacher(network, cache)(images, queries)
    assert asked == [2]
    same(first, again)
    exact = network(images, queries)
    assert torch.equal(first.pose_encoding, exact.pose_encoding)
    assert torch.equal(first.tracks, exact.tracks)
    torch.testing.assert_close(first.depth, exact.depth, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(first.points, exact.points, rtol=1e-3, atol=1e-3)


def test_only_absent_clips_are_computed_and_they_come_in_order(network, images, tmp_path, asked):
    teacher = Teacher(network, TeacherCache(folder=tmp_path, half=False))
    teacher(images[1:])
    mixed = teacher(images)
    assert asked == [1, 1]
    exact = network(images)
    torch.testing.assert_close(mixed.points, exact.points, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        mixed.pose_encoding_iterations, exact.pose_encoding_iterations, rtol=1e-4, atol=1e-4
    )


def test_other_weights_queries_sizes_or_precisions_do_not_meet_in_the_cache(
    network, images, queries, tmp_path
):
    other = build(replace(presets["tiny"], attention="global"), seed=4)
    cache = TeacherCache(folder=tmp_path)
    for teacher in (Teacher(network, cache), Teacher(other, cache),
                    Teacher(network, replace(cache, half=False))):  # fmt: skip
        teacher(images)
        teacher(images, queries)
        teacher(images, queries + 1)
        teacher(images[:, :1])
        teacher(images[..., :28])
    assert len(list(tmp_path.rglob("*.teacher"))) == 3 * 5 * 2


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other version", "header"])
def test_a_damaged_file_is_computed_again(network, images, tmp_path, asked, damage):
    teacher = Teacher(network, TeacherCache(folder=tmp_path))
    first = teacher(images[:1])
    (path,) = tmp_path.rglob("*.teacher")
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-5] ^= 1
    elif damage == "header":
        content[60] ^= 1
    path.write_bytes(
        {"cut": content[: len(content) // 2], "empty": b"", "other version": b"x" + content}.get(
            damage, content
        )
    )
    same(first, teacher(images[:1]))
    assert asked == [1, 1]
    teacher(images[:1])  # repaired
    assert asked == [1, 1]


def test_a_killed_write_leaves_no_file_that_is_read(network, images, tmp_path, monkeypatch):
    def die(self, target):
        raise KeyboardInterrupt

    teacher = Teacher(network, TeacherCache(folder=tmp_path))
    monkeypatch.setattr("pathlib.Path.replace", die)
    with pytest.raises(KeyboardInterrupt):
        teacher(images[:1])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_cache_that_cannot_be_written_says_what_to_do(network, images, tmp_path):
    (tmp_path / "file").write_text("in the way")
    teacher = Teacher(network, TeacherCache(folder=tmp_path / "file"))
    with pytest.raises(InputError, match="distil without a cache"):
        teacher(images)


def test_small_maps_come_back_in_full_size(network, images, tmp_path):
    def folder_size(folder):
        return sum(path.stat().st_size for path in folder.rglob("*.teacher"))

    full = Teacher(network, TeacherCache(folder=tmp_path / "full"))(images)
    small = Teacher(network, TeacherCache(folder=tmp_path / "small", shrink=4))(images)
    assert arrays(small).keys() == arrays(full).keys()
    assert all(arrays(small)[name].shape == value.shape for name, value in arrays(full).items())
    assert folder_size(tmp_path / "small") < 0.2 * folder_size(tmp_path / "full")


def test_shrinking_keeps_planes_where_they_are(tmp_path):
    y, x = torch.meshgrid(torch.arange(10.0), torch.arange(13.0), indexing="ij")
    depth = (3 + 0.5 * x + 0.25 * y)[None, None]
    prediction = Prediction(
        pose_encoding=torch.zeros(1, 1, 9), pose_encoding_iterations=torch.zeros(1, 1, 1, 9),
        network_size=(10, 13), depth=depth,
    )  # fmt: skip
    found = TeacherCache(folder=tmp_path, shrink=2).write("ab", prediction).depth
    assert found.shape == depth.shape
    torch.testing.assert_close(found[..., 1:-1, 1:-1], depth[..., 1:-1, 1:-1], rtol=0, atol=0.13)
    inner = found[..., 1:7, 1:9], depth[..., 1:7, 1:9]
    torch.testing.assert_close(*inner, rtol=1e-3, atol=0)


def test_values_beyond_half_precision_are_cut_not_infinite(tmp_path):
    prediction = Prediction(
        pose_encoding=torch.zeros(1, 1, 9), pose_encoding_iterations=torch.zeros(1, 1, 1, 9),
        network_size=(2, 2), depth=torch.full((1, 1, 2, 2), 1e6),
    )  # fmt: skip
    assert TeacherCache(folder=tmp_path).write("ab", prediction).depth.max() == 65504


def test_a_shrink_of_zero_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"TeacherCache\.shrink must be at least 1, got 0"):
        TeacherCache(folder=tmp_path, shrink=0)


def test_clips_are_joined_along_the_batch():
    parts = [
        Prediction(
            pose_encoding=torch.full((1, 2, 9), float(i)),
            pose_encoding_iterations=torch.full((3, 1, 2, 9), float(i)), network_size=(2, 2),
        )
        for i in range(2)
    ]  # fmt: skip
    batch = joined(parts)
    assert batch.pose_encoding[:, 0, 0].tolist() == [0, 1]
    assert batch.pose_encoding_iterations[:, :, 0, 0].tolist() == [[0, 1]] * 3


def test_query_points_are_valid_pixels_of_the_first_frame():
    mask = torch.zeros(2, 7, 11, dtype=torch.bool)
    mask[0, 2:6, 3:8] = True
    mask[1] = True
    points = sample_query_points(mask, num_points=20).long()
    assert points.shape == (2, 20, 2)
    assert mask[0, points[0, :, 1], points[0, :, 0]].all()
    assert len(points[1].unique(dim=0)) > 5


def test_too_few_valid_pixels_give_the_first_pixel():
    mask = torch.zeros(1, 7, 11, dtype=torch.bool)
    mask[0, 3, :9] = True
    assert sample_query_points(mask, num_points=10).abs().sum() == 0
    assert sample_query_points(mask, num_points=9)[..., 1].unique().tolist() == [3]


def test_query_points_follow_their_generator():
    mask = torch.ones(3, 7, 11, dtype=torch.bool)
    draw = [
        sample_query_points(mask, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    ]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])
