"""Softened models through the other packages: trained, adapted, saved, loaded, exported."""

import copy
import math

import pytest
import torch
from click.testing import CliRunner

import lse_dec
import lse_export
import lse_soft
from lse_core.cli import main
from lse_core.errors import LSEError
from lse_train import fit, load_run
from lse_train.config import RunConfig

timm = pytest.importorskip("timm")
KWARGS = {"img_size": 32, "num_classes": 3, "depth": 2, "patch_size": 8}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def vit():
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", **KWARGS).eval()


def test_soften_finetune_fold_adapt_save_load_export(vit, tmp_path):
    """The whole way; the group is the one that the test set is drawn from."""
    lse_soft.soften(vit, "local_scale", keep=0.6, ratio=2.0, distribution="smooth")
    optimiser = torch.optim.SGD(vit.parameters(), 1e-2)
    for _ in range(2):
        optimiser.zero_grad()
        vit(IMAGES).square().sum().backward()
        optimiser.step()
    with torch.no_grad():
        soft = vit(IMAGES)
    certificates = lse_soft.bound(vit)
    lse_soft.fold(vit)
    with torch.no_grad():
        assert torch.equal(vit(IMAGES), soft)
    adapted = lse_dec.adapt(vit, "blocks.0", steps=1)
    lse_dec.save(adapted, tmp_path / "model", model_kwargs=KWARGS)
    loaded = lse_dec.load(tmp_path / "model")
    with torch.no_grad():
        torch.testing.assert_close(loaded(IMAGES), adapted(IMAGES), rtol=0, atol=0)
    # the trained weights keep what was certified
    again = lse_soft.bound(loaded, "local_scale", ratio=2.0, distribution="smooth")
    for name, certificate in certificates.items():
        assert again[name].kappa == pytest.approx(certificate.kappa, rel=1e-4)
    path = tmp_path / "model.onnx"
    lse_export.export_onnx(loaded, IMAGES, path)
    assert lse_export.verify(path, loaded, IMAGES).max_abs_diff < 1e-5


def test_a_softened_model_exports_with_the_nodes_of_the_plain_one(vit, tmp_path):
    plain = lse_export.export_onnx(vit, IMAGES, tmp_path / "plain.onnx", allow_plain=True)
    soft = lse_soft.soften(copy.deepcopy(vit), "rotation", keep=0.5)
    unfolded = lse_export.export_onnx(soft, IMAGES, tmp_path / "unfolded.onnx", allow_plain=True)
    with lse_soft.folded(soft):
        folded = lse_export.export_onnx(soft, IMAGES, tmp_path / "folded.onnx", allow_plain=True)
        report = lse_export.verify(tmp_path / "folded.onnx", soft, IMAGES)
    assert folded.nodes == plain.nodes
    assert folded.ops == plain.ops
    assert unfolded.nodes >= folded.nodes
    assert report.max_abs_diff < 1e-5


def test_the_command_line_softens_and_exports(tmp_path):
    def run(*args):
        done = CliRunner().invoke(main, [str(a) for a in args])
        assert done.exit_code == 0, done.output
        return done.stdout

    options = [part for k, v in KWARGS.items() for part in ("--model-set", f"{k}={v}")]
    soft, path = tmp_path / "soft", tmp_path / "model.onnx"
    run("soften", "vit_tiny_patch16_224", *options, "--keep", 0.9, "--out", soft)
    run("export", "onnx", soft, "--out", path)
    assert lse_export.verify(path, lse_soft.load(soft), IMAGES).max_abs_diff < 1e-5


def test_an_adapted_model_is_softened_at_its_base_and_saved_folded(vit, tmp_path):
    adapted = lse_dec.adapt(vit, ["image", "blocks.0"], steps=1)
    lse_soft.soften(adapted, "rotation", 0.5)
    assert set(lse_soft.softeners(adapted)) == {"patch_embed.proj", "pos_embed"}  # no canonicalizer's filters
    with torch.no_grad():
        expected = adapted(IMAGES)
    with lse_soft.folded(adapted):
        lse_dec.save(adapted, tmp_path, model_kwargs=KWARGS)
    with torch.no_grad():
        torch.testing.assert_close(lse_dec.load(tmp_path)(IMAGES), expected, rtol=0, atol=0)
    with pytest.raises(LSEError, match="inside another one"):
        lse_soft.save(adapted, tmp_path / "other")
    lse_soft.unsoften(adapted)
    assert lse_dec.unadapt(adapted) is vit


def test_adapting_a_softened_model_works_and_folds_later(vit, tmp_path):
    lse_soft.soften(vit, "rotation", 0.5)
    adapted = lse_dec.adapt(vit, "blocks.0", steps=1)
    with torch.no_grad():
        expected = adapted(IMAGES)
    lse_soft.fold(adapted)
    assert type(adapted.base) is timm.models.VisionTransformer
    lse_dec.save(adapted, tmp_path, model_kwargs=KWARGS)
    with torch.no_grad():
        torch.testing.assert_close(lse_dec.load(tmp_path)(IMAGES), expected, rtol=0, atol=0)


