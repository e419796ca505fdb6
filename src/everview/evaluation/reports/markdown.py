"""A report as Markdown, with its figures as files beside it."""

from collections.abc import Iterator

from everview.evaluation.reports.blocks import (
    NOT_RUN,
    Block,
    Figure,
    Report,
    Row,
    Section,
    Table,
    Text,
)

FIGURES = "figures"
"""Folder beside the page."""


def markdown(report: Report) -> str:
    """The page; figures are files in `FIGURES`."""
    lines = [f"# {_escaped(report.title)}", ""]
    for section in report.sections:
        lines.extend(_section(section, 2))
    return "\n".join(lines).rstrip() + "\n"


def figure_file(figure: Figure) -> str:
    """Path of a figure, relative to the page."""
    return f"{FIGURES}/{figure.name}.{figure.kind}"


def _section(section: Section, depth: int) -> Iterator[str]:
    yield f"{'#' * depth} {_escaped(section.title)}"
    yield ""
    for block in section.blocks:
        if isinstance(block, Section):
            yield from _section(block, depth + 1)
        else:
            yield from _block(block)
            yield ""


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Text):
        text = _escaped(block.text)
        yield f"> {text}" if block.kind == "note" else text
    elif isinstance(block, Figure):
        yield f"![{_escaped(block.caption)}]({figure_file(block)})"
        yield ""
        yield f"*{_escaped(block.caption)}*"
    else:
        yield from _table(block)


def _table(table: Table) -> Iterator[str]:
    if table.title:
        yield f"**{_escaped(table.title)}**"
        yield ""
    yield _line(map(_escaped, table.columns))
    yield _line(":--" if i in table.words else "--:" for i in range(len(table.columns)))
    for row in table.rows:
        yield _line(_cells(row))


def _cells(row: Row) -> Iterator[str]:
    for cell in row.cells:
        text = _escaped(cell)
        if cell == NOT_RUN:
            yield f"*{text}*"
        else:
            yield f"**{text}**" if row.kind == "ours" and text else text


def _line(cells: Iterator[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Without what Markdown takes for its own."""
    for mark in ("\\", "|", "*", "_", "<", "`", "["):
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
