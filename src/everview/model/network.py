"""Network: VGGT and StreamVGGT, one code base; `Config.attention` tells them apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from everview.errors import ConfigError
from everview.frames.preprocess import preprocess
from everview.geometry.pixel_map import PixelMap
from everview.geometry.prediction import Prediction
from everview.memory.free import free_memory
from everview.memory.policies import MemoryPolicy, automatic, parse
from everview.memory.state import CameraCache, StreamState
from everview.model.aggregator import Aggregator
from everview.model.config import Config
from everview.model.heads.camera import CameraHead
from everview.model.heads.dense import DenseHead
from everview.model.heads.tracks import TrackHead
from everview.model.initialise import initialise
from everview.model.layers.block import Block, output_dtype
from everview.model.stream import Stream, resume

DENSE_FIELDS = ("depth", "depth_confidence", "points", "points_confidence")
"""Fields of `Outputs` that dense heads fill."""

FRAMES_AT_ONCE = 8
"""Frames that a dense head handles at a time: bounds memory, frames do not interact there."""
PIXELS_AT_ONCE = 1 << 22
"""The same on a GPU, where small images are too little work for one kernel."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the heads say, with gradients, before it becomes a `Prediction`. Axes as there."""

    pose_encoding_iterations: Float[Tensor, "rounds b s 9"]
    """After each refinement round."""
    depth: Float[Tensor, "clips dense H W"] | None
    """z-depth; `dense` is the number of frames for which it was asked."""
    depth_confidence: Float[Tensor, "clips dense H W"] | None
    """>= 1."""
    points: Float[Tensor, "clips dense H W 3"] | None
    """In the first camera's frame."""
    points_confidence: Float[Tensor, "clips dense H W"] | None
    """>= 1."""
    track_iterations: Float[Tensor, "rounds b s t 2"] | None
    """Pixels after each refinement round."""
    visibility_logits: Float[Tensor, "b s t"] | None
    """Before the sigmoid."""
    track_confidence_logits: Float[Tensor, "b s t"] | None
    """Before the sigmoid."""


