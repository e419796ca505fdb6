"""The half of `everview eval` that runs the benchmarks of `everview eval list`."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from everview.evaluation.benchmarks.clip import Choice
    from everview.evaluation.runs.run import RunSettings
    from everview.evaluation.runs.store import RunStore

PIPED_WIDTH = 120
"""Columns of tables where there is no terminal to ask for its width."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkCall:
    """What the command line says of one run."""

    benchmark: str
    data: Path | None
    out: Path
    model: str
    asked: Mapping[str, Any]
    """Entries of a `Choice`; None what was left out."""
    limit: int | None
    mode: str | None
    memory: str
    precision: str
    device: str
    alignment: str | None
    rescore: bool
    deterministic: bool


def run_benchmark(call: BenchmarkCall) -> int:
    """Predict unless only the scores are wanted, score, write and print; the exit code."""
    from everview.evaluation.runs.run import score
    from everview.outputs.files import write_json

    settings, console = _settings(call), _console()
    if not call.rescore:
        _predict(call, settings, console)
    with console.status("scoring"):
        result = score(settings, alignment=call.alignment)
    call.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(call.out, result)
    _print_result(console, result)
    console.print(f"all numbers: {call.out}", soft_wrap=True)
    return 0


def list_benchmarks() -> int:
    """Print what there is, what it needs and where it comes from."""
    from rich.table import Table

    from everview.evaluation.benchmarks.registry import BENCHMARKS

    table = Table(header_style="bold", show_lines=True)
    for title in ("benchmark", "compares", "files below --data", "from"):
        table.add_column(title, overflow="fold")
    table.add_row("procedural", "everything, on short clips", "none", "everview.world")
    table.add_row(
        "recording",
        "cameras, and depth where it is known, in windows",
        "a folder that everview run or world wrote, or with a sequence.json",
        "footage of your own",
    )
    for benchmark in BENCHMARKS.values():
        task = benchmark.task.replace("_", ", ")
        table.add_row(benchmark.name, task, benchmark.layout, benchmark.source)
    _console().print(table, markup=False)
    return 0


def _console() -> "Console":
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)


def _settings(call: BenchmarkCall) -> "RunSettings":
    """Check the call, as far as it needs no data.

    Raises:
        ConfigError: if the benchmark is unknown or its data are not named.
    """
    from everview.errors import ConfigError
    from everview.evaluation.benchmarks.registry import benchmark_named
    from everview.evaluation.runs.run import RunSettings
    from everview.evaluation.runs.store import RunStore
    from everview.evaluation.runs.tasks import check_alignment

    benchmark = benchmark_named(call.benchmark)
    if call.alignment is not None:
        check_alignment(benchmark, call.alignment)
    if call.data is None and not benchmark.is_generated:
        raise ConfigError(f"{benchmark.name} needs --data DIR with {benchmark.layout}")
    folder = call.out.with_name(f"{call.out.stem}.predictions")
    return RunSettings(
        benchmark=benchmark, data=call.data or Path(), choice=_choice(call, RunStore(folder)),
        limit=call.limit, store=folder, deterministic=call.deterministic,
    )  # fmt: skip


def _choice(call: BenchmarkCall, store: "RunStore") -> "Choice":
    """What was asked for; the rest as usual, or as predicted where that is scored again.

    Raises:
        ConfigError: if something is asked that stored predictions cannot answer.
    """
    from everview.errors import ConfigError
    from everview.evaluation.benchmarks.clip import Choice

    asked = {name: value for name, value in call.asked.items() if value is not None}
    if not call.rescore:
        return Choice(**asked)
    facts = store.facts()
    answers = {"mode": call.mode, "memory": None if call.memory == "full" else call.memory}
    for name, value in answers.items():
        if value not in (None, facts[name]):
            raise ConfigError(
                f"{store.folder} holds predictions of {name} {facts[name]}, not {value}: leave out "
                f"--{name} to score these again, or predict into another -o without --rescore"
            )
    return Choice(**(facts["choice"] | asked))


def _predict(call: BenchmarkCall, settings: "RunSettings", console: "Console") -> None:
    import torch

    from everview.evaluation.runs.predictors import NetworkPredictor
    from everview.evaluation.runs.run import predict
    from everview.evaluation.runs.tasks import task_of
    from everview.weights.load import load

    settings.clips()  # absent data are told before a large model is loaded
    network = load(call.model, device=call.device, precision=call.precision)
    mode = call.mode or task_of(settings.benchmark).mode
    if mode == "streaming" and call.mode is None and network.config.attention != "causal":
        mode = "offline"
    predictor = NetworkPredictor(network, mode=mode, memory=call.memory)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(call.deterministic or before, warn_only=True)
    try:
        with console.status("predicting") as status:
            predict(
                settings, predictor, predictor.facts(),
                progress=lambda clip, n, total: status.update(f"{clip}: frame {n} of {total}"),
            )  # fmt: skip
    finally:
        torch.use_deterministic_algorithms(before)


def _print_result(console: "Console", result: dict[str, Any]) -> None:
    from rich.table import Table

    data, protocol = result["data"], result["protocol"]
    console.print(
        f"{data['name']}: {data['clips_scored']} of {data['clips_found']} clips, "
        f"{protocol['mode']}, preset {protocol['preset']}; mean by {protocol['average']}"
    )
    table = Table(header_style="bold")
    table.add_column("score")
    for title in ("mean", "standard error", "median", "clips"):
        table.add_column(title, justify="right")
    for name, facts in result["summary"].items():
        numbers = [_number(facts[key]) for key in ("mean", "standard_error", "median")]
        table.add_row(name, *numbers, str(facts["clips"]))
    console.print(table)
    for skipped in data["skipped"]:
        console.print(f"skipped {skipped['clip']}: {skipped['reason']}", markup=False)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
