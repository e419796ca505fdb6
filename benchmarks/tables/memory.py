"""Tables of the page on memory: leagues of policies, endless streams, cost."""

from statistics import fmean, stdev
from typing import Any

from scipy.stats import t as student

from results import bundled, head, read, source

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
        f"{bundled(result)}, {walks} sequence{'s' * (walks > 1)} of "
        f"{' or '.join(map(str, frames))} frames; mean, in brackets its standard error. Against a "
        "camera that never moves: ATE over what that one has, which is the most that an alignment "
        "by Sim(3) leaves.",
        "",
        *head("policy", "against one that never moves", *(words for words, _ in shown.values())),
    ]
    by_walk = _over_still(result)
    for policy, scores in sorted(result["summary"].items(), key=_league_order):
        cells = [_league_cell(result, policy, scores, name) for name in shown]
        lines.append(f"| `{policy}` | {fmean(by_walk[policy]):.2f} | " + " | ".join(cells) + " |")
    lines += ["", source(file, result["machine"], "benchmarks/memory_policies.py")]
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
        *head("policy", "walks", *(f"`{name}`" for name in OURS)),
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
    lines += ["", source(file, result["machine"], "benchmarks/memory_policies.py")]
    return "\n".join(lines) + "\n"


def _bits(file: str) -> str:
    """What few bits change."""
    result = read(file)
    scores = {"ate_share": "ATE / path", "abs_rel": "AbsRel, scale per frame",
              "abs_rel_stream": "AbsRel, scale per stream"}  # fmt: skip
    against_16 = ("ate_share", "abs_rel")
    tables = {name: _by_walk(result, name) for name in scores}
    lines = [
        f"### Few bits, at equal tokens: {bundled(result)}, {_seen(result)}",
        "",
        "Change against the network's own numbers (float32), then against `bits=16` where that was "
        "run, of the mean over walks; in brackets the 95 % interval (Student's t).",
        "",
        *head(
            "policy",
            "walks",
            *scores.values(),
            *(f"{scores[name]}, to 16 bits" for name in against_16),
        ),
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
    lines += ["", source(file, result["machine"], "benchmarks/memory_policies.py")]
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
        *head("times the range", "beyond", "saturation", "rounding, 8 bits", "rounding, 4 bits"),
    ]
    for row in result["rows"]:
        beyond = " (".join(f"{100 * row['beyond'][of]:.2f} %" for of in ("mean", "worst"))
        errors = [row["saturation"], row["rounding"]["8"], row["rounding"]["4"]]
        cells = [f"{error['mean']:.3f} ({error['worst']:.3f})" for error in errors]
        lines.append(f"| {row['room']:g} | {beyond}) | " + " | ".join(cells) + " |")
    lines += ["", source("key_range.json", result["machine"], "benchmarks/key_range.py")]
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
    lines += ["", source("endless.json", result["machine"], "benchmarks/endless.py")]
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
        sources.append(source(file, result["machine"], command))
        lines += [
            f"| `{result['model']}`, {row['frames']} frames | `{row['policy']}` | "
            f"{row['update_share']:+.0%} | {row['speed_up']:.2f} x |"
            for row in result["rows"]
        ]
    return "\n".join([*lines, "", *sources]) + "\n"
