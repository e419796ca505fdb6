"""Scores on recorded footage: windows of real sequences, or of anything with known cameras."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from everview.errors import ConfigError, InputError
from everview.evaluation import two_view
from everview.evaluation.baselines import Habits, measure_habits
from everview.evaluation.camera_scores import camera_scores
from everview.evaluation.footage import Footage, open_footage
from everview.evaluation.machine import code_version, describe
from everview.evaluation.procedural import model_facts, plain_scores
from everview.evaluation.sequence_scores import METRICS, score_clip
from everview.evaluation.show import mode, show
from everview.evaluation.summaries import TEACHER, summarise
from everview.frames.preprocess import Fit
from everview.model.network import Network

FORMAT_VERSION = 2
CLASSICAL = "essential_matrix"
"""Name of the classical baseline among the guesses."""
NOISE_FLOORS = {
    "hololens_office": "true depth of frames 5 apart agrees to 5.4 mm (median), 98 % below 5 cm",
    "kinect_kitchen": "true depth of frames 5 apart agrees to 7.5 mm (median), 96 % below 5 cm; "
    "the registration to colour is a fit (correlation of warped grey values 0.961)",
    "fox": "true poses: SIFT matches 2 frames apart have a Sampson distance of 0.25 pixels "
    "(median, images of half size); scale is arbitrary",
    "kitti_street": "true poses: SIFT matches 2 frames apart have a Sampson distance of 0.28 "
    "pixels (median); frames 0 to 3 are noisier",
}
"""By the name of a sequence: how far its truth can be trusted, as measured in its README."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordingSettings:
    """Which windows of which sequences."""

    data: tuple[Path, ...]
    """Folders: recordings, or sequence folders with `sequence.json`."""
    frames: tuple[int, ...] = (8, 16)
    """Lengths of windows, one group each."""
    stride: int = 4
    """Frames between the beginnings of windows."""
    every: int = 1
    """Take each n-th frame of a sequence."""
    baseline_clips: int = 48
    """Procedural clips from which the trivial guesses know what is usual."""
    classical: bool = True
    """Also the essential matrix between neighbours, where OpenCV is installed."""
    memory: str = "full"
    """Memory policy of the stream."""

    def __post_init__(self) -> None:
        """Refuse what cannot be scored."""
        if not self.data:
            raise ConfigError("eval recording needs at least one folder: --data DIR")
        if min(self.frames, default=0) < 2 or self.stride < 1 or self.every < 1:
            raise ConfigError(
                "eval recording needs frames >= 2, stride >= 1 and every >= 1; "
                f"got {self.frames}, {self.stride}, {self.every}"
            )


