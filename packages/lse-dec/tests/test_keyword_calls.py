"""Called by keyword: the features are found by the name that the forward of a model or a stage gives them."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import lse_dec
from lse_core.errors import DTypeError, LSEError, ShapeError


class Block(nn.Module):
    """A residual block with a second argument."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden_states: Tensor, gain: float = 1.0) -> Tensor:
        return hidden_states + gain * self.conv(hidden_states).tanh()


class Named(nn.Module):
    """Takes images as `pixel_values` and calls its blocks by keyword, as many of transformers' models do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(Block(6) for _ in range(2))
        self.head = nn.Linear(6, 4)
        self.checkpointing = False

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None, gain: float = 1.0) -> Any:
        x = self.stem(pixel_values)
        for block in self.blocks:
            if self.checkpointing:
                x = checkpoint(block, hidden_states=x, gain=gain, use_reentrant=False)
            else:
                x = block(gain=gain, hidden_states=x)
        logits = self.head(x.mean((2, 3)))
        return logits if labels is None else nn.functional.cross_entropy(logits, labels)


SITES = ["image", "blocks.1"]


def named(sites: Any = SITES, **options: Any) -> lse_dec.AdaptedModel:
    """An adapted model whose canonicalizers do something."""
    torch.manual_seed(0)
    options = {"rule": "compose", "steps": 2, "segments": 4, "projection": 4, "widths": (8,), **options}
    adapted = lse_dec.adapt(Named().eval(), sites, **options)
    with torch.no_grad():
        for canonicalizer in adapted.canonicalizers.values():
            canonicalizer.update.head.weight.normal_(std=4.0)
    return adapted


def images() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("mode", ["invariant", "equivariant"])
@pytest.mark.parametrize("feed", ["latent", "image"])
@pytest.mark.parametrize("sites", [["image"], ["blocks.1"], SITES])
def test_by_keyword_as_by_position(sites: list[str], feed: str, mode: str) -> None:
    adapted, x, labels = named(sites, feed=feed, mode=mode), images(), torch.tensor([1, 3])
    base = Named().eval()
    base.load_state_dict(lse_dec.unadapt(named(sites)).state_dict())
    with torch.no_grad():
        expected = adapted(x)
        assert (expected - base(x)).abs().max() > 1e-5  # the warps reach the output
        assert torch.equal(adapted(pixel_values=x), expected)
        assert torch.equal(adapted(gain=0.5, pixel_values=x), adapted(x, gain=0.5))
        loss = adapted(labels=labels, pixel_values=x)
        assert torch.equal(loss, nn.functional.cross_entropy(expected, labels))
        with lse_dec.observe(adapted) as found:
            adapted(pixel_values=x)
        assert set(found) == set(sites)


def test_other_names_of_the_first_argument() -> None:
    class KeywordOnly(Named):
        def forward(self, *, images: Tensor, labels: Tensor | None = None) -> Any:
            return super().forward(images, labels)

    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = KeywordOnly()

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return self.inner(images=args[0]) if args else self.inner(**kwargs)

    keyed = KeywordOnly().eval()
    wrapper = Wrapper().eval()
    with torch.no_grad():
        for model, sites in ((keyed, SITES), (wrapper, "image")):
            expected = model(images=images())
            adapted = lse_dec.adapt(model, sites)
            assert torch.allclose(adapted(images=images()), expected, atol=1e-5)
    timms = lse_dec.adapt(timm.create_model("resnet10t", num_classes=3).eval(), "image")
    with torch.no_grad():
        assert torch.equal(timms(x=images()), timms(images()))


@pytest.mark.parametrize("feed", ["latent", "image"])
def test_compiles_whole_when_called_by_keyword(feed: str) -> None:
    adapted = named(["blocks.1"] if feed == "image" else SITES, feed=feed, solver="naive", steps=1)
    with torch.no_grad():
        expected = adapted(images())
        whole = torch.compile(adapted, backend="eager", fullgraph=True)
        assert torch.allclose(whole(pixel_values=images()), expected, atol=1e-6)


def test_gradient_checkpointing_by_keyword() -> None:
    def gradients(adapted: lse_dec.AdaptedModel) -> dict[str, Tensor]:
        adapted.zero_grad()
        adapted(pixel_values=images()).square().sum().backward()
        return {name: p.grad.clone() for name, p in adapted.named_parameters() if p.grad is not None}

    adapted = named().train()
    plain = gradients(adapted)
    adapted.base.checkpointing = True
    saved = gradients(adapted)
    assert plain.keys() == saved.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(saved[name], gradient, msg=name)


@pytest.mark.parametrize("feed", ["latent", "image"])
def test_without_an_image_one_line_says_so(feed: str) -> None:
    sites = SITES if feed == "latent" else ["blocks.1"]
    adapted = named(sites, feed=feed)
    for call in ({"labels": torch.tensor([0, 1])}, {}, {"pixel_values": None, "gain": 2.0}):
        with pytest.raises(
            LSEError, match=r"got no features: pass the tensor .* as pixel_values=; got"
        ) as raised:
            adapted(**call)
        assert "\n" not in str(raised.value)


def test_images_by_keyword_are_checked_like_others() -> None:
    with pytest.raises(ShapeError, match=r"expected images \(batch, 3, height, width\)"):
        named()(pixel_values=torch.zeros(2, 1, 8, 8))
    with pytest.raises(DTypeError, match=r"torch\.uint8"):
        named()(pixel_values=torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
