"""Every registered solver with every rule inside a DEC: batches, precision, waiting for the device."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lse_core import registry
from lse_dec.canonicalizers import DEC
from lse_dec.solvers import Code, Naive

SOLVERS = ["anderson", "anderson-i", "broyden", "naive"]
THEIRS = ["torchdeq.anderson", "torchdeq.broyden", "torchdeq.fixed_point_iter"]
RULES = ["absolute", "compose", "residual"]


def dec(solver: str, rule: str, **settings: Any) -> DEC:
    torch.manual_seed(0)
    step, update = registry().get("solver", solver)(), registry().get("update", rule)()
    made = DEC(6, solver=step, rule=update, widths=(8, 8), projection=8, **settings)
    nn.init.normal_(made.update.head.weight)
    return made


def features(batch: int = 4) -> Tensor:
    coarse = torch.randn(batch, 6, 4, 4, generator=torch.Generator().manual_seed(1))
    return nn.functional.interpolate(coarse, size=(14, 14), mode="bicubic", align_corners=True)


def test_none_is_forgotten() -> None:
    ours = [n for n in registry().names("solver") if registry().provider("solver", n) == "lse-dec"]
    assert sorted(ours) == sorted(SOLVERS + THEIRS)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("solver", SOLVERS + THEIRS)
@pytest.mark.parametrize("stop_early", [False, True])
def test_alone_and_in_a_batch(solver: str, rule: str, stop_early: bool) -> None:
    # in float64: these updates do not contract, so solvers multiply the convolutions' rounding, which
    # differs with the size of the batch (in float32 up to 1e-3); dependence would be far above 1e-6
    made = dec(solver, rule, steps=8, tol=2e-2, stop_early=stop_early).double()
    x = features().double()
    together = made(x)
    for i in range(len(x)):
        alone = made(x[i : i + 1])
        assert (alone.solution.z[0] - together.solution.z[i]).abs().max() < 1e-6
        assert alone.solution.codes[0] == together.solution.codes[i]


@pytest.mark.parametrize("solver", SOLVERS + THEIRS)
def test_alone_and_in_a_batch_in_single_precision(solver: str) -> None:
    made, x = dec(solver, "absolute"), features()  # contracts with these weights
    together = made(x).solution.z
    for i in range(len(x)):
        assert (made(x[i : i + 1]).solution.z[0] - together[i]).abs().max() < 1e-6


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_nan_stays_in_its_sample(solver: str, rule: str) -> None:
    made, x = dec(solver, rule, steps=6), features()
    clean = made(x).solution
    x[2, 0, 3, 3] = math.nan
    found = made(x).solution
    assert torch.equal(found.z[[0, 1, 3]], clean.z[[0, 1, 3]])
    assert found.codes[2] == Code.NOT_FINITE
    assert found.z.isfinite().all()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_features_with_algebra_in_float32(solver: str, dtype: torch.dtype) -> None:
    made, x = dec(solver, "residual", steps=3), features()
    if solver == "naive":
        made.solver = Naive(damping=0.5)  # undamped it computes nothing
    exact = made(x).warp.x.values
    seen: set[torch.dtype] = set()

    class Algebra(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and out.is_floating_point():
                seen.add(out.dtype)
            return out

    class Watched:
        """The solver, watched: all that it computes must be float32."""

        def __init__(self, solver: Any) -> None:
            self.solver, self.init = solver, solver.init

        def step(self, z: Tensor, fz: Tensor, state: Any) -> Any:
            with Algebra():
                return self.solver.step(z, fz, state)

    made.solver = Watched(made.solver)  # type: ignore[assignment]
    found = made.to(dtype)(x.to(dtype))
    assert seen == {torch.float32}
    assert found.warp.dtype == torch.float32
    assert found.solution.residuals.dtype == torch.float32
    # steps of an update that does not contract multiply the rounding of its features
    assert (found.warp.x.values - exact).abs().max() < 0.05


class NoReadBack(TorchDispatchMode):
    """Raises where an operation waits for the device to tell the host a value."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name.startswith(
            ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "unique", "masked_select")
        ):
            raise AssertionError(f"the host waits for {name}")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("gradient", ["phantom", "implicit", "unrolled"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_training_step_does_not_wait_for_the_device(solver: str, gradient: str) -> None:
    made, x = dec(solver, "compose", gradient=gradient), features().requires_grad_()
    with NoReadBack():
        made(x).warp.x.values.square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0
