"""Per-scale accuracy, residuals, canonicalizers, soft equivariance, the authors' variants, two processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lse_core import SeparableWarp, scale
from lse_core.errors import ShapeError, UnknownNameError
from lse_core.metrics import (
    AccuracyPerScale,
    AuthorsError,
    CanonicalizerEquivarianceError,
    FixedPointResidual,
    SoftEquivarianceError,
    accuracy_per_scale,
    authors_error,
    canonicalizer_equivariance_error,
    fixed_point_residual,
    jacobian_norm,
    soft_equivariance_error,
)

BRACKETS = [(0.4, 1.0), (1.0, 2.0), (2.0, 3.0)]


def answers(shares: list[float], n: int = 10000) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions, targets and scales with the given accuracy in each bracket."""
    right = torch.cat([torch.arange(n) < round(s * n) for s in shares])
    scales = torch.cat([torch.linspace(low, high - 1e-3, n) for low, high in BRACKETS])
    return right.long(), torch.ones(3 * n, dtype=torch.long), scales


@pytest.mark.parametrize(
    ("row", "overall"),
    [
        ([91.64, 96.32, 93.84], (93.93, 1.91)),
        ([90.16, 95.39, 90.54], (92.03, 2.38)),
        ([95.14, 97.81, 96.64], (96.53, 1.09)),
    ],
    ids=["Aug", "Canon", "Ours"],
)
def test_mean_and_spread_are_those_of_table_3(row: list[float], overall: tuple[float, float]) -> None:
    result = accuracy_per_scale(*answers([r / 100 for r in row]), BRACKETS)
    assert (100 * result.accuracy).tolist() == pytest.approx(row, abs=1e-4)
    assert 100 * float(result.mean) == pytest.approx(overall[0], abs=0.01)
    assert 100 * float(result.std) == pytest.approx(overall[1], abs=0.01)


def test_accuracy_per_scale_against_a_loop() -> None:
    g = torch.Generator().manual_seed(0)
    scores, targets = torch.rand(200, 5, generator=g), torch.randint(0, 5, (200,), generator=g)
    scales = 0.3 + 3 * torch.rand(200, generator=g)
    scales[0], scales[1] = 3.0, 1.0  # the last bracket has its upper end, others do not
    result = accuracy_per_scale(scores, targets, scales, BRACKETS)
    for k, (low, high) in enumerate(BRACKETS):
        hits = [
            int(scores[n].argmax()) == int(targets[n])
            for n in range(200)
            if low <= float(scales[n]) < high or (high == 3.0 and float(scales[n]) == 3.0)
        ]
        assert float(result.accuracy[k]) == pytest.approx(sum(hits) / len(hits))
        assert int(result.samples[k]) == len(hits)
    empty = accuracy_per_scale(scores, targets, scales, [*BRACKETS, (5.0, 6.0)])
    assert bool(empty.accuracy[3].isnan())
    assert bool(empty.mean.isfinite())
    for bad in ([], [(2.0, 1.0)]):
        with pytest.raises(ShapeError, match="brackets must be ranges"):
            accuracy_per_scale(scores, targets, scales, bad)
    with pytest.raises(ShapeError, match="must agree"):
        accuracy_per_scale(scores, targets, scales[:5], BRACKETS)


def test_fixed_point_residual() -> None:
    z, h = torch.rand(3, 2, 4), torch.rand(3, 2, 4)
    for n in range(3):
        rms = ((h[n] - z[n]) ** 2).mean().sqrt()
        assert float(fixed_point_residual(z, h)[n]) == pytest.approx(float(rms))
        size = (h[n] ** 2).mean().sqrt()
        assert float(fixed_point_residual(z, h, relative=True)[n]) == pytest.approx(float(rms / size))
    zero = torch.zeros(1, 2)
    assert fixed_point_residual(zero, zero, relative=True).tolist() == [0.0]
    with pytest.raises(ShapeError, match="must agree"):
        fixed_point_residual(z, h[:2])


