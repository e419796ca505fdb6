"""Trainer: a run in a folder, from its recipe to a model that `everview.load` takes."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from everview.errors import InputError
from everview.geometry.prediction import Prediction
from everview.memory.free import free_memory
from everview.training.adapt.memory import MemoryEstimate, estimate_memory
from everview.training.degrade import Faults, degrade
from everview.training.feed.batch import Batch, Request
from everview.training.feed.loader import batches, open_source, processes
from everview.training.objective.learner import Judged, Learner, dense_frames
from everview.training.recipe.recipe import TrainingRecipe
from everview.training.run.average import MovingAverage
from everview.training.run.checkpoints import (
    optimiser_state,
    random_states,
    read_checkpoint,
    set_optimiser_state,
    set_parameters,
    set_random_states,
    write_checkpoint,
)
from everview.training.run.curves import CURVES, draw_curves
from everview.training.run.folder import MODEL, check, claim, save_model
from everview.training.run.guard import Guard
from everview.training.run.optimiser import clip, make_optimiser
from everview.training.run.parallel import full_state, gradients_stay, spread
from everview.training.run.precision import attention_of, autocast_of
from everview.training.run.ranks import Ranks
from everview.training.run.record import LOSSES, Line, Meter, Record
from everview.training.run.setup import make_network, make_teacher
from everview.weights.devices import pick_device
from everview.world.dice import hash_label


@dataclass(slots=True)
class Progress:
    """Where a run stands; the same on all ranks."""

    step: int = 0
    """Steps done, skipped ones included."""
    seconds: float = 0.0
    """Time spent so far, over all sittings."""
    images: int = 0
    """Images shown so far, over all ranks."""
    skipped: int = 0
    """Steps that changed nothing because their loss was not finite."""
    skipped_in_a_row: int = 0
    """The last ones of them."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a step came to; if it is not finite on any rank, it changed nothing."""

    is_finite: bool
    num_images: int
    """Of this rank."""
    weights: dict[str, float]


