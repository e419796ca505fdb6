"""Integer grids, rotations, smoothing and choice of clips against numbers of the reference."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from everview.quantization.grids import (
    ClipFactors,
    Grid,
    fit_tokens,
    fit_weights,
    from_levels,
    search_steps,
    to_levels,
)
from everview.quantization.hadamard import Rotation, block_of, paley
from everview.quantization.linear import QuantizedLinear
from everview.quantization.sampling import (
    frame_correlations,
    k_means,
    outlier_scores,
    pick_balanced,
    quartile_outliers,
    select_clips,
)
from everview.quantization.smoothing import ChannelMaxima, InputTransform, plan_transform
from everview.quantization.spec import LinearSpec

FOLDER = Path(__file__).parent / "quantization"


def read(name):
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


HADAMARD, HADAMARD_FACTS = read("hadamard")
GRIDS, _ = read("fakequant")
LINEAR, LINEAR_FACTS = read("linear")
CLIPS, CLIPS_FACTS = read("nfds")
WIDTHS = json.loads(HADAMARD_FACTS["dims"])


def share_off(found, expected, step):
    """Share of entries that are on another level."""
    return float(((found - expected).abs() > 0.5 * step).float().mean())


@pytest.mark.parametrize("case", WIDTHS, ids=lambda case: f"width {case['dim']}")
def test_rotations_are_the_same_matrix(case):
    n = case["dim"]
    signs = HADAMARD[f"d{n}.sign"]
    torch.manual_seed(case["torch_seed"])
    assert torch.equal(torch.randint(0, 2, (n,)) * 2 - 1, signs.long())
    rotation = Rotation(signs.double(), block_of(n))
    matrix = rotation.matrix(n)
    hashed = hashlib.sha256(matrix.sign().to(torch.int8).numpy().tobytes()).hexdigest()
    assert hashed == case["sha256_of_int8_sign_matrix_row_major"]
    found = rotation.apply(HADAMARD[f"d{n}.x"])
    torch.testing.assert_close(found, HADAMARD[f"d{n}.xR"], atol=1e-4, rtol=0)
    if f"d{n}.matrix" in HADAMARD:
        torch.testing.assert_close(matrix.float(), HADAMARD[f"d{n}.matrix"], atol=1e-7, rtol=0)


def test_the_base_of_order_12_is_paleys():
    assert torch.equal(paley().float(), HADAMARD["base12"])


@pytest.mark.parametrize("bits", [8, 6, 4])
@pytest.mark.parametrize("kind", ["sym", "asym"])
@pytest.mark.parametrize(("key", "fit"), [("w", fit_weights), ("x", fit_tokens)])
def test_grids(bits, kind, key, fit):
    grid = Grid(bits=bits, is_symmetric=kind == "sym")
    steps = fit(GRIDS[key], grid)
    name = f"{key}.{bits}.{kind}"
    torch.testing.assert_close(steps.step, GRIDS[f"{name}.scale"], rtol=1e-6, atol=0)
    assert torch.equal(steps.zero, GRIDS[f"{name}.zero"])
    found = from_levels(to_levels(GRIDS[key], steps, grid), steps)
    assert share_off(found, GRIDS[f"{name}.out"], steps.step[..., None]) <= 1e-3


def test_the_search_for_a_step():
    steps = search_steps(GRIDS["w"][3:], Grid(bits=4))
    torch.testing.assert_close(steps.step, GRIDS["w3.4.sym.mse.scale"], rtol=1e-6, atol=0)
    found = from_levels(to_levels(GRIDS["w"][3:], steps, Grid(bits=4)), steps)
    assert share_off(found, GRIDS["w3.4.sym.mse.out"], steps.step[:, None]) <= 1e-3


def test_learned_clipping_of_activations():
    clip = ClipFactors.of_logits(GRIDS["lac.max_logit"], GRIDS["lac.min_logit"])
    steps = fit_tokens(GRIDS["x"], Grid(bits=4), clip)
    found = from_levels(to_levels(GRIDS["x"], steps, Grid(bits=4)), steps)
    assert share_off(found, GRIDS["x.4.sym.lac.out"], steps.step[..., None]) <= 1e-3


def rotation_of_the_layer():
    return Rotation(LINEAR["sign"].float(), block_of(LINEAR["weight"].shape[1]))


def test_the_statistic():
    maxima = ChannelMaxima(float(LINEAR_FACTS["ema_momentum"]))
    for batch in LINEAR["x"]:
        maxima.update(rotation_of_the_layer().apply(batch))
    torch.testing.assert_close(maxima.value, LINEAR["act_scale"], rtol=1e-4, atol=0)


@pytest.mark.parametrize(("stat", "name"), [("rotated", "paper"), ("unrotated", "code")])
def test_smoothing_factors(stat, name):
    plan = plan_transform(
        LINEAR["weight"], LINEAR["act_scale"], "rotate_smooth",
        rotation=rotation_of_the_layer(), stat=stat, alpha=float(LINEAR_FACTS["alpha"]),
    )  # fmt: skip
    torch.testing.assert_close(1 / plan.after, LINEAR[f"channel_scale_{name}"], rtol=1e-4, atol=0)


@pytest.mark.parametrize("run", json.loads(LINEAR_FACTS["runs"]), ids=lambda run: run["tag"])
def test_a_layer_folded_and_run(run):
    tag = run["tag"]
    bits, is_clipped = int(tag[1]), not tag.endswith("noclip")
    weight_clip = act_clip = None
    if is_clipped:
        weight_clip = ClipFactors.of_logits(LINEAR["clip.w_max_logit"], LINEAR["clip.w_min_logit"])
        act_clip = ClipFactors.of_logits(LINEAR["clip.a_max_logit"], LINEAR["clip.a_min_logit"])
    layer = QuantizedLinear.of(
        LINEAR["weight"], LINEAR["bias"],
        LinearSpec(weight_bits=bits, activation_bits=bits),
        InputTransform(
            rotation=rotation_of_the_layer(), after=1 / LINEAR["channel_scale_code"]
        ),
        weight_clip=weight_clip, activation_clip=act_clip,
    )  # fmt: skip
    step = LINEAR[f"{tag}.weight_scale"]
    torch.testing.assert_close(layer.step.flatten(), step, rtol=1e-4, atol=0)
    found = layer.weight_on_grid()
    assert share_off(found, LINEAR[f"{tag}.folded_weight"], step[:, None]) <= 5e-3
    x = LINEAR["x"][-1]
    for arithmetic in ("reference", "float64"):
        y = layer.reference(x if arithmetic == "reference" else x.double()).float()
        for key in ("y", "y_train_path"):
            expected = LINEAR[f"{tag}.{key}"]
            error = (y - expected).norm() / expected.norm()
            assert error <= (2e-3 if bits == 8 else 2e-2)
    error = (layer(x) - LINEAR["y_float"]).norm() / LINEAR["y_float"].norm()
    assert float(error) == pytest.approx(run["rel_err"], rel=0.03)


def test_clips_outside_the_quartiles():
    statistics = torch.cat([CLIPS["layer_mean"], CLIPS["layer_std"]], dim=1)
    removed = quartile_outliers(statistics, CLIPS["category"])
    assert torch.equal(removed, CLIPS["iqr_removed"])


def test_outlier_scores():
    found = outlier_scores(CLIPS["layer_mean"], CLIPS["layer_std"] ** 2)
    torch.testing.assert_close(found, CLIPS["paper_score"], rtol=1e-9, atol=0)


@pytest.mark.parametrize(("by", "name"), [("token", "token_mean"), ("frame", "flattened")])
def test_frame_correlations(by, name):
    found = frame_correlations(CLIPS["frame_features"], by=by)
    torch.testing.assert_close(found, CLIPS[f"corr_{name}"], atol=1e-5, rtol=0)


def test_clusters():
    found = k_means(CLIPS["corr_token_mean"], int(CLIPS_FACTS["n_clusters"]))
    expected = CLIPS["kmeans_labels"]
    pairs = set(zip(found.labels.tolist(), expected.tolist(), strict=True))
    assert len(pairs) == len(expected.unique()) == len(found.labels.unique())
    assert found.inertia == pytest.approx(float(CLIPS_FACTS["inertia"]), rel=1e-6)
    match = dict(pairs)
    for own, center in enumerate(found.centers):
        torch.testing.assert_close(center, CLIPS["kmeans_centers"][match[own]], atol=1e-6, rtol=0)


def test_the_pick_is_balanced():
    per_cluster = int(CLIPS_FACTS["per_cluster"])
    labels = CLIPS["kmeans_labels"]
    picked = pick_balanced(labels, per_cluster, seed=0)
    assert torch.equal(labels[picked].bincount(), labels[CLIPS["selected"]].bincount())


def test_the_filter_filters():
    picked = select_clips(
        CLIPS["layer_mean"], CLIPS["layer_std"] ** 2, CLIPS["corr_token_mean"],
        clusters=3, per_cluster=3, keep_fraction=0.5,
    )  # fmt: skip
    kept = CLIPS["paper_score"].argsort()[: len(CLIPS["category"]) // 2]
    assert set(picked.tolist()) <= set(kept.tolist())
    assert len(picked) == 9
    assert not set(picked.tolist()) & set(CLIPS["paper_score"].argsort()[-9:].tolist())
