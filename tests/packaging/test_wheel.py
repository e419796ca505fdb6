import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
import everview
for module in pkgutil.walk_packages(everview.__path__, "everview."):
    importlib.import_module(module.name)
for name in everview.__all__:
    getattr(everview, name)
print(everview.__file__)
"""


def run(*command, cwd):
    """Output of a program that must end with 0, away from this repository and its settings."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    clean["HF_HUB_OFFLINE"] = "1"
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=cwd, env=clean, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_code_assets_marker_and_notices_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    folder = ROOT / "src" / "everview"
    expected = {
        f"everview/{path.relative_to(folder).as_posix()}"
        for path in folder.rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and path.suffix not in (".pyc", ".tmp")
    }
    assert {name for name in names if name.startswith("everview/")} == expected
    assert "everview/py.typed" in names
    assert any(name.startswith("everview/assets/") for name in names)
    others = {name.partition("/")[2] for name in names - expected}
    assert others == {
        "METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE", "licenses/NOTICE",
    }  # fmt: skip


def test_the_wheel_is_for_any_platform_and_small_enough_for_a_package_index(wheel):
    assert wheel.name.endswith("-py3-none-any.whl")
    assert wheel.stat().st_size < 40e6


def test_with_the_core_alone_every_module_and_public_name_can_be_imported(
    core_environment, tmp_path
):
    python = core_environment / "python"
    place = run(python, "-c", IMPORT_EVERYTHING, cwd=tmp_path)
    assert place.startswith(str(core_environment.parent))
    code = (
        "import importlib.util as u; print([n for n in ('pytest', 'beartype') if u.find_spec(n)])"
    )
    assert run(python, "-c", code, cwd=tmp_path) == "[]\n", "the environment is not empty enough"


def test_with_the_core_alone_the_command_lists_models_and_examines_the_machine(
    core_environment, tmp_path
):
    everview = core_environment / "everview"
    listed = json.loads(run(everview, "models", "--json", cwd=tmp_path))["models"]
    assert "lch01/StreamVGGT" in {row["source"] for row in listed}
    found = json.loads(run(everview, "doctor", "--json", "--device", "cpu", cwd=tmp_path))
    assert found["extras"]["dev"]["missing"]
    assert "usage: everview" in run(everview, "--help", cwd=tmp_path)


def test_with_the_core_alone_the_bundled_model_loads(core_environment, tmp_path):
    code = "import everview; print(everview.load('mini', device='cpu').info.license)"
    assert run(core_environment / "python", "-c", code, cwd=tmp_path) == "Apache-2.0\n"


@pytest.mark.slow
def test_pip_installs_the_wheel_into_an_empty_environment(wheel, tmp_path):
    """As a user would; takes packages from the index or pip's cache, torch among them."""
    home = tmp_path / "user"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    run(
        python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", "torch", wheel,
        cwd=tmp_path,
    )  # fmt: skip
    run(python, "-m", "pip", "check", cwd=tmp_path)
    run(python, "-c", IMPORT_EVERYTHING, cwd=tmp_path)
    assert "mini" in run(home / "bin" / "everview", "models", cwd=tmp_path)
    packages = run(python, "-m", "pip", "list", cwd=tmp_path)
    assert "pytest" not in packages
    assert sys.version_info >= (3, 11)
