"""Adapted models and the Hugging Face Hub; only its two network calls are replaced."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import HfApi, RepoUrl
from torch import Tensor, nn

import lse_dec
from lse_core.errors import LSEError
from lse_dec.checkpoint.config import CheckpointError

FILES = ["README.md", "config.json", "model.safetensors"]


def adapted() -> lse_dec.AdaptedModel:
    torch.manual_seed(0)
    model = lse_dec.adapt(timm.create_model("resnet10t", num_classes=4).eval(), "layer2", rule="compose")
    nn.init.normal_(model.canonicalizers["layer2"].update.head.weight)
    return model


def images() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_a_local_folder_comes_back_without_a_network(tmp_path: Path) -> None:
    model = adapted()
    model.save_pretrained(tmp_path / "model")
    assert sorted(os.listdir(tmp_path / "model")) == FILES
    again = lse_dec.AdaptedModel.from_pretrained(tmp_path / "model")
    assert isinstance(again, lse_dec.AdaptedModel)
    assert (again.names, again.settings) == (model.names, model.settings)
    assert torch.equal(again(images()), model(images()))
    assert torch.equal(lse_dec.load(tmp_path / "model")(images()), model(images()))  # the same files
    # and what `save` wrote, without a card
    lse_dec.save(model, tmp_path / "plain")
    assert torch.equal(
        lse_dec.AdaptedModel.from_pretrained(str(tmp_path / "plain"))(images()), model(images())
    )


def test_the_card_tells_how_to_load(tmp_path: Path) -> None:
    adapted().save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "library_name: lse-dec" in card
    (code,) = re.findall(r"^```python\n(.*?)^```", card, re.DOTALL | re.MULTILINE)
    exec(code.replace("OWNER/NAME", str(tmp_path)), {})


def test_push_uploads_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def create_repo(self: HfApi, repo_id: str, **_: Any) -> RepoUrl:
        made.append(repo_id)
        return RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload_folder(self: HfApi, *, repo_id: str, folder_path: Path, **options: Any) -> str:
        shutil.copytree(folder_path, tmp_path / repo_id)
        return f"https://huggingface.co/{repo_id}/commit/{options['revision']}"

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    model = adapted()
    model.push_to_hub("someone/resnet-dec", branch="v1")
    assert made == ["someone/resnet-dec"]
    assert sorted(os.listdir(tmp_path / "someone" / "resnet-dec")) == FILES
    assert torch.equal(lse_dec.load(tmp_path / "someone" / "resnet-dec")(images()), model(images()))


def test_a_repository_that_was_downloaded_before(tmp_path: Path) -> None:
    """A cache as huggingface_hub lays it out; it is read without a network."""
    model, commit = adapted(), 40 * "a"
    repository = tmp_path / "models--someone--resnet-dec"
    lse_dec.save(model, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    again = lse_dec.AdaptedModel.from_pretrained(
        "someone/resnet-dec", cache_dir=tmp_path, local_files_only=True
    )
    assert torch.equal(again(images()), model(images()))


@pytest.mark.parametrize("name", ["someone/nothing", "not a name!"])
def test_what_cannot_be_had_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        LSEError, match=f"'{name}' is not a folder on this machine, and the Hub does not return it"
    ) as raised:
        lse_dec.AdaptedModel.from_pretrained(name, cache_dir=tmp_path, local_files_only=True)
    assert "\n" not in str(raised.value)


def test_a_base_of_no_library_is_passed_again(tmp_path: Path) -> None:
    def base() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.Sequential(nn.Conv2d(8, 8, 3)), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )

    model = lse_dec.adapt(base(), "1").eval()
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="does not say how to make its base"):
        lse_dec.AdaptedModel.from_pretrained(tmp_path)
    again = lse_dec.AdaptedModel.from_pretrained(tmp_path, model=base())
    assert torch.equal(again(images()), model(images()))
