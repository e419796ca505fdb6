import json
import os
import signal
from pathlib import Path

import pytest
import yaml

import everview
from everview.cli import train
from everview.cli.main import main

SMALL = [
    "--set", "network.preset=tiny", "--set", "data.heights=[42]", "--set", "data.width=56",
    "--set", "data.tracked_points=2", "--set", "stages.0.images=2",
    "--set", "stages.0.frames=[2,2]", "--set", "run.log_every=1", "--set", "data.processes=0",
    "--set", "schedule.unit=steps", "--set", "schedule.warm_up_steps=1",
    "--set", "schedule.length=2",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _leave_the_tests_as_they_are(monkeypatch):
    """Their priority and their signals."""
    monkeypatch.setattr(train, "be_nice", lambda threads: None)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_recipe_becomes_a_model_and_tells_how_it_goes(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", "mini-cpu", "-o", str(out), *SMALL]) == 0
    text = capsys.readouterr().out
    assert "529,732 numbers learn on cpu for 2 steps (stages: all); step 0 is next" in text
    assert "memory: about " in text
    assert "optimiser 4.2 MB" in text
    assert "step 2 " in text
    assert "truth/depth " in text
    assert f"the model is in {out}/model" in text
    assert everview.load(out / "model", device="cpu").input_size == 56
    assert main(["train", "mini-cpu", "-o", str(out), *SMALL]) == 2
    assert "(--resume)" in capsys.readouterr().err


def test_a_run_ends_by_the_clock_if_asked(tmp_path, capsys):
    assert (
        main(["train", "mini-cpu", "-o", str(tmp_path / "run"), *SMALL, "--minutes", "0.02"]) == 0
    )
    lines = (tmp_path / "run" / "losses.jsonl").read_text().splitlines()
    assert 1.2 <= json.loads(lines[-1])["seconds"] < 60


def test_a_recipe_can_be_shown_and_read_again(tmp_path, capsys):
    assert main(["train", "smoke", "--show", "--set", "run.seed=7"]) == 0
    path = tmp_path / "mine.yaml"
    path.write_text(capsys.readouterr().out)
    assert main(["train", str(path), "--show"]) == 0
    assert "seed: 7" in capsys.readouterr().out


def test_ctrl_c_ends_the_run_after_its_step_with_a_checkpoint(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        train, "as_text", lambda line: os.kill(os.getpid(), signal.SIGINT) or "a line"
    )
    out = tmp_path / "run"
    arguments = ["train", "mini-cpu", "-o", str(out), *SMALL, "--set", "schedule.length=50"]
    assert main(arguments) == 130
    assert (out / "checkpoint.pt").exists()
    assert len((out / "losses.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "maxi"], "use mini-teacher, mini"),
        (["train", "mini"], "has a teacher: everview distill mini"),
        (["train", "smoke", "--set", "optimizer.lr=1"], "has no setting 'optimizer'"),
        (["distill", "smoke"], "has no teacher: everview train smoke"),
        (["train", "smoke", "--threads", "0"], "--threads must be 1 or more, got 0"),
        (["train", "smoke", "--minutes", "nan"], "needs schedule.length > 0"),
    ],
)
def test_a_call_that_cannot_work_is_answered_with_what_does(arguments, words, capsys):
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_a_teacher_is_named_on_the_command_line(tmp_path, capsys):
    from dataclasses import replace

    from everview.model.network import build
    from everview.model.presets import presets

    teacher = build(replace(presets["tiny"], attention="global"), seed=1)
    everview.save(teacher, tmp_path / "teacher")
    out = tmp_path / "run"
    arguments = [
        "distill", "tiny-distilled", "--teacher", str(tmp_path / "teacher"), "-o", str(out),
        "--cache", str(tmp_path / "said"), *SMALL[8:], "--set", "stages.0.dense_images=2",
    ]  # fmt: skip
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "teacher/depth " in text
    assert "truth/" not in text
    assert list((tmp_path / "said").rglob("*.teacher"))
    assert everview.load(out / "model", device="cpu").config.attention == "causal"


def test_a_recipe_without_its_teacher_says_which_is_missing(tmp_path, capsys):
    arguments = ["distill", "tiny-distilled", "-o", str(tmp_path / "run"), "--set"]
    assert main([*arguments, "teacher.model=null"]) == 2
    assert "name a network with global attention (--teacher MODEL" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()  # or the right call would find a run there


def test_a_student_starts_where_its_recipe_has_the_teacher(capsys):
    assert main(["distill", "mini", "--teacher", "2024", "--show"]) == 0
    recipe = yaml.safe_load(capsys.readouterr().out)
    assert recipe["network"]["start"] == recipe["teacher"]["model"] == "2024"
    own = ["--set", "network.start=mine", "--show"]
    assert main(["distill", "mini", "--teacher", "2024", *own]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["network"]["start"] == "mine"


def test_a_run_whose_data_are_absent_leaves_its_folder_free(tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ["train", "mini-cpu", "-o", str(out), *SMALL]
    assert main([*arguments, "--set", f"data.folders=[{tmp_path / 'nosuch'}]"]) == 3
    assert "nosuch" in capsys.readouterr().err
    assert not out.exists()
    assert main(arguments) == 0
    capsys.readouterr()
    assert main(["train", "mini-cpu", "-o", str(out), "--resume"]) == 2
    assert f"everview train {out} --resume" in " ".join(capsys.readouterr().err.split())
    assert main(["train", str(out), "--resume"]) == 0


def test_the_last_step_is_logged(tmp_path):
    out = tmp_path / "run"
    arguments = [*SMALL, "--set", "run.log_every=20", "--set", "schedule.length=3"]
    assert main(["train", "mini-cpu", "-o", str(out), *arguments]) == 0
    (line,) = (out / "losses.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 3
    assert (out / "losses.png").exists()


def test_a_folder_of_the_recipe_s_name_is_a_run_only_if_it_holds_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("smoke").mkdir()
    assert train.default_folder("smoke") == Path("runs/smoke")
    Path("smoke/recipe.yaml").touch()
    assert train.default_folder("smoke") == Path("smoke")


def test_a_run_too_large_for_the_machine_is_told_so(tmp_path, capsys, monkeypatch):
    from everview.training.run import trainer

    monkeypatch.setattr(trainer, "free_memory", lambda device: 1_000_000)
    assert main(["train", "mini-cpu", "-o", str(tmp_path / "run"), *SMALL]) == 0
    assert "note: only 1.0 MB are free" in capsys.readouterr().out
