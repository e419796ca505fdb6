"""Stream: one video going through a causal network, frame by frame."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from everview.errors import ConfigError
from everview.geometry.prediction import Prediction
from everview.memory.shortage import is_shortage
from everview.memory.snapshots import read_state, write_state
from everview.memory.state import StreamState
from everview.model.tracking import check_frame_size, follow, start_group

if TYPE_CHECKING:
    from everview.model.network import Network


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamReport:
    """How a stream stands."""

    frames: int
    """Frames seen."""
    tokens: int
    """Tokens held per aggregator layer."""
    cache_bytes: int
    """Keys and values of the aggregator: 2 * layers * tokens * width * bytes per value."""
    state_bytes: int
    """Everything reserved for this stream, unused room included."""
    taken_bytes: int
    """The part of it that takes memory: on a CPU what was written to, the rest takes nothing."""
    policy: str
    """What is forgotten."""
    fixed_bytes: int
    """The part of `state_bytes` that does not grow with the number of frames."""
    evictions: int
    """Tokens forgotten so far, per aggregator layer."""
    shortages: int
    """How often memory ran out; each time a bounded policy went on with a smaller budget."""
    is_bounded: bool
    """Whether `state_bytes` will not grow for ever."""


class Stream:
    """Frames in, one `Prediction` each; all that is remembered is here, not in the network.

    Made by `Network.stream` or `Network.resume`. Many streams may share a network, in any order of
    steps. A step that raises changes nothing; only an interrupt that comes while the frame is being
    stored lets that finish first, as `num_frames` tells. Where memory runs out, a bounded stream
    forgets a quarter of its past and takes the frame again. Leaving the `with` block frees the
    memory.
    """

    def __init__(self, network: "Network", state: StreamState) -> None:
        self._network = network
        self._state: StreamState | None = state

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free what is remembered; further steps raise ConfigError."""
        self._state = None

    @property
    def num_frames(self) -> int:
        """Frames seen so far."""
        return self._open().num_frames

    def step(self, image: Any, *, dense: bool = True) -> Prediction:  # noqa: ANN401  -- Frame, tensor
        """Predict the next frame, s = 1.

        Args:
            image: 3 H W or b 3 H W at the network's size, RGB in [0, 1]; or a `Frame`, which is
                preprocessed if it still has its original pixels. Frames with flags are not refused:
                ask `frame.usable` to leave out black or corrupt ones.
            dense: False leaves depth and points out (None), which saves the time of their heads;
                pose, tracks and what is remembered are the same.

        Raises:
            ConfigError: if shape, dtype or batch do not fit; the stream is then unchanged.
        """
        pixels, pixel_map = self._network.pixels_of(image)
        pixels = pixels[None] if pixels.ndim == 3 else pixels
        return self._advance(pixels[:, None], pixel_map, dense=dense)

    def prefill(self, images: Float[Tensor, "b s 3 H W"]) -> Prediction:
        """Predict several next frames at once: the same result as one step after the other.

        With a memory that is bounded or in codes they are taken one by one, and the past is copied
        once, to be there if one fails.

        Raises:
            ConfigError: as `step`.
        """
        state = self._open()
        images = self._network.check_images(images)
        if images.shape[1] == 1 or self._can_go_at_once(state):
            return self._advance(images)
        # Sharing makes rounds depend on the order of frames, and tracks are a matter of frames too.
        state.prepare()
        mark, copied = state.mark(), state.copied()
        try:
            return _joined([self._advance(images[:, i : i + 1]) for i in range(images.shape[1])])
        except BaseException:
            state.restore(mark, copied)
            raise

    @torch.no_grad()
    def track(self, points: Tensor) -> None:
        """Follow points from the latest frame on, beside all points asked for earlier.

        Args:
            points: b t 2 or t 2, pixels (x, y) of the latest frame.

        Raises:
            ConfigError: if no frame was seen, the shape is wrong, or the network has no track head.
        """
        state = self._open()
        if state.num_frames == 0:
            raise ConfigError("track() needs a frame: call step() first, then give its pixels")
        with self._network.own_precision():
            start_group(self._network, state, self._network.check_points(points, state.batch))

    def report(self) -> StreamReport:
        """Frames, tokens and bytes held, policy, evictions."""
        state = self._open()
        return StreamReport(
            frames=state.num_frames,
            tokens=state.num_tokens(),
            cache_bytes=state.cache_bytes(),
            state_bytes=state.reserved_bytes(),
            taken_bytes=self._taken_bytes(state),
            policy=state.policy.text,
            fixed_bytes=state.fixed_bytes(),
            evictions=state.num_evicted(),
            shortages=state.num_shortages,
            is_bounded=state.is_bounded(),
        )

    def _taken_bytes(self, state: StreamState) -> int:
        if self._network.device.type != "cpu":
            return state.reserved_bytes()
        held = (t for memory in state.memories().values() for t in memory.tensors().values())
        return state.fixed_bytes() + sum(tensor.nbytes for tensor in held)

    def save(self, path: str | Path) -> None:
        """Write everything needed to go on later, atomically; `Network.resume` reads it."""
        state = self._open()
        state.prepare()
        write_state(state, Path(path), network=_describe(self._network))

    @torch.no_grad()
    def _advance(
        self,
        images: Tensor,
        pixel_map: Any = None,  # noqa: ANN401
        *,
        dense: bool = True,
    ) -> Prediction:
        """Run the network on b s new frames and remember them, or change nothing."""
        state = self._open()
        images = self._network.check_images(images)
        if len(images) != state.batch:
            raise ConfigError(
                f"this stream has batch {state.batch}, got a batch of {len(images)}: "
                f"start it with model.stream(batch={len(images)})"
            )
        check_frame_size(state, (images.shape[3], images.shape[4]))
        mark = state.mark()
        try:
            state.prepare()
            with self._network.own_precision():
                return self._predict(state, images, pixel_map, dense=dense)
        except BaseException as error:
            if state.num_settled > mark.num_frames:  # the frame is in
                state.finish()
                raise
            state.roll_back(mark)
            if not (is_shortage(error) and state.shrink()):
                raise
        return self._advance(images, pixel_map, dense=dense)  # once more, in less memory

    def _predict(
        self,
        state: StreamState,
        images: Tensor,
        pixel_map: Any,  # noqa: ANN401
        *,
        dense: bool,
    ) -> Prediction:
        network = self._network
        size = (images.shape[3], images.shape[4])
        tokens = network.aggregator(images, first_frame=state.num_frames, memories=state.layers)
        last = tokens[network.config.aggregator.depth - 1]
        poses = network.camera_head(last[:, :, 0], memories=state.camera)
        maps: dict[str, Any] = dict(network.dense(tokens, size)) if dense else {}
        latest = {layer: t[:, -1:] for layer, t in tokens.items()}
        tracks: dict[str, Any] = {}
        if state.groups:
            features = network.track_features(latest, size)[:, 0]
            tracks = follow(network, state, features)
        state.tokens, state.image_size = latest, size
        state.num_frames += images.shape[1]
        prediction = Prediction(
            pose_encoding=poses[-1],
            pose_encoding_iterations=poses,
            network_size=size,
            pixel_map=pixel_map,
            **maps,
            **tracks,
        )
        state.settle()
        return prediction

    @staticmethod
    def _can_go_at_once(state: StreamState) -> bool:
        plain = state.policy.text == "full"  # in codes, a frame would see others as they came
        return state.camera_cache == "per_round" and not state.groups and plain

    def _open(self) -> StreamState:
        if self._state is None:
            raise ConfigError("this stream is closed: start a new one with model.stream()")
        return self._state


