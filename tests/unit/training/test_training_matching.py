import torch
from hypothesis import given
from hypothesis import strategies as st

from everview.model.network import build
from everview.model.presets import presets
from everview.training.data import _collate
from everview.training.matching import Matching, _corners, patch_flow
from everview.world import sequence


def _batch(clip):
    return _collate([clip], torch.zeros(1, 1, 2))


def test_patches_come_from_where_the_world_says_they_were():
    clip = sequence(3, 3, size=(84, 112))
    flow, counts = patch_flow(_batch(clip), 14)
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
    batch = _batch(sequence(3, 2, size=(42, 56)))
    for value in (batch.points, batch.pose_encoding):
        value[:, 1] = value[:, 0]
    flow, counts = patch_flow(batch, 14)
    assert counts.all()
    assert float(flow.abs().max()) < 1e-4
    index, share = _corners(flow.clamp(-1e-6, 1e-6) * 0, (3, 4))
    assert index[..., 0].tolist() == [[list(range(12))]]
    assert share[..., 0].eq(1).all()


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
    batch = _batch(sequence(3, 3, size=(42, 56)))
    losses = Matching(network)(network, network.aggregator(batch.images), batch)
    flow, counts = patch_flow(batch, 14)
    expected = (flow.abs() * counts[..., None]).sum() / (2 * counts.sum())
    torch.testing.assert_close(losses["flow"], expected)
    assert 0.5 < float(losses["attention"].detach()) < 2 * torch.log(torch.tensor(2.0 * 17))


def test_attention_that_looks_at_the_corners_costs_little():
    """Keys and queries that carry the patch's own index alone: standing still, the match wins."""
    network = build(presets["tiny"], seed=0)
    batch = _batch(sequence(3, 2, size=(42, 56)))
    for value in (batch.images, batch.points, batch.pose_encoding, batch.depth):
        value[:, 1] = value[:, 0]
    losses = Matching(network)(network, network.aggregator(batch.images), batch)
    noise = torch.rand_like(batch.images)
    batch.images.copy_(noise)
    lost = Matching(network)(network, network.aggregator(batch.images), batch)
    assert losses["attention"] < lost["attention"]
