"""The renderer against a naive one pixel by pixel, and against torch's and PIL's antialiased resize."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lse_data.render import quantize, render, tent_weights


def naive_weight(center: float, j: int, pixels: int, length: float, antialias: bool) -> float:
    """Weight of glyph pixel j for a canvas point `center` pixels from the glyph's first edge."""
    width = max(1.0, pixels / length) if antialias else 1.0
    at = center / length * pixels  # in edge coordinates of the glyph

    def tent(k: int) -> float:
        return max(0.0, 1 - abs(at - (k + 0.5)) / width)

    first, last = math.floor(at - width) - 2, math.ceil(at + width) + 2
    return tent(j) / math.fsum(tent(k) for k in range(first, last + 1))


def naive_render(glyphs: np.ndarray, boxes: np.ndarray, resolution: int, antialias: bool) -> np.ndarray:
    """Draw (3, h, h) into boxes (3, 4), one pixel after the other, in float64."""
    image = np.zeros((resolution, resolution))
    h = glyphs.shape[1]
    for glyph, (x0, y0, x1, y1) in zip(glyphs, boxes, strict=True):
        for row in range(resolution):
            wy = [naive_weight(row + 0.5 - y0, j, h, y1 - y0, antialias) for j in range(h)]
            if not any(wy):
                continue
            for column in range(resolution):
                wx = [naive_weight(column + 0.5 - x0, j, h, x1 - x0, antialias) for j in range(h)]
                value = sum(wy[a] * wx[b] * glyph[a, b] for a in range(h) for b in range(h))
                image[row, column] = max(image[row, column], value)
    return image


@pytest.mark.parametrize("antialias", [True, False])
def test_matches_a_naive_renderer(antialias: bool):
    rng = np.random.default_rng(0)
    glyphs = rng.random((2, 3, 5, 5))
    # enlarged, shrunk, on whole pixels, between them, overlapping, at the border
    boxes = np.array(
        [
            [[0, 0, 9.3, 9.3], [4.7, 5.2, 8.0, 8.5], [3, 11, 8, 16]],
            [[13.6, 0.0, 16.0, 2.4], [0, 0, 16, 16], [6.31, 7.77, 8.11, 9.57]],
        ]
    )
    drawn = render(torch.from_numpy(glyphs), torch.from_numpy(boxes), 16, antialias).numpy()
    for image, glyph, box in zip(drawn, glyphs, boxes, strict=True):
        np.testing.assert_allclose(image, naive_render(glyph, box, 16, antialias), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    start=st.floats(-3, 20),
    length=st.floats(1, 24),
    pixels=st.integers(1, 12),
    antialias=st.booleans(),
)
def test_weights_match_naive_ones(start: float, length: float, pixels: int, antialias: bool):
    place = torch.tensor([start], dtype=torch.float64), torch.tensor([length], dtype=torch.float64)
    weights = tent_weights(*place, 20, pixels, antialias)[0]
    assert weights.shape == (20, pixels)
    for i in range(20):
        expected = [naive_weight(i + 0.5 - start, j, pixels, length, antialias) for j in range(pixels)]
        np.testing.assert_allclose(weights[i].numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("out", [7, 10, 16, 23, 40])
def test_equals_torchs_antialiased_resize(out: int):
    glyph = torch.rand(8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ring = F.pad(glyph, (4, 4, 4, 4))[None, None]  # 16 x 16: black beyond the glyph
    expected = F.interpolate(ring, size=(out, out), mode="bilinear", antialias=True)[0, 0]
    edge = 4 * out / 16
    box = torch.tensor([edge, edge, out - edge, out - edge], dtype=torch.float64)
    drawn = render(glyph.expand(1, 3, 8, 8), box.expand(1, 3, 4), out)[0]
    torch.testing.assert_close(drawn, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("out", [9, 31])
def test_equals_pils_resize(out: int):
    glyph = torch.rand(8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ring = Image.fromarray(F.pad(glyph, (4, 4, 4, 4)).float().numpy(), mode=None)
    expected = np.asarray(ring.resize((out, out), Image.Resampling.BILINEAR))
    edge = 4 * out / 16
    box = torch.tensor([edge, edge, out - edge, out - edge], dtype=torch.float64)
    drawn = render(glyph.expand(1, 3, 8, 8), box.expand(1, 3, 4), out)[0]
    np.testing.assert_allclose(drawn.numpy(), expected, atol=1e-6)


def test_a_glyph_at_its_own_size_is_copied():
    glyph = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(3))
    box = torch.tensor([2.0, 3.0, 8.0, 9.0]).expand(1, 3, 4)
    drawn = render(glyph.expand(1, 3, 6, 6), box, 12)[0]
    torch.testing.assert_close(drawn[3:9, 2:8], glyph[0, 0])
    drawn[3:9, 2:8] = 0
    assert not drawn.any()


def test_shrinking_keeps_the_ink():
    # the antialiased filter loses and invents no light; the plain one does, that is aliasing
    stripes = torch.zeros(1, 3, 28, 28, dtype=torch.float64)
    stripes[..., ::4] = 1
    box = torch.tensor([6.0, 6.0, 13.0, 13.0], dtype=torch.float64).expand(1, 3, 4)
    expected = stripes[0, 0].mean() * 49
    assert abs(render(stripes, box, 20).sum() / expected - 1) < 0.02
    assert abs(render(stripes, box, 20, antialias=False).sum() / expected - 1) > 0.5


def test_quantize_rounds_and_is_stable_at_ties():
    levels = torch.arange(256, dtype=torch.float64) / 255
    assert quantize(levels).tolist() == list(range(256))
    ties = (torch.arange(255, dtype=torch.float64) + 0.5) / 255
    for nudge in (-1e-14, 0.0, 1e-14):
        assert quantize(ties + nudge).tolist() == list(range(1, 256))
