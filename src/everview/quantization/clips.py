"""Calibration clips out of files: folders, videos, or procedural places."""

import mimetypes
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from everview.errors import ConfigError, InputError
from everview.frames.folders import is_image
from everview.frames.reader import read
from everview.model.network import Network
from everview.quantization.calibration import Progress, check_clips, silent, survey_clips
from everview.quantization.sampling import select_clips
from everview.world.clip import sequence, training_seed

PROCEDURAL = "procedural"
"""Name of the source of rendered places."""
FIRST_PLACE = 900_000
"""Index of the first place in the seeds of training, none of which an evaluation uses."""
CLUSTERS, KEPT = 5, 0.5
"""Groups of similar clips, and the share of candidates that counts as usual."""
SHAPE = 0.7
"""Height over width of rendered clips."""


def calibration_clips(
    network: Network, source: str, *, clips: int, frames: int, seed: int = 0
) -> list[Float[Tensor, "s 3 H W"]]:
    """Clips of consecutive frames, preprocessed as at run time.

    Args:
        source: `procedural`; a folder whose entries are videos or folders of images, one clip each;
            or a single video or folder of images, from all over which clips are drawn.
        clips: how many.
        frames: of each.

    Raises:
        ConfigError: if `clips` or `frames` are below 1.
        InputError: if the source has too few frames, or none can be read.
    """
    if clips < 1 or frames < 2:
        raise ConfigError(f"calibration needs clips >= 1 and frames >= 2, got {clips}, {frames}")
    if source == PROCEDURAL:
        return [_rendered(network, number, frames) for number in range(clips)]
    parts = _parts(Path(source).expanduser())
    if not parts:
        return _drawn(network, source, clips, frames, seed)
    picked = sorted(random.Random(seed).sample(parts, min(clips, len(parts))))
    if len(picked) < clips:
        raise InputError(
            f"{source} has {len(parts)} clips, {clips} are wanted: lower --clips, or give a folder "
            "with more"
        )
    return [_first(network, part, frames) for part in picked]


def choose_clips(
    network: Network,
    candidates: Sequence[Float[Tensor, "s 3 H W"]],
    count: int,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Float[Tensor, "s 3 H W"]]:
    """Some of the candidates: the usual half of them, and of these ones that differ.

    Noise-filtered diverse sampling of QuantVGGT, see `sampling.select_clips`.

    Raises:
        ConfigError: if there are fewer candidates than are wanted, or their shapes differ.
        InputError: if a candidate's activations are not finite.
    """
    survey = survey_clips(network, check_clips(network, candidates), progress=progress)
    clusters = min(CLUSTERS, count)
    picked = select_clips(
        *survey, clusters=clusters, per_cluster=-(-count // clusters), keep_fraction=KEPT,
        seed=seed,
    )  # fmt: skip
    return [candidates[i] for i in picked.tolist()[:count]]


def _parts(folder: Path) -> list[Path]:
    """Entries of a folder that are clips by themselves; none if it holds images."""
    if not folder.is_dir():
        return []
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    if (folder / "images").is_dir() or any(is_image(entry) for entry in entries if entry.is_file()):
        return []
    return [entry for entry in entries if entry.is_dir() or _may_be_video(entry)]


def _may_be_video(file: Path) -> bool:
    """Not what lies beside videos, such as notes and tables."""
    kind, _ = mimetypes.guess_type(file.name)
    return kind is None or kind.startswith("video/")


def _rendered(network: Network, number: int, frames: int) -> Tensor:
    patch, width = network.config.patch_size, network.input_size
    size = (patch * max(1, round(SHAPE * width / patch)), width)
    return sequence(training_seed(FIRST_PLACE + number), frames, size=size).images


def _groups(network: Network, source: str | Path, frames: int) -> Iterator[Tensor]:
    """Consecutive frames that can be used, so many at a time; what is left over is not told."""
    images: list[Tensor] = []
    with read(source, model=network) as reader:
        for frame in reader:
            if frame.usable:
                images.append(frame.image)
            if len(images) == frames:
                yield torch.stack(images)
                images = []


def _first(network: Network, source: Path, frames: int) -> Tensor:
    for group in _groups(network, source, frames):
        return group
    raise InputError(f"calibration clip {source} has fewer than {frames} frames: lower --frames")


def _drawn(network: Network, source: str, clips: int, frames: int, seed: int) -> list[Tensor]:
    """Clips from all over one source, whatever its length: reservoir sampling."""
    dice = random.Random(seed)
    kept: list[Tensor] = []
    for number, group in enumerate(_groups(network, source, frames)):
        if len(kept) < clips:
            kept.append(group)
            continue
        place = dice.randrange(number + 1)
        if place < clips:
            kept[place] = group
    if len(kept) < clips:
        raise InputError(
            f"{source} gives {len(kept)} clips of {frames} frames, {clips} are wanted: lower "
            "--clips or --frames"
        )
    return kept
