"""save and load: what comes back, and what is refused in one clear line."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import lse_dec
from lse_core import Preprocess, card_of
from lse_core.errors import LSEError, OutputError
from lse_core.plugins import hookimpl, registry
from lse_dec.checkpoint.config import CheckpointError
from lse_dec.checkpoint.reading import read_config
from lse_dec.checkpoint.source import same_architecture
from lse_dec.gradients import Implicit
from lse_dec.solvers import Anderson, Broyden, Naive
from lse_dec.updates import Compose

SMALL = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 3, "num_classes": 7}


def vit(**settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", **{**SMALL, **settings}).eval()


def resnet(**settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("resnet10t", **{"num_classes": 7, **settings}).eval()


def stirred(model: nn.Module, *args: Any, **options: Any) -> lse_dec.AdaptedModel:
    adapted = lse_dec.adapt(model, *args, **options)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in adapted.canonicalizer_parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return adapted


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("mode", ["invariant", "equivariant"])
def test_round_trip_by_timm_name(tmp_path: Path, mode: str) -> None:
    adapted = stirred(resnet(), ["layer2", "image"], mode=mode, solver="naive", rule="compose", segments=5)
    assert lse_dec.save(adapted, tmp_path / "model") == tmp_path / "model"
    again = lse_dec.load(tmp_path / "model")
    assert torch.equal(again(images()), adapted(images()))
    assert list(again.sites) == ["layer2", "image"]
    assert (again.mode, again.settings) == (adapted.mode, adapted.settings)
    assert not again.training
    assert list(again.state_dict()) == list(adapted.state_dict())
    assert sorted(os.listdir(tmp_path / "model")) == ["config.json", "model.safetensors"]


def test_saving_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    adapted = stirred(vit(), ["image", "blocks.1"]).train()
    names = [name for name, _ in adapted.named_modules()]
    before = {k: v.clone() for k, v in adapted.state_dict().items()}
    lse_dec.save(adapted, tmp_path)
    assert [name for name, _ in adapted.named_modules()] == names
    assert all(torch.equal(v, before[k]) for k, v in adapted.state_dict().items())
    assert all(m.training for m in adapted.modules())


def test_the_files_are_plain(tmp_path: Path) -> None:
    adapted = stirred(resnet(num_classes=3, in_chans=1))
    lse_dec.save(adapted, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["format"] == "lse-dec"
    assert config["version"] == 2
    assert config["model"] == {
        "source": "timm",
        "name": "resnet10t",
        "kwargs": {"num_classes": 3, "in_chans": 1},
    }
    assert config["adapt"]["sites"] == ["image", "layer1"]
    assert config["adapt"]["plugins"]["solver:anderson"] == "lse-dec"
    # timm's own numbers are for three channels
    expected = {"channels": 1, "size": [176, 176], "crop_mode": "center", "interpolation": "bicubic"}
    assert config["preprocess"].items() >= {**expected, "mean": [0.5], "std": [0.5]}.items()
    tensors = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(tensors[k], v) for k, v in adapted.state_dict().items())


def test_keywords_that_cannot_be_inferred(tmp_path: Path) -> None:
    adapted = stirred(vit())  # depth, width and heads differ from the name's
    lse_dec.save(adapted, tmp_path / "bare")
    assert read_config(tmp_path / "bare").model.source == "given"
    with pytest.raises(CheckpointError, match=r"pass it as load\(folder, model\)"):
        lse_dec.load(tmp_path / "bare")
    assert torch.equal(lse_dec.load(tmp_path / "bare", vit())(images()), adapted(images()))
    lse_dec.save(adapted, tmp_path / "told", model_kwargs=SMALL)
    assert torch.equal(lse_dec.load(tmp_path / "told")(images()), adapted(images()))
    with pytest.raises(CheckpointError, match="gives another model"):
        lse_dec.save(adapted, tmp_path / "wrong", model_kwargs={**SMALL, "num_heads": 4})
    assert not (tmp_path / "wrong").exists()


def test_a_loaded_model_knows_how_its_base_was_made(tmp_path: Path) -> None:
    lse_dec.save(stirred(vit()), tmp_path / "told", model_kwargs=SMALL)
    loaded = lse_dec.load(tmp_path / "told")
    lse_dec.save(loaded, tmp_path / "again")
    assert torch.equal(lse_dec.load(tmp_path / "again")(images()), loaded(images()))
    loaded.base.reset_classifier(3)  # what was told no longer gives this model, but nearly
    lse_dec.save(loaded, tmp_path / "changed")
    assert torch.equal(lse_dec.load(tmp_path / "changed")(images()), loaded(images()))
    loaded.base.blocks[0].mlp.act = nn.ReLU()  # no keyword explains this
    lse_dec.save(loaded, tmp_path / "other")
    assert read_config(tmp_path / "other").model.source == "given"


def test_heads_are_no_shape_but_count() -> None:
    assert same_architecture(vit(), vit())
    assert not same_architecture(vit(), vit(num_heads=4))
    assert not same_architecture(vit(), vit(depth=3))


def test_image_size_is_inferred(tmp_path: Path) -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=2)
    lse_dec.save(lse_dec.adapt(model, "image"), tmp_path)
    assert read_config(tmp_path).model.kwargs == {"num_classes": 2, "img_size": [32, 32]}
    assert lse_dec.load(tmp_path)(images()).shape == (2, 2)


def test_settings_given_as_objects(tmp_path: Path) -> None:
    adapted = stirred(
        resnet(),
        "image",
        solver=Anderson(m=2, damping=0.5),
        rule=Compose(max_step=0.1),
        gradient=Implicit(steps=9, solver=Naive(damping=0.7)),
        widths=(8, 16),
    )
    lse_dec.save(adapted, tmp_path)
    again = lse_dec.load(tmp_path).canonicalizers["image"]
    assert again.solver == Anderson(m=2, damping=0.5)
    assert again.rule == Compose(max_step=0.1)
    assert again.gradient == Implicit(steps=9, solver=Naive(damping=0.7))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_comes_back(tmp_path: Path, dtype: torch.dtype) -> None:
    adapted = stirred(resnet().to(dtype), "image")
    lse_dec.save(adapted, tmp_path)
    again = lse_dec.load(tmp_path)
    assert {p.dtype for p in again.parameters()} == {dtype}
    assert torch.equal(again(images(dtype)), adapted(images(dtype)))


def test_tied_weights(tmp_path: Path) -> None:
    model = vit()
    model.blocks[1].mlp.fc1.weight = model.blocks[0].mlp.fc1.weight
    adapted = stirred(model)
    lse_dec.save(adapted, tmp_path)
    other = vit()
    other.blocks[1].mlp.fc1.weight = other.blocks[0].mlp.fc1.weight
    assert torch.equal(lse_dec.load(tmp_path, other)(images()), adapted(images()))


def test_a_second_save_replaces_the_first_and_spares_other_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    lse_dec.save(stirred(resnet()), tmp_path)
    changed = stirred(resnet(), "layer3")
    lse_dec.save(changed, tmp_path)
    assert list(lse_dec.load(tmp_path).sites) == ["layer3"]
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors", "notes.txt"]


def test_an_interrupted_save_keeps_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapted = stirred(resnet())
    lse_dec.save(adapted, tmp_path)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lse_dec.checkpoint.saving.save_model", full)
    with pytest.raises(OutputError, match=r"cannot write .*No space left on device"):
        lse_dec.save(stirred(resnet(), "layer3"), tmp_path)
    assert torch.equal(lse_dec.load(tmp_path)(images()), adapted(images()))
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]


def test_a_mixed_pair_is_refused(tmp_path: Path) -> None:
    lse_dec.save(stirred(resnet()), tmp_path / "a")
    lse_dec.save(stirred(resnet(), "layer3"), tmp_path / "b")
    os.replace(tmp_path / "b" / "config.json", tmp_path / "a" / "config.json")
    with pytest.raises(CheckpointError, match="checksum"):
        lse_dec.load(tmp_path / "a")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("checkpoint")
    lse_dec.save(stirred(resnet()), folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


Edit = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda c: c.update(version=3, lse_dec="9.1"), "written by lse-dec 9.1; this one reads up to 2"),
        (lambda c: c.update(version="1"), "'version' must be a whole number"),
        (lambda c: c.update(format="other"), "is no lse-dec config"),
        (lambda c: c.update(modle={}), "unknown setting 'modle'. Did you mean 'model'?"),
        (lambda c: c["adapt"].update(sytes=[]), "adapt: unknown setting 'sytes'. Did you mean 'sites'?"),
        (lambda c: c["adapt"].pop("sites"), "'adapt.sites' is missing"),
        (lambda c: c["adapt"].update(sites=[]), "'adapt.sites': tuple should have at least 1 item"),
        (
            lambda c: c["adapt"].update(sites="image"),
            "'adapt.sites': input should be a valid tuple; got 'image'",
        ),
        (lambda c: c["adapt"].update(sites=["layer9"]), "unknown stage 'layer9'"),
        (lambda c: c["adapt"].update(mode="sideways"), "unknown mode 'sideways'"),
        (lambda c: c.update(dtype="float99"), "unknown dtype 'float99'"),
        (lambda c: c["model"].update(source="web"), "'model.source': input should be 'timm', 'plugin'"),
        (lambda c: c["model"].update(name="resnet0"), "unknown timm model 'resnet0'"),
        (lambda c: c["model"]["kwargs"].update(num_classes=9), "does not fit ResNet"),
        (lambda c: c["adapt"]["settings"].update(segmnts=4), "unknown setting of DEC 'segmnts'"),
        (lambda c: c["adapt"]["settings"].update(segments="four"), "does not fit"),
        (
            lambda c: c["adapt"]["settings"].update(solver={"name": "anderson", "settings": {"m": 9}}),
            "m must be 1 to 5",
        ),
        (lambda c: c["adapt"]["settings"].update(solver={"name": "anderson"}), "name and settings"),
        (lambda c: c["weights"].update(file="../model.safetensors"), "in the folder itself"),
        (lambda c: c["weights"].update(file="other.safetensors"), "cannot read .*other.safetensors"),
        (
            lambda c: c["adapt"]["plugins"].update({"solver:halley": "acme-solvers"}),
            "which no installed package provides. It says that it comes from 'acme-solvers'",
        ),
    ],
)
def test_a_changed_config_is_refused(
    tmp_path: Path, written: dict[str, bytes], edit: Edit, words: str
) -> None:
    for name, data in written.items():
        (tmp_path / name).write_bytes(data)
    config = json.loads(written["config.json"])
    edit(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=words.replace("?", r"\?")) as raised:
        lse_dec.load(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_truncated_weights_are_refused(tmp_path: Path, written: dict[str, bytes], kept: int) -> None:
    (tmp_path / "config.json").write_bytes(written["config.json"])
    (tmp_path / "model.safetensors").write_bytes(written["model.safetensors"][:kept])
    with pytest.raises(CheckpointError, match="truncated"):
        lse_dec.load(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"format": "lse-dec"'])
def test_damaged_config_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path / "config.json"))):
        lse_dec.load(tmp_path)


def test_not_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no folder .*nowhere: give a folder"):
        lse_dec.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"empty holds no config\.json"):
        lse_dec.load(tmp_path / "empty")
    with pytest.raises(LSEError, match="save takes a torch module"):
        lse_dec.save("resnet18", tmp_path)  # type: ignore[arg-type]
    spent = lse_dec.adapt(resnet())
    lse_dec.unadapt(spent)
    with pytest.raises(LSEError, match="save takes a torch module"):
        lse_dec.save(spent, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        lse_dec.save(stirred(resnet()), tmp_path / "file")


class Halley(Naive):
    """A stranger's solver."""


