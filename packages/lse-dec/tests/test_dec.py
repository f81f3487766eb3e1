"""The deep equilibrium canonicalizer as a module, and Eq. 5 as a loss on it."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lse_core import SeparableWarp, unscale
from lse_core.errors import LSEError, ShapeError, UnknownNameError
from lse_dec.canonicalizers import DEC, Canonicalization
from lse_dec.canonicalizers.network import UpdateNetwork, segment_weights
from lse_dec.gradients import Implicit, Unrolled
from lse_dec.losses import FRAMES, canonicalizer_equivariance_loss, warp_distance
from lse_dec.solvers import Anderson, Broyden, Code, Naive
from lse_dec.updates import Absolute, Compose, Residual


def trained(channels: int = 16, size: float = 0.3, **settings: Any) -> DEC:
    """A DEC whose last layer is no longer zero."""
    torch.manual_seed(0)
    dec = DEC(channels, **settings)
    nn.init.normal_(dec.update.head.weight, std=4.0 * size)
    return dec


def smooth(batch: int = 3, channels: int = 16, size: tuple[int, int] = (40, 48), seed: int = 0) -> Tensor:
    coarse = torch.randn(batch, channels, 5, 5, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=size, mode="bicubic", align_corners=True)


@pytest.mark.parametrize("rule", [Residual(), Compose(), Absolute()])
@pytest.mark.parametrize("solver", [Naive(), Anderson(), Broyden()])
@pytest.mark.parametrize("channels_last", [False, True])
def test_identity_before_training(rule: Any, solver: Any, channels_last: bool) -> None:
    x = smooth()
    found = DEC(16, rule=rule, solver=solver)(
        x.permute(0, 2, 3, 1) if channels_last else x, channels_last=channels_last
    )
    assert isinstance(found, Canonicalization)
    u = torch.linspace(0, 1, 33)
    assert (found.warp.x(u) - u).abs().max() < 1e-6
    assert (found.warp.y(u) - u).abs().max() < 1e-6
    assert found.solution is not None
    assert (found.solution.codes == Code.CONVERGED).all()


def test_layouts_agree() -> None:
    dec, x = trained(), smooth()
    first, last = dec(x).warp, dec(x.permute(0, 2, 3, 1), channels_last=True).warp
    assert warp_distance(first, SeparableWarp.identity(3)).max() > 1e-5  # not the identity any more
    torch.testing.assert_close(first.x.values, last.x.values, rtol=0, atol=1e-5)
    torch.testing.assert_close(first.y.values, last.y.values, rtol=0, atol=1e-5)


def test_the_axes_are_not_mixed_up() -> None:
    dec, x = trained(), smooth(size=(40, 40))
    turned, straight = dec(x.transpose(2, 3)), dec(x)
    # a picture that varies along x only must give a network something else than one along y only
    assert (turned.warp.x.values - straight.warp.x.values).abs().max() > 1e-4


def test_first_axis_of_the_network_is_x() -> None:
    torch.manual_seed(0)
    net = UpdateNetwork(2, 8, widths=(3,))
    nn.init.normal_(net.head.weight)
    blank, left = torch.zeros(1, 2, 32, 32), torch.zeros(1, 2, 32, 32)
    left[..., 1] = 5.0  # a line at the left edge
    for bump, mine, other in ((left, 0, 1), (left.transpose(2, 3), 1, 0)):
        change = (net(bump) - net(blank)).abs()[0]
        assert change[mine, 0] > 1e-3  # seen where it is,
        assert change[mine, 5:].max() < 1e-6  # not far away,
        assert change[other].min() > 1e-6  # and by every segment of the other axis


def test_the_solve_is_the_drivers() -> None:
    """The state the DEC returns is a fixed point of unscale -> network -> rule, done here by hand."""
    dec = trained(segments=6, steps=60, rule=Absolute(), tol=1e-6)
    x = smooth()
    found = dec(x)
    assert (found.solution.codes == Code.CONVERGED).all()
    w = found.solution.z.view(3, 2, 6)
    with torch.no_grad():
        small = dec.reduce(x, False)
        seen = unscale(small, SeparableWarp.from_log_slopes(w))
        again = dec.rule(w, dec.update(seen), dec.ratio)
    assert (again - w).abs().max() < 1e-5
    assert w.abs().max() > 0.05


@pytest.mark.parametrize("size", [(40, 48), (64, 20), (16, 16), (9, 7)])
def test_reducing_and_warping_commute_on_smooth_maps(size: tuple[int, int]) -> None:
    dec = trained(8)
    dec.reduce.norm = nn.Identity()  # a nonlinear map commutes with a warp, but not with interpolation
    x = nn.functional.interpolate(smooth(3, 8, (3, 3)), size=size, mode="bicubic", align_corners=True)
    g = SeparableWarp.random(3, 4, 1.7, generator=torch.Generator().manual_seed(1))
    small = min(16, size[0]), min(16, size[1])

    def pooled(z: Tensor) -> Tensor:  # what others do, on other corners
        return dec.reduce.project(nn.functional.adaptive_avg_pool2d(z, small).permute(0, 2, 3, 1)).permute(
            0, 3, 1, 2
        )

    def off(reduce: Any) -> float:
        inside = (reduce(unscale(x, g)) - unscale(reduce(x), g))[..., 1:-1, 1:-1]
        effect = reduce(unscale(x, g)) - reduce(x)
        return float(inside.square().mean().sqrt() / effect.square().mean().sqrt())

    with torch.no_grad():
        assert dec.reduce(x, False).shape[2:] == small
        ours = off(lambda z: dec.reduce(z, False))
        assert ours < (1e-5 if max(size) <= 16 else 0.15)
        assert ours <= max(1e-5, 0.6 * off(pooled))


def test_no_value_is_read_back_from_the_device() -> None:
    dec = trained().to("meta")
    found = dec(torch.empty(2, 16, 40, 48, device="meta"))
    assert found.warp.x.values.shape == (2, 9)
    assert found.warp.device.type == "meta"


def test_state_stays_in_float32_under_autocast() -> None:
    dec, x = trained(rule=Absolute(), size=0.1), smooth()
    exact = dec(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = dec(x)
    assert found.warp.dtype == torch.float32
    assert found.solution.z.dtype == found.solution.residuals.dtype == torch.float32
    assert (found.warp.x.values - exact.warp.x.values).abs().max() < 5e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_module_keeps_coordinates_in_float32(dtype: torch.dtype) -> None:
    dec, x = trained(rule=Absolute(), size=0.1), smooth()
    exact = dec(x)
    found = dec.to(dtype)(x.to(dtype))
    assert found.warp.dtype == torch.float32
    assert (found.warp.x.values - exact.warp.x.values).abs().max() < 1e-2


def test_float64_all_the_way() -> None:
    dec = trained(steps=80, tol=1e-12, rule=Absolute(), size=0.1).double()
    found = dec(smooth().double())
    assert found.warp.dtype == torch.float64
    assert (found.solution.residual < 1e-12).all()


@pytest.mark.parametrize("gradient", ["phantom", "implicit", "unrolled"])
@pytest.mark.parametrize("rule", [Residual(), Compose(), Absolute()])
def test_gradient_reaches_every_parameter(gradient: str, rule: Any) -> None:
    dec, x = trained(gradient=gradient, rule=rule), smooth()
    warp = dec(x).warp
    (warp.x.values.square().sum() + warp.y.values.square().sum()).backward()
    for name, p in dec.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        assert p.grad.abs().max() > 0, name


def test_implicit_gradient_against_finite_differences_through_the_whole_module() -> None:
    # weights this small contract under the absolute rule
    dec = trained(4, rule=Absolute(), segments=4, steps=80, projection=4, widths=(4,)).double()
    dec.gradient = Implicit(steps=80, tol=1e-14)
    x = smooth(channels=4, size=(12, 12)).double()

    def loss() -> Tensor:
        warp = dec(x).warp
        return (warp.x.values**3).sum() + (warp.y.values**2).sum()

    p = dec.update.head.bias
    loss().backward()
    assert p.grad is not None
    with torch.no_grad():
        for i in range(p.numel()):
            keep, h = float(p[i]), 1e-5
            p[i] = keep + h
            up = loss()
            p[i] = keep - h
            down = loss()
            p[i] = keep
            assert abs(float((up - down) / (2 * h) - p.grad[i])) < 1e-6 * max(1.0, float(p.grad.abs().max()))


def test_gradient_reaches_the_features() -> None:
    dec, x = trained(gradient=Unrolled()), smooth().requires_grad_()
    dec(x).warp.x.values.square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0


def test_steps_and_start_of_a_call() -> None:
    dec, x = trained(steps=5, rule=Absolute()), smooth()
    assert dec(x).solution.steps == 5
    far = dec(x, steps=40)
    assert far.solution.steps == 40
    warm = dec(x, steps=1, start=far.solution.z)
    assert (warm.solution.residual < 1e-5).all()
    assert (dec(x, steps=1).solution.residual > 1e-2).all()


def test_a_sample_alone_and_in_a_batch() -> None:
    dec, x = trained(rule=Absolute()), smooth(5)
    together = dec(x).solution.z
    for i in range(5):
        assert (dec(x[i : i + 1]).solution.z[0] - together[i]).abs().max() < 1e-6


def test_nan_stays_in_its_sample() -> None:
    dec, x = trained(), smooth()
    clean = dec(x)
    bad = x.clone()
    bad[1, 3, 5, 5] = math.nan
    found = dec(bad)
    assert found.solution.codes[1] == Code.NOT_FINITE
    assert torch.equal(found.warp[[0, 2]].x.values, clean.warp[[0, 2]].x.values)
    assert (found.warp[1].x.values - torch.linspace(0, 1, 9)).abs().max() < 1e-6  # the guess, identity


@pytest.mark.parametrize(
    "x", [torch.zeros(2, 15, 8, 8), torch.zeros(2, 16, 8), torch.zeros(16, 8, 8), torch.zeros(2, 8, 8, 16)]
)
def test_wrong_features_refused(x: Tensor) -> None:
    with pytest.raises(ShapeError, match="dec made for 16 channels"):
        DEC(16)(x)


@pytest.mark.parametrize(
    "settings",
    [{"ratio": 1.0}, {"ratio": 4.5}, {"segments": 1}, {"steps": 0}, {"resolution": 3}, {"gradient": "bptt"}],
)
def test_settings_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(LSEError):
        DEC(16, **settings)


@pytest.mark.parametrize(("n", "segments"), [(16, 8), (14, 8), (7, 8), (5, 3), (1, 2), (33, 1)])
def test_segment_weights_are_overlaps(n: int, segments: int) -> None:
    weights = segment_weights(n, segments, torch.empty(0, dtype=torch.float64))
    assert torch.allclose(weights.sum(-1), torch.ones(segments, dtype=torch.float64))
    # naive reference: sample the interval finely, ask which pixel is nearest and which segment holds it
    t = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    pixel = (t * (n - 1)).round().long()
    counts = torch.zeros(segments, n, dtype=torch.float64)
    counts.index_put_(((t * segments).long(), pixel), torch.ones_like(t), accumulate=True)
    assert (weights - counts / counts.sum(-1, keepdim=True)).abs().max() < 1e-3


# Eq. 5 as a loss -------------------------------------------------------------------------------


@pytest.mark.parametrize("segments", [2, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_loss_is_one_for_a_canonicalizer_that_ignores_its_input(segments: int, seed: int) -> None:
    g = SeparableWarp.random(3, segments, 2.0, generator=torch.Generator().manual_seed(seed))
    loss = canonicalizer_equivariance_loss(DEC(16), smooth(), g)
    assert abs(loss.item() - 1.0) < 1e-5


class Constant(nn.Module):
    """Presses every picture alike, far off the identity."""

    def forward(self, features: Tensor, *, channels_last: bool = False) -> Canonicalization:
        w = torch.tensor([-0.7, 0.7, 0.7, -0.7], dtype=torch.float64)
        return Canonicalization(SeparableWarp.from_log_slopes(w.expand(len(features), 2, 4)))


def test_a_constant_warp_gains_in_the_canonical_frame_alone() -> None:
    """The picture's frame is what training needs: there, ignoring the picture is never worth it."""
    x = smooth(batch=40, channels=1, size=(8, 8)).double()
    g = SeparableWarp.random(40, 4, 2.0, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = {f: canonicalizer_equivariance_loss(Constant(), x, g, frame=f).item() for f in FRAMES}
    assert abs(found["image"] - 1.0) < 1e-9
    assert found["canonical"] < 0.8


class Answers(nn.Module):
    """Answers what it is told, F and S(F; g) alike."""

    def __init__(self, warp: SeparableWarp) -> None:
        super().__init__()
        self.warp = warp

    def forward(self, features: Tensor, *, channels_last: bool = False) -> Canonicalization:
        return Canonicalization(self.warp)


def test_centre_weighs_the_choice_that_eq_5_leaves_open() -> None:
    """h and h c are both equivariant; only the one whose mean answer is the identity costs nothing."""
    draw = torch.Generator().manual_seed(4)
    g, h = (SeparableWarp.random(6, 4, 2.0, generator=draw, dtype=torch.float64) for _ in "gh")
    c = Constant()(torch.zeros(1, 1, 2, 2)).warp
    x = smooth(batch=6, channels=1, size=(8, 8)).double()
    u = torch.arange(1, 16, dtype=torch.float64) / 16
    found = []
    for answer in (h, h @ c):
        both = SeparableWarp.stack(
            [(g @ answer)[i] if moved else answer[i] for moved in (0, 1) for i in range(6)]
        )
        assert canonicalizer_equivariance_loss(Answers(both), x, g) < 1e-20
        loss = canonicalizer_equivariance_loss(Answers(both), x, g, centre=3.0)
        # by hand: displacement of the mean map, over the mean size of g
        away = [sum(m[i](u)[0] for i in range(12)) / 12 - u for m in (both.x, both.y)]
        sizes = [(m[i](u)[0] - u).square().mean() for m in (g.x, g.y) for i in range(6)]
        expected = 3.0 * sum(d.square().mean() for d in away) / 2 / (sum(sizes) / 12)
        torch.testing.assert_close(loss, torch.as_tensor(expected))
        found.append(float(loss))
    assert found[1] > 3 * found[0]


def test_unknown_frame_refused() -> None:
    with pytest.raises(UnknownNameError, match="frame"):
        canonicalizer_equivariance_loss(DEC(16), smooth(), SeparableWarp.random(3), frame="imagine")


class Landmark(nn.Module):
    """Exactly equivariant: the warp that carries 1/2 to where the map's level 1/2 lies."""

    def forward(self, features: Tensor, *, channels_last: bool = False) -> Canonicalization:
        x = features.permute(0, 3, 1, 2) if channels_last else features
        rows = x[:, 0].mean(1), x[:, 1].mean(2)
        return Canonicalization(SeparableWarp(*(self.monotone(r) for r in rows)))

    @staticmethod
    def monotone(profile: Tensor) -> Any:
        from lse_core import MonotoneMap

        # the profile of an increasing channel is the inverse of the warp that straightens it
        u = torch.linspace(0, 1, profile.shape[1], dtype=profile.dtype).expand_as(profile)
        return ~MonotoneMap(u, profile)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_loss_is_zero_for_an_equivariant_canonicalizer(channels_last: bool, frame: str) -> None:
    u = torch.linspace(0, 1, 257, dtype=torch.float64)
    y, x = torch.meshgrid(u + 0.05 * torch.sin(2 * math.pi * u), u**1.2 + 0 * u, indexing="ij")
    x = (x + u) / 2
    maps = torch.stack([x, y]).unsqueeze(0)
    if channels_last:
        maps = maps.permute(0, 2, 3, 1)
    g = SeparableWarp.random(1, 4, 2.0, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    loss = canonicalizer_equivariance_loss(Landmark(), maps, g, channels_last=channels_last, frame=frame)
    assert 0 <= loss.item() < 1e-5


# not the implicit one: far from convergence, where 3 steps end, it is another loss's gradient
@pytest.mark.parametrize("gradient", ["phantom", "unrolled"])
def test_loss_trains_a_fresh_canonicalizer(gradient: str) -> None:
    torch.manual_seed(0)
    dec, x = DEC(16, gradient=gradient), smooth()
    optimiser = torch.optim.Adam(dec.parameters(), 3e-3)
    g = SeparableWarp.random(3, 4, 1.5, generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(25):
        optimiser.zero_grad()
        loss = canonicalizer_equivariance_loss(dec, x, g, steps=3)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.85 < 0.99 < losses[0]


def test_warp_distance_is_the_mean_square() -> None:
    a = SeparableWarp.random(2, 4, 2.0, generator=torch.Generator().manual_seed(0))
    b = SeparableWarp.random(2, 4, 2.0, generator=torch.Generator().manual_seed(1))
    u = torch.linspace(0, 1, 17)[1:-1]
    naive = [
        sum(
            float((m(torch.tensor([float(t)]))[i] - n(torch.tensor([float(t)]))[i]) ** 2)
            for m, n in ((a.x, b.x), (a.y, b.y))
            for t in u
        )
        / (2 * len(u))
        for i in range(2)
    ]
    torch.testing.assert_close(warp_distance(a, b), torch.tensor(naive), rtol=1e-4, atol=1e-8)
    assert (warp_distance(a, a) == 0).all()


def test_stopping_early_and_relative_tolerance() -> None:
    x = smooth()
    full = trained(rule=Absolute(), steps=60, tol=1e-4)(x)
    early = trained(rule=Absolute(), steps=60, tol=1e-4, stop_early=True)(x)
    assert early.solution.steps < full.solution.steps == 60
    assert (early.warp.x.values - full.warp.x.values).abs().max() < 1e-3
    loose = trained(rule=Absolute(), steps=60, tol=0.0, rtol=0.1, stop_early=True)(x)
    assert loose.solution.steps < early.solution.steps


@pytest.mark.parametrize("prior", [0.25, 1.0])
def test_prior_asks_for_g_and_for_the_identity(prior: float) -> None:
    """Against distances computed axis by axis, picture by picture; Eq. 5 has the rest of the weight."""
    draw = torch.Generator().manual_seed(5)
    g, moved, plain = (SeparableWarp.random(4, 4, 2.0, generator=draw, dtype=torch.float64) for _ in "gmp")
    x = smooth(batch=4, channels=1, size=(8, 8)).double()
    both = SeparableWarp.stack([plain[i] for i in range(4)] + [moved[i] for i in range(4)])
    loss = canonicalizer_equivariance_loss(Answers(both), x, g, prior=prior)
    u = torch.arange(1, 16, dtype=torch.float64) / 16

    def apart(a: Any, b: Any) -> Tensor:
        return sum((a(m)[i](u)[0] - b(m)[i](u)[0]).square().mean() for m in (0, 1) for i in range(4)) / 8

    one = SeparableWarp.identity(4, dtype=torch.float64)
    axes = [lambda k, w=w: (w.x, w.y)[k] for w in (g, moved, plain, one)]
    size = apart(axes[0], axes[3])
    own = apart(axes[1], axes[0]) + apart(axes[2], axes[3])
    eq5 = canonicalizer_equivariance_loss(Answers(both), x, g)
    torch.testing.assert_close(loss, torch.as_tensor((1 - prior) * eq5 + prior * own / size))


def test_prior_is_nothing_for_the_right_answer_and_one_for_the_identity() -> None:
    g = SeparableWarp.random(4, 4, 2.0, generator=torch.Generator().manual_seed(5))
    one, x = SeparableWarp.identity(4), smooth(batch=4, channels=1, size=(8, 8))
    right = SeparableWarp.stack([w[i] for w in (one, g) for i in range(4)])
    assert canonicalizer_equivariance_loss(Answers(right), x, g, prior=1.0) < 1e-10
    still = SeparableWarp.identity(8)
    assert canonicalizer_equivariance_loss(Answers(still), x, g, prior=1.0).item() == pytest.approx(1.0)
    with pytest.raises(LSEError, match=r"prior must lie within \[0, 1\]; got 1\.5"):
        canonicalizer_equivariance_loss(Answers(still), x, g, prior=1.5)
