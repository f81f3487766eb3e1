"""The Lie derivative of layers: against finite differences in float64, and on layers where it is known."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lse_core import SeparableWarp, scale, unscale
from lse_core.errors import LSEError, NotFiniteError, ShapeError
from lse_core.layouts import NCHW, NHWC, Tokens
from lse_core.measuring import layers as measuring_layers
from lse_core.measuring.layers import measure_layers, stage_shares
from lse_core.measuring.lie import ScalingField, lie_derivative, trace
from lse_core.measuring.places import visiting

STEP = 1e-7  # a bilinear warp has kinks at pixels, so the error of a central difference is linear in it


def field(batch: int = 2, seed: int = 0, segments: int = 3) -> ScalingField:
    generator = torch.Generator().manual_seed(seed)
    drawn = ScalingField.random(batch, segments, 2.0, generator=generator).log_slopes
    return ScalingField(drawn.double())


def maps(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive(function, x: Tensor, direction: ScalingField, layout="nchw", output_layout="nchw") -> Tensor:
    """d/dt S_t^-1 f(S_t x) at 0 by central differences, with the warps that users apply."""
    found = []
    for t in (STEP, -STEP):
        warp = SeparableWarp.from_log_slopes(t * direction.log_slopes)
        out = function(scale(x, warp, layout))
        found.append(out if output_layout is None else unscale(out, warp, output_layout))
    return (found[0] - found[1]) / (2 * STEP)


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (NCHW(), (2, 3, 7, 10)),
        (NHWC(), (2, 5, 8, 3)),
        (Tokens((4, 6), 2), (2, 26, 3)),
        (NCHW(), (2, 3, 1, 2)),
    ],
)
def test_a_field_acts_as_the_derivative_of_scale(layout, shape):
    x, direction = maps(*shape), field()
    expected = naive(lambda y: y, x, direction, layout, None)
    torch.testing.assert_close(direction.act(x, layout), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.AvgPool2d(2),
        nn.MaxPool2d(3, 2),
        nn.GELU(),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(3, 3, 3), nn.Sigmoid(), nn.Conv2d(3, 2, 3, stride=3)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_agrees_with_finite_differences_of_warps(layer):
    layer, x, direction = layer.double(), maps(2, 3, 9, 12), field()
    expected = naive(layer, x, direction)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(lie_derivative(layer, x, direction), expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "layer",
    [nn.Identity(), nn.Conv2d(3, 5, 1), nn.BatchNorm2d(3).eval(), lambda x: x[:, :1] - 2 * x[:, 2:]],
)
def test_what_is_linear_and_mixes_no_positions_has_none(layer):
    layer = layer.double() if isinstance(layer, nn.Module) else layer
    assert lie_derivative(layer, maps(2, 3, 9, 12), field()).abs().max() < 1e-12


def test_an_operation_along_columns_commutes_with_scaling_along_rows_and_with_no_other():
    columns = nn.Conv2d(3, 3, (3, 1), padding=(1, 0), bias=False).double()
    x, slopes = maps(2, 3, 9, 12), field().log_slopes
    along_x, along_y = slopes.clone(), slopes.clone()
    along_x[:, 1], along_y[:, 0] = 0.0, 0.0
    assert lie_derivative(columns, x, ScalingField(along_x)).abs().max() < 1e-12
    assert lie_derivative(columns, x, ScalingField(along_y)).abs().max() > 1e-2


def test_tokens_and_pooling_agree_with_finite_differences():
    x, direction, tokens = maps(2, 13, 4), field(), Tokens((3, 4), 1)

    def attend(y: Tensor) -> Tensor:
        return (y @ y.mT).softmax(-1) @ y

    for function, out in ((attend, tokens), (lambda y: y.mean(1), None)):
        expected = naive(function, x, direction, tokens, out)
        torch.testing.assert_close(
            lie_derivative(function, x, direction, tokens, out), expected, atol=1e-7, rtol=1e-4
        )


def test_a_nonlinearity_aliases_less_on_smoother_maps():
    def share(pixels: int) -> float:
        x = F.interpolate(maps(2, 3, 5, 5), (pixels, pixels), mode="bicubic", align_corners=True)
        return float(lie_derivative(torch.sigmoid, x, field()).square().mean().sqrt())

    assert share(64) < 0.1 * share(16) < 0.1 * share(8)


# models ------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """A residual block that adds in place, with a gate, and an operation outside of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.gate = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.conv(x))
        y = y * self.gate(y.mean((2, 3), keepdim=True)).sigmoid()
        y += x.roll(1, 3)
        return y


def convnet() -> nn.Sequential:
    torch.manual_seed(0)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    parts = (nn.Conv2d(2, 4, 3, stride=2), nn.Tanh(), Residual(), *head)
    return nn.Sequential(*parts).double()


