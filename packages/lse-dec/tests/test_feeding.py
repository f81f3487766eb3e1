"""Canonicalizers fed by the image, as in the authors' code, at latent sites."""

import copy
import threading
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import lse_dec
from lse_core import unscale
from lse_core.errors import LSEError, UnknownNameError
from lse_dec.sites import _entered

SITES = {"vit": "blocks.1", "resnet": "layer2"}


def base(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "resnet":
        return timm.create_model("resnet10t", num_classes=5).eval()
    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        patch_size=8,
        depth=2,
        embed_dim=24,
        num_heads=3,
        num_classes=5,
    ).eval()


def adapted(name: str = "vit", *, image: bool = True, **options: Any) -> lse_dec.AdaptedModel:
    sites = ["image", SITES[name]] if image else [SITES[name]]
    model = lse_dec.adapt(base(name), sites, **{"feed": "image", "rule": "compose", "steps": 3, **options})
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for canonicalizer in model.canonicalizers.values():
            weight = canonicalizer.update.head.weight
            weight.copy_(4.0 * torch.randn(weight.shape, generator=generator))
    return model


def images(seed: int = 1, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("image", [True, False])
@pytest.mark.parametrize("name", SITES)
def test_the_canonicalizer_sees_the_image_and_the_features_are_warped(name: str, image: bool) -> None:
    model, x = adapted(name, image=image), images()
    site = model.sites[SITES[name]]
    fed: list[Tensor] = []
    entered: list[Tensor] = []
    given: list[Tensor] = []
    site.canonicalizer.register_forward_pre_hook(lambda _, args: fed.append(args[0]))
    site.stage.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    site.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    with torch.no_grad(), lse_dec.observe(model) as found:
        model(x)
    # with a site at the image it is the canonicalized one
    assert torch.equal(fed[0], unscale(x, found["image"].warp) if image else x)
    warp = found[SITES[name]].warp
    assert (warp.x.values - warp.x.knots).abs().max() > 1e-3
    layout = site.where.layout
    spatial, rest = layout.unpack(entered[0])
    kind = "nhwc" if layout.channels_last else "nchw"
    assert torch.allclose(given[0], layout.pack(unscale(spatial, warp, kind), rest), atol=1e-6)


@pytest.mark.parametrize("mode", ["invariant", "equivariant"])
@pytest.mark.parametrize("name", SITES)
def test_identity_before_training_and_gradients_after(name: str, mode: str) -> None:
    x = images()
    with torch.no_grad():
        plain = base(name)(x)
        fresh = lse_dec.adapt(base(name), SITES[name], feed="image", mode=mode)
        assert (fresh(x) - plain).abs().max() < 1e-5
    model = adapted(name, mode=mode).train()
    model(x).square().sum().backward()
    for part, p in model.sites[SITES[name]].canonicalizer.named_parameters():
        assert p.grad is not None, part
        assert p.grad.isfinite().all(), part
    assert model.sites[SITES[name]].canonicalizer.update.mix.weight.grad.abs().max() > 0


def test_nothing_outlives_the_call() -> None:
    model = adapted()
    model(images())
    assert _entered.get() is None
    assert not any(isinstance(value, Tensor) for value in vars(model.entrance).values())
    with pytest.raises(RuntimeError):
        model(images().double())  # fails inside the model
    assert _entered.get() is None
    with pytest.raises(LSEError, match=r"site 'blocks.1' is fed by the image.*feed='latent'"):
        model.sites["blocks.1"](torch.randn(2, 17, 24))


def test_copies_threads_and_the_way_back() -> None:
    model = adapted()
    x = [images(seed) for seed in range(4)]
    with torch.no_grad():
        alone = [model(each) for each in x]
        assert torch.equal(copy.deepcopy(model)(x[0]), alone[0])
        together: dict[int, Tensor] = {}

        def work(i: int) -> None:
            with torch.no_grad():
                for _ in range(3):
                    together[i] = model(x[i])

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i in range(4):
            assert torch.allclose(together[i], alone[i], atol=1e-6)
        back = lse_dec.unadapt(model)
        assert torch.equal(back(x[0]), base("vit")(x[0]))


def test_compiles_whole() -> None:
    model = adapted(image=False, solver="naive", steps=1)
    with torch.no_grad():
        plain = model(images())
        whole = torch.compile(model, backend="eager", fullgraph=True)
        assert torch.allclose(whole(images()), plain, atol=1e-6)
        assert vars(model.entrance) == {"_traced": None}


def test_save_and_load(tmp_path: Path) -> None:
    model = adapted("resnet")
    lse_dec.save(model, tmp_path)
    again = lse_dec.load(tmp_path)
    assert again.settings["feed"] == "image"
    with torch.no_grad():
        assert torch.equal(again(images()), model.eval()(images()))


def test_unknown_feed_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'image'"):
        lse_dec.adapt(base("vit"), feed="imag")
