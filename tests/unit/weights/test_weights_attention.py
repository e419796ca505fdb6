"""Which attention a file without a config gets."""

import pytest
import torch

from everview.model.network import build
from everview.model.presets import presets
from everview.weights.load import load


def test_a_file_of_a_preset_that_exists_once_needs_no_hint(tmp_path):
    torch.save(build(presets["tiny"], seed=0).state_dict(), tmp_path / "own.pt")
    assert load(tmp_path / "own.pt").config == presets["tiny"]


def test_the_config_may_be_given_as_the_content_of_a_config_file(tmp_path):
    content = presets["tiny"].to_dict() | {"attention": "global"}
    torch.save(build(content, seed=0).state_dict(), tmp_path / "own.pt")
    network = load(tmp_path / "own.pt", config=content)
    assert network.config.attention == "global"


@pytest.mark.parametrize("attention", ["global", "causal"])
def test_the_hint_overrides(tmp_path, attention):
    torch.save(build(presets["tiny"], seed=0).state_dict(), tmp_path / "own.pt")
    assert load(tmp_path / "own.pt", attention=attention).config.attention == attention
