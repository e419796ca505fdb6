"""Plots of a report as SVG; equal data give equal bytes."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from everview.errors import MissingExtraError
from everview.evaluation.reports.blocks import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INSTALL = 'pip install "everview[eval]"'
OURS, OTHERS, SOFT = "#1b7f4b", "#8795a3", "#5b6875"
LINES = ("#1b7f4b", "#2f6db5", "#c4622d", "#8a4fa3", "#b59a1d", "#4aa3a2", "#a33c4c", "#555f6a")
NAMED = 10
"""Curves of a plot above which none of them is named."""
STYLE = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": SOFT,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "grid.color": "#dde3e9",
}
Line = tuple[str, Sequence[float], Sequence[float]]
"""Label, x, y."""


def beside_published(
    name: str, score: str, rows: Sequence[tuple[str, float, bool]], *, is_higher_better: bool
) -> Figure:
    """One score of all methods of a table, the best on top.

    Args:
        name: of the figure.
        score: for the axis.
        rows: method, value, whether it is ours.
        is_higher_better: which end is the best.
    """
    ordered = sorted(rows, key=lambda row: row[1], reverse=not is_higher_better)
    end = "higher" if is_higher_better else "lower"

    def draw(axes: "Axes") -> None:
        values = [value for _, value, _ in ordered]
        colours = [OURS if is_ours else OTHERS for _, _, is_ours in ordered]
        axes.hlines(range(len(values)), 0, values, colors=colours, linewidth=1.5)
        axes.scatter(values, range(len(values)), c=colours, s=26, zorder=3)
        axes.set_yticks(range(len(values)), [method for method, _, _ in ordered])
        for label, (_, _, is_ours) in zip(axes.get_yticklabels(), ordered, strict=True):
            label.set_color(OURS if is_ours else "black")
            label.set_fontweight("bold" if is_ours else "normal")
        axes.set_xlim(left=0)
        axes.set_xlabel(f"{score} ({end} is better)")
        axes.grid(visible=True, axis="x")

    caption = f"{score}, {end} is better; green: measured here, grey: as published."
    return _figure(name, draw, (7.2, 0.9 + 0.22 * len(rows)), caption)


def clip_scores(
    name: str, score: str, values: Mapping[str, float], *, is_higher_better: bool, mean: float
) -> Figure:
    """One score of every clip, from best to worst."""
    ordered = sorted(values.values(), reverse=is_higher_better)

    def draw(axes: "Axes") -> None:
        axes.scatter(range(1, len(ordered) + 1), ordered, s=14, color=OURS, zorder=3)
        axes.axhline(mean, color=SOFT, linewidth=1, linestyle="--")
        step = -(-len(ordered) // 12)
        axes.set_xticks(range(1, len(ordered) + 1, step))
        axes.set_xlabel("clips, from best to worst")
        axes.set_ylabel(score)
        axes.set_ylim(bottom=min(0.0, *ordered))
        axes.grid(visible=True, axis="y")

    return _figure(name, draw, (7.2, 2.6), f"{score} of every clip; dashed: the stated mean.")


def lines(
    name: str,
    data: Sequence[Line],
    *,
    x: str,
    y: str,
    caption: str,
    log: bool = False,
    dots: Sequence[Line] = (),
) -> Figure:
    """Curves over a common axis.

    Args:
        name: of the figure.
        data: curves.
        x: words for the axis.
        y: words for the axis.
        caption: of the figure.
        log: logarithmic y.
        dots: points without a line between them.
    """

    def draw(axes: "Axes") -> None:
        for i, (label, xs, ys) in enumerate(data):
            axes.plot(xs, ys, color=LINES[i % len(LINES)], linewidth=1.4, label=label)
        for i, (label, xs, ys) in enumerate(dots):
            colour = LINES[(len(data) + i) % len(LINES)]
            axes.plot(xs, ys, "o", color=colour, markersize=4, label=label)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        if log:
            axes.set_yscale("log")
        axes.grid(visible=True)
        if 1 < len(data) + len(dots) <= NAMED:
            axes.legend(frameon=False, fontsize=8)

    return _figure(name, draw, (7.2, 3.2), caption)


def reliability(name: str, data: Sequence[Line], caption: str) -> Figure:
    """Error by confidence, over bins of equally many pixels.

    Args:
        name: of the figure.
        data: label, mean confidence and mean error of each bin, least confident first.
        caption: of the figure.
    """

    def draw(axes: "Axes") -> None:
        for i, (label, confidence, error) in enumerate(data):
            at = [100 * (n + 0.5) / len(error) for n in range(len(error))]
            words = f"{label} ({confidence[0]:.4g} to {confidence[-1]:.4g})"
            axes.plot(at, error, "o-", color=LINES[i % len(LINES)], markersize=3.5, label=words)
        axes.set_xlabel("pixels from least to most confident, %")
        axes.set_ylabel("mean error")
        axes.set_xlim(0, 100)
        axes.set_ylim(bottom=0)
        axes.grid(visible=True)
        if len(data) <= NAMED:
            axes.legend(frameon=False, fontsize=8)

    return _figure(name, draw, (7.2, 3.2), caption)


def paths(name: str, data: Sequence[Line], caption: str) -> Figure:
    """Paths of cameras from above, equal units."""

    def draw(axes: "Axes") -> None:
        for (label, xs, ys), colour in zip(data, (SOFT, OURS), strict=False):
            axes.plot(xs, ys, color=colour, linewidth=1.5, label=label)
            axes.plot(xs[:1], ys[:1], "o", color=colour, markersize=4)
        axes.set_aspect("equal", adjustable="datalim")
        axes.grid(visible=True)
        axes.legend(frameon=False, fontsize=8)

    return _figure(name, draw, (5.4, 3.4), caption)


def _figure(
    name: str, draw: "Callable[[Axes], None]", size: tuple[float, float], caption: str
) -> Figure:
    """Run a drawing and keep it as SVG.

    Raises:
        MissingExtraError: if matplotlib is not installed.
    """
    with _style(name):
        from matplotlib.figure import Figure as Canvas

        canvas = Canvas(figsize=size, layout="constrained")
        draw(canvas.add_subplot())
        written = io.BytesIO()
        canvas.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return Figure(name=name, data=written.getvalue(), kind="svg", caption=caption)


@contextmanager
def _style(salt: str) -> Iterator[Any]:
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingExtraError(f"plots of a report need matplotlib: {INSTALL}") from error
    settings: Any = STYLE | {"svg.hashsalt": salt}
    with mpl.rc_context(settings):
        yield mpl
