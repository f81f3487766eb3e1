"""Eq. 5 for a whole model in one call: what it measures, whom it trains, and what it leaves alone."""

import multiprocessing
import runpy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import lse_dec
from lse_core import SeparableWarp
from lse_core.errors import LSEError, ShapeError, UnknownNameError
from lse_core.random import random_log_slopes
from lse_dec.equivariance import Entered, equivariance_by_site
from lse_dec.losses import canonicalizer_equivariance_loss

SMALL = {"steps": 3, "segments": 4, "projection": 4, "widths": (8,), "rule": "compose"}
VIT = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 3, "num_classes": 5}
SWIN = {"img_size": 64, "window_size": 4, "embed_dim": 24, "depths": (1, 1, 1, 1), "num_classes": 5}
MODELS: dict[str, tuple[str, dict[str, Any], str, int]] = {
    "tokens": ("vit_tiny_patch16_224", VIT, "blocks.1", 32),
    "nhwc": ("swin_tiny_patch4_window7_224", SWIN, "layers.1", 64),
    "nchw": ("resnet10t", {"num_classes": 5}, "layer2", 64),
}


def adapted(kind: str = "nchw", sites: Any = None, **options: Any) -> lse_dec.AdaptedModel:
    torch.manual_seed(0)
    name, settings, latent, _ = MODELS[kind]
    model = timm.create_model(name, **settings).eval()
    made = lse_dec.adapt(model, sites or ["image", latent], **{**SMALL, **options})
    with torch.no_grad():
        for canonicalizer in made.canonicalizers.values():
            if hasattr(canonicalizer, "update"):
                canonicalizer.update.head.weight.normal_(std=0.5)
    return made


def images(kind: str = "nchw", batch: int = 4) -> Tensor:
    size = MODELS[kind][3]
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def source(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("feed", ["latent", "image"])
@pytest.mark.parametrize("kind", MODELS)
def test_it_is_the_mean_of_eq_5_on_what_enters_each_site(kind: str, feed: str) -> None:
    """Against features collected by hand, the warps drawn from the same generator."""
    model, x = adapted(kind, feed=feed), images(kind)
    loss = lse_dec.equivariance_loss(model, x, generator=source(), ratio=2.0, segments=3, steps=(4, 4))
    latent = MODELS[kind][2]
    seen: list[Tensor] = []
    hook = model.sites[latent].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad(), lse_dec.observe(model) as found:
        model(x)
    hook.remove()
    if feed == "image":
        from lse_core import unscale

        features, last = unscale(x, found["image"].warp), False
    else:
        last = kind != "nchw"
        features = seen[0][:, 1:].reshape(4, 4, 4, 24) if kind == "tokens" else seen[0]
    generator = source()
    torch.randint(4, 5, (), generator=generator)
    g = SeparableWarp.from_log_slopes(random_log_slopes(4, 3, 2.0, generator=generator))
    dec = model.canonicalizers
    expected = [
        canonicalizer_equivariance_loss(dec["image"], x, g, steps=4),
        canonicalizer_equivariance_loss(dec[latent], features, g, channels_last=last, steps=4),
    ]
    torch.testing.assert_close(loss, torch.stack(expected).mean(), rtol=1e-5, atol=1e-6)
    assert loss.ndim == 0
    assert loss.requires_grad
    by_site = equivariance_by_site(model, x, generator=source(), ratio=2.0, segments=3, steps=(4, 4))
    assert list(by_site) == ["image", latent]


def test_an_answer_that_ignores_the_picture_costs_one_and_a_right_one_nothing() -> None:
    fresh = lse_dec.adapt(timm.create_model("resnet10t", num_classes=5).eval(), "image", **SMALL)
    assert float(lse_dec.equivariance_loss(fresh, images(), generator=source())) == pytest.approx(1.0)
    x = nn.functional.interpolate(torch.randn(4, 3, 9, 9, generator=source()), size=96, mode="bicubic")
    exact = lse_dec.adapt(timm.create_model("resnet10t").eval(), "image", canonicalizer="variation")
    assert float(lse_dec.equivariance_loss(exact, x, generator=source(), ratio=2.0)) < 0.1


@pytest.mark.parametrize("sites", [["image"], ["layer2"], ["image", "layer2"]])
def test_only_canonicalizers_learn_and_the_backbone_stays_as_it_is(sites: list[str]) -> None:
    model = adapted("nchw", sites).train()
    model.base.layer1.eval()  # as the caller froze it
    modes = {name: module.training for name, module in model.named_modules()}
    before = {k: v.clone() for k, v in model.state_dict().items()}
    lse_dec.equivariance_loss(model, images(), generator=source()).backward()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(p.grad is None for p in model.backbone_parameters())
    for name, canonicalizer in model.canonicalizers.items():
        assert sum(float(p.grad.abs().sum()) for p in canonicalizer.parameters()) > 0, name
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_a_pass_that_was_made_anyway_is_enough() -> None:
    model, x = adapted().eval(), images()
    calls: list[int] = []
    with torch.no_grad():
        with lse_dec.observe(model, first=True) as record:
            logits = model(x)
            model(torch.zeros_like(x))  # what comes later is not the step's own
        model.base.register_forward_pre_hook(lambda *_: calls.append(1))
        again = lse_dec.equivariance_loss(model, entered=record, generator=source())
        entered = {name: Entered(*seen.entered) for name, seen in record.items()}
        plain = lse_dec.equivariance_loss(model, entered=entered, generator=source())
        assert not calls
        assert torch.equal(again, plain)
        torch.testing.assert_close(again, lse_dec.equivariance_loss(model, x, generator=source()))
    assert logits.shape == (4, 5)
    assert calls


def test_training_with_it_lowers_it() -> None:
    model = adapted("nchw", ["image"])
    optimiser = torch.optim.Adam(model.canonicalizer_parameters(), lr=5e-3)
    coarse = torch.randn(8, 3, 7, 7, generator=source())
    x, losses = nn.functional.interpolate(coarse, size=64, mode="bicubic"), []
    for step in range(60):
        loss = lse_dec.equivariance_loss(model, x, generator=source(step), steps=(3, 3))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10]), losses


