"""Solvers on problems whose fixed points torchdeq's own solvers know too."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchdeq.solver import get_solver

from lse_core.errors import ConvergenceError, LSEError, ShapeError
from lse_dec.solvers import Anderson, AndersonI, Broyden, Code, Naive, Solver, solve
from lse_dec.solvers.anderson import eliminate

SOLVERS: dict[str, Solver] = {
    "naive": Naive(),
    "anderson": Anderson(),
    "anderson-i": AndersonI(),
    "broyden": Broyden(),
}
TORCHDEQ = {name: name.partition("-")[0] for name in SOLVERS} | {"naive": "fixed_point_iter"}


def contraction(kind: str, dim: int = 12, dtype: torch.dtype = torch.float64) -> Callable[[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(5)
    a = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    a = (0.8 * a / torch.linalg.matrix_norm(a, 2)).to(dtype)
    b = torch.randn(dim, generator=generator, dtype=torch.float64).to(dtype)
    if kind == "linear":
        return lambda z: z @ a.T + b
    if kind == "tanh":
        return lambda z: torch.tanh(z @ a.T + b)
    return lambda z: 0.8 * torch.cos(z @ a.T) + b


def start(batch: int = 4, dim: int = 12, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(batch, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("kind", ["linear", "tanh", "cos"])
@pytest.mark.parametrize("name", SOLVERS)
def test_same_fixed_point_as_torchdeq(kind: str, name: str) -> None:
    f, z0 = contraction(kind), start()
    ours = solve(f, z0, SOLVERS[name], steps=120, tol=1e-9)
    # torchdeq's Anderson stalls with its absolute regularisation, so it gets a smaller one
    theirs, _, _ = get_solver(TORCHDEQ[name])(f, z0, max_iter=120, tol=1e-9, lam=1e-12)
    assert (ours.codes == Code.CONVERGED).all()
    assert (ours.z - theirs).abs().max() < 1e-5
    assert (f(ours.z) - ours.z).abs().max() < 1e-8  # a root on its own account


@pytest.mark.parametrize("name", sorted(SOLVERS.keys() - {"naive"}))
def test_acceleration_needs_fewer_steps_than_naive(name: str) -> None:
    f, z0 = contraction("tanh"), start()
    naive = solve(f, z0, Naive(), steps=12)
    fast = solve(f, z0, SOLVERS[name], steps=12)
    assert (fast.residual < 0.2 * naive.residual).all()


def test_the_linear_problem_is_solved_by_algebra() -> None:
    f = contraction("linear")
    eye = torch.eye(12, dtype=torch.float64)
    b = f(torch.zeros(1, 12, dtype=torch.float64))
    a = (f(eye) - b).T
    exact = torch.linalg.solve(eye - a, b.squeeze(0))
    assert (solve(f, start(), Anderson(), steps=60).z - exact).abs().max() < 1e-9


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("stop_early", [False, True])
def test_alone_and_in_a_batch_are_equal(name: str, stop_early: bool) -> None:
    f, z0 = contraction("tanh", dtype=torch.float32), start(5, dtype=torch.float32)
    z0[0] = solve(f, z0[:1], Anderson(), steps=60).z[0]  # one has converged before the others start
    options: dict[str, Any] = {"steps": 25, "tol": 1e-4, "stop_early": stop_early}
    together = solve(f, z0, SOLVERS[name], **options)
    for i in range(5):
        alone = solve(f, z0[i : i + 1], SOLVERS[name], **options)
        assert (alone.z[0] - together.z[i]).abs().max() < 1e-6
        assert alone.codes[0] == together.codes[i]


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_sample_stays_alone(name: str, bad: float) -> None:
    f, z0 = contraction("tanh"), start()
    poison = torch.zeros(4, 1, dtype=torch.float64)
    poison[2] = bad
    solution = solve(lambda z: f(z) + poison, z0, SOLVERS[name], steps=40, tol=1e-6)
    clean = solve(f, z0, SOLVERS[name], steps=40, tol=1e-6)
    others = [0, 1, 3]
    assert torch.equal(solution.z[others], clean.z[others])
    assert torch.equal(solution.codes[others], clean.codes[others])
    assert solution.codes[2] == Code.NOT_FINITE
    assert torch.equal(solution.z[2], z0[2])
    assert solution.residual[2] == math.inf


@pytest.mark.parametrize("name", SOLVERS)
def test_one_bad_step_keeps_the_best_iterate(name: str) -> None:
    f, z0 = contraction("tanh"), start()
    calls = 0

    def flaky(z: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        out = f(z)
        return torch.cat([out[:1] * math.nan, out[1:]]) if calls == 4 else out

    solution = solve(flaky, z0, SOLVERS[name], steps=6)
    before = solve(f, z0, SOLVERS[name], steps=3)
    assert solution.residuals[3, 0].isnan()
    assert solution.z.isfinite().all()
    assert solution.residual[0] <= before.residual[0]
    assert solution.codes[0] != Code.NOT_FINITE


@pytest.mark.parametrize("name", SOLVERS)
def test_recovers_once_the_update_is_finite_again(name: str) -> None:
    f, z0 = contraction("tanh"), start()
    calls = 0

    def flaky(z: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return f(z) * (math.nan if calls == 3 else 1.0)

    solution = solve(flaky, z0, SOLVERS[name], steps=60, tol=1e-6)
    assert (solution.codes == Code.CONVERGED).all()


@pytest.mark.parametrize("name", SOLVERS)
def test_best_so_far_where_there_is_no_fixed_point(name: str) -> None:
    def f(z: Tensor) -> Tensor:
        return z + 1.0 + z.square()

    solution = solve(f, start(), SOLVERS[name], steps=30)
    assert solution.z.isfinite().all()
    assert torch.equal(solution.residual, solution.residuals.nan_to_num(math.inf).amin(0))
    assert (solution.codes == Code.STEPS_SPENT).all()


@pytest.mark.parametrize("name", SOLVERS)
def test_residual_is_that_of_the_iterate_whose_image_is_returned(name: str) -> None:
    f = contraction("cos")
    seen: list[Tensor] = []

    def spy(z: Tensor) -> Tensor:
        seen.append(z)
        return f(z)

    solution = solve(spy, start(), SOLVERS[name], steps=7)
    assert solution.steps == 7 == len(seen)
    iterates = torch.stack(seen)
    residuals = (torch.stack([f(z) for z in seen]) - iterates).square().mean(-1).sqrt()
    torch.testing.assert_close(solution.residuals, residuals)
    best = residuals.argmin(0)
    for i, k in enumerate(best.tolist()):
        torch.testing.assert_close(solution.z[i], f(iterates[k])[i])


@pytest.mark.parametrize("name", SOLVERS)
def test_stop_early_agrees_with_the_full_run(name: str) -> None:
    f, z0 = contraction("tanh"), start()
    early = solve(f, z0, SOLVERS[name], steps=100, tol=1e-8, stop_early=True)
    full = solve(f, z0, SOLVERS[name], steps=100, tol=1e-8)
    assert early.steps < full.steps == 100
    assert (early.codes == Code.CONVERGED).all()
    assert (early.residual <= 1e-8).all()
    assert (early.z - full.z).abs().max() < 1e-6
    # the run is the same one, only shorter
    assert torch.equal(early.residuals, full.residuals[: early.steps])


def test_relative_tolerance_counts() -> None:
    f, z0 = contraction("linear"), start()
    scaled = solve(lambda z: 1e6 * f(z / 1e6), 1e6 * z0, Anderson(), steps=100, tol=0.0, rtol=1e-6)
    assert (scaled.codes == Code.CONVERGED).all()
    by_absolute = solve(lambda z: 1e6 * f(z / 1e6), 1e6 * z0, Anderson(), steps=8, tol=1e-6)
    assert (by_absolute.codes == Code.STEPS_SPENT).all()
    early = solve(f, z0, Anderson(), steps=100, tol=0.0, rtol=1e-3, stop_early=True)
    assert early.steps < 100
    assert (early.residual <= 1e-3 * early.z.square().mean(-1).sqrt()).all()


@pytest.mark.parametrize("name", SOLVERS)
def test_throw_names_what_failed(name: str) -> None:
    f, z0 = contraction("tanh"), start()
    with pytest.raises(ConvergenceError, match=r"4 of 4 solves failed after 2 steps: all steps spent"):
        solve(f, z0, SOLVERS[name], steps=2, tol=1e-12, throw=True)
    with pytest.raises(ConvergenceError, match="no finite value"):
        solve(lambda z: z * math.nan, z0, SOLVERS[name], steps=2, throw=True)
    assert solve(f, z0, SOLVERS[name], steps=100, tol=1e-6, throw=True).steps == 100


def test_codes_have_words() -> None:
    assert len({code.text for code in Code}) == len(Code) == 3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Anderson(m=0), "m must be 1 to 5"),
        (lambda: Anderson(m=6), "m must be 1 to 5"),
        (lambda: Anderson(damping=0.0), "damping must be above 0"),
        (lambda: Anderson(regularisation=-1.0), "regularisation"),
        (lambda: Anderson(max_step=math.nan), "max_step"),
        (lambda: Broyden(memory=0), "memory must be at least 1"),
        (lambda: Broyden(max_step=0.0), "max_step"),
        (lambda: Broyden(backtracks=4), "the line search .* was removed; .* smaller max_step"),
        (lambda: AndersonI(m=6), "m must be 1 to 5"),
        (lambda: Naive(damping=-0.5), "damping"),
        (lambda: Naive(damping=math.nan), "damping"),
    ],
)
def test_settings_refused(make: Callable[[], Solver], words: str) -> None:
    with pytest.raises(LSEError, match=words):
        make()


def test_settings_that_do_not_exist_are_refused() -> None:
    with pytest.raises(TypeError):
        Anderson(lam=1e-3)  # type: ignore[call-arg]


def test_bad_calls_refused() -> None:
    f = contraction("tanh")
    with pytest.raises(ShapeError, match="at least 1 step"):
        solve(f, start(), Naive(), steps=0)
    with pytest.raises(ShapeError, match=r"\(batch, D\)"):
        solve(f, torch.zeros(3), Naive())


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
def test_anderson_of_every_depth(m: int) -> None:
    f, z0 = contraction("tanh"), start()
    assert (solve(f, z0, Anderson(m=m), steps=100, tol=1e-8).codes == Code.CONVERGED).all()


def test_anderson_goes_below_an_absolute_regularisation() -> None:
    f, z0 = contraction("tanh"), start()
    assert (solve(f, z0, Anderson(), steps=60).residual < 1e-10).all()


@pytest.mark.parametrize("name", SOLVERS)
def test_started_at_the_fixed_point_nothing_moves(name: str) -> None:
    # every difference is zero then: singular systems must be survived
    solution = solve(lambda z: torch.ones_like(z), torch.ones(2, 6), SOLVERS[name], steps=8)
    assert torch.equal(solution.z, torch.ones(2, 6))
    assert (solution.residual == 0).all()


@pytest.mark.parametrize("name", SOLVERS)
def test_no_value_is_read_back_from_the_device(name: str) -> None:
    # the meta device holds no values: reading one raises
    solution = solve(lambda z: torch.tanh(z), torch.zeros(3, 5, device="meta"), SOLVERS[name], steps=6)
    assert solution.z.shape == (3, 5)
    assert solution.residuals.shape == (6, 3)


class NoReadBack(TorchDispatchMode):
    """Raises where an operation waits for the device to tell the host a value."""

    WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "unique", "masked_select")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name.startswith(self.WAITS):
            raise AssertionError(f"the host waits for {name}")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", SOLVERS)
def test_fixed_steps_do_not_wait_for_the_device(name: str) -> None:
    f, z0 = contraction("tanh"), start()
    with NoReadBack():
        solution = solve(f, z0, SOLVERS[name], steps=14, tol=1e-3)
    assert (solution.residual < 1e-3).any()
    # and the check can fail: a solve that stops early asks once a step
    with NoReadBack(), pytest.raises(AssertionError, match="_local_scalar_dense"):
        solve(f, z0, SOLVERS[name], steps=14, stop_early=True)


def test_type_one_is_broydens_step_after_one_difference() -> None:
    """With one difference type I makes Broyden's good update, type II the bad one."""
    f, z0 = contraction("tanh"), start()
    second = f(z0)
    g0, g1 = f(z0) - z0, f(second) - second
    s, y = second - z0, g1 - g0
    third = second + g1 - (s + y) * ((s * g1).sum(1) / (s * y).sum(1)).unsqueeze(1)
    for solver in (AndersonI(m=1, regularisation=1e-30), Broyden()):
        state = solver.init(z0)
        z, state = solver.step(z0, f(z0), state)
        z, state = solver.step(z, f(z), state)
        torch.testing.assert_close(z, third, rtol=1e-9, atol=1e-9)


def test_broyden_begins_anew_when_its_memory_is_full() -> None:
    # more directions than memory: with only the oldest update dropped this took over 60 steps
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    a = a + a.T
    a = 0.99 * a / torch.linalg.matrix_norm(a, 2)
    found = solve(lambda z: z @ a + 1.0, start(), Broyden(memory=6), steps=60, tol=1e-4)
    assert (found.codes == Code.CONVERGED).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), m=st.integers(1, 5), batch=st.integers(1, 4))
def test_elimination_is_a_linear_solve(seed: int, m: int, batch: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    r, k = torch.randn(2, batch, m, m, generator=generator, dtype=torch.float64)
    # positive definite, with an antisymmetric part as Anderson's type I has it
    a = r @ r.transpose(1, 2) + 0.1 * torch.eye(m, dtype=torch.float64) + k - k.transpose(1, 2)
    b = torch.randn(batch, m, generator=generator, dtype=torch.float64)
    assert torch.allclose(
        eliminate(torch.cat([a, b.unsqueeze(-1)], -1)), torch.linalg.solve(a, b), rtol=1e-8, atol=1e-8
    )
