"""How much an update contracts, and what makes it contract more."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchdeq.loss import jac_reg

from lse_core.errors import ShapeError

__all__ = ["jacobian_penalty", "lipschitz", "spectral_bound", "spectral_radius"]

Update = Callable[[Tensor], Tensor]


def spectral_radius(
    f: Update, z: Tensor, *, iterations: int = 30, generator: torch.Generator | None = None
) -> Tensor:
    """Largest modulus of the eigenvalues of df/dz at `z`, estimated for every sample, (B,).

    Below 1 naive iteration converges near `z`, the faster the smaller. By the power method; what is
    measured is the mean growth over the later half of the iterations, which, unlike Rayleigh's
    quotient, is right for complex pairs too.

    Args:
        f: the update, (B, D) to (B, D), each sample on its own.
        z: (B, D), best a fixed point.
        iterations: products with the Jacobian, at least 2.
        generator: of the start vectors, on the device of `z`.
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


def lipschitz(
    f: Update, z: Tensor, *, iterations: int = 20, generator: torch.Generator | None = None
) -> Tensor:
    """Largest singular value of df/dz at `z`, estimated from below for every sample, (B,).

    Below 1 everywhere, `f` is a contraction in the Euclidean norm, which a spectral radius below 1
    does not imply. Power iterations on J^T J; arguments as in `spectral_radius`.
    """
    v = _unit(torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype))[0]
    length = torch.zeros_like(z[:, 0])
    with torch.enable_grad():
        at = z.detach().requires_grad_()
        image = f(at)
        # J v as the derivative of (J^T u) v in u: two reverse passes, so any f will do
        u = torch.zeros_like(image, requires_grad=True)
        (pulled,) = torch.autograd.grad(image, at, u, create_graph=True)
        for _ in range(iterations):
            (pushed,) = torch.autograd.grad(pulled, u, v, retain_graph=True)
            length = pushed.norm(dim=1)
            (v,) = torch.autograd.grad(image, at, pushed, retain_graph=True)
            v = _unit(v)[0]
    return length


def spectral_bound(weight: Tensor, squarings: int = 5) -> Tensor:
    """Upper bound on the spectral norm of a matrix, at most rank^(1/2^(squarings + 2)) above it; a scalar.

    The Frobenius norm of repeated squares of W W^T (Delattre et al., 2023). Unlike power iteration, which
    approaches from below, it can be relied on; of plain operations, differentiable at 0 too.
    """
    w = weight if weight.shape[0] <= weight.shape[1] else weight.T
    gram = w @ w.T + 1e-12 * torch.eye(w.shape[0], device=w.device, dtype=w.dtype)
    exponent = torch.zeros_like(gram[0, 0])
    for _ in range(squarings):
        size = gram.square().sum().sqrt()
        exponent = 2.0 * (exponent + size.log())
        gram = (gram / size) @ (gram / size)
    return (0.5 * (exponent + 0.5 * gram.square().sum().log()) / 2**squarings).exp()


def jacobian_penalty(f: Update, z: Tensor, *, samples: int = 1) -> Tensor:
    """Mean squared entry of df/dz times D, by Hutchinson's estimate: a loss that makes `f` contract.

    As Bai et al. (2021) regularise equilibrium models; it has a gradient in what `f` depends on.

    Args:
        f: the update, (B, D) to (B, D).
        z: (B, D), the solution; taken as a constant.
        samples: random vectors.

    Returns:
        Scalar.
    """
    at = z.detach().requires_grad_()
    return jac_reg(f(at), at, vecs=samples, create_graph=True)


def _unit(v: Tensor) -> tuple[Tensor, Tensor]:
    length = v.norm(dim=1)
    return v / length.clamp_min(torch.finfo(v.dtype).tiny).unsqueeze(1), length
