"""Finding: something worth knowing about a training set; Report: all of them with the numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["fault", "warning", "note"]
"""fault: training would learn something wrong; warning: it loses data; note: nothing to do."""

NAMED_FILES = 5
"""Files that a finding names; it counts the others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong or remarkable."""

    level: Level
    """How bad it is."""
    check: str
    """Row of the table it belongs to."""
    text: str
    """What was found, with numbers."""
    advice: str = ""
    """What to do about it."""
    files: tuple[str, ...] = ()
    """Which files, all of them."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was looked at, measured and found."""

    layout: str
    """Name of the layout."""
    folder: str
    """As given."""
    num_scenes: int
    """In the set."""
    num_frames: int
    """In the set."""
    looked_at: Mapping[str, int]
    """Scenes, frames and pairs of frames that the numbers come from."""
    measures: Mapping[str, float | str | None]
    """Numbers by name; None where there was nothing to measure."""
    findings: Sequence[Finding]
    """Worst first."""

    @property
    def is_usable(self) -> bool:
        """Whether no fault was found."""
        return all(finding.level != "fault" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **asdict(self),
            "measures": dict(self.measures),
            "findings": [asdict(finding) for finding in self.findings],
            "is_usable": self.is_usable,
        }


def names(files: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(files) - NAMED_FILES
    return ", ".join(files[:NAMED_FILES]) + (f" and {more} more" if more > 0 else "")
