import dataclasses
import json
import warnings

import pytest

from everview.errors import ConfigError, WeightsError
from everview.model.config import Config
from everview.model.presets import presets
from everview.weights.architecture import config_of, heads_of, read_config
from everview.weights.load import empty_network
from everview.weights.sources import Source


def shapes_of(config):
    return {k: tuple(v.shape) for k, v in empty_network(config).state_dict().items()}


def source_of(path):
    return Source(name=path.name, path=path)


@pytest.fixture(scope="module")
def official():
    return shapes_of(presets["vggt-1b"])


@pytest.mark.parametrize(
    ("listed", "file", "preset"),
    [
        ("vggt_1b", "model.pt", "vggt-1b"),
        ("streamvggt", "checkpoints.pth", "streamvggt-1b"),
    ],
)
def test_the_published_names_and_shapes_tell_the_published_size(
    listed, file, preset, golden, tmp_path
):
    lines = (golden / f"state_dict_{listed}.txt").read_text().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    shapes = {name: tuple(json.loads(shape)) for name, shape, _ in rows}
    assert config_of(source_of(tmp_path / file), shapes) == presets[preset]


@pytest.mark.parametrize(
    ("path", "attention"),
    [
        ("ckpt/model.pt", "global"),
        ("ckpt/model.safetensors", "global"),
        ("ckpt/checkpoints.pth", "causal"),
        ("ckpt/my_stream_student.pt", "causal"),
        ("StreamVGGT/model.safetensors", "causal"),
        ("upstream/model.safetensors", "global"),
    ],
)
def test_attention_is_told_from_names_without_a_warning(path, attention, official, tmp_path):
    assert config_of(source_of(tmp_path / path), official).attention == attention


def test_attention_that_no_name_tells_is_global_with_a_warning(official, tmp_path):
    with pytest.warns(UserWarning, match='does not say .* taking "global".*attention="causal"'):
        config = config_of(source_of(tmp_path / "mine.pt"), official)
    assert config.attention == "global"


def test_an_asked_for_attention_wins(official, tmp_path):
    path = tmp_path / "model.pt"
    assert config_of(source_of(path), official, attention="causal").attention == "causal"
    (tmp_path / "config.json").write_text(json.dumps(presets["tiny"].to_dict()))
    assert config_of(source_of(path), {}, attention="global").attention == "global"


def test_heads_of_which_nothing_exists_are_left_out_with_a_warning(official, tmp_path):
    kept = {k: v for k, v in official.items() if not k.startswith(("point_head", "track_head"))}
    with pytest.warns(UserWarning, match="no point_head and no track_head.*points, tracks"):
        config = config_of(source_of(tmp_path / "model.pt"), kept)
    assert heads_of(config) == ("camera", "depth")
    assert shapes_of(config) == kept


def test_a_head_of_which_a_part_exists_is_not_left_out(official, tmp_path):
    kept = {k: v for k, v in official.items() if not k.startswith("point_head.scratch")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert config_of(source_of(tmp_path / "model.pt"), kept) == presets["vggt-1b"]


def test_names_of_another_kind_of_network_are_told(tmp_path):
    with pytest.raises(
        WeightsError, match=r"lacks 'aggregator\.camera_token' and has 'conv1\.weight'"
    ):
        config_of(source_of(tmp_path / "resnet.pt"), {"conv1.weight": (64, 3, 7, 7)})


def test_a_config_beside_the_file_describes_it(tmp_path):
    config = dataclasses.replace(presets["tiny"], attention="global", track_head=None)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert config_of(source_of(tmp_path / "x.pt"), {}) == config
    assert config_of(source_of(tmp_path), {}) == config
    assert heads_of(config) == ("camera", "depth", "points")


def test_a_config_of_another_schema_says_nothing(official, tmp_path):
    published = {"embed_dim": 1024, "img_size": 518, "patch_size": 14}
    (tmp_path / "config.json").write_text(json.dumps(published))
    assert read_config(tmp_path / "config.json") is None
    assert config_of(source_of(tmp_path / "model.pt"), official) == presets["vggt-1b"]


def test_an_unknown_format_of_config_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**Config().to_dict(), "format": 99}))
    with pytest.raises(ConfigError, match="config format 99 is unknown"):
        read_config(tmp_path / "config.json")


@pytest.mark.parametrize(("text", "message"), [("{", "is no JSON"), ("[1]", "not a list")])
def test_a_config_that_is_no_json_object_is_refused(text, message, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=message):
        read_config(tmp_path / "config.json")
