"""A recipe of seconds, and clips without a process that renders them."""

from dataclasses import replace
from multiprocessing import get_context

import pytest

import everview
from everview.model.network import build
from everview.model.presets import presets
from everview.training.feed.batch import Request
from everview.training.feed.procedural import ProceduralSource
from everview.training.recipe.recipe import TrainingRecipe

SMALL = (
    "network.preset=tiny",
    "data.heights=[42]",
    "data.width=56",
    "data.tracked_points=4",
    "data.processes=0",
    "schedule.unit=steps",
    "schedule.length=6",
    "schedule.warm_up_steps=2",
    "optimiser.learning_rate=3e-3",
    "stages.0.images=4",
    "stages.0.frames=[2,2]",
    "stages.0.kind=room",
    "stages.0.moving=0",
    "stages.0.dense_images=2",
    "stages.0.track_every=2",
    "run.log_every=1",
)


@pytest.fixture(scope="session")
def small_recipe():
    """small_recipe(*overrides): a few steps of the smallest network."""

    def make(*overrides):
        return TrainingRecipe().changed([*SMALL, *overrides])

    return make


@pytest.fixture(scope="session")
def small_batch(small_recipe):
    """The first batch of that recipe, with tracks; do not change it."""
    return ProceduralSource(small_recipe()).batch(Request(step=0, stage=0))


@pytest.fixture(scope="session")
def real_processes():
    """Processes that begin with everything imported, and without the check of shapes."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["torch", "everview.training.run.trainer"])
    return context


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory):
    """A random network with global attention, as a folder."""
    network = build(replace(presets["tiny"], attention="global"), seed=3)
    return everview.save(network, tmp_path_factory.mktemp("teacher"))
