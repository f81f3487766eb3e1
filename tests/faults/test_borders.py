"""At the borders: the strangest pictures, settings, batches and warps that are allowed, and just beyond."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import lse_core
import lse_dec
from lse_core import SeparableWarp
from lse_core.errors import LSEError
from lse_core.pictures import read_picture
from lse_core.preprocess import Preprocess

few = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "I;16", "F")
FORMATS = ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP")
sides = st.one_of(st.integers(1, 40), st.sampled_from([1, 2, 255, 256, 257, 1999, 5000]))


@st.composite
def pictures(draw: st.DrawFn) -> tuple[bytes, str, tuple[int, int], int]:
    """A picture file with its mode, its size in pixels and its EXIF orientation."""
    width, height = draw(sides), draw(sides)
    if width * height > 500_000:
        height = max(1, 500_000 // width)
    mode, kind = draw(st.sampled_from(MODES)), draw(st.sampled_from(FORMATS))
    orientation, frames = draw(st.integers(1, 8)), draw(st.integers(1, 3))
    image = Image.new(mode, (width, height))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"exif": exif} if kind in ("PNG", "JPEG", "TIFF", "WEBP") else {}
    if frames > 1 and kind in ("GIF", "WEBP", "PNG", "TIFF"):
        options |= {"save_all": True, "append_images": [image.copy() for _ in range(frames - 1)]}
    file = io.BytesIO()
    try:
        image.save(file, kind, **options)
        Image.open(file).load()
    except (OSError, ValueError, KeyError):  # the format has no such mode or size, or not one that it reads
        image = image.convert("RGB") if mode not in ("I;16", "F") else Image.new("RGB", (width, height))
        file, mode = io.BytesIO(), "RGB"
        image.save(file, "PNG", exif=exif)
        kind, options = "PNG", {"exif": exif}
    return file.getvalue(), mode, (width, height), orientation if "exif" in options else 1


@few
@given(picture=pictures(), channels=st.sampled_from([1, 3]))
def test_any_picture_is_read_upright_or_refused_in_one_line(
    picture: tuple[bytes, str, tuple[int, int], int], channels: int, tmp_path: Path
) -> None:
    data, _, (width, height), orientation = picture
    path = tmp_path / "picture"
    path.write_bytes(data)
    if Image.open(path).mode in ("I", "F", "LAB"):  # numbers of no known range, colours of no known profile
        with pytest.raises(LSEError, match=r"unknown range|of kind LAB") as caught:
            read_picture(path, channels)
        assert "\n" not in str(caught.value)
        return
    image = read_picture(path, channels)
    assert image.mode == ("L" if channels == 1 else "RGB")
    assert image.size == ((height, width) if orientation >= 5 else (width, height))
    prepare = Preprocess(channels=channels, size=(16, 12), mean=(0.5,) * channels, std=(0.25,) * channels)
    assert prepare.read(path).shape[-3:] == (channels, 16, 12)


@st.composite
def batches(draw: st.DrawFn) -> torch.Tensor:
    """Maps of all kinds: empty, one, odd channels, strided, channels last, with gradient."""
    shape = (
        draw(st.integers(0, 3)),
        draw(st.integers(1, 5)),
        draw(st.integers(1, 9)),
        draw(st.integers(1, 9)),
    )
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
    x = (
        torch.linspace(-1, 1, max(1, torch.Size(shape).numel()))[: torch.Size(shape).numel()]
        .view(shape)
        .to(dtype)
    )
    kind = draw(st.sampled_from(["plain", "strided", "channels_last", "expanded", "gradient"]))
    if kind == "strided":
        x = torch.cat([x, x], dim=-1)[..., ::2]
    elif kind == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif kind == "expanded":
        x = x[:, :1].expand(shape)
    elif kind == "gradient":
        x = x.requires_grad_()
    return x


@few
@given(x=batches(), ratio=st.floats(1.01, 20), segments=st.sampled_from([1, 2, 7, 64, 2000]))
def test_any_batch_is_warped_as_each_of_its_maps(x: torch.Tensor, ratio: float, segments: int) -> None:
    warp = SeparableWarp.random(len(x), segments, ratio, generator=torch.Generator().manual_seed(0))
    for function in (lse_core.scale, lse_core.unscale):
        out = function(x, warp)
        assert out.shape == x.shape
        assert out.dtype == x.dtype
        assert bool(out.isfinite().all())
        # sums of weights are one: nothing exceeds what was there
        if len(x):
            assert (
                float(out.detach().float().abs().max()) <= float(x.detach().float().abs().max()) * 1.01 + 1e-6
            )
            alone = function(x[:1].detach(), warp[0])
            torch.testing.assert_close(alone.float(), out[:1].detach().float(), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("function", [lse_core.scale, lse_core.unscale])
def test_shapes_without_numbers(function: Any) -> None:
    """On the meta device nothing is computed, and shapes come out all the same."""
    warp = SeparableWarp.random(2).to("meta")
    assert function(torch.empty(2, 3, 8, 6, device="meta"), warp).shape == (2, 3, 8, 6)


@few
@given(ratio=st.floats(1.001, 50), segments=st.sampled_from([1, 2, 3, 100, 4096]), seed=st.integers(0, 99))
def test_random_warps_of_any_size_are_warps(ratio: float, segments: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    warp = SeparableWarp.random(3, segments, ratio, generator=generator, dtype=torch.float64)
    u = torch.linspace(0, 1, 65, dtype=torch.float64)
    for axis in (warp.x, warp.y):
        slopes = axis.slopes
        assert bool((slopes >= 1 / ratio - 1e-9).all())
        assert bool((slopes <= ratio + 1e-9).all())
        torch.testing.assert_close((~axis)(axis(u)), u.expand(3, -1), atol=1e-9, rtol=0)


def small() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("resnet10t", num_classes=2, channels=(4, 4, 4, 4), stem_width=4)


USUAL = {"segments": 3, "projection": 4, "widths": [4], "resolution": 8}
INSIDE: dict[str, list[Any]] = {
    "segments": [2, 3, 64],
    "ratio": [1.0001, 2.0, 4.0],
    "projection": [1, 8],
    "widths": [[], [1], [4, 4, 4]],
    "resolution": [4, 8, 64],
    "steps": [1, 2, 50],
    "tol": [1e-9, 0.1],
}
OUTSIDE: dict[str, list[Any]] = {
    "segments": [1, 0, -2, 2.5, "two", None, float("nan")],
    "ratio": [1.0, 0.5, 4.0001, float("inf"), float("nan"), "2"],
    "projection": [0, -1, "eight"],
    "widths": [[0], [-4], ["four"], 4],
    "resolution": [3, 0, -8, "big"],
    "steps": [0, -1, 1.5, "five"],
    "tol": [-1e-9, float("nan"), "small"],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in INSIDE.items() for v in values])
def test_settings_within_their_range_work(name: str, value: Any) -> None:
    model = lse_dec.adapt(small(), "image", **{**USUAL, name: value}).eval()
    with torch.no_grad():
        assert bool(model(torch.rand(1, 3, 32, 32)).isfinite().all())


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in OUTSIDE.items() for v in values])
def test_settings_just_outside_are_refused_by_name(name: str, value: Any) -> None:
    model = small()
    with pytest.raises(LSEError) as caught:
        lse_dec.adapt(model, "image", **{**USUAL, name: value})
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not any("Canonicalized" in type(module).__name__ for module in model.modules())
