"""The measured settings: `adapt` takes them as they are, and the recipes' methods are made of them."""

from __future__ import annotations

import pytest
import timm
import torch

import lse_dec
from lse_dec.canonicalizers import DEC
from lse_dec.presets import AT_IMAGE, LATENT
from lse_dec.updates import Absolute


@pytest.mark.parametrize(("preset", "site"), [(AT_IMAGE, "image"), (LATENT, "layer1")])
def test_adapt_takes_a_preset(preset: lse_dec.presets.Preset, site: str) -> None:
    model = timm.create_model(
        "resnet10t", in_chans=1, num_classes=5, channels=(8, 8, 8, 8), stem_width=8
    ).eval()
    x = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = model(x)
        adapted = lse_dec.adapt(model, site, **preset.adapt).eval()
        torch.testing.assert_close(adapted(x), plain, atol=1e-4, rtol=1e-4)
    found = adapted.canonicalizers[site]
    assert isinstance(found, DEC)
    assert isinstance(found.rule, Absolute)
    assert (found.segments, found.steps) == (8, 5)
