"""All checks of a training set, in one report."""

import math
from pathlib import Path

from everview.training.datasets.inspection.cameras import inspect_intrinsics, inspect_poses
from everview.training.datasets.inspection.depth import inspect_agreement, inspect_depth
from everview.training.datasets.inspection.finding import Finding, Report, names
from everview.training.datasets.inspection.reprojection import stored_error
from everview.training.datasets.inspection.shapes import inspect_shapes
from everview.training.datasets.inspection.views import InspectionSettings, LookedAt, Pair, look_at
from everview.training.datasets.sequences import SequenceScene
from everview.training.datasets.view import Dataset

_ORDER = ("fault", "warning", "note")


def inspect_dataset(dataset: Dataset, folder: Path, settings: InspectionSettings) -> Report:
    """Look at some frames of a set and say what is wrong with them.

    Args:
        dataset: the set.
        folder: where it lies, for the report.
        settings: how much is looked at.
    """
    seen = look_at(dataset, settings)
    views, pairs = list(seen.views), _pairs(seen)
    results = [
        inspect_poses(views),
        inspect_intrinsics(views),
        inspect_depth(views),
        inspect_agreement(pairs),
    ]
    findings = _files(seen) + inspect_shapes(seen.scenes) + _truths(seen) + _remarks(seen)
    findings += [finding for _, found in results for finding in found]
    return Report(
        layout=dataset.name,
        folder=str(folder),
        num_scenes=len(dataset.scenes),
        num_frames=len(dataset),
        looked_at={
            "scenes": len(seen.scenes),
            "frames": seen.num_read,
            "pairs": sum(map(len, pairs)),
        },
        measures={name: value for measures, _ in results for name, value in measures.items()},
        findings=sorted(findings, key=lambda finding: _ORDER.index(finding.level)),
    )


def _pairs(seen: LookedAt) -> list[list[Pair]]:
    """Frames half a block apart; neighbours if the others share too little."""
    pairs = seen.pairs()
    shares_nothing = math.isinf(stored_error([pair for block in pairs for pair in block]))
    return seen.pairs(adjacent=True) if shares_nothing else pairs


def _files(seen: LookedAt) -> list[Finding]:
    if not seen.problems:
        return []
    return [
        Finding(
            level="fault",
            check="files",
            text=f"{len(seen.problems)} files are absent or damaged: {names(seen.problems)}",
            advice="copy them again from the source, or delete the images of these frames",
            files=tuple(seen.problems),
        )
    ]


def _remarks(seen: LookedAt) -> list[Finding]:
    """What sequence folders say about themselves."""
    remarks = [
        f"{scene.name}: {remark}"
        for scene in seen.scenes
        if isinstance(scene, SequenceScene)
        for remark in scene.remarks
    ]
    return [Finding(level="note", check="files", text=text) for text in remarks]


def _truths(seen: LookedAt) -> list[Finding]:
    """What the set does not know at all."""
    views = list(seen.views)
    lacking = [
        text
        for text, field in (
            ("depth", "has_depth"), ("poses", "has_pose"), ("intrinsics", "has_intrinsics")
        )
        if views and not any(getattr(view, field) for view in views)
    ]  # fmt: skip
    if not lacking:
        return []
    return [
        Finding(
            level="note",
            check="files",
            text=f"the set has no {' and no '.join(lacking)}",
            advice="use it for distillation, where a teacher gives what is lacking",
        )
    ]