def settings(**changes):
    return {
        "model": {
            "name": "numbers",
            "kwargs": {"name": "small_resnet", "resolution": 32},
        },
        "data": {
            "name": "digits",
            "options": {"resolution": 32, "count": 40},
            "train": {"count": 40, "scale": [0.8, 1.25]},
            "mean": 0.1,
            "std": 0.3,
        },
        "method": {"name": "soft", "options": {"group": "rotation", "keep": 0.2}},
        "steps": 4,
        "batch_size": 8,
        "device": "cpu",
        "log_every": 2,
        **changes,
    }


def test_training_keeps_the_bound_at_every_step(tmp_path):
    seen = []

    def watch(step, steps, row):
        seen.append(step)

    result = fit(RunConfig.parse(settings()), tmp_path / "run", watch=watch)
    model = load_run(result.folder)  # plain keys, plain classes
    assert seen == [1, 2, 3, 4]
    reference = lse_soft.soften(copy.deepcopy(model), "rotation", keep=0.2, threshold="hard")
    limits = {name: softener.b for name, softener in lse_soft.softeners(reference).items()}
    certificates = lse_soft.bound(model, "rotation")
    assert len(certificates) > 3
    for name, certificate in certificates.items():
        assert certificate.kappa <= limits[name] * (1 + 1e-4)
    free = fit(RunConfig.parse(settings(method="plain")), tmp_path / "free")
    loose = lse_soft.bound(load_run(free.folder), "rotation")
    assert any(loose[name].kappa > limits[name] for name in loose)


def test_training_an_adapted_model_leaves_its_canonicalizers_alone(tmp_path):
    adapt = {"sites": ["image"], "steps": 1, "resolution": 8, "widths": [8], "projection": 4}
    optim = {"lr": 1e-2, "canonicalizer_lr": 1e-2, "weight_decay": 0.0}
    method = {"name": "soft", "options": {"group": "cyclic", "softness": 0.0}}
    run = fit(RunConfig.parse(settings(adapt=adapt, optim=optim, method=method, steps=2)), tmp_path / "run")
    model = load_run(run.folder)
    assert isinstance(model, lse_dec.AdaptedModel)
    certificates = lse_soft.bound(model, "cyclic")
    assert max(c.kappa for c in certificates.values()) < 1e-5
    plain = lse_soft.bound(model.canonicalizers["image"], "cyclic")
    assert max(c.kappa for c in plain.values()) > 0.1


def test_a_run_that_was_interrupted_ends_with_the_same_weights(tmp_path):
    class Enough(Exception):
        pass

    def stop(step, steps, row):
        if step == 3:
            raise Enough

    config = RunConfig.parse(settings(checkpoint_every=2))
    whole = fit(config, tmp_path / "whole")
    with pytest.raises(Enough):
        fit(config, tmp_path / "cut", watch=stop)
    resumed = fit(config, tmp_path / "cut")
    for a, b in zip(load_run(whole.folder).parameters(), load_run(resumed.folder).parameters(), strict=True):
        assert torch.equal(a, b)


def test_settings_of_the_method_are_checked(tmp_path):
    config = RunConfig.parse(settings(method={"name": "soft", "options": {"keeep": 0.5}}))
    with pytest.raises(LSEError, match="keep"):
        fit(config, tmp_path / "run")
    config = RunConfig.parse(settings(method={"name": "soft"}))
    with pytest.raises(LSEError, match="exactly one of softness"):
        fit(config, tmp_path / "other")


@pytest.mark.parametrize(
    ("name", "kwargs", "size"),
    [
        ("resnet18", {"num_classes": 3}, 64),
        ("tf_efficientnet_lite0", {"num_classes": 3}, 64),
        ("resmlp_12_224", {"num_classes": 3, "img_size": 64}, 64),
    ],
)
def test_families_of_timm(name, kwargs, size):
    torch.manual_seed(0)
    model = timm.create_model(name, **kwargs).eval()
    x, keys = torch.randn(1, 3, size, size), list(model.state_dict())
    for group in ("rotation", "local_scale"):
        lse_soft.soften(model, group, keep=0.5)
        assert max(c.kappa / c.b for c in lse_soft.bound(model).values()) <= 1
        with torch.no_grad():
            soft = model(x)
            with lse_soft.folded(model):
                assert list(model.state_dict()) == keys
                assert torch.equal(model(x), soft)
        assert all(math.isfinite(c.kappa) for c in lse_soft.bound(model).values())
        lse_soft.unsoften(model)
