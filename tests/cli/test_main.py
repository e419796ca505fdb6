import subprocess
import sys
from dataclasses import dataclass

import pytest

import everview
from everview.cli import main as entry
from everview.cli.main import VERBS, main
from everview.errors import InputError, MissingExtraError, NotEnoughMemoryError


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb, capsys):
    assert main([verb, "--help"]) == 0
    captured = capsys.readouterr()
    assert f"usage: everview {verb}" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_without_a_verb_all_are_listed(arguments, capsys):
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert all(f"• {verb}" in out for verb in VERBS)


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"everview {everview.__version__}\n"


def test_help_does_not_load_torch():
    code = (
        "import sys; from everview.cli.main import main; main(['run', '--help']); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'zarr', 'av', 'scipy')))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], "Missing from everview run: SOURCE"),
        (["run", "a.mp4", "--evry", "3"], "Unrecognized options: --evry"),
        (["run", "a.mp4", "--every", "x"], "Error parsing --every"),
        (["rnu", "a.mp4"], "Available subcommands: run"),
        (["run", "a.mp4", "--progress", "loud"], "invalid choice 'loud'"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(arguments, words, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("everview: error: ")
    assert captured.err.count("\n") == 1
    assert words in captured.err
    assert "│" not in captured.err


@pytest.mark.parametrize("verb", ["view", "export", "batch", "serve"])
def test_a_verb_of_a_later_version_is_known_as_such(verb, capsys):
    assert main([verb, "something", "--to", "ply"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    version = everview.__version__
    assert captured.err.startswith(f"everview: error: {verb} is not part of this version {version}")
    assert all(f"{known}" in captured.err for known in VERBS)


@pytest.fixture
def failing(monkeypatch):
    """A verb that raises what it is told."""

    def failing(error):
        @dataclass
        class Fail:
            """Fail."""

            def run(self):
                raise error

        monkeypatch.setattr(entry, "VERBS", {"fail": (__name__, "Fail"), "other": (__name__, "B")})
        monkeypatch.setattr(entry, "import_module", lambda _: _Module)
        _Module.Fail, _Module.B = Fail, Fail

    return failing


class _Module:
    """Stands for a module."""


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("a.mp4 is torn\nat byte 3"), 3, "a.mp4 is torn at byte 3"),
        (NotEnoughMemoryError("too big"), 4, "too big"),
        (MissingExtraError("pip install x"), 4, "pip install x"),
        (KeyboardInterrupt(), 130, "stopped by the user"),
        (
            ZeroDivisionError("oops"), 1,
            "ZeroDivisionError: oops (unexpected; add --debug for the traceback)",
        ),
    ],
)  # fmt: skip
def test_errors_are_one_line_on_stderr_and_an_exit_code(failing, capsys, error, code, line):
    failing(error)
    assert main(["fail"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"everview: error: {line}\n"


def test_debug_shows_the_traceback_wherever_it_stands(failing, capsys):
    failing(InputError("bad"))
    for arguments in (["--debug", "fail"], ["fail", "--debug"]):
        assert main(arguments) == 3
        assert "Traceback (most recent call last)" in capsys.readouterr().err
