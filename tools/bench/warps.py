"""Measure time and memory of warping, by lse-core and by what torch offers, in one run.

    python tools/bench/warps.py [--device cpu] [--threads 1] [--out docs/results/warps.md]

The two of a pair take turns, so that a busy machine slows both alike; the smallest time of each counts. The
alternative ("rival" in the code) is `F.grid_sample` on the grid of the same warp, evaluated by the same maps,
so both start from the warp; in NHWC it goes through NCHW and back. Memory is the peak of new allocations
during one call.
"""

from __future__ import annotations

import argparse
import gc
import platform
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from answers import write_page
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from lse_core import MonotoneMap, SeparableWarp, Tokens, unscale
from lse_core.resample import pixel_centres

MAPS = ("3x224x224", "64x56x56", "384x14x14")
BATCHES = (8, 128)
SEGMENTS, RATIO = 8, 2.0
Job = Callable[[], object]


def outer(u_x: Tensor, u_y: Tensor) -> Tensor:
    """grid_sample's grid, (B, H, W, 2) in [-1, 1], from the coordinates of each axis."""
    shape = (u_x.shape[0], u_y.shape[1], u_x.shape[1])
    return torch.stack([u_x.unsqueeze(1).expand(shape), u_y.unsqueeze(2).expand(shape)], dim=-1) * 2 - 1


def sample(x: Tensor, grid: Tensor) -> Tensor:
    """The rival, on NCHW."""
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=True)


def channels_last(x: Tensor, grid: Tensor) -> Tensor:
    """The rival, on NHWC."""
    return sample(x.permute(0, 3, 1, 2), grid).permute(0, 2, 3, 1).contiguous()


def pair(
    layout: str, batch: int, shape: tuple[int, int, int], device: str, *, backward: bool
) -> tuple[Job, Job]:
    """Ours and the rival, as calls without arguments."""
    c, h, w = shape
    g = torch.Generator().manual_seed(0)
    x = torch.rand(batch, c, h, w, generator=g).to(device)
    lay: Tokens | str = layout
    if layout != "nchw":
        x = x.permute(0, 2, 3, 1).contiguous()
    if layout == "tokens":
        lay = Tokens((h, w), 0)
    z = torch.randn(batch, 2, SEGMENTS, generator=g).to(device)
    cotangent = torch.rand(x.shape, generator=g).to(device)

    def positions(warp: SeparableWarp) -> tuple[Tensor, Tensor]:
        return warp.x(pixel_centres(w, warp)), warp.y(pixel_centres(h, warp))

    rival = sample if layout == "nchw" else channels_last
    tokens = x.flatten(1, 2) if layout == "tokens" else x
    if not backward:
        warp = SeparableWarp.from_logits(z, RATIO)
        return (lambda: unscale(tokens, warp, lay)), (lambda: rival(x, outer(*positions(warp))))

    def ours() -> None:
        leaf, logits = tokens.detach().requires_grad_(), z.clone().requires_grad_()
        unscale(leaf, SeparableWarp.from_logits(logits, RATIO), lay).backward(cotangent.view(leaf.shape))

    def theirs() -> None:
        leaf, logits = x.detach().requires_grad_(), z.clone().requires_grad_()
        rival(leaf, outer(*positions(SeparableWarp.from_logits(logits, RATIO)))).backward(cotangent)

    return ours, theirs


def seconds(jobs: tuple[Job, Job], device: str, budget: float) -> list[float]:
    """Smallest time of each job, taken in turns."""
    best = [float("inf")] * len(jobs)
    for job in jobs:
        job()
    end = time.perf_counter() + budget
    rounds = 0
    while rounds < 3 or time.perf_counter() < end:
        for i, job in enumerate(jobs):
            if device == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            job()
            if device == "cuda":
                torch.cuda.synchronize()
            best[i] = min(best[i], time.perf_counter() - start)
        rounds += 1
    return best


