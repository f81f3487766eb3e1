"""What CONTRIBUTING.md says that plugins take and return, tried with objects of the plainest kind."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import timm
import torch
from torch import Tensor, nn

import lse_dec
from lse_core import NCHW, SeparableWarp, hookimpl, registry, unscale
from lse_core.errors import LSEError, UnknownNameError
from lse_dec.backbones import IMAGE, Stage
from lse_dec.canonicalizers import DEC, Canonicalization, WarpFamily
from lse_dec.canonicalizers.network import UpdateNetwork
from lse_dec.solvers import Code
from lse_dec.updates import Residual, smooth_bound


class Halfway:
    """A solver that is no dataclass, and keeps its state in a dict."""

    def init(self, z: Tensor) -> dict[str, int]:
        assert z.ndim == 2
        return {"steps": 0}

    def step(self, z: Tensor, fz: Tensor, state: dict[str, int]) -> tuple[Tensor, dict[str, int]]:
        assert z.shape == fz.shape
        assert z.dtype == fz.dtype
        return 0.5 * (z + fz), {"steps": state["steps"] + 1}


class Whole:
    """A solver with a loop of its own."""

    def run(self, f: Callable[[Tensor], Tensor], z0: Tensor, steps: int) -> None:
        z = z0
        for _ in range(steps):
            z = f(z)


class Quarter:
    """A rule for separable warps that goes a quarter of the way."""

    composes: ClassVar[bool] = True

    def __call__(self, w: Tensor, proposal: Tensor, ratio: float, rest: Tensor | None = None) -> Tensor:
        assert w.shape == proposal.shape
        return smooth_bound(w - 0.25 * proposal + (0.0 if rest is None else 0.1 * (rest - w)), ratio)


class AlikeNetwork(UpdateNetwork):
    """One proposal for both axes."""

    def forward(self, x: Tensor, averages: tuple[Tensor, ...] | None = None) -> Tensor:
        return super().forward(x, averages).mean(1, keepdim=True)


class Alike(WarpFamily):
    """Separable warps that move both axes alike: one map is the whole state."""

    products = True

    def shape(self, segments: int) -> tuple[int, ...]:
        return 1, segments

    def warp(self, w: Tensor) -> SeparableWarp:
        return SeparableWarp.from_log_slopes(w.expand(-1, 2, -1))

    def network(self, channels: int, segments: int, widths: tuple[int, ...]) -> UpdateNetwork:
        return AlikeNetwork(channels, segments, widths)

    def lifted(self, w: Tensor) -> Tensor:
        return w.mean(1, keepdim=True)


class AlikeWarp(SeparableWarp):
    """What the hook gives: the class of the warps, and their family."""

    __slots__ = ()
    family = Alike


def constant(channels: int, *, slope: float = 0.3) -> nn.Module:
    """A canonicalizer made by a function."""
    if slope < 0:
        raise LSEError(f"constant: slope must be at least 0; got {slope}")

    class Constant(nn.Module):
        def forward(self, features: Tensor, *, channels_last: bool = False) -> Canonicalization:
            assert features.shape[3 if channels_last else 1] == channels
            z = features.new_zeros(features.shape[0], 2, 2, dtype=torch.float32)
            return Canonicalization(SeparableWarp.from_logits(z + z.new_tensor([slope, 0.0])))

    return Constant()


class Columns:
    """A layout nobody has: (H, B, C, W)."""

    channels_last = False

    def unpack(self, x: Tensor) -> tuple[Tensor, str]:
        return x.permute(1, 2, 0, 3), "anything"

    def pack(self, spatial: Tensor, rest: Any) -> Tensor:
        assert rest == "anything"
        return spatial.permute(2, 0, 1, 3)


class Rows(nn.Module):
    """A network whose stage takes such maps by keyword, and gives scores and a map of weights with them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.stage = Stage2()

    def forward(self, picture: Tensor) -> Tensor:
        maps, _, weights = self.stage(columns=self.stem(picture).permute(2, 0, 1, 3))
        assert weights.shape == (2, 3, 5, 5)
        return maps.permute(1, 2, 0, 3)


