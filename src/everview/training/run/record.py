"""What a run tells of itself: a line per logged step, TensorBoard's events, pictures of curves."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from everview.errors import MissingExtraError

LOSSES = "losses.jsonl"
EVENTS = "tensorboard"

Line = dict[str, Any]
"""One line of the log."""


class Meter:
    """Means over the steps since the last line, kept on the device so that no step waits for it."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Count one part of a step; names may come and go."""
        for name, value in values.items():
            value = value.detach().float()  # noqa: PLW2901
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """By name; nothing is forgotten."""
        if not self._sums:
            return {}
        sums = torch.stack(list(self._sums.values())).tolist()
        return {
            name: total / self._counts[name] for name, total in zip(self._sums, sums, strict=True)
        }

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "sums": {name: value.cpu() for name, value in self._sums.items()},
            "counts": dict(self._counts),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], device: torch.device) -> "Meter":
        """Go on counting."""
        meter = cls()
        meter._sums = {name: value.to(device) for name, value in state["sums"].items()}
        meter._counts = dict(state["counts"])
        return meter


@runtime_checkable
class Writer(Protocol):
    """The part of TensorBoard's writer that is used."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """One number of one step."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class Record:
    """`losses.jsonl` of a run, cut to where it goes on, and TensorBoard's events if asked for.

    Raises:
        MissingExtraError: if TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, *, after_step: int, tensorboard: bool) -> None:
        self.path = folder / LOSSES
        self._writer = _open_writer(folder / EVENTS, after_step) if tensorboard else None
        self._cut(after_step)

    def write(self, line: Line) -> None:
        """Add a line; numbers that are not finite become null."""
        with self.path.open("a") as file:
            file.write(json.dumps(_finite(line), allow_nan=False) + "\n")
        if self._writer is None:
            return
        for name, value in flat(line).items():
            self._writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Nothing more will come."""
        if self._writer is not None:
            self._writer.close()

    def _cut(self, after_step: int) -> None:
        """Drop lines of steps that will be done again, and half a line of a killed process."""
        if not self.path.exists():
            return
        kept = [line for line in read_lines(self.path) if line["step"] <= after_step]
        partial = self.path.with_suffix(".tmp")
        partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
        partial.replace(self.path)


def read_lines(path: Path) -> Iterator[Line]:
    """Whole lines of a log."""
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
        except ValueError:  # the process was killed while it wrote
            continue
        yield line


def flat(line: Line) -> dict[str, float]:
    """Numbers of a line by name: `terms/truth/depth`, `rate` and so on."""
    numbers: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, Mapping):
            numbers |= {f"{name}/{key}": number for key, number in flat(dict(value)).items()}
        elif isinstance(value, int | float) and name != "step":
            numbers[name] = value
    return numbers


def _finite(value: Any) -> Any:  # noqa: ANN401  -- JSON values
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _open_writer(folder: Path, after_step: int) -> Writer:
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        raise MissingExtraError(
            'run.tensorboard needs TensorBoard: pip install "everview[train]", or leave it out; '
            "losses.jsonl and losses.png are always written"
        ) from error
    writer: Writer = SummaryWriter(str(folder), purge_step=after_step + 1)
    return writer
