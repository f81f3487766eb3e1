"""The DEC with triangular warps: both orders, solvers and rules, sites, save and load, the commands."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn

import lse_dec
from lse_core import TriangularWarp, unscale
from lse_core.errors import LSEError
from lse_dec.canonicalizers import DEC, Canonicalization
from lse_dec.commands.adapt import adapt as adapt_command
from lse_dec.commands.look import look
from lse_dec.losses import canonicalizer_equivariance_loss
from lse_dec.monitor import displacement, summarise
from lse_dec.solvers import Anderson, AndersonI, Broyden, Code, Naive
from lse_dec.updates import Absolute, Residual


def smooth(batch: int = 3, channels: int = 8, size: tuple[int, int] = (20, 26), seed: int = 0) -> Tensor:
    coarse = torch.randn(batch, channels, 5, 5, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=size, mode="bicubic", align_corners=True)


def trained(size: float = 1.0, **settings: Any) -> DEC:
    torch.manual_seed(0)
    dec = DEC(8, **{"warp": "triangular", "segments": 4, "widths": (8, 8), "projection": 6, **settings})
    nn.init.normal_(dec.update.head.weight, std=size)
    return dec


@pytest.mark.parametrize("rule", [Residual(), Absolute()])
def test_it_begins_at_the_identity_and_every_parameter_learns(rule: Any) -> None:
    found = DEC(8, warp="triangular", segments=4, rule=rule)(smooth())
    assert isinstance(found.warp, TriangularWarp)
    assert found.warp.values.shape == (3, 5, 5)
    assert displacement(found).max() < 1e-6
    assert (found.solution.codes == Code.CONVERGED).all()
    dec = trained(rule=rule)
    dec(smooth()).warp.lattice(5, 5).square().sum().backward()
    for name, p in dec.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        # proposals are centred, so that a constant in all of them is felt by rounding alone, or not at all
        if not (isinstance(rule, Residual) and name == "update.head.bias"):
            assert p.grad.abs().max() > 0, name


@pytest.mark.parametrize("solver", [Naive(), Anderson(), AndersonI(), Broyden()])
@pytest.mark.parametrize("order", ["xy", "yx"])
def test_every_solver_finds_the_fixed_point(solver: Any, order: str) -> None:
    """That of unscale -> network -> rule, done here by hand."""
    dec, x = trained(0.3, rule=Absolute(), steps=60, tol=1e-6, solver=solver, order=order), smooth()
    found = dec(x)
    assert (found.solution.codes == Code.CONVERGED).all()
    w = found.solution.z.view(3, 6, 4)
    want = TriangularWarp.from_log_slopes(w, order)
    assert torch.allclose(want.lattice(9, 7), found.warp.lattice(9, 7))
    assert w[:, 1:].std(1).max() > 1e-3  # columns differ: it is no separable warp
    with torch.no_grad():
        again = dec.rule(w, dec.update(unscale(dec.reduce(x, False), found.warp)), dec.ratio)
    assert (again - w).abs().max() < 1e-5


def test_the_other_order_is_the_same_in_the_transposed_picture() -> None:
    xy, yx, x = trained(order="xy"), trained(order="yx"), smooth()
    for mine, theirs in zip(xy.update.convolutions, yx.update.convolutions, strict=True):
        if isinstance(mine, nn.Conv2d):
            theirs.weight.data = mine.weight.data.mT
    a, b = xy(x), yx(x.mT)
    torch.testing.assert_close(a.solution.z, b.solution.z, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        a.warp.lattice(6, 9), b.warp.lattice(9, 6).transpose(1, 2).flip(-1), rtol=0, atol=1e-5
    )
    assert a.solution.z.abs().max() > 0.01


@pytest.mark.parametrize("order", ["xy", "yx"])
def test_a_separable_start(order: str) -> None:
    dec, x = DEC(8, warp="triangular", segments=4, start="variation", order=order), smooth()
    plain = DEC(8, segments=4, start="variation")
    plain.start.load_state_dict(dec.start.state_dict())
    points = torch.rand(3, 40, 2, generator=torch.Generator().manual_seed(0))
    found = plain(x).warp(points)
    assert (found - points).abs().max() > 0.01
    assert (dec(x).warp(points) - found).abs().max() < 1e-5


def test_equation_5_takes_triangular_warps() -> None:
    g = TriangularWarp.random(3, 4, 2.0, generator=torch.Generator().manual_seed(0))
    fresh = canonicalizer_equivariance_loss(DEC(8, warp="triangular", segments=4), smooth(), g)
    assert float(fresh.detach()) == pytest.approx(1.0, abs=1e-4)

    class Knows(nn.Module):
        """Answers with g to the second half of its batch, and with the identity to the first."""

        def forward(self, x: Tensor, *, channels_last: bool) -> Any:
            e, first = TriangularWarp.identity(3, 4, 4), g.first
            both = [torch.cat(pair) for pair in ((e.first.values, first.values), (e.values, g.values))]
            map_x = type(first)(first.knots.repeat(2, 1), both[0])
            made = TriangularWarp(map_x, g.nodes.repeat(2, 1), g.knots.repeat(2, 1), both[1])
            return Canonicalization(made)

    assert float(canonicalizer_equivariance_loss(Knows(), smooth(), g)) < 1e-9


@pytest.mark.parametrize("mode", ["invariant", "equivariant"])
@pytest.mark.parametrize(("name", "order"), [("vit", "xy"), ("resnet", "yx")])
def test_adapted_models(name: str, order: str, mode: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"num_classes": 5}
    if name == "vit":
        settings |= {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 3}
    full = {"vit": "vit_tiny_patch16_224", "resnet": "resnet10t"}[name]
    base = timm.create_model(full, **settings).eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain = base(x)
    model = lse_dec.adapt(base, warp="triangular", order=order, mode=mode, segments=3, steps=3)
    with torch.no_grad():
        assert (model(x) - plain).abs().max() < 1e-5
        for canonicalizer in model.canonicalizers.values():
            canonicalizer.update.head.weight.normal_(std=1.0)
        with lse_dec.observe(model) as found:
            moved = model(x)
    assert (moved - plain).abs().max() > 1e-4
    for answer in found.values():
        assert displacement(answer).max() > 1e-3
        assert 0.5 <= summarise(answer).slopes[0] < 1.0 < summarise(answer).slopes[1] <= 2.0
    model.train()(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.canonicalizer_parameters())
    lse_dec.save(model.eval(), tmp_path, model_kwargs=settings)
    again = lse_dec.load(tmp_path)
    assert again.settings["order"] == order
    with torch.no_grad():
        assert torch.equal(again(x), model(x))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"rule": "compose"}, "composes warps, and a product of 'triangular' warps is not one of them"),
        ({"canonicalizer": "variation"}, "knows the warp 'separable' only: leave warp='triangular' out"),
        ({"order": "yxx"}, "unknown order 'yxx'. Did you mean 'yx'"),
        ({"inverse": "refined"}, "triangular warps have one inverse only"),
        ({"warp": "separable", "order": "yx"}, "separable warps have one order only; leave order='yx' out"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(LSEError, match=text) as error:
        lse_dec.adapt(timm.create_model("resnet10t"), "layer2", **{"warp": "triangular", **settings})
    assert "\n" not in str(error.value)


def test_the_commands(tmp_path: Path) -> None:
    out, picture = tmp_path / "model", tmp_path / "picture.png"
    args = ["resnet10t", "--warp", "triangular", "--set", "order=yx", "--site", "image", "--out", str(out)]
    made = CliRunner().invoke(adapt_command, [*args, "--set", "segments=3", "--json"], catch_exceptions=False)
    assert made.exit_code == 0, made.output
    model = lse_dec.load(out)
    assert model.settings["warp"] == "triangular"
    nn.init.normal_(model.canonicalizers["image"].update.head.weight, std=3.0)
    lse_dec.save(model, out)
    Image.effect_noise((90, 70), 80).convert("RGB").save(picture)
    args = [str(out), str(picture), "--size", "64", "--out", str(tmp_path / "look.png"), "--json"]
    seen = CliRunner().invoke(look, args, catch_exceptions=False)
    assert seen.exit_code == 0, seen.output
    assert json.loads(seen.stdout)["image/displacement"] > 1e-4
    refused = CliRunner().invoke(
        adapt_command, ["resnet10t", "--set", "warp=triangular", "--out", str(tmp_path / "x")]
    )
    assert refused.exit_code == 2
    assert "use its own option --warp" in refused.output
