from dataclasses import replace

import pytest

import everview
from everview.cli.main import main
from everview.training import loop
from everview.training.data import make_batch
from everview.training.recipe import RECIPES


@pytest.fixture
def recipe_file(tmp_path, monkeypatch):
    """A recipe of a few seconds, rendered in this process, which keeps its priority."""
    recipe = replace(
        RECIPES["mini-v0"], preset="tiny", images_per_step=2, clip_lengths=(2, 2), heights=(42,),
        width=56, tracked_points=2,
    )  # fmt: skip
    path = tmp_path / "recipe.json"
    recipe.save(path)
    batch = make_batch(recipe, 0)

    def batches(recipe, first_step):
        while True:
            yield batch

    monkeypatch.setattr(loop, "batches", batches)
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    monkeypatch.setattr(loop, "be_nice", lambda threads: None)
    return str(path)


def test_a_recipe_becomes_a_model_and_tells_how_it_goes(recipe_file, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", recipe_file, "-o", str(out), "--minutes", "0.01"]) == 0
    text = capsys.readouterr().out
    assert "step 1 " in text
    assert "the model is in" in text
    assert everview.load(out / "model", device="cpu").input_size == 56
    assert main(["train", recipe_file, "-o", str(out), "--minutes", "0.01"]) == 2
    assert "--resume" in capsys.readouterr().err


def test_an_unknown_recipe_is_answered_with_the_known_ones(tmp_path, capsys):
    assert main(["train", "maxi", "-o", str(tmp_path / "run")]) == 2
    assert "use mini-v0 or a recipe.json" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
