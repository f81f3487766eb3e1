"""How much an update contracts, against Jacobians written out."""

import pytest
import torch
from torch import Tensor

from lse_core.errors import ShapeError
from lse_dec.canonicalizers import DEC
from lse_dec.contraction import spectral_radius
from lse_dec.updates import Residual

F64 = torch.float64


def problem(seed: int = 0, dim: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(dim, dim, generator=generator, dtype=F64) / dim**0.5
    return w, torch.randn(3, dim, generator=generator, dtype=F64)


def jacobians(w: Tensor, z: Tensor) -> Tensor:
    return torch.stack([torch.autograd.functional.jacobian(lambda t: torch.tanh(t @ w.T), row) for row in z])


@pytest.mark.parametrize("seed", range(3))
def test_spectral_radius_is_the_largest_eigenvalue(seed: int) -> None:
    w, z = problem(seed)
    exact = torch.linalg.eigvals(jacobians(w, z)).abs().amax(1)
    generator = torch.Generator().manual_seed(0)
    found = spectral_radius(lambda t: torch.tanh(t @ w.T), z, iterations=400, generator=generator)
    torch.testing.assert_close(found, exact, rtol=0.03, atol=0)


def test_spectral_radius_of_a_rotation() -> None:
    # complex eigenvalues 0.9 e^(+-0.3i): Rayleigh's quotient would wander below
    angle = torch.tensor(0.3, dtype=F64)
    turn = 0.9 * torch.stack(
        [torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])]
    )
    found = spectral_radius(lambda t: t @ turn.T, torch.zeros(2, 2, dtype=F64))
    torch.testing.assert_close(found, torch.full((2,), 0.9, dtype=F64))


def test_the_decs_own_update_can_be_measured() -> None:
    torch.manual_seed(0)
    dec, x = DEC(4), torch.randn(2, 4, 12, 12)
    update, w0 = dec.problem(x)
    # before training the step of Eq. 16 is zero, and the pull alone is left
    radius = spectral_radius(update, w0)
    torch.testing.assert_close(radius, torch.full((2,), 1.0 - Residual().pull), rtol=1e-4, atol=0)


def test_bad_calls() -> None:
    with pytest.raises(ShapeError, match="at least 2 iterations"):
        spectral_radius(lambda t: t, torch.zeros(1, 2), iterations=1)