class Transformer(nn.Module):
    """Patches with positions, one block of attention and a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.grid_size = (4, 4)
        self.patch = nn.Conv2d(2, 8, 3, stride=3)
        self.positions = nn.Parameter(torch.randn(1, 17, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).mT
        x = torch.cat([x[:, :1] * 0, x], 1) + self.positions
        return self.head(self.block(x)[:, 0])


@pytest.mark.parametrize("make", [convnet, lambda: Transformer().double()], ids=["convnet", "transformer"])
def test_own_shares_sum_to_the_derivative_of_the_whole_answer(make):
    torch.manual_seed(0)
    model, x, direction = make(), maps(2, 2, 12, 12), field()
    tensors, found = [], []

    def keep(place, tensor):
        tensors.append(tensor)
        return tensor.clone()

    with visiting(model, 2, keep):
        answer = model(x.requires_grad_())
        gradients = torch.autograd.grad(answer[:, 1].sum(), tensors, allow_unused=True)
    each = iter(gradients)

    def note(place, value, error):
        gradient = next(each)
        if gradient is not None:
            found.append((gradient * error).flatten(1).sum(1))

    rest = trace(model, model, x.detach(), direction, note)
    assert rest.abs().max() < 1e-12  # class scores end up with no tangent
    model.eval()
    with torch.no_grad():
        expected = naive(model, x.detach(), direction, output_layout=None)[:, 1]
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(torch.stack(found).sum(0), expected, atol=1e-7, rtol=1e-4)
    whole = trace(model, model, x.detach(), direction, lambda *_: None, own=False)
    torch.testing.assert_close(whole[:, 1], expected, atol=1e-7, rtol=1e-4)


def test_layers_of_a_chain_agree_with_a_naive_computation():
    model, x, fields = convnet()[:2].append(nn.Conv2d(4, 3, 3, padding=1)).double(), maps(3, 2, 12, 12), 2
    measured = {
        layer.name: layer for layer in measure_layers(model, x, fields=fields, batch=3, seed=5).layers
    }
    generator = torch.Generator().manual_seed(5)
    own, through, size, pushed = (dict.fromkeys("012", 0.0) for _ in range(4))
    for _ in range(fields):
        direction = ScalingField(ScalingField.random(3, generator=generator).log_slopes.double())
        probe = torch.randn(3, 3, 5, 5, generator=generator).double()
        for name in "012":
            end = int(name) + 1
            entering = model[: end - 1](x)
            alone = naive(model[end - 1], entering, direction).detach()
            own[name] += float(alone.square().sum())
            through[name] += float(naive(model[:end], x, direction).detach().square().sum())
            size[name] += float(model[:end](x).detach().square().sum())
            _, change = torch.func.jvp(
                lambda y, end=end: model[end:](y).softmax(1), (model[:end](x),), (alone,)
            )
            pushed[name] += float((probe * change).flatten(1).sum(1).detach().square().sum())
    total = sum(math.sqrt(part) for part in pushed.values())
    for name in "012":
        layer = measured[name]
        assert layer.own == pytest.approx(math.sqrt(own[name] / size[name]), rel=1e-6)
        assert layer.lie_derivative == pytest.approx(math.sqrt(through[name] / size[name]), rel=1e-6)
        assert layer.share == pytest.approx(math.sqrt(pushed[name]) / total, rel=1e-6)


def test_a_strided_convolution_breaks_more_than_a_pointwise_one():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 4, stride=4), nn.Flatten(), nn.LazyLinear(5))
    model(torch.zeros(1, 3, 32, 32))
    pointwise, strided, *_ = measure_layers(model, maps(1, 3, 32, 32).float()).layers
    assert pointwise.own < 1e-5 < 0.1 < strided.own


def test_the_model_is_left_as_it_was_and_a_seed_gives_the_same_numbers():
    model, x = convnet().train(), maps(3, 2, 12, 12)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = measure_layers(model, x, fields=1, batch=2)
    assert measure_layers(model, x, fields=1, batch=2) == first
    assert measure_layers(model, x, fields=1, batch=2, seed=1) != first
    assert model.training
    assert model[2].act.inplace
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert sum(layer.share for layer in first.layers) == pytest.approx(1)
    assert sum(stage_shares(first).values()) == pytest.approx(1)


class Backbone:
    """A plugin's backbone for `convnet`."""

    def stages(self, model):
        class Stage:
            name = "2"

        return [Stage()]


def test_advice_names_stages_and_the_command(monkeypatch):
    monkeypatch.setattr(measuring_layers, "find_backbone", lambda model: Backbone())
    found = measure_layers(convnet(), maps(2, 2, 12, 12), target=["my models:net", "--trust"])
    stages = [layer.stage for layer in found.layers]
    assert sorted(set(stages)) == ["2", "image"]
    assert stages[0] == "image"  # the convolution before the stage
    shares = stage_shares(found)
    assert found.sites[0] == max(shares, key=shares.get)
    sites = " ".join(f"--site {site}" for site in found.sites)
    assert found.command == f"lse adapt 'my models:net' --trust {sites} --out runs/adapted"
    monkeypatch.setattr(measuring_layers, "find_backbone", lambda model: None)
    without = measure_layers(convnet(), maps(2, 2, 12, 12), target=["net"])
    assert (without.sites, without.command) == ((), None)
    assert {layer.stage for layer in without.layers} >= {"0", "1", "2"}


class Rounded(torch.autograd.Function):
    """An operation without a derivative in forward mode."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient


class Rounding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Rounded.apply(x).mean((2, 3))


def test_what_cannot_be_measured_is_said_in_one_line():
    with pytest.raises(ShapeError, match=r"on images \(n, channels, height, width\); got \(0, 3, 8, 8\)"):
        measure_layers(convnet(), torch.zeros(0, 3, 8, 8))
    with pytest.raises(NotFiniteError, match="Sequential answers with NaN or infinity"):
        measure_layers(convnet(), torch.full((1, 2, 12, 12), math.nan, dtype=torch.float64))
    with pytest.raises(
        LSEError, match=r"layers of Rounding cannot be measured.*no derivative in forward mode"
    ):
        measure_layers(Rounding(), maps(2, 3, 8, 8))
