"""The classifiers of three digits, and the demo's model as earlier versions saved it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import lse_dec
from lse_core.card import card_of
from lse_core.errors import LSEError, UnknownNameError
from lse_dec.checkpoint.source import named
from lse_train.numbers import SMALL, demo_model, number_model

EARLIER = Path(__file__).parent / "earlier_demo"
"""config.json as `lse demo --quick` of version 0.1.0 wrote it, and the shapes in its model.safetensors."""


@pytest.mark.parametrize("name", sorted(SMALL))
def test_small_models_read_numbers(name: str):
    torch.manual_seed(0)
    model = number_model(name, resolution=48).eval()
    out = model(torch.randn(2, 1, 48, 48))
    assert out.shape == (2, 1000)
    # independent digits: a distribution over 1,000 numbers, whose marginals multiply
    p = out.double().exp().view(2, 10, 10, 10)
    assert torch.allclose(p.sum((1, 2, 3)), torch.ones(2, dtype=torch.float64), atol=1e-5)
    product = torch.einsum("bi,bj,bk->bijk", p.sum((2, 3)), p.sum((1, 3)), p.sum((1, 2)))
    assert torch.allclose(p, product, atol=1e-9)
    # a canonicalizer that looks at the whole model must be told its size
    assert list(lse_dec.adapt(model, sites=["image"], canonicalizer="canon").sites) == ["image"]


def test_any_timm_model_reads_numbers():
    out = number_model("resnet10t", resolution=64)(torch.zeros(2, 1, 64, 64))
    assert out.shape == (2, 1000)
    with pytest.raises(UnknownNameError, match="resnet10t"):
        number_model("resnet10x", resolution=64)
    with pytest.raises(LSEError, match="small_vit cannot be made for 50 px"):
        number_model("small_vit", resolution=50, patch_size=7, nonsense=1)


def test_a_demo_of_the_version_before_still_loads(tmp_path: Path):
    folder = tmp_path / "dec"
    shutil.copytree(EARLIER, folder)
    shapes = json.loads((folder / "shapes.json").read_text())
    g = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.rand(shape, generator=g) if shape else torch.tensor(3) for name, shape in shapes.items()
    }
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["weights"]["sha256"] = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))

    model = lse_dec.load(tmp_path)
    assert list(model.sites) == ["image"]
    assert card_of(model).class_names[999] == "999"
    assert card_of(model).training["made by"] == "lse demo"
    # every weight is in its place, the scores of digits under their new name
    with model.without_sites() as base:
        state = base.state_dict()
    for name in ("weight", "bias"):
        torch.testing.assert_close(state[f"fc.1.{name}"], tensors[f"model.stage.fc.digits.{name}"])
    torch.testing.assert_close(state["conv1.0.weight"], tensors["model.stage.conv1.0.weight"])
    mix = model.canonicalizers["image"].update.mix.weight
    torch.testing.assert_close(mix.detach(), tensors["model.canonicalizer.update.mix.weight"])

    # and what is saved from it has the new names, and loads as well
    again = lse_dec.load(lse_dec.save(model, tmp_path / "again"))
    image = torch.rand(2, 1, 96, 96, generator=g)
    with torch.no_grad():
        torch.testing.assert_close(again(image), model(image))


def test_the_demos_model_is_found_where_earlier_versions_had_it():
    for name in ("demo_numbers", "lse_dec.demo.model:number_classifier"):
        source = named(name, {"resolution": 64})
        assert (source.source, source.name) == ("plugin", "demo_numbers")
    with pytest.raises(LSEError, match="resnet10t cannot be made for 0 px"):
        demo_model(0)
