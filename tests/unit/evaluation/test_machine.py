import subprocess

import torch

import everview
from everview.evaluation import machine


def test_every_metric_is_found_under_the_public_name():
    assert callable(everview.evaluation.metrics.depth_errors)
    assert set(everview.evaluation.metrics.__all__) >= {"depth_errors", "path_errors"}


def test_the_machine_is_described_in_plain_values():
    found = machine.describe()
    assert found["torch"] == torch.__version__
    assert found["threads"] == 1
    assert found["cores"] >= 1


def test_the_code_is_named_by_version_and_commit(monkeypatch):
    assert machine.code_version()["everview"] == everview.__version__

    def absent(*arguments, **options):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", absent)
    assert machine.code_version() == {"everview": everview.__version__}


def test_a_checkout_of_something_else_around_the_package_is_not_named(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert machine._git(tmp_path, "rev-parse", "HEAD") is None
