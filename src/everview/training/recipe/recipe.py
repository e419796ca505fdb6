"""TrainingRecipe: every setting of a training run, typed, written beside its result."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from everview.errors import ConfigError, InputError
from everview.training.recipe.plain import from_plain, to_plain, with_overrides
from everview.training.recipe.settings import (
    ComputeSettings,
    DataSettings,
    NetworkSettings,
    ObjectiveSettings,
    OptimiserSettings,
    RunSettings,
    ScheduleSettings,
    Stage,
    TeacherSettings,
)
from everview.training.recipe.terms import TERMS
from everview.training.schedule import CosineSchedule


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """A run from the first weight to the last."""

    network: NetworkSettings = field(default_factory=NetworkSettings)
    """What learns."""
    data: DataSettings = field(default_factory=DataSettings)
    """From which clips."""
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    """What it is punished for."""
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    """Who teaches, if anybody."""
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    """How it learns."""
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    """How long."""
    stages: tuple[Stage, ...] = (Stage(),)
    """One after the other."""
    compute: ComputeSettings = field(default_factory=ComputeSettings)
    """On what."""
    run: RunSettings = field(default_factory=RunSettings)
    """What is written."""

    def __post_init__(self) -> None:
        """Refuse contradictions between the parts."""
        if not self.stages:
            raise ConfigError("TrainingRecipe.stages must hold at least one stage")
        if self.optimiser.learning_rate < self.schedule.floor:
            raise ConfigError(
                f"ScheduleSettings.floor {self.schedule.floor} lies above the learning rate "
                f"{self.optimiser.learning_rate}"
            )
        if self.optimiser.matrices == "muon" and self.compute.parallel == "fsdp":
            raise ConfigError(
                "optimiser.matrices=muon needs whole matrices: set compute.parallel=ddp, or "
                "optimiser.matrices=adamw"
            )
        self._check_terms()

    def save(self, path: Path) -> None:
        """Write all settings as YAML; a reader sees the old file or the new one."""
        partial = path.with_name(f".{path.name}.tmp")
        partial.write_text(self.as_yaml())
        partial.replace(path)

    def as_yaml(self) -> str:
        """All settings as text."""
        return yaml.safe_dump(to_plain(self), sort_keys=False)

    @classmethod
    def read(cls, path: Path) -> "TrainingRecipe":
        """Read YAML, as `save` writes it or with some of the settings only.

        Raises:
            InputError: if the file cannot be read.
            ConfigError: if a setting is unknown or impossible; names it.
        """
        try:
            values = yaml.safe_load(path.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"{path} is no training recipe: {error}") from error
        recipe: TrainingRecipe = from_plain(cls, values or {}, str(path))
        return recipe

    def changed(self, overrides: Sequence[str]) -> "TrainingRecipe":
        """The recipe with settings such as `optimiser.learning_rate=1e-4`.

        Raises:
            ConfigError: if a setting is unknown or impossible; names it.
        """
        recipe: TrainingRecipe = from_plain(
            type(self), with_overrides(to_plain(self), overrides), "recipe"
        )
        return recipe

    def learns_like(self, other: "TrainingRecipe") -> bool:
        """Whether only the machine, the log and the making of clips in advance differ."""
        return self.what_is_learnt() == other.what_is_learnt()

    def what_is_learnt(self) -> "TrainingRecipe":
        """The recipe with the defaults of all settings that may change on the way."""
        return replace(
            self,
            compute=ComputeSettings(),
            run=RunSettings(seed=self.run.seed),
            data=replace(self.data, processes=1, ahead=1, device="auto"),
        )

    def stage_at(self, share: float) -> int:
        """Number of the stage when a share of the run, in [0, 1], is done."""
        whole, passed = sum(stage.share for stage in self.stages), 0.0
        for number, stage in enumerate(self.stages):
            passed += stage.share
            if share < passed / whole:
                return number
        return len(self.stages) - 1

    def rate(self, step: int, share: float) -> float:
        """Learning rate of a step, when a share of the run is done."""
        peak, schedule = self.optimiser.learning_rate, self.schedule
        warm = min(1.0, (step + 1) / max(1, schedule.warm_up_steps))
        if schedule.shape == "constant":
            return peak * warm
        if schedule.unit == "minutes":
            return warm * CosineSchedule(peak=peak, floor=schedule.floor, warm_up=0, length=1).rate(
                share
            )
        published = CosineSchedule(
            peak=peak, floor=schedule.floor, warm_up=schedule.warm_up_steps, length=schedule.length
        )
        return published.rate(step)

    def _check_terms(self) -> None:
        known = set(self._terms())
        named = [self.objective.weights, *(stage.weights for stage in self.stages)]
        unknown = sorted(_keys(named) - known)
        if unknown:
            raise ConfigError(
                f"the weight of {unknown[0]!r} is set, a term that this objective has not; it has "
                f"{', '.join(sorted(known))}"
            )

    def _terms(self) -> Iterable[str]:
        """Full names of all terms of the objective."""
        objective = self.objective
        if objective.truth is not None:
            yield from (f"truth/{term}" for term in TERMS[objective.truth])
        if objective.teacher is not None:
            yield from (f"teacher/{term}" for term in TERMS[f"teacher {objective.teacher}"])
        if objective.guide is not None:
            yield from (f"guide/{term}" for term in TERMS["guide"])


def _keys(mappings: Iterable[Mapping[str, Any]]) -> set[str]:
    return {key for mapping in mappings for key in mapping}
