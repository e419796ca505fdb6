"""Fixtures for all tests: one thread, fixed seeds, small networks, golden data, real sequences."""

import os
from pathlib import Path

import pytest
import torch

from everview.model.network import build
from everview.model.presets import presets

TESTS = Path(__file__).parent
REAL_DATA = Path(os.environ.get("EVERVIEW_DATA", TESTS.parents[1] / "shared" / "data"))


@pytest.fixture(autouse=True)
def _one_thread_and_a_fixed_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def golden():
    """Folder of the golden data."""
    return TESTS / "golden"


@pytest.fixture(scope="session")
def real_data():
    """Folder of the developers' real sequences."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real sequences at {REAL_DATA}; set EVERVIEW_DATA to a copy of them")
    return REAL_DATA


@pytest.fixture(scope="session")
def tiny():
    """A random network of the smallest preset; do not change its weights."""
    return build(presets["tiny"], seed=1)


@pytest.fixture
def clip():
    """Images b s 3 H W, not square."""
    return torch.rand(1, 5, 3, 56, 84)
