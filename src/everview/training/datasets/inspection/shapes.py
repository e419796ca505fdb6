"""Do depth maps show what their images show, as far as the shape tells?"""

from collections.abc import Sequence

from everview.errors import InputError
from everview.training.datasets.inspection.finding import Finding
from everview.training.datasets.processed_scene import ProcessedScene
from everview.training.datasets.stored_arrays import read_stored_depth, size_of_image
from everview.training.datasets.view import Scene

MAX_ASPECT = 1.03
"""Ratio of the aspect ratios of image and depth; rounding to whole pixels stays below it."""


def inspect_shapes(scenes: Sequence[Scene]) -> list[Finding]:
    """Compare the first frame of each scene that keeps depth in files of its own."""
    findings: list[Finding] = []
    for scene in scenes:
        if isinstance(scene, ProcessedScene) and len(scene):
            findings += _compare(scene)
    return findings[:1]


def _compare(scene: ProcessedScene) -> list[Finding]:
    try:
        height, width = size_of_image(scene.image_path(0))
        rows, columns = read_stored_depth(scene.depth_path(0)).shape
    except InputError:  # told among the files
        return []
    stretch = (width / height) / (columns / rows)
    if max(stretch, 1 / stretch) <= MAX_ASPECT:
        return []
    return [
        Finding(
            level="fault",
            check="shapes",
            text=f"{scene.image_path(0)} has {width} x {height} pixels, its depth "
            f"{columns} x {rows}: another aspect ratio",
            advice="depth must show exactly what the image shows: crop both alike, or turn one",
        )
    ]
