"""Result files of `everview eval`, whatever the benchmark, read into one form."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from everview.errors import InputError
from everview.evaluation.runs.run import FORMAT, FORMAT_VERSION
from everview.evaluation.sequence_scores import HIGHER_IS_BETTER

ANSWERS = ("mode", "memory")
"""Entries of a protocol that say how was answered, not what was asked."""
ON_NETWORK_GRID = ("points", "long")
"""Tasks that are compared on the network's pixels, so that another size asks something else."""
HARDWARE = ("processor", "accelerator", "threads", "torch")


class ForeignResultError(InputError):
    """A JSON file that no `everview eval` wrote (exit code 3).

    Args:
        path: of the file.
        what: it is instead.
    """

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path} is {what}: needed is what `everview eval ... -o` wrote")
        self.what = what


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """What a score is."""

    meaning: str
    unit: str = ""
    better: str = "lower"
    """lower or higher."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipResult:
    """Scores of one clip."""

    name: str
    identity: tuple[Any, ...]
    """Equal for equal frames: their names and size, or what they are generated from."""
    num_frames: int
    scores: Mapping[str, float]
    """Only those that have a value."""
    curves: Mapping[str, list[float | None]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Clips that are averaged together."""

    title: str
    """Empty where a result has only one part."""
    summary: Mapping[str, Mapping[str, Any]]
    """Score -> mean, median, standard_error, clips; `baselines` where there are some."""
    clips: tuple[ClipResult, ...]


@dataclass(frozen=True, kw_only=True)
class ResultFile:
    """One result of `everview eval`."""

    path: Path
    benchmark: str
    metrics: Mapping[str, Metric]
    parts: tuple[Part, ...]
    asked: Mapping[str, Any]
    """What decides whether scores can be compared: data, frames, protocol."""
    answered: Mapping[str, Any]
    """What may be the reason of a difference: weights, memory, precision, machine, code."""
    content: Mapping[str, Any]
    """The file itself."""

    @property
    def model(self) -> str:
        """Name of the network."""
        return str(self.answered["model"])


def read_result(path: Path) -> ResultFile:
    """Read a result file.

    Raises:
        ForeignResultError: if it is JSON of something else; says of what.
        InputError: if it is absent or damaged; names it.
    """
    content = read_json(path)
    kind = content.get("format")
    if kind != FORMAT:
        raise ForeignResultError(path, f"a file of {kind!r}" if kind else "no result of everview")
    if content.get("format_version") != FORMAT_VERSION:
        version = content.get("format_version")
        raise InputError(
            f"{path} has version {version} of the format, known is {FORMAT_VERSION}: run it again"
        )
    readers = {"procedural": _procedural, "recording": _recording}
    try:
        return readers.get(str(content["benchmark"]), _benchmark)(path, content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{path} lacks what a result holds: {_said(error)}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InputError: if it is absent, damaged, or no object; names it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ForeignResultError(path, f"a JSON {type(content).__name__}")
    return content


def _benchmark(path: Path, content: dict[str, Any]) -> ResultFile:
    protocol, run, data = content["protocol"], content["run"], content["data"]
    resize = {"resize": protocol["resize"]}
    is_asked = content["task"] in ON_NETWORK_GRID
    rest = {n: v for n, v in protocol.items() if n not in (*ANSWERS, "resize")}
    clips = tuple(_clip(entry) for entry in content["clips"])
    asked = {"benchmark": content["benchmark"], "data fingerprint": data["fingerprint"]}
    return ResultFile(
        path=path,
        benchmark=content["benchmark"],
        metrics={name: Metric(**meaning) for name, meaning in content["metrics"].items()},
        parts=(Part(title="", summary=content["summary"], clips=clips),),
        asked=asked | rest | (resize if is_asked else {}),
        answered=_answered(content, run["dtype"], run["device"])
        | {name: protocol[name] for name in ANSWERS}
        | ({} if is_asked else resize),
        content=content,
    )


def _procedural(path: Path, content: dict[str, Any]) -> ResultFile:
    parts = []
    for group in content["groups"]:
        entries = [
            _world_clip(str(clip["seed"]), (clip["seed"], clip["kind"]), group, clip["scores"])
            for clip in group["clips"]
        ]
        title = f"{group['frames']} frames, speed {group['speed']:g}"
        parts.append(Part(title=title, summary=group["scores"], clips=tuple(entries)))
    return _of_settings(path, content, parts)


def _recording(path: Path, content: dict[str, Any]) -> ResultFile:
    parts = []
    for sequence in content["sequences"]:
        for group in sequence["groups"]:
            entries = [
                _world_clip(clip["first"], (sequence["name"], clip["first"]), group, clip["scores"])
                for clip in group["clips"]
            ]
            title = f"{sequence['name']}, {group['frames']} frames"
            parts.append(Part(title=title, summary=group["scores"], clips=tuple(entries)))
    return _of_settings(path, content, parts)


def _of_settings(path: Path, content: dict[str, Any], parts: list[Part]) -> ResultFile:
    settings, model = content["settings"], content["model"]
    asked = {"benchmark": content["benchmark"]}
    asked |= {n: v for n, v in settings.items() if n not in ANSWERS}
    device = (content.get("machine") or {}).get("device")
    return ResultFile(
        path=path,
        benchmark=content["benchmark"],
        metrics={
            name: Metric(meaning=text, better="higher" if name in HIGHER_IS_BETTER else "lower")
            for name, text in content["metrics"].items()
        },
        parts=tuple(parts),
        asked=asked,
        answered=_answered(content, model["precision"], device)
        | {name: settings.get(name) for name in ANSWERS},
        content=content,
    )


def _answered(content: Mapping[str, Any], dtype: str, device: str | None) -> dict[str, Any]:
    code, machine, model = content["code"], content.get("machine") or {}, content["model"]
    return {
        "model": model["name"],
        "weights hash": model.get("weights_sha256"),
        "dtype": dtype,
        "device": device,
        "code version": code.get("everview"),
        "commit": code.get("commit"),
        "uncommitted changes": code.get("changed"),
        **{name: machine[name] for name in HARDWARE if name in machine},
    }


def _clip(entry: Mapping[str, Any]) -> ClipResult:
    frames = tuple(entry["frames"])
    return ClipResult(
        name=entry["name"], identity=(frames, tuple(entry["size"])), num_frames=len(frames),
        scores=dict(_values(entry["scores"])), curves=entry["curves"],
    )  # fmt: skip


def _world_clip(
    name: str, identity: tuple[Any, ...], group: Mapping[str, Any], scores: Mapping[str, Any]
) -> ClipResult:
    """A clip of `procedural` or `recording`; scores of guesses, named score/guess, stay out."""
    own = {n: value for n, value in scores.items() if "/" not in n}
    frames = int(group["frames"])
    return ClipResult(
        name=name, identity=(*identity, frames, group.get("speed")), num_frames=frames,
        scores=dict(_values(own)),
    )  # fmt: skip


def _values(scores: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in scores.items():
        if value is not None and math.isfinite(value):
            yield name, float(value)


def _said(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)
