"""One recorder for logging, pictures, measurements and Eq. 5."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import lse_dec
from lse_core.errors import LSEError
from lse_dec.canonicalizers import Canonicalization, Variation
from lse_dec.observation import Observation


def adapted(
    kind: str = "resnet10t", sites: Any = ("image", "layer2"), **settings: Any
) -> lse_dec.AdaptedModel:
    torch.manual_seed(0)
    model = lse_dec.adapt(timm.create_model(kind, num_classes=5).eval(), sites, segments=4, **settings)
    with torch.no_grad():
        for canonicalizer in model.canonicalizers.values():
            canonicalizer.update.head.weight.normal_(std=2.0)
    return model


def images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 48, 48, generator=torch.Generator().manual_seed(1))


def values(found: Any) -> Tensor:
    return torch.cat([found.warp.x.values, found.warp.y.values], 1)


def test_it_records_what_entered_and_what_was_answered_and_leaves_nothing() -> None:
    model, x = adapted(sites=["layer2", "image"]), images()
    kept = {id(m): set(vars(m)) for m in model.modules()}
    entered: list[Tensor] = []
    hook = model.sites["layer2"].register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    with torch.no_grad(), lse_dec.observe(model) as record:
        model(x)
        assert list(record) == ["image", "layer2"]  # as they ran, not as they were asked for
    hook.remove()
    seen = record["layer2"]
    assert torch.equal(record["image"].features, x)
    assert torch.equal(seen.features, entered[0])
    with torch.no_grad():
        assert torch.equal(values(seen), values(model.canonicalizers["layer2"](entered[0])))
    assert isinstance(seen.result, Canonicalization)
    assert seen.solution is not None
    assert seen.solution.residuals.shape == (5, 2)
    assert not any(site.observers for site in model.sites.values())
    assert {id(m): set(vars(m)) for m in model.modules()} == kept
    with pytest.raises(ZeroDivisionError), lse_dec.observe(model):
        _ = 1 / 0
    assert not any(site.observers for site in model.sites.values())


@pytest.mark.parametrize("first", [False, True])
def test_the_last_call_counts_unless_the_first_is_asked_for(first: bool) -> None:
    model, x = adapted(), images()
    with torch.no_grad(), lse_dec.observe(model, first=first) as record:
        model(x)
        model(2.0 * x)
    assert torch.equal(record["image"].features, x if first else 2.0 * x)


def test_blocks_within_blocks_fill_a_record_each() -> None:
    model, x = adapted(), images()
    with torch.no_grad(), lse_dec.observe(model) as outer:
        with lse_dec.observe(model) as inner:
            model(x)
        model(2.0 * x)
    assert torch.equal(inner["image"].features, x)
    assert torch.equal(outer["image"].features, 2.0 * x)


def test_maps_with_channels_last_come_with_channels_first() -> None:
    shape = {"img_size": 64, "window_size": 4, "embed_dim": 24, "depths": (1, 1, 1, 1)}
    model = lse_dec.adapt(timm.create_model("swin_tiny_patch4_window7_224", **shape).eval(), "layers.1")
    with lse_dec.observe(model) as record:
        model(torch.rand(1, 3, 64, 64))
    seen = record["layers.1"]
    assert seen.channels_last
    assert seen.features.shape == (1, 24, 16, 16)
    assert seen.entered.features.shape == (1, 16, 16, 24)
    assert torch.equal(seen.features.permute(0, 2, 3, 1), seen.entered.features)


def test_a_slice_is_the_observation_of_its_samples() -> None:
    model, x = adapted(), images(4)
    with torch.no_grad(), lse_dec.observe(model) as record:
        model(x)
    part = record["image"][1:3]
    assert torch.equal(part.features, x[1:3])
    assert torch.equal(values(part), values(record["image"])[1:3])
    assert part.solution is not None
    whole = record["image"].solution
    assert whole is not None
    for name in ("z", "residual", "codes"):
        assert torch.equal(getattr(part.solution, name), getattr(whole, name)[1:3])
    assert torch.equal(part.solution.residuals, whole.residuals[:, 1:3])
    plain = lse_dec.adapt(nn.Identity(), "image", canonicalizer=lambda channels: Variation(3))
    with lse_dec.observe(plain) as record:
        plain(x)
    assert record["image"][:2].solution is None


class Wrapper(nn.Module):
    """As DistributedDataParallel holds its module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def test_wrapped_models_and_bare_mappings_of_sites() -> None:
    model, x = adapted(), images()
    with torch.no_grad():
        with lse_dec.observe(Wrapper(Wrapper(model))) as record:
            model(x)
        with lse_dec.observe({"mine": model.sites["layer2"]}) as mine:
            model(x)
    assert list(record) == ["image", "layer2"]
    assert list(mine) == ["mine"]
    assert torch.equal(values(mine["mine"]), values(record["layer2"]))
    other = timm.create_model("resnet10t")
    with pytest.raises(LSEError, match=r"observe takes what lse_dec.adapt returned; got ResNet"):
        lse_dec.observe(other).__enter__()


def test_a_compiled_model_is_observed_too() -> None:
    torch.compiler.reset()
    model, x = adapted(), images()
    compiled: Any = torch.compile(model, backend="eager")
    with torch.no_grad():
        compiled(x)  # compiled before anybody observed
        with lse_dec.observe(compiled) as record:
            compiled(x)
        with lse_dec.observe(model) as plain:
            model(x)
    for name, seen in plain.items():
        assert torch.allclose(values(record[name]), values(seen), atol=1e-6)
        assert isinstance(record[name], Observation)
