"""The DEC with the paper's coupled grids: state, network, fixed point, both modes, save and load."""

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import lse_dec
from lse_core import GridWarp, SeparableWarp, unscale
from lse_core.errors import LSEError, UnknownNameError, WarpError
from lse_dec.canonicalizers import DEC
from lse_dec.canonicalizers.coupled import GridNetwork, RefinedGridWarp, node_weights
from lse_dec.losses import FRAMES, canonicalizer_equivariance_loss, warp_distance
from lse_dec.monitor import displacement, summarise
from lse_dec.solvers import Code
from lse_dec.updates import Absolute, Residual


def smooth(batch: int = 3, channels: int = 8, size: tuple[int, int] = (20, 26), seed: int = 0) -> Tensor:
    coarse = torch.randn(batch, channels, 5, 5, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=size, mode="bicubic", align_corners=True)


def trained(size: float = 1.0, **settings: Any) -> DEC:
    torch.manual_seed(0)
    dec = DEC(8, **{"warp": "grid", "segments": 4, "widths": (8, 8), "projection": 6, **settings})
    nn.init.normal_(dec.update.head.weight, std=size)
    return dec


@pytest.mark.parametrize("rule", [Residual(), Absolute()])
def test_identity_before_training(rule: Any) -> None:
    found = DEC(8, warp="grid", segments=4, rule=rule)(smooth())
    assert isinstance(found.warp, GridWarp)
    assert found.warp.nodes.shape == (3, 5, 5, 2)
    assert (found.warp.nodes - GridWarp.identity(1, 5, 5).nodes).abs().max() < 1e-6
    assert (found.solution.codes == Code.CONVERGED).all()


@pytest.mark.parametrize("gradient", ["phantom", "implicit", "unrolled"])
@pytest.mark.parametrize("rule", [Residual(), Absolute()])
def test_gradient_reaches_every_parameter(rule: Any, gradient: str) -> None:
    dec = trained(rule=rule, gradient=gradient)
    dec(smooth()).warp.nodes.square().sum().backward()
    for name, p in dec.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        # proposals are centred, so that a constant in all of them is felt by rounding alone, or not at all
        if not (isinstance(rule, Residual) and name == "update.head.bias"):
            assert p.grad.abs().max() > 0, name


def test_the_solve_is_the_drivers() -> None:
    """A fixed point of unscale -> network -> rule, done here by hand; rows and columns are not mixed up."""
    dec, x = trained(0.3, rule=Absolute(), steps=60, tol=1e-6), smooth()
    found = dec(x)
    assert (found.solution.codes == Code.CONVERGED).all()
    w = found.solution.z.view(3, 2, 5, 4)
    assert torch.allclose(GridWarp.from_log_slopes(w[:, 0], w[:, 1]).nodes, found.warp.nodes)
    assert w.std(2).max() > 1e-3  # rows differ: it is no separable warp
    with torch.no_grad():
        again = dec.rule(w, dec.update(unscale(dec.reduce(x, False), found.warp)), dec.ratio)
    assert (again - w).abs().max() < 1e-5
    assert (w.abs() <= 0.5 * math.log(dec.ratio)).all()


def test_the_proposal_is_local() -> None:
    torch.manual_seed(0)
    net = GridNetwork(2, 6, widths=(3,))
    nn.init.normal_(net.head.weight)
    blank, spot = torch.zeros(1, 2, 25, 25), torch.zeros(1, 2, 25, 25)
    spot[..., 20, 3] = 5.0  # low and to the left: row node 5 of 0 to 6, segment 0 along x
    change = (net(spot) - net(blank)).abs()[0]
    assert change.shape == (2, 7, 6)
    assert change[0, 5, 0] > 1e-3  # l_X: row 5, segment 0
    assert change[1, 1, 4] > 1e-3  # l_Y: column 1, segment 4
    assert change[0, :2].max() < 1e-6
    assert change[0, :, 4:].max() < 1e-6
    assert change[1, 5:].max() < 1e-6
    assert change[1, :, :1].max() < 1e-6


@pytest.mark.parametrize(("n", "nodes"), [(16, 5), (5, 5), (3, 6), (1, 4), (33, 2)])
def test_node_weights_sum_to_one_and_stay_about_their_nodes(n: int, nodes: int) -> None:
    weights = node_weights(n, nodes, torch.empty(0, dtype=torch.float64))
    assert torch.allclose(weights.sum(1), torch.ones(nodes, dtype=torch.float64))
    ramp = torch.linspace(0, 1, n, dtype=torch.float64)
    inner = slice(1, -1)
    even = torch.linspace(0, 1, nodes, dtype=torch.float64)
    if n > 1 and nodes > 2:
        assert ((weights @ ramp)[inner] - even[inner]).abs().max() < 0.02


def test_a_separable_start() -> None:
    dec, x = DEC(8, warp="grid", segments=4, start="variation"), smooth()
    plain = DEC(8, segments=4, start="variation")
    plain.start.load_state_dict(dec.start.state_dict())
    w, v = dec(x).solution.z.view(3, 2, 5, 4), plain(x).solution.z.view(3, 2, 1, 4)
    assert v.abs().max() > 0.01
    assert (w - v).abs().max() < 1e-5