class Trainer:
    """A run: `recipe.yaml`, `losses.jsonl`, `losses.png`, two checkpoints, `model/`.

    Args:
        recipe: what to do.
        folder: of the run.
        resume: go on with the run in the folder.
        ranks: this process among those that train together.

    Raises:
        ConfigError: if the folder holds a run and `resume` is False, or a run of another recipe.
        InputError: if all checkpoints are damaged, or data cannot be opened.
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        folder: Path,
        *,
        resume: bool = False,
        ranks: Ranks | None = None,
    ) -> None:
        self.recipe, self.folder, self.ranks = recipe, folder, ranks or Ranks()
        self.device = self.ranks.device(pick_device(recipe.compute.device))
        check(folder, recipe, resume=resume, ranks=self.ranks)
        self.learner = Learner(make_network(recipe, self.device), recipe).to(self.device)
        asks = recipe.objective.asks_teacher
        self.teacher = make_teacher(recipe.teacher, self.device) if asks else None
        self.module = spread(self.learner, recipe.compute, self.ranks)
        self.average = MovingAverage(self.learner, recipe.optimiser.average_decay)
        self.optimiser = make_optimiser(self.learner, recipe.optimiser, self.ranks)
        self.guard = Guard(self.learner, folder, self.ranks)
        self.meter, self.progress = Meter(), Progress()
        self._waited = 0.0
        parts = self.ranks.count * recipe.compute.accumulation
        self._source = open_source(recipe, num_parts=parts, device=self.device)
        self.wants_stop = False
        """Set it at any time: the run then ends after the step, with a checkpoint."""
        if resume:
            self._resume()
        claim(folder, recipe, ranks=self.ranks)

    def run(self) -> Iterator[Line]:
        """Train until the end of the schedule; yields the lines of the log.

        Raises:
            InputError: if data cannot be read, a checkpoint cannot be written, or the loss stays
                without a finite value; names the clips.
        """
        started = time.monotonic() - self.progress.seconds
        saved = (self.progress.step, self.progress.seconds)
        record = Record(
            self.folder, after_step=self.progress.step, tensorboard=self.recipe.run.tensorboard
        ) if self.ranks.is_first else None  # fmt: skip
        stream = self._stream()
        try:
            while self._share(self.progress.step) < 1 and not self.wants_stop:
                line = self._advance(stream, started)
                if line is not None:
                    if record is not None:
                        record.write(line)
                    yield line
                if self._is_time_to_save(*saved):
                    self.write_checkpoint()
                    saved = (self.progress.step, self.progress.seconds)
            self.write_checkpoint()
        finally:
            stream.close()  # type: ignore[attr-defined]
            if record is not None:
                record.close()

    def write_checkpoint(self) -> None:
        """Write the state of the run, the averaged model and the curves.

        Every rank must call it; the first one writes.

        Raises:
            InputError: if there is no room.
        """
        state = full_state(self.learner)
        with self.average.in_place():
            average = full_state(self.learner)
        moments = optimiser_state(self.optimiser, self.learner)
        generators = self.ranks.gathered(random_states())
        if self.ranks.is_first:
            write_checkpoint(
                self.folder,
                {
                    "parameters": state,
                    "average": average,
                    "optimiser": moments,
                    "progress": asdict(self.progress),
                    "meter": self.meter.state(),
                    "generators": generators,
                },
            )
            save_model(self.folder / MODEL, average, self.recipe, steps=self.progress.step)
            if (self.folder / LOSSES).exists():
                draw_curves(self.folder / LOSSES, self.folder / CURVES)
        self.ranks.wait()

    def memory_needed(self) -> MemoryEstimate:
        """Forecast for this device."""
        teacher = [] if self.teacher is None else list(self.teacher.network.parameters())
        return estimate_memory(
            self.learner,
            self.learner.network.config,
            self.recipe,
            num_ranks=self.ranks.count,
            teacher_parameters=sum(p.numel() * p.element_size() for p in teacher),
        )

    def memory_free(self) -> int | None:
        """Bytes that this device has left, those of its allocator too; None if it is not told."""
        free = free_memory(self.device)
        if free is None or self.device.type != "cuda":
            return free
        return free + torch.cuda.memory_reserved(self.device)

    def _advance(self, stream: Iterator[Batch], started: float) -> Line | None:
        """One step; the line of the log where one is due."""
        share = self._share(self.progress.step)
        rate = self.recipe.rate(self.progress.step, share)
        stage = self._stage(self.progress.step)
        step = self._step(stream, rate)
        progress = self.progress
        progress.step += 1
        progress.images += step.num_images * self.ranks.count
        progress.seconds, stop = self.ranks.agree(time.monotonic() - started, self.wants_stop)
        self.wants_stop = bool(stop)
        progress.skipped += not step.is_finite
        progress.skipped_in_a_row = 0 if step.is_finite else progress.skipped_in_a_row + 1
        if progress.skipped_in_a_row >= self.recipe.run.give_up_after:
            raise InputError(
                f"the loss was not finite in {progress.skipped_in_a_row} steps in a row up to step "
                f"{progress.step}; last: {self.guard.last}. Look at these clips, or begin a run "
                f"from its weights with lower steps: network.start={self.folder / MODEL} "
                f"optimiser.learning_rate={self.recipe.optimiser.learning_rate / 3:.2g}"
            )
        is_last = self._share(progress.step) >= 1
        if progress.step % self.recipe.run.log_every and not is_last:
            return None
        return self._line(rate, stage, step.weights)

    def _step(self, stream: Iterator[Batch], rate: float) -> Step:
        """Forward, backward, and the optimiser unless anything is not finite on any rank."""
        self.optimiser.set_rate(rate)
        self.optimiser.zero_grad()
        parts: list[tuple[Batch, Prediction | None]] = []
        totals: list[Tensor] = []
        watched: list[Judged] = []
        num_parts = self.recipe.compute.accumulation
        for number in range(num_parts):
            asked = time.monotonic()
            batch = next(stream).to(self.device)
            self._waited += time.monotonic() - asked
            said = self._ask(batch)
            stays = gradients_stay(self.module, is_last=number == num_parts - 1)
            with stays, attention_of(self.recipe.compute, self.device):
                with autocast_of(self.recipe.compute, self.device):
                    total, judged = self.module(batch, said)
                (total / num_parts).backward()
            parts.append((batch, said))
            totals.append(total.detach())
            watched.append(judged)
        norm = clip(self.learner.parameters(), self.recipe.optimiser.clip_norm)
        total = torch.stack(totals).mean()
        is_finite = self.guard.all_finite(torch.stack([total, norm]))
        if is_finite:
            self.optimiser.step()
            self.average.update(self.progress.step)
            self.meter.add({"total": total, "gradient": norm})
            for judged in watched:
                self.meter.add(_watched(judged))
        else:
            with autocast_of(self.recipe.compute, self.device):
                self.guard.accuse(parts, step=self.progress.step)
        images = sum(batch.images.shape[0] * batch.images.shape[1] for batch, _ in parts)
        return Step(is_finite, images, watched[-1].weights)

    def _ask(self, batch: Batch) -> Prediction | None:
        """What the teacher says, with the faults that it was given."""
        if self.teacher is None:
            return None
        has_tracker = self.teacher.network.track_head is not None
        guides = self.recipe.objective.guide == "teacher"  # who must know the depth of all frames
        said = self.teacher(
            batch.images,
            batch.queries if has_tracker else None,
            dense_frames=None if guides else dense_frames(batch, self.recipe),
        )
        faults = self.recipe.teacher.faults
        if faults == Faults():
            return said
        return degrade(said, faults, seeds=[hash_label(label) for label in batch.labels])

    def _stream(self) -> Iterator[Batch]:
        """Batches from the next step on."""
        return batches(
            self._source,
            self._requests(),
            processes=processes(self.recipe, self.device),
            ahead=self.recipe.data.ahead,
        )

    def _requests(self) -> Iterator[Request]:
        """What this rank needs, step by step; those made in advance have the stage of now."""
        for step in itertools.count(self.progress.step):
            stage = self._stage(step)
            for part in range(self.recipe.compute.accumulation):
                yield Request(
                    step=step, stage=stage, part=part * self.ranks.count + self.ranks.rank
                )

    def _share(self, step: int) -> float:
        """Share of the run that is done before a step."""
        schedule = self.recipe.schedule
        done = step if schedule.unit == "steps" else self.progress.seconds / 60
        return done / schedule.length

    def _stage(self, step: int) -> int:
        return self.recipe.stage_at(self._share(step))

    def _line(self, rate: float, stage: int, weights: dict[str, float]) -> Line:
        """Means over the steps since the last line and over all ranks; `waited` for clips, here."""
        found = [means for means in self.ranks.gathered(self.meter.means()) if means]
        means = {
            name: sum(m[name] for m in found if name in m) / sum(name in m for m in found)
            for name in dict.fromkeys(name for m in found for name in m)
        }
        self.meter = Meter()
        progress, waited = self.progress, round(self._waited, 2)
        self._waited = 0.0
        return {
            "step": progress.step,
            "seconds": round(progress.seconds, 1),
            "waited": waited,
            "images": progress.images,
            "stage": self.recipe.stages[stage].name,
            "rate": rate,
            "total": means.pop("total", None),
            "gradient": means.pop("gradient", None),
            "skipped": progress.skipped,
            "terms": _below(means, "terms"),
            "weights": weights,
            "diagnostics": _below(means, "diagnostics"),
        }

    def _is_time_to_save(self, step: int, seconds: float) -> bool:
        settings, progress = self.recipe.run, self.progress
        if settings.checkpoint_steps and progress.step - step >= settings.checkpoint_steps:
            return True
        return progress.seconds - seconds > 60 * settings.checkpoint_minutes

    def _resume(self) -> None:
        content = read_checkpoint(self.folder)
        if content is None:
            return
        set_parameters(self.learner, content["parameters"])
        self.average.fill(content["average"])
        set_optimiser_state(self.optimiser, self.learner, content["optimiser"])
        self.progress = Progress(**content["progress"])
        self.meter = Meter.from_state(content["meter"], self.device)
        if self.ranks.rank < len(content["generators"]):
            set_random_states(content["generators"][self.ranks.rank])


def _watched(judged: Judged) -> dict[str, Tensor]:
    return {f"terms/{name}": value for name, value in judged.terms.items()} | {
        f"diagnostics/{name}": value for name, value in judged.diagnostics.items()
    }


def _below(means: dict[str, float], group: str) -> dict[str, float]:
    prefix = f"{group}/"
    return {n.removeprefix(prefix): value for n, value in means.items() if n.startswith(prefix)}
