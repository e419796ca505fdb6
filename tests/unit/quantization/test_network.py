"""Whole networks: folding changes nothing, streaming equals batch, bad input is told."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from everview.errors import ConfigError, InputError
from everview.model.network import build
from everview.model.presets import presets
from everview.quantization import METHODS, Method, kernels_used, learning, quantize
from everview.quantization.calibration import check_clips
from everview.quantization.folding import PreparedLinear
from everview.quantization.learning import make_learnable, record, replay
from everview.quantization.network import _prepare, execute, quantized_layers
from everview.quantization.sites import choose_specs, find_sites, replace_linear
from everview.quantization.spec import parse_scheme

SCHEMES = ("w8a8", "w4a8", "w4a4", "w8a16", "w4a16", "fp8")


def awake(network):
    """Values everywhere, so that every branch and every factor has a say."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in network.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("gamma"):
            parameter.data.copy_(0.5 + 0.1 * noise)
        elif parameter.ndim == 1:
            parameter.data.add_(0.1 * noise)
    return network


def make(attention):
    tiny = presets["tiny"]
    config = replace(
        tiny, attention=attention, track_head=None, point_head=None,
        patch_embed=replace(tiny.patch_embed, depth=1),
        aggregator=replace(tiny.aggregator, depth=2),
        depth_head=replace(tiny.depth_head, intermediate_layer_idx=(0, 0, 1, 1)),
    )  # fmt: skip
    return awake(build(config, seed=1))


@pytest.fixture(scope="module")
def network():
    return make("causal")


@pytest.fixture(scope="module", params=["global", "causal"])
def either(request):
    """Both networks, where the difference can matter."""
    return make(request.param)


@pytest.fixture(scope="module")
def clips():
    return list(torch.rand(4, 3, 3, 56, 84, generator=torch.Generator().manual_seed(5)))


def outputs(network, images):
    """Tokens of the last layer and poses, each of norm 1."""
    with torch.no_grad():
        tokens = network.aggregator(images[None])[network.config.aggregator.depth - 1]
        poses = network.camera_head(tokens[:, :, 0])
    return torch.cat([tokens.flatten() / tokens.norm(), poses.flatten() / poses.norm()])


def distance(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    "method",
    [
        Method(),
        Method(order="rotate", rotation_width=None),
        Method(order="rotate_smooth", rotation_width=None),
        Method(order="rotate_smooth", stat="unrotated", rotation_width=8),
        Method(order="smooth", with_special_tokens=True),
        Method(order="none"),
    ],
    ids=lambda m: f"{m.order} {m.rotation_width}",
)
def test_folding_changes_nothing(either, clips, method):
    exact = copy.deepcopy(either).double()
    expected = outputs(exact, clips[0].double())
    sites = find_sites(exact)
    checked = check_clips(exact, clips)
    _prepare(exact, sites, checked, method, lambda *_: None)
    prepared = [m for m in exact.modules() if isinstance(m, PreparedLinear)]
    assert len(prepared) == len(sites)
    torch.testing.assert_close(outputs(exact, clips[0].double()), expected, rtol=1e-9, atol=1e-9)


def test_only_the_hadamard_product_and_one_vector_stay_online(network, clips):
    made = quantize(network, "w8a8", clips, method="everview-nearest")
    for name, layer in quantized_layers(made).items():
        if name.endswith("proj"):
            assert (layer.block, layer.before, layer.after) == (None, None, None), name
        elif name.endswith(("fc2", "modulation.1")):
            assert layer.before is not None, name
            assert layer.block > 1, name
        else:
            assert layer.before is None, name
            assert layer.block > 1, name
    for block in (*made.aggregator.frame_blocks, *made.aggregator.global_blocks):
        assert (block.ls1.gamma == 1).all()


def test_every_projection_is_covered_and_dense_heads_are_not(network, clips):
    made = quantize(network, "w4a8", clips, method="quarot")
    left = {n for n, m in made.named_modules() if isinstance(m, nn.Linear)}
    assert {n for n in left if not n.startswith("depth_head")} == {
        "camera_head.embed_pose", "camera_head.pose_branch.fc2",
    }  # fmt: skip
    for name, layer in quantized_layers(made).items():
        bits = 8 if name.startswith("camera_head") else 4
        assert layer.spec.weight_bits == bits, name
    heads = zip(network.depth_head.parameters(), made.depth_head.parameters(), strict=True)
    assert all(torch.equal(before, after) for before, after in heads)


@pytest.mark.parametrize("method", [m for m in METHODS if not METHODS[m].learning_steps])
def test_every_method_makes_a_usable_network(network, clips, method):
    before = outputs(network, clips[0])
    made = quantize(network, "w8a8", clips, method=method)
    assert distance(outputs(made, clips[0]), before) < 0.01
    assert torch.equal(outputs(network, clips[0]), before), "the float network is untouched"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_works_without_calibration(either, clips, scheme):
    made = quantize(either, scheme)
    error = distance(outputs(made, clips[0]), outputs(either, clips[0]))
    assert 1e-3 < error < {"w8a8": 0.01, "w8a16": 0.01, "fp8": 0.05}.get(scheme, 0.15)
    assert made.quantization.scheme == scheme
    assert sum(e["layers"] for e in kernels_used(made).values()) == len(find_sites(either))


