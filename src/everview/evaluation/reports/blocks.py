"""What a report is made of, before it becomes Markdown or HTML."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

NOT_RUN = "not run"
"""Cell of what was not measured here: never a number."""
MISSING = "-"
"""Cell of a value that nobody has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A paragraph."""

    text: str
    kind: Literal["plain", "note"] = "plain"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of a table."""

    cells: tuple[str, ...]
    kind: Literal["plain", "ours", "absent"] = "plain"
    """`ours` was measured by us; `absent` was not measured here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows under a head."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    words: tuple[int, ...] = (0,)
    """Columns of words, set to the left; the others are numbers, set to the right."""
    title: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A plot or a picture."""

    name: str
    """Of its file beside the Markdown, without ending; unique in a report."""
    data: bytes
    kind: Literal["svg", "jpg"]
    caption: str


Block = Text | Table | Figure


@dataclass(kw_only=True, slots=True)
class Section:
    """A part of a report with a heading of its own."""

    title: str
    blocks: list["Block | Section"] = field(default_factory=list)
    is_folded: bool = False
    """Whether it is closed until somebody opens it, where the format can."""

    def figures(self) -> Iterator[Figure]:
        """All figures, in order."""
        for block in self.blocks:
            if isinstance(block, Figure):
                yield block
            elif isinstance(block, Section):
                yield from block.figures()


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A whole report."""

    title: str
    sections: tuple[Section, ...]

    def figures(self) -> Iterator[Figure]:
        """All figures, in order."""
        for section in self.sections:
            yield from section.figures()


def number(value: float | None) -> str:
    """A score for people: three decimals, more where a printed value has more; four figures."""
    if value is None:
        return MISSING
    if (value != 0 and abs(value) < 0.01) or abs(value) >= 1000:
        return f"{value:.3g}"
    return f"{value:.3f}"


def printed(value: float | None) -> str:
    """A published value with the digits of its table, three decimals at least."""
    if value is None:
        return MISSING
    return max(f"{value:.3f}", f"{value:g}", key=len)
