"""Relative soft-equivariance error: the violation measured by how much the model reacts at all.

After "Tunable Soft Equivariance with Guarantees" (CVPR 2026), the sister method:
||F(g x) - g F(x)|| / (||J_F(x)||_F ||x||). Unlike an absolute error it does not change when the model's
outputs are multiplied by a constant.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lse_core.errors import ShapeError
from lse_core.layouts import Layout
from lse_core.resample import scale
from lse_core.separable import SeparableWarp

__all__ = ["jacobian_norm", "soft_equivariance_error"]

Model = Callable[[Tensor], Tensor]


def soft_equivariance_error(
    model: Model,
    x: Tensor,
    warp: SeparableWarp,
    *,
    invariant: bool = False,
    input_layout: Layout | str = "nchw",
    output_layout: Layout | str = "nchw",
    probes: int | None = 16,
    generator: torch.Generator | None = None,
) -> Tensor:
    """||F(S(x)) - S(F(x))|| / (||J_F(x)||_F ||x||), (B,), for each sample.

    Args:
        model: F, on batches; no sample's output may depend on the others (evaluation mode).
        x: (B, ...) inputs, where `input_layout` says the pixels are.
        warp: g, batch B or one for all.
        invariant: compare F(S(x)) with F(x) itself: soft invariance.
        input_layout: of `x`.
        output_layout: of F(x).
        probes: random vectors that estimate the Jacobian's norm; None computes it exactly, at the cost
            of one backward pass for each output number. See `jacobian_norm`.
        generator: source of the probes.
    """
    with torch.no_grad():
        y = model(x)
        expected = y if invariant else scale(y, warp, output_layout)
        violation = _norm(model(scale(x, warp, input_layout)) - expected)
    return violation / (jacobian_norm(model, x, probes=probes, generator=generator) * _norm(x))


def jacobian_norm(
    model: Model, x: Tensor, *, probes: int | None = 16, generator: torch.Generator | None = None
) -> Tensor:
    """Frobenius norm of the model's Jacobian at each sample, (B,).

    Args:
        model: as in `soft_equivariance_error`.
        x: (B, ...) inputs.
        probes: P random normal vectors v; the mean of ||v^T J||^2 is unbiased for the squared norm, with
            a relative deviation of at most sqrt(2 / P), and far less where J has many like singular
            values. None takes every unit vector instead: exact.
        generator: source of the probes, on the device of `x`.

    Raises:
        ShapeError: probes below 1, or the model's output has no batch.
    """
    if probes is not None and probes < 1:
        raise ShapeError(f"jacobian_norm needs at least one probe; got {probes}")
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        y = model(x)
        if y.ndim < 2 or y.shape[0] != x.shape[0]:
            raise ShapeError(f"the model's output {tuple(y.shape)} must keep the batch of {x.shape[0]}")
        flat = y.flatten(1)
        total = x.new_zeros(x.shape[0])
        count = flat.shape[1] if probes is None else probes
        for i in range(count):
            if probes is None:
                v = torch.zeros_like(flat)
                v[:, i] = 1.0
            else:
                v = torch.empty_like(flat).normal_(generator=generator)
            (grad,) = torch.autograd.grad(flat, x, v, retain_graph=i + 1 < count)
            total = total + grad.flatten(1).square().sum(1)
    return (total if probes is None else total / probes).sqrt()


def _norm(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)
