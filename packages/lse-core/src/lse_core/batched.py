"""What batches of maps and of warps have in common: size, device, picking from them, and saving them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lse_core.errors import DTypeError, ShapeError

__all__ = ["Batched", "saved_by"]


class Batched:
    """Base of objects that consist of floating tensors with one batch axis, the first of each.

    A subclass says in `PARTS` which attributes are its tensors, or are such objects themselves, and in
    `SETTINGS` what else it has. Its constructor takes both, in this order, or `saved_by` says what does.
    In place of these it may give `tensor` and `_map`.
    """

    __slots__ = ()

    PARTS: ClassVar[tuple[str, ...]]
    SETTINGS: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def _rebuild(cls, *parts_and_settings: Any) -> Self:
        """The object of these parts and settings, unchecked."""
        return cls(*parts_and_settings)

    def _parts(self) -> list[Any]:
        return [getattr(self, name) for name in self.PARTS]

    def _settings(self) -> list[Any]:
        return [getattr(self, name) for name in self.SETTINGS]

    def _map(self, f: Callable[[Tensor], Tensor]) -> Self:
        """The same object with `f` applied to each of its tensors."""
        parts = [part._map(f) if isinstance(part, Batched) else f(part) for part in self._parts()]
        return self._rebuild(*parts, *self._settings())

    @property
    def tensor(self) -> Tensor:
        """One of the tensors: its batch, device and dtype are those of all."""
        first = self._parts()[0]
        found: Tensor = first.tensor if isinstance(first, Batched) else first
        return found

    @property
    def batch(self) -> int:
        """Size of the batch, B."""
        return self.tensor.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.tensor.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the coordinates."""
        return self.tensor.dtype

    def broadcast(self, batch: int) -> Self:
        """A batch of one repeated (without copying) to `batch`; raises ShapeError for any other."""
        if self.batch == batch:
            return self
        if self.batch != 1:
            raise ShapeError(
                f"{type(self).__name__}: a batch of {self.batch} does not fit a batch of {batch}"
            )
        return self._map(lambda t: t.expand(batch, *t.shape[1:]))

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """The same on another device or in another floating dtype; arguments as `torch.Tensor.to`."""
        moved = self._map(lambda t: t.to(*args, **kwargs))
        if not moved.dtype.is_floating_point:
            raise DTypeError(f"{type(self).__name__} needs a floating dtype; got {moved.dtype}")
        return moved

    def detach(self) -> Self:
        """The same, cut off from the autograd graph."""
        return self._map(Tensor.detach)

    def __getitem__(self, index: Any) -> Self:
        """Those at `index` along the batch (an int keeps a batch of one)."""
        chosen = [index] if isinstance(index, int) else index
        return self._map(lambda t: t[chosen])

    def __len__(self) -> int:
        return self.batch


def saved_by(kind: type[Batched], rebuild: Callable[..., Any]) -> None:
    """Let objects of `kind` pass through torch.save, torch.compile, torch.export, vmap and tree_map.

    Args:
        kind: a class whose objects are their parts and settings, and no more.
        rebuild: makes one of these, checking nothing: a function of a module, which pickles name and
            `torch.load(weights_only=True)` is told to trust.
    """
    changed: Any = kind
    changed._rebuild = staticmethod(rebuild)
    changed.__reduce__ = lambda w: (rebuild, (*w._parts(), *w._settings()))
    torch.serialization.add_safe_globals([rebuild])
    pytree.register_pytree_node(
        kind,
        lambda w: (w._parts(), w._settings()),
        lambda parts, settings: rebuild(*parts, *settings),
        serialized_type_name=f"{kind.__module__}.{kind.__name__}",
    )
