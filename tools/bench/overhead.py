"""Measure what a DEC adds to a plain model: time, work and memory.

    python tools/bench/overhead.py --threads 1 --out docs/results/overhead.md
    python tools/bench/overhead.py --threads 1 --authors CHECKOUT --out docs/results/overhead.md
    python tools/bench/overhead.py --groups models --models resnet18 --batches 1 8 --modes inference
    python tools/bench/overhead.py --groups compiled --models vit_tiny_patch16_224 --batches 8
    python tools/bench/overhead.py --device cuda --precision fp32 tf32 bf16 --groups models choices compiled

--groups chooses among these tables:
    models    the plain model and its default adaptation: one row for each model, batch, mode and precision
    choices   for the models of --detail: solvers, rules, 1 to 20 steps, 1 to 4 sites, the coupled warp
    authors   the plain model, ours and the authors' code, from a checkout that --authors names
              (https://github.com/ashiq24/local-scale-equivariance)
    compiled  the plain and the adapted model, both compiled by torch.compile in the modes of --compile;
              this takes minutes for each model on a CPU
    graphs    the plain and the adapted model, both as one CUDA graph

All rows of a table take turns in one process. The page is written after every table, and each table is kept
in the work folder: the same command, given again, measures only what is missing or was measured with other
settings or sources. On a CPU the default measures fewer models in training and in the table of choices, to
end within minutes; name models to have others.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from answers import write_page
from costs.authors import described, revision
from costs.cases import GROUPS, Case, Settings, family_of, measure, take_up
from costs.figures import overhead_figure
from costs.page import page
from costs.timing import bandwidth, machine, versions

from lse_core.atomic import replacing
from lse_core.errors import LSEError
from lse_train.cpu import keep_memory

MODELS = (
    "vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224", "swin_tiny_patch4_window7_224",
    "resnet18", "resnet50", "vit_small_patch14_dinov2",
)  # fmt: skip
DETAIL = ("vit_tiny_patch16_224",)
ON_CPU = {
    ("models", "training"): (("vit_tiny_patch16_224", "vit_small_patch16_224", "resnet18"), max),
    ("choices", "training"): (DETAIL, min),
    ("authors", "inference"): (("vit_tiny_patch16_224", "vit_small_patch16_224"), max),
    ("authors", "training"): (DETAIL, min),
}
"""The longest tables: of these the default grid on CPU has a few models, at the largest or smallest batch."""

PRECISIONS = ("fp32", "tf32", "bf16")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, write the page after every table."""
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    kept = options.allocator == "keep" and options.device == "cpu" and keep_memory()
    settings = Settings(
        options.device, options.rounds, options.seconds, options.seed, options.size, kept, options.authors,
        tuple(options.compile),
    )  # fmt: skip
    work = options.work
    try:
        records: list[dict[str, Any]] = []
        chosen = list(cases(options))
        if not chosen:
            raise LSEError("nothing to measure: the authors' code converts none of these models")
        notes = {
            **_notes(options, arguments, kept),
            "authors": _authors(chosen, settings),
            "bandwidth": _bandwidth(settings, work),
        }
        for k, case in enumerate(chosen, 1):
            record = take_up(case, settings, work)
            print(f"{k}/{len(chosen)} {case.key}{' (kept)' if record else ''}", file=sys.stderr, flush=True)
            records.append(record or measure(case, settings, work))
            _write(records, notes, options.out)
    except LSEError as error:
        sys.exit(f"error: {error}")
    if options.out is None:
        print(page(records, notes))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, those left out filled in by the device."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--models", nargs="+", metavar="NAME", help="timm models; default: seven of four families")
    add(
        "--detail",
        nargs="+",
        metavar="NAME",
        help="models of the table of choices; default: --models, or vit_tiny",
    )
    add("--batches", nargs="+", type=int, metavar="N", help="default: 1 8, on CUDA 1 8 128")
    add("--modes", nargs="+", choices=("inference", "training"), default=["inference", "training"])
    add(
        "--groups",
        nargs="+",
        choices=GROUPS,
        help="default: models choices, and authors if their checkout is given",
    )
    add("--authors", type=Path, metavar="CHECKOUT", help="folder with the authors' code")
    add(
        "--compile",
        nargs="+",
        default=["default"],
        metavar="MODE",
        help="modes of torch.compile; default: default",
    )
    add("--device", default="cpu", help="cpu or cuda")
    add("--precision", nargs="+", choices=PRECISIONS, default=["fp32"])
    add("--size", type=int, default=224, help="pixels a side")
    add("--threads", type=int, help="CPU threads; default: torch's own number")
    add("--rounds", type=int, default=20, help="rounds of a table at most")
    add(
        "--seconds",
        type=float,
        default=20.0,
        help="time for the rounds of a table (more for many rows); three are always run",
    )
    add("--seed", type=int, default=0)
    add("--allocator", choices=("keep", "default"), default="keep",
        help="keep: glibc is told to keep freed memory, or else page faults blur the ratios")  # fmt: skip
    add(
        "--work",
        type=Path,
        default=Path("runs/overhead"),
        help="folder for raw numbers; default runs/overhead",
    )
    add(
        "--out",
        type=Path,
        metavar="PAGE.md",
        help="page to write, with PAGE.svg beside it; else it is printed",
    )
    options = parser.parse_args(arguments)
    if options.device != "cpu" and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: this machine has no GPU that torch can use")
    if options.rounds < 3:
        parser.error("--rounds: quartiles need at least 3")
    options.groups = options.groups or ["models", "choices", *(["authors"] if options.authors else [])]
    if "authors" in options.groups and options.authors is None:
        parser.error("--groups authors: name a checkout of their code with --authors")
    options.batches = options.batches or ([1, 8] if options.device == "cpu" else [1, 8, 128])
    return options


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """The tables, in the order of the page."""
    for group in (g for g in GROUPS if g in options.groups):
        models = options.models or (DETAIL if group in ("choices", "compiled", "graphs") else MODELS)
        if group == "choices" and options.detail:
            models = options.detail
        whole = options.device != "cpu" or options.models or (group == "choices" and options.detail)
        for precision in options.precision:
            for mode in options.modes:
                chosen, batches = models, options.batches
                if not whole and (group, mode) in ON_CPU:
                    chosen, pick = ON_CPU[group, mode]
                    batches = [pick(batches)]
                if group == "authors":
                    chosen = [m for m in chosen if family_of(m, options.size)]
                for batch in sorted(batches, reverse=True):
                    for model in chosen:
                        yield Case(group, model, batch, mode, precision)


