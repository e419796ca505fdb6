import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file

import everview
from everview.errors import ConfigError, WeightsError
from everview.model.config import Config
from everview.model.presets import presets
from everview.quantization import arithmetic
from everview.weights import sources
from everview.weights.load import empty_network, load
from everview.weights.save import save


@pytest.fixture
def weights(tiny):
    return {name: value.clone() for name, value in tiny.state_dict().items()}


@pytest.fixture
def folder(tiny, tmp_path):
    return save(tiny, tmp_path / "model")


def shard(weights, folder):
    """Spread parameters over two files with an index."""
    names = sorted(weights)
    parts = {"m-1.safetensors": names[::2], "m-2.safetensors": names[1::2]}
    folder.mkdir()
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / file)
    weight_map = {name: file for file, part in parts.items() for name in part}
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def write_torch(weights, folder):
    folder.mkdir()
    torch.save({"model": {f"module.{k}": v for k, v in weights.items()}}, folder / "model.pt")
    return folder / "model.pt"


def write_plain(weights, folder):
    folder.mkdir()
    torch.save(weights, folder / "checkpoints.pth")
    return folder


def write_safetensors(weights, folder):
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    return folder / "model.safetensors"


@pytest.mark.parametrize("write", [shard, write_torch, write_plain, write_safetensors])
def test_every_form_of_file_gives_the_same_predictions(write, weights, tiny, clip, tmp_path):
    source = write(weights, tmp_path / "streamvggt")
    if write is shard:
        source = str(source)
    network = load(source, device="cpu")
    torch.testing.assert_close(network(clip).depth, tiny(clip).depth, rtol=0, atol=0)
    assert network.config == tiny.config
    assert not network.training


def test_a_saved_folder_comes_back_with_weights_config_and_info(folder, tiny):
    network = load(folder, device="cpu")
    for name, value in tiny.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], value, rtol=0, atol=0)
    assert network.config == tiny.config
    assert network.info.name == "model"
    assert network.info.files == ("weights.safetensors",)
    assert network.info.heads == ("camera", "depth", "points", "tracks")
    assert network.info.num_parameters == sum(p.numel() for p in tiny.parameters())


@pytest.mark.parametrize("model", ["vggt_tiny", "streamvggt_tiny"])
def test_golden_folders_load_by_their_config(model, golden):
    network = everview.load(golden / model, device="cpu")
    assert network.config.attention == ("global" if model == "vggt_tiny" else "causal")
    assert network.aggregator.camera_token.dtype == torch.float32  # the file holds float16


def test_a_network_is_made_of_its_own_memory_and_outlives_its_files(folder, tiny, clip):
    network = load(folder, device="cpu")
    (folder / "weights.safetensors").write_bytes(b"")
    torch.testing.assert_close(network(clip).depth, tiny(clip).depth, rtol=0, atol=0)


