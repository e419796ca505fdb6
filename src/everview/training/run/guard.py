"""What to do about a loss that is not a number: find out whose fault it is, and go on without."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from everview.geometry.prediction import Prediction
from everview.training.feed.batch import Batch
from everview.training.objective.learner import Learner, finite_clips
from everview.training.run.ranks import Ranks

SKIPPED = "skipped.jsonl"

_logger = logging.getLogger(__name__)


class Guard:
    """Lets all ranks skip a step together, and names the clips that made it necessary."""

    def __init__(self, learner: Learner, folder: Path, ranks: Ranks) -> None:
        self.learner, self.folder, self.ranks = learner, folder, ranks
        self.last = "none"
        """What was found in the last skipped step."""

    def all_finite(self, values: Tensor) -> bool:
        """Whether all values are finite on all ranks."""
        is_bad = (~values.isfinite()).any().float()
        return not bool(self.ranks.largest(is_bad))

    def accuse(self, parts: Sequence[tuple[Batch, Prediction | None]], *, step: int) -> None:
        """Judge every clip alone and name those without a finite loss, in the log and in a file.

        Every rank must call it.
        """
        guilty: list[str] = []
        present: list[str] = []
        for batch, said in parts:
            sound = finite_clips(self.learner, batch, said)
            present += batch.labels
            guilty += [name for name, ok in zip(batch.labels, sound, strict=True) if not ok]
        found = [name for names in self.ranks.gathered(guilty) for name in names]
        everyone = [name for names in self.ranks.gathered(present) for name in names]
        self.last = (
            "; ".join(found)
            if found
            else f"only the gradient; every clip's loss is finite ({'; '.join(everyone)})"
        )
        if not self.ranks.is_first:
            return
        _logger.warning("step %d is skipped, its loss is not finite: %s", step + 1, self.last)
        line = {"step": step + 1, "clips": found, "present": everyone}
        with (self.folder / SKIPPED).open("a") as file:
            file.write(json.dumps(line) + "\n")