@pytest.mark.parametrize(
    ("scheme", "arithmetic"),
    [
        ("w8a8", None),
        ("w4a4", None),
        ("w4a16", None),
        ("w8a8", "reference"),
        ("w4a4", "reference"),
        ("fp8", None),
    ],
)
def test_streaming_equals_batch(clips, scheme, arithmetic):
    """In float64, where no level sits on the edge of two."""
    made = quantize(make("causal"), scheme, clips, method="everview-nearest").double()
    if arithmetic is not None:
        execute(made, arithmetic)
    images = torch.rand(1, 5, 3, 56, 84, dtype=torch.float64)
    batch = made(images)
    with made.stream("full") as stream:
        frames = [stream.step(images[0, i]) for i in range(5)]
    for field in ("depth", "pose_encoding"):
        streamed = torch.cat([getattr(frame, field) for frame in frames], dim=1)
        torch.testing.assert_close(streamed, getattr(batch, field), rtol=1e-7, atol=1e-7)


def test_two_streams_do_not_influence_each_other(clips):
    made = quantize(make("causal"), "w8a8", clips, method="everview-nearest").double()
    one, two = torch.rand(2, 3, 3, 56, 84, dtype=torch.float64)
    two *= 0.01

    def run(*pairs):
        streams = [made.stream("full") for _ in pairs]
        return [
            torch.cat([s.step(images[i]).depth for i in range(3)]) if len(pairs) == 1 else s
            for s, images in zip(streams, pairs, strict=True)
        ]

    alone = run(one)[0]
    first, second = run(one, two)
    found = []
    for i in range(3):
        found.append(first.step(one[i]).depth)
        second.step(two[i])
    assert torch.equal(torch.cat(found), alone)


def test_integers_give_what_the_reference_gives(either, clips):
    made = quantize(either, "w8a8", clips, method="everview-nearest")
    fast = outputs(made, clips[1])
    assert "reference" not in kernels_used(made)
    plain = outputs(execute(made, "reference"), clips[1])
    assert set(kernels_used(made)) == {"reference"}
    quantization_error = distance(fast, outputs(either, clips[1]))
    assert distance(fast, plain) < 0.1 * quantization_error


def test_a_shuffled_network_would_be_noticed(network, clips):
    made = quantize(network, "w8a8", clips, method="everview-nearest")
    layer = execute(made, "reference").aggregator.frame_blocks[1].mlp.fc1
    layer.step = layer.step[torch.randperm(len(layer.step))]
    assert distance(outputs(made, clips[0]), outputs(network, clips[0])) > 0.02


def test_second_order_rounding_has_the_smaller_error(network, clips):
    expected = outputs(network, clips[3])
    errors = {
        m: distance(outputs(quantize(network, "w4a8", clips, method=m), clips[3]), expected)
        for m in ("everview-search", "everview")
    }
    assert errors["everview"] < errors["everview-search"]


def test_patterns_keep_layers_in_floats_or_other_bits(network, clips):
    keep = {"aggregator.frame_blocks.1.*": "float", "*.mlp.fc1": "w8a8"}
    made = quantize(network, "w4a4", clips, method="everview-nearest", keep=keep)
    layers = quantized_layers(made)
    assert "aggregator.frame_blocks.1.attn.qkv" not in layers
    assert layers["aggregator.frame_blocks.0.mlp.fc1"].spec == parse_scheme("w8a8")
    assert layers["aggregator.frame_blocks.0.mlp.fc2"].spec == parse_scheme("w4a4")
    with pytest.raises(ConfigError, match=r"'nothing\*' fits no layer.*aggregator"):
        choose_specs(network, find_sites(network), parse_scheme("w8a8"), {"nothing*": "float"})


def test_bad_calibration_is_told(network, clips):
    with pytest.raises(ConfigError, match="3 calibration clips are too few"):
        quantize(network, "w8a8", clips[:3])
    with pytest.raises(ConfigError, match=r"clip 3 has shape .2, 3, 56, 84., clip 0 .3,"):
        quantize(network, "w8a8", [*clips[:3], clips[3][:2]])
    with pytest.raises(ConfigError, match="calibration clip 2: images must be"):
        quantize(network, "w8a8", [*clips[:2], torch.rand(3, 3, 50, 84), clips[3]])
    with pytest.raises(InputError, match="clip 1 has values that are not finite"):
        quantize(network, "w8a8", [clips[0], clips[1] * torch.nan, *clips[2:]])
    with pytest.raises(ConfigError, match="needs calibration clips"):
        quantize(network, "w8a8", method="smoothquant")
    with pytest.raises(ConfigError, match="'magic' is unknown; use nearest"):
        quantize(network, "w8a8", clips, method="magic")


