"""Who predicts: a network in a stream, all frames at once, or each frame by itself."""

import dataclasses
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from PIL import Image
from torch import Tensor

from everview.errors import ConfigError, InputError
from everview.evaluation.benchmarks.clip import EvalClip
from everview.frames.frame import Frame
from everview.frames.preprocess import preprocess, preprocess_batch
from everview.frames.rgb import UNREADABLE
from everview.geometry.prediction import Prediction
from everview.model.network import Network
from everview.model.stream import Stream
from everview.weights.hashes import weights_hash

MODES = ("streaming", "offline", "single")
FEW = 64
"""Frames of a clip that may differ in size: they are padded to a common one."""


@runtime_checkable
class Session(Protocol):
    """One clip being predicted."""

    @property
    def num_frames(self) -> int:
        """Frames that a saved state had seen already."""
        ...

    def step(self, frame: Frame) -> Prediction:
        """The prediction of the next frame, s = 1."""
        ...

    def save(self, path: Path) -> None:
        """Write what is needed to go on later."""
        ...


@runtime_checkable
class Predictor(Protocol):
    """Whatever can be scored."""

    mode: str
    """One of `MODES`."""

    def frame(self, clip: EvalClip, index: int) -> Frame:
        """The n-th frame as the predictor wants it."""
        ...

    def start(self, clip: EvalClip, state: Path | None) -> Session:
        """Begin a clip, or go on from a saved state."""
        ...


class NetworkPredictor:
    """A network with loaded weights.

    Args:
        network: causal for the mode `streaming`.
        mode: see `MODES`.
        memory: policy of the stream.

    Raises:
        ConfigError: if the mode is unknown, or a network with global attention shall stream.
    """

    def __init__(self, network: Network, *, mode: str = "streaming", memory: str = "full") -> None:
        if mode not in MODES:
            raise ConfigError(f"mode must be one of {', '.join(MODES)}; got {mode!r}")
        if mode == "streaming" and network.config.attention != "causal":
            raise ConfigError("this network has global attention: give --mode offline")
        self.network, self.mode, self.memory = network, mode, memory
        self._padded: dict[str, list[tuple[Tensor, Any]]] = {}

    def facts(self) -> dict[str, Any]:
        """What a result says of who predicted, and how."""
        network, size = self.network, self.network.input_size
        info = {} if network.info is None else dataclasses.asdict(network.info)
        config = network.config.to_dict()
        return {
            "model": {**info, "weights_sha256": weights_hash(network), "config": config},
            "mode": self.mode,
            "memory": self.memory if self.mode == "streaming" else None,
            "resize": f"width {size}, height to a multiple of 14, rows above {size} cut",
            "dtype": str(network.precision).removeprefix("torch."),
            "device": str(network.device),
        }

    def frame(self, clip: EvalClip, index: int) -> Frame:
        """Preprocessed for the network; padded if images of a short clip differ in size.

        Raises:
            InputError: if an image is absent or damaged.
        """
        padded = self._padded_frames(clip)
        if padded:
            image, pixel_map = padded[index]
        else:
            image, pixel_map = preprocess(clip.image(index), self.network.input_size)
        return Frame(
            image=image, timestamp=float(index), index=index, name=clip.frames[index],
            original_size=pixel_map.original_size, pixel_map=pixel_map,
        )  # fmt: skip

    def start(self, clip: EvalClip, state: Path | None) -> Session:
        """See `Predictor.start`."""
        if self.mode == "single":
            return _Single(self.network)
        if self.mode == "offline":
            return _Offline(self, clip)
        if state is not None:
            return _Streaming(self.network.resume(state))
        return _Streaming(self.network.stream(self.memory))

    def _padded_frames(self, clip: EvalClip) -> list[tuple[Tensor, Any]]:
        if self.mode == "single" or len(clip.frames) > FEW:
            return []
        if clip.name not in self._padded:
            pictures = [clip.image(i) for i in range(len(clip.frames))]
            paths = [picture for picture in pictures if isinstance(picture, Path)]
            prepared: list[tuple[Tensor, Any]] = []
            if len({_size(path) for path in paths}) > 1:
                batch = preprocess_batch(pictures, self.network.input_size)
                prepared = list(zip(batch.images, batch.pixel_maps, strict=True))
            self._padded = {clip.name: prepared}
        return self._padded[clip.name]


class _Streaming:
    """Frame by frame, each seeing the past."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    @property
    def num_frames(self) -> int:
        return self._stream.num_frames

    def step(self, frame: Frame) -> Prediction:
        try:
            return self._stream.step(frame)
        except ConfigError as error:
            raise InputError(f"frame {frame.name}: {error}") from error

    def save(self, path: Path) -> None:
        self._stream.save(path)


class _Offline:
    """All frames at once."""

    num_frames = 0

    def __init__(self, predictor: NetworkPredictor, clip: EvalClip) -> None:
        frames = [predictor.frame(clip, i) for i in range(len(clip.frames))]
        images = torch.stack([frame.image for frame in frames])
        self._whole = predictor.network(images[None])

    def step(self, frame: Frame) -> Prediction:
        return dataclasses.replace(self._whole.frame(frame.index), pixel_map=frame.pixel_map)

    def save(self, path: Path) -> None:
        """Nothing to save: the clip is predicted at once."""


class _Single:
    """Each frame by itself."""

    num_frames = 0

    def __init__(self, network: Network) -> None:
        self._network = network

    def step(self, frame: Frame) -> Prediction:
        return self._network([frame])

    def save(self, path: Path) -> None:
        """Nothing to save: no frame knows another."""


def _size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.size
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read as an image: {error}") from error
