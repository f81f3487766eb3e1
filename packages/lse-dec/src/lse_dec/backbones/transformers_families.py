"""Hugging Face transformers' ViT, DeiT, DINOv2, Swin and SegFormer. Found by name, nothing is imported.

The stages are found by the classes of their layers, so a model is one of a family whatever head it has, also
inside a module of one's own. Outputs that are no pictures (attention weights) are never warped.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn

from lse_core.layouts import NCHW, Layout
from lse_dec.backbones.base import IMAGE, Stage, first_convolution, is_a
from lse_dec.backbones.tokens import VaryingTokens

__all__ = ["TransformersSegFormer", "TransformersSwin", "TransformersViT"]

_OUTPUTS: Mapping[str | int, Layout | None] = {
    "attentions": None,
    "feature_maps": NCHW(),
    "logits": NCHW(),
    "reconstruction": NCHW(),
    "reshaped_hidden_states": NCHW(),
}
"""What models give beside tokens."""


def _class(family: str, name: str) -> str:
    return f"transformers.models.{family}.modeling_{family}.{name}"


def _found(model: nn.Module, classes: tuple[str, ...]) -> list[tuple[str, Any]]:
    """Names and modules of these classes, in the order they were registered."""
    return [(name, module) for name, module in model.named_modules() if is_a(module, *classes)]


class _Layers:
    """What the families have in common.

    Attributes:
        embeddings: classes of what makes tokens of an image; a model has one such module.
        layers: classes of the stages.
    """

    embeddings: ClassVar[tuple[str, ...]]
    layers: ClassVar[tuple[str, ...]]

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is, or holds, exactly one model of the family."""
        return len(_found(model, self.embeddings)) == 1


