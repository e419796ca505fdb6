import json
import math

import numpy as np
import pytest

from everview.errors import InputError
from everview.outputs.entries import FrameEntry, exact_floats, read_entries

ENTRY = FrameEntry(
    index=7,
    row=3,
    timestamp=0.25,
    name="a.png",
    pose_encoding=(0.1,) * 9,
    intrinsics=((1.0, 0.0, 2.0), (0.0, 1.0, 2.0), (0.0, 0.0, 1.0)),
    latency=0.5,
    memory=12,
)
SKIPPED = FrameEntry(index=8, row=None, timestamp=0.3, flags=("corrupt: torn", "other"))


@pytest.mark.parametrize("entry", [ENTRY, SKIPPED])
def test_an_entry_comes_back_from_its_line(entry):
    line = entry.to_line()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert FrameEntry.from_line(line) == entry


def test_numbers_that_are_not_finite_are_null_in_json_and_nan_when_read():
    entry = FrameEntry(index=0, row=0, timestamp=0.0, pose_encoding=(math.nan, math.inf, 1.0))
    assert json.loads(entry.to_line())["pose_encoding"] == [None, None, 1.0]
    again = FrameEntry.from_line(entry.to_line()).pose_encoding
    assert [math.isnan(x) for x in again] == [True, True, False]


def test_float32_survives_the_text_bit_by_bit():
    values = np.random.default_rng(0).normal(size=2000).astype(np.float32) * np.float32(1e-3)
    again = np.array(json.loads(json.dumps(exact_floats(values))), np.float32)
    np.testing.assert_array_equal(again, values)


def test_a_torn_last_line_is_not_there_yet(tmp_path):
    path = tmp_path / "frames.jsonl"
    whole = ENTRY.to_line() + SKIPPED.to_line()
    for cut in range(1, len(SKIPPED.to_line())):
        path.write_bytes(whole[:-cut])
        assert [entry for entry, _ in read_entries(path)] == [ENTRY]
    path.write_bytes(whole)
    found = list(read_entries(path))
    assert [entry for entry, _ in found] == [ENTRY, SKIPPED]
    assert [entry for entry, _ in read_entries(path, start=found[0][1])] == [SKIPPED]
    assert found[-1][1] == len(whole)


def test_a_damaged_line_is_reported_with_its_place(tmp_path):
    (tmp_path / "frames.jsonl").write_bytes(ENTRY.to_line() + b"{oops}\n")
    entries = read_entries(tmp_path / "frames.jsonl")
    next(entries)
    with pytest.raises(InputError, match=r"frames\.jsonl is damaged before byte"):
        next(entries)
