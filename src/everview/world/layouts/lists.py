"""Files of whole sets: which scenes, which frames see the same, which are bad."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from everview.world.clip import WorldSequence
from everview.world.layouts.files import write_arrays, write_hdf5
from everview.world.layouts.plan import LayoutPlan
from everview.world.layouts.scenes import write_scene, write_scene_cameras

OBJECT_SCALE = 0.002
"""A scale other than 1 / 1000, so that readers which forget it are found out."""


def selected_sequences(root: Path, plan: LayoutPlan, sequences: Sequence[WorldSequence]) -> None:
    """selected_seqs_train.json: frames by category and sequence."""
    content: dict[str, dict[str, list[int]]] = {}
    for number, clip in enumerate(sequences):
        category, name = plan.scene.format(scene=number).split("/")
        content.setdefault(category, {})[name] = list(range(len(clip.images)))
    (root / "selected_seqs_train.json").write_text(json.dumps(content))


def all_metadata(root: Path, plan: LayoutPlan, sequences: Sequence[WorldSequence]) -> None:
    """all_metadata.npz: names of the scenes."""
    names = [plan.scene.format(scene=number) for number in range(len(sequences))]
    write_arrays(root / "all_metadata.npz", scenes=np.array(names))


def photographs(root: Path, plan: LayoutPlan, sequences: Sequence[WorldSequence]) -> None:
    """The same frames again as photographs of a second camera, and the list of scenes."""
    twin = LayoutPlan(
        scene=plan.scene, image="images/DSC{frame:05d}.jpg", depth="depth/DSC{frame:05d}.png"
    )
    for number, clip in enumerate(sequences):
        home = plan.scene_folder(root, number)
        write_scene(twin, home, clip)
        frames = range(len(clip.images))
        names = [Path(p.part(p.image, i)).name for p in (plan, twin) for i in frames]
        write_scene_cameras(plan, home, names, clip)
    all_metadata(root, plan, sequences)


def overlaps(root: Path, plan: LayoutPlan, sequences: Sequence[WorldSequence]) -> None:
    """new_overlap.h5: frames up to two apart see the same, those further apart do not."""
    arrays = {}
    for number, clip in enumerate(sequences):
        frames = range(len(clip.images))
        pairs = [(i, j) for i in frames for j in frames if i < j]
        share = [0.9 - 0.35 * (j - i - 1) if j - i <= 2 else 0.1 for i, j in pairs]
        name = plan.scene.format(scene=number)
        arrays[f"{name}/indices"] = np.array(pairs, np.int64).reshape(-1, 2)
        arrays[f"{name}/overlap"] = np.array(share, np.float64)
    write_hdf5(root / "new_overlap.h5", arrays)


def stored_sets(root: Path, plan: LayoutPlan, sequences: Sequence[WorldSequence]) -> None:
    """megadepth_sets_64.npz: one set of up to 64 frames per scene, the rest filled with -1."""
    images: list[str] = []
    sets = np.full((len(sequences), 64), -1, np.int64)
    for number, clip in enumerate(sequences):
        scene = plan.scene.format(scene=number)
        members = np.arange(len(images), len(images) + len(clip.images))[:64]
        sets[number, : len(members)] = members
        frames = range(len(clip.images))
        images += [f"{scene}/{Path(plan.part(plan.image, i)).stem}" for i in frames]
    write_arrays(root / "megadepth_sets_64.npz", images=np.array(images), sets=sets)


def invalid_files(root: Path, plan: LayoutPlan, sequences: Sequence[WorldSequence]) -> None:
    """invalid_files.h5: an empty list of bad frames for each scene."""
    names = [plan.scene.format(scene=number) for number in range(len(sequences))]
    write_hdf5(root / "invalid_files.h5", {name: np.array([], "S32") for name in names})


def object_scales(root: Path, plan: LayoutPlan, sequences: Sequence[WorldSequence]) -> None:
    """scale.json: the unit of each object."""
    names = [plan.scene.format(scene=number) for number in range(len(sequences))]
    (root / "scale.json").write_text(json.dumps(dict.fromkeys(names, OBJECT_SCALE)))
