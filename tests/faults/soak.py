"""Interrupts every long command at random moments, ten times by each of SIGINT and SIGTERM: `make soak`.

After each interrupt the same command is given again; it must end as if it had never been interrupted. In
every second round the interrupted command is a process of its own, and the signal may meet its imports;
otherwise commands are forks of a process that has imported everything, as imports take longer than most.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import conftest  # noqa: F401  (says what forks have imported)
from faults.forks import Fork
from faults.interrupts import COMMANDS, SIGNALS, Starter, disturb, once_begun, start, undisturbed
from faults.workshop import build


def main() -> None:
    """Interrupt every command `--rounds` times by each signal; print what came of it after each round."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(COMMANDS), choices=list(COMMANDS))
    given = parser.parse_args()
    draw = random.Random(given.seed)
    counts = {(command, name): Counter[str]() for command in given.only for name in SIGNALS}
    usual: dict[tuple[str, Starter], tuple[float, dict[str, str]]] = {}
    with tempfile.TemporaryDirectory() as place:
        workshop = Path(place) / "workshop"
        build(workshop)
        for number in range(given.rounds):
            starter: Starter = start if number % 2 else Fork
            for command, name in counts:
                long = COMMANDS[command]
                if (command, starter) not in usual:
                    usual[command, starter] = undisturbed(long, workshop, starter)
                seconds, expected = usual[command, starter]
                share = draw.uniform(0.0, 1.1)
                moment = share * seconds
                wait = pause(moment) if number % 2 else once_begun(moment / 2, moment)
                try:
                    outcome = disturb(long, workshop, name, wait, expected, starter, again=Fork)
                    counts[command, name][outcome] += 1
                    counts[command, name]["resumed equal"] += outcome == "interrupted"
                except AssertionError as error:
                    counts[command, name]["failed"] += 1
                    print(f"{command}, {name} at {share:.2f}: {str(error)[-800:]}", flush=True)
            print(f"after {number + 1} of {given.rounds} rounds:", flush=True)
            for (command, name), found in counts.items():
                print(f"  {command:8} {name:8} {told(found)}", flush=True)
    total = sum(counts.values(), Counter[str]())
    print(f"{len(given.only)} commands in all: {told(total)}", flush=True)
    sys.exit(min(total["failed"], 1))


def pause(seconds: float) -> Callable[[Any, Path], None]:
    """Waits so long, whatever the command does."""
    return lambda process, folder: time.sleep(seconds)


def told(counts: Counter[str]) -> str:
    """Counts as a line says them."""
    kinds = ("interrupted", "resumed equal", "ended first", "failed")
    return ", ".join(f"{counts[kind]} {kind}" for kind in kinds)


if __name__ == "__main__":
    main()
