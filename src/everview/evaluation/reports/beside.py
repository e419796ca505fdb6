"""Our rows beside the published ones; what was not measured here is said, never filled in."""

from collections.abc import Mapping, Sequence
from typing import Any

from everview.evaluation.benchmarks.clip import Benchmark
from everview.evaluation.benchmarks.registry import BENCHMARKS
from everview.evaluation.reports.blocks import MISSING, NOT_RUN, Row, Table, number, printed
from everview.evaluation.reports.published import (
    PublishedRow,
    PublishedTable,
    published_tables,
    set_sizes,
)
from everview.evaluation.reports.results import ResultFile
from everview.weights.catalog import CATALOG

KINDS = {
    "depth_single": "abs_rel",
    "depth_video": "abs_rel",
    "points": "accuracy",
    "poses": "auc30",
    "trajectory": "ate",
    "long": "ate",
}
"""Task -> the score by which clips are ordered and methods are drawn."""
SAME = {"weiszfeld": "scale"}
"""Alignments that have the same aim, so that their rows may stand in one table."""
STAND_IN = "generated data, not the set itself"
HEADS = {
    "accuracy": "Acc",
    "accuracy_median": "Acc med.",
    "completeness": "Comp",
    "completeness_median": "Comp med.",
    "normal_consistency": "NC",
    "normal_consistency_median": "NC med.",
    "chamfer": "CD",
    "abs_rel": "AbsRel",
    "sq_rel": "SqRel",
    "rmse": "RMSE",
    "log_rmse": "log RMSE",
    "delta1": "δ < 1.25",
    "delta2": "δ < 1.25²",
    "delta3": "δ < 1.25³",
    "ate": "ATE",
    "rpe_translation": "RPE-t",
    "rpe_rotation": "RPE-r °",
}
"""Score -> how the papers call it."""


def main_score(benchmark: Benchmark) -> str:
    """The score that stands for a benchmark."""
    return "chamfer" if benchmark.protocol.get("truth") == "scan" else KINDS[benchmark.task]


def head(score: str) -> str:
    """How a column is called."""
    return f"AUC@{score[3:]}" if score.startswith("auc") else HEADS.get(score, score)


def table_beside(
    published: PublishedTable, results: Sequence[ResultFile], benchmark: Benchmark
) -> Table:
    """A published table, with a row for every result and every known model without one.

    A row of ours has numbers only if it was measured in the setting of the table.

    Args:
        published: the table.
        results: all of this benchmark.
        benchmark: of the table.
    """
    rows = [
        Row(cells=(_named(row), *_printed(row, published.metrics), row.remark))
        for row in published.rows
    ]
    rows += [_our_row(published, result) for result in results]
    rows += [
        _absent(published, f"Everview: {model}", _needs(model, benchmark))
        for model in models_without(results)
    ]
    columns = ("method", *map(head, published.metrics), "remark")
    title = f"{published.setting} ({', '.join(published.source)})"
    return Table(columns=columns, rows=tuple(rows), words=(0, len(columns) - 1), title=title)


def models_without(results: Sequence[ResultFile]) -> list[str]:
    """Known checkpoints of which there is no result; one of each network."""
    ran = {result.model for result in results}
    of_preset = {checkpoint.preset: name for name, checkpoint in reversed(list(CATALOG.items()))}
    known = [name for name in CATALOG if name in of_preset.values()]
    return [name for name in known if not ran & {name, name.split("/")[-1]}]


def drawn_rows(
    published: PublishedTable, results: Sequence[ResultFile], score: str
) -> list[tuple[str, float, bool]]:
    """Method, value and whether it is ours, of all rows of a table that have the score."""
    rows = [
        (_named(row), row.values[score], False) for row in published.rows if score in row.values
    ]
    for result in results:
        value = value_of(result, score, published.clip)
        if value is not None and not reasons_against(published, result):
            rows.append((our_name(result), value, True))
    return rows


def value_of(result: ResultFile, score: str, clip: str | None) -> float | None:
    """The stated mean, or the score of one clip (compared without case, blanks and signs)."""
    if clip is None:
        return result.parts[0].summary.get(score, {}).get("mean")
    for found in result.parts[0].clips:
        if _plain(found.name) == _plain(clip):
            return found.scores.get(score)
    return None


def reasons_against(published: PublishedTable, result: ResultFile) -> list[str]:
    """Why a result cannot stand in a table: what was measured otherwise; empty if it can."""
    protocol = result.content["protocol"]
    reasons = [STAND_IN] if is_stand_in(result) else []
    reasons += [] if published.is_comparable else ["another protocol"]
    reasons += [] if published.clip else missing_part(result)
    for name, theirs in published.protocol.items():
        ours = protocol.get(name)
        if SAME.get(str(ours), ours) != theirs:
            reasons.append(f"{name} {_said(ours)}, not {_said(theirs)}")
    names = {_plain(clip.name) for clip in result.parts[0].clips}
    if published.clip is not None and _plain(published.clip) not in names:
        reasons.append(f"clip {published.clip} is not in it")
    return reasons


