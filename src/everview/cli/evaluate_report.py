"""`everview eval report`: results beside published ones, as pages to read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class EvalReport:
    """Write a report about result files: Markdown, and one HTML page that needs nothing else.

    Tables with our rows beside the published ones, plots, and pictures of the best and the worst
    clips where predictions are still beside the results. What was not run is said so. Other files
    than those of `everview eval` are skipped with a word.
    """

    results: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Result files; a folder stands for all its .json."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("report")
    """Folder for report.html, report.md and figures."""
    cases: int = 1
    """How many of the best and of the worst clips are shown."""

    def run(self) -> int:
        """Return the exit code."""
        from everview.errors import ConfigError
        from everview.evaluation.reports.report import report

        if self.cases < 0:
            raise ConfigError(f"--cases must be 0 or more; got {self.cases}")
        written = report(self.results, self.out, cases=self.cases)
        for words in written.skipped:
            print(f"skipped: {words}")
        print(f"{written.num_results} results: {written.html}, {written.markdown}")
        return 0