class TransformersViT(_Layers):
    """ViT, DeiT, DINOv2 and DINOv2 with registers: every layer is a stage.

    Class, distillation and register tokens pass untouched. The grid of patches follows the image.
    """

    embeddings = (
        _class("vit", "ViTEmbeddings"),
        _class("deit", "DeiTEmbeddings"),
        _class("dinov2", "Dinov2Embeddings"),
        _class("dinov2_with_registers", "Dinov2WithRegistersEmbeddings"),
    )
    layers = (
        _class("vit", "ViTLayer"),
        _class("deit", "DeiTLayer"),
        _class("dinov2", "Dinov2Layer"),
        _class("dinov2_with_registers", "Dinov2WithRegistersLayer"),
    )

    def image(self, model: nn.Module) -> Stage:
        """The image; hidden states, if the model gives them, are tokens.

        DINOv2 takes images of any size, the others of theirs alone unless they are asked to interpolate.
        """
        layout, found = self._layout(model), _found(model, self.embeddings)[0][1]
        size = None if is_a(found, *self.embeddings[2:]) else tuple(found.patch_embeddings.image_size)
        channels = first_convolution(model).in_channels
        return Stage(IMAGE, channels, NCHW(), layout, size, layout.watch, _OUTPUTS)

    def stages(self, model: nn.Module) -> list[Stage]:
        """The layers; releases of transformers before 5 have them give attention weights too."""
        layout = self._layout(model)
        channels = _found(model, self.embeddings)[0][1].cls_token.shape[-1]
        return [
            Stage(name, channels, layout, layout, watch=partial(_Watched, layout, name), outputs={1: None})
            for name, _ in _found(model, self.layers)
        ]

    def _layout(self, model: nn.Module) -> VaryingTokens:
        name, found = _found(model, self.embeddings)[0]
        tokens = ("cls_token", "distillation_token", "register_tokens")
        prefix = sum(token.shape[1] for n in tokens if (token := getattr(found, n, None)) is not None)
        patches = found.patch_embeddings
        (height, width), (h, w) = patches.image_size, patches.patch_size
        convolution = _within(name, "patch_embeddings.projection")
        return VaryingTokens(prefix, convolution, grid=(height // h, width // w))


class TransformersSwin(_Layers):
    """Swin (v1, v2): the stages, on tokens without prefix; F_k is what enters the stage."""

    embeddings = (_class("swin", "SwinEmbeddings"), _class("swinv2", "Swinv2Embeddings"))
    layers = (_class("swin", "SwinStage"), _class("swinv2", "Swinv2Stage"))

    def image(self, model: nn.Module) -> Stage:
        """The image; hidden states, if the model gives them, are tokens on smaller and smaller grids."""
        layout = self._layout(model, 0, len(_found(model, self.layers)))
        channels = first_convolution(model).in_channels
        backbones = (_class("swin", "SwinBackbone"), _class("swinv2", "Swinv2Backbone"))
        outputs = dict(_OUTPUTS)
        if is_a(model, *backbones) and _gives_maps(_found(model, self.layers)[0][1]):
            outputs["hidden_states"] = NCHW()
        return Stage(IMAGE, channels, NCHW(), layout, watch=layout.watch, outputs=outputs)

    def stages(self, model: nn.Module) -> list[Stage]:
        """The stages, which merge their patches at the end and give more than their tokens."""
        found = []
        for k, (name, stage) in enumerate(_found(model, self.layers)):
            layout = self._layout(model, k, 1)
            channels = stage.blocks[0].layernorm_before.normalized_shape[0]
            # (tokens, a map, attention weights); before release 5 (tokens, tokens, grids, attention weights)
            maps: dict[str | int, Layout | None] = {1: NCHW(), 2: None}
            outputs: dict[str | int, Layout | None] = maps if _gives_maps(stage) else {3: None}
            watch = partial(_Watched, layout, name)
            found.append(Stage(name, channels, layout, layout, watch=watch, outputs=outputs))
        return found

    def _layout(self, model: nn.Module, level: int, halvings: int) -> VaryingTokens:
        name, embeddings = _found(model, self.embeddings)[0]
        convolution = _within(name, "patch_embeddings.projection")
        return VaryingTokens(0, convolution, grid=embeddings.patch_grid, level=level, halvings=halvings)


def _gives_maps(stage: nn.Module) -> bool:
    """Whether a stage of Swin gives a map beside its tokens, as it does since release 5."""
    return hasattr(stage, "get_reshaped_hidden_states")


class TransformersSegFormer(_Layers):
    """SegFormer, for classes and for segmentation: the layers of every stage, on tokens without prefix.

    A warp before one layer stays until the end of the model, unless the mode is "equivariant".
    """

    embeddings = (_class("segformer", "SegformerOverlapPatchEmbeddings"),)
    layers = (_class("segformer", "SegformerLayer"),)

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is, or holds, a SegFormer."""
        return bool(_found(model, self.layers))

    def image(self, model: nn.Module) -> Stage:
        """The image; scores of segmentation and hidden states are maps."""
        return Stage(IMAGE, first_convolution(model).in_channels, NCHW(), outputs=_OUTPUTS)

    def stages(self, model: nn.Module) -> list[Stage]:
        """The layers; each stage of the model has a patch embedding of its own."""
        layers = [name for name, _ in _found(model, self.layers)]
        rows = list(dict.fromkeys(name.rpartition(".")[0] for name in layers))
        found = []
        for row, (embedding, module) in zip(rows, _found(model, self.embeddings), strict=True):
            layout = VaryingTokens(0, _within(embedding, "proj"))
            channels = module.proj.out_channels
            for name in layers:
                if name.rpartition(".")[0] == row:
                    watch = partial(_Watched, layout, name)
                    found.append(Stage(name, channels, layout, layout, watch=watch, outputs={1: None}))
        return found


def _within(name: str, child: str) -> str:
    return f"{name}.{child}" if name else child


class _Watched:
    """The hooks of one site: its layout learns the grid, and the site speaks for its stage.

    Since release 5, transformers collects hidden states and attention weights with forward hooks on the
    layers. A layer behind a site would tell them its canonical input and, in equivariant mode, an output that
    was not yet warped back; so such a hook moves to the site, which gives what the rest of the model gets.
    (Release 4 has some layers replace their forward for this; there the layer's own output is what is told.)
    """

    def __init__(self, layout: VaryingTokens, name: str, model: nn.Module) -> None:
        self.site: Any = model.get_submodule(name)
        self.handles = [layout.watch(model), self.site.register_forward_pre_hook(_take_over)]

    def remove(self) -> None:
        """Give the hooks back."""
        for handle in self.handles:
            handle.remove()
        _move(self.site, self.site.stage)


def _take_over(site: Any, args: Any) -> None:
    # they come with the first call that asks for hidden states; a compiler cannot follow that
    if not torch.compiler.is_compiling():
        _move(site.stage, site)


def _move(source: nn.Module, target: nn.Module) -> None:
    for key, hook in list(source._forward_hooks.items()):
        if getattr(hook, "__name__", "") == "output_capturing_hook":
            target._forward_hooks[key] = source._forward_hooks.pop(key)
