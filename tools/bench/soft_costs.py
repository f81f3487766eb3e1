"""Measure the cost of the singular values of token mixing and of one projection, by route and grid.

    python tools/bench/soft_costs.py

Each line runs in a process of its own, one thread; memory is the growth of its peak. The route of the paper,
an SVD of L, is timed up to 7 x 7 and extrapolated by n^12: it is cubic, and L has n^4 rows.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lse_soft.generators import rotation_generator
from lse_soft.groups import LocalScale, Rigid
from lse_soft.spectra import NormalForm, NormalSpectrum, Spectrum
from lse_soft.thresholds import factors, softness_for

SVD_SIDES = (5, 6, 7)


def skew(n: int) -> Spectrum:
    """The rotation's generator by the Hermitian eigenvalue problem."""
    form = NormalForm.skew(rotation_generator((n, n)))
    return NormalSpectrum(form, form)


def schur(n: int) -> Spectrum:
    """The same by its real Schur form."""
    form = NormalForm.schur(rotation_generator((n, n)))
    return NormalSpectrum(form, form)


def kronecker(n: int) -> Spectrum:
    """Local scaling, all fields."""
    found = LocalScale(method="lie").mixing((n, n), (n, n))
    assert found is not None
    return found


def sampled(n: int) -> Spectrum:
    """Local scaling, 64 sampled warps."""
    found = LocalScale().mixing((n, n), (n, n))
    assert found is not None
    return found


def rigid(n: int) -> Spectrum:
    """Rotations and translations, a polynomial of degree 80."""
    found = Rigid().mixing((n, n), (n, n))
    assert found is not None
    return found


ROUTES: dict[str, tuple[Callable[[int], Spectrum], tuple[int, ...], str]] = {
    "eigh of iA": (skew, (14, 16, 28), "rotation"),
    "Schur": (schur, (14, 16, 28), "rotation"),
    "Kronecker sum, all fields": (kronecker, (14, 16, 28), "local scaling"),
    "Kronecker sum, sampled": (sampled, (14, 16, 28), "local scaling"),
    "Chebyshev, degree 80": (rigid, (14,), "rigid motions"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--one", nargs=2, metavar=("ROUTE", "SIDE"), help="measure one line, print JSON")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.one:
        print(json.dumps(one(options.one[0], int(options.one[1]))))
        return
    print("| route | group | grid | spectrum, s | one projection, ms | extra memory, MiB |")
    print("|---|---|---|---|---|---|")
    for route, (_, sides, group) in ROUTES.items():
        for side in sides:
            command = [sys.executable, __file__, "--one", route, str(side)]
            found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            costs = f"{found['build']:.3f} | {1e3 * found['apply']:.1f} | {found['memory']:.0f}"
            print(f"| {route} | {group} | {side} x {side} | {costs} |", flush=True)
    seconds = {n: svd(n) for n in SVD_SIDES}
    for n, s in seconds.items():
        print(f"| SVD of L | rotation | {n} x {n} | {s:.2f} | | |")
    last = SVD_SIDES[-1]
    print(f"| SVD of L, by n^12 | rotation | 14 x 14 | {seconds[last] * (14 / last) ** 12:,.0f} | | |")


def one(route: str, side: int) -> dict[str, float]:
    """Seconds to build and to apply, and the growth of the peak in MiB."""
    make = ROUTES[route][0]
    warm = make(4)
    apply(warm, torch.randn(16, 16))
    before = peak()
    start = time.perf_counter()
    spectrum = make(side)
    built = time.perf_counter() - start
    return {
        "build": built,
        "apply": apply(spectrum, torch.randn(side**2, side**2)),
        "memory": peak() - before,
    }


def apply(spectrum: Spectrum, weight: Tensor) -> float:
    """Seconds of one projection in float32, the best of three."""
    b = softness_for(spectrum.values(), 0.5)
    filter_ = spectrum.filter(lambda s: factors(s, b, "cosine")).float()
    times = []
    with torch.no_grad():
        for _ in range(3):
            start = time.perf_counter()
            filter_(weight)
            times.append(time.perf_counter() - start)
    return min(times)


def peak() -> float:
    """Peak of the resident memory so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def svd(n: int) -> float:
    """Seconds for the singular vectors of L on (n^2, n^2) weights."""
    a = rotation_generator((n, n))
    one_ = torch.eye(n * n, dtype=torch.float64)
    whole = torch.kron(a.T.contiguous(), one_) - torch.kron(one_, a)
    start = time.perf_counter()
    torch.linalg.svd(whole)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