class Stage2(nn.Module):
    """Its output lies as its input."""

    def forward(self, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return 2 * columns, columns.mean((0, 3)), columns.new_ones(2, 3, 5, 5)


class RowsBackbone:
    """What LSE must know of it."""

    def matches(self, model: nn.Module) -> bool:
        return isinstance(model, Rows)

    def image(self, model: nn.Module) -> Stage:
        return Stage(IMAGE, 3, NCHW())

    def stages(self, model: nn.Module) -> tuple[Stage, ...]:
        return (Stage("stage", 4, Columns(), Columns(), outputs={2: None}),)


class Plugin:
    """All of them."""

    @hookimpl
    def lse_solvers(self) -> dict[str, Any]:
        return {"halfway": Halfway, "whole": Whole}

    @hookimpl
    def lse_updates(self) -> dict[str, Any]:
        return {"quarter": Quarter}

    @hookimpl
    def lse_canonicalizers(self) -> dict[str, Any]:
        return {"constant": constant}

    @hookimpl
    def lse_backbones(self) -> dict[str, Any]:
        return {"rows": RowsBackbone()}

    @hookimpl
    def lse_warps(self) -> dict[str, Any]:
        return {"bent": SeparableWarp, "alike": AlikeWarp, "familyless": object}


@pytest.fixture(autouse=True)
def plugin() -> Iterator[None]:
    registry().register(Plugin(), "plainest")
    try:
        yield
    finally:
        registry().unregister("plainest")


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("resnet10t", num_classes=5).eval()


def images() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("solver", ["halfway", "whole"])
@pytest.mark.parametrize("start", ["identity", "variation"])
def test_solvers_and_rules_by_name(solver: str, start: str) -> None:
    adapted = lse_dec.adapt(resnet(), ["image", "layer2"], solver=solver, rule="quarter", start=start)
    with torch.no_grad():
        for canonicalizer in adapted.canonicalizers.values():
            canonicalizer.update.head.weight.normal_(std=2.0)
    with lse_dec.observe(adapted) as found:
        adapted(images()).square().sum().backward()
    for answer in found.values():
        assert answer.solution is not None
        assert answer.solution.residuals.shape == (5, 2)
        assert (answer.warp.x.values - answer.warp.x.knots).abs().max() > 1e-3
    assert all(p.grad is not None for p in adapted.canonicalizer_parameters())


def test_what_a_rule_does_not_take_is_refused() -> None:
    with pytest.raises(
        LSEError, match="the rule Quarter composes warps, and a product of 'grid' warps is not"
    ):
        lse_dec.adapt(resnet(), "image", rule="quarter", warp="grid")
    older = type("Older", (), {"__call__": Quarter.__call__, "coupled": False})  # as rules said it before
    with pytest.raises(LSEError, match="the rule Older composes warps"):
        lse_dec.adapt(resnet(), "image", rule=older(), warp="grid")


@pytest.mark.parametrize("rule", ["residual", "compose", "absolute", "quarter"])
def test_a_family_of_warps_by_name(rule: str, tmp_path: Path) -> None:
    model = lse_dec.adapt(resnet(), ["image", "layer2"], warp="alike", rule=rule, segments=5)
    x = images()
    with torch.no_grad():
        assert (model(x) - resnet()(x)).abs().max() < 1e-5  # fresh, it is the identity
        for canonicalizer in model.canonicalizers.values():
            canonicalizer.update.head.weight.normal_(std=2.0)
    with lse_dec.observe(model) as record:
        model(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.canonicalizer_parameters())
    for seen in record.values():
        assert seen.solution is not None
        assert seen.solution.z.shape == (2, 5)
        assert torch.equal(seen.warp.x.values, seen.warp.y.values)
        assert (seen.warp.x.values - seen.warp.x.knots).abs().max() > 1e-3
    lse_dec.save(model.eval(), tmp_path)
    with torch.no_grad():
        assert torch.equal(lse_dec.load(tmp_path)(x), model(x))


def test_the_solve_of_a_family_ends_at_a_fixed_point_of_its_own_warps() -> None:
    torch.manual_seed(0)
    dec = DEC(3, warp="alike", rule=Residual(pull=0.5), steps=60, tol=1e-6, segments=5)
    nn.init.normal_(dec.update.head.weight, std=0.3)
    with torch.no_grad():
        found = dec(images())
        w = found.solution.z.unsqueeze(1)
        again = dec.rule(w, dec.update(unscale(dec.reduce(images(), False), found.warp)), dec.ratio)
    assert (found.solution.codes == Code.CONVERGED).all()
    assert w.abs().max() > 1e-3
    assert (again - w).abs().max() < 1e-5


def test_a_start_is_lifted_to_the_family() -> None:
    dec = DEC(3, warp="alike", start="variation", segments=5)
    with torch.no_grad():
        found = dec(images())
    assert (found.solution.z.abs().amax(1) > 1e-2).all()
    assert DEC(3, warp=Alike(), segments=5).shape == (1, 5)


def test_warps_without_a_family_or_a_choice_are_refused() -> None:
    with pytest.raises(
        LSEError, match=r"the warps 'familyless' have no attribute family .* cannot search them"
    ):
        lse_dec.adapt(resnet(), "image", warp="familyless")
    with pytest.raises(LSEError, match="alike warps have one inverse only; leave inverse='refined' out"):
        lse_dec.adapt(resnet(), "image", warp="alike", inverse="refined")
    with pytest.raises(LSEError, match="warp must be a name or a WarpFamily; got 3"):
        lse_dec.adapt(resnet(), "image", warp=3)
    with pytest.raises(UnknownNameError, match="Did you mean 'alike'"):
        lse_dec.adapt(resnet(), "image", warp="alik")


def test_a_canonicalizer_from_a_function() -> None:
    adapted = lse_dec.adapt(resnet(), ["image", "layer2"], canonicalizer="constant", slope=0.5)
    with torch.no_grad():
        assert (adapted(images()) - resnet()(images())).abs().max() > 1e-4
    with pytest.raises(UnknownNameError, match=r"unknown setting of constant 'slop'\. Did you mean 'slope'"):
        lse_dec.adapt(resnet(), "image", canonicalizer="constant", slop=0.5)
    with pytest.raises(LSEError, match="slope must be at least 0"):
        lse_dec.adapt(resnet(), "image", canonicalizer="constant", slope=-1.0)
    for asked in ({"solver": "broyden"}, {"steps": 3}, {"rule": "compose"}):
        with pytest.raises(LSEError, match=f"takes no {next(iter(asked))}"):
            lse_dec.adapt(resnet(), "image", canonicalizer="constant", **asked)  # type: ignore[arg-type]
    with pytest.raises(LSEError, match="knows the warp 'separable' only: leave warp='bent' out"):
        lse_dec.adapt(resnet(), "image", canonicalizer="constant", warp="bent")


def test_a_backbone_with_a_layout_of_its_own() -> None:
    torch.manual_seed(0)
    model, x = Rows().eval(), torch.randn(2, 3, 12, 16)
    with torch.no_grad():
        plain = model(x)
        adapted = lse_dec.adapt(model, canonicalizer="constant", slope=0.5, mode="equivariant")
        assert list(adapted.sites) == ["image", "stage"]
        assert adapted(picture=x).shape == plain.shape
        lse_dec.unadapt(adapted)
        adapted = lse_dec.adapt(model, "stage", canonicalizer="constant", slope=0.5, mode="equivariant")
        # x + S(2 S^-1 x - S^-1 x) is x and what resampling leaves of x
        f = plain / 2
        warp = adapted.canonicalizers["stage"](f).warp
        from lse_core import scale, unscale

        torch.testing.assert_close(adapted(x), f + scale(unscale(f, warp), warp), atol=1e-5, rtol=1e-4)