class Network(nn.Module):
    """Images to cameras, depth, points and tracks: all frames at once, or as a stream.

    Parameter names are those of the published checkpoints. Weights only: what a stream remembers
    lives in the `Stream`.

    Source: VGGT (arXiv 2503.11651); causal form StreamVGGT (arXiv 2507.11539).
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        causal = config.attention == "causal"
        self.aggregator = Aggregator(config)
        self.camera_head = CameraHead(config.camera_head, is_causal=causal)
        patch, points, depth = config.patch_size, config.point_head, config.depth_head
        self.point_head = None if points is None else DenseHead(points, patch)
        self.depth_head = None if depth is None else DenseHead(depth, patch)
        track = config.track_head
        self.track_head = None if track is None else TrackHead(track, patch)
        self.info: Any = None
        """Where the weights come from; set by `everview.load`."""
        self.quantization: Any = None
        """How the projections were quantized; set by `everview.quantization`, None: not at all."""

    @property
    def input_size(self) -> int:
        """Width in pixels of the images that the network was made for."""
        return self.config.patch_embed.img_size

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.aggregator.camera_token.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the residual stream and the heads."""
        return self.aggregator.camera_token.dtype

    @property
    def precision(self) -> torch.dtype:
        """In which the aggregator's projections are kept and computed; see `set_precision`."""
        return output_dtype(cast(Block, self.aggregator.frame_blocks[0]).attn.qkv)

    def forward(
        self, images: Tensor | Sequence[Any], query_points: Tensor | None = None
    ) -> Prediction:
        """Predict all frames of a clip at once, without gradients.

        Args:
            images: b s 3 H W (or s 3 H W), RGB in [0, 1], H and W multiples of the patch size; or
                a sequence of `Frame`s of one size.
            query_points: b t 2 (or t 2), pixels (x, y) in frame 0; adds tracks to the prediction.

        Raises:
            ConfigError: if shape or dtype of the images or queries do not fit the network.
        """
        pixel_map = None
        if not isinstance(images, Tensor | np.ndarray):
            pixels, maps = zip(*(self.pixels_of(frame) for frame in images), strict=True)
            images = torch.stack(pixels)
            pixel_map = maps[0] if all(found == maps[0] for found in maps) else None
        images = torch.as_tensor(images)
        with torch.no_grad(), self.own_precision():
            images = self.check_images(images[None] if images.ndim == 4 else images)
            queries = None if query_points is None else self.check_points(query_points, len(images))
            outputs = self.predict(images, queries)
        return prediction_of(outputs, images, pixel_map)

    def predict(
        self,
        images: Float[Tensor, "b s 3 H W"],
        query_points: Float[Tensor, "b t 2"] | None = None,
        *,
        dense_frames: Sequence[tuple[int, int]] | None = None,
    ) -> Outputs:
        """All heads, with gradients; for training.

        Args:
            images: RGB in [0, 1].
            query_points: pixels (x, y) in frame 0.
            dense_frames: (clip, frame) pairs for which depth and points are wanted, which then have
                axes 1 and the number of pairs for b and s; all if None, no maps if empty.
        """
        size = (images.shape[3], images.shape[4])
        return self.heads(self.aggregator(images), size, query_points, dense_frames=dense_frames)

    def heads(
        self,
        tokens: Mapping[int, Float[Tensor, "b s p c"]],
        size: tuple[int, int],
        query_points: Float[Tensor, "b t 2"] | None = None,
        *,
        dense_frames: Sequence[tuple[int, int]] | None = None,
    ) -> Outputs:
        """The second half of `predict`: what the heads say of the aggregator's tokens.

        Args:
            tokens: kept layers of the aggregator.
            size: (height, width) of the images.
            query_points: pixels (x, y) in frame 0.
            dense_frames: as in `predict`.
        """
        poses = self.camera_head(tokens[self.config.aggregator.depth - 1][:, :, 0])
        dense: dict[int, Tensor] | None = dict(tokens)
        if dense_frames is not None:
            dense = _chosen_frames(tokens, dense_frames)
        tracks: tuple[Tensor | None, ...] = (None, None, None)
        if query_points is not None:
            tracks = self.require_track_head().tracker(
                self.track_features(tokens, size), query_points
            )
        return Outputs(
            pose_encoding_iterations=poses,
            **(dict.fromkeys(DENSE_FIELDS) if dense is None else self.dense(dense, size)),
            track_iterations=tracks[0],
            visibility_logits=tracks[1],
            track_confidence_logits=tracks[2],
        )

    def dense(
        self, tokens: Mapping[int, Float[Tensor, "b s p c"]], size: tuple[int, int]
    ) -> dict[str, Tensor | None]:
        """Depth and points with their confidences, for every frame of `tokens`."""
        result: dict[str, Tensor | None] = {}
        for name, head in (("depth", self.depth_head), ("points", self.point_head)):
            values, confidence = (None, None) if head is None else _by_frame(head, tokens, size)
            if name == "depth" and values is not None:
                values = values.squeeze(-1)
            result |= {name: values, f"{name}_confidence": confidence}
        return result

    def track_features(
        self, tokens: Mapping[int, Float[Tensor, "b s p c"]], size: tuple[int, int]
    ) -> Float[Tensor, "b s f h w"]:
        """Feature maps of the tracker, for every frame of `tokens`."""
        b = next(iter(tokens.values())).shape[0]
        extractor = self.require_track_head().feature_extractor
        maps = [extractor(chunk, size) for chunk in _chunks(tokens, size)]
        return torch.cat(maps).unflatten(0, (b, -1))

    def stream(
        self, memory: str = "auto", *, batch: int = 1, camera_cache: str = "per_round"
    ) -> Stream:
        """Start a stream: frames one by one, each seeing the past.

        Args:
            memory: policy such as `full` or `key_diversity:tokens=8000`, see
                `everview.memory.POLICIES`; `auto` is bounded, by the memory that is free.
            batch: streams side by side that advance together.
            camera_cache: `per_round` equals the causal forward over all frames; `shared` reproduces
                the published inference, which lets refinement rounds see each other's keys.

        Raises:
            ConfigError: if the network is not causal or an argument is unknown.
        """
        if self.config.attention != "causal":
            raise ConfigError(
                "a stream needs a causal network (StreamVGGT), this one has global attention "
                "(VGGT): call model(images) with all frames instead"
            )
        if camera_cache not in ("per_round", "shared"):
            raise ConfigError(f"camera_cache must be 'per_round' or 'shared', got {camera_cache!r}")
        if batch < 1:
            raise ConfigError(f"batch must be at least 1, got {batch}")
        camera = self.config.camera_head
        state = StreamState.empty(
            policy=self._policy(memory),
            depth=self.config.aggregator.depth,
            rounds=camera.num_iterations,
            trunk_depth=camera.trunk_depth,
            camera_cache=cast(CameraCache, camera_cache),
            batch=batch,
        )
        return Stream(self, state)

    def _policy(self, text: str) -> MemoryPolicy:
        if text != "auto":
            return parse(text)
        agg = self.config.aggregator
        patches = (self.input_size // self.config.patch_size) ** 2
        return automatic(
            free_bytes=free_memory(self.device),
            values=2 * agg.depth * agg.embed_dim,
            value_bytes=self.precision.itemsize,
            per_frame=1 + agg.num_register_tokens + patches,
        )

    def resume(self, path: str | Path) -> Stream:
        """Go on with a stream that `Stream.save` wrote.

        Raises:
            InputError: if the file is damaged, of another version, or of another network.
        """
        return resume(self, Path(path))

    def set_precision(self, dtype: torch.dtype) -> "Network":
        """Keep the weights of the aggregator's projections in `dtype` and compute them in it.

        Norms, residual stream and all heads stay as they are, as in the published inference under
        autocast. Returns self.
        """
        for module in self.aggregator.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.to(dtype)
        return self

    def own_precision(self) -> torch.autocast:
        """A context without autocast: projections and heads have their own dtypes."""
        return torch.autocast(device_type=self.device.type, enabled=False)

    def pixels_of(self, image: Any) -> tuple[Tensor, PixelMap | None]:  # noqa: ANN401
        """Pixels of a tensor, an array, a `Frame` or the result of `everview.preprocess`.

        A frame with its original pixels is preprocessed for this network.
        """
        if isinstance(image, Tensor | np.ndarray):
            return torch.as_tensor(image), None
        if not hasattr(image, "image"):
            raise ConfigError(
                f"an image must be a tensor 3 H W or a Frame (everview.read), got "
                f"{type(image).__name__}: use everview.preprocess"
            )
        if image.pixel_map is not None:
            return image.image, image.pixel_map
        bytes_ = (image.image * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        prepared = preprocess(bytes_, self.input_size)
        return prepared.image, prepared.pixel_map

    def check_images(self, images: Tensor) -> Float[Tensor, "b s 3 H W"]:
        """Images on the network's device and dtype.

        Raises:
            ConfigError: if they are not floating point, or not b s 3 H W on the patch grid.
        """
        patch = self.config.patch_size
        if not images.is_floating_point():
            raise ConfigError(f"images must be floating point in [0, 1], got {images.dtype}: / 255")
        good = images.ndim == 5 and images.shape[2] == 3 and min(images.shape) > 0
        if not good or images.shape[3] % patch or images.shape[4] % patch:
            raise ConfigError(
                f"images must be b s 3 H W (a frame 3 H W) with H and W multiples of {patch}; got "
                f"{tuple(images.shape)}: resize with everview.preprocess"
            )
        to_gpu = self.device.type == "cuda"  # elsewhere the copy could be read before it is done
        return images.to(device=self.device, dtype=self.dtype, non_blocking=to_gpu)

    def check_points(self, points: Tensor, batch: int) -> Float[Tensor, "b t 2"]:
        """Query points on the network's device and dtype.

        Raises:
            ConfigError: if they are not b t 2 or t 2, or there are none, or one is not finite.
        """
        points = torch.as_tensor(points)
        points = points.expand(batch, -1, -1) if points.ndim == 2 else points
        if points.ndim != 3 or points.shape[-1] != 2 or len(points) != batch or not points.numel():
            raise ConfigError(
                f"query points must be ({batch}, N, 2) or (N, 2) pixels (x, y) with N >= 1; "
                f"got {tuple(points.shape)}"
            )
        if not torch.isfinite(points).all():
            first = int((~torch.isfinite(points)).any(dim=-1)[0].nonzero()[:1].sum())
            raise ConfigError(
                f"query points must be finite: one is not, first in row {first}; leave it out"
            )
        return points.to(device=self.device, dtype=self.dtype)

    def require_track_head(self) -> TrackHead:
        """The track head; ConfigError if the network has none."""
        if self.track_head is None:
            raise ConfigError("this network has no track head: call it without query points")
        return self.track_head


def build(config: Config | Mapping[str, Any], *, seed: int | None = None) -> Network:
    """Make a randomly initialised network in evaluation mode.

    Args:
        config: or the content of a `config.json`.
        seed: of the initial values; torch's current generator state if None.

    Raises:
        ConfigError: if the config has an unknown key or an impossible value.
    """
    if not isinstance(config, Config):
        config = Config.from_dict(config)
    network = Network(config)
    initialise(network, seed=seed)
    return network.eval()


def _chosen_frames(
    tokens: Mapping[int, Tensor], pairs: Sequence[tuple[int, int]]
) -> dict[int, Tensor] | None:
    """Tokens of (clip, frame) pairs, 1 m p c; None if there are no pairs."""
    if not pairs:
        return None
    clips, frames = (list(axis) for axis in zip(*pairs, strict=True))
    return {layer: t[clips, frames][None] for layer, t in tokens.items()}


def _chunks(tokens: Mapping[int, Tensor], size: tuple[int, int]) -> list[dict[int, Tensor]]:
    flat = {layer: t.flatten(0, 1) for layer, t in tokens.items()}  # (b s) p c
    first = next(iter(flat.values()))
    at_once = FRAMES_AT_ONCE
    if first.device.type == "cuda":
        at_once = max(at_once, PIXELS_AT_ONCE // (size[0] * size[1]))
    return [
        {layer: t[i : i + at_once] for layer, t in flat.items()}
        for i in range(0, len(first), at_once)
    ]


def _by_frame(
    head: DenseHead, tokens: Mapping[int, Tensor], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    b = next(iter(tokens.values())).shape[0]
    parts = [head.predict(chunk, size) for chunk in _chunks(tokens, size)]
    values, confidence = (torch.cat(p).unflatten(0, (b, -1)) for p in zip(*parts, strict=True))
    return values, confidence


def prediction_of(outputs: Outputs, images: Tensor, pixel_map: Any) -> Prediction:  # noqa: ANN401
    """The last refinement rounds of all heads, and probabilities in place of logits."""
    tracks = outputs.track_iterations
    visibility, confidence = outputs.visibility_logits, outputs.track_confidence_logits
    return Prediction(
        pose_encoding=outputs.pose_encoding_iterations[-1],
        pose_encoding_iterations=outputs.pose_encoding_iterations,
        network_size=(images.shape[-2], images.shape[-1]),
        depth=outputs.depth,
        depth_confidence=outputs.depth_confidence,
        points=outputs.points,
        points_confidence=outputs.points_confidence,
        tracks=None if tracks is None else tracks[-1],
        visibility=None if visibility is None else visibility.sigmoid(),
        track_confidence=None if confidence is None else confidence.sigmoid(),
        pixel_map=pixel_map,
    )
