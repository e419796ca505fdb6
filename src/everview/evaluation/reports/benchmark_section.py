"""The section of a benchmark: scores, published tables, clips, curves."""

from collections.abc import Mapping, Sequence
from typing import Any

from everview.evaluation.benchmarks.clip import Benchmark
from everview.evaluation.protocols.points import UNIT
from everview.evaluation.reports import plots
from everview.evaluation.reports.beside import (
    drawn_rows,
    head,
    main_score,
    our_name,
    reasons_against,
    remark,
    table_beside,
)
from everview.evaluation.reports.blocks import (
    MISSING,
    Block,
    Figure,
    Row,
    Section,
    Table,
    Text,
    number,
)
from everview.evaluation.reports.cases import Case, case_pictures
from everview.evaluation.reports.published import PublishedTable, published_tables
from everview.evaluation.reports.results import ClipResult, Part, ResultFile

FEWEST = 3
"""Clips below which a plot of clips shows nothing."""
CURVES = {
    "position_error": ("frame", "position error", "frame of the stream"),
    "abs_rel": ("dense_frame", "AbsRel, one scale per clip", "frame of the stream"),
}
"""Curve -> the curve of its x axis, words for y, words for x."""
RELIABILITY = ("confidence", "confidence_error")


def benchmark_section(benchmark: Benchmark, results: Sequence[ResultFile], cases: int) -> Section:
    """Everything about one benchmark that was run."""
    section = Section(title=benchmark.title)
    score = main_score(benchmark)
    section.blocks += map(_scores, results)
    section.blocks += [_skipped(result) for result in results if result.content["data"]["skipped"]]
    section.blocks += _published(benchmark, results, score)
    for i, result in enumerate(results):
        section.blocks += _clips(result, score, f"{benchmark.name}-{i}", cases)
    section.blocks += _curves(benchmark.name, results)
    return section


def _published(
    benchmark: Benchmark, results: Sequence[ResultFile], score: str
) -> list[Block | Section]:
    """Tables in which a result can stand, then the others, folded."""
    tables = published_tables(benchmark.name)
    if not tables:
        return [Text(text="No paper measures on this benchmark.", kind="note")]
    ours = [t for t in tables if any(not reasons_against(t, result) for result in results)]
    shown = ours or tables[:1]
    blocks: list[Block | Section] = []
    for table in shown:
        blocks += table_blocks(table, results, benchmark)
    if ours and score in ours[0].metrics:
        blocks.append(
            plots.beside_published(
                f"{benchmark.name}-published", head(score), drawn_rows(ours[0], results, score),
                is_higher_better=score.startswith("auc"),
            )
        )  # fmt: skip
    others = [table for table in tables if table not in shown]
    if others:
        count = f"{len(others)} table{'s' if len(others) > 1 else ''}"
        folded = Section(title=f"Other published settings: {count}", is_folded=True)
        for table in others:
            folded.blocks += table_blocks(table, results, benchmark)
        blocks.append(folded)
    return blocks


def table_blocks(
    table: PublishedTable, results: Sequence[ResultFile], benchmark: Benchmark
) -> list[Block]:
    """A published table with our results in it, and what its paper says of the setting."""
    blocks: list[Block] = [table_beside(table, results, benchmark)]
    if table.note:
        blocks.append(Text(text=f"{table.setting}: {table.note}.", kind="note"))
    return blocks


def _scores(result: ResultFile) -> Table:
    """All scores of a result, with their uncertainty."""
    rows = tuple(
        Row(cells=_score_cells(result, name, facts), kind="ours")
        for name, facts in result.parts[0].summary.items()
    )
    columns = ("score", "mean", "± standard error", "median", "clips", "meaning")
    title = f"Measured here: {result.model}, {remark(result)} ({result.path.name})"
    return Table(columns=columns, rows=rows, words=(0, 5), title=title)


def _score_cells(result: ResultFile, name: str, facts: Mapping[str, Any]) -> tuple[str, ...]:
    metric = result.metrics[name]
    unit = metric.unit
    if unit == UNIT:
        unit = result.content["protocol"].get("unit", UNIT)
    words = f"{metric.meaning}{f' ({unit})' if unit else ''}; {metric.better} is better"
    return (
        head(name), number(facts.get("mean")),
        number(facts.get("standard_error")), number(facts.get("median")),
        str(facts.get("clips", 0)), words,
    )  # fmt: skip


def _skipped(result: ResultFile) -> Text:
    skipped = result.content["data"]["skipped"]
    said = "; ".join(f"{entry['clip']}: {entry['reason']}" for entry in skipped)
    return Text(text=f"{result.path.name}: {len(skipped)} clips skipped: {said}", kind="note")


def _clips(
    result: ResultFile, score: str, name: str, cases: int, part: Part | None = None
) -> list[Block | Section]:
    """The spread over clips, then pictures of the best and the worst."""
    part = part or result.parts[0]
    is_higher_better = result.metrics[score].better == "higher"
    values = {clip.name: clip.scores[score] for clip in part.clips if score in clip.scores}
    mean = part.summary.get(score, {}).get("mean")
    blocks: list[Block | Section] = []
    if len(values) >= FEWEST and mean is not None:
        blocks.append(
            plots.clip_scores(
                f"{name}-clips", head(score), values, is_higher_better=is_higher_better, mean=mean
            )
        )
    ordered = sorted(values, key=lambda clip: (values[clip], clip), reverse=is_higher_better)
    pictures = case_pictures(result, _cases(ordered, values, score, cases), f"{name}-case")
    if pictures:
        blocks.append(Text(text=f"{our_name(result)}: best and worst clips by {head(score)}."))
        blocks += pictures
    else:
        words = f"{result.path.name}: its predictions are not on disk, so no clip is shown."
        blocks.append(Text(text=words, kind="note"))
    return blocks


