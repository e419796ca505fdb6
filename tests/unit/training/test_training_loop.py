import json
from dataclasses import replace

import pytest
import torch

import everview
from everview.errors import ConfigError, InputError
from everview.training import loop
from everview.training.data import make_batch
from everview.training.loop import Trainer, learning_rate
from everview.training.recipe import RECIPES, TrainingRecipe

RECIPE = TrainingRecipe(
    preset="tiny", minutes=0.03, images_per_step=4, clip_lengths=(2, 4), heights=(42,), width=56,
    tracked_points=4, track_every=2, warm_up_steps=3, learning_rate=3e-3, checkpoint_minutes=0.0,
)  # fmt: skip


@pytest.fixture
def in_process(monkeypatch):
    """Batches without a process of their own, and a line in the log for every step."""

    def batches(recipe, first_step):
        step = first_step
        while True:
            yield make_batch(recipe, step)
            step += 1

    monkeypatch.setattr(loop, "batches", batches)
    monkeypatch.setattr(loop, "LOG_EVERY", 1)


@pytest.fixture(scope="module")
def batch():
    return make_batch(RECIPE, 0)


def _advance(trainer, batch, steps):
    losses = []
    for _ in range(steps):
        losses.append(trainer._step(batch, 0.0))
        trainer.progress.step += 1
    return losses


def test_a_batch_is_a_function_of_the_step(batch):
    again, other = make_batch(RECIPE, 0).tensors(), make_batch(RECIPE, 1).tensors()
    for name, value in batch.tensors().items():
        assert torch.equal(value, again[name]), name
    assert batch.images.shape != other["images"].shape or not torch.equal(
        batch.images, other["images"]
    )


def test_a_batch_is_in_units_of_its_scene(batch):
    distance = batch.points.norm(dim=-1).mean(dim=(1, 2, 3))
    torch.testing.assert_close(distance, torch.ones_like(distance), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(batch.points[:, 0, ..., 2], batch.depth[:, 0])
    still = torch.tensor([0, 0, 0, 0, 0, 0, 1.0]).expand_as(batch.pose_encoding[:, 0, :7])
    torch.testing.assert_close(batch.pose_encoding[:, 0, :7], still)
    assert batch.visible[:, 0].all()
    torch.testing.assert_close(batch.tracks[:, 0], batch.queries, rtol=0, atol=1e-3)


def test_some_steps_on_one_batch_lower_the_loss(tmp_path, batch):
    losses = _advance(Trainer(RECIPE, tmp_path / "run"), batch, 12)
    first, last = (sum(step["total"] for step in part) for part in (losses[:4], losses[-4:]))
    assert last < 0.7 * first
    assert {"camera", "depth", "points", "tracks", "rotation"} <= losses[0].keys()
    assert losses[0]["gradient"] > 0


@pytest.mark.usefixtures("in_process")
def test_a_run_leaves_a_model_that_loads_and_a_log_of_every_loss(tmp_path):
    folder = tmp_path / "run"
    seen = list(Trainer(RECIPE, folder).run())
    logged = [json.loads(line) for line in (folder / loop.LOSSES).read_text().splitlines()]
    assert [line["step"] for line in logged] == list(range(1, len(seen) + 1))
    assert logged[-1]["total"] == seen[-1]["total"]
    assert 60 * RECIPE.minutes <= logged[-1]["seconds"] < 60
    network = everview.load(folder / loop.MODEL, device="cpu")
    assert network.config == everview.presets["tiny"]
    assert TrainingRecipe.read(folder / loop.RECIPE) == RECIPE


@pytest.mark.usefixtures("in_process")
def test_a_killed_run_goes_on_at_the_stored_step(tmp_path):
    recipe = replace(RECIPE, minutes=10.0)
    folder = tmp_path / "run"
    killed = Trainer(recipe, folder).run()
    for _ in range(4):
        next(killed)
    killed.close()  # while a checkpoint of step 3 lies there
    resumed = Trainer(recipe, folder, resume=True)
    assert resumed.progress.step == 3
    assert 0 < resumed.progress.seconds < 60
    next(resumed.run())
    steps = [json.loads(line)["step"] for line in (folder / loop.LOSSES).read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 4]


def test_a_resumed_run_does_what_the_uninterrupted_one_does(tmp_path, batch):
    whole = Trainer(RECIPE, tmp_path / "whole")
    _advance(whole, batch, 2)
    halves = Trainer(RECIPE, tmp_path / "halves")
    _advance(halves, batch, 1)
    halves.write_checkpoint()
    resumed = Trainer(RECIPE, tmp_path / "halves", resume=True)
    _advance(resumed, batch, 1)
    for name in ("network", "average"):
        theirs = getattr(whole, name).state_dict()
        for key, value in getattr(resumed, name).state_dict().items():
            assert torch.equal(value, theirs[key]), f"{name} {key}"


def test_a_step_without_a_finite_loss_changes_nothing(tmp_path, batch):
    trainer = Trainer(RECIPE, tmp_path / "run")
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    broken = replace(batch, images=torch.full_like(batch.images, torch.nan))
    assert trainer._step(broken, 0.0)["finite"] == 0
    for name, value in trainer.network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_run_that_has_diverged_gives_up_and_names_step_and_seed(tmp_path, batch, monkeypatch):
    broken = replace(batch, images=torch.full_like(batch.images, torch.nan))
    monkeypatch.setattr(loop, "batches", lambda recipe, step: iter([broken] * 3))
    monkeypatch.setattr(loop, "MAX_BAD_STEPS", 3)
    with pytest.raises(InputError, match=r"not finite in 3 steps up to step 2 \(seed 0\)"):
        list(Trainer(replace(RECIPE, checkpoint_minutes=9.0), tmp_path / "run").run())


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path):
    Trainer(RECIPE, tmp_path / "run")
    with pytest.raises(ConfigError, match="holds a run already: resume it"):
        Trainer(RECIPE, tmp_path / "run")
    with pytest.raises(ConfigError, match="differs from the recipe asked for"):
        Trainer(replace(RECIPE, seed=1), tmp_path / "run", resume=True)


