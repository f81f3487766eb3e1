"""Half precision, eight bits and baked-in preprocessing, on a small classifier of handwritten digits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor, nn

import lse_export
from lse_core.errors import DTypeError, LSEError, LSEWarning, ShapeError, UnknownNameError
from lse_core.preprocess import Preprocess
from lse_core.settings import SettingsError
from lse_dec import adapt, observe
from lse_dec.monitor import displacement
from lse_export.metadata import facts_of
from lse_export.predict import predict
from lse_export.preprocess import Prepare, RawPictures, raw_pictures_of

GATES = ("tensorrt10", "tensorrt11", "web", "onnxruntime")


@dataclass
class Digits:
    model: nn.Module
    train: Tensor
    test: Tensor
    labels: Tensor


@pytest.fixture(scope="module")
def digits() -> Digits:
    """A network trained for some seconds, whose scores mean something, and warps that move before it."""
    torch.manual_seed(0)
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 8.0 - 1.0
    x, y = nn.functional.interpolate(x, size=(32, 32), mode="bilinear"), torch.tensor(data.target)
    model = timm.create_model(
        "resnet10t", in_chans=1, num_classes=10, channels=(16, 24, 32, 48), stem_width=16
    )
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for k in range(80):
        i = torch.arange(64 * k, 64 * k + 64) % 1300
        loss = nn.functional.cross_entropy(model.train()(x[i]), y[i])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    adapted = adapt(
        model, ["image", "layer2"], rule="absolute", solver="anderson", steps=3, resolution=8, segments=4
    )
    for canonicalizer in adapted.canonicalizers.values():
        nn.init.normal_(canonicalizer.update.head.weight, std=2.0)
    adapted.eval()
    with torch.no_grad(), observe(adapted) as record:
        right = adapted(x[1300:]).argmax(1) == y[1300:]
    assert right.float().mean() > 0.8
    assert all(displacement(found).amax() > 0.01 for found in record.values())
    return Digits(adapted, x[:64], x[1300:], y[1300:])


def scores(path: Path, images: Tensor) -> Tensor:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"image": images.numpy()})[0])


@pytest.mark.slow
def test_half_precision(digits: Digits, tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    state = {k: v.clone() for k, v in digits.model.state_dict().items()}
    report = lse_export.export_onnx(digits.model, digits.train[:2], path, precision="fp16")
    assert report.metadata["lse.precision"] == "float16"
    # the model itself is as it was
    assert all(
        torch.equal(v, state[k]) and v.dtype == state[k].dtype for k, v in digits.model.state_dict().items()
    )
    proto = onnx.load(path)
    halves = [t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16]
    weights = sum(p.numel() for p in digits.model.parameters())
    assert sum(int(np.prod(t.dims)) for t in halves) > 0.95 * weights
    for value in (*proto.graph.input, *proto.graph.output):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    # islands: the solver's arithmetic is in float32
    types = {
        v.name: v.type.tensor_type.elem_type
        for v in onnx.shape_inference.infer_shapes(proto).graph.value_info
    }
    solver = [n for n in proto.graph.node if n.op_type in ("Sqrt", "Softmax") and "canonicalizer" in n.name]
    assert solver
    assert {types[n.output[0]] for n in solver} == {onnx.TensorProto.FLOAT}
    for target in GATES:
        assert lse_export.check(path, target).problems == []
    with torch.no_grad():
        expected = digits.model(digits.test)
    found = scores(path, digits.test)
    assert (found - expected).abs().max() <= 5e-3 * (expected.max() - expected.min())
    assert (found.argmax(1) == expected.argmax(1)).float().mean() >= 0.99
    checked = lse_export.verify(path, digits.model, digits.test[:14], batch_sizes=(1, 7))
    assert checked.tolerance == 5e-3
    assert checked.relative > 1e-5, "as near as float32: was it half at all?"
    with pytest.raises(lse_export.VerificationError):
        lse_export.verify(path, digits.model, digits.test[:14], tolerance=1e-6)


@pytest.mark.slow
def test_eight_bits(digits: Digits, tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    report = lse_export.export_onnx(
        digits.model, digits.train[:2], path, precision="int8", calibration=digits.train
    )
    assert report.metadata["lse.precision"] == "int8"
    proto = onnx.load(path)
    kinds = {t.data_type for t in proto.graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    made_by = {o: n for n in proto.graph.node for o in n.output}
    for node in proto.graph.node:
        if node.op_type in ("Conv", "MatMul", "Gemm"):
            inside = "canonicalizer" in node.name
            quantized = all(i in made_by and made_by[i].op_type == "DequantizeLinear" for i in node.input[:2])
            computed = made_by.get(node.input[1]) is not None and not quantized
            assert quantized != (inside or computed), node.name
    for target in GATES:
        assert lse_export.check(path, target).ok
    with torch.no_grad():
        before = (digits.model(digits.test).argmax(1) == digits.labels).float().mean()
    after = (scores(path, digits.test).argmax(1) == digits.labels).float().mean()
    assert before - after < 0.03
    checked = lse_export.verify(path, digits.model, digits.test[:8], batch_sizes=(8,), edges=False)
    assert 1e-3 < checked.relative <= checked.tolerance == 0.25
    # on any CPU: no sum overflows
    assert checked.overflowing == []
    assert checked.kernels == 0


def test_refusals(digits: Digits, tmp_path: Path) -> None:
    def export(**options: object) -> None:
        lse_export.export_onnx(digits.model, digits.train[:2], tmp_path / "m.onnx", **options)

    with pytest.raises(UnknownNameError, match="Did you mean 'float16'"):
        export(precision="float61")
    with pytest.raises(LSEError, match="int8 needs calibration images"):
        export(precision="int8")
    with pytest.raises(DTypeError, match="floating"):
        export(precision="int8", calibration=torch.zeros(2, 1, 32, 32, dtype=torch.uint8))
    with pytest.raises(LSEError, match="leave preprocess out"):
        export(precision="int8", calibration=digits.train, preprocess=(64, 64))
    assert not list(tmp_path.iterdir())


# preprocessing --------------------------------------------------------------------------------------


def photograph(size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(load_sample_images().images[0]).resize(size[::-1])


@pytest.mark.parametrize(
    ("name", "size", "mode"),
    [
        ("vit_tiny_patch16_224", (300, 400), "center"),
        ("resnet18", (640, 427), "center"),
        ("convnext_tiny", (256, 256), "squash"),
    ],
)
def test_preparation_is_that_of_timm(name: str, size: tuple[int, int], mode: str) -> None:
    from timm.data import create_transform, resolve_data_config

    model = timm.create_model(name)
    model.pretrained_cfg = {**model.pretrained_cfg, "crop_mode": mode}
    transform = create_transform(**resolve_data_config({}, model=model))
    picture = photograph(size)
    expected = transform(picture)
    raw = raw_pictures_of(model, size)
    got = Prepare(raw)(torch.from_numpy(np.array(picture))[None])[0]
    levels = 255.0 * (got - expected).abs() * torch.tensor(raw.preprocess.std).view(3, 1, 1)
    # sums halfway between two levels may round to either
    assert levels.max() <= 1.001
    assert (levels > 0.5).float().mean() <= 1e-3


def test_what_cannot_be_prepared_in_the_graph() -> None:
    model = timm.create_model("resnet18")
    with pytest.raises(LSEError, match=r"layout.*'nhwc' or 'nchw'; got 'nhcw'"):
        raw_pictures_of(model, (64, 64), "nhcw")
    with pytest.raises(LSEError, match=r"source\.0.*greater than or equal to 1"):
        raw_pictures_of(model, (0, 64))
    with pytest.raises(lse_export.ExportError, match="does not say how"):
        raw_pictures_of(nn.Conv2d(3, 4, 3), (64, 64))
    model.pretrained_cfg = {**model.pretrained_cfg, "crop_mode": "border"}
    with pytest.raises(SettingsError, match="crop_mode"):
        raw_pictures_of(model, (64, 64))
    grey = Preprocess(channels=1, size=(4, 4), interpolation="bilinear", mean=(0.0,), std=(1.0,))
    prepare = Prepare(RawPictures(source=(8, 8), layout="nchw", preprocess=grey))
    with pytest.raises(DTypeError, match="uint8"):
        prepare(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ShapeError, match="takes pictures"):
        prepare(torch.zeros(1, 8, 8, 1, dtype=torch.uint8))


@pytest.mark.slow
def test_raw_pictures_in_classes_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=4, channels=(8, 8, 8, 8), stem_width=8).eval()
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (3, 64, 64), "crop_pct": 0.9}
    path = tmp_path / "raw.onnx"
    lse_export.export_onnx(
        model, torch.randn(1, 3, 64, 64), path, allow_plain=True, preprocess=(96, 128), external_data=True,
        class_names=["a", "b", "c", "d"],
    )  # fmt: skip
    assert sorted(f.name for f in tmp_path.iterdir()) == ["raw.onnx", "raw.onnx.data"]
    told = facts_of(path).raw_pictures()
    assert told is not None
    assert (told.source, told.preprocess.size) == ((96, 128), (64, 64))
    assert told.preprocess.resized(told.source) == (71, 94)
    for target in GATES:
        assert lse_export.check(path, target).ok
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    photograph((96, 128)).save(pictures / "a.png")
    photograph((192, 256)).save(pictures / "b.png")
    files = sorted(pictures.iterdir())
    raw = told.batch(files)
    assert raw.shape == (2, 96, 128, 3)
    checked = lse_export.verify(path, model, raw, batch_sizes=(1, 3))
    assert checked.ok
    assert checked.relative <= 1e-4
    with pytest.raises(DTypeError, match="prepares pictures itself"):
        lse_export.verify(path, model, torch.randn(1, 3, 64, 64))
    with pytest.warns(LSEWarning, match="1 of 2 pictures do not have the size"):
        found = [p.classes for p in predict(path, files, top=4)]
    with torch.no_grad():
        order = model(Prepare(told)(raw)).argsort(1, descending=True)
    assert found == [["abcd"[k] for k in row] for row in order.tolist()]
    with pytest.raises(lse_export.ExportError, match="normalises pictures itself"):
        predict(path, files, mean=[0.5] * 3, std=[0.5] * 3)
