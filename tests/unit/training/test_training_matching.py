from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everview.errors import ConfigError
from everview.model.network import build
from everview.model.presets import presets
from everview.training.feed.batch import truth_of_clips
from everview.training.objective.matching import Matching, _corners, patch_flow
from everview.world import Options, sequence


def _truth(clip):
    camera_from_world = torch.linalg.inv(clip.world_from_camera)
    parts = (clip.depth, clip.points, clip.valid, camera_from_world, clip.intrinsics)
    return truth_of_clips(*(part[None].clone() for part in parts))


def _room(frames, size, moving=0.0):
    return sequence(3, frames, size=size, kind="room", options=Options(moving=moving))


def test_patches_come_from_where_the_world_says_they_were():
    clip = _room(3, (84, 112))
    flow, counts = patch_flow(_truth(clip), 14)
    assert flow.shape == (1, 2, 48, 2)
    y, x = torch.meshgrid(torch.arange(7, 84, 14), torch.arange(7, 112, 14), indexing="ij")
    here = torch.stack([x, y], dim=-1).flatten(0, 1).float()
    for frame in (1, 2):
        before = here + flow[0, frame - 1] * 14
        pixels, visible = clip.tracks(before)
        followed = visible[0] & visible[frame] & counts[0, frame - 1]
        assert followed.float().mean() > 0.4
        off = (pixels[frame] - here).norm(dim=-1)[followed]
        assert float(off.median()) < 0.1


def test_nothing_moves_before_a_camera_that_stands_still():
    truth = _truth(_room(2, (42, 56)))
    for value in (truth.points, truth.pose_encoding, truth.depth):
        value[:, 1] = value[:, 0]
    flow, counts = patch_flow(truth, 14)
    assert counts.all()
    assert float(flow.abs().max()) < 1e-4
    index, share = _corners(flow.clamp(-1e-6, 1e-6) * 0, (3, 4))
    assert index[..., 0].tolist() == [[list(range(12))]]
    assert share[..., 0].eq(1).all()


def test_patches_of_the_sky_and_of_what_moves_have_no_match():
    truth = _truth(_room(2, (42, 56)))
    _, counts = patch_flow(truth, 14)
    assert counts.float().mean() > 0.5
    still = torch.ones(1, 2, 42, 56, dtype=torch.bool)
    still[:, 1, :28] = False
    _, fewer = patch_flow(truth, 14, still=still)
    assert not fewer[..., :8].any()
    assert torch.equal(fewer[..., 8:], counts[..., 8:])
    sky = replace(truth, mask=still)
    assert torch.equal(patch_flow(sky, 14)[1], fewer)


def test_a_match_that_is_unknown_in_the_first_frame_does_not_count():
    truth = _truth(_room(2, (42, 56)))
    first = torch.ones(1, 2, 42, 56, dtype=torch.bool)
    first[:, 0] = False
    assert not patch_flow(replace(truth, mask=first), 14)[1].any()


def test_a_guide_without_maps_is_refused():
    truth = replace(_truth(_room(2, (42, 56))), depth=None)
    with pytest.raises(ConfigError, match="who guides must know depth and points"):
        patch_flow(truth, 14)


@settings(deadline=None)
@given(st.lists(st.floats(-6, 6), min_size=24, max_size=24))
def test_the_four_patches_around_a_corners_average_to_it(values):
    flow = torch.tensor(values).view(1, 1, 12, 2)
    index, share = _corners(flow, (3, 4))
    torch.testing.assert_close(share.sum(dim=-1), torch.ones(1, 1, 12))
    x = (share * (index % 4)).sum(dim=-1)
    y = (share * (index // 4)).sum(dim=-1)
    own = torch.arange(12)
    torch.testing.assert_close(x, (own % 4 + flow[..., 0]).clamp(0, 3))
    torch.testing.assert_close(y, (own // 4 + flow[..., 1]).clamp(0, 2))


def test_readouts_begin_at_no_displacement_and_attention_undecided():
    network = build(presets["tiny"], seed=0)
    clip = _room(3, (42, 56))
    truth = _truth(clip)
    losses = Matching(network)(network, network.aggregator(clip.images[None]), truth)
    flow, counts = patch_flow(truth, 14)
    expected = (flow.abs() * counts[..., None]).sum() / (2 * counts.sum())
    torch.testing.assert_close(losses["flow"], expected)
    assert 0.5 < float(losses["attention"].detach()) < 2 * torch.log(torch.tensor(2.0 * 17))


def test_attention_that_looks_at_the_corners_costs_little():
    """Keys and queries that carry the patch's own index alone: standing still, the match wins."""
    network = build(presets["tiny"], seed=0)
    clip = _room(2, (42, 56))
    truth = _truth(clip)
    images = clip.images[None].clone()
    for value in (images, truth.points, truth.pose_encoding, truth.depth):
        value[:, 1] = value[:, 0]
    matching = Matching(network)
    losses = matching(network, network.aggregator(images), truth)
    lost = matching(network, network.aggregator(torch.rand_like(images)), truth)
    assert losses["attention"] < lost["attention"]