def resume(network: "Network", path: Path) -> Stream:
    """See `Network.resume`."""
    state = read_state(path, network=_describe(network), device=network.device)
    return Stream(network, state)


def _describe(network: "Network") -> dict[str, Any]:
    """What a saved stream must agree on: architecture, precision, a sample of the weights."""
    samples = [
        parameter.detach().flatten()[:4].double().cpu() for parameter in network.parameters()
    ]
    digest = hashlib.sha256(torch.cat(samples).numpy().tobytes()).hexdigest()
    return {
        "config": network.config.to_dict(),
        "precision": _precision(network),
        "weights": digest[:16],
    }


def _precision(network: "Network") -> str:
    floats = f"{network.precision} {network.dtype}"
    return floats if network.quantization is None else f"{floats} {network.quantization.scheme}"


def _joined(predictions: list[Prediction]) -> Prediction:
    """Predictions of consecutive frames as one."""
    first = predictions[0]
    values: dict[str, Any] = {
        "pose_encoding_iterations": torch.cat(
            [torch.as_tensor(p.pose_encoding_iterations) for p in predictions], dim=2
        )
    }
    for name in ("pose_encoding", "depth", "depth_confidence", "points", "points_confidence",
                 "tracks", "visibility", "track_confidence"):  # fmt: skip
        if getattr(first, name) is not None:
            values[name] = torch.cat([getattr(p, name) for p in predictions], dim=1)
    return Prediction(network_size=first.network_size, **values)
