"""mmsegmentation's transformers for `lse_dec.adapt`: their stages take tokens, and their grid separately.

Found by name, so that nothing of mmsegmentation is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lse_core.errors import ShapeError
from lse_core.layouts import NCHW, Tokens
from lse_dec.backbones.base import IMAGE, Stage, first_convolution, is_a

__all__ = ["AnnouncedTokens", "TokenBackbones"]

_HOME = "mmseg.models.backbones"
_EMBEDDINGS = (
    "mmseg.models.utils.embed.PatchEmbed",
    "mmseg.models.utils.embed.PatchMerging",
    f"{_HOME}.mscan.StemConv",
    f"{_HOME}.mscan.OverlapPatchEmbed",
)
_MOST_PREFIX_TOKENS = 16


class AnnouncedTokens:
    """Tokens (B, prefix + h*w, C) whose grid a patch embedding announced in the same forward pass.

    A hierarchical model announces several grids; the number of tokens tells which one is meant, and how
    many prefix tokens there are.
    """

    channels_last = True

    def __init__(self) -> None:
        self.grids: dict[int, tuple[int, int]] = {}

    def watch(self, model: nn.Module) -> RemovableHandle:
        """Learn the grids from what the patch embeddings and mergings of `model` return."""
        embeddings = [m for m in model.modules() if is_a(m, *_EMBEDDINGS)]
        handles = [m.register_forward_hook(self._learn) for m in embeddings]
        return cast(RemovableHandle, _Handles(handles))

    def _learn(self, embedding: nn.Module, args: Any, output: tuple[Any, ...]) -> None:
        # (tokens, (rows, columns)), or (tokens, rows, columns)
        rows, columns = (int(n) for n in (output[1] if len(output) == 2 else output[1:]))
        # a later size with as many tokens takes the place of an earlier one
        self.grids[rows * columns] = (rows, columns)

    def _fixed(self, tokens: int) -> Tokens:
        for prefix in range(_MOST_PREFIX_TOKENS + 1):
            if tokens - prefix in self.grids:
                return Tokens(self.grids[tokens - prefix], prefix)
        raise ShapeError(
            f"{tokens} tokens fit none of the grids that the patch embeddings announced "
            f"({', '.join(f'{h} x {w}' for h, w in self.grids.values()) or 'none: no image was seen yet'})"
        )

    def unpack(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `lse_core.Tokens`, on the grid that fits; ShapeError if none does."""
        return self._fixed(x.shape[1] if x.ndim == 3 else -1).unpack(x)

    def pack(self, spatial: Tensor, rest: Tensor | None) -> Tensor:
        """Undo `unpack`."""
        rows, columns = spatial.shape[1:3]
        return Tokens((rows, columns), 0 if rest is None else rest.shape[1]).pack(spatial, rest)


class _Handles:
    """Several handles removed as one."""

    def __init__(self, handles: list[RemovableHandle]) -> None:
        self.handles = handles

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


def _swin(model: Any) -> Iterator[tuple[str, int]]:
    for i, channels in enumerate(model.num_features):
        yield f"stages.{i}", channels


def _plain(model: Any) -> Iterator[tuple[str, int]]:
    for i in range(len(model.layers)):
        yield f"layers.{i}", model.patch_embed.embed_dims


def _mix(model: Any) -> Iterator[tuple[str, int]]:
    for i, (embedding, blocks, _) in enumerate(model.layers):
        for j in range(len(blocks)):
            yield f"layers.{i}.1.{j}", embedding.embed_dims


def _twins(model: Any) -> Iterator[tuple[str, int]]:
    for i, blocks in enumerate(model.layers):
        for j in range(len(blocks)):
            yield f"layers.{i}.{j}", model.patch_embeds[i].embed_dims


def _mscan(model: Any) -> Iterator[tuple[str, int]]:
    for i in range(1, model.num_stages + 1):
        channels = getattr(model, f"norm{i}").normalized_shape[0]
        for j in range(len(getattr(model, f"block{i}"))):
            yield f"block{i}.{j}", channels


_STAGES: dict[str, Callable[[Any], Iterator[tuple[str, int]]]] = {
    f"{_HOME}.swin.SwinTransformer": _swin,
    f"{_HOME}.vit.VisionTransformer": _plain,
    f"{_HOME}.beit.BEiT": _plain,
    f"{_HOME}.mit.MixVisionTransformer": _mix,
    f"{_HOME}.twins.PCPVT": _twins,
    f"{_HOME}.mscan.MSCAN": _mscan,
}


class TokenBackbones:
    """ViT, BEiT, MAE, Swin, MixVisionTransformer, Twins and MSCAN of mmsegmentation.

    The stages are what takes and gives tokens in place: Swin's stages, the others' blocks. All other
    backbones take maps, and the generic route of lse-dec finds their stages.
    """

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is one of these or a subclass."""
        return is_a(model, *_STAGES)

    def image(self, model: nn.Module) -> Stage:
        """The image; what the model gives are maps."""
        return Stage(IMAGE, first_convolution(model).in_channels, NCHW())

    def stages(self, model: nn.Module) -> list[Stage]:
        """Return the stages of a Swin, and the blocks of the other models."""
        layout = AnnouncedTokens()
        list_stages = next(found for name, found in _STAGES.items() if is_a(model, name))
        return [
            Stage(name, channels, layout, layout, watch=layout.watch) for name, channels in list_stages(model)
        ]
