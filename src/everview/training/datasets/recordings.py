"""Recordings that `everview run` wrote, as training data: what a model said is taken for true."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from everview.errors import InputError
from everview.frames.preprocess import tensor_from_rgb
from everview.outputs.recorder import MANIFEST
from everview.outputs.recording import Recording
from everview.training.datasets.declaration import SamplingRules
from everview.training.datasets.view import Dataset, Links, View

RULES = SamplingRules(max_gap=4, video=1.0, fixed_gap=0.5, ordered_share=1.0)
"""Ordered windows, some with gaps: what a streaming model meets."""


class RecordingScene:
    """One recording: a video whose depth and poses are predictions on the network's pixel grid."""

    links: Links | None = None
    max_gap: int | None = None

    def __init__(self, folder: Path) -> None:
        """Open a recording.

        Raises:
            InputError: if the folder is none.
        """
        self.name = folder.name
        self.recording = Recording.open(folder)
        rows = range(len(self.recording))
        self._rows = [row for row in rows if self.recording.entry(row).has_camera]
        self._poses = self.recording.world_from_camera
        self._intrinsics = self.recording.intrinsics()

    @property
    def num_ordered(self) -> int:
        """All frames."""
        return len(self)

    def __len__(self) -> int:
        return len(self._rows)

    def views(self, positions: Sequence[int]) -> list[View]:
        """Read frames.

        Raises:
            InputError: if the recording was made without depth.
        """
        return [self._view(position) for position in positions]

    def _view(self, position: int) -> View:
        row = self._rows[position]
        depth = np.nan_to_num(self.recording.depth(row), nan=0.0)
        return View(
            image=tensor_from_rgb(self.recording.colour(row)),
            depth=torch.from_numpy(depth),
            valid=torch.from_numpy(depth > 0),
            world_from_camera=torch.from_numpy(self._poses[row]),
            intrinsics=torch.from_numpy(self._intrinsics[row]),
            is_metric=False,
            time=float(self.recording.entry(row).timestamp),
            index=position,
            label=f"recording/{self.name}/{row}",
        )


def is_recording(folder: Path) -> bool:
    """Whether `everview run` wrote this folder."""
    return (folder / MANIFEST).is_file()


def open_recordings(folder: Path) -> Dataset:
    """A recording, or a folder of recordings.

    Raises:
        InputError: if there is none.
    """
    folders = (
        [folder] if is_recording(folder) else sorted(p.parent for p in folder.glob(f"*/{MANIFEST}"))
    )
    if not folders:
        raise InputError(f"{folder} holds no recording ({MANIFEST})")
    scenes = [RecordingScene(path) for path in folders]
    return Dataset(name="recordings", rules=RULES, scenes=tuple(s for s in scenes if len(s)))
