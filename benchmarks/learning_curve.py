"""Draw what a training run said: every term of its loss over the minutes, smoothed and not.

python -P benchmarks/learning_curve.py [LOG ...] [-o IMAGE]

LOG is what `everview train` printed; several are runs that followed one another (default: the last
two of the bundled model). Terms that fell by more over the last quarter than they scatter there
were still being learnt.
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
LOGS = [RESULTS / "mini_v7_run18.log", RESULTS / "mini_v8_run19.log"]
IMAGE = ROOT / "docs" / "images" / "learning_curve.png"
LINE = re.compile(r"step (\d+)\s+([\d.]+) min .*?\s(rate .*)")
TERM = re.compile(r"([a-z_]+/[a-z_]+) ([-\d.e+]+)")
COLUMNS = 5
WINDOW = 5
"""Lines of the log that a smoothed value is the mean of."""


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("logs", type=Path, nargs="*", default=LOGS)
    parser.add_argument("-o", "--out", type=Path, default=IMAGE)
    options = parser.parse_args()
    curves = read(options.logs)
    _draw(curves, options.out)
    for term, (minutes, values) in curves.items():
        late = minutes > 0.75 * minutes[-1]
        slope, error = fall(minutes[late], values[late])
        print(f"{term:24s} {values[-WINDOW:].mean():8.4f}  last quarter, share of it per minute: "
              f"{slope:+.3f} (standard error {error:.3f})")  # fmt: skip
    return 0


def read(logs: list[Path]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Term -> minutes since the first run began, and values."""
    found: dict[str, list[tuple[float, float]]] = {}
    before = 0.0
    for log in logs:
        steps = [parts for line in log.read_text().splitlines() if (parts := LINE.match(line))]
        if not steps:
            sys.exit(f"{log} has no line of steps: give what `everview train` printed")
        for parts in steps:
            for term, value in TERM.findall(parts[3]):
                found.setdefault(term, []).append((before + float(parts[2]), float(value)))
        before += float(steps[-1][2])
    return {term: (m, v) for term, points in found.items() for m, v in [np.array(points).T]}


def fall(minutes: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Slope of a line through the values over their mean, and its standard error."""
    (slope, _), covariance = np.polyfit(minutes, values, 1, cov=True)
    return slope / values.mean(), covariance[0, 0] ** 0.5 / values.mean()


def _draw(curves: dict[str, tuple[np.ndarray, np.ndarray]], out: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = -(-len(curves) // COLUMNS)
    figure, axes = plt.subplots(
        rows, COLUMNS, figsize=(3 * COLUMNS, 2.5 * rows), constrained_layout=True, squeeze=False
    )
    for axis in axes.flat[len(curves) :]:
        axis.set_axis_off()
    for axis, (term, (minutes, values)) in zip(axes.flat, curves.items(), strict=False):
        axis.plot(minutes, values, alpha=0.3)
        axis.plot(_smooth(minutes), _smooth(values), color="C0")
        axis.set(title=term, xlabel="minutes", yscale="log" if values.min() > 0 else "linear")
        axis.grid(visible=True, alpha=0.3)
    figure.savefig(out, dpi=90)


def _smooth(values: np.ndarray) -> np.ndarray:
    return np.convolve(values, np.full(WINDOW, 1 / WINDOW), mode="valid")


if __name__ == "__main__":
    sys.exit(main())