def test_a_damaged_checkpoint_is_refused_in_words(tmp_path):
    Trainer(RECIPE, tmp_path / "run")
    (tmp_path / "run" / loop.CHECKPOINT).write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(InputError, match=r"checkpoint\.pt is damaged"):
        Trainer(RECIPE, tmp_path / "run", resume=True)


def test_the_learning_rate_warms_up_by_steps_and_falls_with_the_time():
    recipe = replace(RECIPE, learning_rate=1.0, warm_up_steps=10)
    rates = [learning_rate(recipe, step, 0.0) for step in (0, 4, 9, 99)]
    assert rates == pytest.approx([0.1, 0.5, 1, 1])
    falling = [learning_rate(recipe, 99, share) for share in (0.25, 0.5, 1.0, 1.5)]
    assert falling == pytest.approx([0.853553, 0.5, 0, 0], abs=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip_lengths": (1, 4)}, "2 <= low <= high <= images_per_step 16"),
        ({"clip_lengths": (4, 20)}, "2 <= low <= high <= images_per_step 16"),
        ({"heights": (84, 100)}, "must be multiples of 14"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_in_words(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(RECIPES["mini-v0"], **change)


def test_recipes_are_read_as_they_were_written_and_others_refused(tmp_path):
    path = tmp_path / "recipe.json"
    RECIPE.save(path)
    assert TrainingRecipe.read(path) == RECIPE
    path.write_text('{"presett": "mini"}')
    with pytest.raises(InputError, match="'presett' is no setting"):
        TrainingRecipe.read(path)
    path.write_text("{")
    with pytest.raises(InputError, match="is no training recipe"):
        TrainingRecipe.read(path)


@pytest.mark.slow
def test_a_rendering_process_gives_the_same_batches_and_ends_with_the_iterator():
    stream = loop.batches(RECIPE, 5)
    for step in (5, 6):
        theirs, ours = next(stream).tensors(), make_batch(RECIPE, step).tensors()
        for name, value in ours.items():
            assert torch.equal(value, theirs[name]), name
    stream.close()
