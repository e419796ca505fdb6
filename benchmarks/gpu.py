"""Everything that wants a GPU, as one command: the GPU tests, then speed of layers and networks.

python benchmarks/gpu.py    writes benchmarks/results/latency_*_cuda.json and, for the linear layers
                            of a block in int8, 4 bits and fp8, quantization_speed_cuda.json
"""

import subprocess
import sys
from pathlib import Path

import torch

EVERVIEW = "from everview.cli.main import script; script()"
RESULTS = Path(__file__).resolve().parent / "results"
CASES = {
    "mini": ["--model", "mini", "--frames", "100"],
    "streamvggt-1b": ["--model", "streamvggt-1b", "--size", "392", "518", "--frames", "60"],
}


def main() -> int:
    """Return the first exit code that is not 0."""
    if not torch.cuda.is_available():
        print("no CUDA device: nothing to measure", file=sys.stderr)
        return 4
    codes = [_run("import pytest, sys; sys.exit(pytest.main())", "-m", "gpu")]
    codes.append(_quantized_layers())
    for name, options in CASES.items():
        for precision in ("float32", "bfloat16"):
            out = RESULTS / f"latency_{name}_{precision}_cuda.json"
            where = ["--device", "cuda", "--precision", precision, "-o", str(out)]
            codes.append(_run(EVERVIEW, "bench", "latency", *options, *where))
    return next((code for code in codes if code), 0)


def _quantized_layers() -> int:
    script = Path(__file__).with_name("quantization_speed.py")
    return subprocess.call([sys.executable, "-P", script, "--device", "cuda", "--repeats", "50"])


def _run(code: str, *arguments: str) -> int:
    return subprocess.call([sys.executable, "-c", code, *arguments])


if __name__ == "__main__":
    sys.exit(main())
