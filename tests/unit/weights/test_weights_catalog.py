import pytest
import torch

from everview.errors import ConfigError
from everview.model.presets import presets
from everview.weights.catalog import CATALOG, bundled_names
from everview.weights.devices import pick_device, pick_dtype
from everview.weights.hub import ID
from everview.weights.load import empty_network


@pytest.mark.parametrize("checkpoint", CATALOG.values(), ids=lambda c: c.source)
def test_each_entry_tells_what_a_user_must_know(checkpoint):
    assert checkpoint.license
    assert checkpoint.license_url.startswith("https://")
    assert checkpoint.files
    assert checkpoint.verified
    assert checkpoint.preset in presets
    assert checkpoint.bundled or ID.fullmatch(checkpoint.source)


@pytest.mark.parametrize("source", ["facebook/VGGT-1B", "lch01/StreamVGGT"])
def test_published_sizes_are_those_of_the_network(source):
    network = empty_network(presets[CATALOG[source].preset])
    assert CATALOG[source].num_parameters == sum(p.numel() for p in network.parameters())
    assert CATALOG[source].num_bytes == 4 * 1_256_537_516
    assert CATALOG[source].commercial == "no"


def test_what_ships_inside_may_be_used_commercially():
    assert bundled_names() == ("mini",)
    assert all(CATALOG[name].commercial == "yes" for name in bundled_names())


def test_auto_is_the_best_device_here_and_float32_on_a_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("cuda")
    assert pick_dtype("auto", torch.device("cpu")) == torch.float32
    assert pick_dtype("auto", torch.device("mps")) == torch.float32


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((9, 0), torch.bfloat16), ((8, 0), torch.bfloat16), ((7, 5), torch.half)],
)
def test_auto_on_cuda_is_what_the_card_really_has(capability, dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert pick_dtype("auto", torch.device("cuda")) == dtype
    assert pick_dtype("float32", torch.device("cuda")) == torch.float32


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "mps", "cpu0"])
def test_a_device_that_is_not_here_says_what_to_use(device, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=rf"device '{device}'.*(--device cpu|use auto, cpu)"):
        pick_device(device)


def test_an_unknown_precision_lists_the_known_ones():
    with pytest.raises(ConfigError, match="'fp32' is unknown; use auto, float32, bfloat16"):
        pick_dtype("fp32", torch.device("cpu"))