@pytest.mark.parametrize("inverse", ["axes", "refined"])
def test_the_inverse_that_was_asked_for(inverse: str) -> None:
    dec, x = trained(3.0, inverse=inverse), smooth()
    with torch.no_grad():
        warp = dec(x).warp
    assert isinstance(warp[:1].to(torch.float64), RefinedGridWarp) == (inverse == "refined")
    points = torch.rand(50, 2, generator=torch.Generator().manual_seed(0))
    off = (warp((~warp)(points)) - points).norm(dim=-1).max()
    assert (off < 0.01 / 223 * 1.1) == (inverse == "refined")
    if inverse == "refined":
        folding = RefinedGridWarp(
            GridWarp.random(20, 6, 1.0, generator=torch.Generator().manual_seed(0)).nodes
        )
        with pytest.raises(WarpError, match="folds"):
            folding.__invert__()


@pytest.mark.parametrize("mode", ["invariant", "equivariant"])
@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_adapted_models(name: str, mode: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"num_classes": 5}
    if name == "vit":
        settings |= {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 3}
    names = {"vit": "vit_tiny_patch16_224", "resnet": "resnet10t"}
    base = timm.create_model(names[name], **settings).eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain = base(x)
    model = lse_dec.adapt(base, warp="grid", mode=mode, segments=3, steps=3)
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
    lse_dec.save(model.eval(), tmp_path)
    again = lse_dec.load(tmp_path, timm.create_model(names[name], **settings))
    with torch.no_grad():
        assert torch.allclose(again(x), model(x), atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"rule": "compose"}, "the rule Compose composes warps, and a product of 'grid' warps is not"),
        ({"canonicalizer": "variation"}, "knows the warp 'separable' only: leave warp='grid' out"),
        ({"contraction": 0.95}, "contraction by construction was removed, .* leave contraction out"),
        ({"inverse": "refind"}, "Did you mean 'refined'"),
        (
            {"warp": "separable", "inverse": "refined"},
            "separable warps have one inverse only; leave inverse='refined' out",
        ),
        ({"warp": "gird"}, "Did you mean 'grid'"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], text: str) -> None:
    model = timm.create_model("resnet10t")
    with pytest.raises(LSEError, match=text) as error:
        lse_dec.adapt(model, "layer2", **{"warp": "grid", **settings})
    assert "\n" not in str(error.value)
    with pytest.raises(UnknownNameError):
        DEC(3, warp="gird")


# Eq. 5 for every canonicalizer and warp ---------------------------------------------------------


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("coupled", [True, False])
def test_loss_takes_any_pair_of_families(coupled: bool, frame: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, g = smooth(), GridWarp.random(3, 4, 0.1, generator=generator)
    if not coupled:
        g = SeparableWarp.random(3, 4, 1.5, generator=generator)
    ignoring = canonicalizer_equivariance_loss(DEC(8, warp="grid", segments=4), x, g, frame=frame)
    assert abs(ignoring.item() - 1.0) < 1e-5
    loss = canonicalizer_equivariance_loss(trained(), x, g, frame=frame)
    assert loss.isfinite()
    assert abs(loss.item() - 1.0) > 1e-3


class Known(nn.Module):
    """Answers F with one warp and S(F; g) with its product with g: exactly equivariant."""

    def __init__(self, plain: Any, moved: Any) -> None:
        super().__init__()
        self.answer = (plain, moved)

    def forward(self, features: Tensor, *, channels_last: bool = False) -> Any:
        return lse_dec.canonicalizers.Canonicalization(Pair(*self.answer))


class Pair:
    """Two batches of warps of different kinds, cut apart as the loss cuts them."""

    def __init__(self, plain: Any, moved: Any) -> None:
        self.plain, self.moved = plain, moved

    def __getitem__(self, index: slice) -> Any:
        return self.plain if index.start is None else self.moved


@pytest.mark.parametrize("frame", FRAMES)
def test_loss_of_coupled_warps_against_a_sum_over_points(frame: str) -> None:
    generator = torch.Generator().manual_seed(0)
    make = lambda: GridWarp.random(2, 4, 0.15, generator=generator, dtype=torch.float64)  # noqa: E731
    g, plain, other = make(), make(), make()
    x = smooth(2).double()
    assert canonicalizer_equivariance_loss(Known(plain, g @ plain), x, g, frame=frame) < 1e-12
    found = canonicalizer_equivariance_loss(Known(plain, other), x, g, frame=frame)
    v = torch.rand(200_000, 2, generator=generator, dtype=torch.float64)
    miss = (other(v) - g(plain(v))).square().mean(-1)
    weight = torch.linalg.det(plain.jacobian(v)).abs() if frame == "image" else 1.0
    size = warp_distance(g, GridWarp.identity(1, dtype=torch.float64)).mean()
    assert found.item() == pytest.approx(float((miss * weight).mean() / size), rel=0.15)


@pytest.mark.parametrize("name", ["variation", "canon", "optim", "dec", "identity"])
def test_loss_trains_every_canonicalizer_that_can_be(name: str) -> None:
    from lse_core import registry

    torch.manual_seed(0)
    module = registry().get("canonicalizer", name)(8)
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.Conv1d):
            nn.init.normal_(layer.weight, std=0.3)  # else the energies are the same for every warp
    x, generator = smooth(), torch.Generator().manual_seed(0)
    loss = canonicalizer_equivariance_loss(module, x, SeparableWarp.random(3, 4, 1.5, generator=generator))
    assert loss.isfinite()
    trainable = list(module.parameters())
    assert bool(trainable) == (name != "identity")
    if trainable:
        loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in trainable)
        assert max(float(p.grad.abs().max()) for p in trainable if p.grad is not None) > 0
