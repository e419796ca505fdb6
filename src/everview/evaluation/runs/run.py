"""One benchmark from clips to a result: predict, store, score, write down."""

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from everview.errors import ConfigError, InputError
from everview.evaluation.benchmarks.clip import Benchmark, Choice, EvalClip
from everview.evaluation.benchmarks.generated import is_from_world
from everview.evaluation.machine import code_version, describe
from everview.evaluation.runs.fingerprint import clip_fingerprints, fingerprint
from everview.evaluation.runs.predict import FIELDS, Progress, predict_clips
from everview.evaluation.runs.predictors import Predictor
from everview.evaluation.runs.store import RunStore
from everview.evaluation.runs.summary import by_group, summarise
from everview.evaluation.runs.tasks import check_alignment, protocol_of, task_of

FORMAT = "everview evaluation"
FORMAT_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What is run, and how."""

    benchmark: Benchmark
    data: Path
    """Folder of the set; any for generated sets."""
    store: Path
    """Folder of the predictions."""
    choice: Choice = field(default_factory=Choice)
    """What is left open is filled in by the benchmark."""
    limit: int | None = None
    """Number of clips; all if None."""
    deterministic: bool = False
    """Leave out what two equal runs would not share."""

    def __post_init__(self) -> None:
        """Refuse a limit of nothing."""
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit must be 1 or more; got {self.limit}")

    def full_choice(self) -> Choice:
        """With what the benchmark does where nothing was asked for."""
        usual, asked = self.benchmark.choice, self.choice
        return replace(
            asked, stride=asked.stride or usual.stride, frames=asked.frames or usual.frames
        )

    def clips(self) -> tuple[list[EvalClip], int]:
        """Clips to run, and how many there are in all.

        Raises:
            InputError: if the data are absent or damaged.
        """
        found = list(self.benchmark.clips(self.data, self.full_choice()))
        if not found:
            raise InputError(f"{self.data} has no clip of {self.benchmark.title}")
        return list(itertools.islice(found, self.limit)), len(found)


def predict(
    settings: RunSettings,
    predictor: Predictor,
    facts: Mapping[str, Any],
    *,
    progress: Progress | None = None,
) -> None:
    """The first half: predictions of all clips, on disk.

    Args:
        settings: what to run.
        predictor: network or baseline.
        facts: `model`, `mode`, `memory`, `resize`, `dtype`, `device`, for the result.
        progress: see `Progress`.

    Raises:
        ConfigError: if the store holds predictions of other settings or data.
        InputError: if data are absent or damaged; names the file.
    """
    clips, _ = settings.clips()
    store = RunStore(settings.store)
    store.open(
        {
            "format_version": 1,
            "benchmark": settings.benchmark.name,
            "choice": asdict(settings.full_choice()),
            **facts,
        },
        clip_fingerprints(clips),
        settings.data,
    )
    started, begin = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    every = int(settings.benchmark.protocol.get("dense_every", 1))
    predict_clips(
        clips, predictor, store, fields=FIELDS[settings.benchmark.task], dense_every=every,
        progress=progress,
    )  # fmt: skip
    store.note_time(started, time.perf_counter() - begin)


def score(settings: RunSettings, *, alignment: str | None = None) -> dict[str, Any]:
    """The second half: a result, from stored predictions and the truth alone.

    Args:
        settings: what was run; the preset may be another one, if it takes the same frames.
        alignment: another one than the protocol's.

    Returns:
        Plain values for a JSON file, see `docs/evaluation.md`.

    Raises:
        ConfigError: if the predictions are of another benchmark, other data or other frames, some
            or all are absent, or the alignment is unknown.
        InputError: if data are absent or damaged, or no clip could be scored.
    """
    begin = time.perf_counter()
    store, benchmark = RunStore(settings.store), settings.benchmark
    facts = store.facts()
    if facts["benchmark"] != benchmark.name:
        raise ConfigError(f"{settings.store} holds predictions of {facts['benchmark']}")
    if alignment is not None:
        check_alignment(benchmark, alignment)
    _check_choice(settings, Choice(**facts["choice"]))
    clips, found = settings.clips()
    _check_clips(settings, clips, store)
    store.check_data(clip_fingerprints(clips), settings.data)
    protocol = protocol_of(benchmark, settings.full_choice())
    protocol |= {name: facts[name] for name in ("mode", "memory", "resize")}
    if alignment is not None:
        protocol["alignment"] = alignment
    scored, skipped = _score_clips(settings, clips, store, protocol)
    if not scored:
        raise InputError(f"no clip could be scored; {skipped[0]['clip']}: {skipped[0]['reason']}")
    digest, files = fingerprint(clips)
    result = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "benchmark": benchmark.name,
        "task": benchmark.task,
        "protocol": protocol,
        "data": {
            "name": benchmark.title, "fingerprint": digest, "files": files,
            "generated": benchmark.is_generated or is_from_world(clips),
            "clips_found": found, "clips_scored": len(scored), "skipped": skipped,
        },
        "model": facts["model"],
        "run": {
            "dtype": facts["dtype"], "device": facts["device"],
            "deterministic": settings.deterministic, "limit": settings.limit,
        },
        "code": code_version(),
        **_tables(benchmark, scored, protocol["average"]),
    }  # fmt: skip
    is_timed = not settings.deterministic
    timing = store.times() | {"score_seconds": round(time.perf_counter() - begin, 2)}
    machine = describe(facts["device"]) if is_timed and _is_here(facts["device"]) else None
    return result | {"timing": timing if is_timed else None, "machine": machine}


def _check_choice(settings: RunSettings, stored: Choice) -> None:
    """Refuse what only new predictions can answer."""
    asked = settings.full_choice()
    for name in ("stride", "frames", "seed"):
        ours, theirs = getattr(asked, name), getattr(stored, name)
        if ours != theirs:
            raise ConfigError(
                f"{settings.store} holds predictions of {name} {theirs}, not {ours}: leave out "
                f"--{name} to score these again, or predict into another -o without --rescore"
            )


def _check_clips(settings: RunSettings, clips: Sequence[EvalClip], store: RunStore) -> None:
    """Refuse clips that were not predicted, or of which other frames were."""
    done = [store.clip(clip.name).is_finished for clip in clips]
    if not all(done):
        first = done.index(False)
        limit = f", or score only the first with --limit {first}" if first else ""
        raise ConfigError(
            f"{settings.store} holds finished predictions of {sum(done)} of {len(clips)} clips: "
            f"run without --rescore to predict the others{limit}"
        )
    for clip in clips:
        if store.clip(clip.name).frames() != clip.frames:
            raise ConfigError(
                f"clip {clip.name} has other frames with preset {settings.choice.preset} than in "
                f"{settings.store}: predict into another -o without --rescore"
            )


def _score_clips(
    settings: RunSettings, clips: Sequence[EvalClip], store: RunStore, protocol: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Entries of scored clips, and the skipped ones with the reason."""
    task = task_of(settings.benchmark)
    scored, skipped = [], []
    for clip in clips:
        stored = store.clip(clip.name).read()
        try:
            found = task.score(clip, stored, protocol)
        except ConfigError as error:
            skipped.append({"clip": clip.name, "reason": str(error)})
            continue
        scored.append(
            {
                "name": clip.name,
                "group": clip.group,
                "frames": list(clip.frames),
                "size": list(stored.maps[0].original_size),
                "weight": found.weight,
                "scores": {name: _finite(found.scores.get(name)) for name in task.meanings},
                "details": {n: _finite(v) for n, v in found.details.items()},
                "curves": {n: [_finite(v) for v in c] for n, c in found.curves.items()},
            }
        )
    return scored, skipped


def _tables(benchmark: Benchmark, scored: list[dict[str, Any]], average: str) -> dict[str, Any]:
    meanings = task_of(benchmark).meanings
    names = list(meanings)
    return {
        "metrics": {name: asdict(meaning) for name, meaning in meanings.items()},
        "summary": summarise(scored, names, average),
        "groups": by_group(scored, names),
        "clips": scored,
    }


def _finite(value: Any) -> Any:  # noqa: ANN401  -- whatever stands in a JSON file
    """JSON has neither NaN nor infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_here(device: str) -> bool:
    """Whether predictions may have been made on this machine's device."""
    return not device.startswith("cuda") or torch.cuda.is_available()
