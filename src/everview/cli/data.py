"""`everview data`: is a training set what its reader takes it for?"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from everview.training.datasets.inspection.finding import Report

PIPED_WIDTH = 120
"""Columns of the table where there is no terminal to ask for its width."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Check a training set before a long run: units, axes, depth, poses, damaged files.

    Ends with 0 if the set can be used, with 3 if a fault was found. docs/data.md lists the layouts.
    """

    action: Annotated[Literal["check"], tyro.conf.Positional]
    """check: look at some frames and say what is wrong and what to do about it."""
    folder: Annotated[Path, tyro.conf.Positional]
    """Folder that holds the scenes of one set; also a recording, a video or a folder of images."""
    layout: Annotated[str | None, tyro.conf.arg(name="set")] = None
    """Name of the set, such as co3d; recognised from its files if left out."""
    split: str = "train"
    """Which list of scenes counts, in sets that have such lists."""
    scenes: int = 20
    """Scenes that are looked at, evenly spread over the set."""
    frames: int = 8
    """Frames of each scene that are decoded."""
    every_file: tyro.conf.FlagCreatePairsOff[bool] = False
    """Decode every frame of these scenes, to find damaged files."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object instead of a table."""

    def run(self) -> int:
        """Print; returns the exit code."""
        from everview.errors import ConfigError, InputError
        from everview.training.datasets.inspection.inspector import inspect_dataset
        from everview.training.datasets.inspection.views import InspectionSettings
        from everview.training.datasets.recognise import open_dataset

        if self.scenes < 1 or self.frames < 2:
            raise ConfigError(
                f"--scenes must be 1 or more and --frames 2 or more; got {self.scenes} and "
                f"{self.frames}"
            )
        dataset = open_dataset(self.folder, self.layout, split=self.split)
        settings = InspectionSettings(
            scenes=self.scenes, frames=self.frames, every_file=self.every_file
        )
        report = inspect_dataset(dataset, self.folder, settings)
        if self.json:
            sys.stdout.write(json.dumps(report.as_dict(), indent=1, allow_nan=False) + "\n")
        else:
            _print_report(report)
        return 0 if report.is_usable else InputError.exit_code


ROWS = {
    "files": (),
    "shapes": (),
    "rotations": ("finite_poses", "rotation_error"),
    "intrinsics": ("field_of_view",),
    "depth": ("valid_share", "median_depth"),
    "reprojection": ("reprojection_error", "identity_error", "overlap"),
}
"""Rows of the table and the numbers in them."""

WORDS = {
    "finite_poses": "finite {:.0%}",
    "rotation_error": "R R^T off by {:.1e}",
    "field_of_view": "{:.0f} degrees wide",
    "valid_share": "valid {:.0%}",
    "median_depth": "median {:.3g}",
    "reprojection_error": "error {:.2%}",
    "identity_error": "without motion {:.2%}",
    "overlap": "overlap {:.0%}",
}
"""How a number is shown."""


def _print_report(report: "Report") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)
    looked_at = ", ".join(f"{number} {what}" for what, number in report.looked_at.items())
    console.print(
        f"{report.folder}: {report.layout}, {report.num_scenes} scenes, {report.num_frames} "
        f"frames; looked at {looked_at}",
        soft_wrap=True,
    )
    table = Table(header_style="bold")
    for title in ("check", "measured", "verdict"):
        table.add_column(title)
    for check, names in ROWS.items():
        table.add_row(check, _measured(report, names), _verdict(report, check))
    console.print(table)
    for finding in report.findings:
        console.print(f"{finding.level}: {finding.check}: {finding.text}", soft_wrap=True)
        if finding.advice:
            console.print(f"  -> {finding.advice}", soft_wrap=True)


def _measured(report: "Report", names: tuple[str, ...]) -> str:
    values = [(name, report.measures.get(name)) for name in names]
    return ", ".join(WORDS[name].format(value) for name, value in values if value is not None)


def _verdict(report: "Report", check: str) -> str:
    levels = [finding.level for finding in report.findings if finding.check == check]
    if levels:
        return levels[0]
    is_measured = not ROWS[check] or bool(_measured(report, ROWS[check]))
    return "good" if is_measured else "not measured"
