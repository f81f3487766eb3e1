"""Warps on a GPU against the CPU: all families, layouts and sizes, values and gradients, label maps, laws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import lse_core
from lse_core import GridWarp, SeparableWarp, Tokens, TriangularWarp, equivariance_error, invariance_error

FAMILIES = {
    "separable": lambda z: SeparableWarp.from_logits(z[:, :2], 2.0),
    "triangular": lambda z: TriangularWarp.from_log_slopes(0.3 * z),
    "grid": lambda z: GridWarp.from_log_slopes(0.1 * z[:, :5], 0.1 * z[:, 1:]),
}
"""From logits (B, 6, 4)."""
SHAPES = {"small map of many channels": (24, 14, 14), "picture": (3, 80, 72), "one by one": (2, 1, 1)}


def logits(seed: int = 0) -> Tensor:
    return torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def warped(
    how: str, family: str, layout: str, shape: tuple[int, int, int], device: str, dtype: torch.dtype
) -> list[Tensor]:
    """The result and the gradients by picture and by logits, on the CPU."""
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = x if layout == "nchw" else x.permute(0, 2, 3, 1).contiguous()
    x = x.flatten(1, 2) if layout == "tokens" else x
    lay = Tokens(shape[1:], 0) if layout == "tokens" else layout
    x, z = (t.to(device, dtype).requires_grad_() for t in (x, logits()))
    out = getattr(lse_core, how)(x, FAMILIES[family](z), lay)
    out.square().sum().backward()
    return [t.detach().cpu() for t in (out, x.grad, z.grad)]


@pytest.mark.parametrize("layout", ["nchw", "nhwc", "tokens"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("how", ["scale", "unscale"])
def test_pictures_are_warped_as_on_the_cpu(
    device: str, how: str, family: str, shape: str, layout: str
) -> None:
    for dtype, rtol, atol in ((torch.float64, 1e-7, 1e-9), (torch.float32, 1e-3, 1e-4)):
        found = warped(how, family, layout, SHAPES[shape], device, dtype)
        expected = warped(how, family, layout, SHAPES[shape], "cpu", dtype)
        torch.testing.assert_close(found[0], expected[0], rtol=rtol, atol=atol)
        if dtype == torch.float64:  # at a pixel's centre a gradient has a step, which rounding decides
            for mine, theirs in zip(found[1:], expected[1:], strict=True):
                torch.testing.assert_close(mine, theirs, rtol=rtol, atol=100 * atol)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_pictures_at_float32_coordinates(device: str, family: str, dtype: torch.dtype) -> None:
    x = torch.rand(2, 3, 80, 72, generator=torch.Generator().manual_seed(1))
    warp = FAMILIES[family](logits().float().to(device))
    found = lse_core.unscale(x.to(device, dtype), warp)
    assert found.dtype == dtype
    expected = lse_core.unscale(x, FAMILIES[family](logits().float()))
    assert (found.float().cpu() - expected).abs().max() < 0.02


@pytest.mark.parametrize("family", FAMILIES)
def test_label_maps_are_read_at_the_same_places(device: str, family: str) -> None:
    labels = torch.randint(0, 9, (2, 60, 44), generator=torch.Generator().manual_seed(2))
    found = lse_core.unscale(labels.to(device), FAMILIES[family](logits().to(device))).cpu()
    assert torch.equal(found, lse_core.unscale(labels, FAMILIES[family](logits())))


def test_the_group_laws_hold(device: str) -> None:
    z = logits(3).to(device)
    a, b = (SeparableWarp.from_logits(part, 2.0) for part in (z[:, :2], z[:, 2:4]))
    u = torch.linspace(0, 1, 65, device=device, dtype=torch.float64).expand(2, -1)
    for axis in ("x", "y"):
        f, g = getattr(a, axis), getattr(b, axis)
        torch.testing.assert_close((f @ ~f)(u), u, rtol=0, atol=1e-12)
        torch.testing.assert_close((f @ g)(u), f(g(u)), rtol=0, atol=1e-12)


def test_the_paper_s_errors_are_those_of_the_cpu(device: str) -> None:
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(4), dtype=torch.float64)

    def errors(where: str) -> list[Tensor]:
        here, warp = x.to(where), SeparableWarp.from_logits(logits().to(where)[:, :2], 2.0)
        moved = lse_core.scale(here, warp)
        a, b = equivariance_error(here, moved, warp), invariance_error(here.flatten(1), moved.flatten(1))
        return [a.cpu(), b.cpu()]

    for found, expected in zip(errors(device), errors("cpu"), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
