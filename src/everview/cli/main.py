"""The command `everview`: picks the verb and turns errors into one line and an exit code."""

import inspect
import io
import re
import sys
import traceback
from contextlib import redirect_stderr
from importlib import import_module
from typing import Annotated, Any, Union

import tyro

from everview.errors import EverviewError

VERBS = {
    "run": ("everview.cli.run", "Run"),
    "demo": ("everview.cli.demo", "Demo"),
    "models": ("everview.cli.models", "Models"),
    "doctor": ("everview.cli.doctor", "Doctor"),
    "bench": ("everview.cli.bench", "Bench"),
    "eval": ("everview.cli.evaluate", "Eval"),
    "train": ("everview.cli.train", "Train"),
    "distill": ("everview.cli.distill", "Distill"),
    "world": ("everview.cli.world", "World"),
    "plan": ("everview.cli.plan", "Plan"),
    "data": ("everview.cli.data", "Data"),
    "quantize": ("everview.cli.quantize", "Quantize"),
}
"""Verb -> module and dataclass. The modules import torch only when they run."""

SUBVERBS = {
    ("eval", "list"): ("everview.cli.evaluate", "EvalList"),
    ("eval", "compare"): ("everview.cli.evaluate_compare", "EvalCompare"),
    ("eval", "report"): ("everview.cli.evaluate_report", "EvalReport"),
}
"""Two words -> module and dataclass, for what has options of its own."""

LATER = ("view", "export", "batch", "serve")
"""Verbs that are planned; whoever read of one shall not think it was mistyped."""

UNEXPECTED = 1
STOPPED = 130

DESCRIPTION = (
    "Streaming 4D visual geometry: any video in; poses, depth, points and tracks out, frame by "
    "frame. With --debug errors come with a traceback; --version tells the version."
)


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code (0 done, 2 wrong call, 3 input, 4 memory, 130 stop).

    Args:
        argv: what stands behind `everview`; `sys.argv` if None.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    is_debugging = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if arguments == ["--version"]:
        return _print_version()
    try:
        command = _parse(arguments)
        return 0 if command is None else int(command.run())
    except KeyboardInterrupt:
        _complain("stopped by the user", is_debugging=is_debugging)
        return STOPPED
    except EverviewError as error:
        _complain(str(error), is_debugging=is_debugging)
        return error.exit_code
    except BrokenPipeError:  # whoever read our output has gone
        sys.stdout = io.TextIOWrapper(io.BytesIO())
        return UNEXPECTED
    except Exception as error:  # noqa: BLE001  -- no traceback reaches a user
        text = f"{type(error).__name__}: {error} (unexpected; add --debug for the traceback)"
        _complain(text, is_debugging=is_debugging)
        return UNEXPECTED


def script() -> None:
    """Entry point of the installed command."""
    sys.exit(main())


def _parse(arguments: list[str]) -> Any:  # noqa: ANN401  -- one of the dataclasses of VERBS
    """The verb with its options; None after `--help`."""
    if arguments and arguments[0] in LATER:
        raise WrongCallError(_not_yet(arguments[0]))
    if tuple(arguments[:2]) in SUBVERBS:
        module, name = SUBVERBS[(arguments[0], arguments[1])]
        kind = getattr(import_module(module), name)
        return _parsed(
            kind, arguments[2:], prog=f"everview {arguments[0]} {arguments[1]}",
            description=inspect.cleandoc(kind.__doc__ or ""),
        )  # fmt: skip
    verbs = {verb: getattr(import_module(module), name) for verb, (module, name) in VERBS.items()}
    commands = [
        Annotated[kind, tyro.conf.subcommand(verb, description=_description(kind, arguments))]
        for verb, kind in verbs.items()
    ]
    union: Any = Union[tuple(commands)]  # noqa: UP007  -- made at run time
    return _parsed(union, arguments or ["--help"], prog="everview", description=DESCRIPTION)


def _parsed(kind: Any, arguments: list[str], *, prog: str, description: str) -> Any:  # noqa: ANN401
    """A dataclass filled from words; None after `--help`."""
    caught = io.StringIO()
    try:
        with redirect_stderr(caught):
            return tyro.cli(kind, prog=prog, description=description, args=arguments)
    except SystemExit as end:
        if not end.code:
            return None
        raise WrongCallError(_one_line(caught.getvalue())) from None


def _description(kind: type, arguments: list[str]) -> str:
    """The whole docstring in the verb's own help, its first paragraph in the list of verbs."""
    text = inspect.cleandoc(kind.__doc__ or "")
    is_list = not arguments or arguments[0] in ("-h", "--help")
    return " ".join(text.split("\n\n")[0].split()) if is_list else text


class WrongCallError(EverviewError):
    """The command line cannot be understood (exit code 2)."""


def _one_line(boxed: str) -> str:
    """The text of a message that was laid out in a box, its paragraphs joined by semicolons."""
    lines = [line.strip("│ \n") for line in boxed.splitlines()]
    lines = [line for line in lines if line and not line.startswith("╭") and line[0] != "╰"]
    paragraphs = re.split(r"\s*─{3,}\s*", " ".join(lines))
    return "; ".join(re.sub(r"\s+", " ", text).strip() for text in paragraphs if text.strip())


def _complain(text: str, *, is_debugging: bool) -> None:
    if is_debugging:
        traceback.print_exc()
    line = re.sub(r"\s*\n\s*", " ", text)
    print(f"everview: error: {line}", file=sys.stderr)


def _not_yet(verb: str) -> str:
    from everview import __version__

    return (
        f"{verb} is not part of this version {__version__}, which has {', '.join(VERBS)}; "
        "see `everview --help`"
    )


def _print_version() -> int:
    from everview import __version__

    print(f"everview {__version__}")
    return 0
