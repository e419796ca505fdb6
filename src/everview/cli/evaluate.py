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
    """Measure how good a model is, on a benchmark of `everview eval list`.

    procedural: rooms that no training has seen, beside guesses that look at no image; needs no
    data. longworld: long procedural streams; needs no data. All others read `--data`, the folder
    of a set in its official layout. Predictions are stored beside the result, in
    NAME.predictions: a run that was stopped goes on there, and `--rescore` needs nothing else.
    """

    benchmark: Annotated[str, tyro.conf.Positional]
    """procedural, or a name of `everview eval list`."""
    data: Path | None = None
    """Folder of the set; none for procedural and longworld."""
    model: str = "mini"
    """Anything `everview.load` takes."""
    clips: int = 50
    """procedural: clips per group; the groups differ in motion (speed 1 and 3)."""
    limit: int | None = None
    """Only so many clips, for a smoke run; all if left out."""
    frames: int | None = None
    """At most so many frames of each clip; procedural: 16, others: as published."""
    stride: int | None = None
    """Every n-th frame; as published if left out."""
    seed: int = 0
    """Of drawn frames, thinned clouds and long worlds."""
    preset: Literal["strict", "paper"] = "strict"
    """strict: exact optima; paper: as published, quirks included."""
    alignment: str | None = None
    """Of depth: none, median, scale, weiszfeld; of trajectories: none, scale, se3, sim3."""
    mode: Literal["streaming", "offline", "single"] | None = None
    """Frame by frame, all at once, or each frame by itself; as the benchmark does if left out."""
    memory: str = "full"
    """Memory policy."""
    precision: str = "auto"
    """float32, bfloat16 or float16; auto is float32 on a CPU and bfloat16 on CUDA."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes the fastest."""
    threads: int | None = None
    """Threads of the CPU; all cores if left out."""
    rescore: bool = False
    """Score the stored predictions again; no network is loaded."""
    deterministic: bool = False
    """No times and no machine in the result: two equal runs give equal bytes."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """JSON file for all numbers, of every clip too; only procedural goes without."""

    def run(self) -> int:
        """Return the exit code."""
        import torch

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        return self._procedural() if self.benchmark == "procedural" else self._benchmark()

    def _benchmark(self) -> int:
        from everview.cli.evaluate_benchmark import BenchmarkCall, run_benchmark
        from everview.errors import ConfigError
        from everview.evaluation.benchmarks.clip import Choice
        from everview.evaluation.benchmarks.registry import benchmark_named

        benchmark_named(self.benchmark)
        if self.out is None:
            raise ConfigError(f"name the result: everview eval {self.benchmark} ... -o result.json")
        choice = Choice(stride=self.stride, frames=self.frames, seed=self.seed, preset=self.preset)
        return run_benchmark(
            BenchmarkCall(
                benchmark=self.benchmark, data=self.data, out=self.out, model=self.model,
                choice=choice, limit=self.limit, mode=self.mode, memory=self.memory,
                precision=self.precision, device=self.device, alignment=self.alignment,
                rescore=self.rescore, deterministic=self.deterministic,
            )
        )  # fmt: skip

    def _procedural(self) -> int:
        from rich.console import Console

        from everview.evaluation.procedural import ProceduralSettings, evaluate_procedural
        from everview.weights.load import load

        frames = 16 if self.frames is None else self.frames
        settings = ProceduralSettings(clips=self.clips, frames=frames, memory=self.memory)
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


@dataclass(frozen=True, kw_only=True)
class EvalList:
    """List the benchmarks: what each compares, the files that it needs, where they come from."""

    def run(self) -> int:
        """Return the exit code."""
        from everview.cli.evaluate_benchmark import list_benchmarks

        return list_benchmarks()


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
