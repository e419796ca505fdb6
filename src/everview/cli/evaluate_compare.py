"""`everview eval compare`: why two results differ."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    from rich.console import Console

    from everview.evaluation.reports.compare import Comparison, ScoreDifference

PIPED_WIDTH = 140
"""Columns of tables where there is no terminal to ask for its width."""
LISTED = 5
"""Names of clips that are written out."""


@dataclass(frozen=True, kw_only=True)
class EvalCompare:
    """Explain the differences of two result files of `everview eval`.

    First whether they can be compared at all: the same data, frames and protocol. Then what else
    differs: weights, memory, precision, device, code. Then every score, with the mean difference of
    the clips that both hold and its 95 % interval.
    """

    a: Annotated[Path, tyro.conf.Positional]
    """A result file."""
    b: Annotated[Path, tyro.conf.Positional]
    """Another one, of the same benchmark."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """JSON file for all of it."""

    def run(self) -> int:
        """Return the exit code."""
        from rich.console import Console

        from everview.evaluation.reports.compare import compare
        from everview.evaluation.reports.results import read_result
        from everview.outputs.files import write_json

        found = compare(read_result(self.a), read_result(self.b))
        width = None if sys.stdout.isatty() else PIPED_WIDTH
        console = Console(width=width, highlight=False, markup=False)
        console.print(f"a: {self.a}\nb: {self.b}", soft_wrap=True)
        _print_settings(console, found)
        _print_scores(console, found)
        if self.out is not None:
            content = {"format": "everview comparison", "format_version": 1}
            content |= {"a": str(self.a), "b": str(self.b), "comparable": found.is_comparable}
            self.out.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.out, content | asdict(found))
            console.print(f"all of it: {self.out}", soft_wrap=True)
        return 0


def _print_settings(console: "Console", found: "Comparison") -> None:
    asked = [d for d in found.differences if d.matters]
    answered = [d for d in found.differences if not d.matters]
    for words in _about_clips(found):
        console.print(words, soft_wrap=True)
    if found.is_comparable:
        console.print("comparable: the same data, frames and protocol")
    else:
        console.print("NOT comparable as a whole: they do not answer the same question")
    for title, differences in (("not the same question", asked), ("who answered", answered)):
        for d in differences:
            words = f"{title}: {d.name}: {_shown(d.a)} against {_shown(d.b)}"
            console.print(words, soft_wrap=True)
    if not answered:
        console.print("who answered: no difference")


def _about_clips(found: "Comparison") -> list[str]:
    clips = found.clips
    words = [f"clips: {clips.same} in both with the same frames"]
    for names, what in (
        (clips.other_frames, "in both with other frames"),
        (clips.only_a, "only in a"),
        (clips.only_b, "only in b"),
    ):
        if names:
            more = ", ..." if len(names) > LISTED else ""
            words.append(f"clips: {len(names)} {what}: {', '.join(names[:LISTED])}{more}")
    return words


def _print_scores(console: "Console", found: "Comparison") -> None:
    from rich.table import Table

    parts = list(dict.fromkeys(score.part for score in found.scores))
    for part in parts:
        table = Table(title=part or None, header_style="bold", title_justify="left")
        for title in ("score", "better"):
            table.add_column(title)
        for title in ("a", "b", "pairs", "b - a", "95 % interval"):
            table.add_column(title, justify="right")
        table.add_column("of the pairs")
        for score in found.scores:
            if score.part == part:
                table.add_row(*_row(score))
        console.print(table)
    console.print(
        "a, b: means as the files state them; b - a: mean over pairs of clips with the same frames"
    )


def _row(score: "ScoreDifference") -> list[str]:
    interval = "-"
    if score.interval is not None:
        interval = f"{score.interval[0]:+.3g} .. {score.interval[1]:+.3g}"
    difference = "-" if score.difference is None else f"{score.difference:+.4g}"
    return [
        score.score, score.better, _number(score.a), _number(score.b), str(score.pairs),
        difference, interval, score.verdict or "-",
    ]  # fmt: skip


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _shown(value: Any) -> str:  # noqa: ANN401  -- whatever stands in a result
    text = "not stated" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
