"""Grids, rotations and transforms: laws that hold for all widths, seeds and bits."""

import pytest
import torch

from everview.errors import ConfigError, InputError
from everview.quantization.grids import (
    Grid,
    fit_tokens,
    fit_weights,
    from_levels,
    in_groups,
    on_grid,
    search_steps,
    to_levels,
    token_levels,
)
from everview.quantization.hadamard import Rotation, block_of, factors, mix, paley, sylvester
from everview.quantization.packing import pack_nibbles, unpack_nibbles
from everview.quantization.sampling import k_means, outlier_scores, pick_balanced, select_clips
from everview.quantization.smoothing import (
    ChannelMaxima,
    InputTransform,
    plan_transform,
    smoothing_factors,
)
from everview.quantization.spec import LinearSpec, parse_scheme

WIDTHS = (2, 12, 24, 32, 64, 96, 100, 128, 192, 336, 384, 512, 720, 768, 1024, 2048)


def kronecker(matrices):
    product = torch.ones(1, 1, dtype=torch.float64)
    for matrix in matrices:
        product = torch.kron(product, matrix.contiguous())
    return product


@pytest.mark.parametrize("width", WIDTHS)
def test_a_rotation_is_orthonormal_and_can_be_undone(width):
    rotation = Rotation.random(width, torch.Generator().manual_seed(width))
    matrix = rotation.matrix(width)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(width, dtype=torch.float64))
    x = torch.randn(3, 2, width, dtype=torch.float64)
    torch.testing.assert_close(rotation.apply(x), x @ matrix)
    torch.testing.assert_close(rotation.undo(rotation.apply(x)), x)


@pytest.mark.parametrize(
    ("width", "largest", "block"),
    [(1024, None, 1024), (1024, 64, 64), (768, None, 768), (768, 64, 64), (192, 64, 64),
     (96, 64, 32), (12, None, 12), (100, None, 4), (336, None, 16), (720, None, 16), (2, None, 2)],
)  # fmt: skip
def test_the_block_of_a_width(width, largest, block):
    assert block_of(width, largest) == block


def test_an_odd_width_has_no_rotation():
    with pytest.raises(ConfigError, match="9 channels are odd"):
        block_of(9)
    with pytest.raises(ConfigError, match="blocks of 64 for 96"):
        mix(torch.zeros(1, 96), 64)


@pytest.mark.parametrize("order", [64, 128, 512, 1024, 4096])
def test_small_factors_make_sylvesters_matrix(order):
    assert max(len(m) for m in factors(order)) <= 64
    assert torch.equal(kronecker(factors(order)), sylvester(order))


def test_small_factors_of_widths_with_twelve():
    assert torch.equal(kronecker(factors(192)), torch.kron(paley().T.contiguous(), sylvester(16)))


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("is_symmetric", [True, False])
@pytest.mark.parametrize("fit", [fit_weights, fit_tokens])
def test_a_grid_errs_by_half_a_step_and_is_idempotent(bits, is_symmetric, fit):
    x = torch.randn(9, 40, dtype=torch.float64)
    x[0], x[1], x[2] = 0, x[1].abs(), -x[2].abs()
    x[3, 5] = 1000
    grid = Grid(bits=bits, is_symmetric=is_symmetric)
    steps = fit(x, grid)
    once = from_levels(to_levels(x, steps, grid), steps)
    # on an asymmetric grid both ends can be off by the rounding of the zero level
    assert ((once - x).abs() <= (0.5 if is_symmetric else 1.0) * steps.step[:, None] + 1e-12).all()
    assert torch.equal(from_levels(to_levels(once, steps, grid), steps), once)
    if is_symmetric:
        assert torch.equal(to_levels(-x, fit(-x, grid), grid), -to_levels(x, steps, grid))


@pytest.mark.parametrize("bits", [4, 8])
def test_levels_of_tokens_are_those_of_the_plain_functions(bits):
    x, grid = torch.randn(50, 33) * 10 ** torch.randn(50, 1), Grid(bits=bits)
    x[7] = 0
    levels, step = token_levels(x, grid)
    steps = fit_tokens(x, grid)
    assert torch.equal(levels, to_levels(x, steps, grid))
    assert torch.equal(step[:, 0], steps.step)
    assert torch.equal(token_levels(x[20:23], grid)[0], levels[20:23])  # of nothing but the token


