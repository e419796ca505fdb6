"""Tables of the page on quantization: accuracy, rivals, speed, sizes."""

from statistics import fmean, stdev
from typing import Any

from everview.evaluation.summaries import statistics_of
from results import RESULTS, bundled, head, read, source

COPIES = {
    "outliers": "unequal channels and large special tokens",
    "tokens": "large special tokens alone",
    "channels": "unequal channels alone",
}
RIVALS = ("quarot", "scale", "smoothquant", "quantvggt-initial", "nearest")
KEPT = {"auc30": "AUC@30 kept", "delta1": "depth within 1.25 kept"}
OFF = {
    "depth_off": ("depth off", 4), "rotation_off_degrees": ("rotation off, degrees", 3),
    "translation_off": ("translation off", 3),
}  # fmt: skip
SCHEME_ORDER = ("w8a8", "fp8", "w8a16", "w4a16", "w4a8", "w4a4")


def quantization() -> str:
    """Accuracy of quantized networks, and their speed."""
    result = read("quantization_methods.json")
    settings = result["settings"]
    sampling = read("quantization_sampling.json")
    newer = read("quantization_bundled.json")
    lines = [
        f"{bundled(result)}, held-out procedural clips of {settings['frames']} frames, "
        f"{settings['calibration_clips']} calibration clips. Shares of what the float network "
        "reaches, with 95 % intervals of the paired ratio; the three columns on the right are "
        "distances from what the float network says, which tell methods apart where scores do not.",
        "",
        *_quantized(result["runs"]),
        "",
        source(
            "quantization_methods.json", result["machine"], "benchmarks/quantization_accuracy.py"
        ),
        "",
        f"{bundled(newer)}, the same for the schemes of the gates and plain rounding:",
        "",
        *_quantized(newer["runs"]),
        "",
        source(
            "quantization_bundled.json", newer["machine"], "benchmarks/quantization_accuracy.py"
        ),
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


def _quantized(runs: dict[str, Any]) -> list[str]:
    """A row per scheme and method."""
    titles = ["clips", *KEPT.values(), *(words for words, _ in OFF.values())]
    lines = head("scheme, method", *titles)
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


def _choices(runs: dict[str, Any]) -> list[str]:
    """A row per way of choosing clips."""
    draws: dict[str, list[dict[str, Any]]] = {}
    for name, run in runs.items():
        if name != "float":
            scheme, method, choice, _ = name.split(":")
            draws.setdefault(f"{scheme} `{method}`, {choice}", []).append(run)
    titles = ["draws", *KEPT.values(), *(words for words, _ in OFF.values())]
    lines = head("clips", *titles)
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
    line = source("latency_mini_key_diversity*.json", machine, "everview bench latency")
    return [*lines, "", line]


def _block_speed() -> list[str]:
    """The four linear layers of a block."""
    result = read("quantization_speed_t1.json")
    times, ratios = result["ms_median"], result["ratios"]
    layers = [*next(iter(times.values()))]
    lines = [
        f"The four linear layers of a full-size block, {result['settings']['tokens']} tokens, ms "
        "(median of turns; the machine was shared), and how many times as fast as floats:",
        "",
        *head("", *layers, "x float32", "x bfloat16", "share of the rotation"),
    ]
    for way, of in times.items():
        share = ratios[way].get("rotation_share")
        cells = [f"{of[layer]:.1f}" for layer in layers]
        cells += [f"{ratios[way][name]:.2f}" for name in ("x_float32", "x_bfloat16")]
        lines.append(f"| {way} | {' | '.join(cells)} | {'' if share is None else f'{share:.0%}'} |")
    line = source(
        "quantization_speed_t1.json", result["machine"], "benchmarks/quantization_speed.py"
    )
    return [*lines, "", line]


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
        *head("", *titles),
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
    line = source(
        "quantization_full_size.json", result["machine"], "benchmarks/quantization_full_size.py"
    )
    return [*lines, "", line]
