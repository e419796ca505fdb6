"""Clips of the world, stored in the layouts of the papers' training sets."""

import shutil

import pytest

from everview.training.datasets.sets import SETS
from everview.world import NO_EFFECTS, Options, sequence
from everview.world.layouts.registry import LAYOUTS

NUM_FRAMES = 6
STILL = Options(motion="orbit", moving=0.0, effects=NO_EFFECTS)
"""Nothing moves but the camera, and that a lot."""


def still_room(seed, frames, *, size):
    """A clip whose depth and poses must agree."""
    return sequence(seed, frames, size=size, speed=3, kind="room", options=STILL)


@pytest.fixture(scope="session")
def clips():
    """Two clips to look at; do not change them."""
    return [still_room(seed, NUM_FRAMES, size=(56, 70)) for seed in (3, 8)]


@pytest.fixture(scope="session")
def stored(clips, tmp_path_factory):
    """stored(layout): folder of the clips in that layout; do not change it."""
    made = {}

    def folder_of(layout):
        if layout not in made:
            usual = SETS[layout].folder if layout in SETS else layout
            made[layout] = tmp_path_factory.mktemp(layout) / usual
            LAYOUTS[layout](made[layout], clips)
        return made[layout]

    return folder_of


@pytest.fixture
def copy_of(stored, tmp_path):
    """copy_of(layout): the same in a folder that may be changed."""

    def copy(layout):
        source = stored(layout)
        return shutil.copytree(source, tmp_path / source.name)

    return copy
