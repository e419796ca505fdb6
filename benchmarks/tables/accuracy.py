"""Tables of accuracy: procedural clips, details of depth, real footage."""

from itertools import chain
from typing import Any

from everview.evaluation.summaries import statistics_of
from results import MORE_IS_BETTER, SCORES, bundled, head, read, source

GUESSES = {
    "teacher": "teacher",
    "constant_depth": "constant depth",
    "row_prior": "mean depth of each row",
    "mean_depth_map": "mean depth map",
    "standing_still": "a camera that never moves",
    "straight_line": "constant velocity",
    "mean_camera": "mean field of view",
}
SEEDS = (500_000, 3_000_000, 5_000_000, 7_000_000)
"""First seeds of other held-out clips."""
CLASSICAL = "essential_matrix"
"""Looks at the images, so it is no trivial guess."""
SPLIT = 14
"""Standard deviation of the blur, in pixels, that tells shapes from details."""


def page() -> str:
    """All tables of the page on accuracy."""
    return "\n".join([accuracy(), _other_seeds(), _guesses(), _detail(), _footage()])


def accuracy() -> str:
    """Held-out procedural clips: the bundled model beside trivial guesses."""
    result = read("procedural_mini.json")
    settings = result["settings"]
    titles = [f"{g['frames']} frames, motion x {g['speed']:g}" for g in result["groups"]]
    lines = [
        f"Held-out procedural clips, {settings['clips']} for each length, {settings['mode']}; mean "
        "over clips, in brackets the best trivial guess and in how many clips the model is better:",
        "",
        *_table(titles, result["groups"]),
        "",
        source("procedural_mini.json", result["machine"], "everview eval procedural"),
    ]
    return "\n".join(lines) + "\n"


def _guesses() -> str:
    """The same clips: every guess by its name, and the teacher."""
    result = read("procedural_mini.json")
    (group,) = result["groups"]
    scores = {name: words for name, words in SCORES.items() if name in group["scores"]}
    names = [name for name in GUESSES if any(name in _beside(group, s) for s in scores)]
    lines = [
        f"Every guess on the same {result['settings']['clips']} clips, and v1 with all frames "
        "seeing each other, the teacher from which the bundled weights began:",
        "",
        *head("", "model", *(GUESSES[name] for name in names)),
    ]
    for score, (words, digits) in scores.items():
        beside = _beside(group, score)
        cells = [f"{beside[name]:.{digits}f}" if name in beside else "-" for name in names]
        mean = f"**{group['scores'][score]['mean']:.{digits}f}**"
        lines.append(f"| {words} | {mean} | " + " | ".join(cells) + " |")
    command = "everview eval procedural --teacher ..."
    lines += ["", source("procedural_mini.json", result["machine"], command)]
    return "\n".join(lines) + "\n"


def _other_seeds() -> str:
    """The bundled model on clips of other seeds, and on all of them."""
    files = ["procedural_mini.json", *(f"procedural_mini_seeds_{seed}.json" for seed in SEEDS)]
    results = [read(file) for file in files]
    clips = [result["groups"][0]["clips"] for result in results]
    names = ("abs_rel", "delta1", "rotation_degrees", "auc30", "ate")
    lines = [
        "The same model on clips of other seeds, 200 each:",
        "",
        *head("first seed", *(SCORES[name][0] for name in names)),
    ]
    titles = [f"{result['settings']['first_seed']:,}" for result in results]
    for title, group in zip([*titles, "all"], [*clips, list(chain(*clips))], strict=True):
        cells = []
        for name in names:
            found = statistics_of([v for c in group if (v := c["scores"].get(name)) is not None])
            error = f" ± {found['standard_error']:.{SCORES[name][1]}f}"
            cells.append(f"{found['mean']:.{SCORES[name][1]}f}{error}")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    command = "everview eval procedural --first-seed ..."
    lines += ["", source(", ".join(files), results[1]["machine"], command)]
    return "\n".join(lines) + "\n"