def _notes(options: argparse.Namespace, arguments: Sequence[str] | None, kept: bool) -> dict[str, Any]:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if options.authors is not None:  # where it lies on this machine says nothing
        given = [("CHECKOUT" if Path(a) == options.authors else a) for a in given]
    return {
        "command": f"python tools/bench/overhead.py {shlex.join(given)}".strip(),
        "machine": machine(options.device),
        "versions": versions(),
        "device": options.device,
        "seed": options.seed,
        "size": options.size,
        "memory": (
            "The C library was told to keep freed memory: by default it returns memory to the system, and "
            "the "
            "page faults that follow depend on what ran before."
            if kept
            else "The memory allocator was left at its defaults."
        ),
    }


def _authors(chosen: Sequence[Case], settings: Settings) -> str:
    """What of theirs is run, in words; nothing where nothing is."""
    models = dict.fromkeys(case.model for case in chosen if case.group == "authors")
    if settings.authors is None or not models:
        return ""
    kinds = dict.fromkeys(family_of(model, settings.size) for model in models)
    words = described(settings.authors, [kind for kind in kinds if kind is not None])
    return f"Their commit {revision(settings.authors)} with its own settings ({words})."


def _bandwidth(settings: Settings, work: Path) -> float:
    """Measured once a machine, kept beside the tables."""
    path = work / "bandwidth.json"
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["machine"] == machine(settings.device):
            return float(kept["bandwidth"])
    speed = bandwidth(settings.device)
    with replacing(path, overwrite=True) as target:
        target.write_text(json.dumps({"machine": machine(settings.device), "bandwidth": speed}), "utf-8")
    return speed


def _write(records: Sequence[dict[str, Any]], notes: dict[str, Any], out: Path | None) -> None:
    if out is None:
        return
    drawing = out.with_suffix(".svg")
    drawn = overhead_figure(records, drawing)
    write_page(out, page(records, notes, drawing.name if drawn else None))


if __name__ == "__main__":
    main()
