"""Is there depth, in the right unit, and does it agree with poses and intrinsics?"""

import math
from collections.abc import Sequence

import torch

from everview.training.datasets.inspection.cameras import Measures
from everview.training.datasets.inspection.finding import Finding, Level, names
from everview.training.datasets.inspection.reprojection import (
    AS_STORED,
    Agreement,
    agreement,
    stored_error,
)
from everview.training.datasets.inspection.views import Pair
from everview.training.datasets.view import View

FEW_VALID, HARDLY_VALID = 0.2, 0.02
"""Shares of valid pixels below which depth is sparse, or as good as absent."""
METRES = (0.05, 300.0)
"""Where the median depth of a metric set may lie."""
GOOD_ERROR = 0.05
"""Relative reprojection error up to which depth and poses agree."""
STILL = 0.01
"""Error of the identity below which the camera has not moved enough to tell; a smaller error of the
poses as stored needs no other explanation."""
FAR = 0.2
"""Error of the identity above which frames may really share nothing."""
CLEARLY_BETTER = 0.5
"""Another reading of the data must have less than this share of the error to be believed."""


def inspect_depth(views: Sequence[View]) -> tuple[Measures, list[Finding]]:
    """How much is valid, and how far it is."""
    known = [view for view in views if view.has_depth]
    if not known:
        return {"valid_share": None, "median_depth": None}, []
    share = float(torch.tensor([view.valid.float().mean() for view in known]).median())
    medians = [float(v.depth[v.valid].median()) for v in known if v.valid.any()]
    median = float(torch.tensor(medians).median()) if medians else None
    findings = _validity(share)
    is_metric = all(view.is_metric for view in known)
    if median is not None and is_metric and not METRES[0] <= median <= METRES[1]:
        findings.append(_wrong_unit(median))
    return {"valid_share": share, "median_depth": median}, findings


def inspect_agreement(
    blocks: Sequence[Sequence[Pair]],
) -> tuple[Measures, list[Finding]]:
    """Depth of one frame against another, with the poses as stored and in other readings.

    Args:
        blocks: pairs of frames that see the same, one list for each scene.
    """
    pairs = [pair for block in blocks for pair in block]
    if not pairs:
        return {"reprojection_error": None, "identity_error": None, "overlap": None}, []
    found = agreement(pairs)
    measures: Measures = {
        "reprojection_error": _finite(found.stored),
        "identity_error": _finite(found.identity),
        "overlap": found.overlap,
        "best_other_convention": found.best_convention,
        "best_other_convention_error": _finite(found.best_convention_error),
        "best_other_depth_scale": found.best_scale,
        "best_other_depth_scale_error": _finite(found.best_scale_error),
    }
    return measures, judge(found) or _odd_scenes(blocks)


def judge(found: Agreement) -> list[Finding]:
    """Say what the errors mean."""
    better = _better_reading(found)
    if better is not None:
        return [better]
    if math.isinf(found.stored) and found.identity > FAR:
        return [
            _finding("warning", "frames next to each other share too little to tell anything about "
                     "poses", "expect samples without overlap; thin the frames out less")
        ]  # fmt: skip
    if found.identity < STILL and found.stored < GOOD_ERROR:
        return [
            _finding("note", "the camera hardly moves in the frames looked at: axes and units of "
                     "poses cannot be told", "look at more frames with --frames")
        ]  # fmt: skip
    is_good = found.stored <= GOOD_ERROR and found.stored < found.identity
    return [] if is_good else [_no_agreement(found)]


def _odd_scenes(blocks: Sequence[Sequence[Pair]]) -> list[Finding]:
    """Scenes that are wrong though most are right."""
    odd = []
    for block in blocks:
        if stored_error(block) < STILL:
            continue
        if any(finding.level == "fault" for finding in judge(agreement(block))):
            odd.append(block[0][0].label)
    if not odd:
        return []
    text = f"{len(odd)} of {len(blocks)} scenes disagree with their own depth: {names(odd)}"
    advice = "check these scenes one by one; leave them out if they cannot be mended"
    return [_finding("fault" if 4 * len(odd) > len(blocks) else "warning", text, advice)]


def _better_reading(found: Agreement) -> Finding | None:
    """The convention or unit that makes depth and poses agree, if one does clearly."""
    error, convention, scale = found.stored, found.best_convention_error, found.best_scale_error
    if error < STILL:
        return None
    limit = min(CLEARLY_BETTER * error, GOOD_ERROR)
    if scale < min(limit, convention, CLEARLY_BETTER * found.rotation_only):
        return _finding(
            "fault",
            f"depth disagrees with the poses ({_percent(error)}), and agrees "
            f"({_percent(scale)}) when multiplied by {found.best_scale:g}",
            "depth and translation have different units: convert one of them",
        )
    if convention < min(limit, CLEARLY_BETTER * found.identity):
        return _finding(
            "fault",
            f"poses disagree with depth ({_percent(error)}) as {AS_STORED.text}, and agree "
            f"({_percent(convention)}) as {found.best_convention}",
            f"convert the poses to {AS_STORED.text}",
        )
    return None


def _no_agreement(found: Agreement) -> Finding:
    control = f"without any motion it is {_percent(found.identity)}"
    error, is_useless = found.stored, found.stored >= found.identity
    return _finding(
        "fault" if is_useless else "warning",
        f"depth moved by the poses misses the other frame's depth by {_percent(error)}; {control}",
        "poses, depth or intrinsics belong to other frames or another image size, or the scene "
        "moves: compare a few frames by eye"
        if is_useless
        else "rough depth or poses, or much that moves: expect a noisy supervision",
    )


def _validity(share: float) -> list[Finding]:
    if share >= FEW_VALID:
        return []
    is_none = share < HARDLY_VALID
    return [
        Finding(
            level="fault" if is_none else "warning",
            check="depth",
            text=f"{_percent(share)} of the pixels have valid depth (median over frames)",
            advice="look whether the values that mean `no depth` are others than 0, or the unit "
            "pushes all beyond the set's cut"
            if is_none
            else "sparse depth supervises little; nothing has to be done",
        )
    ]


def _wrong_unit(median: float) -> Finding:
    guesses = {1e-3: "millimetres", 1e-2: "centimetres", 1e3: "kilometres taken for metres"}
    fitting = [text for unit, text in guesses.items() if 0.3 <= median * unit <= 50]
    guess = f": it looks like {fitting[0]}" if fitting else ""
    return Finding(
        level="fault",
        check="depth",
        text=f"the median depth is {median:.3g} m in a set that is metric{guess}",
        advice="convert depth to the unit that docs/data.md states for this set",
    )


def _finding(level: Level, text: str, advice: str) -> Finding:
    return Finding(level=level, check="reprojection", text=text, advice=advice)


def _percent(value: float) -> str:
    return f"{value:.2%}" if math.isfinite(value) else "nothing that overlaps"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
