"""The first half of a run: predictions of every clip, on disk."""

from collections.abc import Callable, Iterable

from everview.errors import EverviewError, InputError
from everview.evaluation.benchmarks.clip import EvalClip
from everview.evaluation.runs.predictors import Predictor, Session
from everview.evaluation.runs.store import ClipStore, Fields, RunStore

FIELDS: dict[str, Fields] = {
    "depth_single": ("depth", "depth_confidence"),
    "depth_video": ("depth", "depth_confidence"),
    "points": ("points", "depth"),
    "poses": (),
    "trajectory": (),
    "long": ("points", "depth", "depth_confidence"),
}
"""Task -> dense maps that are stored."""

STATE_GROWTH = 1.25
"""A state is saved when it has seen so many times the frames of the last one: it may be large."""

Progress = Callable[[str, int, int], None]
"""Is told clip, frames done, and frames in all."""


def predict_clips(
    clips: Iterable[EvalClip],
    predictor: Predictor,
    store: RunStore,
    *,
    fields: Fields,
    dense_every: int = 1,
    progress: Progress | None = None,
) -> None:
    """Predict what is not there yet; an interrupted clip goes on at its last part.

    Args:
        clips: in any order.
        predictor: network or baseline.
        store: opened.
        fields: dense maps to store.
        dense_every: of every n-th frame.
        progress: see `Progress`.

    Raises:
        InputError: if a frame cannot be read or does not fit the others; names it.
    """
    for clip in clips:
        part = store.clip(clip.name, fields=fields, dense_every=dense_every)
        if part.is_finished and part.read().frames == clip.frames:
            continue
        if part.is_finished:
            store.forget(clip.name)
        try:
            _predict(clip, predictor, part, progress)
        except InputError:
            raise
        except EverviewError as error:
            raise InputError(f"clip {clip.name}: {error}") from error


def _predict(
    clip: EvalClip, predictor: Predictor, store: ClipStore, progress: Progress | None
) -> None:
    session = _session(clip, predictor, store)
    start, total = session.num_frames, len(clip.frames)
    if predictor.mode == "single":  # no frame knows another
        start = store.stored_frames()
    store.cut(start)
    next_state = start + 1
    for index in range(start, total):
        is_written = store.add(index, session.step(predictor.frame(clip, index)))
        if is_written and next_state <= index + 1 < total and predictor.mode == "streaming":
            session.save(store.state)
            next_state = int((index + 1) * STATE_GROWTH)
        if progress is not None:
            progress(clip.name, index + 1, total)
    store.finish(clip.frames)


def _session(clip: EvalClip, predictor: Predictor, store: ClipStore) -> Session:
    """From the saved state if there is one; parts that came after it are made again."""
    if predictor.mode == "streaming" and store.state.is_file():
        try:
            return predictor.start(clip, store.state)
        except InputError:  # cut off by a full disk: begin again
            store.state.unlink()
    return predictor.start(clip, None)
