"""Weights from files: read as tensors alone, exact where they fit, and fitted to grey pictures by sums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lse_core import LSEError
from lse_core.weights import load_weights, read_weights


def network(**keywords: Any) -> nn.Module:
    torch.manual_seed(len(keywords))
    return timm.create_model("test_efficientnet", **keywords).eval()


@pytest.mark.parametrize("inside", [None, "state_dict", "model"])
def test_every_kind_of_file_gives_the_same_answers(tmp_path: Path, inside: str | None) -> None:
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    values = source.state_dict()
    if inside is None:
        save_file(values, tmp_path / "w.safetensors")
        load_weights(target, tmp_path / "w.safetensors")
    else:
        torch.save({inside: values, "epoch": 3}, tmp_path / "w.pt")
        load_weights(target, tmp_path / "w.pt")
    x = torch.randn(4, 3)
    assert torch.equal(source(x), target(x))


def test_grey_pictures_get_the_answers_of_the_same_picture_in_three_channels(tmp_path: Path) -> None:
    coloured, grey = network(), network(in_chans=1)
    save_file(coloured.state_dict(), tmp_path / "w.safetensors")
    load_weights(grey, tmp_path / "w.safetensors", fit=True)
    x = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(grey(x), coloured(x.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4)


def test_a_classifier_of_another_size_keeps_its_values_and_the_rest_is_loaded(tmp_path: Path) -> None:
    source, target = network(), network(num_classes=7)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    load_weights(target, tmp_path / "w.safetensors", fit=True)
    for name, value in target.state_dict().items():
        expected: Tensor = before[name] if name.startswith("classifier") else source.state_dict()[name]
        assert torch.equal(value, expected), name


def test_weights_that_fit_nowhere_are_refused_and_change_nothing_silently(tmp_path: Path) -> None:
    save_file(network().state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(LSEError, match=r"weights of another model than EfficientNet: .*classifier"):
        load_weights(network(num_classes=7), tmp_path / "w.safetensors")
    with pytest.raises(LSEError, match="weights of another model than ResNet"):
        load_weights(timm.create_model("resnet18"), tmp_path / "w.safetensors", fit=True)


class Opens:
    """Pickled, it would write a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def test_a_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    torch.save({"state_dict": Opens(tmp_path / "written")}, tmp_path / "w.pt")
    with pytest.raises(LSEError, match=r"w\.pt cannot be read as weights"):
        read_weights(tmp_path / "w.pt")
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {"a": 3}}, torch.zeros(2)])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(LSEError, match=r"w\.pt holds no weights"):
        read_weights(tmp_path / "w.pt")
