"""Write the tables of README.md and of pages in docs/ from the result files.

python benchmarks/tables.py          write them
python benchmarks/tables.py --check  fail if they are not what the result files say
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from scipy.stats import t as student

from everview.evaluation.summaries import statistics_of

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- numbers: begin -->", "<!-- numbers: end -->"

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

ABLATION = ("abs_rel", "delta1", "points", "rotation_degrees", "auc30_apart", "ate")
"""Scores of the table of students."""

MORE_IS_BETTER = ("delta1", "auc30", "auc15", "auc5", "auc30_apart")
CLASSICAL = "essential_matrix"
"""Looks at the images, so it is no trivial guess."""


def main() -> int:
    """Return 1 if `--check` finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    is_check = parser.parse_args().check
    texts = {
        ROOT / "README.md": accuracy() + "\n" + speed(),
        ROOT / "docs" / "speed.md": speed() + "\n" + scaling() + "\n" + world(),
        ROOT / "docs" / "training.md": "\n".join(
            [ablation(), lengths(), seen(), noise(), noise_by_length(), steps(), training_speed()]
        ),
        ROOT / "docs" / "memory.md": memory(),
        ROOT / "docs" / "quantization.md": quantization(),
        ROOT / "docs" / "accuracy.md": "\n".join([accuracy(), detail(), footage()]),
    }
    stale = [path for path, text in texts.items() if _replace(path, text, is_check=is_check)]
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'differs from the results' if is_check else 'written'}")
    return int(is_check and bool(stale))


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
        _source("procedural_mini.json", result["machine"], "everview eval procedural"),
    ]
    return "\n".join(lines) + "\n"


def footage() -> str:
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
        _source("real_footage.json", result["machine"], "benchmarks/real_footage.py"),
    ]
    return "\n".join(lines) + "\n"


