"""`lse adapt`: what it lists of a model, the folder it writes, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

import lse_dec
from lse_dec.commands.adapt import adapt as adapt_command


def invoke(*args: str) -> Any:
    return CliRunner().invoke(adapt_command, args)


def test_list_shows_stages_and_shapes() -> None:
    result = invoke("--list", "resnet10t")
    assert result.exit_code == 0, result.output
    assert "layer4" in result.output
    assert "64 x 44 x 44" in result.output  # what enters layer1 at the model's own 176 px
    found = json.loads(invoke("--list", "--json", "resnet10t").output)
    assert found["backbone"] == "ResNet"
    assert [row["site"] for row in found["stages"]] == ["image", "layer1", "layer2", "layer3", "layer4"]
    assert found["stages"][2] == {
        "site": "layer2",
        "channels": 64,
        "layout": "NCHW",
        "map": [44, 44],
        "input": [64, 44, 44],
        "output": [128, 22, 22],
    }
    every = json.loads(invoke("--list", "--all", "--json", "resnet10t").output)
    assert "layer1.0.conv1" in [row["site"] for row in every["stages"]]


@pytest.mark.parametrize(
    ("args", "family", "site", "expected"),
    [
        (["vit_tiny_patch16_224", "depth=1", "img_size=[64,96]"], "ViT", "blocks.0", ("Tokens", [4, 6])),
        (["vit_tiny_patch16_224", "depth=1", "dynamic_img_size=true"], "ViT", "blocks.0",
         ("VaryingTokens", [])),
        (["deit_tiny_distilled_patch16_224", "depth=1"], "ViT", "blocks.0", ("Tokens", [14, 14])),
        (["vit_small_patch14_reg4_dinov2", "depth=1", "img_size=70"], "ViT", "blocks.0", ("Tokens", [5, 5])),
        (["beit_base_patch16_224", "depth=1", "embed_dim=24", "num_heads=3"], "BEiT", "blocks.0",
         ("Tokens", [14, 14])),
        (["swin_tiny_patch4_window7_224", "embed_dim=24", "depths=[1,1,1,1]"], "Swin", "layers.2",
         ("NHWC", [28, 28])),
        (["convnext_atto"], "ConvNeXt", "stages.1", ("NCHW", [56, 56])),
        (["pvt_v2_b0"], "PVT", "stages.0", ("NHWC", [56, 56])),
        (["hrnet_w18_small"], "HRNet", "stage3.0.branches.2", ("NCHW", [14, 14])),
        (["mixer_s32_224", "img_size=64"], "Generic", "blocks.0", ("Tokens", [2, 2])),
    ],
)  # fmt: skip
def test_list_for_every_family(
    args: list[str], family: str, site: str, expected: tuple[str, list[int]]
) -> None:
    options = [word for setting in args[1:] for word in ("--model-set", setting)]
    found = json.loads(invoke("--list", "--json", args[0], *options).output)
    assert found["backbone"] == family
    rows = {row["site"]: row for row in found["stages"]}
    assert (rows[site]["layout"], rows[site]["map"]) == expected
    assert rows["image"]["map"] == rows["image"]["input"][1:]


def test_adapt_writes_a_folder(tmp_path: Any) -> None:
    folder = str(tmp_path / "out")
    result = invoke("resnet10t", "--site", "layer2", "--rule", "compose", "--model-set", "num_classes=4",
                    "--set", "segments=6", "--set", "widths=[8]", "--out", folder, "--json")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["sites"] == ["layer2"]
    loaded = lse_dec.load(folder)
    assert loaded.canonicalizers["layer2"].segments == 6
    assert loaded.num_classes == 4


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--list", "resnet10x"], "Did you mean 'resnet10t'"),
        (["resnet10t"], "--out FOLDER"),
        (["resnet10t", "--out", "x", "--set", "segments"], "NAME=VALUE"),
        (["resnet10t", "--out", "x", "--model-set", "wings=2"], "cannot make the model"),
        (["resnet10t", "--out", "x", "--solver", "andersen"], "Did you mean 'anderson'"),
    ],
)
def test_bad_commands(args: list[str], words: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*args)
    assert result.exit_code != 0
    assert words in (str(result.exception) + result.output)
    assert not list(tmp_path.iterdir())


def test_weights_from_a_file_go_into_the_adapted_model(tmp_path: Path) -> None:
    torch.manual_seed(7)
    source = timm.create_model("resnet10t", num_classes=4)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    settings = [
        "--model-set",
        "num_classes=4",
        "--site",
        "image",
        "--weights",
        str(tmp_path / "w.safetensors"),
    ]
    result = invoke("resnet10t", *settings, "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    base = lse_dec.unadapt(lse_dec.load(tmp_path / "out"))
    assert all(torch.equal(base.state_dict()[name], value) for name, value in source.state_dict().items())
    for args, words in (
        (["resnet10t", "--pretrained"], "--weights goes with the name of a timm model"),
        ([str(tmp_path / "out")], "do not go with a folder"),
    ):
        refused = invoke(*args, *settings[2:], "--out", str(tmp_path / "other"))
        assert refused.exit_code == 2
        assert words in refused.output
