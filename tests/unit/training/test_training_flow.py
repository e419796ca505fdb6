import torch

from everview.training.data import _collate
from everview.training.flow import FlowReadout, patch_flow
from everview.world import sequence


def _batch(clip):
    return _collate([clip], torch.zeros(1, 1, 2))


def test_patches_come_from_where_the_world_says_they_were():
    clip = sequence(3, 2, size=(84, 112))
    flow, counts = patch_flow(_batch(clip), 14)
    assert flow.shape == (1, 1, 48, 2)
    y, x = torch.meshgrid(torch.arange(7, 84, 14), torch.arange(7, 112, 14), indexing="ij")
    here = torch.stack([x, y], dim=-1).flatten(0, 1).float()
    before = here + flow[0, 0] * 112
    pixels, visible = clip.tracks(before)
    followed = visible[0] & visible[1] & counts[0, 0]
    assert followed.float().mean() > 0.4
    off = (pixels[1] - here).norm(dim=-1)[followed]
    assert float(off.median()) < 0.1


def test_nothing_moves_before_a_camera_that_stands_still():
    batch = _batch(sequence(3, 2, size=(42, 56)))
    for value in (batch.points, batch.pose_encoding):
        value[:, 1] = value[:, 0]
    flow, counts = patch_flow(batch, 14)
    assert counts.all()
    assert float(flow.abs().max()) < 1e-4


def test_the_readout_begins_at_no_displacement():
    batch = _batch(sequence(3, 3, size=(42, 56)))
    readout = FlowReadout((1, 3), 8, 14)
    tokens = {layer: torch.randn(1, 3, 5 + 12, 8) for layer in (1, 3)}
    flow, counts = patch_flow(batch, 14)
    expected = (flow.abs() * counts[..., None]).sum() / (2 * counts.sum())
    torch.testing.assert_close(readout(tokens, batch), expected)
