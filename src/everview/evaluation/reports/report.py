"""A report on disk: Markdown with its figures, and one HTML page that needs nothing else."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from everview.evaluation.reports.blocks import Report
from everview.evaluation.reports.html import html
from everview.evaluation.reports.inputs import read_inputs
from everview.evaluation.reports.markdown import FIGURES, figure_file, markdown
from everview.evaluation.reports.sections import build
from everview.outputs.files import replace_file

PAGE, TEXT = "report.html", "report.md"


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What a report consists of."""

    html: Path
    markdown: Path
    num_results: int
    skipped: tuple[str, ...]
    """Files that were left out, and why."""


def report(files: Iterable[Path], out: Path, *, cases: int = 1) -> Written:
    """Write a report about result files.

    Args:
        files: results of `everview eval`; a folder stands for all its `.json`.
        out: folder, made if it is not there.
        cases: see `everview.evaluation.reports.sections.build`.

    Raises:
        ConfigError: if no file is named.
        InputError: if a result is damaged, or none of the files is one; names it.
        MissingExtraError: if matplotlib is not installed.
    """
    inputs = read_inputs(files)
    write(build(inputs, cases=cases), out)
    count = len(inputs.results) + len(inputs.latency)
    return Written(html=out / PAGE, markdown=out / TEXT, num_results=count, skipped=inputs.skipped)


def write(content: Report, out: Path) -> None:
    """Write a report that was put together; each file is replaced in one step."""
    (out / FIGURES).mkdir(parents=True, exist_ok=True)
    pages = {PAGE: html(content), TEXT: markdown(content)}
    files = {figure_file(figure): figure.data for figure in content.figures()}
    files |= {name: text.encode() for name, text in pages.items()}
    for name, data in files.items():
        replace_file(out / name, partial(_fill, data))


def _fill(data: bytes, path: Path) -> None:
    path.write_bytes(data)
