"""torchdeq's solvers by name, ours in torchdeq."""

import math
import subprocess
import sys
from typing import Any

import pytest
import timm
import torch
from torch import Tensor
from torchdeq import get_deq
from torchdeq.solver import get_solver

import lse_dec
from lse_core import registry
from lse_core.errors import LSEError
from lse_dec.solvers import (
    Anderson,
    Code,
    TorchDEQAnderson,
    TorchDEQBroyden,
    TorchDEQNaive,
    register,
    solve,
)

F64 = torch.float64
THEIRS = {
    "fixed_point_iter": TorchDEQNaive(),
    "anderson": TorchDEQAnderson(lam=1e-10),
    "broyden": TorchDEQBroyden(),
}


def f(z: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    a = torch.randn(6, 6, generator=generator, dtype=F64)
    return torch.tanh(z @ (0.7 * a / torch.linalg.matrix_norm(a, 2)).T + torch.arange(6, dtype=F64) / 6)


def start(batch: int = 4) -> Tensor:
    return torch.randn(batch, 6, generator=torch.Generator().manual_seed(1), dtype=F64)


@pytest.mark.parametrize("name", THEIRS)
def test_theirs_in_our_driver(name: str) -> None:
    found = solve(f, start(), THEIRS[name], steps=60, tol=1e-6)
    assert found.steps == 60  # every evaluation is counted
    assert (found.codes == Code.CONVERGED).all()
    assert (found.z - solve(f, start(), Anderson(), steps=60).z).abs().max() < 1e-5
    assert torch.equal(found.residual, found.residuals.amin(0))


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("steps", [3, 4, 7])
def test_steps_are_evaluations(name: str, steps: int) -> None:
    assert solve(f, start(), THEIRS[name], steps=steps).steps == steps


@pytest.mark.parametrize("name", THEIRS)
def test_no_sample_depends_on_its_mates(name: str) -> None:
    z0 = start()
    z0[0] = solve(f, z0[:1], Anderson(), steps=60).z[0]
    together = solve(f, z0, THEIRS[name], steps=20)
    for i in range(4):
        assert (solve(f, z0[i : i + 1], THEIRS[name], steps=20).z[0] - together.z[i]).abs().max() < 1e-6


@pytest.mark.parametrize("name", ["fixed_point_iter", "broyden"])
def test_a_nan_is_reported_where_it_is(name: str) -> None:
    poison = torch.zeros(4, 1, dtype=F64)
    poison[2] = math.nan
    found = solve(lambda z: f(z) + poison, start(), THEIRS[name], steps=40, tol=1e-6)
    assert found.codes.tolist() == [0, 0, Code.NOT_FINITE, 0]
    assert torch.equal(found.z[2], start()[2])


def test_too_few_steps_are_refused_and_not_ignored() -> None:
    with pytest.raises(LSEError, match=r"torchdeq.anderson needs at least 3 steps; got 2"):
        solve(f, start(), TorchDEQAnderson(), steps=2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: TorchDEQAnderson(m=1),
        lambda: TorchDEQAnderson(lam=0.0),
        lambda: TorchDEQNaive(tau=0.0),
        lambda: TorchDEQBroyden(memory=0),
    ],
)
def test_settings_refused(make: Any) -> None:
    with pytest.raises(LSEError):
        make()


def test_by_name_in_a_model() -> None:
    names = [n for n in registry().names("solver") if n.startswith("torchdeq.")]
    assert names == ["torchdeq.anderson", "torchdeq.broyden", "torchdeq.fixed_point_iter"]
    for name in names:
        model = timm.create_model("resnet10t", num_classes=3).eval()
        adapted = lse_dec.adapt(model, "layer2", solver=name)
        out = adapted(torch.randn(2, 3, 64, 64))
        out.sum().backward()
        assert all(p.grad is not None for p in adapted.canonicalizer_parameters())


# ours in theirs -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def registered() -> None:
    register()


def test_torchdeqs_registry_is_changed_only_when_asked() -> None:
    code = (
        "import lse_dec.solvers; from torchdeq.solver import get_solver\n"
        "try: get_solver('lse.anderson')\n"
        "except Exception: lse_dec.solvers.register()\n"
        "else: raise SystemExit('registered by the import')\n"
        "assert callable(get_solver('lse.anderson'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", ["naive", "anderson", "anderson-i", "broyden"])
@pytest.mark.parametrize("stop_mode", ["abs", "rel"])
def test_ours_as_torchdeq_calls_solvers(name: str, stop_mode: str) -> None:
    z0 = start().view(4, 2, 3)
    found, _, info = get_solver(f"lse.{name}")(
        lambda z: f(z.flatten(1)).view_as(z), z0, max_iter=80, tol=1e-8, stop_mode=stop_mode
    )
    assert found.shape == z0.shape
    error = (f(found.flatten(1)) - found.flatten(1)).norm(dim=1)
    size = found.flatten(1).norm(dim=1) if stop_mode == "rel" else 1.0
    assert (error / size < 1e-8).all()
    assert (info[f"{stop_mode}_lowest"] <= 1e-8).all()
    assert info["abs_trace"].shape[1] == int(info["nstep"][0]) < 80


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("ift", [False, True])
def test_ours_inside_a_torchdeq_model(ift: bool) -> None:
    deq = get_deq(f_solver="lse.anderson", b_solver="lse.anderson", ift=ift, f_tol=1e-9, b_tol=1e-9)
    x = torch.zeros(4, 6, dtype=F64, requires_grad=True)
    out, info = deq(lambda z: f(z) + 0.1 * x, start())
    out[-1].sum().backward()
    assert (info["abs_lowest"] < 1e-8).all()
    assert x.grad is not None
    assert x.grad.abs().max() > 0


@pytest.mark.usefixtures("registered")
def test_what_ours_do_not_know_they_refuse() -> None:
    ours = get_solver("lse.anderson")
    with pytest.raises(LSEError, match="unexpected keyword argument 'lam'"):
        ours(f, start(), lam=1e-3)
    with pytest.raises(LSEError, match="stop_mode"):
        ours(f, start(), stop_mode="relative")
    with pytest.raises(LSEError, match="keeps the best iterate"):
        ours(f, start(), return_final=True)
