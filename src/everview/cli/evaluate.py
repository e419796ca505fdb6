"""`everview eval`: one benchmark, a table to read and a JSON file to keep."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

    from everview.model.network import Network

PIPED_WIDTH = 120
"""Columns of the table where there is no terminal to ask for its width."""


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Measure how good a model is: errors, beside those of guesses that look at no image.

    procedural: places that no training has seen, with exact truth; needs no data.
    recording: windows of recorded footage with known cameras, and depth where there is some.
    """

    benchmark: Annotated[Literal["procedural", "recording"], tyro.conf.Positional]
    """procedural: held-out clips of `everview.world`; recording: folders given with --data."""
    model: str = "mini"
    """Anything `everview.load` takes; streamed if causal, else all frames at once."""
    teacher: str | None = None
    """Another model to stand beside, on the same clips."""
    data: tuple[Path, ...] = ()
    """recording: folders that `everview world` or `run` wrote, or with a sequence.json."""
    clips: int = 200
    """procedural: clips per group."""
    frames: str = ""
    """Frames of a clip, or lengths such as 8,16,32,64; procedural: 8, recording: 8,16."""
    speed: tuple[float, ...] = (1.0,)
    """procedural: motion between frames; several make one group each."""
    kind: str = "any"
    """procedural: any, room, corridor, street or terrain."""
    size: tuple[int, int] | None = None
    """procedural: height and width in pixels; the model's own if left out."""
    first_seed: int = 10_000_000
    """procedural: seed of the first clip; the others follow."""
    stride: int = 4
    """recording: frames between the beginnings of windows."""
    every: int = 1
    """recording: take each n-th frame."""
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

        from everview.weights.load import load

        measure = {"procedural": self._procedural, "recording": self._recording}[self.benchmark]
        if self.threads is not None:
            torch.set_num_threads(self.threads)
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
                data=self.data, frames=_lengths(self.frames or "8,16"), stride=self.stride,
                every=self.every, memory=self.memory,
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