def is_stand_in(result: ResultFile) -> bool:
    """Whether the data were generated in the layout of a set, of which no published row is."""
    is_generated = bool(result.content["data"].get("generated", False))
    return is_generated and not BENCHMARKS[result.benchmark].is_generated


def missing_part(result: ResultFile) -> list[str]:
    """What a result has another number of than the whole set: it is a part, or another set."""
    clips = result.parts[0].clips
    ours = {"clips": len(clips), "frames": sum(clip.num_frames for clip in clips)}
    return [
        f"{ours[what]} {what}, the set has {' or '.join(map(str, numbers))}"
        for what, numbers in set_sizes(result.benchmark).items()
        if ours[what] not in numbers
    ]


def our_name(result: ResultFile) -> str:
    """How a row of ours is called."""
    memory = result.answered.get("memory")
    extra = f", memory {memory}" if memory not in (None, "full") else ""
    return f"Everview: {result.model}{extra}"


def remark(result: ResultFile) -> str:
    """How it was measured, in a few words."""
    protocol, data = result.content["protocol"], result.content["data"]
    scored, found = data["clips_scored"], data["clips_found"]
    part = [STAND_IN] if is_stand_in(result) else []
    part += [] if scored == found else [f"only {scored} of {found} clips"]
    usual = BENCHMARKS[result.benchmark].choice
    asked = [
        f"{name} {protocol[name]}"
        for name in ("stride", "frames")
        if protocol[name] != getattr(usual, name)
    ]
    size = str(protocol["resize"]).partition(",")[0]
    return ", ".join([*part, *asked, protocol["mode"], f"preset {protocol['preset']}", size])


def overview(results: Mapping[str, Sequence[ResultFile]], benchmarks: Sequence[Benchmark]) -> Table:
    """One line per benchmark: our number, StreamVGGT's, and the best published one."""
    rows = []
    for benchmark in benchmarks:
        score, ours = main_score(benchmark), results.get(benchmark.name, ())
        theirs = _usual(benchmark)
        for result in ours:
            shown = value_of(result, score, None)
            part = "; ".join(["", *missing_part(result)])
            name = f"{our_name(result)} ({remark(result)}{part})"
            if is_stand_in(result):
                rows.append(_overview_row(benchmark, score, (NOT_RUN, name), theirs, "absent"))
                continue
            rows.append(_overview_row(benchmark, score, (number(shown), name), theirs, "ours"))
        if not ours:
            rows.append(_overview_row(benchmark, score, (NOT_RUN, ""), theirs, "absent"))
    return Table(
        columns=("benchmark", "score", "ours", "measured here", "StreamVGGT", "best published"),
        rows=tuple(rows),
        words=(0, 1, 3, 4, 5),
    )


def _overview_row(
    benchmark: Benchmark,
    score: str,
    ours: tuple[str, str],
    theirs: PublishedTable | None,
    kind: Any,  # noqa: ANN401  -- of Row
) -> Row:
    stream, best = MISSING, MISSING
    if theirs is not None:
        found = [(row.values[score], row.method) for row in theirs.rows if score in row.values]
        value, method = (max if score.startswith("auc") else min)(found)
        best = f"{printed(value)} ({method})"
        streams = [value for value, method in found if method == "StreamVGGT"]
        stream = " / ".join(map(printed, streams)) or MISSING
    return Row(cells=(benchmark.title, head(score), *ours, stream, best), kind=kind)


def _usual(benchmark: Benchmark) -> PublishedTable | None:
    """The first published table about the whole set; None if there is none."""
    score = main_score(benchmark)
    for table in published_tables(benchmark.name):
        if table.is_comparable and table.clip is None and score in table.metrics:
            return table
    return None


def _our_row(published: PublishedTable, result: ResultFile) -> Row:
    against = reasons_against(published, result)
    if against:
        return _absent(published, our_name(result), f"measured with {'; '.join(against)}")
    values = (number(value_of(result, name, published.clip)) for name in published.metrics)
    words = f"{result.path.name}: {remark(result)}"
    return Row(cells=(our_name(result), *values, words), kind="ours")


def _absent(published: PublishedTable, name: str, why: str) -> Row:
    return Row(cells=(name, *(NOT_RUN for _ in published.metrics), why), kind="absent")


def _needs(model: str, benchmark: Benchmark) -> str:
    weights = "" if CATALOG[model].bundled else "its weights and "
    return f"no result given: needs {weights}the data ({benchmark.title})"


def _named(row: PublishedRow) -> str:
    """The method, with the paper where it stands in others than the table's with other numbers."""
    return f"{row.method} [{row.source}]" if row.source else row.method


def _printed(row: PublishedRow, metrics: Sequence[str]) -> list[str]:
    return [printed(row.values.get(name)) for name in metrics]


def _said(value: Any) -> str:  # noqa: ANN401  -- of a protocol
    return "as the set has it" if value is None else str(value)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
