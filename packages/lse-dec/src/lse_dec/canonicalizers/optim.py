"""Optimisation-based canonicalization (Optim in the paper): gradient descent on the energy, per map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lse_core.errors import LSEError, unknown_name
from lse_core.monotone import bound_log_slopes
from lse_core.separable import SeparableWarp
from lse_dec.canonicalizers.base import Canonicalization, channels_first
from lse_dec.canonicalizers.energy import Energy

__all__ = ["Optim"]


class Optim(nn.Module):
    """Minimises the energy of Eq. 7 by a fixed number of gradient steps and differentiates through them.

    Memory and time grow with the steps (the paper: eight times the memory of a DEC): a baseline.

    Args:
        channels: channels of the features.
        steps: gradient steps, at least 1.
        optimiser: "sgd" or "adam".
        rate: length of a step, above 0.
        segments: equal segments an axis.
        ratio: bound on the warp's slopes, within [1/ratio, ratio]; above 1, at most 4.
        resolution: the energy sees at most this many pixels a side.
        widths: channels of the energy's convolutions.

    Raises:
        LSEError: a setting out of its range.
    """

    def __init__(
        self,
        channels: int,
        *,
        steps: int = 5,
        optimiser: str = "sgd",
        rate: float = 1.0,
        segments: int = 8,
        ratio: float = 2.0,
        resolution: int = 16,
        widths: tuple[int, ...] = (64, 128),
    ) -> None:
        super().__init__()
        if optimiser not in ("adam", "sgd"):
            raise unknown_name("optimiser", optimiser, ["adam", "sgd"])
        if steps < 1 or segments < 2 or not 1.0 < ratio <= 4.0 or not rate > 0.0:
            raise LSEError(
                "optim: steps must be at least 1, segments 2, ratio above 1 and at most 4, rate above 0; "
                f"got {steps}, {segments}, {ratio}, {rate}"
            )
        self.channels, self.steps, self.optimiser, self.rate = channels, steps, optimiser, rate
        self.segments, self.ratio = segments, ratio
        self.energy = Energy(channels, resolution, widths=widths)

    def forward(
        self, features: Tensor, *, channels_last: bool = False, steps: int | None = None
    ) -> Canonicalization:
        """Descend for each of a batch of maps; `steps` overrides the module's for this call."""
        channels_first(features, self.channels, channels_last, "optim")
        training = torch.is_grad_enabled()
        # the inner gradient is needed in evaluation too, also where the caller infers
        with torch.inference_mode(False), torch.enable_grad():
            x = self.energy.reduction(
                features.clone() if features.is_inference() else features, channels_last
            )
            precise = torch.promote_types(features.dtype, torch.float32)
            w = torch.zeros(x.shape[0], 2, self.segments, device=x.device, dtype=precise)
            mean, square = torch.zeros_like(w), torch.zeros_like(w)
            for k in range(self.steps if steps is None else steps):
                w = w.requires_grad_() if w.is_leaf else w
                energy = self.energy(x, w).sum()  # maps do not share an energy: the gradient is each one's
                (slope,) = torch.autograd.grad(energy, w, create_graph=training)
                if self.optimiser == "adam":
                    mean, square = 0.9 * mean + 0.1 * slope, 0.99 * square + 0.01 * slope.square()
                    slope = (mean / (1 - 0.9 ** (k + 1))) / (
                        # inside the root: at zero its own gradient is infinite
                        (square / (1 - 0.99 ** (k + 1)) + 1e-16).sqrt()
                    )
                w = bound_log_slopes(w - self.rate * slope, self.ratio)
                w = w if training else w.detach()
        return Canonicalization(SeparableWarp.from_log_slopes(w))
