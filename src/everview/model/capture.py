"""CapturedStream: steps that are recorded once in a CUDA graph and run again from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from everview.errors import ConfigError
from everview.geometry.prediction import Prediction
from everview.memory.policies.bounded import Bounded
from everview.memory.shortage import is_shortage
from everview.memory.slots import SlotMemory
from everview.memory.state import StreamState
from everview.model.stream import Stream

Answer = tuple[Prediction, dict[int, Float[Tensor, "b 1 p c"]]]
"""Of a step, and the kept layers: `StreamState.tokens`."""
Recorder = Callable[[Callable[[], Answer]], tuple[Callable[[], None], Answer]]
"""Takes down what a function does, without doing it: gives what does it, and where it answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """A step that can be run again."""

    image: Float[Tensor, "b 1 3 H W"]
    """Where it reads its frame."""
    replay: Callable[[], None]
    answer: Answer
    """Where it answers; overwritten each time."""


class CapturedStream(Stream):
    """A stream whose steps are replayed from a CUDA graph once its memory is full.

    A launch of the whole graph takes the place of thousands of launches from Python, which on small
    models take longer than their kernels. Results are those of `Stream`. Steps are taken as ever
    before memory is full, where the host has something to do (`Bounded.is_routine`: the sum of
    unit keys is taken anew, budgets are shared), with the policy `full`, and while points are
    tracked. The graph is recorded anew where the past has moved, by a cut of the budget, say; the
    network's weights must stay where they are.
    """

    def __init__(self, stream: Stream, record: Recorder | None = None) -> None:
        """Go on with `stream`, which must not be used any more.

        Args:
            stream: on a GPU.
            record: what records a step; CUDA graphs if None.

        Raises:
            ConfigError: if there is no GPU to record on.
        """
        super().__init__(stream._network, stream._open())
        if record is None and self._network.device.type != "cuda":
            raise ConfigError(
                f"steps are recorded in CUDA graphs, but this network is on "
                f"{self._network.device}: load it with device='cuda', or use the stream as it is"
            )
        self._record = record or record_on_gpu
        self._layout: tuple[int, ...] = ()
        """For which steps were recorded."""
        self._recordings: dict[bool, Recording | None] = {}
        """With dense maps or without; None where there was no memory for one."""
        self._taken: set[bool] = set()
        """Kinds of which one step was taken: then all that happens once has happened."""

    def close(self) -> None:
        """See Stream.close."""
        super().close()
        self._layout, self._recordings = (), {}

    @torch.no_grad()
    def _advance(
        self,
        images: Tensor,
        pixel_map: Any = None,  # noqa: ANN401
        *,
        dense: bool = True,
    ) -> Prediction:
        """See Stream._advance."""
        state, images = self._open(), self._network.check_images(images)
        recording = self._fitting(state, images, dense) if _is_routine(state, images) else None
        room = None if recording is None else _room_for(recording.answer)
        if recording is None or room is None:
            return super()._advance(images, pixel_map, dense=dense)
        recording.image.copy_(images)
        recording.replay()
        state.count_again()
        prediction, tokens = recording.answer
        state.tokens = _filled(room[1], tokens)
        copies: dict[str, Any] = _filled(room[0], _tensors(prediction))
        return replace(prediction, pixel_map=pixel_map, **copies)

    def _fitting(self, state: StreamState, images: Tensor, dense: bool) -> Recording | None:
        """A recording of the next step; None if it has to be taken."""
        layout = _layout(state)
        if layout != self._layout:  # old recordings give their memory back first
            self._layout, self._recordings, self._taken = layout, {}, set()
        if dense not in self._taken:
            self._taken.add(dense)
            return None
        if dense not in self._recordings:
            self._recordings[dense] = None
            self._recordings[dense] = self._recorded(state, images, dense)
        return self._recordings[dense]

    def _recorded(self, state: StreamState, images: Tensor, dense: bool) -> Recording | None:
        image = images.clone()
        shadow = state.shadow()  # the step is not taken: counts of the host go on there

        def step() -> Answer:
            with self._network.own_precision():
                return self._predict(shadow, image, None, dense=dense), shadow.tokens

        try:
            replay, answer = self._record(step)
        except (RuntimeError, MemoryError) as error:
            if not is_shortage(error):
                raise
            return None
        return Recording(image=image, replay=replay, answer=answer)


def record_on_gpu(step: Callable[[], Answer]) -> tuple[Callable[[], None], Answer]:
    """Record into a CUDA graph with memory of its own."""
    graph = torch.cuda.CUDAGraph()
    # Other threads may go on with what they do on the GPU.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        answer = step()
    return graph.replay, answer


def _is_routine(state: StreamState, images: Tensor) -> bool:
    """Whether the next step is one like the last, but for what is in the tensors."""
    policy, memories = state.policy, state.memories().values()
    return (
        isinstance(policy, Bounded)
        and state.is_prepared
        and policy.is_routine(state.num_frames + 1)
        and not state.groups
        and state.image_size == (images.shape[3], images.shape[4])
        and images.shape[:2] == (state.batch, 1)
        and all(isinstance(memory, SlotMemory) and memory.is_routine for memory in memories)
    )


def _layout(state: StreamState) -> tuple[int, ...]:
    slots = (m for m in state.memories().values() if isinstance(m, SlotMemory))
    return tuple(number for memory in slots for number in memory.layout())


def _room_for(answer: Answer) -> tuple[dict[str, Tensor], dict[int, Tensor]] | None:
    """Tensors that the next replay leaves alone, made before this one; None if memory is short."""
    prediction, tokens = answer
    try:
        return (
            {name: torch.empty_like(tensor) for name, tensor in _tensors(prediction).items()},
            {layer: torch.empty_like(tensor) for layer, tensor in tokens.items()},
        )
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
        return None


def _filled(room: dict[Any, Tensor], tensors: Mapping[Any, Tensor]) -> dict[Any, Tensor]:
    for name, tensor in tensors.items():
        room[name].copy_(tensor)
    return room


def _tensors(prediction: Prediction) -> dict[str, Tensor]:
    values = {field.name: getattr(prediction, field.name) for field in fields(Prediction)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}