def test_same_generator_same_loss() -> None:
    model = adapted()
    one, two, other = (lse_dec.equivariance_loss(model, images(), generator=source(s)) for s in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_parts_of_a_step_average_to_the_whole() -> None:
    model, x = adapted(), images(batch=8)
    whole = lse_dec.equivariance_loss(model, x, generator=source())
    parts = [
        lse_dec.equivariance_loss(model, x[rows], generator=source(), rows=rows, total=8)
        for rows in torch.arange(8).view(4, 2)
    ]
    torch.testing.assert_close(torch.stack(parts).mean(), whole, rtol=1e-4, atol=1e-5)


def test_held_canonicalizers_learn_nothing_from_the_task() -> None:
    model = adapted().train()
    with model.canonicalizers_held():
        loss = model(images()).square().mean()
    loss.backward()
    assert all(p.grad is None for p in model.canonicalizer_parameters())
    assert all(p.grad is not None for p in model.backbone_parameters())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "give either images or entered"),
        ({"images": torch.zeros(2, 3, 64, 64), "entered": {}}, "give either images or entered"),
        ({"entered": {}}, "no features entered the sites image, layer2"),
        ({"images": torch.zeros(2, 3, 64, 64), "steps": (3, 1)}, "steps must be two numbers"),
        ({"images": torch.zeros(2, 3, 64, 64), "centre": -1.0}, "centre must be at least 0"),
        ({"images": torch.zeros(2, 3, 64, 64), "rows": torch.arange(2)}, "give rows and total together"),
        ({"images": torch.zeros(2, 3, 64, 64), "ratio": 1.0}, "ratio must be above 1"),
    ],
)
def test_bad_requests(options: dict[str, Any], words: str) -> None:
    with pytest.raises(LSEError, match=words) as raised:
        lse_dec.equivariance_loss(adapted(), **options)
    assert "\n" not in str(raised.value)


def test_more_bad_requests() -> None:
    x = torch.zeros(2, 3, 64, 64)
    with pytest.raises(ShapeError, match="rows must be one for each of 2 images"):
        lse_dec.equivariance_loss(adapted(), x, rows=torch.arange(3), total=8)
    with pytest.raises(UnknownNameError, match="Did you mean 'smooth'"):
        lse_dec.equivariance_loss(adapted(), x, distribution="smoth")
    with pytest.raises(LSEError, match=r"needs what lse_dec\.adapt returned; got Linear"):
        lse_dec.equivariance_loss(nn.Linear(1, 1), x)
    still = lse_dec.adapt(timm.create_model("resnet10t").eval(), canonicalizer="identity")
    with pytest.raises(LSEError, match="no canonicalizer of image, layer1 has parameters"):
        lse_dec.equivariance_loss(still, x)


WORKER = """
import timm, torch
import torch.distributed as dist
import lse_dec

torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
model = torch.load(f"{folder}/model.pt", weights_only=False)
parallel = torch.nn.parallel.DistributedDataParallel(model)
rows = torch.arange(rank, 4, 2)
mine = torch.load(f"{folder}/images.pt")[rows]
for _ in range(2):
    parallel.zero_grad()
    with model.canonicalizers_held():
        loss = parallel(mine).square().mean()
    generator = torch.Generator().manual_seed(3)
    loss = loss + lse_dec.equivariance_loss(parallel, mine, generator=generator, rows=rows, total=4)
    loss.backward()
torch.save({n: p.grad for n, p in model.named_parameters()}, f"{folder}/gradients{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_give_the_gradient_of_one(tmp_path: Path) -> None:
    model, x = adapted("tokens"), images("tokens")
    torch.save(model, tmp_path / "model.pt")
    torch.save(x, tmp_path / "images.pt")
    (tmp_path / "worker.py").write_text(WORKER)
    context = multiprocessing.get_context("forkserver")  # torch is imported there: see conftest.py
    workers = [
        context.Process(
            target=runpy.run_path,
            args=(str(tmp_path / "worker.py"), {"rank": rank, "folder": str(tmp_path)}),
        )
        for rank in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(240)
    assert [worker.exitcode for worker in workers] == [0, 0]
    with model.canonicalizers_held():
        loss = model(x).square().mean()
    (loss + lse_dec.equivariance_loss(model, x, generator=source())).backward()
    for rank in range(2):
        found = torch.load(tmp_path / f"gradients{rank}.pt")
        for name, p in model.named_parameters():
            torch.testing.assert_close(found[name], p.grad, rtol=1e-3, atol=1e-5, msg=name)
