"""Random warps: bounds, seeds, and what each distribution claims, on large samples."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from lse_core import SeparableWarp
from lse_core.errors import LSEError, ShapeError, UnknownNameError, WarpError
from lse_core.random import DISTRIBUTIONS, random_log_slopes


def draw(n: int, segments: int, ratio: float = 2.0, seed: int = 0, **options: object) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return random_log_slopes(n, segments, ratio, generator=generator, dtype=torch.float64, **options)  # type: ignore[arg-type]


def displacement(w: Tensor) -> float:
    """Root mean square over warps and points."""
    e = SeparableWarp.identity(dtype=torch.float64)
    return float(SeparableWarp.from_log_slopes(w).distance(e, "rms").square().mean().sqrt())


@pytest.mark.parametrize("distribution", [d for d in DISTRIBUTIONS if d != "authors"])
@pytest.mark.parametrize("segments", [1, 2, 3, 8, 56])
@pytest.mark.parametrize("ratio", [1.2, 2.0, 4.0])
def test_slopes_stay_within_the_bounds(distribution: str, segments: int, ratio: float) -> None:
    w = draw(300, segments, ratio, distribution=distribution)
    assert w.shape == (300, 2, segments)
    slopes = SeparableWarp.from_log_slopes(w).x.slopes
    assert float(slopes.min()) >= 1 / ratio - 1e-9
    assert float(slopes.max()) <= ratio + 1e-9


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_seeds_repeat_and_differ(distribution: str) -> None:
    a, b, c = (draw(3, 5, seed=s, distribution=distribution) for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert not torch.equal(a[:, 0], a[:, 1])  # axes are independent


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_strength_goes_from_the_identity_to_the_whole(distribution: str) -> None:
    assert displacement(draw(50, 4, distribution=distribution, strength=0.0)) < 1e-9
    half, whole = (displacement(draw(500, 4, distribution=distribution, strength=s)) for s in (0.5, 1.0))
    assert half == pytest.approx(whole / 2, rel=0.15)


def test_smooth_moves_points_as_far_at_every_knot_count() -> None:
    reference = displacement(draw(4000, 64, distribution="smooth"))
    for segments in (4, 8, 16, 32):
        assert displacement(draw(4000, segments, distribution="smooth")) == pytest.approx(reference, rel=0.1)
    # and the very same curve: one seed, two knot counts, nearly one warp
    a, b = (SeparableWarp.from_log_slopes(draw(100, n, distribution="smooth")) for n in (32, 64))
    assert float(a.distance(b).max()) < 0.01
    # which independent segments do not
    assert displacement(draw(4000, 64)) < 0.5 * displacement(draw(4000, 8))


@pytest.mark.parametrize("ratio", [1.5, 3.0])
def test_uniform_is_uniform_over_all_slopes_within_bounds(ratio: float) -> None:
    """Three slopes that add up to 3 are a polygon in the plane: rejection sampling fills it evenly."""
    slopes = draw(20000, 3, ratio, distribution="uniform").exp().flatten(0, 1)
    assert torch.allclose(slopes.sum(-1), torch.full((40000,), 3.0, dtype=torch.float64))
    g = torch.Generator().manual_seed(5)
    pair = 1 / ratio + (ratio - 1 / ratio) * torch.rand(400000, 2, generator=g, dtype=torch.float64)
    third = 3 - pair.sum(-1)
    kept = torch.cat([pair, third.unsqueeze(-1)], -1)[(third >= 1 / ratio) & (third <= ratio)]
    edges = torch.linspace(1 / ratio, ratio, 8, dtype=torch.float64)
    for a, b in itertools.pairwise(edges.tolist()):
        share = [float(((t[:, 0] >= a) & (t[:, 0] < b)).double().mean()) for t in (slopes, kept)]
        assert share[0] == pytest.approx(share[1], abs=0.012)
    # every segment alike
    assert slopes.mean(0).tolist() == pytest.approx([1.0] * 3, abs=0.01)


def test_authors_is_uniform_in_three_times_the_strength() -> None:
    w = draw(5000, 7, distribution="authors", strength=0.25)
    assert float(w.min()) >= 0
    assert float(w.max()) == pytest.approx(0.75, abs=1e-3)
    assert float(w.mean()) == pytest.approx(0.375, abs=0.01)
    slopes = SeparableWarp.from_log_slopes(w).x.slopes
    assert float(slopes.max()) <= math.exp(0.75)


def test_warps_pass_the_options_on() -> None:
    g = torch.Generator().manual_seed(0)
    w = SeparableWarp.random(
        4, 5, 3.0, distribution="uniform", strength=0.5, generator=g, dtype=torch.float64
    )
    assert torch.allclose(
        w.x.log_slopes - w.x.log_slopes.mean(1, keepdim=True),
        (lambda t: t - t.mean(1, keepdim=True))(draw(4, 5, 3.0, distribution="uniform", strength=0.5)[:, 0]),
    )


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        (
            {"distribution": "unifrom"},
            UnknownNameError,
            r"unknown distribution 'unifrom'. Did you mean 'uniform'",
        ),
        ({"ratio": 0.5}, WarpError, "ratio must be above 1"),
        ({"strength": 1.5}, WarpError, r"strength must lie within \[0, 1\]"),
        ({"strength": -1.0, "distribution": "authors"}, WarpError, "strength must be at least 0"),
        ({"segments": 0}, ShapeError, "segments must be a whole number of at least 1"),
    ],
)
def test_bad_settings_are_named(options: dict, error: type[LSEError], text: str) -> None:
    with pytest.raises(error, match=text):
        draw(**{"n": 2, "segments": 3, **options})
