"""Objective: the terms of a loss with their weights, before they become one number."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from everview.model.network import Outputs
from everview.training.losses.alignment import unit_of_clips
from everview.training.losses.cameras import is_flipped
from everview.training.losses.target import Kind, MapPairs, Target


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What a step is punished for, and numbers worth a look."""

    terms: dict[str, Float[Tensor, ""]]
    """Unweighted, with gradients."""
    weights: dict[str, float]
    """One per term; 0 for a term that is only watched."""
    diagnostics: dict[str, Float[Tensor, ""]]
    """Without gradients: `quaternion_flips` and `valid_share` are shares in [0, 1], scales are what
    the student is, or would have to be, multiplied with to be as large as its target."""

    @property
    def total(self) -> Float[Tensor, ""]:
        """The number to minimise: the weighted sum; terms of weight 0 stay out of the graph."""
        weighted = [self.weights[n] * t for n, t in self.terms.items() if self.weights[n]]
        return torch.stack(weighted).sum()


def weights_by_subject(terms: Mapping[str, Tensor], known: Mapping[str, float]) -> dict[str, float]:
    """A weight for every term by the first word of its name (`depth` for `depth_gradient`)."""
    return {name: known[name.partition("_")[0]] for name in terms}


@torch.no_grad()
def diagnose(
    outputs: Outputs, target: Target, pairs: Mapping[Kind, MapPairs]
) -> dict[str, Float[Tensor, ""]]:
    """Share of quaternions on the wrong side, share of valid pixels, ratio of sizes per map."""
    flipped = is_flipped(outputs.pose_encoding_iterations[-1], target.pose_encoding)
    numbers = {"quaternion_flips": flipped.float().mean()}
    num_clips = len(target.pose_encoding)
    for kind, maps in pairs.items():
        weight = maps.mask.to(maps.value.dtype)
        ours, theirs = (
            unit_of_clips([values], [weight], maps.clip, num_clips)
            for values in (maps.value, maps.truth)
        )
        numbers[f"{kind}_scale"] = (theirs / ours).log().mean().exp()
        numbers["valid_share"] = weight.mean()
    return numbers
