"""Small result files, as `everview eval` writes them."""

import json
from copy import deepcopy

from everview.evaluation.benchmarks.clip import Choice
from everview.evaluation.benchmarks.registry import BENCHMARKS
from everview.evaluation.runs.summary import summarise
from everview.evaluation.runs.tasks import protocol_of, task_of


def result(benchmark="tum-pose", clips=None, **changes):
    """A result of `benchmark`.

    Args:
        clips: name -> (scores, frames); three clips if None.
        changes: `protocol__alignment="se3"` sets an entry of a section.
    """
    task = task_of(BENCHMARKS[benchmark])
    names = list(task.meanings)
    if clips is None:
        clips = {f"clip{i}": (dict.fromkeys(names, 0.1 * (i + 1)), ["f0", "f1"]) for i in range(3)}
    entries = [
        {
            "name": name, "group": None, "frames": list(frames), "size": [42, 56], "weight": 1.0,
            "scores": {n: scores.get(n) for n in names}, "details": {}, "curves": {},
        }
        for name, (scores, frames) in clips.items()
    ]  # fmt: skip
    found = {
        "format": "everview evaluation", "format_version": 2, "benchmark": benchmark,
        "task": BENCHMARKS[benchmark].task,
        "protocol": {
            **protocol_of(BENCHMARKS[benchmark], Choice(frames=2)), "mode": "streaming",
            "memory": "full", "resize": "width 140",
        },
        "data": {
            "name": BENCHMARKS[benchmark].title, "fingerprint": "f" * 64, "files": 6,
            "clips_found": len(entries), "clips_scored": len(entries), "skipped": [],
        },
        "model": {"name": "mini", "weights_sha256": "a" * 64},
        "run": {"dtype": "float32", "device": "cpu", "deterministic": True, "limit": None},
        "code": {"everview": "0.1.0", "commit": "c" * 40, "changed": False},
        "metrics": {
            n: {"meaning": m.meaning, "unit": m.unit, "better": m.better}
            for n, m in task.meanings.items()
        },
        "summary": summarise(entries, names, "clips"), "groups": {}, "clips": entries,
        "timing": None, "machine": None,
    }  # fmt: skip
    found = deepcopy(found)
    for place, value in changes.items():
        section, _, key = place.partition("__")
        found[section] = found[section] | {key: value} if key else value
    return found


def write(path, content):
    """Write a result; returns its path."""
    path.write_text(json.dumps(content))
    return path
