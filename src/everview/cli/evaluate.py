"""`everview eval`: one benchmark, a table to read and a JSON file to keep."""

import json
import sys
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console
    from rich.status import Status

    from everview.model.network import Network

PIPED_WIDTH = 120
"""Columns of the table where there is no terminal to ask for its width."""
COMMON = ("benchmark", "model", "memory", "precision", "device", "threads", "out")
HEEDED = {
    "procedural": ("clips", "frames", "speed", "kind", "size", "first_seed", "teacher"),
    "recording": ("data", "frames", "stride", "every", "teacher"),
    "others": ("data", "limit", "frames", "stride", "seed", "preset", "alignment", "mode",
               "rescore", "deterministic"),
}  # fmt: skip
"""Options that a benchmark heeds besides the common ones; others are refused."""


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Measure how good a model is, on a benchmark of `everview eval list`.

    procedural: places that no training has seen, with exact truth; needs no data.
    recording: windows of recorded footage with known cameras, and depth where there is some.
    longworld: long procedural streams; needs no data. All others read `--data`, the folder of a set
    in its official layout. Their predictions are stored beside the result, in NAME.predictions: a
    run that was stopped goes on there, and `--rescore` needs nothing else.
    Results: `everview eval compare a.json b.json`, `everview eval report results/*.json`.
    """

    benchmark: Annotated[str, tyro.conf.Positional]
    """procedural, recording, or a name of `everview eval list`."""
    data: tuple[Path, ...] = ()
    """Folder of the set; recording takes several, that `everview world` or `run` wrote, or with a
    sequence.json; none for procedural and longworld."""
    model: str = "mini"
    """Anything `everview.load` takes; streamed if causal, else all frames at once."""
    teacher: str | None = None
    """procedural, recording: another model to stand beside, on the same clips."""
    clips: int = 200
    """procedural: clips per group."""
    limit: int | None = None
    """Only so many clips, for a smoke run; all if left out."""
    frames: str = ""
    """Frames of a clip, or lengths such as 8,16,32,64; procedural: 8, recording: 8,16, others: as
    published."""
    speed: tuple[float, ...] = (1.0,)
    """procedural: motion between frames; several make one group each."""
    kind: str = "any"
    """procedural: any, room, corridor, street or terrain."""
    size: tuple[int, int] | None = None
    """procedural: height and width in pixels; the model's own if left out."""
    first_seed: int = 10_000_000
    """procedural: seed of the first clip; the others follow."""
    stride: int | None = None
    """Every n-th frame, as published if left out; recording: frames between the beginnings of
    windows, 4."""
    every: int = 1
    """recording: take each n-th frame."""
    seed: int | None = None
    """Of drawn frames, thinned clouds and long worlds; 0 if left out."""
    preset: Literal["strict", "paper"] | None = None
    """strict: exact optima, if left out; paper: as published, quirks included."""
    alignment: str | None = None
    """Of depth: none, median, scale, weiszfeld; of trajectories: none, scale, se3, sim3; of points:
    none, sim3; as the preset does if left out."""
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
    """Score the stored predictions again, with another preset or alignment if you like; no network
    is loaded."""
    deterministic: bool = False
    """No times and no machine in the result: two equal runs give equal bytes."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """JSON file for all numbers, of every clip too; procedural and recording go without."""

    def run(self) -> int:
        """Return the exit code."""
        import torch

        from everview.errors import ConfigError

        self._refuse_what_does_nothing()
        if self.threads is not None:
            if self.threads < 1:
                raise ConfigError(f"--threads must be 1 or more, got {self.threads}")
            torch.set_num_threads(self.threads)
        if self.out is not None:
            _check_result_file(self.out)
        measure = {"procedural": self._procedural, "recording": self._recording}
        if self.benchmark in measure:
            return self._beside_guesses(measure[self.benchmark])
        return self._benchmark()

    def _refuse_what_does_nothing(self) -> None:
        """Name an option that this benchmark would not heed."""
        from everview.errors import ConfigError

        heeded = HEEDED.get(self.benchmark, HEEDED["others"])
        for field in fields(self):
            is_asked = getattr(self, field.name) != field.default
            if is_asked and field.name not in (*COMMON, *heeded):
                takes = ", ".join(_option(name) for name in heeded)
                raise ConfigError(
                    f"{_option(field.name)} does nothing in eval {self.benchmark}; it has {takes}"
                )

    def _benchmark(self) -> int:
        from everview.cli.evaluate_benchmark import BenchmarkCall, run_benchmark
        from everview.errors import ConfigError
        from everview.evaluation.benchmarks.registry import benchmark_named

        benchmark_named(self.benchmark)
        if self.out is None:
            raise ConfigError(f"name the result: everview eval {self.benchmark} ... -o result.json")
        if len(self.data) > 1:
            raise ConfigError(f"{self.benchmark} reads one folder, got {len(self.data)} in --data")
        frames = _lengths(self.frames)[0] if self.frames else None
        asked = {
            "stride": self.stride, "frames": frames, "seed": self.seed, "preset": self.preset
        }  # fmt: skip
        return run_benchmark(
            BenchmarkCall(
                benchmark=self.benchmark, data=self.data[0] if self.data else None, out=self.out,
                model=self.model, asked=asked, limit=self.limit, mode=self.mode,
                memory=self.memory, precision=self.precision, device=self.device,
                alignment=self.alignment, rescore=self.rescore, deterministic=self.deterministic,
            )
        )  # fmt: skip

    def _beside_guesses(self, measure: "Callable[..., dict[str, Any]]") -> int:
        from rich.console import Console

        from everview.weights.load import load

        settings = self._settings()
        network = load(self.model, device=self.device, precision=self.precision)
        teacher = None
        if self.teacher is not None:
            teacher = load(self.teacher, device=self.device, precision=self.precision)
        console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)
        with console.status("rendering places for the trivial guesses") as status:
            result = measure(network, teacher, settings, status)
        if self.out is not None:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.out.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
        _print(console, result)
        if self.out is not None:
            console.print(f"all numbers: {self.out}", soft_wrap=True)
        return 0

    def _settings(self) -> Any:  # noqa: ANN401  -- of either benchmark
        from everview.evaluation.procedural import ProceduralSettings
        from everview.evaluation.recording import RecordingSettings

        if self.benchmark == "recording":
            return RecordingSettings(
                data=self.data, frames=_lengths(self.frames or "8,16"), every=self.every,
                stride=4 if self.stride is None else self.stride, memory=self.memory,
            )  # fmt: skip
        return ProceduralSettings(
            clips=self.clips, frames=_lengths(self.frames or "8"), speeds=self.speed,
            kind=self.kind, size=self.size, first_seed=self.first_seed, memory=self.memory,
        )  # fmt: skip

    def _procedural(
        self,
        network: "Network",
        teacher: "Network | None",
        settings: Any,  # noqa: ANN401
        status: "Status",
    ) -> dict[str, Any]:
        from everview.evaluation.procedural import evaluate_procedural

        return evaluate_procedural(
            network, settings, teacher=teacher,
            progress=lambda done, total: status.update(f"clip {done} of {total}"),
        )  # fmt: skip

    def _recording(
        self,
        network: "Network",
        teacher: "Network | None",
        settings: Any,  # noqa: ANN401
        status: "Status",
    ) -> dict[str, Any]:
        from everview.evaluation.recording import evaluate_recording

        return evaluate_recording(network, settings, teacher=teacher, progress=status.update)


@dataclass(frozen=True, kw_only=True)
class EvalList:
    """List the benchmarks: what each compares, the files that it needs, where they come from."""

    def run(self) -> int:
        """Return the exit code."""
        from everview.cli.evaluate_benchmark import list_benchmarks

        return list_benchmarks()


def _option(name: str) -> str:
    """A field as it is typed."""
    return f"--{name.replace('_', '-')}"


def _check_result_file(path: Path) -> None:
    """Before hours of work, see that its result can be written."""
    from everview.errors import ConfigError, InputError

    if path.is_dir():
        raise ConfigError(f"{path} is a folder: name a file for the result, -o {path}/result.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(f"the result cannot be written to {path}: {error}") from error


def _lengths(text: str) -> tuple[int, ...]:
    """Numbers separated by commas."""
    from everview.errors import ConfigError

    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--frames takes numbers such as 8 or 8,16,32; got {text!r}") from None


def _print(console: "Console", result: dict[str, Any]) -> None:
    from everview.cli.evaluation_tables import print_procedural, print_recording

    printers = {"procedural": print_procedural, "recording": print_recording}
    printers[result["benchmark"]](console, result)
