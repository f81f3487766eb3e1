"""Folders, and the command that writes and reads them."""

import json
import math

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import nn

import lse_soft
from lse_core import attach, card_of
from lse_core.cli import main
from lse_core.errors import LSEError
from lse_core.preprocess import Preprocess
from lse_soft.plugin import lse_loaders

timm = pytest.importorskip("timm")
NAME, KWARGS = "vit_tiny_patch16_224", {"img_size": 32, "num_classes": 3, "depth": 1, "patch_size": 8}
MODEL_SET = [part for k, v in KWARGS.items() for part in ("--model-set", f"{k}={v}")]


def run(*args):
    done = CliRunner().invoke(main, [str(a) for a in args])
    return done


def one_line(done, status=1):
    assert done.exit_code == status, done.output
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.fixture
def vit():
    torch.manual_seed(0)
    return timm.create_model(NAME, **KWARGS).eval()


def test_a_saved_model_is_plain_and_answers_the_same(vit, tmp_path):
    keys, x = list(vit.state_dict()), torch.randn(2, 3, 32, 32)
    lse_soft.soften(vit, "rotation", keep=0.5, degrees=45)
    expected, certificates = vit(x), lse_soft.bound(vit)
    lse_soft.save(vit, tmp_path, model_kwargs=KWARGS)
    assert set(load_file(str(tmp_path / "soft.safetensors"))) == set(keys)
    loaded = lse_soft.load(tmp_path)
    assert type(loaded) is timm.models.VisionTransformer
    assert torch.equal(loaded(x), expected)
    again = lse_soft.bound(tmp_path)
    assert set(again) == set(certificates)
    for name, certificate in certificates.items():
        assert again[name].kappa == pytest.approx(certificate.kappa, rel=1e-5)
        assert again[name].b == certificate.b
        assert "45 degrees" in again[name].metric
    assert list(vit.state_dict()) != keys  # still soft
    (loader,) = lse_loaders().values()
    assert torch.equal(loader(tmp_path)(x), expected)
    assert loader(tmp_path / "elsewhere") is None


def test_a_model_of_ones_own_has_to_be_given(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 3))
    lse_soft.soften(model, "cyclic", math.inf)
    lse_soft.save(model, tmp_path)
    with pytest.raises(LSEError, match="pass it as load"):
        lse_soft.load(tmp_path)
    x = torch.randn(1, 1, 5, 5)
    loaded = lse_soft.load(tmp_path, nn.Sequential(nn.Conv2d(1, 2, 3)))
    assert torch.equal(loaded(x), model(x))
    assert lse_soft.bound(tmp_path)["0"].b == math.inf
    with pytest.raises(LSEError, match="does not fit Conv2d"):
        lse_soft.load(tmp_path, nn.Conv2d(1, 2, 3))


def test_damaged_folders_are_told(vit, tmp_path):
    with pytest.raises(LSEError, match=r"holds no soft\.json"):
        lse_soft.load(tmp_path)
    with pytest.raises(LSEError, match="softened model"):
        lse_soft.save(vit, tmp_path)
    lse_soft.soften(vit, "rotation", 0.5)
    lse_soft.save(vit, tmp_path)  # without the keywords it was made with
    with pytest.raises(LSEError, match="does not fit VisionTransformer"):
        lse_soft.load(tmp_path)
    path = tmp_path / "soft.json"
    facts = json.loads(path.read_text())
    for change, text in (
        ({"format": "other"}, "no lse-soft file"),
        ({"version": 99}, "newer format"),
        ({"places": [{"name": "x"}]}, r"damaged: 'places\.0\..*module' is missing"),
        ({"places": [{**facts["places"][0], "b": "much"}]}, r"damaged: 'places\.0\..*b'.*valid number"),
        ({"group": {"name": "rotation"}}, r"damaged: 'group\.settings' is missing"),
        ({"weight": 1}, r"damaged: unknown setting 'weight'"),
        ({"group": {"name": "moebius", "settings": {}}}, "unknown group 'moebius'"),
    ):
        path.write_text(json.dumps({**facts, **change}))
        with pytest.raises(LSEError, match=text):
            lse_soft.bound(tmp_path)
    path.write_text("{")
    with pytest.raises(LSEError, match="damaged"):
        lse_soft.bound(tmp_path)


