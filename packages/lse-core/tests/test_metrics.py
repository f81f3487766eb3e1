"""EquE and InvE: against naive loops, as losses, and as torchmetrics classes."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lse_core import (
    EquivarianceError,
    InvarianceError,
    SeparableWarp,
    Tokens,
    equivariance_error,
    invariance_error,
    scale,
)
from lse_core.errors import ShapeError, UnknownNameError


@pytest.fixture
def warp() -> SeparableWarp:
    return SeparableWarp.random(3, 4, 3.0, generator=torch.Generator().manual_seed(0))


def bilinear_at(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """Value of an image (C, H, W) at a point of the unit square."""
    h, w = image.shape[1:]
    sx, sy = x * (w - 1), y * (h - 1)
    j, i = min(int(sx), w - 2), min(int(sy), h - 2)
    fx, fy = sx - j, sy - i
    top = image[:, i, j] * (1 - fx) + image[:, i, j + 1] * fx
    bottom = image[:, i + 1, j] * (1 - fx) + image[:, i + 1, j + 1] * fx
    return top * (1 - fy) + bottom * fy


def naive_equivariance(outputs: Tensor, scaled: Tensor, warp: SeparableWarp) -> list[float]:
    """Eq. 23 pixel by pixel: S(M)(p) = M(l^-1(p)), l^-1 by numpy's interpolation."""
    errors = []
    for n in range(outputs.shape[0]):
        m, m_s = outputs[n].numpy().astype(float), scaled[n].numpy().astype(float)
        h, w = m.shape[1:]
        total = 0.0
        for i in range(h):
            for j in range(w):
                inverse = [
                    np.interp(t, axis.values[n].numpy(), axis.knots[n].numpy())
                    for t, axis in ((j / (w - 1), warp.x), (i / (h - 1), warp.y))
                ]
                total += float(((bilinear_at(m, *inverse) - m_s[:, i, j]) ** 2).sum())
        errors.append(total)
    return errors


def test_equivariance_error_is_equation_23(warp: SeparableWarp) -> None:
    torch.manual_seed(1)
    a, b = torch.rand(3, 2, 5, 7), torch.rand(3, 2, 5, 7)
    expected = naive_equivariance(a, b, warp)
    got = equivariance_error(a, b, warp, reduction="none")
    assert got.tolist() == pytest.approx(expected, rel=1e-5)
    assert float(equivariance_error(a, b, warp)) == pytest.approx(np.mean(expected), rel=1e-5)
    each = equivariance_error(a, b, warp, per_element=True)
    assert float(each) == pytest.approx(np.mean(expected) / 70, rel=1e-5)


def test_equivariance_error_in_tokens(warp: SeparableWarp) -> None:
    torch.manual_seed(1)
    a, b = torch.rand(3, 2, 5, 7), torch.rand(3, 2, 5, 7)
    tokens = [t.permute(0, 2, 3, 1).flatten(1, 2) for t in (a, b)]
    got = equivariance_error(*tokens, warp, Tokens((5, 7), 0))
    assert float(got) == pytest.approx(np.mean(naive_equivariance(a, b, warp)), rel=1e-5)


def test_an_equivariant_model_has_no_error(warp: SeparableWarp) -> None:
    x = torch.rand(3, 2, 9, 9)
    pointwise = lambda t: 3 * t - 1  # noqa: E731 - commutes with every warp
    assert float(equivariance_error(pointwise(x), pointwise(scale(x, warp)), warp)) < 1e-9
    assert float(equivariance_error(x, x, warp)) > 0.1


def test_invariance_error_is_equation_24() -> None:
    torch.manual_seed(2)
    a = torch.rand(4, 10).softmax(-1)
    variants = torch.rand(4, 3, 10).softmax(-1)
    expected = [[((a[n] - variants[n, v]) ** 2).sum().item() for v in range(3)] for n in range(4)]
    assert invariance_error(a, variants, reduction="none").numpy() == pytest.approx(
        np.array(expected), rel=1e-5
    )
    assert float(invariance_error(a, variants)) == pytest.approx(np.mean(expected), rel=1e-5)
    assert float(invariance_error(a, variants, per_element=True)) == pytest.approx(
        np.mean(expected) / 10, rel=1e-5
    )
    one = invariance_error(a, variants[:, 0], reduction="none")
    assert one.tolist() == pytest.approx([row[0] for row in expected], rel=1e-5)


def test_both_serve_as_losses(warp: SeparableWarp) -> None:
    a = torch.rand(3, 2, 5, 5, requires_grad=True)
    b = torch.rand(3, 2, 5, 5, requires_grad=True)
    (equivariance_error(a, b, warp) + invariance_error(a, b)).backward()
    for t in (a, b):
        assert t.grad is not None
        assert float(t.grad.abs().min()) > 0


def test_bad_input_is_named(warp: SeparableWarp) -> None:
    a = torch.rand(3, 2, 5, 5)
    with pytest.raises(ShapeError, match="differ in shape"):
        equivariance_error(a, a[:, :1], warp)
    with pytest.raises(ShapeError, match="variants of the same shape"):
        invariance_error(a, a[:2])
    with pytest.raises(ShapeError, match="are empty, so there is nothing to compare"):
        invariance_error(torch.zeros(0, 5), torch.zeros(0, 5))
    with pytest.raises(UnknownNameError, match=r"unknown reduction 'men'. Did you mean 'mean'\?"):
        invariance_error(a, a, reduction="men")


def test_classes_give_the_mean_over_images_whatever_the_batches(warp: SeparableWarp) -> None:
    torch.manual_seed(3)
    a, b = torch.rand(3, 2, 5, 7), torch.rand(3, 2, 5, 7)
    equivariance, invariance = EquivarianceError(), InvarianceError(per_element=True)
    for part in (slice(0, 1), slice(1, 3)):  # unequal batches: a mean of means would differ
        equivariance.update(a[part], b[part], warp[part])
        invariance.update(a[part], b[part])
    assert float(equivariance.compute()) == pytest.approx(float(equivariance_error(a, b, warp)), rel=1e-6)
    assert float(invariance.compute()) == pytest.approx(
        float(invariance_error(a, b, per_element=True)), rel=1e-6
    )
    equivariance.reset()
    assert int(equivariance.count) == 0
