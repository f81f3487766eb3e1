"""Have a GPU prove in one go what no CPU can: tests, times, training, exported files. docs/gpu.md says how.

    python tools/gpu/check.py --out DIR --wheels dist
    python tools/gpu/check.py --out DIR --wheels dist --authors CHECKOUT --minutes 7.5
    python tools/gpu/check.py --out DIR --device cpu --tiny     # a rehearsal without a GPU

Writes DIR/check.json, DIR/check.md and DIR/check.log after every part, so that nothing is lost where the
machine is taken away. A part is a process of its own with a limit of time, and fails alone; the exit status
is then 1.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from page import Outcome, page
from parts import IMPORTED, NAMES, parts
from processes import run
from site_of_wheels import install

NOT_BEGUN = "not begun: the time was over"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all parts for which there is time; return the exit status."""
    options = parse(arguments)
    began = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        installed = install(options.wheels, work / "site") if options.wheels else []
        if options.tiny:  # threads of small operators wait longer than they work
            os.environ.setdefault("OMP_NUM_THREADS", "1")
        # they inherit where packages are, and find torch and the rest imported
        multiprocessing.set_forkserver_preload(list(IMPORTED))
        outcomes: list[Outcome] = []
        for part in parts(options, work):
            left = 60 * options.minutes - (time.monotonic() - began)
            print(f"{part.name} ...", file=sys.stderr, flush=True)
            outcomes.append(run(part, work, left) if left > 5 else Outcome(part, NOT_BEGUN))
            _write(options.out, outcomes, installed, time.monotonic() - began)
    for outcome in outcomes:
        print(f"{outcome.part.name}: {outcome.state}, {outcome.seconds:.0f} s", file=sys.stderr)
    print(options.out / "check.md")
    return int(any(outcome.failed for outcome in outcomes))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="for check.json, check.md and check.log")
    add(
        "--wheels",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="folders of wheels, installed into a temporary folder: ours, and others that are missing here",
    )
    add("--authors", type=Path, metavar="CHECKOUT", help="the authors' code, for their times beside ours")
    add("--device", choices=("cuda", "cpu"), default="cuda")
    add("--tiny", action="store_true", help="a rehearsal: the smallest models, few tests, nothing compiled")
    add("--minutes", type=float, default=7.5, help="no part begins or goes on after them; default: 7.5")
    add("--only", nargs="+", metavar="PART", choices=NAMES, help=f"some of {', '.join(NAMES)}")
    options = parser.parse_args(arguments)
    for folder in [*(options.wheels or []), *([options.authors] if options.authors else [])]:
        if not folder.is_dir():
            parser.error(f"{folder} is no folder")
    if options.minutes <= 0:
        parser.error(f"--minutes must be above 0; got {options.minutes}")
    return options


def _write(out: Path, outcomes: Sequence[Outcome], installed: Sequence[str], seconds: float) -> None:
    """All three files, each whole or as it was."""
    facts = {
        "seconds": round(seconds, 1),
        "installed": list(installed),
        "parts": [o.plain() for o in outcomes],
    }
    texts = {
        "check.json": json.dumps(facts, indent=1),
        "check.md": page(outcomes, seconds),
        "check.log": "".join(f"== {o.part.name}\n{o.log}\n" for o in outcomes),
    }
    for name, text in texts.items():
        partial = out / f".{name}"
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, out / name)


if __name__ == "__main__":
    sys.exit(main())
