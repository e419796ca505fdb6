"""Published numbers: they carry our names, and are the digits of the papers' tables."""

from everview.evaluation.benchmarks.clip import Choice
from everview.evaluation.benchmarks.registry import BENCHMARKS
from everview.evaluation.reports.published import (
    arxiv_numbers,
    published_costs,
    published_tables,
)
from everview.evaluation.runs.tasks import protocol_of, task_of

PUBLISHED_WITHOUT_US = {"longworld", "longworld-10k"}
"""Ours alone: no paper measures on them."""
SHARES = ("delta", "normal_consistency", "auc")


def value(benchmark, setting, method, score):
    (table,) = [t for t in published_tables(benchmark) if t.setting.startswith(setting)]
    found = [row.values[score] for row in table.rows if row.method == method]
    assert len(found) == 1
    return found[0]


def test_every_benchmark_and_score_is_one_that_our_runs_write():
    for table in published_tables():
        benchmark = BENCHMARKS[table.benchmark]
        assert set(table.metrics) <= set(task_of(benchmark).meanings), table.setting
        assert table.rows
        assert set(table.protocol) <= set(protocol_of(benchmark, Choice()))


def test_what_a_run_of_ours_does_by_itself_is_the_setting_of_a_table():
    """Long and quantised variants need other settings; each benchmark has a table without any."""
    for name in {table.benchmark for table in published_tables()}:
        usual = protocol_of(BENCHMARKS[name], BENCHMARKS[name].choice)
        same = [
            table
            for table in published_tables(name)
            if table.is_comparable and table.protocol.items() <= usual.items()
        ]
        assert same, name


def test_every_benchmark_of_the_papers_has_a_table():
    assert {t.benchmark for t in published_tables()} == set(BENCHMARKS) - PUBLISHED_WITHOUT_US


def test_settings_of_a_benchmark_are_told_apart():
    names = [(table.benchmark, table.setting) for table in published_tables()]
    assert len(names) == len(set(names))


def test_values_are_finite_in_our_units_and_rows_without_any_say_why():
    for table in published_tables():
        for row in table.rows:
            assert bool(row.values) != bool(row.remark), row
            assert row.source or table.source
            for name, number in row.values.items():
                assert 0 < number < 20, row
                assert not name.startswith(SHARES) or number <= 1, row


def test_digits_are_those_of_the_papers():
    assert value("7scenes", "sparse", "StreamVGGT", "accuracy") == 0.129
    assert value("7scenes", "sparse", "Point3R (final)", "normal_consistency") == 0.739
    assert (
        value("nrgbd", "long: every 2nd frame, the first 500", "InfiniteVGGT", "accuracy") == 0.08
    )
    assert (
        value("co3d-pose", "10 random frames, quantised", "VGGT, W4A4, QuantVGGT", "auc3") == 0.436
    )
    assert value("kitti-video", "one scale per sequence", "StreamVGGT", "delta1") == 0.721
    assert value("scannet-pose", "Sim(3)", "CUT3R", "ate") == 0.099
    assert value("long3d", "Library", "InfiniteVGGT", "chamfer") == 0.846


def test_one_method_in_two_papers_keeps_both_with_their_names():
    (table,) = [t for t in published_tables("sintel-pose") if t.setting == "Sim(3)"]
    ours = {row.source: row.values["ate"] for row in table.rows if row.method == "StreamVGGT"}
    assert ours == {"TTT3R": 0.251, "StreamVGGT": 0.219}


def test_what_was_not_found_is_absent_and_what_failed_says_so():
    (table,) = [t for t in published_tables("7scenes") if t.setting == "long: 1000 frames"]
    (row,) = [row for row in table.rows if row.method == "StreamVGGT"]
    assert row.remark == "out of memory"
    (table,) = published_tables("nyu-depth")
    assert all("abs_rel" in row.values for row in table.rows)


def test_costs_and_papers_are_named():
    costs = published_costs()
    assert all(cost.value > 0 and cost.source for cost in costs)
    newest = [c for c in costs if c.method == "StreamVGGT" and c.quantity.startswith("time")]
    assert {c.conditions: c.value for c in newest}["40 frames so far"] == 0.216
    assert arxiv_numbers()["StreamVGGT"] == "2507.11539"
