"""docs/results/overhead.md from the tables measured so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from costs.figures import LEAST
from costs.reading import Cost, Record, cost, floor, row

__all__ = ["page"]

TITLES = {
    "models": "Adapted models",
    "choices": "What each choice costs",
    "authors": "Against the authors' code",
    "compiled": "Compiled",
    "graphs": "In CUDA graphs",
}
COLUMNS = (
    "| time : base (quartiles) | overhead | GFLOP per image | kernel calls | syncs | peak MiB "
    "| milliseconds |"
)
RULE = "---|---|---|---|---|---|---|"


def page(records: Sequence[Record], notes: dict[str, Any], figure: str | None = None) -> str:
    """The page.

    Args:
        records: tables as `costs.cases.measure` returns them.
        notes: "command", "machine", "versions", "bandwidth" (bytes a second), "memory" (what was done
            about the allocator) and "authors" (what of theirs ran).
        figure: file name of a drawing to show.
    """
    lines = [
        "# What the DEC costs",
        "",
        "**Question.** How much time, work and memory does a DEC add to a model, in inference and in "
        "training, "
        "and how does that compare with the authors' code?",
        "",
        *_goals(records),
    ]
    if figure is not None:
        lines += [
            f"![Overhead of the default adaptation]({figure})",
            "",
            f"The figure shows inference. Overheads below {LEAST}%, or negative within the noise, are "
            "drawn at "
            f"{LEAST}%.",
            "",
        ]
    for group, title in TITLES.items():
        tables = [r for r in records if r["case"]["group"] == group]
        if tables:
            lines += [f"## {title}", "", *_group(group, tables, notes)]
    lines += [*_floors(records, notes), *_how(notes)]
    return "\n".join(lines).rstrip() + "\n"


def _how(notes: dict[str, Any]) -> list[str]:
    on_cpu = notes["device"] == "cpu"
    counted = (
        "Kernel calls are dispatched operators that are not views; syncs are operators for whose result the "
        "host of a GPU would have to wait; peak memory is the highest running sum of the profiler's "
        "allocations."
        if on_cpu
        else "Kernel calls are CUDA kernels launched, and syncs are waits of the host for the device (both "
        "from the profiler); peak memory is the allocator's, above the level before the call."
    )
    return [
        "## How it was measured",
        "",
        f"`{notes['command']}`: {notes['machine']}; {notes['versions']}; random weights, seed "
        f"{notes['seed']}, {notes['size']} x {notes['size']} pixels.",
        "",
        'The rows of a table took turns in one process. "Time : base" is the median over the rounds of a '
        "row's time divided by the base model's time in the same round, with the quartiles in brackets; "
        '"overhead" is the time added, as a share of the base\'s. Milliseconds depend on what else the '
        "machine does; the ratios depend on it less.",
        f"FLOPs are those of torch's counter: products, convolutions, attention. {counted}",
        "Unless a row says otherwise, a model has two sites (the image and the first latent stage), the "
        "residual rule, Anderson with 5 steps and separable warps. The last layers of the updates have "
        "random "
        "weights, so that no warp is the identity.",
        "Training is one forward and backward pass through all parameters, without an optimiser, whose time "
        "would be the same in both models.",
        notes["memory"],
        "",
    ]


def _group(group: str, tables: Sequence[Record], notes: dict[str, Any]) -> list[str]:
    if group == "models":
        return _models(tables)
    lines: list[str] = []
    if group == "authors":
        lines += [
            f"{notes['authors']} Their converters take timm's ViT, Swin and BEiT; they have none for "
            "ResNets.",
            "",
        ]
    for record in tables:
        lines += [
            f"### {_heading(record)}",
            "",
            f"Sites {' and '.join(record['sites'])}; {_rounds(record)}.",
            "",
        ]
        lines += [f"| row {COLUMNS}", f"|---|{RULE}"]
        lines += [f"| {r['name']} {_cells(cost(record, r['name']), r)}" for r in record["rows"]]
        lines.append("")
        if group == "authors" and (less := times_less(record)) is not None:
            factor = f"The authors' code has {less:.0f} times our overhead (ratio of the medians)."
            lines += [factor if less > 0 else _within_noise(record), ""]
    return lines


def _within_noise(record: Record) -> str:
    return "Our overhead is within the noise of this run, so no factor is given."


def _models(tables: Sequence[Record]) -> list[str]:
    lines: list[str] = []
    for mode in ("inference", "training"):
        chosen = [r for r in tables if r["case"]["mode"] == mode]
        if not chosen:
            continue
        lines += [
            f"### {mode.capitalize()}",
            "",
            "| model | batch | precision | time : base (quartiles) | overhead | GFLOP per image | kernel "
            "calls | syncs | peak MiB | milliseconds | rounds |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        for record in chosen:
            case, base = record["case"], cost(record, "base")
            ours = cost(record, "adapted")
            start = f"| {case['model']} | {case['batch']} | {case['precision']} "
            if ours is None or base is None:
                lines.append(f"{start}| did not run: {row(record, 'adapted')['error']} | | | | | | | |")
                continue
            lines.append(
                f"{start}| {ours.time} | {ours.overhead:+.1f}% | {_arrow(base.flops, ours.flops, '.2f')} "
                f"(+{100 * ((ours.flops_ratio or 1) - 1):.1f}%) | {_arrow(base.kernels, ours.kernels)} "
                f"| {_arrow(base.syncs, ours.syncs)} | {_arrow(base.peak, ours.peak, '.1f')} "
                f"({ours.peak_ratio:.2f}) | {_arrow(base.milliseconds, ours.milliseconds, '.1f')} "
                f"| {len(row(record, 'base')['seconds'])} |"
            )
        lines.append("")
    moved = [r["moved"] for r in tables]
    lines += [
        f"On average the warps moved points by {100 * min(moved):.2g}% to {100 * max(moved):.2g}% of the "
        "image's side.",
        "",
    ]
    return lines


def _heading(record: Record) -> str:
    case = record["case"]
    precision = "" if case["precision"] == "fp32" else f", {case['precision']}"
    return f"{case['model']}, {case['mode']}, batch {case['batch']}{precision}"


def _rounds(record: Record) -> str:
    return f"{len(row(record, 'base')['seconds'])} rounds"


def _arrow(base: float | None, ours: float | None, form: str = "d") -> str:
    if base is None or ours is None:
        return "-"
    return f"{base:{form}} -> {ours:{form}}"


def _cells(c: Cost | None, this: Record) -> str:
    if c is None:
        return f"| did not run: {this['error']} | | | | | | |"
    own = this["name"] == this["against"]
    against = "" if this["against"] == "base" else f" of `{this['against']}`"
    flops = "-" if c.flops is None else f"{c.flops:.2f}"
    if not own and c.flops_ratio is not None:
        flops += f" ({100 * (c.flops_ratio - 1):+.1f}%)"
    time, overhead = ("1", "") if own else (f"{c.time}{against}", f"{c.overhead:+.1f}%")
    kernels, syncs = ("-" if n is None else str(n) for n in (c.kernels, c.syncs))
    return (
        f"| {time} | {overhead} | {flops} | {kernels} | {syncs} | {c.peak:.1f} ({c.peak_ratio:.2f}) "
        f"| {c.milliseconds:.1f} |"
    )


def times_less(record: Record) -> float | None:
    """Their overhead over ours; 0 where ours is within the noise, None if theirs did not run."""
    ours, theirs = cost(record, "adapted"), cost(record, "authors")
    if ours is None or theirs is None:
        return None
    return theirs.overhead / ours.overhead if ours.time.low > 1 else 0.0


def _goals(records: Sequence[Record]) -> list[str]:
    found: list[tuple[str, str, str]] = []

    def time(what: str, ours: Cost, limit: float) -> None:
        # a median on the right side of the limit says nothing when the quartiles lie on both
        met = "yes" if ours.time.high <= limit else "no" if ours.time.low > limit else "within the noise"
        found.append((what, str(ours.time), met))

    def value(what: str, measured: str, met: bool) -> None:
        found.append((what, measured, "yes" if met else "no"))

    for record in records:
        case = record["case"]
        ours = cost(record, "adapted") if case["group"] == "models" else None
        name = _heading(record)
        if ours is not None and case["mode"] == "training":
            time(f"{name}: at most 1.3 times the time", ours, 1.3)
            value(f"{name}: at most 1.2 times the memory", f"{ours.peak_ratio:.2f}", ours.peak_ratio <= 1.2)
        elif ours is not None:
            limit = _limit(case, record["settings"]["device"])
            if limit is not None:
                time(f"{name}: at most {limit}% overhead", ours, 1 + limit / 100)
        if case["group"] == "authors" and (less := times_less(record)):
            value(f"{name}: the authors' overhead is at least 20 times ours", f"{less:.0f}", less >= 20)
    if not found:
        return []
    lines = ["## Goals", "", "| goal | measured (quartiles of times) | met |", "|---|---|---|"]
    return [*lines, *(f"| {what} | {measured} | {met} |" for what, measured, met in found), ""]


def _limit(case: dict[str, Any], device: str) -> float | None:
    """Percent of overhead that inference may have, where a goal is set."""
    if device != "cpu":
        return 5
    limits = {"vit_small_patch16_224": {8: 5, 1: 10}, "resnet18": {8: 15, 1: 15}}
    return limits.get(case["model"], {}).get(case["batch"])


def _floors(records: Sequence[Record], notes: dict[str, Any]) -> list[str]:
    chosen = [
        r
        for r in records
        if r["case"]["group"] == "models"
        and r["case"]["mode"] == "inference"
        and cost(r, "adapted") is not None
    ]
    if not chosen:
        return []
    speed = notes["bandwidth"]
    lines = [
        "## The floor",
        "",
        "The floor is the least time that the work of the default DEC could take: its FLOPs at the rate that "
        "the base model reaches in the same run, plus the bytes of the features at its sites, each read "
        "twice "
        "and written once, at the speed of a plain copy on this machine "
        f"({speed / 1e9:.1f} GB/s). The last column is all the time added, divided by all kernel calls "
        "added.",
        "",
        "| model | batch | precision | MFLOP added | MB touched | ms by FLOPs | ms by bytes | ms measured "
        "| measured : floor | µs per kernel call |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for record in chosen:
        case, f = record["case"], floor(record, speed)
        each = f"{1e3 * f.measured / f.kernels:.1f}" if f.kernels else "-"
        lines.append(
            f"| {case['model']} | {case['batch']} | {case['precision']} | {f.flops / 1e6:.0f} | "
            f"{f.bytes / 1e6:.1f} | {f.by_flops:.2f} | {f.by_bytes:.2f} | {f.measured:.2f} | "
            f"{f.measured / f.least:.1f} | {each} |"
        )
    return [*lines, ""]
