"""The training loop: steps, schedule, moving average, checkpoints to resume from."""

import itertools
import json
import math
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from everview.errors import ConfigError, InputError
from everview.model.network import Network, Outputs, build
from everview.model.presets import presets
from everview.training.data import Batch, batches
from everview.training.losses.cameras import camera_loss, relative_pose_loss
from everview.training.losses.maps import confidence_loss, gradient_loss
from everview.training.losses.tracks import track_loss
from everview.training.matching import Matching
from everview.training.recipe import TrainingRecipe
from everview.weights.save import save

CHECKPOINT = "checkpoint.pt"
RECIPE = "recipe.json"
LOSSES = "losses.jsonl"
MODEL = "model"
LOG_EVERY = 20
MAX_BAD_STEPS = 20
"""Steps in a row without a finite loss after which a run gives up."""


@dataclass(slots=True)
class Progress:
    """Where a run stands."""

    step: int = 0
    """Steps done."""
    seconds: float = 0.0
    """Time spent so far, over all sittings; the schedule follows it."""


class Trainer:
    """A run in a folder: `recipe.json`, `losses.jsonl`, `checkpoint.pt`, `model/`.

    Raises:
        ConfigError: if the folder holds a run and `resume` is False, or the recipe differs.
    """

    def __init__(self, recipe: TrainingRecipe, folder: Path, *, resume: bool = False) -> None:
        self.recipe, self.folder = recipe, folder
        _claim(folder, recipe, resume=resume)
        self.network = build(presets[recipe.preset], seed=recipe.seed).train()
        _prepare(self.network, recipe)
        self.matching = Matching(self.network)
        self.average = build(presets[recipe.preset], seed=recipe.seed)
        self.average.load_state_dict(self.network.state_dict())
        self.optimizer = _optimizer([self.network, self.matching], recipe)
        self.progress = Progress()
        if resume and (folder / CHECKPOINT).is_file():
            self._read_checkpoint()

    def run(self) -> Iterator[dict[str, float]]:
        """Train until the recipe's time is over; yields the losses of every logged step.

        Raises:
            InputError: if the loss is not finite for MAX_BAD_STEPS steps in a row; names the step.
        """
        started = time.monotonic() - self.progress.seconds
        saved, bad = self.progress.seconds, 0
        budget = 60 * self.recipe.minutes
        stream = batches(self.recipe, self.progress.step)
        while self.progress.seconds < budget:
            losses = self._step(next(stream), self.progress.seconds / budget)
            bad = 0 if losses["finite"] else bad + 1
            if bad >= MAX_BAD_STEPS:
                raise InputError(
                    f"the loss was not finite in {bad} steps up to step {self.progress.step} "
                    f"(seed {self.recipe.seed}): lower learning_rate, resume from {self.folder}"
                )
            self.progress.step += 1
            self.progress.seconds = time.monotonic() - started
            if self.progress.step % LOG_EVERY == 0:
                self._log(losses)
                yield losses
            if self.progress.seconds - saved > 60 * self.recipe.checkpoint_minutes:
                self.write_checkpoint()
                saved = self.progress.seconds
        stream.close()  # type: ignore[attr-defined]
        self.write_checkpoint()

    def write_checkpoint(self) -> None:
        """Write the state of the run and the averaged model; a kill leaves the earlier ones."""
        partial = self.folder / (CHECKPOINT + ".tmp")
        torch.save(
            {
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "matching": self.matching.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.progress.step,
                "seconds": self.progress.seconds,
            },
            partial,
        )
        partial.replace(self.folder / CHECKPOINT)
        save(self.average, self.folder / MODEL, dtype=torch.float16)

    def _step(self, batch: Batch, share: float) -> dict[str, float]:
        rate = learning_rate(self.recipe, self.progress.step, share)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        terms = losses_of(self.network, self.matching, batch, self.recipe, self.progress.step)
        total = weighted_sum(terms, self.recipe)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        finite = bool(norm.isfinite())
        if finite:
            self.optimizer.step()
            self._update_average()
        values = {name: float(term.detach()) for name, term in terms.items()}
        return values | {"total": float(total.detach()), "gradient": float(norm), "rate": rate,
                         "finite": float(finite)}  # fmt: skip

    @torch.no_grad()
    def _update_average(self) -> None:
        keep = min(self.recipe.average_decay, (1 + self.progress.step) / (10 + self.progress.step))
        mean: list[Tensor] = list(self.average.parameters())
        now: list[Tensor] = list(self.network.parameters())
        torch._foreach_lerp_(mean, now, 1 - keep)

    def _log(self, losses: dict[str, float]) -> None:
        line = {"step": self.progress.step, "seconds": round(self.progress.seconds, 1)} | losses
        with (self.folder / LOSSES).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _read_checkpoint(self) -> None:
        path = self.folder / CHECKPOINT
        try:
            state: dict[str, Any] = torch.load(path, weights_only=True)
        except Exception as error:  # torch raises many kinds
            raise InputError(f"{path} is damaged ({error}): start the run again") from error
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.matching.load_state_dict(state["matching"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(step=state["step"], seconds=state["seconds"])


def learning_rate(recipe: TrainingRecipe, step: int, share: float) -> float:
    """Linear warm-up in steps, cosine to zero over the share of time spent, within [0, 1]."""
    warm = min(1.0, (step + 1) / recipe.warm_up_steps)
    return recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def losses_of(
    network: Network, matching: Matching, batch: Batch, recipe: TrainingRecipe, step: int
) -> dict[str, Tensor]:
    """Unweighted terms of one step. Depth errors are taken in logarithms: relative errors."""
    frames = dense_frames(batch, recipe, step)
    tracks = network.track_head is not None and step % recipe.track_every == 0
    size = (batch.images.shape[-2], batch.images.shape[-1])
    tokens = network.aggregator(batch.images)
    outputs = network.heads(tokens, size, batch.queries if tracks else None, dense_frames=frames)
    poses, truth = outputs.pose_encoding_iterations, batch.pose_encoding
    rotation, translation = relative_pose_loss(poses[-1], truth)
    terms = {"camera": camera_loss(poses, truth), "rotation": rotation,
             "translation": translation}  # fmt: skip
    terms |= matching(network, tokens, batch)
    terms |= _dense_terms(outputs, batch, frames, recipe.confidence_alpha)
    if tracks:
        terms["tracks"] = track_loss(
            _required(outputs.track_iterations), _required(outputs.visibility_logits),
            _required(outputs.track_confidence_logits), batch.tracks, batch.visible,
            scale=network.input_size / 10,
        )  # fmt: skip
    return terms


def weighted_sum(terms: dict[str, Tensor], recipe: TrainingRecipe) -> Tensor:
    """The number that is minimised."""
    weights = {
        "camera": recipe.camera_weight,
        "flow": recipe.flow_weight,
        "attention": recipe.attention_weight,
        "rotation": recipe.relative_weight,
        "translation": recipe.relative_weight / 3,
        "tracks": recipe.track_weight * recipe.track_every,
        "depth_gradient": 0.5,
    }
    return torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum()


def dense_frames(batch: Batch, recipe: TrainingRecipe, step: int) -> list[tuple[int, int]]:
    """The (clip, frame) pairs of a step whose depth and points are punished."""
    num_clips, num_frames = batch.images.shape[:2]
    pairs = list(itertools.product(range(num_clips), range(num_frames)))
    return random.Random(step).sample(pairs, min(len(pairs), recipe.dense_images))


def _dense_terms(
    outputs: Outputs, batch: Batch, pairs: list[tuple[int, int]], alpha: float
) -> dict[str, Tensor]:
    clips, frames = (list(axis) for axis in zip(*pairs, strict=True))
    depth, truth = _required(outputs.depth).log(), batch.depth[clips, frames][None].log()
    points = _required(outputs.points)
    distance = (points - batch.points[clips, frames]).abs().mean(dim=-1)  # 1 pairs H W
    return {
        "depth": confidence_loss(
            (depth - truth).abs(), _required(outputs.depth_confidence), alpha=alpha
        ),
        "depth_gradient": gradient_loss(depth, truth),
        "points": confidence_loss(distance, _required(outputs.points_confidence), alpha=alpha),
    }


def _required(value: Tensor | None) -> Tensor:
    assert value is not None, "presets that are trained have all heads"
    return value


def _prepare(network: Network, recipe: TrainingRecipe) -> None:
    """Let residual branches speak from the first step."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(recipe.layer_scale)


def _optimizer(modules: list[nn.Module], recipe: TrainingRecipe) -> torch.optim.AdamW:
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.95))


def _claim(folder: Path, recipe: TrainingRecipe, *, resume: bool) -> None:
    """Make the folder of a new run, or check that it belongs to the run that is resumed."""
    path = folder / RECIPE
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        recipe.save(path)
        return
    if not resume:
        raise ConfigError(f"{folder} holds a run already: resume it (--resume) or name another")
    if TrainingRecipe.read(path) != recipe:
        raise ConfigError(f"{path} differs from the recipe asked for: name another folder")


def be_nice(threads: int) -> None:
    """Leave the machine usable: few threads, low priority."""
    torch.set_num_threads(threads)
    os.nice(5)
