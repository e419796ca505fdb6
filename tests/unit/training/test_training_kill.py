"""A real process that is killed without a warning, and goes on."""

import os
import signal
import sys
import time
from multiprocessing import get_context

import pytest
import torch

from everview.training.run.checkpoints import read_checkpoint
from everview.training.run.record import LOSSES, read_lines
from everview.training.run.trainer import Trainer

STEPS = 12

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL on Windows")


def _train(recipe, folder):
    torch.set_num_threads(1)
    for _ in Trainer(recipe, folder, resume=folder.exists()).run():
        pass


@pytest.fixture(scope="module")
def context():
    """Processes that begin with everything imported."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["torch", "everview.training.run.trainer"])
    return context


def _num_lines(folder):
    path = folder / LOSSES
    return len(list(read_lines(path))) if path.exists() else 0


def test_a_run_that_is_killed_at_any_moment_ends_as_if_it_had_not_been(
    context, tmp_path, small_recipe
):
    recipe = small_recipe(f"schedule.length={STEPS}", "data.reuse=6", "run.checkpoint_steps=3")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _train(recipe, whole)
    for moment in (2, 7):
        process = context.Process(target=_train, args=(recipe, killed))
        process.start()
        deadline = time.monotonic() + 60
        while _num_lines(killed) < moment and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert moment <= _num_lines(killed) < STEPS
        found = read_checkpoint(killed)
        done = 0 if found is None else found["progress"]["step"]
        assert done >= _num_lines(killed) - 3  # a line is written before its checkpoint
    _train(recipe, killed)
    ours, theirs = (list(read_lines(folder / LOSSES)) for folder in (killed, whole))
    for line in (*ours, *theirs):
        del line["seconds"]
    assert ours == theirs
    last = [read_checkpoint(folder)["average"] for folder in (killed, whole)]
    assert all(torch.equal(value, last[1][name]) for name, value in last[0].items())
