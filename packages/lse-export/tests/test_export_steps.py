"""Choosing the number of steps on a model whose convergence is known by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

import lse_export
from lse_core.errors import LSEError, ShapeError
from lse_export.commands import export


class Halving(nn.Module):
    """z <- z/2 + x/2 from 0: after k steps z = (1 - factor^k) x, the residual known in closed form."""

    def __init__(self, factor: float, steps: int) -> None:
        super().__init__()
        self.factor, self.steps = factor, steps

    def forward(self, x: Tensor) -> SimpleNamespace:
        z = torch.zeros_like(x)
        for _ in range(self.steps):
            fz = self.factor * z + (1 - self.factor) * x
            residual, z = (fz - z).square().mean(1).sqrt(), fz
        return SimpleNamespace(z=z, solution=SimpleNamespace(residual=residual))


class Model(nn.Module):
    def __init__(self, factor: float = 0.5, steps: int = 7) -> None:
        super().__init__()
        self.solver = Halving(factor, steps)

    @property
    def canonicalizers(self) -> dict[str, nn.Module]:
        return {"image": self.solver}

    def forward(self, image: Tensor) -> Tensor:
        return self.solver(image.flatten(1)).z


IMAGES = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tolerance", [0.2, 0.05, 0.02])
def test_the_fewest_steps_within_the_tolerance(tolerance: float) -> None:
    model = Model()
    choice = lse_export.choose_steps(model, IMAGES, tolerance=tolerance, batch=2)
    # after k steps the output is off by 2^-k of itself
    scale = float(IMAGES.max() / (IMAGES.max() - IMAGES.min()))
    by_hand = next(k for k in (1, 2, 3, 4, 5, 6, 8, 10) if scale * 0.5**k <= tolerance)
    assert choice.steps == by_hand
    assert choice.within
    assert choice.converged
    for row in choice.rows:
        assert row.deviation == pytest.approx(scale * 0.5**row.steps, rel=1e-3, abs=1e-6)
    assert [row.residual for row in choice.rows] == sorted((r.residual for r in choice.rows), reverse=True)
    assert f"within {tolerance:g} of the output of 64: {by_hand} " in choice.summary()
    assert model.solver.steps == 7


def test_an_update_that_does_not_contract_is_named() -> None:
    choice = lse_export.choose_steps(Model(factor=-1.0), IMAGES)
    assert not choice.converged
    assert not choice.within
    assert choice.steps == 7
    assert "contracts slowly or not at all; keeping 7 steps" in choice.summary()


def test_a_lucky_crossing_is_no_convergence() -> None:
    class Crossing(Model):
        def forward(self, image: Tensor) -> Tensor:
            out = super().forward(image)
            # with 4 and 6 steps right by chance, with 5 not
            return out if self.solver.steps == 64 else out + (0.0 if self.solver.steps in (4, 6, 8) else 0.5)

    choice = lse_export.choose_steps(Crossing(factor=0.01), IMAGES, candidates=(4, 5, 6, 8))
    assert choice.steps == 6


def test_no_candidate_suffices() -> None:
    choice = lse_export.choose_steps(Model(factor=0.8), IMAGES, candidates=(1, 2))
    assert choice.converged
    assert not choice.within
    assert choice.steps == 7
    assert "keeping the model's 7" in choice.summary()


def test_bad_settings() -> None:
    with pytest.raises(LSEError, match="no solver, so there are no steps"):
        lse_export.choose_steps(nn.Flatten(), IMAGES)
    with pytest.raises(LSEError, match="below the reference's 8"):
        lse_export.choose_steps(Model(), IMAGES, candidates=(1, 8), reference=8)
    with pytest.raises(LSEError, match="tolerance must be above 0"):
        lse_export.choose_steps(Model(), IMAGES, tolerance=0.0)
    with pytest.raises(ShapeError):
        lse_export.choose_steps(Model(), IMAGES[0])


@pytest.mark.parametrize("value", ["none", "0", "-2", "1.5"])
def test_the_command_wants_a_number_or_auto(value: str) -> None:
    run = CliRunner().invoke(export, ["onnx", "model", "--out", "m.onnx", "--steps", value])
    assert run.exit_code == 2
    assert "neither 'auto' nor a whole number" in run.output
