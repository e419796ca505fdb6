"""Result files, and words and cells that the tables share."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
SCORES = {
    "abs_rel": ("depth, AbsRel", 3),
    "delta1": ("depth, share within a factor 1.25 (more is better)", 3),
    "points": ("points, mean error / mean distance", 3),
    "rotation_degrees": ("relative rotation, all pairs, degrees", 2),
    "auc30": ("relative pose AUC@30, all pairs (more is better)", 3),
    "auc15": ("relative pose AUC@15 (more is better)", 3),
    "auc5": ("relative pose AUC@5 (more is better)", 3),
    "auc30_apart": ("AUC@30 of pairs that are apart (more is better)", 3),
    "direction_degrees": ("direction of motion, degrees", 1),
    "length_error": ("length of motion, relative error", 2),
    "ate": ("path, ATE after Sim(3) / length", 3),
    "fov_degrees": ("field of view, degrees", 2),
    "track_pixels": ("streaming tracks, pixels", 2),
}
"""Score -> words, decimals."""
MORE_IS_BETTER = ("delta1", "auc30", "auc15", "auc5", "auc30_apart")
VERSIONS = {
    None: "v1",
    "6f3f2bfcc4b6b5168e90b2fd3a18e099eb2c98a069ab7e7240410f4175a795fb": "v2",
    "5ab5e9b367e5d465818d0473a00419b50911fe50d7580016eb103c2d2e1b9794": "v3",
    "f128c179d7056a35ae4247ea8adb5f0b7b65753932056e79fe41ee24f66d29e1": "v4",
    "76ff04981b7498c273ec3da7269a97349a2cc849b7aae83efed809ec6fdc69d5": "v5",
    "5320f6ff3acdc3ffb5b55b41763c7730c959de061786b810ed7a67fe3c2be7df": "v6",
    "7266474b9888f3675e3cc9d13790aab9d85eb24e55f706bbbc6b52a443fc46ef": "v7",
    "0ca8eb12f33380d40771540567a9f778df94c4121abc14bf4326ce1fb0b5a2a6": "v8",
}
"""Hash of the bundled weights -> their version; results of v1 do not say which they had."""


def read(name: str) -> dict[str, Any]:
    """A result file."""
    return json.loads((RESULTS / name).read_text())


def bundled(result: dict[str, Any]) -> str:
    """The bundled model that a result is of."""
    return f"`mini` {VERSIONS[result.get('weights_sha256')]}"


def head(*titles: str) -> list[str]:
    """The two lines above the rows of a table."""
    cells = "".join(f" {title} |" if title else " |" for title in titles)
    return [f"|{cells}", "|" + "---|" * len(titles)]


def source(files: str, machine: dict[str, Any], command: str) -> str:
    """The line under a table: command, machine, result file."""
    return (
        f"`{command}`, {machine['processor']}, {machine['threads']} threads, torch "
        f"{machine['torch']}; [result file](https://github.com/everview/everview/tree/main/"
        f"benchmarks/results): `{files}`."
    )
