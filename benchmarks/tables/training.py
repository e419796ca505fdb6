"""Tables of the page on training: what was learnt, from whom, how fast."""

import json
from statistics import fmean

from results import RESULTS, SCORES, head, read, source

ABLATION = ("abs_rel", "delta1", "points", "rotation_degrees", "auc30_apart", "ate")
"""Scores of the table of students."""
PAIR = ("abs_rel", "rotation_degrees", "auc30", "ate")
"""Scores of the table of a student and its teacher by length."""
SEEN = {"truth/depth": 3, "truth/points": 3, "guide/flow": 3, "guide/path": 3, "guide/turn": 4}
"""Terms of the table of clips seen before -> decimals."""
KERNELS = {
    "adamw": "AdamW for kernels of convolutions",
    "muon": "Muon",
    "muon_twice_the_rate": "Muon, twice the rate for kernels",
    "muon_differences": "Muon, and differences of depth at six distances",
}
STEPS = {
    ("terms", "truth/depth"): "`truth/depth`",
    ("diagnostics", "truth/hf1"): "differences of depth between pixels 1 apart",
    ("diagnostics", "truth/hf8"): "8 apart",
    ("diagnostics", "truth/hf32"): "32 apart",
    ("terms", "truth/scale"): "`truth/scale`",
    ("terms", "truth/points"): "`truth/points`",
    ("terms", "guide/flow"): "`guide/flow`",
    ("terms", "guide/path"): "`guide/path`",
    ("terms", "guide/turn"): "`guide/turn`",
}
"""Where a log of steps has it -> words."""
LATE = 3
"""Lines of 20 steps each."""


def training() -> str:
    """All tables of the page on training."""
    parts = [_ablation(), _pair_by_length(), _lengths(), _seen(), _noise(), _noise_by_length()]
    return "\n".join([*parts, _steps(), _training_speed()])


def _ablation() -> str:
    """Students taught by teacher, truth or both, and by teachers with faults."""
    result = read("ablation.json")
    settings = result["settings"]
    words = [f"{SCORES[name][0]}" for name in ABLATION]
    lines = [
        f"`tiny`, teacher {settings['teacher_steps']:,} steps, students "
        f"{settings['student_steps']:,} more from its weights; {settings['clips']} held-out clips "
        f"of {settings['frames']} frames, motion x {settings['speed']:g}; mean over "
        f"{len(settings['seeds'])} seeds, in brackets the standard deviation between them; "
        "teachers with faults: one seed.",
        "",
        *head("network", *words),
    ]
    for run, scores in result["summary"].items():
        cells = []
        for name in ABLATION:
            digits, value = SCORES[name][1], scores[name]
            spread = value["deviation"]
            cells.append(
                f"{value['mean']:.{digits}f}"
                + ("" if spread is None else f" ({spread:.{digits}f})")
            )
        lines.append(f"| {run} | " + " | ".join(cells) + " |")
    lines += ["", source("ablation.json", result["machine"], "benchmarks/ablation.py")]
    return "\n".join(lines) + "\n"


def _pair_by_length() -> str:
    """A student and its teacher over the length of clips."""
    result = read("ablation.json")
    named: dict[str, list[dict[str, dict[str, float]]]] = {}
    for run in result["runs"]:
        named.setdefault(run["name"], []).append(run["lengths"])
    words = [SCORES[name][0] for name in PAIR]
    lines = [
        "The same teacher and student without faults (in brackets over the teacher) on clips of "
        "other lengths; both learnt from clips of 2 to 4 frames:",
        "",
        *head("frames", *(f"{who}, {w}" for w in words for who in ("teacher", "distilled"))),
    ]  # fmt: skip
    for frames in result["settings"]["lengths"]:
        cells = []
        for name in PAIR:
            teacher, student = (
                fmean(found[str(frames)][name] for found in named[who])
                for who in ("teacher", "distilled")
            )
            digits = SCORES[name][1]
            cells.append(f"{teacher:.{digits}f}")
            cells.append(f"{student:.{digits}f} ({student / teacher:.2f})")
        lines.append(f"| {frames} | " + " | ".join(cells) + " |")
    lines += ["", source("ablation.json", result["machine"], "benchmarks/ablation.py")]
    return "\n".join(lines) + "\n"


def _lengths() -> str:
    """The bundled model and the teacher from which it came, over longer clips."""
    result = read("procedural_mini_lengths.json")
    shown = ("abs_rel", "delta1", "rotation_degrees", "auc30", "ate")
    lines = [
        "The bundled weights, causal and streaming (trained on clips of up to 16 frames), and in "
        "brackets v1 with all frames seeing each other, the teacher from which they began; "
        f"{result['settings']['clips']} clips:",
        "",
        *head("frames", *(SCORES[name][0] for name in shown)),
    ]
    for group in result["groups"]:
        cells = []
        for name in shown:
            digits, score = SCORES[name][1], group["scores"][name]
            cells.append(f"{score['mean']:.{digits}f} ({score['teacher']['mean']:.{digits}f})")
        lines.append(f"| {group['frames']} | " + " | ".join(cells) + " |")
    command = "everview eval procedural --clips 24 --frames 8,16,32,64 --teacher ..."
    lines += ["", source("procedural_mini_lengths.json", result["machine"], command)]
    return "\n".join(lines) + "\n"


