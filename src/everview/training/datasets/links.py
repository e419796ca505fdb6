"""Overlap graphs, stored groups and lists of bad frames, in the files that sets bring along."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from everview.errors import InputError
from everview.training.datasets import camera_files
from everview.training.datasets.declaration import SetDeclaration
from everview.training.datasets.processed_scene import ProcessedScene
from everview.training.datasets.stored_arrays import Arrays, read_arrays, read_hdf5
from everview.training.datasets.view import Links

MIN_OVERLAP = 0.2
"""Share of common content above which two images are neighbours."""


def set_links(
    declaration: SetDeclaration, root: Path, scenes: list[ProcessedScene]
) -> list[ProcessedScene]:
    """Fill in which frames belong together and drop those that a list calls bad.

    Raises:
        InputError: if such a file is there and damaged.
    """
    marker = root / declaration.marker if declaration.marker else None
    if marker is not None and marker.exists() and marker.suffix in (".h5", ".npz"):
        arrays = read_hdf5(marker) if marker.suffix == ".h5" else read_arrays(marker)
        _MARKERS[marker.name](arrays, marker, scenes)
    for scene in scenes:
        scene.links = scene.links or _own_links(scene)
    return [scene for scene in scenes if len(scene)]


def overlap_graph(
    pairs: np.ndarray, overlap: np.ndarray, *, least: float = MIN_OVERLAP
) -> dict[int, tuple[int, ...]]:
    """Neighbours of each image.

    Args:
        pairs: n 2 positions.
        overlap: n shares.
        least: pairs with less are none.
    """
    found: dict[int, set[int]] = defaultdict(set)
    for (first, second), share in zip(pairs.tolist(), overlap.tolist(), strict=True):
        if share > least and first != second:
            found[first].add(second)
            found[second].add(first)
    return {position: tuple(sorted(found[position])) for position in sorted(found)}


def _own_links(scene: ProcessedScene) -> Links | None:
    """Groups in the scene's own file; else the frames without order as one group."""
    declaration = scene.declaration
    if declaration.scene_camera and declaration.rules.ordered_share < 1:
        path = scene.folder / declaration.scene_camera
        arrays = read_arrays(path) if path.exists() else {}
        if camera_files.groups_of(arrays):
            return Links(sets=_by_name(scene, arrays, path))
    unordered = tuple(range(scene.num_ordered, len(scene)))
    return Links(sets=(unordered,)) if unordered else None


def _by_name(scene: ProcessedScene, arrays: Arrays, path: Path) -> tuple[tuple[int, ...], ...]:
    """Groups count images of the file's list; positions count files, which may be fewer."""
    names = camera_files.names_of(arrays, path)
    position = {scene.frame_id(i): i for i in range(len(scene))}
    try:
        groups = [[names[i] for i in group] for group in camera_files.groups_of(arrays)]
    except IndexError as error:
        raise InputError(f"{path}: a group has a number above that of its images") from error
    return tuple(tuple(position[n] for n in group if n in position) for group in groups)


def _overlaps(arrays: Arrays, path: Path, scenes: Iterable[ProcessedScene]) -> None:
    """new_overlap.h5: per scene `indices` n 2 and `overlap` n."""
    for scene in scenes:
        pairs, overlap = f"{scene.name}/indices", f"{scene.name}/overlap"
        if pairs not in arrays or overlap not in arrays:
            raise InputError(f"{path} has no {pairs} and {overlap}; it has {_some(arrays)}")
        scene.links = Links(neighbours=overlap_graph(arrays[pairs], arrays[overlap]))


def _stored_sets(arrays: Arrays, path: Path, scenes: Iterable[ProcessedScene]) -> None:
    """megadepth_sets_64.npz: `images` as scene/sub/name, `sets` n k of positions therein."""
    if "images" not in arrays or "sets" not in arrays:
        raise InputError(f"{path} has no images and sets; it has {_some(arrays)}")
    images = [str(name).removesuffix(".jpg") for name in arrays["images"].tolist()]
    home = [name.rsplit("/", 1)[0] for name in images]
    by_scene: dict[str, list[list[str]]] = defaultdict(list)
    for row in arrays["sets"].tolist():
        members = [i for i in row if 0 <= i < len(images)]
        if members:
            by_scene[home[members[0]]].append([images[i].rsplit("/", 1)[1] for i in members])
    for scene in scenes:
        position = {scene.frame_id(i): i for i in range(len(scene))}
        sets = (
            tuple(position[n] for n in names if n in position) for names in by_scene[scene.name]
        )
        scene.links = Links(sets=tuple(sets))


def _invalid_files(arrays: Arrays, _: Path, scenes: Iterable[ProcessedScene]) -> None:
    """invalid_files.h5: per folder the names, without ending, of frames to leave out."""
    for scene in scenes:
        listed = arrays.get(scene.folder.name)
        if listed is None:
            continue
        bad = {item.decode() if isinstance(item, bytes) else str(item) for item in listed.tolist()}
        scene.files = tuple(name for name in scene.files if name.rsplit(".", 1)[0] not in bad)


_MARKERS = {
    "new_overlap.h5": _overlaps,
    "megadepth_sets_64.npz": _stored_sets,
    "invalid_files.h5": _invalid_files,
}


def _some(arrays: Arrays) -> str:
    names = sorted(arrays)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
