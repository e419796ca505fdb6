"""The teacher of a distillation: a frozen network that sees all frames of a clip at once."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from everview.errors import ConfigError
from everview.geometry.prediction import Prediction
from everview.model.network import DENSE_FIELDS, Network, prediction_of
from everview.training.teacher_cache import TeacherCache, clip_of, joined
from everview.weights.hashes import weights_hash

NUM_QUERIES = 64
"""Query points per clip, as in StreamVGGT's released training."""


class Teacher:
    """Predictions of a frozen network, computed on the fly or read from a cache.

    The network is put into evaluation mode and gets no gradients from then on; its first frame is
    the reference, as for the student.

    Source: StreamVGGT Sec. 3.4, knowledge distillation from VGGT.

    Raises:
        ConfigError: if the network is causal: it would know no more than its student.
    """

    def __init__(self, network: Network, cache: TeacherCache | None = None) -> None:
        if network.config.attention != "global":
            raise ConfigError(
                f"a teacher sees all frames at once; this network has {network.config.attention!r} "
                'attention: give one with attention "global" (VGGT)'
            )
        self.network = network.eval().requires_grad_(False)
        self.cache = cache

    def __call__(
        self,
        images: Float[Tensor, "b s 3 H W"],
        query_points: Float[Tensor, "b t 2"] | None = None,
        *,
        dense_frames: Sequence[tuple[int, int]] | None = None,
    ) -> Prediction:
        """Say what is in each clip.

        Args:
            images: RGB in [0, 1], the very ones that the student gets, first frame first.
            query_points: pixels (x, y) in frame 0.
            dense_frames: (clip, frame) pairs of which maps are wanted; without a cache, those of
                other frames are left at zero. All if None.

        Raises:
            InputError: if the cache cannot be written.
        """
        if self.cache is None and dense_frames:
            return self._partly(images, query_points, dense_frames)
        if self.cache is None:
            return self.network(images, query_points)
        return self._through_cache(self.cache, images, query_points)

    @torch.no_grad()
    def _partly(
        self, images: Tensor, queries: Tensor | None, pairs: Sequence[tuple[int, int]]
    ) -> Prediction:
        """Everything, but depth and points of some frames only."""
        with self.network.own_precision():
            outputs = self.network.predict(images, queries, dense_frames=pairs)
        clips, frames = (list(axis) for axis in zip(*pairs, strict=True))
        whole = {}
        for name in DENSE_FIELDS:
            value = getattr(outputs, name)
            if value is not None:  # 1 m H W ...
                whole[name] = value.new_zeros(*images.shape[:2], *value.shape[2:])
                whole[name][clips, frames] = value[0]
        return prediction_of(replace(outputs, **whole), images, None)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights; part of the key of everything cached."""
        return weights_hash(self.network)

    def _through_cache(
        self, cache: TeacherCache, images: Tensor, queries: Tensor | None
    ) -> Prediction:
        size = (images.shape[-2], images.shape[-1])
        keys = [
            cache.key(
                self.fingerprint,
                str(self.network.config),
                f"frames {images.shape[1]} size {size}",
                clip,
                None if queries is None else queries[i],
            )
            for i, clip in enumerate(images)
        ]
        found = [cache.read(key, size) for key in keys]
        absent = [i for i, prediction in enumerate(found) if prediction is None]
        if absent:
            new = self.network(images[absent], None if queries is None else queries[absent])
            for place, i in enumerate(absent):
                found[i] = cache.write(keys[i], clip_of(new, place))
        return joined([p for p in found if p is not None]).to(self.network.device)


def sample_query_points(
    mask: Bool[Tensor, "b H W"],
    *,
    num_points: int = NUM_QUERIES,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b t 2"]:
    """Draw pixels (x, y) with replacement among the valid ones of each clip's first frame.

    Args:
        mask: valid pixels of the first frame.
        num_points: per clip.
        generator: on the CPU; torch's own if None.

    Returns:
        Whole pixels; all (0, 0) for a clip with fewer valid pixels than points.

    Source: StreamVGGT released training, query points.
    """
    weights = mask.flatten(1).float().cpu()
    few = weights.sum(dim=1) < num_points
    weights[few] = 0
    weights[few, 0] = 1
    index = torch.multinomial(weights, num_points, replacement=True, generator=generator)
    width = mask.shape[-1]
    return torch.stack([index % width, index // width], dim=-1).to(mask.device, torch.float32)
