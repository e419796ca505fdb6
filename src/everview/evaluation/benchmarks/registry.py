"""Every benchmark by its name."""

from difflib import get_close_matches

from everview.errors import ConfigError
from everview.evaluation.benchmarks import (
    bonn,
    co3d,
    dtu,
    eth3d,
    kitti,
    long3d,
    longworld,
    nrgbd,
    nyu,
    scannet,
    seven_scenes,
    sintel,
    tum,
)
from everview.evaluation.benchmarks.clip import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        seven_scenes.BENCHMARK,
        nrgbd.BENCHMARK,
        eth3d.BENCHMARK,
        dtu.BENCHMARK,
        sintel.DEPTH,
        bonn.DEPTH,
        kitti.DEPTH,
        nyu.BENCHMARK,
        sintel.VIDEO,
        bonn.VIDEO,
        kitti.VIDEO,
        co3d.BENCHMARK,
        sintel.TRAJECTORY,
        tum.BENCHMARK,
        scannet.BENCHMARK,
        long3d.BENCHMARK,
        longworld.BENCHMARK,
        longworld.LONGER,
    )
}
"""Name -> benchmark, in the order of `everview eval list`."""
OTHERS = ("procedural", "recording")
"""Names with a runner of their own, which writes groups beside trivial guesses."""


def benchmark_named(name: str) -> Benchmark:
    """The benchmark of a name.

    Raises:
        ConfigError: if it is unknown; names the nearest and lists the known ones.
    """
    if name not in BENCHMARKS:
        known = (*OTHERS, *BENCHMARKS)
        near = get_close_matches(name.lower(), known, n=1)
        hint = f": did you mean {near[0]}?" if near else ";"
        raise ConfigError(f"benchmark {name!r} is unknown{hint} known: {', '.join(known)}")
    return BENCHMARKS[name]
