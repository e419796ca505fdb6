"""A model folder, pictures to run it on, and the command as a process of its own."""

import os
import subprocess
import sys

import pytest
import torch
from PIL import Image

import everview
from everview.outputs import preview


@pytest.fixture(scope="session")
def model_folder(tiny, tmp_path_factory):
    """The random network of the smallest preset, as a folder."""
    return str(everview.save(tiny, tmp_path_factory.mktemp("model")))


@pytest.fixture
def make_images(tmp_path):
    """Write a folder of blurred noise."""

    def make(count, name="walk"):
        folder = tmp_path / name
        folder.mkdir()
        generator = torch.Generator().manual_seed(1)
        for number in range(count):
            low = (torch.rand(5, 7, 3, generator=generator) * 255).byte().numpy()
            Image.fromarray(low).resize((56, 42)).save(folder / f"{number:03d}.png")
        return str(folder)

    return make


@pytest.fixture
def start():
    """Start `everview ...` as a process of its own."""
    started = []

    def start(*arguments, **settings):
        command = [sys.executable, "-c", "from everview.cli.main import script; script()"]
        process = subprocess.Popen(
            [*command, *map(str, arguments)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **settings,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def small_previews(monkeypatch):
    monkeypatch.setattr(preview, "MAX_PANEL_HEIGHT", 48)
