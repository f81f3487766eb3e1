"""What batches of maps and of warps have in common: their size, their device, and picking from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from lse_core.errors import ShapeError

__all__ = ["Batched"]


class Batched:
    """Base of objects that consist of floating tensors with one batch axis, the first of each.

    A subclass gives `tensor`, any one of its tensors, and `_map`.
    """

    __slots__ = ()

    @property
    def tensor(self) -> Tensor:
        """A tensor whose batch, device and dtype are those of all."""
        raise NotImplementedError

    def _map(self, f: Callable[[Tensor], Tensor]) -> Self:
        """The same object with `f` applied to each of its tensors."""
        raise NotImplementedError

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
        return self._map(lambda t: t.to(*args, **kwargs))

    def detach(self) -> Self:
        """The same, cut off from the autograd graph."""
        return self._map(Tensor.detach)

    def __getitem__(self, index: Any) -> Self:
        """Those at `index` along the batch (an int keeps a batch of one)."""
        chosen = [index] if isinstance(index, int) else index
        return self._map(lambda t: t[chosen])

    def __len__(self) -> int:
        return self.batch
