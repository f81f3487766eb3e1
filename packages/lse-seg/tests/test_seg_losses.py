"""EquE as a loss: its value, its gradient through both branches, and training with it."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine import ConfigDict
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

import lse_seg  # noqa: F401  (puts the placeholder for mmcv's ops in place)
from lse_core import scale
from lse_core.errors import LSEError
from lse_seg.losses import ConsistentSegmentor, EquivarianceLoss


@pytest.fixture(autouse=True)
def scope() -> Any:
    init_default_scope("mmseg")
    yield
    DefaultScope._instance_dict.clear()


def segmentor(kind: str = "ConsistentSegmentor", **options: Any) -> Any:
    torch.manual_seed(0)
    head = {
        "type": "FCNHead", "in_channels": 32, "in_index": 0, "channels": 8, "num_convs": 1, "num_classes": 3,
        "norm_cfg": {"type": "BN"}, "align_corners": False, "dropout_ratio": 0.0,
    }  # fmt: skip
    backbone = {
        "type": "ResNetV1c", "depth": 18, "base_channels": 8, "stem_channels": 8, "out_indices": (2,)
    }  # fmt: skip
    options.setdefault("test_cfg", {"mode": "whole"})
    return MODELS.build(ConfigDict(type=kind, backbone=backbone, decode_head=head, **options))


def batch(n: int = 2) -> tuple[Tensor, list[SegDataSample]]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(n, 3, 5, 6, generator=generator).repeat_interleave(8, 2).repeat_interleave(8, 3)
    truth = torch.randint(0, 3, (n, 1, 40, 48), generator=generator)
    about = {"img_shape": (40, 48), "pad_shape": (40, 48), "ori_shape": (40, 48)}
    return images, [SegDataSample(gt_sem_seg=PixelData(data=t), metainfo=about) for t in truth]


@pytest.mark.parametrize("output", ["softmax", "logits"])
def test_loss_is_equation_23_of_what_is_predicted(output: str) -> None:
    model = segmentor(equivariance_loss={"weight": 3.0, "output": output, "ratio": 3.0}).eval()
    images, _ = batch()
    torch.manual_seed(5)
    found = model.equivariance_loss(model._logits, images)
    torch.manual_seed(5)
    warps = model.equivariance_loss.warps.draw(2)

    def predict(x: Tensor) -> Tensor:
        samples = [
            SegDataSample(metainfo={"img_shape": (40, 48), "ori_shape": (40, 48)}) for _ in range(len(x))
        ]
        logits = torch.stack([s.seg_logits.data for s in model.predict(x, samples)])
        return logits.softmax(1) if output == "softmax" else logits

    with torch.no_grad():
        expected = (scale(predict(images), warps) - predict(scale(images, warps))).square().mean()
    assert float(found) == pytest.approx(3.0 * float(expected), rel=1e-4)
    assert float(found) > 1e-6


class Small(nn.Module):
    """A smooth model in float64 whose parameters count in both branches."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(torch.tanh(self.first(x)))
        return out


@pytest.mark.parametrize("output", ["softmax", "logits"])
def test_gradient_is_that_of_finite_differences(output: str) -> None:
    model, loss = Small(), EquivarianceLoss(weight=2.0, output=output, per_element=False)
    images = torch.randn(2, 2, 7, 8, dtype=torch.float64, requires_grad=True)

    def value(x: Tensor) -> Tensor:
        torch.manual_seed(3)
        return loss(model, x)

    value(images).backward()
    step = 1e-6
    for parameter in (*model.parameters(), images):
        assert parameter.grad is not None
        direction = torch.randn(parameter.shape, dtype=torch.float64)
        with torch.no_grad():
            parameter += step * direction
            above = float(value(images))
            parameter -= 2 * step * direction
            below = float(value(images))
            parameter += step * direction
        assert float((parameter.grad * direction).sum()) == pytest.approx(
            (above - below) / (2 * step),
            rel=1e-5,
            abs=1e-7,  # a bias cancels between logits
        )


