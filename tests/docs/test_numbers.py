"""Figures in the README and the docs are those of the result files, and their code runs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_tables_are_what_the_result_files_say():
    command = [sys.executable, "-P", str(ROOT / "benchmarks" / "tables"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    assert blocks
    clip = ROOT / "tests" / "data" / "videos" / "rot_90.mov"
    shutil.copy(clip, tmp_path / "walk.mp4")
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, page, "exec"), {})
    assert capsys.readouterr().out.count("\n") >= 3


def test_every_page_of_the_site_exists():
    pages = re.findall(r": ([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    assert len(pages) > 5
    assert [page for page in pages if not (ROOT / "docs" / page).is_file()] == []
