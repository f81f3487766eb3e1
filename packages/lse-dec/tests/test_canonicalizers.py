"""Canonicalizers as plugins: identity, variation, canon, optim, and variation as the start of dec."""

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import lse_dec
from lse_core import MonotoneMap, SeparableWarp, registry, scale
from lse_core.errors import LSEError, ShapeError
from lse_core.monotone import bound_log_slopes
from lse_dec.canonicalizers import DEC, Canon, Identity, Optim, Variation
from lse_dec.losses import canonicalizer_equivariance_loss
from lse_dec.updates import smooth_bound

F64 = torch.float64
NAMES = ["canon", "dec", "identity", "optim", "variation"]
KINDS: dict[str, Any] = {
    "canon": Canon,
    "dec": DEC,
    "identity": Identity,
    "optim": Optim,
    "variation": Variation,
}


def smooth(batch: int = 3, channels: int = 4, size: tuple[int, int] = (40, 48), seed: int = 0) -> Tensor:
    coarse = torch.randn(batch, channels, 5, 5, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=size, mode="bicubic", align_corners=True)


def stirred(name: str, channels: int = 4, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    module: nn.Module = KINDS[name](channels, **settings)
    for p in module.parameters():
        nn.init.normal_(p, std=0.3)
    return module


def values(warp: SeparableWarp) -> Tensor:
    u = torch.linspace(0, 1, 33, dtype=warp.dtype)
    return torch.stack([warp.x(u), warp.y(u)], dim=1)


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("resnet10t", num_classes=5).eval()


def test_all_are_registered() -> None:
    assert set(NAMES) <= set(registry().names("canonicalizer"))


# what holds for every one --------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in NAMES if n != "variation"])
def test_fresh_ones_answer_with_the_identity(name: str) -> None:
    warp = KINDS[name](4)(smooth()).warp
    assert (values(warp) - values(SeparableWarp.identity(3))).abs().max() < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_layouts_agree(name: str) -> None:
    module, x = stirred(name), smooth()
    first, last = module(x).warp, module(x.permute(0, 2, 3, 1), channels_last=True).warp
    assert (values(first) - values(last)).abs().max() < 1e-5
    if name != "identity":
        assert (values(first) - values(SeparableWarp.identity(3))).abs().max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_on_their_own(name: str) -> None:
    # a descent with long steps would amplify rounding
    module, x = stirred(name, **({"rate": 0.1} if name == "optim" else {})), smooth()
    together = values(module(x).warp)
    for i in range(3):
        assert (values(module(x[i : i + 1]).warp)[0] - together[i]).abs().max() < 1e-5
    bad = x.clone()
    bad[1, 0, 3, 3] = math.nan
    assert torch.equal(values(module(bad).warp)[[0, 2]], together[[0, 2]])


@pytest.mark.parametrize("name", [n for n in NAMES if n != "identity"])
def test_gradient_reaches_the_parameters(name: str) -> None:
    module = stirred(name)
    weights = torch.randn(3, 2, 33, generator=torch.Generator().manual_seed(1))
    (values(module(smooth()).warp) * weights).sum().backward()
    for key, p in module.named_parameters():
        assert p.grad is not None, key
        assert p.grad.isfinite().all(), key
    assert any(float(p.grad.abs().max()) > 0 for p in module.parameters() if p.grad is not None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_coordinates_are_never_coarse(name: str, dtype: torch.dtype) -> None:
    module = stirred(name).to(dtype)
    warp = module(smooth().to(dtype)).warp
    assert warp.dtype == torch.promote_types(dtype, torch.float32)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_features_refused(name: str) -> None:
    for x in (torch.zeros(2, 5, 8, 8), torch.zeros(2, 4, 8), torch.zeros(2, 8, 8, 4)):
        with pytest.raises(ShapeError, match=f"{name} made for 4 channels"):
            KINDS[name](4)(x)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["invariant", "equivariant"])
def test_in_a_model_and_through_a_file(name: str, mode: str, tmp_path: Path) -> None:
    model, x = resnet(), torch.randn(2, 3, 64, 64)
    base = model(x)
    adapted = lse_dec.adapt(model, ["image", "layer2"], canonicalizer=name, mode=mode)
    if name != "variation":
        assert (adapted(x) - base).abs().max() < 1e-5
    with torch.no_grad():
        for p in adapted.canonicalizer_parameters():
            p.add_(0.2 * torch.randn(p.shape))
    lse_dec.save(adapted, tmp_path)
    with torch.no_grad():
        assert torch.equal(lse_dec.load(tmp_path)(x), adapted(x))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("canon", {"warps": 1}),
        ("canon", {"ratio": 5.0}),
        ("canon", {"temperature": 0.0}),
        ("optim", {"steps": 0}),
        ("optim", {"rate": 0.0}),
        ("optim", {"optimiser": "adom"}),
        ("variation", {"strength": 1.0}),
        ("variation", {"strength": -0.1}),
        ("variation", {"segments": 1}),
        ("dec", {"start": "variaton"}),
    ],
)
def test_settings_refused(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(LSEError, match=name if name != "dec" else "Did you mean 'variation'"):
        KINDS[name](4, **settings)


@pytest.mark.parametrize("setting", [{"solver": "broyden"}, {"rule": "compose"}, {"steps": 7}])
def test_iteration_asked_of_one_that_does_not_iterate(setting: dict[str, Any]) -> None:
    with pytest.raises(LSEError, match="'variation' takes no "):
        lse_dec.adapt(resnet(), "image", canonicalizer="variation", **setting)


# variation ----------------------------------------------------------------------------------------


def reference(x: Tensor, strength: float) -> tuple[list[float], list[float]]:
    """Cumulative shares of one map (C, H, W), by loops."""
    c, h, w = x.shape
    cells = [[0.0] * (w - 1) for _ in range(h - 1)]
    for k in range(c):
        for i in range(h - 1):
            for j in range(w - 1):
                dx = abs(x[k, i, j + 1] - x[k, i, j]) + abs(x[k, i + 1, j + 1] - x[k, i + 1, j])
                dy = abs(x[k, i + 1, j] - x[k, i, j]) + abs(x[k, i + 1, j + 1] - x[k, i, j + 1])
                cells[i][j] += float(dx * dy)
    total = sum(map(sum, cells))

    def cumulative(mass: list[float]) -> list[float]:
        out = [0.0]
        for m in mass:
            out.append(out[-1] + strength * m / total + (1 - strength) / len(mass))
        return out

    return cumulative([sum(row[j] for row in cells) for j in range(w - 1)]), cumulative(
        [sum(r) for r in cells]
    )


def test_variation_is_the_inverse_of_the_cumulative_distribution() -> None:
    x = smooth(1, size=(7, 9)).double()
    warp = Variation(4, strength=0.9).double()(x).warp
    along_x, along_y = reference(x[0], 0.9)
    torch.testing.assert_close(warp.x.knots[0], torch.tensor(along_x, dtype=F64))
    torch.testing.assert_close(warp.y.knots[0], torch.tensor(along_y, dtype=F64))
    assert torch.allclose(warp.x.values[0], torch.linspace(0, 1, 9, dtype=F64))


@pytest.mark.parametrize("hidden", [0, 16])
def test_variation_is_equivariant_untrained_and_with_any_weights(hidden: int) -> None:
    x = smooth(2, size=(513, 513)).double()
    torch.manual_seed(0)
    module = Variation(4, strength=0.999, hidden=hidden).double()
    for p in module.parameters():
        nn.init.normal_(p)
    g = SeparableWarp.random(2, 4, 3.0, generator=torch.Generator().manual_seed(1), dtype=F64)
    plain, moved = module(x).warp, module(scale(x, g)).warp
    off = (values(moved) - values(g @ plain)).abs()
    assert off.mean() < 1e-3
    assert off.max() < 2e-2  # where little varies
    assert (values(moved) - values(plain)).abs().max() > 0.05
    assert canonicalizer_equivariance_loss(module, x, g) < 1e-3


def test_strength_bounds_the_slopes() -> None:
    x = torch.zeros(1, 1, 33, 33)
    x[..., 16, 16] = 1.0
    for strength in (0.0, 0.5, 0.9):
        slopes = Variation(1, strength=strength)(x).warp.x.slopes
        assert slopes.max() < 1 / (1 - strength) + 1e-3
        assert (slopes - 1).abs().max() > (0.4 if strength else -1)
        if not strength:
            assert (slopes - 1).abs().max() < 1e-4


@pytest.mark.parametrize("fill", [0.0, 3.0, math.nan, math.inf])
def test_a_map_with_nothing_to_say_stays_as_it_is(fill: float) -> None:
    warp = Variation(2)(torch.full((1, 2, 9, 9), fill)).warp
    assert (values(warp) - values(SeparableWarp.identity(1))).abs().max() < 1e-6


def test_segments_give_a_warp_of_equation_12() -> None:
    x = smooth()
    fine, coarse = Variation(4)(x).warp, Variation(4, segments=8)(x).warp
    assert coarse.x.segments == 8
    knots = torch.linspace(0, 1, 9)
    assert (coarse.x(knots) - fine.x(knots)).abs().max() < 1e-6


def test_variation_starts_a_dec() -> None:
    x = smooth()
    dec = DEC(4, start="variation", ratio=3.0, steps=1)
    first = Variation(4, segments=8)(x).warp
    expected = smooth_bound(torch.stack([first.x.log_slopes, first.y.log_slopes], 1), 3.0)
    # the update is zero before training: the start is the fixed point
    for steps in (1, 30):
        assert (dec(x, steps=steps).solution.z.view(3, 2, 8) - expected).abs().max() < 1e-5
    assert expected.abs().max() > 0.1
    # what the caller gives comes first, but the pull is towards the module's own start
    far = dec(x, start=torch.zeros(3, 2, 8)).solution.z.view(3, 2, 8)
    assert 0.01 < (far - expected).abs().max() < expected.abs().max()


# canon ----------------------------------------------------------------------------------------------


def test_canon_tries_every_warp_on_every_map() -> None:
    module, x = stirred("canon", warps=9), smooth(5)
    with torch.no_grad():
        small = module.energy.reduction(x, False)
        energies = torch.stack(
            [
                torch.stack([module.energy(small[i : i + 1], t.unsqueeze(0))[0] for t in module.templates])
                for i in range(5)
            ]
        )
    best = energies.argmin(1)
    assert len(set(best.tolist())) > 1  # maps differ in what suits them
    wanted = SeparableWarp.from_log_slopes(module.templates[best])
    assert (values(module(x).warp) - values(wanted)).abs().max() < 1e-6


def test_canon_passes_the_gradient_straight_through() -> None:
    module, x = stirred("canon", warps=5), smooth(2)
    weights = torch.randn(2, 2, 33, generator=torch.Generator().manual_seed(1))
    (values(module(x).warp) * weights).sum().backward()
    found = module.energy.head.weight.grad.clone()
    module.zero_grad()
    small = module.energy.reduction(x, False)
    energies = torch.stack([module.energy(small, t.expand(2, -1, -1)) for t in module.templates], 1)
    mixture = torch.einsum("bk,kan->ban", (-energies).softmax(-1), module.templates)
    best = module.templates[energies.argmin(-1)]
    (values(SeparableWarp.from_log_slopes(best + mixture - mixture.detach())) * weights).sum().backward()
    torch.testing.assert_close(found, module.energy.head.weight.grad)
    assert found.abs().max() > 0


def test_canons_warps_are_part_of_the_state() -> None:
    assert torch.equal(Canon(4).templates, Canon(4).templates)
    other = Canon(4, seed=1)
    other.load_state_dict(Canon(4).state_dict())
    assert torch.equal(other.templates, Canon(4).templates)
    assert (other.templates[0] == 0).all()


# optim ----------------------------------------------------------------------------------------------


def log_slopes(warp: SeparableWarp) -> Tensor:
    return torch.stack([m.log_slopes - m.log_slopes.mean(-1, keepdim=True) for m in (warp.x, warp.y)], 1)


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_optim_is_torchs_optimiser(optimiser: str) -> None:
    module = stirred("optim", steps=6, rate=0.01, optimiser=optimiser, ratio=4.0).double()
    x = smooth().double()
    small = module.energy.reduction(x, False).detach()
    w = torch.zeros(3, 2, 8, dtype=F64, requires_grad=True)
    theirs = (
        torch.optim.Adam([w], 0.01, betas=(0.9, 0.99), eps=0.0)
        if optimiser == "adam"
        else torch.optim.SGD([w], 0.01)
    )
    before = module.energy(small, w).detach()
    for _ in range(6):
        theirs.zero_grad()
        module.energy(small, w).sum().backward(inputs=[w])
        theirs.step()
        with torch.no_grad():
            w.copy_(bound_log_slopes(w, 4.0))
    found = log_slopes(module(x).warp)
    assert (found - (w - w.mean(-1, keepdim=True))).abs().max() < 1e-4
    assert (module.energy(small, found) < before).all()


def test_optim_answers_alike_with_and_without_gradients() -> None:
    module, x = stirred("optim", rate=0.1), smooth()
    trained = values(module(x).warp)
    with torch.no_grad():
        plain = module(x).warp
    with torch.inference_mode():
        inferred = module(x.clone()).warp
    assert (values(plain) - trained).abs().max() < 1e-5
    assert (values(inferred) - trained).abs().max() < 1e-5
    assert not plain.x.values.requires_grad


def test_optims_gradient_is_that_of_the_descent() -> None:
    module = stirred("optim", channels=2, steps=2, rate=0.05, widths=(4,)).double()
    x = smooth(1, channels=2, size=(8, 8)).double()

    def loss() -> Tensor:
        return (values(module(x).warp) ** 2).sum()

    p = module.energy.head.weight
    loss().backward()
    assert p.grad is not None
    for i in range(p.shape[1]):
        with torch.no_grad():
            keep, h = float(p[0, i]), 1e-5
            p[0, i] = keep + h
            up = float(loss())
            p[0, i] = keep - h
            down = float(loss())
            p[0, i] = keep
        assert abs((up - down) / (2 * h) - float(p.grad[0, i])) < 1e-6


def test_the_loss_teaches_optim() -> None:
    torch.manual_seed(0)
    module, x = Optim(4, steps=3), smooth()
    g = SeparableWarp.random(3, 4, 1.5, generator=torch.Generator().manual_seed(0))
    optimiser = torch.optim.Adam(module.parameters(), 3e-3)
    losses = []
    for _ in range(25):
        optimiser.zero_grad()
        loss = canonicalizer_equivariance_loss(module, x, g)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert min(losses) < 0.9 < 0.99 < losses[0]


def test_monotone_all_along() -> None:
    for name in NAMES:
        warp = stirred(name)(smooth()).warp
        for axis in (warp.x, warp.y):
            MonotoneMap(axis.knots.detach(), axis.values.detach())  # checks the order of both
