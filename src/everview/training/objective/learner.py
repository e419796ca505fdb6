"""Learner: network, auxiliary tasks and losses as one module, from a batch to one number."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from everview.errors import InputError
from everview.geometry.prediction import Prediction
from everview.model.network import Network
from everview.training.feed.batch import Batch
from everview.training.losses.distillation import Loss, distillation, supervision
from everview.training.losses.objective import Objective
from everview.training.losses.target import Target, in_full_precision
from everview.training.objective.guidance import Guidance
from everview.training.objective.procedural import ProceduralSupervision
from everview.training.recipe.recipe import TrainingRecipe
from everview.training.recipe.settings import Stage
from everview.training.recipe.terms import TRACK_TERMS
from everview.training.teacher_cache import clip_of


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a batch gave, in plain numbers on the device."""

    terms: dict[str, Float[Tensor, ""]]
    """Unweighted."""
    weights: dict[str, float]
    """What each term counted."""
    diagnostics: dict[str, Float[Tensor, ""]]
    """See `Objective.diagnostics`."""


class Learner(nn.Module):
    """The objective of a recipe. `forward` returns the number to minimise and what it is made of.

    All of it happens within `forward`, as wrappers for several ranks need it.
    """

    def __init__(self, network: Network, recipe: TrainingRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.network = network
        self.guidance = None if recipe.objective.guide is None else Guidance(network)

    def forward(self, batch: Batch, said: Prediction | None) -> tuple[Tensor, Judged]:
        """Judge the network on a batch.

        Args:
            batch: on the network's device.
            said: what the teacher says of the same images and queries.

        Raises:
            InputError: if the objective needs a truth that the clips do not have.
        """
        stage = self.recipe.stages[batch.request.stage]
        frames = dense_frames(batch, self.recipe)
        parts = self._judge(batch, said, frames)
        terms = {
            f"{part}/{k}": t for part, judged in parts.items() for k, t in judged.terms.items()
        }
        weights = self._weights(parts, stage)
        diagnostics = {
            f"{part}/{k}": t
            for part, judged in parts.items()
            for k, t in judged.diagnostics.items()
        }
        total = Objective(terms=terms, weights=weights, diagnostics=diagnostics).total
        detached = {name: term.detach() for name, term in terms.items()}
        return total, Judged(terms=detached, weights=weights, diagnostics=diagnostics)

    def _judge(
        self, batch: Batch, said: Prediction | None, frames: list[tuple[int, int]]
    ) -> dict[str, Objective]:
        objective, network = self.recipe.objective, self.network
        size = (batch.images.shape[-2], batch.images.shape[-1])
        tokens = network.aggregator(batch.images)
        queries = batch.queries if network.track_head is not None else None
        outputs = network.heads(tokens, size, queries, dense_frames=frames)
        mask = batch.valid if objective.masks else None
        taught = None if said is None else Target.from_prediction(said, mask)
        parts = {}
        if objective.truth is not None:
            parts["truth"] = supervision(
                outputs, _truth(batch), preset=_loss(objective.truth), dense_frames=frames
            )
        if objective.teacher is not None and said is not None and frames:
            parts["teacher"] = distillation(
                outputs, said, mask=mask,
                preset=objective.teacher, dense_frames=frames,
            )  # fmt: skip
        if self.guidance is not None:
            right = _truth(batch) if objective.guide == "truth" else taught
            assert right is not None, "a guiding teacher has spoken"
            parts["guide"] = self.guidance(
                network, tokens, outputs, in_full_precision(right), batch.still
            )
        return parts

    def _weights(self, parts: Mapping[str, Objective], stage: Stage) -> dict[str, float]:
        """Weight of every term: its loss's own or the recipe's, times that of its part."""
        objective = self.recipe.objective
        chosen = {**objective.weights, **stage.weights}
        factors = {"truth": objective.truth_weight, "teacher": objective.teacher_weight}
        return {
            f"{part}/{name}": chosen.get(f"{part}/{name}", weight)
            * factors.get(part, 1.0)
            * (stage.track_every if name in TRACK_TERMS else 1)
            for part, judged in parts.items()
            for name, weight in judged.weights.items()
        }


def dense_frames(batch: Batch, recipe: TrainingRecipe) -> list[tuple[int, int]]:
    """The (clip, frame) pairs whose depth and points are made and punished.

    Equally many of each clip, drawn by the clip's place in its step, so that it does not matter
    into how many parts the step is split.
    """
    stage = recipe.stages[batch.request.stage]
    num_frames = batch.images.shape[1]
    if stage.dense_images == 0:
        return []
    wanted = num_frames
    if stage.dense_images is not None:
        share = stage.dense_images / max(stage.images, num_frames)
        wanted = min(num_frames, max(1, round(share * num_frames)))
    pairs = []
    for place, number in enumerate(batch.numbers):
        dice = random.Random(f"{recipe.run.seed} {batch.request.step} {number} dense")
        pairs += [(place, frame) for frame in sorted(dice.sample(range(num_frames), wanted))]
    return pairs


def part_of(batch: Batch, index: int) -> Batch:
    """One clip of a batch as a batch of its own."""

    def cut(value: Tensor | None) -> Tensor | None:
        return None if value is None else value[index : index + 1]

    truth = None
    if batch.truth is not None:
        values = {name: cut(value) for name, value in vars(batch.truth).items()}
        truth = replace(batch.truth, **values)  # type: ignore[arg-type]
    valid: Bool[Tensor, "1 s H W"] = batch.valid[index : index + 1]
    return replace(
        batch,
        images=batch.images[index : index + 1],
        queries=cut(batch.queries),
        truth=truth,
        valid=valid,
        still=cut(batch.still),
        labels=batch.labels[index : index + 1],
        numbers=batch.numbers[index : index + 1],
    )


def _loss(name: str) -> str | Loss:
    return ProceduralSupervision() if name == "procedural" else name


def _truth(batch: Batch) -> Target:
    if batch.truth is None:
        raise InputError(
            f"{batch.labels[0]}: depth or poses are not known, but objective.truth or "
            "objective.guide asks for them: distil from a teacher (objective.truth=null, "
            "objective.guide=teacher), or leave this set out"
        )
    return batch.truth


@torch.no_grad()
def finite_clips(learner: Learner, batch: Batch, said: Prediction | None) -> list[bool]:
    """Which clips of a batch have a finite loss when judged alone."""
    found = []
    for index in range(len(batch.labels)):
        alone = None if said is None else clip_of(said, index)
        total, _ = learner(part_of(batch, index), alone)
        found.append(bool(total.isfinite()))
    return found