def test_canonicalizer_error_is_nil_for_an_equivariant_answer_only() -> None:
    g, h = (SeparableWarp.random(4, 5, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    assert float(canonicalizer_equivariance_error(h, g @ h, g).max()) <= 1e-6
    wrong = canonicalizer_equivariance_error(h, h @ g, g)
    assert float(wrong.min()) > 0.01
    invariant = canonicalizer_equivariance_error(h, h, g)
    assert torch.allclose(invariant, h.distance(g @ h))


def convolution() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(3, 2, 1))


def test_jacobian_norm_exact_and_estimated() -> None:
    model, x = convolution(), torch.rand(3, 2, 5, 6)
    exact = jacobian_norm(model, x, probes=None)
    for n in range(3):
        jacobian = torch.autograd.functional.jacobian(model, x[n : n + 1])
        assert float(exact[n]) == pytest.approx(float(jacobian.norm()), rel=1e-5)
    estimate = jacobian_norm(model, x, probes=200, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(estimate, exact, rtol=0.1)
    with pytest.raises(ShapeError, match="at least one probe"):
        jacobian_norm(model, x, probes=0)


def test_soft_equivariance_error_is_its_definition_and_scale_free() -> None:
    model, x = convolution(), torch.rand(3, 2, 8, 9)
    warp = SeparableWarp.random(3, 3, 3.0, generator=torch.Generator().manual_seed(0))
    got = soft_equivariance_error(model, x, warp, probes=None)
    for n in range(3):
        one, w = x[n : n + 1], warp[n]
        violation = (model(scale(one, w)) - scale(model(one), w)).norm()
        jacobian = torch.autograd.functional.jacobian(model, one).norm()
        assert float(got[n]) == pytest.approx(float((violation / jacobian / one.norm()).detach()), rel=1e-4)
    louder = soft_equivariance_error(lambda t: 7 * model(t), x, warp, probes=None)
    assert torch.allclose(louder, got, rtol=1e-4)
    pointwise = soft_equivariance_error(lambda t: 2 * t, x, warp, probes=None)
    assert float(pointwise.max()) < 1e-6
    pooled = soft_equivariance_error(lambda t: t.mean((2, 3)), x, warp, invariant=True, probes=None)
    assert float(pooled.min()) > 0


def test_the_authors_variants() -> None:
    a, b = torch.randn(4, 6), torch.randn(4, 6)
    p, q = a.softmax(1), b.softmax(1)
    norms = torch.stack([(p[n] - q[n]).square().sum().sqrt() for n in range(4)])
    assert torch.allclose(authors_error(a, b, "norm", reduction="none"), norms)
    relative = torch.stack([norms[n] / p[n].square().sum().sqrt() for n in range(4)])
    assert torch.allclose(authors_error(a, b, "relative", reduction="none"), relative)
    variants = torch.randn(4, 3, 6)
    rows = []
    for n in range(4):
        everything = torch.cat([a[n : n + 1], variants[n]]).softmax(1)  # the reference comes first
        rows.append(torch.stack([(e - everything[0]).norm() for e in everything]).mean())
    assert float(authors_error(a, variants, "norm_with_reference")) == pytest.approx(
        float(torch.stack(rows).mean()), rel=1e-5
    )
    warp = SeparableWarp.random(4, 3)
    maps, maps_s = torch.randn(4, 6, 5, 7), torch.randn(4, 6, 5, 7)
    got = authors_error(maps, maps_s, "norm", warp=warp, reduction="none")
    difference = F.softmax(scale(maps, warp), 1) - F.softmax(maps_s, 1)
    for n in range(4):
        assert float(got[n]) == pytest.approx(float((difference[n].square().sum() / 35).sqrt()), rel=1e-5)
    with pytest.raises(UnknownNameError, match="unknown variant 'squared'"):
        authors_error(a, b, "squared")
    with pytest.raises(ShapeError, match="takes no warp"):
        authors_error(maps, maps_s, "relative", warp=warp)
    with pytest.raises(ShapeError, match="do not fit variant 'norm'"):
        authors_error(a, variants)


def test_classes_agree_with_functions_over_unequal_batches() -> None:
    g = torch.Generator().manual_seed(0)
    z, h = torch.rand(5, 3, generator=g), torch.rand(5, 3, generator=g)
    warps = [SeparableWarp.random(5, 3, generator=g) for _ in range(3)]
    scores, targets, scales = torch.rand(5, 4, generator=g), torch.arange(5) % 4, torch.linspace(0.5, 3, 5)
    model, x = convolution(), torch.rand(5, 2, 4, 4, generator=g)
    exact = {"probes": None}
    metrics = [FixedPointResidual(), CanonicalizerEquivarianceError("rms"), AuthorsError("relative")]
    accuracy, soft = AccuracyPerScale(BRACKETS), SoftEquivarianceError(exact)
    for part in (slice(0, 1), slice(1, 5)):
        metrics[0].update(z[part], h[part])
        metrics[1].update(*(w[part] for w in warps))
        metrics[2].update(z[part], h[part])
        accuracy.update(scores[part], targets[part], scales[part])
        soft.update(model, x[part], warps[0][part])
    expected = [
        fixed_point_residual(z, h).mean(),
        canonicalizer_equivariance_error(*warps, kind="rms").mean(),
        authors_error(z, h, "relative"),
    ]
    for metric, want in zip(metrics, expected, strict=True):
        assert float(metric.compute()) == pytest.approx(float(want), rel=1e-5)
    want = soft_equivariance_error(model, x, warps[0], probes=None).mean()
    assert float(soft.compute()) == pytest.approx(float(want), rel=1e-4)
    assert torch.equal(
        accuracy.compute().accuracy.nan_to_num(),
        accuracy_per_scale(scores, targets, scales, BRACKETS).accuracy.nan_to_num(),
    )


# two processes ----------------------------------------------------------------------------------

WORKER = """
import json, sys
import torch
import torch.distributed as dist
from lse_core import EquivarianceError, InvarianceError, SeparableWarp
from lse_core.metrics import AccuracyPerScale, CanonicalizerEquivarianceError, FixedPointResidual

def numbers(parts):
    g = torch.Generator().manual_seed(0)
    a, b = torch.rand(7, 2, 5, 6, generator=g), torch.rand(7, 2, 5, 6, generator=g)
    w, v = (SeparableWarp.random(7, 3, generator=g) for _ in range(2))
    equivariance, invariance = EquivarianceError(), InvarianceError()
    residual, canonical = FixedPointResidual(), CanonicalizerEquivarianceError()
    accuracy = AccuracyPerScale([(0.0, 1.0), (1.0, 2.0)])
    for part in parts:
        equivariance.update(a[part], b[part], w[part])
        invariance.update(a[part], b[part])
        residual.update(a[part], b[part])
        canonical.update(w[part], v[part], w[part])
        accuracy.update(a[part, 0, 0], torch.arange(7)[part] % 3, torch.linspace(0, 2, 7)[part])
    out = [float(m.compute()) for m in (equivariance, invariance, residual, canonical)]
    return out + [float(accuracy.compute().mean), float(accuracy.compute().std)]

torch.set_num_threads(1)
rank = int(sys.argv[1])
alone = numbers([slice(0, 7)])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
# unequal shares, so that a mean of the processes' means is wrong; the first process has more batches
shares = [[slice(0, 2), slice(2, 5)], [slice(5, 7)]]
print("RESULT " + json.dumps([alone, numbers(shares[rank])]))
"""


def test_two_processes_give_the_numbers_of_one(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)

    def start(rank: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(script), str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        )

    running = [start(0), start(1)]
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        line = next(x for x in out.splitlines() if x.startswith("RESULT "))
        alone, together = json.loads(line.removeprefix("RESULT "))
        assert together == pytest.approx(alone, rel=1e-6)
        assert all(x > 0 for x in alone)
