"""The wheel, and an environment that holds it with its core dependencies and nothing else."""

import re
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PACKAGES = Path(sysconfig.get_path("purelib"))


def core_distributions() -> dict[str, Distribution]:
    """What `pip install everview` brings, by normalised name: no extra of everview."""
    found: dict[tuple[str, str], Distribution] = {}
    wanted = [("everview", "")]
    while wanted:
        name, extra = wanted.pop()
        key = (re.sub(r"[-_.]+", "-", name).lower(), extra)
        if key in found:
            continue
        found[key] = distribution(name)
        for requirement in map(Requirement, found[key].requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                wanted += [(requirement.name, e) for e in ("", *requirement.extras)]
    return {name: found[name, extra] for name, extra in found}


@pytest.fixture(scope="session")
def core():
    return core_distributions()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel, built as for a release but with the tools that are here."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return next(out.glob("everview-*.whl"))


@pytest.fixture(scope="session")
def core_environment(wheel, core, tmp_path_factory):
    """Folder of the programs of a new environment: the wheel, installed, and the core packages.

    The core packages are links to those of this environment, so that nothing is downloaded; what
    the core does not need (pytest, beartype, tensorboard, ...) cannot be imported there.
    """
    home = tmp_path_factory.mktemp("core")
    venv.create(home, symlinks=True, with_pip=False)
    programs = home / "bin"
    python = programs / "python"
    packages = next((home / "lib").glob("python*/site-packages"))
    for name, dist in core.items():
        if name != "everview":
            _link(dist, packages)
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"]
    done = subprocess.run([*pip, "--quiet", wheel], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return programs


def _link(dist: Distribution, packages: Path) -> None:
    """Link the top-level files and folders of a distribution."""
    tops = {
        file.parts[0] for file in dist.files or () if file.parts[0] not in ("..", "__pycache__")
    }
    for top in tops:
        if not (packages / top).exists():
            (packages / top).symlink_to(PACKAGES / top)
