"""The report in a real browser: headless Chromium, a page that reports what happens in it."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from everview.evaluation.reports.report import report

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
NAMES = ("chromium", "chromium-browser", "google-chrome")
CONSOLE = re.compile(r":(?:INFO|WARNING|ERROR):CONSOLE[:(].*")
"""How Chromium logs what a page writes to its console, refused loads and script errors too."""
SECONDS = 180

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chromium():
    """Path of the browser."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium: apt-get install chromium")
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report of the repository's own results."""
    out = tmp_path_factory.mktemp("report")
    names = ("procedural_mini.json", "latency_scaling.json", "real_footage.json")
    return report([RESULTS / name for name in names], out).html


@pytest.fixture
def visit(chromium, tmp_path):
    """Open a page; returns what the browser printed and what it logged."""

    def visit(path, *options):
        command = [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-extensions", "--disable-background-networking",
            "--enable-logging=stderr", "--v=0", f"--user-data-dir={tmp_path / 'profile'}",
            *options, path.resolve().as_uri(),
        ]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, check=False,
            env={**os.environ, "HOME": str(tmp_path)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout, done.stderr

    return visit


def test_the_report_opens_without_console_messages(page, visit):
    dom, log = visit(page, "--dump-dom")
    assert CONSOLE.findall(log) == []
    assert "Everview: evaluation report" in dom
    assert dom.count("<table") == page.read_text().count("<table")
    assert dom.count("<svg") == page.read_text().count("<svg")


@pytest.mark.parametrize(
    "fault",
    [
        '<img src="https://example.invalid/x.png">',
        "<script>console.error('broken')</script>",
        '<img src="absent.png">',
    ],
)
def test_a_fault_in_a_page_would_be_noticed(fault, page, visit, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text().replace("</main>", f"{fault}</main>"))
    _, log = visit(broken, "--dump-dom")
    assert CONSOLE.findall(log)


def test_the_page_shows_tables_and_plots(page, visit, tmp_path):
    shot = tmp_path / "shot.png"
    visit(page, f"--screenshot={shot}", "--window-size=1120,2400", "--hide-scrollbars")
    with Image.open(shot) as picture:
        assert picture.size == (1120, 2400)
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
    assert (0xE8, 0xF3, 0xEC) in colours  # rows of ours
    assert len(colours) > 100