def peak_bytes(job: Job, device: str) -> int:
    """Peak of what one call allocates beyond what was there before."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        job()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        job()
    now = peak = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


def searchsorted(m: MonotoneMap, u: Tensor) -> Tensor:
    """What evaluation usually is: find the segment, then interpolate."""
    i = torch.searchsorted(m.knots.contiguous(), u.expand(m.batch, -1).contiguous()).clamp(1, m.segments)
    x0, x1, y0, y1 = (t.gather(1, j) for t in (m.knots, m.values) for j in (i - 1, i))
    return y0 + (y1 - y0) * (u - x0) / (x1 - x0)


def row(name: str, jobs: tuple[Job, Job], device: str, budget: float) -> str:
    """One line of a table."""
    ours, theirs = seconds(jobs, device, budget)
    mine, other = (peak_bytes(job, device) / 2**20 for job in jobs)
    line = (
        f"| {name} | {1e3 * ours:.2f} | {1e3 * theirs:.2f} | {theirs / ours:.2f} | {mine:.1f} | {other:.1f} |"
    )
    print(line, flush=True)
    return line


def machine(device: str, threads: int) -> str:
    """What it ran on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            x.split(":")[1].strip() for x in cpuinfo.read_text().splitlines() if x.startswith("model name")
        ]
        model = f"{names[0]}, {len(names)} cores" if names else model
    where = torch.cuda.get_device_name() if device == "cuda" else f"{threads} thread(s)"
    return f"{model}; {where}; torch {torch.__version__}, Python {platform.python_version()}"


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--budget", type=float, default=1.0, help="seconds for each line")
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument(
        "--maps", nargs="+", default=list(MAPS), metavar="CxHxW", help="channels, height, width"
    )
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    head = (
        "| case | ours, ms | alternative, ms | alternative : ours | ours, MiB | alternative, MiB |\n"
        "|---|---|---|---|---|---|"
    )
    text = [
        "# Speed and memory of warps",
        "",
        "**Question.** Is warping by matrix products, as lse-core does it, faster than "
        "`torch.nn.functional.grid_sample`, and",
        "does it need more memory?",
        "",
        '"Alternative : ours" is the time of the alternative divided by ours: above 1, ours is faster.',
    ]
    for backward in (False, True):
        title = f"## Separable warp against F.grid_sample, forward{' and backward' if backward else ''}"
        print(f"\n{title}\n\n{head}")
        text += ["", title, "", head]
        for name in args.maps:
            c, h, w = map(int, name.split("x"))
            for batch in args.batches:
                for layout in ("nchw", "nhwc", "tokens"):
                    jobs = pair(layout, batch, (c, h, w), args.device, backward=backward)
                    text.append(row(f"{name}, batch {batch}, {layout}", jobs, args.device, args.budget))
    title = "## Evaluation of maps against searchsorted and interpolation"
    print(f"\n{title}\n\n{head}")
    text += ["", title, "", head]
    for segments in (4, 8, 64):
        for points in (14, 224):
            m = MonotoneMap.from_logits(torch.randn(128, segments)).to(args.device)
            u = torch.linspace(0, 1, points, device=args.device)
            jobs = (lambda m=m, u=u: m(u)), (lambda m=m, u=u: searchsorted(m, u))  # type: ignore[misc]
            text.append(
                row(f"{segments} segments, {points} points, batch 128", jobs, args.device, args.budget)
            )
    text += [
        "",
        "## How it was measured",
        "",
        f"`{shlex.join(['python', *sys.argv])}` on {machine(args.device, args.threads)}.",
        "",
        "The two take turns, and the smallest time of each counts. Memory is the peak of new allocations "
        "in one "
        "call. Both",
        "start from the warp: the alternative evaluates the same maps, makes its grid of them and, in NHWC "
        "and for "
        "tokens,",
        "goes through NCHW and back.",
    ]
    if args.out:
        write_page(args.out, "\n".join(text) + "\n")


if __name__ == "__main__":
    main()
