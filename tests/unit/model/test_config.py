import json

import pytest

from everview.errors import ConfigError
from everview.model.config import Config
from everview.model.network import build
from everview.model.presets import presets


def test_a_config_survives_the_way_through_json():
    for config in presets.values():
        assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_golden_configs_are_read_as_they_are(golden):
    for folder, attention in (("vggt_tiny", "global"), ("streamvggt_tiny", "causal")):
        content = json.loads((golden / folder / "config.json").read_text())
        assert Config.from_dict(content).attention == attention
        del content["attention"]  # then `model` tells
        assert Config.from_dict(content).attention == attention


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("depth_head", "activation", "linear", "must be 'exp' or 'inv_log'"),
        ("point_head", "conf_activation", "expp0", "conf_activation 'expp1'"),
        ("depth_head", "features", 18, "multiples of 4"),
        ("depth_head", "out_channels", [6, 12, 16, 16], "multiples of 4"),
        ("depth_head", "down_ratio", 2, "down_ratio must be 1"),
        ("depth_head", "dim_in", 10, "2 \\* embed_dim = 64"),
        ("depth_head", "intermediate_layer_idx", [0, 1, 2, 9], "within 0..3"),
        ("track_head", "features", 18, "multiple of 4"),
        ("track_head", "num_heads", 3, "cannot be split into 3 heads"),
        ("track_head", "stride", 4, "must equal track_head.stride"),
        ("camera_head", "num_heads", 3, "cannot be split into 3 heads"),
        ("camera_head", "num_iterations", 0, "at least 1"),
        ("patch_embed", "num_heads", 3, "cannot be split into 3 heads"),
        ("patch_embed", "type", "conv", "dinov2_reg"),
        ("patch_embed", "img_size", 57, "multiple of patch_size"),
        ("aggregator", "embed_dim", 40, "must equal aggregator.embed_dim"),
        ("aggregator", "aa_order", ["global", "frame"], "aa_order"),
        ("aggregator", "width", 1, "aggregator has no key 'width'"),
    ],
)
def test_impossible_values_are_refused_by_name(part, key, value, message):
    content = presets["tiny"].to_dict()
    content[part][key] = value
    with pytest.raises(ConfigError, match=message):
        Config.from_dict(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 9}, "format 9 is unknown"),
        ({"colour": 1}, "no key 'colour'"),
    ],
)
def test_an_unknown_key_or_format_is_named(change, message):
    with pytest.raises(ConfigError, match=message):
        Config.from_dict(presets["tiny"].to_dict() | change)


def test_heads_can_be_left_out():
    content = presets["tiny"].to_dict() | {"point_head": None, "track_head": None}
    network = build(content)
    assert network.point_head is None
    assert network.track_head is None
