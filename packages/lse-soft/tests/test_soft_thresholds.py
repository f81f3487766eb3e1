"""Factors, and the softness that keeps a share."""

import math

import pytest
import torch

from lse_core.errors import LSEError, UnknownNameError
from lse_soft.generators import rotation_generator
from lse_soft.spectra import DenseSpectrum
from lse_soft.spectra.dense import functional_gram
from lse_soft.thresholds import factors, guarantees, softness_for

SIGMA = torch.tensor([0.0, 0.5, 0.5, 1.0, 2.0], dtype=torch.float64)


@pytest.mark.parametrize("threshold", ["hard", "cosine"])
def test_compact_thresholds_vanish_from_b_on(threshold):
    for b in (0.5, 1.0, 1.7):
        phi = factors(SIGMA, b, threshold)
        assert bool((phi[b <= SIGMA] == 0).all())
        assert float(phi[0]) == 1.0
        assert bool((phi[b > SIGMA] > 0).all())
        assert bool(((phi >= 0) & (phi <= 1)).all())
    assert factors(SIGMA, 0.0, threshold).tolist() == [1, 0, 0, 0, 0]
    assert factors(SIGMA, math.inf, threshold).tolist() == [1, 1, 1, 1, 1]


def test_cosine_by_its_formula():
    assert float(factors(torch.tensor(0.5).double(), 1.0, "cosine")) == pytest.approx(0.5)
    assert float(factors(torch.tensor(1 / 3).double(), 1.0, "cosine")) == pytest.approx(0.75)


def test_exponential_has_no_relative_guarantee_and_its_absolute_one_is_tight():
    assert not guarantees("exponential")
    assert guarantees("cosine")
    b, a = 0.5, rotation_generator((6, 6))
    spectrum = DenseSpectrum(functional_gram([a]))
    filter_ = spectrum.filter(lambda s: factors(s, b, "exponential"))
    # a weight of the highest direction alone keeps its kappa, ten times b: only its size shrinks
    adversary = spectrum.vectors[:, -1]
    assert spectrum.kappa(filter_(adversary)) > 5 * b
    worst = 0.0
    for w in spectrum.vectors.T:
        moved = float((a.T @ filter_(w)).norm())
        assert moved <= b / math.e * (1 + 1e-9)
        worst = max(worst, moved)
    assert worst > 0.8 * b / math.e


def test_softness_for_keeps_the_share_and_whole_multiplets():
    assert softness_for(SIGMA, 0.0) == 0.0
    assert softness_for(SIGMA, 0.2) == 0.5  # sigma < 0.5: one of five
    assert softness_for(SIGMA, 0.4) == 1.0  # both of 0.5 or neither
    assert softness_for(SIGMA, 0.8) == 2.0
    assert math.isinf(softness_for(SIGMA, 1.0))
    many = torch.rand(100, generator=torch.Generator().manual_seed(0)).double().sort().values
    for keep in (0.1, 0.37, 0.9):
        b = softness_for(many, keep)
        assert int((many < b).sum()) == round(100 * keep)


def test_bad_settings_are_refused():
    with pytest.raises(UnknownNameError, match="hard"):
        factors(SIGMA, 1.0, "hart")
    with pytest.raises(LSEError, match="at least 0"):
        factors(SIGMA, -1.0)
    with pytest.raises(LSEError, match="at least 0"):
        factors(SIGMA, math.nan)
    with pytest.raises(LSEError, match="within"):
        softness_for(SIGMA, 1.1)
