import json
import logging
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image

import everview
from everview.errors import ConfigError, InputError, MissingExtraError
from everview.model.network import build
from everview.model.presets import presets
from everview.training.recipe.recipe import TrainingRecipe
from everview.training.run.checkpoints import CHECKPOINT, PREVIOUS, read_checkpoint
from everview.training.run.curves import draw_curves
from everview.training.run.folder import RECIPE
from everview.training.run.guard import SKIPPED
from everview.training.run.record import LOSSES, Meter, Record, flat, read_lines
from everview.training.run.trainer import Trainer

CLOCK = ("seconds", "waited")


def _train(recipe, folder, **settings):
    return list(Trainer(recipe, folder, **settings).run())


def _comparable(line):
    """A line of the log without the clock."""
    return {name: value for name, value in line.items() if name not in CLOCK}


def _logged(folder):
    return [_comparable(line) for line in read_lines(folder / LOSSES)]


@pytest.fixture(scope="module")
def finished(small_recipe, tmp_path_factory):
    """Recipe, folder and lines of a run with a checkpoint every two steps; do not change it."""
    folder, recipe = tmp_path_factory.mktemp("runs") / "run", small_recipe("run.checkpoint_steps=2")
    return recipe, folder, _train(recipe, folder)


@pytest.fixture
def copied(finished, tmp_path):
    """Recipe and folder of that run, which may be changed."""
    recipe, folder, _ = finished
    return recipe, shutil.copytree(folder, tmp_path / "run")


def test_a_run_leaves_a_model_a_log_a_recipe_and_curves(finished):
    recipe, folder, seen = finished
    assert [line["step"] for line in seen] == [1, 2, 3, 4, 5, 6]
    assert _logged(folder) == [_comparable(line) for line in seen]
    line = seen[0]
    assert line["terms"].keys() == line["weights"].keys() >= {"truth/depth", "guide/flow"}
    assert line["diagnostics"].keys() >= {"truth/valid_share", "guide/identity_rotation"}
    assert line["gradient"] > 0
    assert line["images"] == 4
    weighed = sum(line["weights"][name] * value for name, value in line["terms"].items())
    assert line["total"] == pytest.approx(weighed, rel=1e-4)
    assert TrainingRecipe.read(folder / RECIPE) == recipe
    network = everview.load(folder / "model", device="cpu")
    assert network.config == presets["tiny"]
    content = json.loads((folder / "model" / "config.json").read_text())
    assert content["info"]["steps"] == 6
    assert content["info"]["recipe"]["optimiser"]["learning_rate"] == 3e-3
    assert (folder / "losses.png").read_bytes().startswith(b"\x89PNG")


def test_lines_are_means_over_the_steps_since_the_last_one(tmp_path, small_recipe, finished):
    every = finished[2]
    third = _train(small_recipe("run.log_every=3"), tmp_path / "third")
    assert [line["step"] for line in third] == [3, 6]
    means = [sum(line["total"] for line in every[i : i + 3]) / 3 for i in (0, 3)]
    assert [line["total"] for line in third] == pytest.approx(means)
    tracks = [line["terms"]["truth/tracks"] for line in every[:3:2]]
    assert third[0]["terms"]["truth/tracks"] == pytest.approx(sum(tracks) / 2)


def test_a_resumed_run_does_to_the_bit_what_the_uninterrupted_one_does(tmp_path, small_recipe):
    """Stopped between two lines of the log, and started again before its first checkpoint."""
    recipe = small_recipe(
        "run.log_every=3", "data.reuse=2", "run.checkpoint_steps=2", "schedule.length=4"
    )
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    _train(recipe, whole)
    Trainer(recipe, halves)
    stopped = Trainer(recipe, halves, resume=True)
    write = stopped.write_checkpoint

    def write_and_stop():
        write()
        stopped.wants_stop = True

    stopped.write_checkpoint = write_and_stop
    list(stopped.run())
    assert stopped.progress.step == 2
    resumed = Trainer(recipe, halves, resume=True)
    list(resumed.run())
    assert _logged(halves) == _logged(whole)
    ours, theirs = read_checkpoint(halves), read_checkpoint(whole)
    for part in ("parameters", "average"):
        assert ours[part].keys() == theirs[part].keys()
        for name, value in ours[part].items():
            assert torch.equal(value, theirs[part][name]), f"{part} {name}"
    for name, state in theirs["optimiser"].items():
        for key, value in state.items():
            assert torch.equal(ours["optimiser"][name][key], value), f"{name} {key}"
    assert not torch.equal(
        ours["parameters"]["network.aggregator.camera_token"],
        ours["average"]["network.aggregator.camera_token"],
    )


