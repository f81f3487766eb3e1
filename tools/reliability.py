"""Writes docs/reliability.md from the tables of faults: python tools/reliability.py."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from faults.interrupts import COMMANDS  # noqa: E402
from faults.test_faults import FAULTS, TABLES  # noqa: E402

PAGE = ROOT / "docs" / "reliability.md"
HEAD = """\
# What happens when something goes wrong?

It is answered with one line that says what is wrong and where. A command that fails ends with an exit status
other than 0, changes no file and leaves no half one, and nothing that a file or a folder says is executed,
imported or fetched unless `--trust` (in Python `trust=True`) is given. This was tried for {count} faults, the
tables of [tests/faults](../tests/faults): each is provoked in a folder with one of everything, and the test
compares every file there before and after.

| table | faults | what is wrong |
|---|---|---|
"""
INTERRUPTS = """
## Interrupts

Each of these commands is interrupted by SIGINT and by SIGTERM at a random moment, and ends with exit status
130 or 143. No half file is left that looks whole. The same command, given again, ends as if it had never been
interrupted: the results are the same, byte by byte, but for times. (Where a folder of data is not finished,
the command asks for `--force`.)

Training in mmsegmentation runs in mmengine's loop, which a signal ends as it ends any Python program: a shell
calls that status 130 or 143 too. `lse_seg.running.make_runner` makes mmengine's checkpoints whole files, of
which it keeps two, and puts the states of all random number generators into them. With `resume=True` training
ends with the same weights.
"""
TAIL = """
## Not covered

- Faults of the machine itself: memory that runs out while a model computes, a GPU that is lost.
- A disk that is full is imitated by a limit on the size of a file, which the system reports in other words
  ("File too large") than a full disk ("No space left on device").
- Folders that may not be written to are tried only where the tests do not run as root.
- `SIGKILL` and a loss of power: a training run goes on from its last checkpoint, and a hidden folder whose
  name begins with a dot may be left beside an output.
- Engines of TensorRT that are damaged and whose sidecar was forged to fit: NVIDIA's library reads them, which
  takes a GPU, and says what it says.
- Windows and macOS.

## Run it

    make test ARGS=tests/faults    # all of the above; every long command is interrupted once
    make soak                      # every long command interrupted ten times by each signal
    python tools/reliability.py    # this page
"""


def about(path: Path) -> str:
    """The first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()[0]


def tests_of(name: str) -> Iterator[str]:
    """The tests of a file, as sentences."""
    for node in ast.parse((ROOT / "tests" / "faults" / name).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.name.removeprefix("test_").replace("_", " ")


def strangers() -> Iterator[str]:
    """Rows of the faults that come from strangers, those of one thing together."""
    readers: dict[tuple[str, str], list[str]] = {}
    for case in FAULTS.values():
        if case.would:
            what, _, reader = case.name.partition(", for ")
            command = case.does.split(" ")[0] if isinstance(case.does, str) else "Python"
            readers.setdefault((what, case.would), []).append(reader or command)
    for (what, would), by in readers.items():
        yield f"| {what} | {', '.join(by)} | {would} |"


def page() -> str:
    """The whole page."""
    lines = HEAD.format(count=len(FAULTS)).splitlines()
    for table in TABLES:
        name = table.__name__.rpartition(".")[2]
        link = f"[{name}](../tests/faults/{name}.py)"
        lines.append(f"| {link} | {len(table.FAULTS)} | {about(Path(table.__file__))} |")
    lines += ["", "## From strangers", ""]
    lines += ["What each would do to somebody whose program trusted it; here it is refused.", ""]
    lines += ["| what it is | read by | what it would do |", "|---|---|---|", *strangers()]
    lines += [*INTERRUPTS.splitlines(), "", *(f"- `{long.title}`" for long in COMMANDS.values())]
    for title, file in (
        ("At the borders", "test_borders.py"),
        ("The bounds of all settings and options", "test_settings.py"),
        ("Many at once, and for long", "test_long_life.py"),
    ):
        lines += ["", f"## {title}", "", *(f"- {test}" for test in tests_of(file))]
    return "\n".join([*lines, *TAIL.splitlines()]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