def _footage() -> str:
    """Real sequences: the bundled model beside trivial guesses and a classical method."""
    result = read("real_footage.json")
    pick = [(s, s["groups"][0]) for s in result["sequences"]]
    titles = [f"{s['name']}, {len(g['clips'])} x {g['frames']} frames" for s, g in pick]
    lines = [
        "Windows of real sequences; the same scores. The last three rows are a classical method "
        f"that is told the true intrinsics ({result['classical_baseline']}):",
        "",
        *_table(titles, [group for _, group in pick]),
        *_classical([group for _, group in pick]),
        "",
        *(f"- {s['name']}: {'; '.join([*s['remarks'], s['noise_floor']])}." for s, _ in pick),
        "",
        source("real_footage.json", result["machine"], "benchmarks/real_footage.py"),
    ]
    return "\n".join(lines) + "\n"


def _detail() -> str:
    """Where errors of depth lie."""
    result = read("depth_detail.json")
    runs = [(bundled(run["model"]), run["kinds"]) for run in result["runs"]]
    mixtures = {"model": "as it is", f"rough shape, {SPLIT}": "with the truth's details",
                f"details, {SPLIT}": "with the truth's rough shape"}  # fmt: skip
    lines = [
        f"AbsRel of the first {result['settings']['clips']} of these clips, and what it would be "
        f"if the details of depth (what a blur of {SPLIT} pixels, a patch, takes away) or all but "
        "the details were the truth's; last, the truth without its details:",
        "",
        *head("", *(f"{model} {m}" for model, _ in runs for m in mixtures.values()),
              "truth without details"),
    ]  # fmt: skip
    for kind in ("all", *sorted(set(runs[0][1]) - {"all"})):
        scores = [kinds[kind]["abs_rel"] for _, kinds in runs]
        cells = [f"{found[name]:.3f}" for found in scores for name in mixtures]
        cells.append(f"{scores[0][f'no details, {SPLIT}']:.3f}")
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    lines += _other_frames(*runs[-1])
    lines += ["", source("depth_detail.json", result["machine"], "benchmarks/depth_detail.py")]
    return "\n".join(lines) + "\n"


def _other_frames(model: str, kinds: dict[str, Any]) -> list[str]:
    """What frames before it do for the depth of a frame."""
    ways = {"frames in the stream": "after the frames before it", "frames alone": "shown alone"}
    lines = [
        "",
        f"AbsRel of frames of {model}, each after its own ratio of medians:",
        "",
        *head("", *ways.values()),
    ]
    for kind in ("all", *sorted(set(kinds) - {"all"})):
        cells = [f"{kinds[kind]['abs_rel'][way]:.3f}" for way in ways]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return lines


def _beside(group: dict[str, Any], score: str) -> dict[str, float]:
    """Means of the guesses and the teacher."""
    found = group["scores"][score]
    teacher = {"teacher": found["teacher"]} if "teacher" in found else {}
    return {name: facts["mean"] for name, facts in {**teacher, **found["baselines"]}.items()}


def _table(titles: list[str], groups: list[dict[str, Any]]) -> list[str]:
    """A row per score, a column per group."""
    lines = head("", *titles)
    for name, (words, digits) in SCORES.items():
        if not any(name in group["scores"] for group in groups):
            continue
        cells = [_cell(name, group["scores"].get(name), digits) for group in groups]
        lines.append(f"| {words} | " + " | ".join(cells) + " |")
    return lines


def _classical(groups: list[dict[str, Any]]) -> list[str]:
    """What essential matrix and PnP give, where they were measured."""
    lines = []
    for name in ("rotation_degrees", "auc30", "ate"):
        words, digits = SCORES[name]
        found = [group["scores"][name]["baselines"].get(CLASSICAL) for group in groups]
        cells = ["-" if facts is None else f"{facts['mean']:.{digits}f}" for facts in found]
        lines.append(f"| classical: {words} | " + " | ".join(cells) + " |")
    return lines


def _cell(name: str, score: dict[str, Any] | None, digits: int) -> str:
    """Our mean; in brackets the best guess's mean and in how many clips we are better."""
    if score is None or not score["clips"]:
        return "-"
    pick = max if name in MORE_IS_BETTER else min
    guesses = [g for k, g in score["baselines"].items() if k != CLASSICAL and g["clips"]]
    ours = f"**{score['mean']:.{digits}f}**"
    if not guesses:
        return ours
    best = pick(guesses, key=lambda guess: guess["mean"])
    better = "" if best["better_in"] is None else f", {best['better_in']:.0%}"
    return f"{ours} ({best['mean']:.{digits}f}{better})"