def test_a_folder_cannot_have_weights_fetched_or_files_read(vit, tmp_path):
    lse_soft.soften(vit, "rotation", 0.5)
    lse_soft.save(vit, tmp_path, model_kwargs=KWARGS)
    path = tmp_path / "soft.json"
    facts = json.loads(path.read_text())
    for model, text in (
        ({"name": "hf-hub:someone/model", "kwargs": {}}, "unknown timm model"),
        ({"name": "local-dir:/tmp/x", "kwargs": {}}, "unknown timm model"),
        ({"name": NAME, "kwargs": {"checkpoint_path": "x.pth"}}, "would read weights from another file"),
        ({"name": NAME, "kwargs": {"scriptable": True}}, "--trust"),
        ({"name": NAME, "kwargs": {"img_size": "../x"}}, "--trust"),
    ):
        path.write_text(json.dumps({**facts, "model": {"source": "timm", **model}}))
        with pytest.raises(LSEError, match=text):
            lse_soft.load(tmp_path)


def test_preprocessing_and_class_names_travel_along(vit, tmp_path):
    wanted = Preprocess(channels=3, size=(32, 32), mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 0.5))
    attach(vit, preprocess=wanted, class_names=("a", "b", "c"))
    lse_soft.soften(vit, "rotation", 0.5)
    lse_soft.save(vit, tmp_path, model_kwargs=KWARGS)
    card = card_of(lse_soft.load(tmp_path))
    assert card.preprocess == wanted
    assert card.class_names == ("a", "b", "c")


def test_softened_models_inside_others_are_not_written(vit, tmp_path):
    lse_soft.soften(vit, "rotation", 0.5)
    with pytest.raises(LSEError, match="part of another one"):
        lse_soft.save(nn.ModuleDict({"base": vit}), tmp_path)


def test_the_command_softens_lists_and_certifies(tmp_path):
    out = tmp_path / "soft"
    done = run("soften", NAME, *MODEL_SET, "--keep", 0.5, "--set", "degrees=30", "--out", out)
    assert done.exit_code == 0, done.output
    assert "patch_embed.proj" in done.output
    assert "30 degrees" in done.output
    done = run("soften", "--bound", out, "--json")
    rows = {row["place"]: row for row in json.loads(done.stdout)["places"]}
    assert set(rows) == {"patch_embed.proj", "pos_embed"}
    assert all(row["kappa"] <= row["b"] and row["guaranteed"] for row in rows.values())
    assert "the relative error is at most kappa times the distance" in run("soften", "--bound", out).output
    assert lse_soft.load(out)(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    done = run("soften", "--list", NAME, *MODEL_SET, "--json")
    places = {row["name"]: row for row in json.loads(done.stdout)["places"]}
    assert places["pos_embed"]["prefix"] == 1
    assert "pos_embed" in run("soften", "--list", NAME, *MODEL_SET).output
    done = run(
        *("soften", NAME, *MODEL_SET, "--group", "local_scale", "--softness", 0.4),
        *("--place", "patch", "--threshold", "exponential", "--no-dc", "--json", "--out", tmp_path / "other"),
    )
    (row,) = json.loads(done.stdout)["places"]
    assert not row["guaranteed"]
    assert row["vacuous_beyond"] is None


def test_the_command_takes_weights_from_a_file(vit, tmp_path):
    save_file(vit.state_dict(), tmp_path / "w.safetensors")
    given = ["soften", NAME, *MODEL_SET, "--weights", tmp_path / "w.safetensors", "--keep", 1.0]
    done = run(*given, "--out", tmp_path / "soft")
    assert done.exit_code == 0, done.output
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(lse_soft.load(tmp_path / "soft").eval()(x), vit.eval()(x), rtol=0, atol=1e-5)
    assert "one of --weights and --pretrained" in one_line(run(*given, "--pretrained", "--out", tmp_path), 2)


def test_errors_of_the_command_are_one_line(tmp_path):
    assert "name a timm model" in one_line(run("soften"), 2)
    assert "--out FOLDER" in one_line(run("soften", NAME), 2)
    assert "exactly one of --softness" in one_line(run("soften", NAME, "--out", tmp_path), 2)
    assert "NAME=VALUE" in one_line(run("soften", NAME, "--keep", 1, "--set", "x", "--out", tmp_path), 2)
    assert "Did you mean" in one_line(run("soften", "vit_tinny", "--keep", 1, "--out", tmp_path))
    assert "unknown group" in one_line(run("soften", NAME, "--group", "rot", "--keep", 1, "--out", tmp_path))
    assert "unknown place" in one_line(run("soften", NAME, "--place", "q", "--keep", 1, "--out", tmp_path))
    assert "holds no soft.json" in one_line(run("soften", "--bound", tmp_path))
    assert "timm cannot make" in one_line(run("soften", "--list", NAME, "--model-set", "depth=x"))
