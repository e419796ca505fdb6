"""Tables of speed: streams, offline networks, the procedural world."""

from results import head, read, source


def speed() -> str:
    """Seconds per frame of the bundled model and of the full size."""
    names = ("mini", "streamvggt-1b_float32", "streamvggt-1b_bfloat16")
    results = [read(f"latency_{name}.json") for name in names]
    lines = [
        *head(
            "model", "precision", "size", "past frames", "s / frame", "frames / s", "share of peak"
        ),
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
        + source("latency_*.json", results[0]["machine"], "everview bench latency"),
    ]
    return "\n".join(lines) + "\n"


def world() -> str:
    """Speed of the procedural world."""
    result = read("world_speed.json")
    lines = head("procedural world", "frames / s")
    for case in result["sizes"]:
        height, width = case["size"]
        lines.append(f"| {height} x {width} | {case['frames_per_second']:.0f} |")
    lines += ["", source("world_speed.json", result["machine"], "benchmarks/world_speed.py")]
    return "\n".join(lines) + "\n"


def scaling() -> str:
    """Seconds for the newest frame, streaming and offline."""
    result = read("latency_scaling.json")
    lines = [
        *head(
            "frames so far", "one step of a stream, s", "offline network on all frames, s", "ratio"
        ),
    ]
    for n, seconds in result["offline_seconds"].items():
        newest = result["streaming_seconds"][int(n) - 1]
        lines.append(f"| {n} | {newest:.3f} | {seconds:.2f} | {result['ratio'][n]:.1f} |")
    lines += [
        "",
        f"`{result['model']}`, {result['precision']}. "
        + source("latency_scaling.json", result["machine"], "benchmarks/latency_scaling.py"),
    ]
    return "\n".join(lines) + "\n"