def test_the_search_never_errs_more_than_the_full_step():
    w, grid = torch.randn(64, 96) ** 3, Grid(bits=4)
    found, full = search_steps(w, grid), fit_weights(w, grid)

    def error(steps):
        return ((from_levels(to_levels(w, steps, grid), steps) - w).abs() ** 2.4).sum(-1)

    assert (error(found) <= error(full)).all()
    assert (error(found) < 0.9 * error(full)).any()
    with pytest.raises(ConfigError, match="symmetric"):
        search_steps(w, Grid(bits=4, is_symmetric=False))


def test_straight_through_rounding_has_the_gradient_of_the_clamped_identity():
    w = torch.tensor([[0.3, -0.7, 5.0]], requires_grad=True)
    steps = fit_weights(torch.tensor([[1.0, -1.0, 1.0]]), Grid(bits=4))
    on_grid(w, steps, Grid(bits=4)).sum().backward()
    assert w.grad.tolist() == [[1.0, 1.0, 0.0]]


@pytest.mark.parametrize("order", ["smooth_rotate", "rotate_smooth", "rotate", "smooth", "none"])
@pytest.mark.parametrize("width", [48, 64, 100])
@pytest.mark.parametrize("largest", [None, 16])
def test_without_rounding_every_order_leaves_the_layer_as_it_is(order, width, largest):
    weight = torch.randn(20, width, dtype=torch.float64)
    x = torch.randn(7, width, dtype=torch.float64) * 10 ** torch.randn(width).double()
    rotation = Rotation.random(width, torch.Generator().manual_seed(1), largest=largest)
    for stat in ("rotated", "unrotated"):
        plan = plan_transform(weight, x.abs().amax(0), order, rotation=rotation, stat=stat)
        found = plan.of_input(x) @ plan.of_weight(weight).T
        torch.testing.assert_close(found, x @ weight.T, rtol=1e-9, atol=1e-9)


def test_smoothing_first_makes_channels_alike_and_the_error_smaller():
    """Design page, Sec. 6.2: smooth, then rotate, beats rotation where channels are unequal."""
    torch.manual_seed(3)
    weight, x = torch.randn(256, 512) / 20, torch.randn(200, 512)
    x[:, :16] *= 30
    rotation = Rotation.random(512, torch.Generator().manual_seed(1))
    grid = Grid(bits=4)

    def error(order):
        maxima = (rotation.apply(x) if order == "rotate_smooth" else x).abs().amax(0)
        plan = plan_transform(weight, maxima, order, rotation=rotation)
        w, h = plan.of_weight(weight), plan.of_input(x)
        w = from_levels(to_levels(w, fit_weights(w, grid), grid), fit_weights(w, grid))
        h = from_levels(to_levels(h, fit_tokens(h, grid), grid), fit_tokens(h, grid))
        return float((h @ w.T - x @ weight.T).norm() / (x @ weight.T).norm())

    errors = {o: error(o) for o in ("none", "rotate", "rotate_smooth", "smooth", "smooth_rotate")}
    assert errors["smooth_rotate"] < 0.5 * errors["rotate"] < 0.5 * errors["none"]
    assert errors["smooth_rotate"] < 0.5 * errors["rotate_smooth"]
    assert errors["smooth_rotate"] < 0.5 * errors["smooth"]


def test_factors_stay_finite_for_dead_channels():
    dead = torch.tensor([0.0, 1.0, 4.0])
    factors_ = smoothing_factors(dead, torch.tensor([1.0, 0.0, 1.0]))
    assert factors_.isfinite().all()
    assert float(factors_[2]) == 2.0
    assert (factors_ > 0).all()


def test_the_statistic_refuses_nan():
    maxima = ChannelMaxima()
    with pytest.raises(InputError, match="not finite"):
        maxima.update(torch.tensor([[[1.0, torch.nan]]]))


def test_an_empty_transform_does_nothing():
    x = torch.randn(3, 8)
    assert InputTransform().of_input(x) is x