def test_a_damaged_checkpoint_gives_way_to_the_one_before(copied, caplog):
    recipe, folder = copied
    content = (folder / CHECKPOINT).read_bytes()
    (folder / CHECKPOINT).write_bytes(content[: len(content) // 2])
    with caplog.at_level(logging.WARNING):
        trainer = Trainer(recipe, folder, resume=True)
    assert trainer.progress.step == 6  # the last two lie at the end of the schedule
    assert "checkpoint.pt is damaged" in caplog.text
    assert "going on from checkpoint.previous.pt" in caplog.text
    (folder / PREVIOUS).write_bytes(b"")
    with pytest.raises(InputError, match=r"checkpoint\.pt is damaged .*previous\.pt is damaged"):
        Trainer(recipe, folder, resume=True)
    torch.save({"format": 99}, folder / CHECKPOINT)
    with pytest.raises(InputError, match="has format 99, this version reads 1"):
        Trainer(recipe, folder, resume=True)


def test_a_checkpoint_that_cannot_be_written_leaves_the_earlier_ones(copied, monkeypatch):
    recipe, folder = copied
    kept = (folder / CHECKPOINT).read_bytes()

    def full(*_):
        raise OSError("No space left on device")

    trainer = Trainer(recipe, folder, resume=True)
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match=r"No space left on device.*free some disk, then resume"):
        trainer.write_checkpoint()
    assert (folder / CHECKPOINT).read_bytes() == kept
    assert not (folder / "checkpoint.pt.tmp").exists()


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path, small_recipe):
    Trainer(small_recipe(), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"holds a run already: go on with it \(--resume\)"):
        Trainer(small_recipe(), tmp_path / "run")
    other = small_recipe("optimiser.clip_norm=2", "run.log_every=2")
    with pytest.raises(ConfigError, match=r"in optimiser.clip_norm \(1.0 there, 2.0 asked for\)"):
        Trainer(other, tmp_path / "run", resume=True)
    with pytest.raises(ConfigError, match=r"in schedule.length \(6.0 there, 7.0 asked for\)"):
        Trainer(small_recipe("data.ahead=3", "schedule.length=7"), tmp_path / "run", resume=True)
    Trainer(small_recipe("run.log_every=2"), tmp_path / "run", resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="the run cannot be written"):
        Trainer(small_recipe(), tmp_path / "file" / "run")


