"""Quantized networks as files: small, and loaded without their floats."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import everview
from everview.errors import ConfigError, WeightsError
from everview.model.network import build
from everview.model.presets import presets
from everview.quantization import Method, quantize
from everview.quantization.network import quantized_layers
from everview.weights import load as loading


@pytest.fixture(scope="module")
def network():
    tiny = presets["tiny"]
    config = replace(
        tiny, attention="global", track_head=None, point_head=None,
        patch_embed=replace(tiny.patch_embed, depth=1),
        aggregator=replace(tiny.aggregator, depth=2),
        depth_head=replace(tiny.depth_head, intermediate_layer_idx=(0, 0, 1, 1)),
    )  # fmt: skip
    return build(config, seed=1)


@pytest.fixture(scope="module")
def clips():
    return list(torch.rand(4, 2, 3, 56, 56, generator=torch.Generator().manual_seed(5)))


@pytest.mark.parametrize(
    ("scheme", "order"),
    [("w8a8", "smooth_rotate"), ("w4a8", "rotate_smooth"), ("w4a4", "smooth_rotate"),
     ("w8a16", "rotate"), ("w4a16", "smooth_rotate"), ("fp8", "smooth_rotate")],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*only simulated")  # fp8 on a CPU
def test_what_was_saved_is_what_is_loaded(network, clips, scheme, order, tmp_path):
    made = quantize(network, scheme, clips, method=Method(order=order, rotation_width=None))
    folder = everview.save(made, tmp_path / "m")
    found = everview.load(folder, device="cpu")
    assert found.quantization == made.quantization
    for name, value in made.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
    kernels = [m.arithmetic.name for m in quantized_layers(found).values()]
    assert kernels == [m.arithmetic.name for m in quantized_layers(made).values()]
    assert torch.equal(found(clips[0]).depth, made(clips[0]).depth)
    again = everview.save(found, tmp_path / "n")
    first, second = ((f / "weights.safetensors").read_bytes() for f in (folder, again))
    assert first == second


@pytest.mark.parametrize(("scheme", "bytes_per_weight"), [("w8a8", 1.0), ("w4a8", 0.5)])
def test_the_file_has_the_computed_size(network, scheme, bytes_per_weight, tmp_path):
    made = quantize(network, scheme)
    folder = everview.save(made, tmp_path / "m", dtype=torch.float16)
    computed = 0
    for name, layer in quantized_layers(made).items():
        camera = name.startswith("camera_head")
        weights = layer.in_features * layer.out_features
        computed += weights * (1.0 if camera else bytes_per_weight) + 8 * layer.out_features
        computed += 0 if layer.before is None else 4 * layer.in_features
    for parameter in made.parameters():
        computed += (2 if parameter.ndim > 1 else 4) * parameter.numel()
    with safe_open(folder / "weights.safetensors", "pt") as file:
        found = sum(file.get_tensor(k).nbytes for k in file.keys())  # noqa: SIM118
    assert found == pytest.approx(computed, rel=0.02)


def test_float_weights_never_exist_while_loading(network, tmp_path, monkeypatch):
    folder = everview.save(quantize(network, "w4a8"), tmp_path / "m")
    largest = max(m.in_features * m.out_features for m in quantized_layers(
        everview.load(folder, device="cpu")).values())  # fmt: skip
    seen = []
    original = loading._check_values

    def check(name, value, wanted):
        if any(part in name for part in ("attn", "mlp", "poseLN")):
            seen.append(value.numel() if value.is_floating_point() else 0)
        return original(name, value, wanted)

    monkeypatch.setattr(loading, "_check_values", check)
    found = everview.load(folder, device="cpu")
    assert max(seen) < largest / 8
    for layer in quantized_layers(found).values():
        for tensor in (*layer.buffers(), *layer.parameters()):
            assert not tensor.is_floating_point() or tensor.numel() <= 2 * max(
                layer.in_features, layer.out_features
            )


def test_precision_must_fit_what_the_file_holds(network, tmp_path):
    folder = everview.save(quantize(network, "w4a8"), tmp_path / "m")
    assert everview.load(folder, device="cpu", precision="int4").quantization.scheme == "w4a8"
    with pytest.raises(ConfigError, match="quantized as w4a8, which precision='int8' is not"):
        everview.load(folder, device="cpu", precision="int8")
    half = everview.load(folder, device="cpu", precision="bfloat16")
    assert half.precision == torch.bfloat16
    assert half.info.precision == "w4a8 and bfloat16"
    images = torch.rand(2, 3, 56, 56)
    torch.testing.assert_close(
        half(images).depth, everview.load(folder, device="cpu")(images).depth, rtol=0.05, atol=0.05
    )


def test_damage_is_told(network, tmp_path):
    folder = everview.save(quantize(network, "w8a8"), tmp_path / "m")
    content = json.loads((folder / "config.json").read_text())

    def rewritten(**change):
        record = {**content["quantization"], **change}
        (folder / "config.json").write_text(json.dumps({**content, "quantization": record}))
        return folder

    with pytest.raises(WeightsError, match="format 99, this version reads 1"):
        everview.load(rewritten(format=99), device="cpu")
    with pytest.raises(WeightsError, match="surprise"):
        everview.load(rewritten(surprise=1), device="cpu")
    layers = {**content["quantization"]["layers"], "aggregator.nowhere": {}}
    with pytest.raises(WeightsError, match=r"layer 'aggregator.nowhere'"):
        everview.load(rewritten(layers=layers), device="cpu")
    layers = dict(content["quantization"]["layers"])
    del layers["aggregator.frame_blocks.0.mlp.fc1"]
    with pytest.raises(WeightsError, match=r"missing: aggregator.frame_blocks.0.mlp.fc1.weight"):
        everview.load(rewritten(layers=layers), device="cpu")


def test_a_device_that_can_only_simulate_says_so(network, tmp_path, monkeypatch):
    from everview.quantization import arithmetic

    folder = everview.save(quantize(network, "w8a8"), tmp_path / "m")
    monkeypatch.setattr(arithmetic, "has_integer_units", lambda: False)
    with pytest.warns(UserWarning, match="quantized layers are only simulated on cpu"):
        everview.load(folder, device="cpu")


def test_heads_that_are_stored_in_bfloat16_stay_so_and_answer_in_float32(tmp_path):
    whole = build(presets["tiny"], seed=2)
    made = quantize(whole, "w8a8")
    plain, half = (
        everview.load(everview.save(made, tmp_path / name, dtype=dtype), device="cpu")
        for name, dtype in (("float", None), ("half", torch.bfloat16))
    )
    heads = ("depth_head", "point_head", "track_head")
    numbers = [
        sum(p.numel() * p.element_size() for h in heads for p in getattr(n, h).parameters())
        for n in (plain, half)
    ]
    assert numbers[1] < 0.6 * numbers[0]
    matrices = {n: p.dtype for n, p in half.track_head.named_parameters() if n.endswith("weight")}
    norms = {n for n in matrices if "norm" in n}
    assert {matrices[n] for n in matrices.keys() - norms} == {torch.bfloat16}
    image = torch.rand(3, 56, 84, generator=torch.Generator().manual_seed(1))
    found = []
    for network in (plain, half):
        with network.stream() as stream:
            stream.step(image)
            stream.track(torch.tensor([[20.0, 30.0]]))
            found.append(stream.step(image))
    for name in ("depth", "points", "tracks", "pose_encoding"):
        exact, near = getattr(found[0], name), getattr(found[1], name)
        assert near.dtype == torch.float32
        error = (near - exact).abs().mean() / exact.abs().mean()
        assert error < (0.05 if name != "pose_encoding" else 1e-2), name
    again = everview.save(half, tmp_path / "again")
    assert torch.equal(everview.load(again, device="cpu").stream().step(image).depth,
                       half.stream().step(image).depth)  # fmt: skip


def test_8_bit_floats_are_not_taken_for_weights(network, tmp_path):
    folder = everview.save(network, tmp_path / "m")
    stored = load_file(folder / "weights.safetensors")
    name = "aggregator.camera_token"
    save_file(
        {**stored, name: stored[name].to(torch.float8_e4m3fn)}, folder / "weights.safetensors"
    )
    with pytest.raises(WeightsError, match=r"camera_token is stored as torch.float8_e4m3fn"):
        everview.load(folder, device="cpu")