@pytest.mark.parametrize("shape", [(1, 2), (5, 6), (16, 64)])
def test_nibbles(shape):
    levels = torch.randint(-8, 8, shape, dtype=torch.int8)
    packed = pack_nibbles(levels)
    assert packed.numel() * 2 == levels.numel()
    assert torch.equal(unpack_nibbles(packed), levels)
    with pytest.raises(ConfigError, match="3 columns"):
        pack_nibbles(levels.new_zeros(1, 3))


def test_groups_fill_rows():
    assert in_groups(torch.zeros(4, 12), 4).shape == (4, 3, 4)
    assert in_groups(torch.zeros(4, 12), None).shape == (4, 1, 12)
    with pytest.raises(ConfigError, match="groups of 5"):
        in_groups(torch.zeros(4, 12), 5)


def test_schemes():
    assert parse_scheme("W4A8") == LinearSpec(weight_bits=4, activation_bits=8)
    assert parse_scheme("w4a16").group == 64
    for wrong in ("w3a8", "int8", "w8"):
        with pytest.raises(ConfigError, match="w8a8, w4a8, w4a4"):
            parse_scheme(wrong)
    with pytest.raises(ConfigError, match="groups"):
        LinearSpec(weight_bits=4, activation_bits=8, group=64)
    with pytest.raises(ConfigError, match="2 to 8 bits"):
        Grid(bits=9)
    assert parse_scheme("FP8").name == "fp8"
    with pytest.raises(ConfigError, match="8-bit floats have 8 bits"):
        LinearSpec(weight_bits=4, activation_bits=8, is_float8=True)


def test_k_means_finds_what_is_there_and_says_when_it_cannot():
    torch.manual_seed(1)
    centers = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    labels = torch.arange(3).repeat(20)
    found = k_means(centers[labels] + 0.1 * torch.randn(60, 2), 3, restarts=5)
    assert len(set(zip(found.labels.tolist(), labels.tolist(), strict=True))) == 3
    with pytest.raises(ConfigError, match="2 points cannot form 3"):
        k_means(torch.zeros(2, 2), 3)


def test_the_pick_tops_up_small_clusters():
    labels = torch.tensor([0] * 10 + [1] + [2] * 10)
    picked = pick_balanced(labels, 3, seed=0)
    assert len(picked) == 9
    assert 10 in picked.tolist()
    assert torch.equal(picked, pick_balanced(labels, 3, seed=0))


def candidates(num=60):
    torch.manual_seed(5)
    mean, variance = torch.randn(num, 4), torch.rand(num, 4) + 0.5
    mean[7] += 40
    variance[23] *= 30
    return mean, variance, torch.rand(num, 3)


@pytest.mark.parametrize("choice", ["random", "filter", "cluster", "nfds"])
def test_choosing_clips(choice):
    mean, variance, correlations = candidates()

    def pick(seed):
        return select_clips(
            mean, variance, correlations, choice=choice, clusters=4, per_cluster=5,
            keep_fraction=0.5, seed=seed,
        )  # fmt: skip

    picked = pick(0)
    assert len(set(picked.tolist())) == 20
    assert torch.equal(picked, pick(0))
    assert any(not torch.equal(picked, pick(seed)) for seed in range(1, 6))
    if choice in ("filter", "nfds"):
        assert not any({7, 23} & set(pick(seed).tolist()) for seed in range(6))
    else:
        assert any({7, 23} & set(pick(seed).tolist()) for seed in range(6))


def test_outliers_score_highest():
    mean, variance, _ = candidates()
    assert set(outlier_scores(mean, variance).argsort()[-2:].tolist()) == {7, 23}


def test_bad_candidates_are_named():
    mean, variance, correlations = candidates()
    with pytest.raises(ConfigError, match="10 candidate clips are too few"):
        select_clips(mean[:10], variance[:10], correlations[:10])
    correlations[13, 1] = torch.nan
    with pytest.raises(InputError, match="clip 13: its correlations"):
        select_clips(mean, variance, correlations)
    with pytest.raises(ConfigError, match="keep_fraction"):
        select_clips(mean, variance, correlations, keep_fraction=0.0)