def _cases(
    ordered: Sequence[str], values: Mapping[str, float], score: str, count: int
) -> list[Case]:
    """The best, then the worst; no clip twice."""
    count = min(count, len(ordered))
    best, worst = list(ordered[:count]), list(reversed(ordered[-count:])) if count else []
    if len(ordered) == 1:
        return [Case(name=ordered[0], words=f"the only clip: {_said(score, values, ordered[0])}")]
    found = [Case(name=clip, words=f"best: {_said(score, values, clip)}") for clip in best]
    return found + [
        Case(name=clip, words=f"worst: {_said(score, values, clip)}")
        for clip in worst
        if clip not in best
    ]


def _said(score: str, values: Mapping[str, float], clip: str) -> str:
    return f"{head(score)} {number(values[clip])}"


def _curves(name: str, results: Sequence[ResultFile]) -> list[Figure]:
    """Drift over the stream and reliability of confidence, where results hold them."""
    named = [(_label(result, clip, results), clip) for result in results
             for clip in result.parts[0].clips]  # fmt: skip
    figures = []
    for curve, (x, y_words, x_words) in CURVES.items():
        data = [(label, *_pairs(clip, x, curve)) for label, clip in named if curve in clip.curves]
        if data:
            caption = f"{y_words} over the stream, one line per clip."
            figures.append(
                plots.lines(f"{name}-{curve}", data, x=x_words, y=y_words, caption=caption)
            )
    x, y = RELIABILITY
    data = [(label, *_pairs(clip, x, y)) for label, clip in named if y in clip.curves]
    if data:
        caption = (
            "Reliability: mean of |p - g| / g by the confidence of the depth head (its range in "
            "brackets). A confidence that is worth something falls from left to right."
        )
        figures.append(plots.reliability(f"{name}-reliability", data, caption))
    return figures


def _label(result: ResultFile, clip: ClipResult, results: Sequence[ResultFile]) -> str:
    return f"{result.path.stem}: {clip.name}" if len(results) > 1 else clip.name


def _pairs(clip: ClipResult, x: str, y: str) -> tuple[list[float], list[float]]:
    """Both curves, without what has no value."""
    pairs = zip(clip.curves[x], clip.curves[y], strict=True)
    found = [(a, b) for a, b in pairs if a is not None and b is not None]
    return [a for a, _ in found], [b for _, b in found]


def own_section(result: ResultFile, which: int) -> Section:
    """Procedural places and recorded footage: beside trivial guesses and a classical method."""
    section = Section(title=f"{result.benchmark.capitalize()}: {result.path.stem}")
    words = (
        "Ours beside the best of the trivial guesses, and of the classical baseline where it ran, "
        "on the same clips."
    )
    section.blocks.append(Text(text=words))
    for i, part in enumerate(result.parts):
        section.blocks.append(_guesses(result, part))
        values = {c.name: c.scores["abs_rel"] for c in part.clips if "abs_rel" in c.scores}
        mean = part.summary.get("abs_rel", {}).get("mean")
        if len(values) >= FEWEST and mean is not None:
            name = f"{result.benchmark}-{which}-{i}-clips"
            section.blocks.append(
                plots.clip_scores(name, "AbsRel", values, is_higher_better=False, mean=mean)
            )
    section.blocks.append(_meanings(result))
    for sequence in result.content.get("sequences", ()):
        floor = [sequence["noise_floor"]] if sequence.get("noise_floor") else []
        for words in [*floor, *sequence.get("remarks", [])]:
            section.blocks.append(Text(text=f"{sequence['name']}: {words}", kind="note"))
    return section


def _guesses(result: ResultFile, part: Part) -> Table:
    rows = []
    for name, facts in part.summary.items():
        metric = result.metrics[name]
        found = facts.get("baselines", {})
        guesses = {n: f["mean"] for n, f in found.items() if f.get("mean") is not None}
        choose = max if metric.better == "higher" else min
        best = choose(guesses, key=guesses.__getitem__) if guesses else None
        wins = None if best is None else found[best].get("better_in")
        cells = (
            name, number(facts.get("mean")), number(facts.get("standard_error")),
            number(guesses[best] if best else None), (best or MISSING).replace("_", " "),
            MISSING if wins is None else f"{100 * wins:.0f} %",
            str(facts.get("clips", 0)), metric.better,
        )  # fmt: skip
        rows.append(Row(cells=cells, kind="ours"))
    columns = (
        "score", result.model, "± standard error", "best other", "which", "ours better in", "clips",
        "better is",
    )  # fmt: skip
    return Table(columns=columns, rows=tuple(rows), words=(0, 4, 7), title=part.title)


def _meanings(result: ResultFile) -> Section:
    """What each score is, once."""
    rows = tuple(
        Row(cells=(name, f"{metric.meaning}; {metric.better} is better"))
        for name, metric in result.metrics.items()
    )
    table = Table(columns=("score", "meaning"), rows=rows, words=(0, 1))
    return Section(title="What the scores mean", blocks=[table], is_folded=True)