def test_a_recipe_is_whole_whenever_its_writing_is_cut_off(tmp_path, small_recipe, monkeypatch):
    recipe, path = small_recipe(), tmp_path / RECIPE
    recipe.save(path)

    def half(self, text):
        with self.open("w") as file:
            file.write(text[: len(text) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(KeyboardInterrupt):
        small_recipe("run.log_every=2").save(path)
    assert TrainingRecipe.read(path) == recipe


def _spoil(trainer, which):
    """NaN in one clip of the steps `which`; the trainer is otherwise as it was."""
    stream = trainer._stream

    def spoilt():
        for batch in stream():
            if which(batch.request.step):
                images = batch.images.clone()
                images[1, 0, 0, 3, 4] = torch.nan
                batch = replace(batch, images=images)  # noqa: PLW2901
            yield batch

    trainer._stream = spoilt


def test_a_step_without_a_finite_loss_changes_nothing_and_names_its_clip(
    tmp_path, small_recipe, caplog
):
    trainer = Trainer(small_recipe(), tmp_path / "run")
    _spoil(trainer, lambda step: step == 2)
    stream = trainer.run()
    next(stream), next(stream)
    before = {name: value.clone() for name, value in trainer.learner.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        line = next(stream)
    for name, value in trainer.learner.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert line["skipped"] == 1
    assert line["total"] is None
    (skipped,) = read_lines(tmp_path / "run" / SKIPPED)
    assert skipped["step"] == 3
    (guilty,) = skipped["clips"]
    assert guilty == skipped["present"][1] != skipped["present"][0]
    assert f"step 3 is skipped, its loss is not finite: {guilty}" in caplog.text
    rest = list(stream)
    assert rest[-1]["skipped"] == 1
    assert all(line["total"] is not None for line in rest)
    json.loads((tmp_path / "run" / LOSSES).read_text().splitlines()[2])


def test_a_run_that_has_diverged_gives_up_and_names_the_clips(tmp_path, small_recipe, caplog):
    trainer = Trainer(small_recipe("run.give_up_after=3"), tmp_path / "run")
    _spoil(trainer, lambda step: step != 1)
    with (
        caplog.at_level(logging.CRITICAL),
        pytest.raises(InputError, match=r"3 steps in a row up to step 5; last: procedural clip of"),
    ):
        list(trainer.run())


def test_parts_of_a_step_add_up_to_the_step(tmp_path, small_recipe):
    settings = (
        "stages.0.track_every=0",
        "schedule.length=2",
        "schedule.warm_up_steps=1",
        "optimiser.clip_norm=1e9",
    )
    whole = _train(small_recipe(*settings), tmp_path / "whole")
    parts = _train(small_recipe(*settings, "compute.accumulation=2"), tmp_path / "parts")
    for one, other in zip(whole, parts, strict=True):
        # all pixels are valid here; means over the matches that are seen are taken part by part
        assert other["terms"] == pytest.approx(one["terms"], rel=1e-2)
        assert other["terms"]["truth/depth"] == pytest.approx(one["terms"]["truth/depth"], rel=1e-4)
        assert other["images"] == one["images"]


def test_low_precision_and_less_memory_stay_close(tmp_path, small_recipe, finished):
    plain = finished[2][:3]
    thrifty = Trainer(
        small_recipe("compute.precision=bfloat16", "compute.checkpoint_activations=true"),
        tmp_path / "thrifty",
    ).run()
    thrifty = list(islice(thrifty, 3))
    for one, other in zip(plain, thrifty, strict=True):
        assert other["total"] == pytest.approx(one["total"], rel=5e-2)
    assert thrifty[0]["total"] != plain[0]["total"]


def test_stages_follow_one_another(tmp_path, small_recipe):
    recipe = small_recipe()
    stage = replace(recipe.stages[0], name="maps", frames=(4, 4))
    first = replace(recipe.stages[0], name="pairs", share=0.5, dense_images=0, track_every=0)
    lines = _train(replace(recipe, stages=(first, stage)), tmp_path / "run")
    assert [line["stage"] for line in lines] == ["pairs"] * 2 + ["maps"] * 4
    assert "truth/depth" not in lines[1]["terms"]
    assert "truth/depth" in lines[2]["terms"]


def test_a_model_may_be_saved_in_small_files(tmp_path, small_recipe):
    _train(small_recipe("run.shard_megabytes=0.5", "schedule.length=3"), tmp_path / "run")
    files = list((tmp_path / "run" / "model").glob("*.safetensors"))
    assert len(files) > 1
    assert max(path.stat().st_size for path in files) < 550_000
    everview.load(tmp_path / "run" / "model", device="cpu")


def test_a_run_ends_by_the_clock(tmp_path, small_recipe):
    recipe = small_recipe("schedule.unit=minutes", "schedule.length=0.01")
    lines = _train(recipe, tmp_path / "run")
    assert 0.6 <= lines[-1]["seconds"] < 30


def test_updates_of_low_rank_train_and_resume(tmp_path, small_recipe):
    everview.save(build(presets["tiny"], seed=5), tmp_path / "start")
    recipe = small_recipe(
        f"network.start={tmp_path / 'start'}", "network.lora.rank=2",
        "network.frozen_precision=bfloat16", "run.weights_dtype=float32",
    )  # fmt: skip
    trainer = Trainer(recipe, tmp_path / "run")
    list(trainer.run())
    loaded = everview.load(tmp_path / "run" / "model", device="cpu").state_dict()
    start = everview.load(tmp_path / "start", device="cpu").state_dict()
    moved = {name for name, value in loaded.items() if not torch.equal(value, start[name])}
    assert any("attn.qkv.weight" in name for name in moved)
    assert not any("depth_head" in name for name in moved)
    Trainer(recipe, tmp_path / "run", resume=True)


def test_a_student_comes_nearer_to_its_teacher(tmp_path, small_recipe, teacher_folder):
    recipe = small_recipe(
        "objective.truth=null", "objective.teacher=corrected", "objective.guide=teacher",
        f"teacher.model={teacher_folder}", f"teacher.cache={tmp_path / 'said'}",
        "schedule.length=12", "data.reuse=12", "stages.0.dense_images=null",
        "stages.0.track_every=0",
    )  # fmt: skip
    lines = _train(recipe, tmp_path / "run")
    first, last = (sum(line["total"] for line in part) for part in (lines[:3], lines[-3:]))
    assert last < 0.8 * first
    assert not any(name.startswith("truth") for name in lines[0]["terms"])
    assert "teacher/depth_scale" in lines[0]["diagnostics"]
    assert list((tmp_path / "said").rglob("*.teacher"))


def test_a_teacher_with_faults_teaches_something_else(tmp_path, small_recipe, teacher_folder):
    settings = [
        "objective.truth=null", "objective.teacher=corrected", f"teacher.model={teacher_folder}",
        "schedule.length=1", "schedule.warm_up_steps=0",
    ]  # fmt: skip
    good = _train(small_recipe(*settings), tmp_path / "good")
    settings += ["teacher.faults.noise=0.5", "teacher.faults.rotation=20"]
    bad = [_train(small_recipe(*settings), tmp_path / f"bad{i}") for i in (0, 1)]
    assert _comparable(bad[0][0]) == _comparable(bad[1][0])
    assert bad[0][0]["terms"]["teacher/depth"] > 1.2 * good[0]["terms"]["teacher/depth"]
    assert bad[0][0]["terms"]["teacher/rotation"] > good[0]["terms"]["teacher/rotation"]


def test_plain_pictures_are_enough_where_a_teacher_tells_all(
    tmp_path, small_recipe, teacher_folder
):
    folder = tmp_path / "walk"
    folder.mkdir()
    for number in range(5):
        pixels = torch.randint(256, (48, 64, 3), dtype=torch.uint8).numpy()
        Image.fromarray(pixels).save(folder / f"{number}.png")
    settings = (
        f"data.folders=['footage={folder}']", "objective.truth=null", "schedule.length=3",
        "objective.guide=teacher", f"teacher.model={teacher_folder}", "objective.masks=false",
    )  # fmt: skip
    lines = _train(small_recipe(*settings, "objective.teacher=corrected"), tmp_path / "run")
    assert {"teacher/points", "teacher/tracks", "guide/flow"} <= lines[0]["terms"].keys()
    with pytest.raises(InputError, match=r"footage/walk/.*truth or objective\.guide asks"):
        _train(small_recipe(settings[0]), tmp_path / "other")


def test_a_start_that_is_given_is_taken(tmp_path, small_recipe, teacher_folder):
    recipe = small_recipe(f"network.start={teacher_folder}", "network.attention=causal")
    network = Trainer(recipe, tmp_path / "run").learner.network
    assert network.config.attention == "causal"
    theirs = everview.load(teacher_folder, device="cpu").state_dict()
    assert all(torch.equal(v, theirs[name]) for name, v in network.state_dict().items())
    with pytest.raises(ConfigError, match=r"network.preset 'maxi' is unknown: use vggt-1b"):
        Trainer(small_recipe("network.preset=maxi"), tmp_path / "other")


def test_tensorboard_gets_every_number_where_it_is_asked_for(tmp_path, small_recipe):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "run"
    lines = _train(small_recipe("run.tensorboard=true", "schedule.length=3"), folder)
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    found = events.Scalars("terms/truth/depth")
    assert [event.step for event in found] == [1, 2, 3]
    expected = [line["terms"]["truth/depth"] for line in lines]
    assert [event.value for event in found] == pytest.approx(expected)


def test_a_missing_tensorboard_is_told_with_the_line_to_type(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard.writer", None)
    with pytest.raises(MissingExtraError, match=r'pip install "everview\[train\]"'):
        Record(tmp_path, after_step=0, tensorboard=True)


def test_a_log_is_cut_to_where_the_run_goes_on(tmp_path):
    path = tmp_path / LOSSES
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    Record(tmp_path, after_step=2, tensorboard=False).write({"step": 3, "total": float("nan")})
    assert list(read_lines(path)) == [{"step": 1}, {"step": 2}, {"step": 3, "total": None}]


def test_a_meter_goes_on_counting_from_its_state():
    meter = Meter()
    meter.add({"a": torch.tensor(1.0), "b": torch.tensor(4.0)})
    again = Meter.from_state(meter.state(), torch.device("cpu"))
    again.add({"a": torch.tensor(3.0)})
    assert again.means() == {"a": 2.0, "b": 4.0}
    assert Meter().means() == {}


def test_curves_are_drawn_of_any_log(tmp_path):
    log, picture = tmp_path / LOSSES, tmp_path / "losses.png"
    log.write_text("")
    draw_curves(log, picture)
    assert not picture.exists()
    lines = [
        {"step": i, "total": -1.0 if i else None, "terms": {"truth/depth": 1e-9}}
        for i in range(1000)
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    draw_curves(log, picture)
    assert picture.stat().st_size > 1000
    assert flat(lines[5]) == {"total": -1.0, "terms/truth/depth": 1e-9}