class Acme:
    @hookimpl
    def lse_solvers(self) -> dict[str, Any]:
        return {"halley": Halley}


def test_a_strangers_plugin_is_needed_again(tmp_path: Path) -> None:
    registry().register(Acme(), "acme")
    try:
        adapted = stirred(resnet(), "image", solver="halley")
        lse_dec.save(adapted, tmp_path)
        assert torch.equal(lse_dec.load(tmp_path)(images()), adapted(images()))
    finally:
        registry().unregister("acme")
    with pytest.raises(
        CheckpointError, match=r"needs the solver 'halley', which no installed package .* 'acme'"
    ):
        lse_dec.load(tmp_path)


def test_what_cannot_be_named_cannot_be_written(tmp_path: Path) -> None:
    adapted = lse_dec.adapt(resnet(), "image", solver=Halley())
    with pytest.raises(LSEError, match="register its class as a plugin"):
        lse_dec.save(adapted, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_files_have_the_permissions_of_new_files(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        lse_dec.save(resnet(), tmp_path / "model")
    finally:
        os.umask(before)
    for path in (tmp_path / "model").iterdir():
        assert path.stat().st_mode & 0o777 == 0o640, path.name


def test_a_model_without_canonicalizers(tmp_path: Path) -> None:
    model = resnet()
    prepare = Preprocess(channels=3, size=(48, 64), mean=(0.1,) * 3, std=(0.2,) * 3)
    lse_dec.save(model, tmp_path, preprocess=prepare, class_names=list("abcdefg"), training={"by": "hand"})
    again = lse_dec.load(tmp_path)
    assert not isinstance(again, lse_dec.AdaptedModel)
    assert torch.equal(again(images()), model(images()))
    card = card_of(again)
    assert (card.preprocess, card.class_names) == (prepare, tuple("abcdefg"))
    assert card.training == {"by": "hand"}
    # adapted, saved and unadapted it is still known
    adapted = lse_dec.adapt(again, "layer1")
    lse_dec.save(adapted, tmp_path / "adapted")
    assert card_of(lse_dec.load(tmp_path / "adapted")).preprocess == prepare
    assert card_of(lse_dec.unadapt(adapted)).class_names == tuple("abcdefg")


def test_options_that_were_removed(tmp_path: Path) -> None:
    """Folders that name them at their defaults load; where they were in use, one line says what happened."""
    lse_dec.save(stirred(resnet(), "layer2", solver=Broyden(memory=3)), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    settings = config["adapt"]["settings"]
    assert "backtracks" not in settings["solver"]["settings"]

    def load(**changes: Any) -> Any:
        settings.update(changes)
        (tmp_path / "config.json").write_text(json.dumps(config))
        return lse_dec.load(tmp_path)

    old = {"name": "broyden", "settings": {"memory": 3, "max_step": 20.0, "backtracks": 0}}
    model = load(solver=old, contraction=None, inverse="axes")
    assert next(iter(model.canonicalizers.values())).solver == Broyden(memory=3)
    with pytest.raises(CheckpointError, match=r"the line search \(backtracks\) was removed"):
        load(solver={"name": "broyden", "settings": {"backtracks": 4}})
    with pytest.raises(CheckpointError, match="contraction by construction was removed"):
        load(solver="broyden", contraction=0.9)
