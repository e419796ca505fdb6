"""`everview eval`: one benchmark, a table to read and a JSON file to keep."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 120
"""Columns of the table where there is no terminal to ask for its width."""


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Measure how good a model is: errors, beside those of guesses that look at no image.

    procedural: rooms that no training has seen, with exact truth; needs no data.
    """

    benchmark: Annotated[Literal["procedural"], tyro.conf.Positional]
    """procedural: held-out rooms of `everview.world`, streamed frame by frame."""
    model: str = "mini"
    """Anything `everview.load` takes."""
    clips: int = 50
    """Clips per group; the groups differ in the motion between frames (speed 1 and 3)."""
    frames: int = 16
    """Frames of each clip."""
    memory: str = "full"
    """Memory policy."""
    precision: str = "auto"
    """float32, bfloat16 or float16; auto is float32 on a CPU and bfloat16 on CUDA."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes the fastest."""
    threads: int | None = None
    """Threads of the CPU; all cores if left out."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """JSON file for all numbers, of every clip too; none if left out."""

    def run(self) -> int:
        """Return the exit code."""
        import torch
        from rich.console import Console

        from everview.evaluation.procedural import ProceduralSettings, evaluate_procedural
        from everview.weights.load import load

        settings = ProceduralSettings(clips=self.clips, frames=self.frames, memory=self.memory)
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        network = load(self.model, device=self.device, precision=self.precision)
        console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)
        with console.status("rendering rooms for the trivial guesses") as status:
            result = evaluate_procedural(
                network,
                settings,
                progress=lambda done, total: status.update(f"clip {done} of {total}"),
            )
        if self.out is not None:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.out.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
        _print_result(console, result)
        if self.out is not None:
            console.print(f"all numbers: {self.out}", soft_wrap=True)
        return 0


def _print_result(console: "Console", result: dict[str, Any]) -> None:
    settings = result["settings"]
    console.print(
        f"{settings['clips']} clips of {settings['frames']} frames per group, streamed; "
        f"memory {settings['memory']}; mean over clips ± standard error"
    )
    for group in result["groups"]:
        _print_group(console, group)
    for name, meaning in result["metrics"].items():
        console.print(f"{name}: {meaning}")


def _print_group(console: "Console", group: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(title=f"speed {group['speed']:g}", header_style="bold", title_justify="left")
    table.add_column("score")
    for title in ("model", "median", "best guess", "model better in"):
        table.add_column(title, justify="right")
    table.add_column("which guess")
    for name, score in group["scores"].items():
        guess = _best_guess(name, score["baselines"])
        facts = score["baselines"][guess]
        table.add_row(
            name, _mean(score), _number(score.get("median")), _mean(facts),
            "-" if facts["better_in"] is None else f"{facts['better_in']:.0%}",
            guess.replace("_", " "),
        )  # fmt: skip
    console.print(table)


def _best_guess(score: str, baselines: dict[str, dict[str, Any]]) -> str:
    """The strongest of the trivial guesses."""
    from everview.evaluation.sequence_scores import HIGHER_IS_BETTER

    sign = -1 if score in HIGHER_IS_BETTER else 1
    return min(baselines, key=lambda guess: sign * baselines[guess].get("mean", float("inf")))


def _mean(facts: dict[str, Any]) -> str:
    error = facts.get("standard_error")
    return _number(facts.get("mean")) + ("" if error is None else f" ± {error:.2g}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
