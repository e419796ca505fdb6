"""Score a model on the four real sequences and write benchmarks/results/real_footage.json.

python -P benchmarks/real_footage.py [--model mini] [--teacher MODEL] [--data DIR] [-o FILE]

The same as `everview eval recording --data DIR/hololens_office DIR/kinect_kitchen ...`.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from everview.evaluation import two_view
from everview.evaluation.recording import RecordingSettings, evaluate_recording
from everview.weights.load import load

ROOT = Path(__file__).resolve().parents[1]
SEQUENCES = ("hololens_office", "kinect_kitchen", "fox", "kitti_street")


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--teacher")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "-o", "--out", type=Path, default=ROOT / "benchmarks" / "results" / "real_footage.json"
    )
    options = parser.parse_args()
    if not two_view.is_available():
        parser.error(f"the table has a classical baseline, which needs OpenCV: {two_view.INSTALL}")
    torch.set_num_threads(options.threads)
    result = evaluate_recording(
        load(options.model),
        RecordingSettings(data=tuple(options.data / name for name in SEQUENCES)),
        teacher=load(options.teacher) if options.teacher else None,
        progress=lambda doing: print(f"\r{doing:70}", end="", flush=True, file=sys.stderr),
    )
    options.out.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    print(f"\n{options.out}: {result['seconds']} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
