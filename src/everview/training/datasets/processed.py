"""The processed layout that the sets of the papers share: folders of scenes, listed in order."""

import os
from collections.abc import Iterator
from pathlib import Path

from everview.errors import InputError
from everview.frames.folders import natural_key
from everview.training.datasets.declaration import SetDeclaration
from everview.training.datasets.links import set_links
from everview.training.datasets.processed_scene import ProcessedScene
from everview.training.datasets.stored_arrays import read_json
from everview.training.datasets.view import Dataset


def open_processed(declaration: SetDeclaration, root: Path, *, split: str = "train") -> Dataset:
    """List the scenes of a set; images are not opened yet.

    Args:
        declaration: the set.
        root: its folder.
        split: which list of scenes counts, in sets that have such lists.

    Raises:
        InputError: if a list in the folder is damaged.
        MissingExtraError: if such a list needs a package that is not installed.
    """
    scenes = set_links(declaration, root, list_scenes(declaration, root, split=split))
    return Dataset(name=declaration.name, rules=declaration.rules, scenes=tuple(scenes))


def list_scenes(
    declaration: SetDeclaration, root: Path, *, split: str = "train", limit: int | None = None
) -> list[ProcessedScene]:
    """Scenes in natural order, without their links; at most about `limit`.

    Raises:
        InputError: if a list of scenes is damaged.
    """
    scenes: list[ProcessedScene] = []
    for folder in _scene_folders(declaration, root, split):
        if limit is not None and len(scenes) >= limit:
            break
        scenes += _scenes_of(declaration, root, folder)
    return scenes


def _scene_folders(declaration: SetDeclaration, root: Path, split: str) -> Iterator[Path]:
    """Folders in natural order, without those that the set leaves out."""
    found = {path for pattern in declaration.scenes for path in root.glob(pattern)}
    excluded = root.parent / declaration.excluded_by if declaration.excluded_by else None
    selected = _selected(declaration, root, split)
    for folder in sorted(found, key=natural_key):
        name = folder.relative_to(root).as_posix()
        is_elsewhere = excluded is not None and (excluded / name).is_dir()
        is_excluded = f"{name}/".startswith(declaration.excluded_scenes or ("\0",))
        if is_elsewhere or is_excluded or (selected is not None and name not in selected):
            continue
        if (folder / declaration.images).is_dir():
            yield folder


def _selected(declaration: SetDeclaration, root: Path, split: str) -> set[str] | None:
    """Scenes of a split, as `category/scene`; None if the set has no such list here."""
    if declaration.selection is None:
        return None
    path = root / declaration.selection.format(split=split)
    if not path.exists():
        return None
    return {
        f"{category}/{scene}" for category, scenes in read_json(path).items() for scene in scenes
    }


def _scenes_of(declaration: SetDeclaration, root: Path, folder: Path) -> list[ProcessedScene]:
    """The cameras of one folder, each a scene."""
    tracks: dict[str, list[str]] = {}
    for file, track in _images(declaration, folder):
        tracks.setdefault(track, []).append(file)
    name = folder.relative_to(root).as_posix()
    unit = _unit(declaration, root, name)
    return [
        ProcessedScene(
            declaration, folder, files, name=f"{name}/{track}" if track else name, unit=unit
        )
        for track, files in sorted(tracks.items())
        if track not in declaration.excluded_tracks
    ]


def _images(declaration: SetDeclaration, folder: Path) -> list[tuple[str, str]]:
    """Names and tracks of a scene's images, ordered ones first, each kind in natural order."""
    found = [
        (name, parts.get("track", ""))
        for name in os.listdir(folder / declaration.images)  # noqa: PTH208 - millions of names
        if (parts := declaration.parts(name))
    ]
    return sorted(
        found, key=lambda item: (declaration.is_unordered(item[0]), natural_key(Path(item[0])))
    )


def _unit(declaration: SetDeclaration, root: Path, name: str) -> float:
    if declaration.scale_file is None:
        return 1.0
    path = root / declaration.scale_file
    scales = read_json(path)
    if not isinstance(scales.get(name), int | float):
        raise InputError(f"{path} has no number for the scene {name}")
    return 1000.0 * float(scales[name])
