"""The parametrization that softens one tensor."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lse_soft.groups import Group
from lse_soft.places import FUNCTIONALS, Place
from lse_soft.spectra import Filter, Spectrum
from lse_soft.spectra.dense import DenseFilter
from lse_soft.thresholds import factors

__all__ = ["Softener"]

LEAST_CONSTANT = 1e-6
"""Share of the constant signal that must survive the filter for its response to be restored."""


class Softener(nn.Module):
    """Maps W to S_b W and, if asked, restores the response to constant signals within the range of P_b.

    With 1 the constant signal, w' = S w + S 1 (1^T w - 1^T S w) / (1^T S 1) has 1^T w' = 1^T w, so what a
    filter answers to a constant signal stays as it was. Both terms lie in the range of P_b: the bound holds.

    Args:
        place: the tensor and what it is.
        group: what acts.
        spectrum: of the group's constraints on this tensor.
        filter_: S_b, see `Spectrum.filter`; may be shared by softeners.
        b: softness.
        threshold: see `lse_soft.thresholds.factors`.
        preserve_dc: restore the response to constants, where the tensor holds functionals.
        order: names of the parameters of the module, in order, to be put back in.
    """

    def __init__(
        self,
        place: Place,
        group: Group,
        spectrum: Spectrum,
        filter_: Filter,
        b: float,
        threshold: str,
        preserve_dc: bool,
        order: list[str],
    ) -> None:
        super().__init__()
        self.place, self.group, self.spectrum, self.b = place, group, spectrum, b
        self.threshold, self.preserve_dc, self.order = threshold, preserve_dc, order
        self.filter = filter_
        response: Tensor | None = None
        if preserve_dc and place.kind in FUNCTIONALS:
            n = place.grid[0] * place.grid[1]
            one = torch.ones(n, dtype=torch.float64)
            kept = filter_(one)
            if float(one @ kept) > LEAST_CONSTANT * n:
                response = kept / (one @ kept)
        self.register_buffer("response", response, persistent=False)
        self.response: Tensor | None

        if isinstance(filter_, DenseFilter) and response is not None:
            # both steps are linear, so one product does: w S + (w 1 - w S 1) r^T = w (S + (1 - S 1) r^T)
            self.filter = DenseFilter(filter_.matrix + torch.outer(1 - filter_.matrix.sum(1), response))
            self.response = None

    def forward(self, weight: Tensor) -> Tensor:
        """The softened tensor, shape and dtype of `weight`, in full precision under autocast too."""
        kind = weight.device.type
        if torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                return self._softened(weight)
        return self._softened(weight)

    def _softened(self, weight: Tensor) -> Tensor:
        rows = self.place.elements(weight)
        out: Tensor = self.filter(rows)
        if self.response is not None:
            out = out + (rows - out).sum(-1, keepdim=True) * self.response.to(out.dtype)
        return self.place.restore(out, weight)

    def extra_repr(self) -> str:
        """For `print(model)`."""
        return f"{self.place.kind}, {self.group.title}, b={self.b:.4g}, {self.threshold}"


def make_filter(spectrum: Spectrum, b: float, threshold: str) -> Filter:
    """S_b as a module."""
    return spectrum.filter(lambda sigma: factors(sigma, b, threshold))
