"""Two results side by side: what differs in the question, in who answered, and in the scores."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

from everview.cli.main import main
from everview.errors import InputError
from everview.evaluation.reports.compare import compare, paired_interval
from everview.evaluation.reports.results import ForeignResultError, read_result

sys.path.insert(0, str(Path(__file__).parent))
from result_files import result, write

ROOT = Path(__file__).parents[3]
FRAMES = ["f0", "f1"]


def clips(values, frames=FRAMES):
    return {f"clip{i}": ({"ate": v, "rpe_rotation": v}, frames) for i, v in enumerate(values)}


@pytest.fixture
def compared(tmp_path):
    """Compare two contents."""

    def compared(a, b):
        paths = write(tmp_path / "a.json", a), write(tmp_path / "b.json", b)
        return compare(*map(read_result, paths))

    return compared


def score(found, name):
    (row,) = [row for row in found.scores if row.score == name]
    return row


def test_a_result_beside_itself_differs_in_nothing(compared):
    found = compared(result(), result())
    assert found.is_comparable
    assert found.differences == ()
    assert found.clips.same == 3
    assert {row.verdict for row in found.scores} == {"equal"}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"data__fingerprint": "0" * 64}, "data fingerprint"),
        ({"protocol__stride": 3}, "stride"),
        ({"protocol__alignment": "se3"}, "alignment"),
        ({"protocol__seed": 5}, "seed"),
        ({"protocol__preset": "paper"}, "preset"),
    ],
)
def test_another_question_is_named_and_not_comparable(compared, change, name):
    found = compared(result(), result(**change))
    assert not found.is_comparable
    assert [(d.name, d.matters) for d in found.differences] == [(name, True)]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"run__dtype": "bfloat16"}, "dtype"),
        ({"run__device": "cuda"}, "device"),
        ({"model__weights_sha256": "b" * 64}, "weights hash"),
        ({"code__everview": "0.2.0"}, "code version"),
        ({"code__commit": "d" * 40}, "commit"),
        ({"protocol__memory": "rolling"}, "memory"),
        ({"protocol__mode": "offline"}, "mode"),
        ({"protocol__resize": "width 518"}, "resize"),
        ({"machine": {"torch": "2.5.0"}}, "torch"),
    ],
)
def test_another_answerer_is_named_and_comparable(compared, change, name):
    found = compared(result(), result(**change))
    assert found.is_comparable
    assert [(d.name, d.matters) for d in found.differences] == [(name, False)]


def test_another_size_asks_something_else_where_points_are_compared(compared):
    found = compared(result("7scenes"), result("7scenes", protocol__resize="width 518"))
    assert [(d.name, d.matters) for d in found.differences] == [("resize", True)]


def test_paired_differences_and_their_interval_are_those_of_the_paired_t_test(compared):
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(1, 1, 9), rng.normal(1.4, 1, 9)
    found = compared(result(clips=clips(ours)), result(clips=clips(theirs)))
    row = score(found, "ate")
    expected = ttest_rel(theirs, ours).confidence_interval(0.95)
    assert row.pairs == 9
    assert row.difference == pytest.approx(np.mean(theirs - ours))
    assert row.interval == pytest.approx((expected.low, expected.high))
    assert row.a == pytest.approx(np.mean(ours))


def test_verdicts_follow_the_direction_of_the_score(compared):
    values = [0.5, 0.6, 0.7, 0.8]
    better = {f"clip{i}": ({"auc30": v + 0.1 + i / 100}, FRAMES) for i, v in enumerate(values)}
    worse = {f"clip{i}": ({"auc30": v}, FRAMES) for i, v in enumerate(values)}
    found = compared(result("co3d-pose", worse), result("co3d-pose", better))
    assert score(found, "auc30").verdict == "b is better"
    lower = compared(result(clips=clips(values)), result(clips=clips([v / 2 for v in values])))
    assert score(lower, "ate").verdict == "b is better"
    mixed = compared(result(clips=clips([1, 2, 3])), result(clips=clips([2, 1, 3.1])))
    assert score(mixed, "ate").verdict == "not told apart"


def test_only_clips_with_the_same_frames_are_pairs(compared):
    a = clips([1.0, 2.0, 3.0])
    b = clips([1.5, 2.5, 9.0]) | {"other": ({"ate": 1.0}, FRAMES)}
    b["clip2"] = ({"ate": 9.0}, ["f0", "f9"])
    found = compared(result(clips=a), result(clips=b))
    assert not found.is_comparable
    assert found.clips.same == 2
    assert found.clips.other_frames == ("clip2",)
    assert found.clips.only_b == ("other",)
    assert score(found, "ate").pairs == 2
    assert score(found, "ate").difference == pytest.approx(0.5)


def test_a_single_pair_has_a_difference_without_interval(compared):
    found = compared(result(clips=clips([1.0])), result(clips=clips([3.0])))
    row = score(found, "ate")
    assert (row.difference, row.interval, row.verdict) == (2.0, None, "")
    assert paired_interval([]) is None


def test_clips_without_a_value_are_no_pairs(compared):
    a = {"clip0": ({"ate": None}, FRAMES), "clip1": ({"ate": 1.0}, FRAMES)}
    found = compared(result(clips=a), result(clips=clips([1.0, 1.0])))
    assert score(found, "ate").pairs == 1
    assert score(found, "rpe_rotation").pairs == 0
    assert score(found, "rpe_rotation").difference is None


def test_results_of_two_benchmarks_share_no_clips(compared):
    found = compared(result(), result("scannet-pose"))
    assert not found.is_comparable
    assert found.clips.same == 0
    assert all(row.pairs == 0 for row in found.scores)


def test_the_repositorys_own_results_can_be_compared():
    folder = ROOT / "benchmarks" / "results"
    names = ("procedural_mini.json", "procedural_mini_student_cpu.json")
    found = compare(*(read_result(folder / name) for name in names))
    assert {d.name for d in found.differences} >= {"clips", "model", "weights hash"}
    assert score(found, "abs_rel").pairs == 100
    footage = read_result(folder / "real_footage.json")
    assert compare(footage, footage).clips.same == sum(len(part.clips) for part in footage.parts)


def test_the_command_says_it_in_words_and_writes_it(tmp_path, capsys):
    a = write(tmp_path / "a.json", result(clips=clips([1.0, 2.0, 3.0])))
    b = write(tmp_path / "b.json", result(clips=clips([1.1, 2.2, 3.0]), protocol__alignment="se3"))
    out = tmp_path / "deep" / "c.json"
    assert main(["eval", "compare", str(a), str(b), "-o", str(out)]) == 0
    text = capsys.readouterr().out
    assert "NOT comparable" in text
    assert "alignment: sim3 against se3" in text
    assert "not told apart" in text
    written = json.loads(out.read_text())
    assert written["comparable"] is False
    assert math.isclose(written["scores"][0]["difference"], 0.1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no JSON"),
        ("[1, 2]", "JSON list"),
        ('{"format": "everview ablation"}', "everview ablation"),
        ("{}", "no result of everview"),
        ('{"format": "everview evaluation", "format_version": 9}', "version 9"),
        (
            '{"format": "everview evaluation", "format_version": 2, "benchmark": "tum-pose"}',
            "no 'protocol'",
        ),
        (json.dumps(result(clips={}) | {"clips": [{"name": "x"}]}), "no 'frames'"),
        (json.dumps(result() | {"run": None}), "NoneType"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_code_3(text, words, tmp_path, capsys):
    good = write(tmp_path / "good.json", result())
    bad = tmp_path / "bad.json"
    bad.write_text(text)
    assert main(["eval", "compare", str(good), str(bad)]) == 3
    error = capsys.readouterr().err
    assert "bad.json" in error
    assert words in error
    assert error.count("\n") == 1


def test_an_absent_file_is_named(tmp_path, capsys):
    good = str(write(tmp_path / "good.json", result()))
    assert main(["eval", "compare", good, str(tmp_path / "nowhere.json")]) == 3
    assert "nowhere.json" in capsys.readouterr().err
    assert main(["eval", "compare", good]) == 2


def test_foreign_files_are_told_from_damaged_ones(tmp_path):
    foreign = write(tmp_path / "x.json", {"format": "everview latency scaling"})
    with pytest.raises(ForeignResultError):
        read_result(foreign)
    with pytest.raises(InputError) as found:
        read_result(write(tmp_path / "y.json", result() | {"clips": None}))
    assert not isinstance(found.value, ForeignResultError)
