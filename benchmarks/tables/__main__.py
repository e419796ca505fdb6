"""Write the tables of README.md and of pages in docs/ from the result files.

python benchmarks/tables          write them
python benchmarks/tables --check  fail if they are not what the result files say
"""

import argparse
import sys
from pathlib import Path

from accuracy import accuracy, page
from memory import memory
from quantization import quantization
from results import ROOT
from speed import scaling, speed, world
from training import training

BEGIN, END = "<!-- numbers: begin -->", "<!-- numbers: end -->"


def main() -> int:
    """Return 1 if `--check` finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    is_check = parser.parse_args().check
    texts = {
        ROOT / "README.md": accuracy() + "\n" + speed(),
        ROOT / "docs" / "speed.md": speed() + "\n" + scaling() + "\n" + world(),
        ROOT / "docs" / "training.md": training(),
        ROOT / "docs" / "memory.md": memory(),
        ROOT / "docs" / "quantization.md": quantization(),
        ROOT / "docs" / "accuracy.md": page(),
    }
    stale = [path for path, text in texts.items() if _replace(path, text, is_check=is_check)]
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'differs from the results' if is_check else 'written'}")
    return int(is_check and bool(stale))


def _replace(path: Path, text: str, *, is_check: bool) -> bool:
    """Put the text between the marks; returns whether that changes the file."""
    old = path.read_text()
    head, _, rest = old.partition(BEGIN)
    _, _, tail = rest.partition(END)
    new = f"{head}{BEGIN}\n{text}{END}{tail}"
    if new != old and not is_check:
        path.write_text(new)
    return new != old


if __name__ == "__main__":
    sys.exit(main())
