"""`lse_core.measuring.layers` on models of several families, with the stages that lse-dec knows."""

import json

import pytest
import timm
import torch
from click.testing import CliRunner
from torch import nn

from lse_core.cli import main
from lse_core.measuring.layers import measure_layers, stage_shares

SMALL_SWIN = {"img_size": 56, "embed_dim": 12, "depths": (1, 2), "num_heads": (1, 2), "window_size": 7}
MODELS = {
    "resnet10t": ({}, "layer1.0.conv1", "layer1"),
    "test_efficientnet": ({}, "blocks.1.0.conv_exp", "blocks.1"),
    "test_vit": ({"img_size": 64}, "blocks.1.mlp.act", "blocks.1"),
    "test_convnext": ({}, "stages.1.blocks.0.conv_dw", "stages.1"),
    "swin_tiny_patch4_window7_224": (SMALL_SWIN, "layers.1.blocks.1.norm1", "layers.1"),
}


@pytest.mark.parametrize("name", MODELS)
def test_linear_pointwise_layers_have_no_share_and_stages_are_those_of_lse_adapt(name):
    kwargs, inside, stage = MODELS[name]
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **kwargs).eval()
    size = kwargs.get("img_size", 64)
    # the smallest batch: the single window of the last map must not be taken for the map
    found = measure_layers(model, torch.randn(2, 3, size, size), target=[name], fields=1)
    layers = {layer.name: layer for layer in found.layers}
    assert layers[inside].stage == stage
    pointwise = 0
    for path, module in model.named_modules():
        convolution = isinstance(module, nn.Conv2d) and module.kernel_size == module.stride == (1, 1)
        if path in layers and (convolution or isinstance(module, nn.Linear)):
            # a wrong layout anywhere on the way would show here
            assert layers[path].own < 1e-5, path
            pointwise += 1
    assert pointwise >= 2
    assert not [path for path in layers if "attn_drop" in path or "softmax" in path]
    assert found.layers[0].stage == "image"
    assert found.layers[0].own > 0.01

    options = [f"--model-set={key}={json.dumps(value)}" for key, value in kwargs.items()]
    listed = CliRunner().invoke(main, ["adapt", "--list", name, *options, "--json"])
    assert listed.exit_code == 0, listed.output
    sites = [row["site"] for row in json.loads(listed.stdout)["stages"]]
    assert set(stage_shares(found)) <= set(sites)
    assert 1 <= len(found.sites) <= 3
    assert set(found.sites) <= set(sites)
    assert found.command is not None
    assert found.command.startswith(f"lse adapt {name} --site ")
