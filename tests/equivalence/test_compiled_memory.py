"""A frame of a full memory is one graph for `torch.compile`, and stays the same one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from everview.memory import POLICIES

PROGRAM = Path(__file__).with_name("compiled_memory.py")
TEXTS = [f"{name}:tokens=30{bits}" for name in POLICIES for bits in ("", ",bits=8")
         if name != "full"]  # fmt: skip
FEW = ["attention_mass:tokens=30", "late_merge:tokens=30"]


@pytest.mark.parametrize("texts", [FEW, pytest.param(TEXTS, marks=pytest.mark.slow)],
                         ids=["few", "all"])  # fmt: skip
def test_a_frame_compiles_without_a_break_and_at_most_three_times(texts):
    done = subprocess.run(
        [sys.executable, PROGRAM, *texts], env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.keys() == set(texts)
    for text, result in found.items():
        assert result["equal"] == 100, text
        # Numbers as they are, numbers that change, and the frame that takes sums anew.
        assert 1 <= result["compilations"] <= 3, text
