"""Warp families: what a DEC must know of the kind of warp that it searches, and the exact separable one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from lse_core.constants import constant
from lse_core.monotone import uniform_basis
from lse_core.resample import pixel_centres, unscale
from lse_core.sampling import hat, pixel_numbers
from lse_core.separable import SeparableWarp
from lse_dec.canonicalizers.base import Warp
from lse_dec.canonicalizers.network import UpdateNetwork
from lse_dec.gradients import lowered

__all__ = ["Separable", "WarpFamily"]


class WarpFamily(ABC):
    """A family of warps as states of a solver: real tensors, of which every value is a valid warp.

    A state holds log-slopes of equal segments along its last axis, N long; update rules act on that axis
    alone, so they fit states of any shape (but see `products`). A state of zeros must be the identity.

    Export follows from the kind of the warp: separable and triangular ones become matrix products (and taps),
    any other warp a GridSample. What is to be exported must not read values back to the host.

    Attributes:
        products: whether the composition of two warps of the family is one of the family, segment by segment
            of their states, as rules need that compose warps (`lse_dec.updates.Compose`).
    """

    products: ClassVar[bool] = False

    @abstractmethod
    def shape(self, segments: int) -> tuple[int, ...]:
        """Shape of one sample's state for N segments, such as (2, N)."""

    @abstractmethod
    def warp(self, w: Tensor) -> Warp:
        """The warps of states (B, *shape), float32 or float64; keeps the graph."""

    @abstractmethod
    def network(self, channels: int, segments: int, widths: tuple[int, ...]) -> UpdateNetwork:
        """The network that proposes a change of the state: (B, C, h, w) to (B, *shape), zero before training.

        Args:
            channels: channels of the map.
            segments: N.
            widths: channels of its convolutions.
        """

    def canonical(self, x: Tensor, segments: int) -> Callable[[Tensor], Tensor]:
        """A function from states (B, *shape) to S^-1(x), for the reduced map `x`, (B, C, h, w).

        Called once in a solve, so that what does not change with the state is made once. The function is
        called in every step.
        """

        def canonical(w: Tensor) -> Tensor:
            if not lowered(x.device.type):
                return unscale(x, self.warp(w))
            # coordinates may be made by matrix products, which autocast would lower
            with torch.autocast(x.device.type, enabled=False):
                return unscale(x, self.warp(w))

        return canonical

    def lifted(self, w: Tensor) -> Tensor:
        """The states (B, *shape) of separable warps with log-slopes (B, 2, N), axis x first.

        For `start="variation"`. As it stands, for families whose state is that of `Separable`.
        """
        return w


class Separable(WarpFamily):
    """The exact group: states (2, N), axis x first, each axis a map of its own."""

    products = True

    def shape(self, segments: int) -> tuple[int, ...]:
        """(2, N)."""
        return 2, segments

    def warp(self, w: Tensor) -> Warp:
        """The separable warps of states (B, 2, N)."""
        return SeparableWarp.from_log_slopes(w)

    def network(self, channels: int, segments: int, widths: tuple[int, ...]) -> UpdateNetwork:
        """One profile an axis."""
        return UpdateNetwork(channels, segments, widths)

    def canonical(self, x: Tensor, segments: int) -> Callable[[Tensor], Tensor]:
        """Two products with sampling matrices, in the dtype of the map."""
        b, c, h, w = x.shape
        rows = x.transpose(1, 2).reshape(b, h, c * w)  # so that both products are of whole matrices

        def weights(rises: Tensor, n: int) -> Tensor:
            """Of both axes or one, (B, a, N) to (B, a, n, n)."""
            basis = _basis(n, segments, device=rises.device, dtype=rises.dtype)
            # sums, not matmul: autocast must not lower the precision of coordinates
            at = (rises.unsqueeze(2) * basis).sum(-1, keepdim=True)
            return hat(at - pixel_numbers(n, device=at.device, dtype=at.dtype)).to(x.dtype)

        def canonical(state: Tensor) -> Tensor:
            rises = state.softmax(-1)
            if h == w:
                both = weights(rises, w)
                w_x, w_y = both[:, 0], both[:, 1]
            else:
                w_x, w_y = weights(rises[:, :1], w)[:, 0], weights(rises[:, 1:], h)[:, 0]
            along_y = (w_y @ rows).view(b, h * c, w)
            return (along_y @ w_x.transpose(1, 2)).view(b, h, c, w).transpose(1, 2)

        return canonical


@constant
def _basis(n: int, segments: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """What each segment's rise adds to the coordinate of each of n pixels, in pixels, (n, N)."""
    like = torch.empty(0, device=device, dtype=dtype)
    return uniform_basis(pixel_centres(n, like), segments) * (n - 1)
