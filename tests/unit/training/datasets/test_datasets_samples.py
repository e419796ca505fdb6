import dataclasses
import logging
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from everview.errors import ConfigError, InputError
from everview.geometry.rotations import invert_rigid
from everview.training.datasets.inspection.reprojection import reprojection_error
from everview.training.datasets.mixture import MixtureSettings, parse_mixture
from everview.training.datasets.procedural import ProceduralSettings, open_world
from everview.training.datasets.recognise import open_dataset
from everview.training.datasets.samples import Mixture, Sample, collate
from everview.training.datasets.view import View
from everview.world import NO_EFFECTS, Options, sequence
from everview.world.layouts.registry import LAYOUTS

SHAPES = {(56, 42): 1.0, (42, 42): 1.0, (42, 56): 1.0}


def _settings(mixture, **more):
    values = {"batch_size": 2, "num_views": (2, 4), "resolutions": SHAPES, "extra_pixels": 4}
    return MixtureSettings(shares=parse_mixture(mixture), **{**values, **more})


@pytest.fixture(scope="module")
def sets(stored):
    world = open_world(
        ProceduralSettings(
            num_scenes=3, frames=4, size=(42, 56), kind="room",
            options=Options(moving=0.0, effects=NO_EFFECTS),
        )
    )  # fmt: skip

    names = ("vkitti2", "blendedmvs", "scannetpp")
    return {name: open_dataset(stored(name)) for name in names} | {"world": world}


@pytest.fixture(scope="module")
def mixture(sets):
    return Mixture(_settings("6 @ vkitti2 + 4 @ blendedmvs + 4 @ world + 2 @ scannetpp"), sets)


def _same(one, other):
    for field in dataclasses.fields(one):
        first, second = getattr(one, field.name), getattr(other, field.name)
        if isinstance(first, torch.Tensor):
            torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)
        else:
            assert first == second


def test_batches_are_stacked_samples_whose_first_view_is_the_world(mixture):
    batches = list(mixture.epoch(0).since(0))
    assert len(batches) == 8
    seen = set()
    for batch in batches:
        b, s = batch.images.shape[:2]
        assert b == 2
        assert 2 <= s <= 4
        assert (batch.images.shape[4], batch.images.shape[3]) in SHAPES
        torch.testing.assert_close(batch.world_from_camera[:, 0], torch.eye(4).expand(2, 4, 4))
        assert batch.valid.float().mean() > 0.9
        assert (batch.depth[~batch.valid] == 0).all()
        assert batch.has_depth.all()
        assert batch.has_pose.all()
        seen |= {label.split("/")[0] for row in batch.labels for label in row}
    assert seen == {"vkitti2", "blendedmvs", "world", "scannetpp"}


def test_depth_and_poses_of_a_batch_agree_with_its_intrinsics(mixture):
    """Cropped, scaled and relative to the first view, points of two views are the same surface."""
    for batch in mixture.epoch(1).since(0):
        for b in range(len(batch.images)):
            views = [
                View(
                    image=batch.images[b, i], depth=batch.depth[b, i], valid=batch.valid[b, i],
                    world_from_camera=batch.world_from_camera[b, i],
                    intrinsics=batch.intrinsics[b, i], time=0.0, index=i, label="",
                )
                for i in range(2)
            ]  # fmt: skip
            poses = batch.world_from_camera[b, :2].double()
            motion = invert_rigid(poses[1]) @ poses[0]
            found = reprojection_error(*views, motion)
            assert found.error < 0.04 or found.overlap < 0.2


def test_a_batch_is_a_function_of_seed_epoch_and_step(mixture, sets):
    again = Mixture(mixture.settings, sets)
    _same(mixture.epoch(2)[5], again.epoch(2)[5])
    other = Mixture(dataclasses.replace(mixture.settings, seed=1), sets)
    assert mixture.epoch(2)[5].labels != other.epoch(2)[5].labels


def test_an_epoch_resumed_in_the_middle_gives_what_the_whole_would(mixture):
    epoch = mixture.epoch(0)
    whole = list(epoch.since(0))
    for one, other in zip(whole[5:], mixture.epoch(0).since(5), strict=True):
        _same(one, other)


def test_ranks_see_the_batches_of_one_process(mixture):
    alone = mixture.epoch(0)
    halves = [mixture.epoch(0, rank=rank, num_ranks=2) for rank in (0, 1)]
    assert [len(half) for half in halves] == [4, 4]
    _same(alone[2], halves[0][1])
    _same(alone[3], halves[1][1])


def test_a_loader_of_pytorch_reads_ahead_from_any_step(mixture):
    epoch = mixture.epoch(0)
    loader = DataLoader(epoch, batch_size=None, sampler=range(6, len(epoch)))
    for one, other in zip(loader, epoch.since(6), strict=True):
        _same(one, other)


def test_an_epoch_can_be_sent_to_another_process(mixture):
    epoch = mixture.epoch(0)
    _same(pickle.loads(pickle.dumps(epoch))[3], epoch[3])


def test_colours_of_a_sample_change_alike(sets):
    plain = Mixture(_settings("8 @ world", colour=None), sets)
    coloured = Mixture(_settings("8 @ world"), sets)
    gains = []
    for one, other in zip(plain.epoch(0).since(0), coloured.epoch(0).since(0), strict=True):
        assert torch.equal(one.depth, other.depth)
        assert not torch.allclose(one.images, other.images, atol=0.01)
        gain = other.images.mean(dim=(2, 3, 4)) - one.images.mean(dim=(2, 3, 4))  # b s
        gains.append(gain.std(dim=1).max())
    assert max(gains) < 0.06


