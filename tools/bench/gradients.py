"""Measure the memory and time of the gradients through a DEC, and of a DEC compared with Optim.

    python tools/bench/gradients.py --out docs/results/gradients.md
    python tools/bench/gradients.py --device cuda

Memory is what autograd keeps for the backward pass: the bytes of distinct tensors saved in the forward.
On CUDA the peak of the whole step is given too. Times are medians of whole training steps.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from answers import write_page
from torch import Tensor, nn

from lse_dec.canonicalizers import DEC, Optim
from lse_dec.gradients import Gradient, Implicit, Phantom, Unrolled
from lse_dec.solvers import Anderson

STEPS = (5, 10, 20, 40)
GRADIENTS: dict[str, Gradient] = {
    "implicit": Implicit(),
    "phantom (5)": Phantom(steps=5),
    "unrolled": Unrolled(),
}


@dataclass(frozen=True)
class Cost:
    """Of one training step: milliseconds, MiB saved for backward, MiB at the peak (CUDA, else None)."""

    time: float
    saved: float
    peak: float | None


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the page, or print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="file to write; else the page is printed")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    x = torch.randn(options.batch, 96, 56, 56, device=options.device)

    def measure(make: Callable[[], nn.Module]) -> Cost:
        return cost(make().to(options.device), x, options.repeats)

    table = {
        name: [measure(lambda g=g, k=k: dec(96, g, k)) for k in STEPS]  # type: ignore[misc]
        for name, g in GRADIENTS.items()
    }
    rivals = {
        "dec, 5 steps, phantom (5)": measure(lambda: dec(96, Phantom(steps=5), 5)),
        "dec, 5 steps, implicit": measure(lambda: dec(96, Implicit(), 5)),
        **{f"optim, {k} steps": measure(lambda k=k: Optim(96, steps=k)) for k in (5, 20)},  # type: ignore[misc]
    }
    page = report(table, rivals, tuple(x.shape), options.device)
    if options.out is None:
        print(page)
    else:
        write_page(options.out, page)
        print(f"written to {options.out}")


def dec(channels: int, gradient: Gradient, steps: int) -> DEC:
    """A DEC whose update does something."""
    module = DEC(channels, gradient=gradient, steps=steps, solver=Anderson())
    nn.init.normal_(module.update.head.weight, std=0.1)
    return module


def cost(module: nn.Module, x: Tensor, repeats: int) -> Cost:
    """Of forward and backward of a canonicalizer on features `x`."""
    cuda = x.device.type == "cuda"

    def step() -> None:
        warp = module(x).warp
        (warp.x.values.square().sum() + warp.y.values.square().sum()).backward()
        if cuda:
            torch.cuda.synchronize()

    sizes: dict[int, int] = {}

    def keep(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        warp = module(x).warp
        alive = warp.x.values.sum()  # keeps the graph, so that no address is used twice
    del alive
    peak = None
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        peak = (torch.cuda.max_memory_allocated() - before) / 2**20
    step()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - begin))
    return Cost(statistics.median(times), sum(sizes.values()) / 2**20, peak)


def report(table: dict[str, list[Cost]], rivals: dict[str, Cost], shape: tuple[int, ...], device: str) -> str:
    """The page."""
    lines = [
        "# Gradients through the fixed point",
        "",
        "**Question.** How much memory and time does a DEC take in training, by the way its gradient is "
        "computed, and how does",
        "that compare with differentiating through an optimisation (Optim, Eq. 7)?",
        "",
        "MiB that autograd keeps for the backward pass / milliseconds of one forward and backward pass:",
        "",
        "| gradient | " + " | ".join(f"{k} steps" for k in STEPS) + " | memory at 40 steps : at 5 |",
        "|---|" + "---|" * (len(STEPS) + 1),
    ]
    for name, row in table.items():
        cells = " | ".join(f"{c.saved:.2f} / {c.time:.0f}" for c in row)
        lines.append(f"| {name} | {cells} | {row[-1].saved / row[0].saved:.2f} |")
    base = next(iter(rivals.values()))
    lines += [
        "",
        "A DEC compared with Optim in the same run:",
        "",
        "| canonicalizer | MiB kept | milliseconds | memory : first row | time : first row |",
        "|---|---|---|---|---|",
    ]
    for name, c in rivals.items():
        ratios = f"{c.saved / base.saved:.2f} | {c.time / base.time:.2f}"
        lines.append(f"| {name} | {c.saved:.2f} | {c.time:.0f} | {ratios} |")
    if base.peak is not None:
        lines += ["", "Peak memory of one step on the device, in MiB:", ""]
        lines += [f"- {name}: {c.peak:.0f}" for name, c in rivals.items()]
    lines += [
        "",
        "## How it was measured",
        "",
        f"`python tools/bench/gradients.py --device {device}`: one DEC (8 segments, residual rule, Anderson)",
        f"on features of shape {' x '.join(map(str, shape))}, {device}, {threads(device)}torch "
        f"{torch.__version__}.",
        "",
    ]
    return "\n".join(lines)


def threads(device: str) -> str:
    """How many threads the CPU used."""
    return f"{torch.get_num_threads()} threads, " if device == "cpu" else ""


if __name__ == "__main__":
    main()