def test_nothing_is_initialised_before_it_is_filled(folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a random value was drawn")

    monkeypatch.setattr("everview.model.network.initialise", refuse)
    assert all(parameter.is_meta for parameter in empty_network(presets["tiny"]).parameters())
    load(folder, device="cpu")


def test_a_loaded_network_can_be_trained_further(folder, clip):
    network = load(folder, device="cpu")
    network.predict(clip[:, :2]).depth.mean().backward()
    assert network.aggregator.camera_token.grad is not None
    assert not network.aggregator.patch_embed.mask_token.requires_grad


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_keeps_projections_small_and_heads_exact(precision, folder, tiny):
    network = load(folder, device="cpu", precision=precision)
    dtype = getattr(torch, precision)
    expected = tiny.aggregator.frame_blocks[0].attn.qkv.weight.to(dtype)
    found = network.aggregator.frame_blocks[0].attn.qkv.weight
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert {p.dtype for p in network.depth_head.parameters()} == {torch.float32}
    assert network.aggregator.camera_token.dtype == torch.float32
    assert network.info.precision == precision


def test_lower_precision_predicts_nearly_the_same(folder, tiny, clip):
    network = load(folder, device="cpu", precision="bfloat16")
    torch.testing.assert_close(network(clip).depth, tiny(clip).depth, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_model_of_floats_is_quantized_while_loading(precision, folder, tiny, clip):
    network = load(folder, device="cpu", precision=precision)
    assert network.info.precision == {"int8": "w8a8", "int4": "w4a8"}[precision] + " and float32"
    assert network.info.num_parameters == sum(p.numel() for p in tiny.parameters())
    error = (network(clip).depth - tiny(clip).depth).norm() / tiny(clip).depth.norm()
    assert error < {"int8": 0.05, "int4": 0.3}[precision]


def test_without_integer_units_int8_is_refused(folder, monkeypatch):
    monkeypatch.setattr(arithmetic, "has_integer_units", lambda: False)
    with pytest.raises(ConfigError, match=r"w8a8 can only be simulated on cpu.*bfloat16"):
        load(folder, device="cpu", precision="int8")


def test_missing_unexpected_and_misshaped_names_are_all_told(weights, tmp_path):
    weights["aggregator.extra"] = weights.pop("aggregator.register_token")
    weights["camera_head.token_norm.weight"] = torch.zeros(3)
    path = write_safetensors(weights, tmp_path / "streamvggt")
    with pytest.raises(WeightsError) as caught:
        load(path, device="cpu")
    message = str(caught.value)
    assert "1 missing: aggregator.register_token" in message
    assert "1 unexpected: aggregator.extra" in message
    assert "camera_head.token_norm.weight is (3,), expected (64,)" in message
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("kept", ["all", "aggregator"])
def test_a_file_of_quantized_layers_without_its_config_is_told(weights, tmp_path, kept):
    """Such as QuantVGGT's: parameters beside the weights of layers, or without them."""
    name = "aggregator.frame_blocks.0.attn.qkv"
    weights[f"{name}.rotation"] = torch.eye(4)
    if kept == "aggregator":
        weights = {f"{name}.rotation": torch.eye(4), f"{name}.factors": torch.ones(4)}
    path = write_safetensors(weights, tmp_path / "streamvggt")
    with pytest.raises(WeightsError, match=rf"'{name}\.\w+' belongs to a quantized.*QuantVGGT"):
        load(path, device="cpu")


def test_a_long_list_of_misfits_is_cut_short(folder, golden):
    (folder / "config.json").write_text((golden / "vggt_tiny" / "config.json").read_text())
    with pytest.raises(WeightsError, match=r"missing: ([\w.]+, ){4}[\w.]+ \.\.\.;"):
        load(folder, device="cpu")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_counted_by_name(bad, weights, tmp_path):
    weights["camera_head.token_norm.weight"][:2] = bad
    path = write_safetensors(weights, tmp_path / "streamvggt")
    with pytest.raises(WeightsError, match=r"camera_head\.token_norm\.weight holds 2 values"):
        load(path, device="cpu")


def test_large_values_whose_sum_overflows_are_fine(weights, tmp_path):
    weights["camera_head.token_norm.weight"][:] = 1e38
    load(write_safetensors(weights, tmp_path / "streamvggt"), device="cpu")


def test_integers_are_no_weights(weights, tmp_path):
    weights["camera_head.token_norm.weight"] = torch.ones(64, dtype=torch.int8)
    path = write_safetensors(weights, tmp_path / "streamvggt")
    with pytest.raises(WeightsError, match=r"token_norm\.weight is stored as torch\.int8"):
        load(path, device="cpu")


def test_a_cut_file_is_refused_before_anything_is_built(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match=r"weights\.safetensors is cut off"):
        load(folder, device="cpu")


def test_a_missing_shard_is_named(weights, tmp_path):
    folder = shard(weights, tmp_path / "streamvggt")
    (folder / "m-2.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"m-2\.safetensors is missing: .* over 2 files"):
        load(folder, device="cpu")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{}", "no index of shards"),
        ("no json", "no index of shards"),
        ('{"weight_map": {"a": "../secret.safetensors"}}', "must be a file name without a folder"),
    ],
)
def test_a_broken_index_is_refused(index, message, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(WeightsError, match=message):
        load(tmp_path, device="cpu")


def test_a_folder_without_weights_says_what_was_looked_for(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(WeightsError, match=r"looked for weights\.safetensors.*it has notes\.txt"):
        load(tmp_path, device="cpu")


def test_an_unreadable_ending_lists_the_readable_ones(tmp_path):
    (tmp_path / "model.onnx").touch()
    with pytest.raises(WeightsError, match=r"ends in '\.onnx'; readable are \.safetensors"):
        load(tmp_path / "model.onnx", device="cpu")


@pytest.mark.parametrize(
    "source", ["no-such-model", "ckpt/model.pt", "./a/b", "runs/x.safetensors"]
)
def test_an_unknown_source_says_what_exists_and_asks_no_server(source, monkeypatch):
    monkeypatch.setattr(sources.hub, "fetch", None)
    with pytest.raises(WeightsError, match=rf"no model '{source}'.* bundled ones are mini.*models"):
        load(source, device="cpu")


def test_a_path_may_begin_at_home(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load("~/model", device="cpu").info.name == "model"


def test_a_folder_that_does_not_exist_is_no_id_when_it_ends_in_a_slash(monkeypatch):
    monkeypatch.setattr(sources.hub, "fetch", None)
    with pytest.raises(WeightsError, match="no model 'runs/teacher/'"):
        load("runs/teacher/", device="cpu")


def test_a_revision_of_a_local_file_is_refused(folder):
    with pytest.raises(ConfigError, match="revision 'v2' only goes with a Hugging Face id"):
        load(folder, device="cpu", revision="v2")


@pytest.mark.parametrize("repo", ["lch01/StreamVGGT", "facebook/VGGT-1B"])
def test_a_known_id_brings_its_licence_and_its_network(repo, weights, tmp_path, monkeypatch):
    asked = []

    def fetch(repo, names, revision):
        asked.append((repo, names, revision))
        return write_torch(weights, tmp_path / "cache")

    monkeypatch.setattr(sources.hub, "fetch", fetch)
    name = "streamvggt-1b" if "Stream" in repo else "vggt-1b"
    small = dataclasses.replace(presets["tiny"], attention=presets[name].attention)
    monkeypatch.setattr("everview.weights.architecture.presets", {name: small})
    network = load(repo, device="cpu", revision="v1")
    assert asked == [(repo, sources.CATALOG[repo].files, "v1")]
    assert network.info.commercial == "no"
    assert "CC BY-NC 4.0" in network.info.license
    assert network.info.revision == "v1"
    assert network.config.attention == ("causal" if "Stream" in repo else "global")


def test_an_unknown_id_is_fetched_with_its_description(folder, monkeypatch):
    asked = []

    def fetch(repo, names, revision):
        asked.append(names)
        if names == ["config.json"]:
            return folder / "config.json"
        return folder / "weights.safetensors"

    monkeypatch.setattr(sources.hub, "fetch", fetch)
    network = load("someone/else", device="cpu")
    assert network.config == presets["tiny"]
    assert "unknown" in network.info.license
    assert ["config.json"] in asked


def test_a_given_config_describes_a_network_of_unknown_size(golden, tmp_path):
    source = tmp_path / "model.safetensors"
    source.write_bytes((golden / "vggt_tiny" / "weights.safetensors").read_bytes())
    with pytest.raises(WeightsError, match=r"64 channels, 3 encoder blocks, 4 pairs .*config"):
        load(source, device="cpu")
    config = Config.from_dict(json.loads((golden / "vggt_tiny" / "config.json").read_text()))
    network = load(source, device="cpu", config=config, attention="causal")
    assert network.config == dataclasses.replace(config, attention="causal")
