import json
import subprocess
import sys

import pytest

from everview.cli.models import Models
from everview.model.presets import presets
from everview.weights import catalog
from everview.weights.catalog import CATALOG
from everview.weights.save import save


@pytest.fixture
def bundled(tiny, tmp_path, monkeypatch):
    """A package whose bundled model is a tiny one."""
    save(tiny, tmp_path / "mini")
    monkeypatch.setattr(catalog, "bundled_folder", lambda name: tmp_path / name)
    return tmp_path / "mini" / "weights.safetensors"


@pytest.fixture
def listed(capsys):
    def listed():
        assert Models(json=True).run() == 0
        return {row["source"]: row for row in json.loads(capsys.readouterr().out)["models"]}

    return listed


@pytest.fixture(autouse=True)
def _nothing_downloaded(monkeypatch):
    monkeypatch.setattr("everview.weights.hub.cached", lambda repo, names: None)


def test_every_known_checkpoint_is_listed_with_size_heads_licence_and_commercial_use(capsys):
    assert Models().run() == 0
    text = capsys.readouterr().out
    for checkpoint in CATALOG.values():
        assert checkpoint.source in text
        assert checkpoint.license_url in text
    assert "5.03 GB" in text
    assert "1,256.5 M" in text
    assert "camera depth points tracks" in text
    assert "conditions" in text


def test_json_holds_the_same_facts(listed):
    row = listed()["facebook/VGGT-1B"]
    assert row["license"] == "CC BY-NC 4.0"
    assert row["commercial"] == "no"
    assert row["num_bytes"] == 5_026_150_064
    assert row["local"] is None
    assert row["preset"] in presets


def test_size_of_the_bundled_model_is_that_of_its_file(bundled, listed, tiny):
    row = listed()["mini"]
    assert row["local"] == str(bundled)
    assert row["num_bytes"] == bundled.stat().st_size
    assert row["num_parameters"] == sum(p.numel() for p in tiny.parameters())


def test_a_download_is_found_without_asking_a_server(listed, monkeypatch, tmp_path):
    monkeypatch.setattr("everview.weights.hub.cached", lambda repo, names: tmp_path / names[0])
    assert listed()["lch01/StreamVGGT"]["local"] == str(tmp_path / "checkpoints.pth")


def test_the_table_keeps_its_lines_whole_when_piped(bundled, capsys):
    Models().run()
    assert str(bundled) in capsys.readouterr().out


@pytest.mark.parametrize("module", ["models", "doctor"])
def test_a_verb_is_known_without_loading_torch(module):
    code = f"import sys, everview.cli.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