def test_a_pose_that_is_not_finite_makes_the_sample_be_drawn_anew(copy_of):
    root = copy_of("scannet")
    for path in sorted(root.glob("*/scene0000_00/cam/*.npz")):
        with np.load(path) as file:
            np.savez(path, intrinsics=file["intrinsics"], pose=np.full((4, 4), -np.inf))
    mixture = Mixture(_settings("8 @ scannet", num_views=(3, 3)), {"scannet": open_dataset(root)})
    for batch in mixture.epoch(0).since(0):
        assert batch.world_from_camera.isfinite().all()
        assert all("scene0001" in label for row in batch.labels for label in row)


def test_a_damaged_file_is_told_and_the_sample_drawn_anew(copy_of, caplog):
    root = copy_of("scannet")
    for path in root.glob("*/scene0000_00/color/*.jpg"):
        path.write_bytes(b"no")
    mixture = Mixture(_settings("8 @ scannet"), {"scannet": open_dataset(root)})
    with caplog.at_level(logging.WARNING):
        batches = list(mixture.epoch(0).since(0))
    assert len(batches) == 4
    assert "a sample of scannet is drawn anew" in caplog.text
    assert "scene0000_00" in caplog.text


def test_a_set_without_a_usable_sample_ends_with_the_last_reason(copy_of):
    root = copy_of("scannet")
    settings = _settings("4 @ scannet", num_views=(9, 9))
    mixture = Mixture(settings, {"scannet": open_dataset(root)})
    with pytest.raises(InputError, match="fewer than 9 frames that belong together"):
        mixture.epoch(0)[0]


def test_background_of_objects_is_masked_in_a_share_of_the_samples(stored):
    dataset = open_dataset(stored("co3d"))
    always = dataclasses.replace(
        dataset, rules=dataclasses.replace(dataset.rules, background_masked=1.0)
    )
    settings = _settings("2 @ co3d", num_views=(4, 4), seed=3)
    plain, masked = (Mixture(settings, {"co3d": one}).epoch(0)[0] for one in (dataset, always))
    assert torch.equal(plain.images, masked.images)  # only depth is masked
    assert plain.valid.float().mean() > 0.99
    assert 0.1 < masked.valid.float().mean() < 0.9
    assert masked.depth[masked.valid].median() < plain.depth[plain.valid].median()


def test_portrait_samples_turn_the_shape_of_a_batch(clips, stored, tmp_path):
    LAYOUTS["spring"](tmp_path / "tall", [sequence(4, 3, size=(70, 56), kind="room")])
    tall = open_dataset(tmp_path / "tall", "spring")
    settings = _settings("2 @ spring", num_views=(2, 2), resolutions={(56, 42): 1.0})
    assert Mixture(settings, {"spring": tall}).epoch(0)[0].images.shape[3:] == (56, 42)
    wide = open_dataset(stored("spring"), "spring")
    assert Mixture(settings, {"spring": wide}).epoch(0)[0].images.shape[3:] == (42, 56)


def test_poses_of_a_batch_are_relative_to_the_first_view(sets):
    scene, _ = sets["world"].locate(0)
    views = scene.views([3, 1])
    batch = collate([Sample(views=tuple(views), is_video=False)])
    first_from_world = torch.linalg.inv(views[0].world_from_camera.double())
    expected = first_from_world @ views[1].world_from_camera.double()
    torch.testing.assert_close(batch.world_from_camera[0, 1].double(), expected, atol=1e-6, rtol=0)
    assert (expected @ views[0].world_from_camera.double() - expected).abs().max() > 1e-3


def test_the_random_extra_of_a_crop_is_one_for_all_views_of_a_sample(sets):
    focals = {}
    for extra in (0, 16):
        settings = _settings("8 @ world", extra_pixels=extra, batch_size=1)
        batches = list(Mixture(settings, {"world": sets["world"]}).epoch(0).since(0))
        assert all(float(batch.intrinsics[0, :, 0, 0].std()) < 1e-3 for batch in batches)
        focals[extra] = torch.stack([batch.intrinsics[0, 0, 0, 0] for batch in batches])
    zoom = focals[16] / focals[0]
    assert zoom.min() > 0.999
    assert 1.1 < zoom.max() < 1.45
    assert zoom.std() > 0.03


def test_samples_without_truth_are_marked_and_stack_with_others(sets):
    scene, _ = sets["world"].locate(0)
    known = scene.views([0, 1])
    nothing = torch.zeros(known[0].size)
    unknown = [
        dataclasses.replace(
            view, depth=nothing, valid=nothing > 0, world_from_camera=torch.full((4, 4), torch.nan),
            has_depth=False, has_pose=False,
        )
        for view in known
    ]  # fmt: skip
    samples = [Sample(views=tuple(views), is_video=True) for views in (known, unknown)]
    batch = collate(samples)
    assert batch.has_depth.tolist() == batch.has_pose.tolist() == [True, False]
    assert batch.world_from_camera[0].isfinite().all()
    assert batch.world_from_camera[1].isnan().all()


def test_a_set_that_was_not_given_is_named(sets):
    with pytest.raises(ConfigError, match="the mixture names 'nuscenes'; given are vkitti2"):
        Mixture(_settings("1 @ nuscenes"), sets)