def evaluate_recording(
    network: Network,
    settings: RecordingSettings,
    *,
    teacher: Network | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Show windows of recorded sequences to a network and score them beside guesses.

    Depth is compared on the network's pixel grid (truth by the nearest pixel), after one median
    alignment per window. Trivial guesses know the procedural world at speed 1, not the footage.

    Args:
        network: causal: each window is streamed afresh; global: one pass.
        settings: which windows.
        teacher: another network, which sees the same windows.
        progress: is told what is being done.

    Returns:
        Plain values for a JSON file: per sequence and length of windows the same summary as in
        `evaluate_procedural`, the noise floor of the truth and remarks.

    Raises:
        InputError: if a folder cannot be used or is shorter than a window, or the network's output
            is not finite; names the sequence and window.
    """
    started = time.perf_counter()
    tell = progress or (lambda _: None)
    tell("rendering places for the trivial guesses")
    run = _Run(network, teacher, settings, measure_habits(clips=settings.baseline_clips), tell)
    sequences = [run.sequence(folder) for folder in settings.data]
    has_classical = settings.classical and two_view.is_available()
    return {
        "format": "everview evaluation",
        "benchmark": "recording",
        "format_version": FORMAT_VERSION,
        "code": code_version(),
        "model": model_facts(network),
        "teacher": None if teacher is None else model_facts(teacher),
        "settings": {
            **asdict(settings),
            "data": [folder.name for folder in settings.data],
            "size": network.input_size,
            "mode": mode(network),
        },
        "classical_baseline": "SIFT, essential matrix, PnP for lengths; true intrinsics"
        if has_classical
        else f"left out: OpenCV is not installed ({two_view.INSTALL})"
        if settings.classical
        else "left out as asked",
        "metrics": METRICS,
        "sequences": sequences,
        "seconds": round(time.perf_counter() - started, 1),
        "machine": describe(network.device),
    }


def windows(length: int, frames: int, stride: int) -> list[range]:
    """Positions of all windows that lie wholly within a sequence."""
    return [range(start, start + frames) for start in range(0, length - frames + 1, stride)]


@dataclass(frozen=True, slots=True)
class _Run:
    network: Network
    teacher: Network | None
    settings: RecordingSettings
    habits: Habits
    tell: Callable[[str], None]

    def sequence(self, folder: Path) -> dict[str, Any]:
        """All windows of one folder."""
        self.tell(f"reading {folder.name}")
        fit: Fit = getattr(self.network, "fit", "crop")
        footage = open_footage(folder, size=self.network.input_size, fit=fit)
        positions = range(0, len(footage), self.settings.every)
        if len(positions) < max(self.settings.frames):
            raise InputError(
                f"{folder} has {len(positions)} frames to take; a window needs "
                f"{max(self.settings.frames)}: give --frames {max(2, len(positions) // 2)}"
            )
        motions = self._motions(footage, positions)
        groups = [self._group(footage, positions, motions, n) for n in self.settings.frames]
        height, width = footage.images.shape[-2:]
        return {
            "name": footage.name,
            "frames": len(footage),
            "size": [height, width],
            "has_depth": footage.depth is not None,
            "noise_floor": NOISE_FLOORS.get(footage.name),
            "remarks": list(footage.remarks),
            "groups": groups,
        }

    def _motions(self, footage: Footage, positions: range) -> Float[Tensor, "n 4 4"] | None:
        if not (self.settings.classical and two_view.is_available()):
            return None
        self.tell(f"{footage.name}: matching neighbours")
        return two_view.neighbour_motions(
            lambda i: footage.picture(positions[i]),
            len(positions),
            camera=footage.camera,
            distortion=footage.distortion,
        )

    def _group(
        self, footage: Footage, positions: range, motions: Tensor | None, frames: int
    ) -> dict[str, Any]:
        chosen = windows(len(positions), frames, self.settings.stride)
        found = []
        for number, window in enumerate(chosen):
            self.tell(f"{footage.name}: window {number + 1} of {len(chosen)}")
            try:
                found.append(self._scores(footage, [positions[i] for i in window]))
            except ConfigError as error:
                first = footage.names[positions[window[0]]]
                raise InputError(f"{footage.name}, window from {first}: {error}") from error
            if motions is not None:
                path = two_view.chained(motions[window.start : window.stop - 1])
                truth = footage.clip([positions[i] for i in window])
                found[-1] |= camera_scores(path, truth, guess=f"/{CLASSICAL}")
        firsts = [footage.names[positions[window[0]]] for window in chosen]
        clips = [
            {"first": first, "scores": plain_scores(scores)}
            for first, scores in zip(firsts, found, strict=True)
        ]
        return {"frames": frames, "scores": summarise(found), "clips": clips}

    def _scores(self, footage: Footage, positions: Sequence[int]) -> dict[str, float]:
        truth, memory = footage.clip(positions), self.settings.memory
        said = show(self.network, truth.images, memory=memory)
        scores = score_clip(said, truth, habits=self.habits)
        if self.teacher is not None:
            said = show(self.teacher, truth.images, memory=memory)
            beside = score_clip(said, truth, habits=self.habits)
            scores |= {f"{name}/{TEACHER}": v for name, v in beside.items() if "/" not in name}
        return scores
