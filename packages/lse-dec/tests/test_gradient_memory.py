"""What autograd keeps for the backward pass: constant for implicit and phantom, growing when unrolled."""

import pytest
import torch
from torch import Tensor

from lse_dec.canonicalizers import DEC, Optim
from lse_dec.gradients import Gradient, Implicit, Phantom, Unrolled


def kept(module: torch.nn.Module) -> int:
    """Bytes of the distinct tensors saved in one forward pass."""
    x = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    sizes: dict[int, int] = {}

    def keep(t: Tensor) -> Tensor:
        sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        warp = module(x).warp
        alive = warp.x.values.sum()
    del alive
    return sum(sizes.values())


@pytest.mark.parametrize("gradient", [Implicit(), Phantom()])
def test_constant_in_the_number_of_steps(gradient: Gradient) -> None:
    torch.manual_seed(0)
    few, many = (kept(DEC(4, gradient=gradient, steps=k)) for k in (5, 40))
    assert many < 1.05 * few


def test_unrolling_and_optim_grow() -> None:
    torch.manual_seed(0)
    few, many = (kept(DEC(4, gradient=Unrolled(), steps=k)) for k in (5, 40))
    assert many > 5 * few
    assert kept(Optim(4, steps=5)) > 2 * kept(DEC(4, gradient=Phantom(), steps=5))
    assert kept(DEC(4, gradient=Implicit(), steps=40)) < kept(DEC(4, gradient=Phantom(), steps=40))
