"""Which layout a folder has, and the set in it."""

from collections.abc import Callable
from pathlib import Path

from everview.errors import ConfigError, InputError
from everview.training.datasets.declaration import SetDeclaration
from everview.training.datasets.footage import is_footage, open_footage
from everview.training.datasets.processed import list_scenes, open_processed
from everview.training.datasets.recordings import is_recording, open_recordings
from everview.training.datasets.sequences import is_sequence, open_sequences
from everview.training.datasets.sets import SETS
from everview.training.datasets.view import Dataset

OWN: dict[str, Callable[[Path], Dataset]] = {
    "recordings": open_recordings,
    "sequences": open_sequences,
    "footage": open_footage,
}
"""Layouts of our own and plain pictures, by name."""

NAMES = (*SETS, *OWN)
"""All names that `open_dataset` takes."""

_LOOK_AT = 4
"""Scenes, and frames of each, by which a layout is recognised."""


def open_dataset(folder: Path, name: str | None = None, *, split: str = "train") -> Dataset:
    """List the scenes of a training set.

    Args:
        folder: of the set; for `footage` also a video file.
        name: which layout it has; recognised if None.
        split: which list of scenes counts, in sets that have such lists.

    Raises:
        InputError: if the folder is absent, or no scene of that layout is in it.
        ConfigError: if the name is unknown, or the folder fits several layouts.
    """
    if not folder.exists():
        raise InputError(f"{folder} does not exist")
    name = name or recognise(folder)
    if name in OWN:
        return OWN[name](folder)
    if name not in SETS:
        raise ConfigError(f"the set {name!r} is unknown; known are {', '.join(NAMES)}")
    dataset = open_processed(SETS[name], folder, split=split)
    if not len(dataset):
        raise InputError(f"{folder} holds no scene of {name}: expected {pattern(SETS[name])}")
    return dataset


def recognise(folder: Path) -> str:
    """Name of the layout that a folder has.

    Raises:
        InputError: if it has none.
        ConfigError: if several fit; names them.
    """
    if is_recording(folder) or _any_inside(folder, is_recording):
        return "recordings"
    if is_sequence(folder) or _any_inside(folder, is_sequence):
        return "sequences"
    fitting = [name for name, declaration in SETS.items() if _fits(declaration, folder)]
    named = [name for name in fitting if SETS[name].folder == folder.resolve().name]
    marked = [name for name in fitting if _is_marked(SETS[name], folder)]
    best = named or marked or fitting
    if len(best) > 1:
        raise ConfigError(
            f"{folder} fits the layouts {', '.join(best)}: say which with --set, or name the "
            f"folder {' or '.join(SETS[name].folder for name in best)}"
        )
    if best:
        return best[0]
    if is_footage(folder) or (folder.is_dir() and any(map(is_footage, folder.iterdir()))):
        return "footage"
    raise InputError(
        f"{folder} has none of the known layouts ({', '.join(NAMES)}): give the folder that holds "
        "the scenes, see docs/data.md for the files of each"
    )


def pattern(declaration: SetDeclaration) -> str:
    """The files of a frame, for messages."""
    scenes = " or ".join(declaration.scenes)
    camera = declaration.camera or declaration.scene_camera
    return (
        f"{scenes}, in each {declaration.images}/ with names like {declaration.image_name}, "
        f"{declaration.depth} and {camera}"
    )


def _fits(declaration: SetDeclaration, folder: Path) -> bool:
    """Whether any of the first frames has depth or a camera of its own beside its image."""
    try:
        scenes = list_scenes(declaration, folder, limit=_LOOK_AT)
    except InputError:  # a damaged list: this is the set, and opening it will say what is wrong
        return _is_marked(declaration, folder)
    return any(
        scene.depth_path(i).exists()
        or (declaration.camera is not None and scene.camera_path(i).exists())
        for scene in scenes
        for i in range(min(len(scene), _LOOK_AT))
    )


def _is_marked(declaration: SetDeclaration, folder: Path) -> bool:
    return declaration.marker is not None and (folder / declaration.marker).exists()


def _any_inside(folder: Path, is_one: Callable[[Path], bool]) -> bool:
    return folder.is_dir() and any(is_one(path) for path in folder.iterdir() if path.is_dir())
