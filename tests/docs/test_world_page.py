import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_of_the_world_shows_what_was_measured():
    script = ROOT / "benchmarks" / "world_speed.py"
    command = [sys.executable, "-P", str(script), "--check"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
