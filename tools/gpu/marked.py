"""Run the tests marked `gpu`, print what became of them and write it as JSON.

    python tools/gpu/marked.py FOLDER [ARGUMENTS OF PYTEST]

The environment's LSE_GPU_TESTS_ON is where they run, see tests/gpu/conftest.py.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2] / "tests" / "gpu"


class Seen:
    """What became of each test, kept by pytest's own hook."""

    def __init__(self) -> None:
        self.tests: dict[str, dict[str, object]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called for the set-up, the call and the end of a test; what is worst counts."""
        name = report.nodeid.rpartition("/")[2]
        test = self.tests.setdefault(name, {"outcome": "passed", "seconds": 0.0, "why": ""})
        test["seconds"] = round(float(str(test["seconds"])) + report.duration, 2)
        if report.outcome != "passed":
            lines = str(
                report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
            ).splitlines()
            errors = [line for line in lines if line.startswith("E ")] or lines[-1:]
            test |= {"outcome": report.outcome, "why": errors[0][:300].lstrip("E ") if errors else ""}

    def markdown(self) -> str:
        """Counts, and a row for each that did not pass."""
        counts = Counter(str(test["outcome"]) for test in self.tests.values())
        total = sum(float(str(test["seconds"])) for test in self.tests.values())
        lines = [", ".join(f"{n} {outcome}" for outcome, n in counts.items()) + f", {total:.0f} s.", ""]
        rows = [
            f"| {name} | {test['outcome']} | {str(test['why']).replace('|', '/')} |"
            for name, test in self.tests.items()
            if test["outcome"] != "passed"
        ]
        return "\n".join([*lines, *(["| test | | why |", "|---|---|---|", *rows] if rows else [])])


def main() -> int:
    """Pytest's exit status."""
    folder, *arguments = sys.argv[1:]
    seen = Seen()
    with redirect_stdout(sys.stderr):
        status = pytest.main(
            ["-q", "-p", "no:cacheprovider", "-m", "gpu", str(TESTS), *arguments], plugins=[seen]
        )
    print(seen.markdown())
    Path(folder, "tests.json").write_text(json.dumps(seen.tests), encoding="utf-8")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
