"""Measure what `lse data scale-objects` costs for each photograph, and project it to the sets of the paper.

    python tools/bench/scale_objects.py --out docs/results/scale_objects.md

Processor time is measured, not time on the clock, so that other processes of the machine count little.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from textwrap import fill
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from answers import write_page
from costs.timing import machine, versions
from photographs import write_photographs

from lse_data.scaling import ScalingConfig, Stages, build_stages
from lse_data.scaling.picture import make_versions
from lse_data.scaling.run import sources_of

PARTS = ("boxes from the file", "masks (GrabCut)", "background (OpenCV)", "the rest")
SETS = {"10,000": 10_000, "50,000": 50_000}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the page, or print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--longest", type=int, default=500, help="pixels of the longer side of a photograph")
    parser.add_argument("--rounds", type=int, default=2, help="times that the nine photographs are made")
    parser.add_argument("--out", type=Path, metavar="PAGE.md", help="page to write; else it is printed")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        write_photographs(Path(place))
        context = multiprocessing.get_context("spawn")
        measured = {}
        for count in (1, 2):
            with ProcessPoolExecutor(count, context) as pool:
                work = [pool.submit(measure, place, options.longest, options.rounds) for _ in range(count)]
                found = [future.result() for future in work]
            measured[count] = [sum(times) / count for times in zip(*found, strict=True)]
    lines = page(measured, options, shlex.join(sys.argv[1:] if arguments is None else list(arguments)))
    if options.out is None:
        print("\n".join(lines))
        return
    write_page(options.out, "\n".join(lines) + "\n")


def measure(place: str, longest: int, rounds: int) -> list[float]:
    """Seconds of processor time for a photograph, of each of the parts, in this process."""
    import cv2

    cv2.setNumThreads(1)
    config = ScalingConfig(longest=longest, crop=True)
    spent = [0.0, 0.0, 0.0]
    made = build_stages(config)
    stages: Any = Stages(*(_timed(stage, spent, i) for i, stage in enumerate(vars(made).values())))
    sources = sources_of([place], config)
    # one of the nine is rejected, because its edges cut it off; and what is imported once does not count
    sources = [s for s in sources if make_versions(s, config, stages).record["status"] == "kept"]
    spent[:] = [0.0, 0.0, 0.0]
    begun = time.process_time()
    for _ in range(rounds):
        for source in sources:
            make_versions(source, config, stages)
    total = time.process_time() - begun
    return [seconds / rounds / len(sources) for seconds in (*spent, total - sum(spent))]


def _timed(stage: Callable[..., Any], spent: list[float], place: int) -> Callable[..., Any]:
    def run(*given: Any) -> Any:
        begun = time.process_time()
        try:
            return stage(*given)
        finally:
            spent[place] += time.process_time() - begun

    return run


def page(measured: dict[int, list[float]], options: argparse.Namespace, command: str) -> list[str]:
    """The page's lines."""
    one, two = (f"{1 / sum(measured[count]) * count:.2f}" for count in (1, 2))
    asked = (
        "**Question.** How long does `lse data scale-objects` take for a photograph, and how long would it "
        "take for the 10,000 photographs of the paper's training set and the 50,000 of its test set?"
    )
    lines = [
        "# Making locally scaled photographs",
        "",
        fill(asked, 120),
        "",
        "| seconds of processor time for a photograph | one process | two processes at once |",
        "|---|---|---|",
    ]
    for place, part in enumerate(PARTS):
        lines.append(f"| {part} | {measured[1][place]:.3f} | {measured[2][place]:.3f} |")
    lines += [
        f"| in all | {sum(measured[1]):.3f} | {sum(measured[2]):.3f} |",
        "",
        "| | one core | two cores |",
        "|---|---|---|",
        f"| photographs a second | {one} | {two} |",
    ]
    for name, count in SETS.items():
        hours = [count * sum(measured[cores]) / cores / 3600 for cores in (1, 2)]
        lines.append(f"| hours for {name} photographs | {hours[0]:.1f} | {hours[1]:.1f} |")
    told = (
        "A photograph is made with seven factors, 0.7 to 1.3, so 10,000 photographs give 70,000 pictures. "
        "The rest is reading, composing, judging the quality, and encoding as JPEG and PNG. Hours are "
        "processor time divided by the number of cores, each of which must be free."
    )
    how = (
        f"`python tools/bench/scale_objects.py {command}`: eight of the photographs of tests/photographs.py "
        "with their boxes (a ninth, whose object two edges cut off, is rejected), reduced to "
        f"{options.longest} pixels; the mean of {options.rounds} rounds; {machine('cpu')}; {versions()}. "
        f"Other processes shared the machine: its load was {os.getloadavg()[1]:.1f} (mean of 5 minutes)."
    )
    lines += ["", fill(told, 120), "", "## How it was measured", "", fill(how, 120, break_long_words=False)]
    return lines


if __name__ == "__main__":
    main()
