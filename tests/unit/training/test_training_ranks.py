"""Several processes that train together do what one does."""

import os
import socket
import sys

import pytest
import torch

import everview
from everview.training.run.checkpoints import read_checkpoint
from everview.training.run.guard import SKIPPED
from everview.training.run.ranks import Ranks, joined_ranks
from everview.training.run.record import LOSSES, read_lines
from everview.training.run.trainer import Trainer

SETTINGS = ("schedule.length=4", "data.reuse=2", "stages.0.track_every=0")
"""Without the tracker, which makes 1e-3 of a rounding error (1000 radians per pixel)."""
CLOSE = 1e-5
"""Relative difference of losses and gradient norms."""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no fork on Windows")


def _free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _rank(rank, port, recipe, folder, resume, spoilt):
    """What torchrun starts."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    torch.set_num_threads(1)
    with joined_ranks() as ranks:
        trainer = Trainer(recipe, folder, resume=resume, ranks=ranks)
        if spoilt and rank == 1:
            trainer._ask = _spoil
        for _ in trainer.run():
            pass


def _spoil(batch):
    """In place of asking a teacher, of which there is none."""
    batch.images.fill_(torch.nan)


@pytest.fixture
def together(real_processes):
    """together(recipe, folder): train with two processes."""

    def train(recipe, folder, *, resume=False, spoilt=False):
        port = _free_port()
        arguments = (port, recipe, folder, resume, spoilt)
        processes = [
            real_processes.Process(target=_rank, args=(rank, *arguments)) for rank in (0, 1)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
        codes = [process.exitcode for process in processes]
        for process in processes:
            process.kill()
        return codes

    return train


def _lines(folder):
    lines = list(read_lines(folder / LOSSES))
    for line in lines:
        del line["seconds"], line["waited"]
    return lines


def _same_lines(
    ours,
    theirs,
):
    assert len(ours) == len(theirs) == 4
    for one, other in zip(ours, theirs, strict=True):
        assert one["images"] == other["images"]
        assert one["terms"].keys() == other["terms"].keys()
        for name in ("total", "gradient"):
            assert one[name] == pytest.approx(other[name], rel=CLOSE), name
        assert one["terms"] == pytest.approx(other["terms"], rel=CLOSE, abs=1e-6)


def _that_learns(name, value):
    """Without the bias of keys: attention does not see it, AdamW makes steps of its rounding."""
    if not name.endswith("attn.qkv.bias"):
        return value
    queries, _, values = value.chunk(3)
    return torch.cat([queries, values])


def _same_model(ours, theirs):
    one, other = (read_checkpoint(folder)["average"] for folder in (ours, theirs))
    assert one.keys() == other.keys()
    for name in one:
        value, expected = (_that_learns(name, average[name]) for average in (one, other))
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-5, msg=name)
    everview.load(ours / "model", device="cpu")


@pytest.mark.parametrize("parallel", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_two_processes_train_as_one_does(parallel, together, tmp_path, small_recipe):
    """To 1e-5 of the loss: one process takes the same two parts of a step one after the other."""
    alone = small_recipe(*SETTINGS, "compute.accumulation=2")
    list(Trainer(alone, tmp_path / "alone").run())
    recipe = small_recipe(*SETTINGS, f"compute.parallel={parallel}")
    assert together(recipe, tmp_path / "both") == [0, 0]
    _same_lines(_lines(tmp_path / "both"), _lines(tmp_path / "alone"))
    _same_model(tmp_path / "both", tmp_path / "alone")


def test_two_processes_share_muon(together, tmp_path, small_recipe):
    """Each has what the other turned; losses of one process within the rounding of bfloat16."""
    muon = (*SETTINGS, "optimiser.matrices=muon")
    alone = small_recipe(*muon, "compute.accumulation=2")
    list(Trainer(alone, tmp_path / "alone").run())
    assert together(small_recipe(*muon), tmp_path / "both") == [0, 0]
    ours, theirs = (_lines(tmp_path / run) for run in ("both", "alone"))
    assert [line["total"] for line in ours] == pytest.approx([x["total"] for x in theirs], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_run_changes_between_one_process_and_two(parallel, together, tmp_path, small_recipe):
    alone = small_recipe(*SETTINGS, "compute.accumulation=2")
    list(Trainer(alone, tmp_path / "alone").run())
    folder = tmp_path / "both"
    recipe = small_recipe(*SETTINGS, f"compute.parallel={parallel}")
    trainer = Trainer(alone, folder)
    for line in trainer.run():
        trainer.wants_stop = line["step"] == 2
    assert together(recipe, folder, resume=True) == [0, 0]
    _same_lines(_lines(folder), _lines(tmp_path / "alone"))
    _same_model(folder, tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_all_ranks_skip_a_step_that_one_of_them_spoils(parallel, together, tmp_path, small_recipe):
    recipe = small_recipe(*SETTINGS, f"compute.parallel={parallel}", "schedule.length=2",
                          "schedule.warm_up_steps=1")  # fmt: skip
    assert together(recipe, tmp_path / "run", spoilt=True) == [0, 0]
    assert _lines(tmp_path / "run")[-1]["skipped"] == 2
    first = next(iter(read_lines(tmp_path / "run" / SKIPPED)))
    assert len(first["present"]) == 2
    assert first["clips"] == first["present"][1:]


@pytest.mark.slow
def test_parts_accumulate_on_several_ranks_too(together, tmp_path, small_recipe):
    alone = small_recipe(*SETTINGS, "compute.accumulation=4", "stages.0.images=8")
    list(Trainer(alone, tmp_path / "alone").run())
    for parallel in ("ddp", "fsdp"):
        folder = tmp_path / parallel
        recipe = small_recipe(
            *SETTINGS, "stages.0.images=8", "compute.accumulation=2",
            f"compute.parallel={parallel}", "compute.checkpoint_activations=true",
        )  # fmt: skip
        assert together(recipe, folder) == [0, 0]
        _same_lines(_lines(folder), _lines(tmp_path / "alone"))
        _same_model(folder, tmp_path / "alone")


def test_an_error_of_the_first_rank_is_raised_on_all(together, tmp_path, small_recipe):
    Trainer(small_recipe(), tmp_path / "run")
    assert together(small_recipe(), tmp_path / "run") == [1, 1]


def test_alone_there_is_nothing_to_agree_on():
    ranks = Ranks()
    assert ranks.is_first
    assert ranks.gathered("a") == ["a"]
    assert ranks.agree(3.0, False) == (3.0, 0.0)
    assert ranks.device(torch.device("cuda", 0)) == torch.device("cuda", 0)
    assert Ranks(rank=1, count=2, local=1).device(torch.device("cuda")).index == 1
    with joined_ranks() as found:
        assert found == ranks
