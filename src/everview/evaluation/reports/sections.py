"""A report: its sections and their order."""

from collections.abc import Mapping, Sequence
from typing import Any

from everview.evaluation.benchmarks.registry import BENCHMARKS
from everview.evaluation.reports import plots
from everview.evaluation.reports.benchmark_section import (
    benchmark_section,
    own_section,
    table_blocks,
)
from everview.evaluation.reports.beside import overview
from everview.evaluation.reports.blocks import MISSING, Block, Report, Row, Section, Table, Text
from everview.evaluation.reports.inputs import Inputs
from everview.evaluation.reports.published import arxiv_numbers, published_costs, published_tables
from everview.evaluation.reports.results import ResultFile

OWN = ("procedural", "recording")
"""Benchmarks that stand beside trivial guesses, not beside papers."""


def build(inputs: Inputs, *, cases: int = 1) -> Report:
    """Put a report together.

    Args:
        inputs: result files.
        cases: how many of the best and of the worst clips are shown, where predictions are there.

    Raises:
        MissingExtraError: if matplotlib is not installed.
    """
    by_name = {name: [r for r in inputs.results if r.benchmark == name] for name in BENCHMARKS}
    sections = [_about(inputs), _overview(by_name)]
    for name, benchmark in BENCHMARKS.items():
        if by_name[name]:
            sections.append(benchmark_section(benchmark, by_name[name], cases))
    sections += [own_section(r, n) for n, r in enumerate(inputs.results) if r.benchmark in OWN]
    if inputs.latency:
        sections.append(_latency(inputs.latency))
    sections += [_costs(), _not_run(by_name), _sources()]
    return Report(title="Everview: evaluation report", sections=tuple(sections))


def _about(inputs: Inputs) -> Section:
    """What is in it."""
    rows = []
    for result in inputs.results:
        facts, protocol = result.answered, result.content.get("protocol", {})
        clips = sum(len(part.clips) for part in result.parts)
        weights = str(facts.get("weights hash") or MISSING)[:12]
        cells = (
            result.path.name, result.benchmark, result.model, weights,
            str(protocol.get("mode") or facts.get("mode") or MISSING),
            str(facts.get("memory") or MISSING), f"{facts.get('dtype')}, {facts.get('device')}",
            str(facts.get("commit") or facts.get("code version") or MISSING)[:10], str(clips),
        )  # fmt: skip
        rows.append(Row(cells=cells))
    columns = (
        "file", "benchmark", "model", "weights", "mode", "memory", "computed in", "code", "clips",
    )  # fmt: skip
    table = Table(columns=columns, rows=tuple(rows), words=tuple(range(8)))
    blocks: list[Block | Section] = [
        Text(
            text="Green rows were measured here, by the runs listed below. All other numbers are "
            "as printed in the papers. Where weights or data are not available, a row says "
            "“not run”; nothing is filled in."
        ),
        table,
    ]
    if inputs.skipped:
        words = "; ".join(inputs.skipped)
        blocks.append(Text(text=f"Left out, no results of everview eval: {words}.", kind="note"))
    return Section(title="What was run", blocks=blocks)


def _overview(by_name: Mapping[str, Sequence[ResultFile]]) -> Section:
    table = overview(by_name, list(BENCHMARKS.values()))
    words = (
        "One score per benchmark, over all clips of a result. Whether a row can stand beside the "
        "published ones is said in the section of the benchmark."
    )
    return Section(title="Overview", blocks=[Text(text=words), table])


def _latency(contents: Sequence[Mapping[str, Any]]) -> Section:
    """Time of the newest frame, streaming against all frames again; published beside."""
    section = Section(title="Latency")
    for i, content in enumerate(contents):
        newest = content["streaming_seconds"]
        data = [(f"{content['model']}, streaming", list(range(1, len(newest) + 1)), newest)]
        again = {int(n): value for n, value in content.get("offline_seconds", {}).items()}
        if again:
            label = f"{content['model']}, all frames again"
            data.append((label, list(again), list(again.values())))
        machine = content.get("machine") or {}
        where = machine.get("accelerator") or machine.get("processor") or "unknown machine"
        caption = (
            f"Seconds for the newest frame: {content['model']}, {content.get('precision')}, "
            f"{where}; dots: as published for the 1.26 billion parameters of StreamVGGT on another "
            "machine, so the shape can be compared, not the height."
        )
        section.blocks.append(
            plots.lines(
                f"latency-{i}", data, x="frames so far", y="seconds", caption=caption, log=True,
                dots=_published_latency(),
            )
        )  # fmt: skip
    return section


def _published_latency() -> list[plots.Line]:
    found = [
        (float(cost.conditions.split()[0]), cost.value)
        for cost in published_costs()
        if cost.quantity.startswith("time of the newest") and cost.method == "StreamVGGT"
    ]
    return [("StreamVGGT, as published", [n for n, _ in found], [value for _, value in found])]


def _costs() -> Section:
    rows = tuple(
        Row(cells=(c.quantity, c.method, c.conditions, f"{c.value:g} {c.unit}".strip(), c.source))
        for c in published_costs()
    )
    columns = ("quantity", "method", "conditions", "value", "table of")
    table = Table(columns=columns, rows=rows, words=(0, 1, 2, 4))
    folded = Section(title="Published times and memory", blocks=[table], is_folded=True)
    return Section(title="Published costs", blocks=[folded])


def _not_run(by_name: Mapping[str, Sequence[ResultFile]]) -> Section:
    """Published tables of what has no result here."""
    section = Section(title="Not run here")
    for name, benchmark in BENCHMARKS.items():
        if by_name[name]:
            continue
        data = "nothing" if benchmark.is_generated else f"{benchmark.layout}; {benchmark.source}"
        words = f"everview eval {name} was not run, or its result was not given. Data: {data}"
        blocks: list[Block | Section] = [Text(text=words)]
        for table in published_tables(name):
            blocks += table_blocks(table, (), benchmark)
        section.blocks.append(Section(title=benchmark.title, blocks=blocks, is_folded=True))
    if not section.blocks:
        section.blocks.append(Text(text="Every benchmark has a result."))
    return section


def _sources() -> Section:
    named = ", ".join(f"{paper} {number}" for paper, number in arxiv_numbers().items())
    words = (
        "Published numbers were transcribed from the papers and from tables that repeat them; rows "
        "of one method differ between papers by up to 15 % in AbsRel and a factor of three in ATE. "
        f"Papers at arXiv: {named}."
    )
    return Section(title="Sources", blocks=[Text(text=words)])