def speed() -> str:
    """Seconds per frame of the bundled model and of the full size."""
    names = ("mini", "streamvggt-1b_float32", "streamvggt-1b_bfloat16")
    results = [read(f"latency_{name}.json") for name in names]
    lines = [
        "| model | precision | size | past frames | s / frame | frames / s | share of peak |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        seconds, height, width = result["seconds_per_frame"]["median"], *result["size"]
        past = f"{result['warm_up'] + 1} to {result['warm_up'] + result['frames']}"
        share = f"{result['share_of_matrix_product_peak']:.0%}"
        share += f" of {result['matrix_product_flop_per_second'] / 1e9:.0f} GFLOP/s"
        lines.append(
            f"| {result['model']} | {result['precision']} | {height} x {width} | {past} | "
            f"{seconds:.3g} | {1 / seconds:.3g} | {share} |"
        )
    lines += [
        "",
        "Peak: square matrix products of the same precision, measured in the same run. "
        + _source("latency_*.json", results[0]["machine"], "everview bench latency"),
    ]
    return "\n".join(lines) + "\n"


def world() -> str:
    """Speed of the procedural world."""
    result = read("world_speed.json")
    lines = ["| procedural world | frames / s |", "|---|---|"]
    for case in result["sizes"]:
        height, width = case["size"]
        lines.append(f"| {height} x {width} | {case['frames_per_second']:.0f} |")
    lines += ["", _source("world_speed.json", result["machine"], "benchmarks/world_speed.py")]
    return "\n".join(lines) + "\n"


def scaling() -> str:
    """Seconds for the newest frame, streaming and offline."""
    result = read("latency_scaling.json")
    lines = [
        "| frames so far | one step of a stream, s | offline network on all frames, s | ratio |",
        "|---|---|---|---|",
    ]
    for n, seconds in result["offline_seconds"].items():
        newest = result["streaming_seconds"][int(n) - 1]
        lines.append(f"| {n} | {newest:.3f} | {seconds:.2f} | {result['ratio'][n]:.1f} |")
    lines += [
        "",
        f"`{result['model']}`, {result['precision']}. "
        + _source("latency_scaling.json", result["machine"], "benchmarks/latency_scaling.py"),
    ]
    return "\n".join(lines) + "\n"


def ablation() -> str:
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
        "| network | " + " | ".join(words) + " |",
        "|---|" + "---|" * len(words),
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
    lines += ["", _source("ablation.json", result["machine"], "benchmarks/ablation.py")]
    return "\n".join(lines) + "\n"


VERSIONS = {
    None: "v1",
    "6f3f2bfcc4b6b5168e90b2fd3a18e099eb2c98a069ab7e7240410f4175a795fb": "v2",
    "5ab5e9b367e5d465818d0473a00419b50911fe50d7580016eb103c2d2e1b9794": "v3",
    "f128c179d7056a35ae4247ea8adb5f0b7b65753932056e79fe41ee24f66d29e1": "v4",
}
"""Hash of the bundled weights -> their version; results of v1 do not say which they had."""


def _bundled(result: dict[str, Any]) -> str:
    """The bundled model that a result is of."""
    return f"`mini` {VERSIONS[result.get('weights_sha256')]}"


def lengths() -> str:
    """The bundled model and the teacher from which it came, over longer clips."""
    result = read("procedural_mini_lengths.json")
    shown = ("abs_rel", "delta1", "rotation_degrees", "auc30", "ate")
    lines = [
        "The bundled weights, causal and streaming (trained on clips of 4 to 16 frames), and in "
        "brackets v1 with all frames seeing each other, the teacher from which they began; "
        f"{result['settings']['clips']} clips:",
        "",
        "| frames | " + " | ".join(SCORES[name][0] for name in shown) + " |",
        "|---|" + "---|" * len(shown),
    ]
    for group in result["groups"]:
        cells = []
        for name in shown:
            digits, score = SCORES[name][1], group["scores"][name]
            cells.append(f"{score['mean']:.{digits}f} ({score['teacher']['mean']:.{digits}f})")
        lines.append(f"| {group['frames']} | " + " | ".join(cells) + " |")
    command = "everview eval procedural --clips 24 --frames 8,16,32,64 --teacher ..."
    lines += ["", _source("procedural_mini_lengths.json", result["machine"], command)]
    return "\n".join(lines) + "\n"


SEEN = {"truth/depth": 3, "truth/points": 3, "guide/flow": 3, "guide/path": 3, "guide/turn": 4}
"""Terms of the table of clips seen before -> decimals."""


def seen() -> str:
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
    lines += ["", _source("seen_or_fresh.json", result["machine"], command)]
    return "\n".join(lines) + "\n"


def noise() -> str:
    """How loud the terms of a loss are in the gradient of the trunk."""
    result = read("gradient_noise.json")
    names = list(result["runs"][0]["terms"])
    names += [name for name in result["runs"][-1]["terms"] if name not in names]
    lines = [
        "How far gradients of single steps lie from their mean, in the trunk, each term with its "
        f"weight ({result['steps']} steps on new clips; tracks, not in every step, are left out). "
        "Before: weights and network of run 6, now: of run 10, both with the loss that v3 had:",
        "",
        "| term | before | now |",
        "|---|---|---|",
    ]
    for name in names:
        found = [run["terms"].get(name) for run in result["runs"]]
        cells = ["-" if term is None else f"{term['noise']:.2f}" for term in found]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    lines += ["", _source("gradient_noise.json", result["machine"], "benchmarks/gradient_noise.py")]
    return "\n".join(lines) + "\n"


def noise_by_length() -> str:
    """How much gradients scatter, by the length of clips."""
    result = read("gradient_noise_frames.json")
    names = list(result["runs"][0]["terms"])
    lines = [
        f"The same scatter, and in brackets the size of the mean, with clips of other lengths; 64 "
        f"images a step, {result['steps']} steps, a checkpoint on the way to v4:",
        "",
        "| frames of a clip | images with depth | " + " | ".join(f"`{n}`" for n in names) + " |",
        "|---|---|" + "---|" * len(names),
    ]
    for run in result["runs"]:
        stage = run["recipe"]["stages"][0]
        found = [run["terms"][name] for name in names]
        cells = [f"{term['noise']:.2f} ({term['signal']:.2f})" for term in found]
        lines.append(
            f"| {stage['frames'][0]} | {stage['dense_images']} | " + " | ".join(cells) + " |"
        )
    command = "benchmarks/gradient_noise.py --frames 2 4 8 --dense 32 64"
    lines += ["", _source("gradient_noise_frames.json", result["machine"], command)]
    return "\n".join(lines) + "\n"


SPLIT = 14
"""Standard deviation of the blur, in pixels, that tells shapes from details."""


def detail() -> str:
    """Where errors of depth lie."""
    result = read("depth_detail.json")
    runs = [(_bundled(run["model"]), run["kinds"]) for run in result["runs"]]
    mixtures = {"model": "as it is", f"rough shape, {SPLIT}": "with the truth's details",
                f"details, {SPLIT}": "with the truth's rough shape"}  # fmt: skip
    lines = [
        f"AbsRel of the first {result['settings']['clips']} of these clips, and what it would be "
        f"if the details of depth (what a blur of {SPLIT} pixels, a patch, takes away) or all but "
        "the details were the truth's; last, the truth without its details:",
        "",
        "| | " + " | ".join(f"{model} {m}" for model, _ in runs for m in mixtures.values())
        + " | truth without details |",
        "|---|" + "---|" * (len(mixtures) * len(runs) + 1),
    ]  # fmt: skip
    for kind in ("all", *sorted(set(runs[0][1]) - {"all"})):
        scores = [kinds[kind]["abs_rel"] for _, kinds in runs]
        cells = [f"{found[name]:.3f}" for found in scores for name in mixtures]
        cells.append(f"{scores[0][f'no details, {SPLIT}']:.3f}")
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    lines += ["", _source("depth_detail.json", result["machine"], "benchmarks/depth_detail.py")]
    return "\n".join(lines) + "\n"


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


def steps() -> str:
    """Losses of runs from one checkpoint on the same clips, as changes of the first's."""
    logs = [(RESULTS / f"kernels_{name}.jsonl").read_text().splitlines() for name in KERNELS]
    runs = [[json.loads(line) for line in log[-LATE:]] for log in logs]
    lines = [
        "Runs from one checkpoint on the same new clips, one core: losses of the last 60 of 122 "
        "steps, and how much those of the others differ:",
        "",
        "| term | " + " | ".join(KERNELS.values()) + " |",
        "|---|" + "---|" * len(KERNELS),
    ]
    for (part, term), words in STEPS.items():
        first, *others = (fmean(line[part][term] for line in run) for run in runs)
        changes = [f"{other / first - 1:+.1%}" for other in others]
        lines.append(f"| {words} | {first:.4f} | " + " | ".join(changes) + " |")
    files = ", ".join(f"kernels_{name}.jsonl" for name in KERNELS)
    lines += ["", f"`everview train --resume` four times, from a draft of the code: `{files}`."]
    return "\n".join(lines) + "\n"


def training_speed() -> str:
    """Images per second that learn, by precision and compilation."""
    file = "training_speed_cpu.json"
    result = read(file)
    lines = [
        "Images that learn per second at the size of `mini`, with depth and points of each; in "
        "brackets with tracks:",
        "",
        "| network | precision | `compute.compile` | images / s | first step, s |",
        "|---|---|---|---|---|",
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
        _source(file, result["machine"], "benchmarks/training_speed.py"),
    ]
    return "\n".join(lines) + "\n"


LEAGUE = {
    "ate_share": ("ATE / path", 3), "rotation_8": ("rotation over 8 frames, degrees", 2),
    "direction_8": ("direction over 8 frames, degrees", 1),
    "abs_rel": ("AbsRel, scale per frame", 3), "abs_rel_stream": ("scale per stream", 3),
    "accuracy": ("Acc", 2), "completeness": ("Comp", 2), "chamfer": ("CD", 2),
    "normal_consistency": ("NC", 3), "cache_bytes": ("MB", 1), "ms": ("ms / frame", 0),
}  # fmt: skip
"""Score of a memory policy -> words, decimals."""
OURS = ("late_merge", "key_diversity")
BUNDLED_LEAGUE = "memory_policies_v2.json"
SEEDS = ("memory_policies.json", "memory_policies_seeds.json")
"""All policies on one seed, a few of them on several."""


def memory() -> str:
    """All tables of the page on memory."""
    parts = [
        _league("memory_policies.json", "LongWorld"),
        *(part(file) for part in (_duels, _bits) for file in SEEDS),
        _league(BUNDLED_LEAGUE, "LongWorld, newer weights"),
        _bits(BUNDLED_LEAGUE),
        _key_range(),
        _league("memory_policies_10000.json", "LongWorld, ten thousand frames"),
        _league("memory_policies_real.json", "Real sequences"),
    ]
    return "\n".join([*parts, _endless(), _memory_speed()])


def _league(file: str, title: str) -> str:
    """A league of memory policies."""
    result = read(file)
    frames = sorted({run["frames"] for run in result["runs"]})
    walks = max(scores["walks"] for scores in result["summary"].values())
    shown = {
        name: words
        for name, words in LEAGUE.items()
        if (name == "ms" and "timings" in result)
        or any(name in scores for scores in result["summary"].values())
    }  # fmt: skip
    lines = [
        f"### {title}",
        "",
        f"{_bundled(result)}, {walks} sequence{'s' * (walks > 1)} of "
        f"{' or '.join(map(str, frames))} frames; mean, in brackets its standard error. Against a "
        "camera that never moves: ATE over what that one has, which is the most that an alignment "
        "by Sim(3) leaves.",
        "",
        "| policy | against one that never moves | "
        + " | ".join(words for words, _ in shown.values())
        + " |",
        "|---|---|" + "---|" * len(shown),
    ]
    by_walk = _over_still(result)
    for policy, scores in sorted(result["summary"].items(), key=_league_order):
        cells = [_league_cell(result, policy, scores, name) for name in shown]
        lines.append(f"| `{policy}` | {fmean(by_walk[policy]):.2f} | " + " | ".join(cells) + " |")
    lines += ["", _source(file, result["machine"], "benchmarks/memory_policies.py")]
    return "\n".join(lines) + "\n"


def _over_still(result: dict[str, Any]) -> dict[str, list[float]]:
    """Policy -> ATE of each walk over that of a camera that never moves."""
    found: dict[str, list[float]] = {}
    for run in result["runs"]:
        still = result["still"][f"{run['walk']} {run['seed']} {run['frames']}"]
        found.setdefault(run["policy"], []).append(run["ate_share"] / still)
    return found


def _league_order(row: tuple[str, Any]) -> tuple[int, float]:
    """By budget, then by error; `full` first."""
    return _budget(row[0]), row[1]["ate_share"]["mean"]


def _budget(policy: str) -> int:
    return int(dict(_options(policy)).get("frames", 0))


def _options(policy: str) -> list[list[str]]:
    return [option.split("=") for option in policy.partition(":")[2].split(",") if option]


def _league_cell(result: dict[str, Any], policy: str, scores: dict[str, Any], name: str) -> str:
    digits = LEAGUE[name][1]
    if name == "ms" and "timings" in result:
        found = result["timings"].get(policy)
        return "-" if found is None else f"{found:.{digits}f}"
    if name not in scores:
        return "-"
    mean, error = scores[name]["mean"], scores[name]["standard_error"]
    if name == "cache_bytes":
        return f"{mean / 1e6:.{digits}f}"
    return f"{mean:.{digits}f}" + (f" ({error:.{digits}f})" if error else "")


def _duels(file: str) -> str:
    """Both of ours against every other policy of as many bytes, walk by walk."""
    result = read(file)
    lines = [
        f"### Ours against the others, at equal bytes: {_seen(result)}",
        "",
        "ATE / path of the row minus that of the column, mean over walks, in brackets the 95 % "
        "interval (Student's t; over three walks it is wide). Above 0: ours is better.",
        "",
        "| policy | walks | " + " | ".join(f"`{name}`" for name in OURS) + " |",
        "|---|---|" + "---|" * len(OURS),
    ]
    by_walk = _by_walk(result, "ate_share")
    for policy in sorted(by_walk, key=lambda text: (_budget(text), text)):
        if not _budget(policy) or "bits" in policy:
            continue
        ours = [f"{name}:frames={_budget(policy)}" for name in OURS]
        cells = [
            "" if policy == mine else _duel(by_walk[policy], by_walk.get(mine, {})) for mine in ours
        ]
        if set(cells) <= {"", "-"}:
            continue
        lines.append(f"| `{policy}` | {len(by_walk[policy])} | " + " | ".join(cells) + " |")
    lines += ["", _source(file, result["machine"], "benchmarks/memory_policies.py")]
    return "\n".join(lines) + "\n"


def _bits(file: str) -> str:
    """What few bits change."""
    result = read(file)
    scores = {"ate_share": "ATE / path", "abs_rel": "AbsRel, scale per frame",
              "abs_rel_stream": "AbsRel, scale per stream"}  # fmt: skip
    against_16 = ("ate_share", "abs_rel")
    tables = {name: _by_walk(result, name) for name in scores}
    lines = [
        f"### Few bits, at equal tokens: {_bundled(result)}, {_seen(result)}",
        "",
        "Change against the network's own numbers (float32), then against `bits=16` where that was "
        "run, of the mean over walks; in brackets the 95 % interval (Student's t).",
        "",
        "| policy | walks | "
        + " | ".join([*scores.values(), *(f"{scores[name]}, to 16 bits" for name in against_16)])
        + " |",
        "|---|---|" + "---|" * len([*scores, *against_16]),
    ]
    for policy in sorted(tables["ate_share"], key=lambda text: (_budget(text), text)):
        plain = ",".join(part for part in policy.split(",") if not part.startswith("bits="))
        if plain == policy:
            continue
        cells = [
            _change(tables[name].get(reference, {}), tables[name][policy])
            if reference != policy
            else ""
            for reference, names in ((plain, scores), (f"{plain},bits=16", against_16))
            for name in names
        ]
        walks = len(tables["ate_share"][policy])
        lines.append(f"| `{policy}` | {walks} | " + " | ".join(cells) + " |")
    lines += ["", _source(file, result["machine"], "benchmarks/memory_policies.py")]
    return "\n".join(lines) + "\n"


def _key_range() -> str:
    """What saturation and rounding of keys cost, by the range that scales cover."""
    result = read("key_range.json")
    lines = [
        "### Range of keys",
        "",
        "Scales cover so many times the range of the first frame: share of later keys beyond, and "
        "root mean squares of what saturation and rounding change; mean over layers and walks, in "
        "brackets the worst layer.",
        "",
        "| times the range | beyond | saturation | rounding, 8 bits | rounding, 4 bits |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        beyond = " (".join(f"{100 * row['beyond'][of]:.2f} %" for of in ("mean", "worst"))
        errors = [row["saturation"], row["rounding"]["8"], row["rounding"]["4"]]
        cells = [f"{error['mean']:.3f} ({error['worst']:.3f})" for error in errors]
        lines.append(f"| {row['room']:g} | {beyond}) | " + " | ".join(cells) + " |")
    lines += ["", _source("key_range.json", result["machine"], "benchmarks/key_range.py")]
    return "\n".join(lines) + "\n"


def _by_walk(result: dict[str, Any], score: str) -> dict[str, dict[str, float]]:
    """Policy -> walk -> score."""
    found: dict[str, dict[str, float]] = {}
    for run in result["runs"]:
        found.setdefault(run["policy"], {})[f"{run['walk']} {run['seed']}"] = run[score]
    return found


def _seen(result: dict[str, Any]) -> str:
    """Walks and seeds in words."""
    walks, seeds = ({run[name] for run in result["runs"]} for name in ("walk", "seed"))
    return f"{len(walks)} walks, {'one seed' if len(seeds) == 1 else f'up to {len(seeds)} seeds'}"


def _duel(theirs: dict[str, float], ours: dict[str, float]) -> str:
    """Mean of paired differences and its interval."""
    walks = sorted(set(theirs) & set(ours))
    if len(walks) < 2:
        return "-"
    mean, reach = _interval([theirs[w] - ours[w] for w in walks])
    return f"{mean:+.4f} ({mean - reach:+.4f} to {mean + reach:+.4f})"


def _change(before: dict[str, float], after: dict[str, float]) -> str:
    """Mean of paired differences over the mean before, in percent, and its interval."""
    walks = sorted(set(before) & set(after))
    if len(walks) < 2:
        return "-"
    whole = fmean(before[w] for w in walks) / 100
    mean, reach = (x / whole for x in _interval([after[w] - before[w] for w in walks]))
    return f"{mean:+.1f} % ({mean - reach:+.1f} to {mean + reach:+.1f})"


def _interval(numbers: list[float]) -> tuple[float, float]:
    """Mean and half of the 95 % interval of it, by Student's t."""
    error = stdev(numbers) / len(numbers) ** 0.5
    return fmean(numbers), student.ppf(0.975, len(numbers) - 1) * error


def _endless() -> str:
    """Ten thousand frames."""
    result = read("endless.json")
    lines = [
        "### Ten thousand frames",
        "",
        "Last thousand frames over frames 500 to 1,500 of the same run. Time by the clock has the "
        "machine's own moods in it; time / control is over that of a stream that stays young, its "
        "slope per 1,000 frames, with a 95 % interval.",
        "",
        "| policy | frames | time by the clock | time / control | slope of it | peak of the "
        "process | bytes of state | ms / frame | ATE / path | against one that never moves |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in result["runs"]:
        ratio, slope = run["late_over_early"], run["slope_of_seconds_over_control"]
        low, high = slope["interval"]
        drift = run["drift"][max(run["drift"], key=int)]
        lines.append(
            f"| `{run['chosen']}` | {run['frames']} | {ratio['median_seconds']:.3f} | "
            f"{ratio['median_seconds_over_control']:.3f} | "
            f"{slope['per_1000_frames']:+.4f} ({low:+.4f} to {high:+.4f}) | "
            f"{ratio['peak_resident_bytes']:.3f} | {ratio['state_bytes']:.3f} | "
            f"{1000 * run['median_seconds']:.0f} | {drift['ate_over_path']:.4f} | "
            f"{drift['ate_over_spread']:.2f} |"
        )
    lines += ["", _source("endless.json", result["machine"], "benchmarks/endless.py")]
    return "\n".join(lines) + "\n"


def _memory_speed() -> str:
    """What remembering costs beside attention."""
    lines = [
        "### What remembering costs",
        "",
        "One layer: seconds of a frame beyond those of attention over as many tokens, and speed "
        "over a cache that is concatenated for every frame (and gathered, where it forgets).",
        "",
        "| model, past | policy | beyond attention | over a concatenated cache |",
        "|---|---|---|---|",
    ]
    sources = []
    for file in ("memory_speed_mini.json", "memory_speed_1b.json"):
        result = read(file)
        command = f"everview bench memory --model {result['model']}"
        sources.append(_source(file, result["machine"], command))
        lines += [
            f"| `{result['model']}`, {row['frames']} frames | `{row['policy']}` | "
            f"{row['update_share']:+.0%} | {row['speed_up']:.2f} x |"
            for row in result["rows"]
        ]
    return "\n".join([*lines, "", *sources]) + "\n"


def quantization() -> str:
    """Accuracy of quantized networks, and their speed."""
    result = read("quantization_methods.json")
    settings = result["settings"]
    sampling = read("quantization_sampling.json")
    newer = read("quantization_v4.json")
    lines = [
        f"{_bundled(result)}, held-out procedural clips of {settings['frames']} frames, "
        f"{settings['calibration_clips']} calibration clips. Shares of what the float network "
        "reaches, with 95 % intervals of the paired ratio; the three columns on the right are "
        "distances from what the float network says, which tell methods apart where scores do not.",
        "",
        *_quantized(result["runs"]),
        "",
        _source(
            "quantization_methods.json", result["machine"], "benchmarks/quantization_accuracy.py"
        ),
        "",
        f"{_bundled(newer)}, the same for the schemes of the gates and plain rounding:",
        "",
        *_quantized(newer["runs"]),
        "",
        _source("quantization_v4.json", newer["machine"], "benchmarks/quantization_accuracy.py"),
        "",
        *_copies(),
        "`everview` minus other methods, percentage points of the scores, clip by clip, with 95 % "
        "intervals; copy: the one with both kinds of outliers.",
        "",
        *_rivals(result["runs"], read("quantization_outliers.json")["runs"]),
        "",
        "Choice of calibration clips: means over draws, in brackets the standard deviation "
        f"between draws; {_num_clips(sampling)} held-out clips.",
        "",
        *_choices(sampling["runs"]),
        "",
        *_block_speed(),
        "",
        *_full_size(),
        "",
        *_together(),
    ]
    return "\n".join(lines) + "\n"


COPIES = {
    "outliers": "unequal channels and large special tokens",
    "tokens": "large special tokens alone",
    "channels": "unequal channels alone",
}


def _copies() -> list[str]:
    """Copies with outliers."""
    lines = []
    for part, words in COPIES.items():
        result = read(f"quantization_{part}.json")
        title = f"The same on a copy of `mini` v1 with {words}:"
        if part != "channels":
            sizes = result["special_over_patches"]
            before, after = (
                f"{sizes[when]['median']:.1f} ({sizes[when]['least']:.1f} to "
                f"{sizes[when]['most']:.1f})"
                for when in ("before", "after")
            )
            title = (
                f"{title[:-1]}, in which special tokens that leave a norm are {after} times as "
                f"large as patches; in `mini` they are {before} times as large:"
            )
        lines += [title, "", *_quantized(result["runs"]), ""]
    return lines


RIVALS = ("quarot", "scale", "smoothquant", "quantvggt-initial", "nearest")


def _rivals(plain: dict[str, Any], copied: dict[str, Any]) -> list[str]:
    """Ours against a method on the same clips."""
    lines = ["| scheme, other method | AUC@30, `mini` | AUC@30, copy | depth within 1.25, `mini` | "
             "depth within 1.25, copy |", "|---|---|---|---|---|"]  # fmt: skip
    for scheme in ("w8a8", "w4a8", "w4a4"):
        for other in RIVALS:
            cells = [
                _difference(runs[f"{scheme}:everview"], runs[f"{scheme}:{other}"], score)
                for score in ("auc30", "delta1")
                for runs in (plain, copied)
            ]
            lines.append(f"| {scheme} `{other}` | " + " | ".join(cells) + " |")
    return lines


def _difference(ours: dict[str, Any], other: dict[str, Any], score: str) -> str:
    pairs = zip(ours["scores"][score], other["scores"][score], strict=True)
    found = statistics_of([100 * (a - b) for a, b in pairs])
    low, high = found["interval"]
    return f"{found['mean']:+.2f} ({low:+.2f} to {high:+.2f})"


def _num_clips(result: dict[str, Any]) -> int:
    return min(run["off"]["depth_off"]["clips"] for run in result["runs"].values() if "off" in run)


KEPT = {"auc30": "AUC@30 kept", "delta1": "depth within 1.25 kept"}
OFF = {
    "depth_off": ("depth off", 4), "rotation_off_degrees": ("rotation off, degrees", 3),
    "translation_off": ("translation off", 3),
}  # fmt: skip


def _together() -> list[str]:
    """Quantized network, bounded memory, streaming."""
    lines = [
        "`mini` in a stream whose past is full, by precision and memory:",
        "",
        "| network | memory | MB of keys and values | ms / frame |",
        "|---|---|---|---|",
    ]
    machine: dict[str, Any] = {}
    for name in ("key_diversity", "key_diversity_bits8"):
        for precision in ("float32", "bfloat16", "int8", "int4"):
            result = read(f"latency_mini_{name}_{precision}.json")
            machine = result["machine"]
            lines.append(
                f"| {precision} | `{result['memory']}` | {result['cache_bytes'] / 1e6:.2f} | "
                f"{1000 * result['seconds_per_frame']['median']:.0f} |"
            )
    source = _source("latency_mini_key_diversity*.json", machine, "everview bench latency")
    return [*lines, "", source]


def _quantized(runs: dict[str, Any]) -> list[str]:
    """A row per scheme and method."""
    titles = ["clips", *KEPT.values(), *(words for words, _ in OFF.values())]
    lines = ["| scheme, method | " + " | ".join(titles) + " |", "|---|" + "---|" * len(titles)]
    order = sorted(
        (name for name in runs if name != "float"),
        key=lambda name: (
            SCHEME_ORDER.index(name.partition(":")[0]),
            runs[name]["off"]["depth_off"]["mean"],
        ),
    )
    for name in order:
        cells = [str(runs[name]["off"]["depth_off"]["clips"])]
        for score in KEPT:
            found = runs[name]["against_float"][score]
            low, high = found["interval"]
            cells.append(f"{found['ratio']:.2%} ({low:.2%} to {high:.2%})")
        cells += [
            f"{runs[name]['off'][off]['mean']:.{digits}f}" for off, (_, digits) in OFF.items()
        ]
        scheme, _, method = name.partition(":")
        method, _, again = method.partition(":signs:")
        title = f"{scheme} `{method}`" + (f", signs {again}" if again else "")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return lines


SCHEME_ORDER = ("w8a8", "fp8", "w8a16", "w4a16", "w4a8", "w4a4")


def _choices(runs: dict[str, Any]) -> list[str]:
    """A row per way of choosing clips."""
    draws: dict[str, list[dict[str, Any]]] = {}
    for name, run in runs.items():
        if name != "float":
            scheme, method, choice, _ = name.split(":")
            draws.setdefault(f"{scheme} `{method}`, {choice}", []).append(run)
    titles = ["draws", *KEPT.values(), *(words for words, _ in OFF.values())]
    lines = ["| clips | " + " | ".join(titles) + " |", "|---|" + "---|" * len(titles)]
    for title, found in draws.items():
        cells = [str(len(found))]
        for score in KEPT:
            values = [one["against_float"][score]["ratio"] for one in found]
            cells.append(f"{fmean(values):.2%} ({stdev(values):.2%})")
        for off, (_, digits) in OFF.items():
            values = [one["off"][off]["mean"] for one in found]
            cells.append(f"{fmean(values):.{digits}f} ({stdev(values):.{digits}f})")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return lines


def _block_speed() -> list[str]:
    """The four linear layers of a block."""
    result = read("quantization_speed_t1.json")
    times, ratios = result["ms_median"], result["ratios"]
    layers = [*next(iter(times.values()))]
    lines = [
        f"The four linear layers of a full-size block, {result['settings']['tokens']} tokens, ms "
        "(median of turns; the machine was shared), and how many times as fast as floats:",
        "",
        "| | " + " | ".join(layers) + " | x float32 | x bfloat16 | share of the rotation |",
        "|---|" + "---|" * (len(layers) + 3),
    ]
    for way, of in times.items():
        share = ratios[way].get("rotation_share")
        cells = [f"{of[layer]:.1f}" for layer in layers]
        cells += [f"{ratios[way][name]:.2f}" for name in ("x_float32", "x_bfloat16")]
        lines.append(f"| {way} | {' | '.join(cells)} | {'' if share is None else f'{share:.0%}'} |")
    source = _source(
        "quantization_speed_t1.json", result["machine"], "benchmarks/quantization_speed.py"
    )
    return [*lines, "", source]


def _full_size() -> list[str]:
    """Files, memory and time of the full-size network."""
    result = read("quantization_full_size.json")
    ways = dict(result["ways"])
    for file in sorted(RESULTS.glob("quantization_full_size_*.json")):  # ways that were run apart
        other = read(file.name)
        clips, method = other["settings"]["calibration"], other["settings"]["method"]
        how = f", `{method}`, {clips} clips" if clips else ""
        ways |= {way + how: found for way, found in other["ways"].items()}
    height, width = result["settings"]["size"]
    titles = (
        "file, GB", "peak while made, GB", "resident, GB", "aggregator, ms / frame",
        "all, ms / frame",
    )  # fmt: skip
    lines = [
        f"`{result['settings']['preset']}` with random weights, {height} x {width}, "
        f"{result['settings']['threads']} thread. Ways ran one after the other on a shared "
        "machine: sizes are exact, times compare roughly only.",
        "",
        "| | " + " | ".join(titles) + " |",
        "|---|" + "---|" * len(titles),
    ]
    for way, found in ways.items():
        at = "loaded_" if "loaded_ms_per_frame" in found else ""
        ms = found[f"{at}ms_per_frame"]
        size = found.get("file_bytes")
        made = found["peak_bytes" if at else "peak_bytes_after_making"]
        cells = [
            "" if size is None else f"{size / 1e9:.3f}", f"{made / 1e9:.2f}",
            f"{found[f'{at}resident_bytes'] / 1e9:.2f}", f"{ms['aggregator']:,.0f}",
            f"{ms['all']:,.0f}",
        ]  # fmt: skip
        lines.append(f"| {way} | {' | '.join(cells)} |")
    source = _source(
        "quantization_full_size.json", result["machine"], "benchmarks/quantization_full_size.py"
    )
    return [*lines, "", source]


def read(name: str) -> dict[str, Any]:
    """A result file."""
    return json.loads((RESULTS / name).read_text())


def _table(titles: list[str], groups: list[dict[str, Any]]) -> list[str]:
    """A row per score, a column per group."""
    lines = ["| | " + " | ".join(titles) + " |", "|---|" + "---|" * len(titles)]
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


def _source(files: str, machine: dict[str, Any], command: str) -> str:
    return (
        f"`{command}`, {machine['processor']}, {machine['threads']} threads, torch "
        f"{machine['torch']}; [result file](https://github.com/everview/everview/tree/main/"
        f"benchmarks/results): `{files}`."
    )


def _replace(path: Path, text: str, *, is_check: bool) -> bool:
    """Put the text between the marks; returns whether that changes the file."""
    old = path.read_text()
    head, _, rest = old.partition(BEGIN)
    _, _, tail = rest.partition(END)
    new = f"{head}{BEGIN}\n{text}{END}{tail}"
    if new != old and not is_check:
        path.write_text(new)
    return new != old


if __name__ == "__main__":
    sys.exit(main())