def test_activations_that_overflow_are_told_with_layer_and_clip(network, clips):
    broken = copy.deepcopy(network)
    broken.aggregator.frame_blocks[1].norm2.bias.data[3] = torch.inf
    with pytest.raises(InputError, match=r"aggregator.frame_blocks.1.mlp.fc1, calibration clip 0"):
        quantize(broken, "w8a8", clips)


def test_clips_may_be_named(network):
    made = quantize(network, "w8a8", "procedural", method="everview-nearest")
    assert made.quantization.num_clips == 12
    with pytest.raises(InputError, match="/nowhere"):
        quantize(network, "w8a8", "/nowhere")


def test_a_quantized_network_is_not_quantized_again(network, clips):
    with pytest.raises(ConfigError, match=r"quantized already .w8a8."):
        quantize(quantize(network, "w8a8"), "w4a8")


def test_the_same_seed_gives_the_same_integers(network, clips):
    one, two, other = (
        quantize(network, "w4a8", clips, method=replace(METHODS["everview-nearest"], seed=seed))
        for seed in (0, 0, 1)
    )
    for name, layer in quantized_layers(one).items():
        assert torch.equal(layer.weight_levels(), quantized_layers(two)[name].weight_levels())
    name = "aggregator.frame_blocks.0.attn.qkv"
    assert not torch.equal(
        quantized_layers(one)[name].weight_levels(), quantized_layers(other)[name].weight_levels()
    )


@pytest.mark.parametrize("order", ["smooth_rotate", "rotate_smooth"])
def test_learning_makes_a_blocks_error_smaller(network, clips, order):
    prepared = copy.deepcopy(network).requires_grad_(False)
    checked, sites = check_clips(prepared, clips), find_sites(prepared)
    _prepare(prepared, sites, checked, Method(order=order), lambda *_: None)
    block = "aggregator.global_blocks.0"
    chosen = [site for site in sites if site.block == block]
    calls = record(prepared, block, checked)
    specs = choose_specs(prepared, chosen, parse_scheme("w4a4"), {})
    layers = make_learnable(prepared, chosen, specs, is_smoothing_last=order == "rotate_smooth")
    lesson = learning.learn_block(prepared, block, layers, calls, steps=12)
    assert lesson.is_kept
    assert lesson.after < 0.99 * lesson.before
    norm = prepared.aggregator.global_blocks[0].norm2
    before = norm.weight.clone()
    exact = replay(prepared.get_submodule(block), calls[0][0]).detach()
    for site in chosen:
        layer = layers[site.name].quantized(site, second_order=False).execute_with()
        replace_linear(prepared, site.name, layer)
    found = replay(prepared.get_submodule(block), calls[0][0]).detach()
    assert distance(found, exact) < 0.02, "integers say what was learnt"
    assert torch.equal(norm.weight, before) == (order == "rotate_smooth"), "folded where it can be"


@pytest.mark.slow
@pytest.mark.parametrize("propagate", ["float", "quantized"])
def test_learning_makes_the_networks_error_smaller(clips, propagate):
    network = make("causal")
    plain = Method(rounding="nearest", propagate=propagate)
    learnt = replace(plain, learning_steps=80)
    expected = [outputs(network, clip) for clip in clips]

    def error(method):
        made = quantize(network, "w4a4", clips, method=method)
        return sum(distance(outputs(made, c), e) for c, e in zip(clips, expected, strict=True))

    assert error(learnt) < error(plain)


@pytest.mark.parametrize("order", ["smooth_rotate", "rotate_smooth"])
def test_learnable_factors_leave_the_function_as_it_is(network, clips, order, monkeypatch):
    """Without rounding and clipping, in float64: whatever is learnt is undone by the weight."""
    monkeypatch.setattr(learning, "on_grid", lambda x, steps, grid: x)
    exact = copy.deepcopy(network).double()
    images = clips[0].double()
    expected = outputs(exact, images)
    sites = find_sites(exact)
    _prepare(exact, sites, check_clips(exact, clips), Method(order=order), lambda *_: None)
    specs = choose_specs(exact, sites, parse_scheme("w8a8"), {})
    layers = make_learnable(exact, sites, specs, is_smoothing_last=order == "rotate_smooth")
    for layer in layers.values():
        layer.clip_weight.data.fill_(50)
        layer.clip_tokens.data.fill_(50)
        if layer.log_factors is not None:
            layer.log_factors.data.normal_()
    torch.testing.assert_close(outputs(exact, images), expected, rtol=1e-9, atol=1e-9)


def test_global_blocks_are_calibrated_with_attention_across_frames(either, clips):
    calls = record(either, "aggregator.global_blocks.1", check_clips(either, clips[:4]))
    tokens = calls[0][0].arguments[0]
    frames, patches = len(clips[0]), (56 // 14) * (84 // 14) + 5
    assert tokens.shape == (1, frames * patches, 32)
    assert {c.method for c in calls[0]} == {
        "causal" if either.config.attention == "causal" else "forward"
    }
    again = replay(either.get_submodule("aggregator.global_blocks.1"), calls[0][0])
    torch.testing.assert_close(again, calls[0][0].output)
