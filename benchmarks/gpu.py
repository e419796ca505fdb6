"""Everything that wants a GPU, as one command: the GPU tests, then speed of layers and networks.

python benchmarks/gpu.py    writes benchmarks/results/*_cuda.json: latency, memory, captured steps,
                            linear layers of a block in int8, 4 bits and fp8, rendering
"""

import json
import subprocess
import sys
from pathlib import Path

import torch

from everview.evaluation.captured_speed import measure_captured
from everview.model.network import Network, build
from everview.model.presets import presets
from everview.weights.load import load

EVERVIEW = "from everview.cli.main import script; script()"
RESULTS = Path(__file__).resolve().parent / "results"
CASES = {
    "mini": ["--model", "mini", "--frames", "100"],
    "streamvggt-1b": ["--model", "streamvggt-1b", "--size", "392", "518", "--frames", "60"],
}
SIZES = {"mini": (98, 140), "streamvggt-1b": (392, 518)}
"""Of frames whose steps are captured, in pixels."""
POLICIES = ("anchor_window", "key_diversity", "late_merge", "key_diversity:bits=8")


def main() -> int:
    """Return the first exit code that is not 0."""
    if not torch.cuda.is_available():
        print("no CUDA device: nothing to measure", file=sys.stderr)
        return 4
    codes = [_run("import pytest, sys; sys.exit(pytest.main())", "-m", "gpu")]
    codes.append(_script("quantization_speed.py", "--repeats", "50"))
    codes.append(_script("world_speed.py", "-o", str(RESULTS / "world_speed_cuda.json")))
    for name, options in CASES.items():
        for precision in ("float32", "bfloat16"):
            out = RESULTS / f"latency_{name}_{precision}_cuda.json"
            where = ["--device", "cuda", "--precision", precision, "-o", str(out)]
            codes.append(_run(EVERVIEW, "bench", "latency", *options, *where))
        out = RESULTS / f"memory_speed_{name}_cuda.json"
        where = ["--device", "cuda", "-o", str(out)]
        codes.append(_run(EVERVIEW, "bench", "memory", *options[:2], "--past", "8", "50", *where))
    _write_captured(RESULTS / "captured_steps_cuda.json")
    return next((code for code in codes if code), 0)


def _write_captured(out: Path) -> None:
    """Steps taken against steps replayed from a CUDA graph."""
    rows = []
    for name, size in SIZES.items():
        network = _network(name)
        for policy in POLICIES:
            rows.append({"model": name, **measure_captured(network, size, policy=policy)})
            seconds = rows[-1]["seconds"]
            taken, replayed = (1000 * seconds[kind] for kind in ("taken", "replayed"))
            print(f"{name} {policy}: {taken:.2f} ms taken, {replayed:.2f} ms replayed")
    out.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


def _network(name: str) -> Network:
    """The bundled model, or one of full size with random weights; in bfloat16."""
    if name == "mini":
        return load(name, device="cuda", precision="bfloat16")
    return build(presets[name], seed=0).to("cuda").set_precision(torch.bfloat16)


def _script(name: str, *options: str) -> int:
    script = Path(__file__).with_name(name)
    return subprocess.call([sys.executable, "-P", script, "--device", "cuda", *options])


def _run(code: str, *arguments: str) -> int:
    return subprocess.call([sys.executable, "-c", code, *arguments])


if __name__ == "__main__":
    sys.exit(main())
