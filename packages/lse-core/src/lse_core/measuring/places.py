"""Visiting the tensors that enter and leave the modules of a model while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.backends import mha
from torch.nn.attention import SDPBackend, sdpa_kernel

from lse_core.layouts import Layout, layout_of, patch_grid
from lse_core.modes import evaluating

__all__ = ["Place", "visiting"]


@dataclass(frozen=True)
class Place:
    """Where a tensor is met: at the entrance of a module or at its exit.

    Attributes:
        layer: path of the module whose own operations made it: at an exit the module that ends, at an
            entrance the module around the one that begins. "" is the model.
        layout: how the tensor is laid out; None for what has no place in the picture, such as class scores.
    """

    layer: str
    layout: Layout | None


@dataclass
class _Running:
    """A module that has begun and not ended: its path, and the number of axes of what entered it."""

    path: str
    rank: int
    known: bool


@contextmanager
def visiting(
    model: nn.Module,
    batch: int,
    visit: Callable[[Place, Tensor], Tensor],
    begin: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """While the block runs the model, pass tensors through `visit`, whose results go on in their place.

    Visited is the first argument and the output of every module, where it is a map, tokens or has no place in
    the picture at all; what only code inside of one module can place (windows, attention) is left alone, with
    all that happens in that module. A tensor that goes from one module to the next is visited once. The model
    runs in evaluation mode, without operations in place and with attention in plain operations.

    Args:
        model: any.
        batch: images that it runs on, at least 2.
        visit: called with the place and the tensor; returns a tensor like it.
        begin: called with the path of every module that begins.
    """
    grid, stack = patch_grid(model), list[_Running]()
    paths = {module: path for path, module in model.named_modules()}

    def place(module: nn.Module, layer: str, x: Any, around: list[_Running]) -> Place | None:
        outer = around[-1] if around else None
        if not isinstance(x, Tensor) or not x.is_floating_point() or (outer and not outer.known):
            return None
        if x.ndim == 2 or (x.ndim == 4 and x.shape[2:] == (1, 1)):
            return Place(layer, None) if x.shape[0] == batch else None
        if outer and outer.rank == 3 and x.ndim != 3:  # heads of attention look like maps
            return None
        found = layout_of(x, module, model, grid, batch)
        return Place(layer, found[0]) if found else None

    def passed(where: Place | None, x: Any) -> Any:
        if where is None or getattr(x, "lse_visited", False):
            return x
        new = visit(where, x)
        new.lse_visited = True  # type: ignore[attr-defined]
        return new

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        path = paths[module]
        x: Any = args[0] if args else None
        where = place(module, stack[-1].path if stack else "", x, stack)
        stack.append(_Running(path, getattr(x, "ndim", 0), where is not None))
        if begin is not None:
            begin(path)
        if not path and where:
            x.lse_visited = True  # the image is where everything starts
        return ((passed(where, x), *args[1:]), kwargs) if where else None

    def after(module: nn.Module, args: tuple[Any, ...], out: Any) -> Any:
        ended = stack.pop()
        return passed(place(module, ended.path, out, stack) if ended.known else None, out)

    with ExitStack() as undo:
        undo.enter_context(evaluating(model))
        undo.enter_context(sdpa_kernel(SDPBackend.MATH))
        undo.callback(mha.set_fastpath_enabled, mha.get_fastpath_enabled())
        mha.set_fastpath_enabled(False)
        for module in model.modules():
            if getattr(module, "inplace", False) is True:
                module.inplace = False  # type: ignore[assignment]
                undo.callback(setattr, module, "inplace", True)
        for module in model.modules():
            undo.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
            undo.callback(module.register_forward_hook(after).remove)
        yield
