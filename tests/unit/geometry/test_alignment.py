import numpy as np
import pytest
import torch

from everview.errors import ConfigError
from everview.geometry.alignment import umeyama

CASES = ("noiseless", "noisy", "large_noise", "mirrored", "planar")


@pytest.fixture(scope="module")
def values(golden):
    return np.load(golden / "metrics" / "umeyama.npz")


@pytest.mark.parametrize("with_scale", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_the_golden_alignments_are_found(values, case, with_scale):
    source, target = (torch.as_tensor(values[f"{case}/in/{side}"]) for side in ("src", "dst"))
    found = umeyama(source, target, with_scale=with_scale)
    out = f"{case}/out_{'sim3' if with_scale else 'se3'}"
    assert found.scale == pytest.approx(float(values[f"{out}/scale"]), rel=1e-7)
    for ours, name in ((found.rotation, "R"), (found.translation, "t")):
        torch.testing.assert_close(
            ours, torch.as_tensor(values[f"{out}/{name}"]), rtol=1e-7, atol=1e-9
        )
    rmse = (found.apply(source) - target).square().sum(-1).mean().sqrt()
    assert float(rmse) == pytest.approx(float(values[f"{out}/rmse"]), rel=1e-7, abs=1e-12)


def test_the_rotation_is_proper_even_if_a_mirror_would_fit_better(values):
    found = umeyama(*(torch.as_tensor(values[f"mirrored/in/{side}"]) for side in ("src", "dst")))
    assert float(torch.det(found.rotation)) == pytest.approx(1)


def test_points_on_a_line_have_no_unique_rotation_but_one_smallest_distance():
    line = torch.linspace(0, 1, 6).double()[:, None] * torch.tensor([1.0, 2.0, 3.0]).double()
    target = torch.randn(6, 3, dtype=torch.float64)
    with pytest.raises(ConfigError, match="lie on a line"):
        umeyama(line, target)
    found = umeyama(line, target, allow_line=True)
    best = (found.apply(line) - target).square().sum()
    bent = line + 1e-5 * torch.randn(6, 3, dtype=torch.float64)  # this one is determined
    other = (umeyama(bent, target).apply(bent) - target).square().sum()
    assert float(best) == pytest.approx(float(other), rel=1e-3)
    assert float(torch.det(found.rotation)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (torch.zeros(0, 3), torch.zeros(0, 3), "at least one pair"),
        (torch.ones(4, 3), torch.rand(4, 3), "all 4 source points coincide"),
        (torch.rand(4, 3), torch.ones(4, 3) / 3, "all 4 target points coincide"),
        (torch.rand(4, 3), torch.full((4, 3), torch.inf), "4 of 4 target points are not finite"),
    ],
)
def test_what_cannot_be_aligned_is_refused_in_words(source, target, message):
    with pytest.raises(ConfigError, match=message):
        umeyama(source, target)


def test_numpy_arrays_give_what_tensors_give():
    source = torch.randn(9, 3, dtype=torch.float64)
    target = 2 * source + 1
    expected = umeyama(source, target)
    found = umeyama(source.numpy(), target.numpy())
    assert found.scale == expected.scale
    assert torch.equal(found.rotation, expected.rotation)
    assert torch.equal(found.translation, expected.translation)
