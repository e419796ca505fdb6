"""Tables of `everview eval`: the model beside guesses, and beside a teacher where there is one."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def print_procedural(console: "Console", result: dict[str, Any]) -> None:
    """One table per speed and length."""
    settings = result["settings"]
    height, width = settings["size"]
    console.print(
        f"{settings['clips']} clips of {height} x {width} per group, {settings['mode']}; memory "
        f"{settings['memory']}; mean over clips ± standard error"
    )
    for group in result["groups"]:
        print_group(console, f"speed {group['speed']:g}, {group['frames']} frames", group)
    print_meanings(console, result)


def print_recording(console: "Console", result: dict[str, Any]) -> None:
    """One table per sequence and length of windows."""
    settings = result["settings"]
    console.print(
        f"windows of consecutive frames, one every {settings['stride']}, {settings['mode']}; mean "
        f"over windows ± standard error; classical baseline: {result['classical_baseline']}",
        markup=False,
    )
    for sequence in result["sequences"]:
        for group in sequence["groups"]:
            title = f"{sequence['name']}, {len(group['clips'])} windows of {group['frames']} frames"
            print_group(console, title, group)
        floor = sequence["noise_floor"]
        for remark in [*sequence["remarks"], *([floor] if floor else [])]:
            console.print(f"{sequence['name']}: {remark}", markup=False)
    print_meanings(console, result)


def print_group(console: "Console", title: str, group: dict[str, Any]) -> None:
    """Every score of one group of clips."""
    from rich.table import Table

    has_teacher = any("teacher" in score for score in group["scores"].values())
    table = Table(title=title, header_style="bold", title_justify="left")
    table.add_column("score")
    teacher = ("teacher", "model / teacher") if has_teacher else ()
    for column in ("model", *teacher, "best guess", "model / guess", "model better in"):
        table.add_column(column, justify="right")
    table.add_column("which guess")
    for name, score in group["scores"].items():
        table.add_row(*_row(name, score, has_teacher=has_teacher))
    console.print(table)


def print_meanings(console: "Console", result: dict[str, Any]) -> None:
    """What each score means."""
    for name, meaning in result["metrics"].items():
        console.print(f"{name}: {meaning}", markup=False)


def _row(name: str, score: dict[str, Any], *, has_teacher: bool) -> list[str]:
    guess = _best_guess(name, score["baselines"])
    facts = score["baselines"].get(guess, {})
    teacher = score.get("teacher", {})
    better = facts.get("better_in")
    return [
        name,
        _mean(score),
        *([_mean(teacher), _ratio(teacher)] if has_teacher else []),
        _mean(facts),
        _ratio(facts),
        "-" if better is None else f"{better:.0%}",
        guess.replace("_", " "),
    ]


def _best_guess(score: str, baselines: dict[str, dict[str, Any]]) -> str:
    """The strongest of the guesses that look at no image."""
    from everview.evaluation.recording import CLASSICAL
    from everview.evaluation.sequence_scores import HIGHER_IS_BETTER

    sign = -1 if score in HIGHER_IS_BETTER else 1
    blind = [name for name in baselines if name != CLASSICAL]
    return min(
        blind, key=lambda guess: sign * baselines[guess].get("mean", sign * float("inf")),
        default="-",
    )  # fmt: skip


def _ratio(facts: dict[str, Any]) -> str:
    ratio = facts.get("ratio")
    return "-" if ratio is None else f"{ratio['value']:.2f}"


def _mean(facts: dict[str, Any]) -> str:
    error = facts.get("standard_error")
    return _number(facts.get("mean")) + ("" if error is None else f" ± {error:.2g}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
