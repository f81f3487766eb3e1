"""How much an update contracts near its fixed point."""

from __future__ import annotations

import torch
from torch import Tensor

from lse_core.errors import ShapeError
from lse_core.moved import moved_names
from lse_dec.gradients import Update

__all__ = ["spectral_radius"]


def spectral_radius(
    f: Update, z: Tensor, *, iterations: int = 30, generator: torch.Generator | None = None
) -> Tensor:
    """Largest modulus of the eigenvalues of df/dz at `z`, estimated for every sample, (B,).

    Below 1 naive iteration converges near `z`, the faster the smaller. By the power method; what is
    measured is the mean growth over the later half of the iterations, which, unlike Rayleigh's
    quotient, is right for complex pairs too.

    Args:
        f: the update, (B, D) to (B, D), each sample on its own.
        z: (B, D), floating point, best a fixed point.
        iterations: products with the Jacobian, at least 2.
        generator: of the start vectors, on the device of `z`.

    Raises:
        ShapeError: fewer than 2 iterations.
    """
    if iterations < 2:
        raise ShapeError(f"spectral_radius needs at least 2 iterations; got {iterations}")
    with torch.enable_grad():
        at = z.detach().requires_grad_()
        image = f(at)
        v = _unit(torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype))[0]
        growth = []
        for _ in range(iterations):
            (v,) = torch.autograd.grad(image, at, v, retain_graph=True)
            v, length = _unit(v)
            growth.append(length)
    return torch.stack(growth[iterations // 2 :]).log().mean(0).exp()


def _unit(v: Tensor) -> tuple[Tensor, Tensor]:
    length = v.norm(dim=1)
    return v / length.clamp_min(torch.finfo(v.dtype).tiny).unsqueeze(1), length


__getattr__ = moved_names(__name__)