def _seen() -> str:
    """Losses on clips just shown and on new ones."""
    result = read("seen_or_fresh.json")
    lines = [
        f"Losses on the {result['groups']} groups of clips that a run was shown last, and on as "
        "many that it has never seen; in brackets the standard error of the new ones:",
        "",
        "| run | " + " | ".join(f"`{name}`, shown | new" for name in SEEN) + " |",
        "|---|" + "---|---|" * len(SEEN),
    ]
    for run in result["runs"]:
        cells = []
        for name, digits in SEEN.items():
            (shown, _), (new, error) = run["seen"][name], run["fresh"][name]
            cells.append(f"{shown:.{digits}f} | {new:.{digits}f} ({error:.{digits}f})")
        lines.append(f"| {run['name']} | " + " | ".join(cells) + " |")
    command = "benchmarks/seen_or_fresh.py"
    lines += ["", source("seen_or_fresh.json", result["machine"], command)]
    return "\n".join(lines) + "\n"


def _noise() -> str:
    """How loud the terms of a loss are in the gradient of the trunk."""
    result = read("gradient_noise.json")
    names = list(result["runs"][0]["terms"])
    names += [name for name in result["runs"][-1]["terms"] if name not in names]
    lines = [
        "How far gradients of single steps lie from their mean, in the trunk, each term with its "
        f"weight ({result['steps']} steps on new clips; tracks, not in every step, are left out). "
        "Before: weights and network of run 6, now: of run 10, both with the loss that v3 had:",
        "",
        *head("term", "before", "now"),
    ]
    for name in names:
        found = [run["terms"].get(name) for run in result["runs"]]
        cells = ["-" if term is None else f"{term['noise']:.2f}" for term in found]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    lines += ["", source("gradient_noise.json", result["machine"], "benchmarks/gradient_noise.py")]
    return "\n".join(lines) + "\n"


def _noise_by_length() -> str:
    """How much gradients scatter, by the length of clips."""
    result = read("gradient_noise_frames.json")
    names = list(result["runs"][0]["terms"])
    lines = [
        f"The same scatter, and in brackets the size of the mean, with clips of other lengths; 64 "
        f"images a step, {result['steps']} steps, a checkpoint on the way to v4:",
        "",
        *head("frames of a clip", "images with depth", *(f"`{n}`" for n in names)),
    ]
    for run in result["runs"]:
        stage = run["recipe"]["stages"][0]
        found = [run["terms"][name] for name in names]
        cells = [f"{term['noise']:.2f} ({term['signal']:.2f})" for term in found]
        lines.append(
            f"| {stage['frames'][0]} | {stage['dense_images']} | " + " | ".join(cells) + " |"
        )
    command = "benchmarks/gradient_noise.py --frames 2 4 8 --dense 32 64"
    lines += ["", source("gradient_noise_frames.json", result["machine"], command)]
    return "\n".join(lines) + "\n"


def _steps() -> str:
    """Losses of runs from one checkpoint on the same clips, as changes of the first's."""
    logs = [(RESULTS / f"kernels_{name}.jsonl").read_text().splitlines() for name in KERNELS]
    runs = [[json.loads(line) for line in log[-LATE:]] for log in logs]
    lines = [
        "Runs from one checkpoint on the same new clips, one core: losses of the last 60 of 122 "
        "steps, and how much those of the others differ:",
        "",
        *head("term", *KERNELS.values()),
    ]
    for (part, term), words in STEPS.items():
        first, *others = (fmean(line[part][term] for line in run) for run in runs)
        changes = [f"{other / first - 1:+.1%}" for other in others]
        lines.append(f"| {words} | {first:.4f} | " + " | ".join(changes) + " |")
    files = ", ".join(f"kernels_{name}.jsonl" for name in KERNELS)
    lines += ["", f"`everview train --resume` four times, from a draft of the code: `{files}`."]
    return "\n".join(lines) + "\n"


def _training_speed() -> str:
    """Images per second that learn, by precision and compilation."""
    file = "training_speed_cpu.json"
    result = read(file)
    lines = [
        "Images that learn per second at the size of `mini`, with depth and points of each; in "
        "brackets with tracks:",
        "",
        *head("network", "precision", "`compute.compile`", "images / s", "first step, s"),
    ]
    for row in result["rows"]:
        network = "causal, no teacher" if row["attention"] == "causal" else "teacher"
        network = "student beside a teacher" if row["with_teacher"] else network
        tracked = row["images"] / row["seconds_with_tracks"]
        lines.append(
            f"| {network} | {row['precision']} | {'yes' if row['compiled'] else 'no'} | "
            f"{row['images_per_second']:.1f} ({tracked:.1f}) | {row['first']:.0f} |"
        )
    times = ", ".join(f"{name} {ms:.1f}" for name, ms in result["attention"].items())
    lines += [
        "",
        "Attention alone, forward and back, 32 frames of 69 tokens, 6 heads of 32 channels, in "
        f"milliseconds: {times}.",
        "",
        source(file, result["machine"], "benchmarks/training_speed.py"),
    ]
    return "\n".join(lines) + "\n"