def test_both_branches_carry_gradient() -> None:
    """Each branch cut off gives another gradient, and the two add up to the whole."""
    loss, images = EquivarianceLoss(output="logits"), torch.randn(2, 2, 9, 9, dtype=torch.float64)
    grads = []
    for cut in (None, 0, 1):
        model = Small()

        def run(x: Tensor, model: nn.Module = model, cut: int | None = cut) -> Tensor:
            branches = list(model(x).chunk(2))
            if cut is not None:
                branches[cut] = branches[cut].detach()
            return torch.cat(branches)

        torch.manual_seed(3)
        loss(run, images).backward()
        assert model.first.weight.grad is not None
        grads.append(model.first.weight.grad)
    whole, second, first = grads
    assert float(second.abs().max()) > 1e-6
    assert float(first.abs().max()) > 1e-6
    assert torch.allclose(whole, first + second, rtol=1e-9)


def test_segmentor_adds_the_loss_and_trains_by_it() -> None:
    model = segmentor(equivariance_loss={"weight": 20.0}).train()
    images, samples = batch(4)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    history = []
    for _ in range(12):
        torch.manual_seed(0)
        losses = model.loss(images, samples)
        total = sum(v.mean() for k, v in losses.items() if "loss" in k)
        assert losses.keys() >= {"decode.loss_ce", "loss_equivariance"}
        history.append(float(losses["loss_equivariance"].detach()))
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    assert history[-1] < 0.7 * history[0], history
    parsed, log = model.parse_losses(losses)
    assert float(parsed) == pytest.approx(float(total), rel=1e-5)
    assert "loss_equivariance" in log


def test_without_canonicalizer_it_is_an_encoder_decoder() -> None:
    plain, own = segmentor("EncoderDecoder"), segmentor()
    own.load_state_dict(plain.state_dict())
    images, samples = batch()
    plain.eval(), own.eval()
    expected, found = plain.loss(images, samples), own.loss(images, samples)
    assert float(found["decode.loss_ce"]) == pytest.approx(float(expected["decode.loss_ce"]), rel=1e-6)
    a, b = (m.predict(images, batch()[1]) for m in (plain, own))
    assert torch.equal(a[0].seg_logits.data, b[0].seg_logits.data)


def test_canonicalizer_is_trained_by_it() -> None:
    model = segmentor(canonicalizer={"canonicalizer": "dec", "steps": 2}).train()
    images, samples = batch()
    with torch.no_grad():  # a new DEC answers the identity and has no gradient in its first layers
        for parameter in model.frame.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.loss(images, samples)["loss_equivariance"].backward()
    assert any(p.grad is not None and bool(p.grad.abs().max() > 0) for p in model.frame.parameters())


def test_half_precision_outputs_are_compared_in_float32() -> None:
    loss = EquivarianceLoss(output="logits")
    layer = nn.Conv2d(3, 2, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(layer, torch.randn(2, 3, 12, 12))
    assert found.dtype == torch.float32
    assert float(found) < 1e-3
    found.backward()
    assert layer.weight.grad is not None


def test_pointwise_models_cost_nothing() -> None:
    layer = nn.Conv2d(3, 4, 1)
    images = F.avg_pool2d(torch.randn(2, 3, 30, 30), 3, 1, 1)
    assert float(EquivarianceLoss(output="logits")(layer, images)) < 1e-10


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"weight": 0.0}, "equivariance_loss: weight must be above 0, not 0.0"),
        ({"output": "mask"}, "unknown output 'mask'"),
        ({"ratoi": 2.0}, "Did you mean 'ratio'?"),
    ],
)
def test_wrong_settings_are_told_when_the_model_is_built(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(LSEError) as caught:
        segmentor(equivariance_loss=settings)
    assert text in str(caught.value)


def test_it_is_in_the_registry() -> None:
    assert MODELS.get("ConsistentSegmentor") is ConsistentSegmentor
