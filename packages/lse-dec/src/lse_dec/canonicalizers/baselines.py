"""The paper's baselines: discrete canonicalization, optimisation of an energy, and none at all."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lse_core.errors import LSEError, unknown_name
from lse_core.monotone import bound_log_slopes
from lse_core.random import random_log_slopes
from lse_core.resample import unscale
from lse_core.separable import SeparableWarp
from lse_dec.canonicalizers.base import Canonicalization, channels_first
from lse_dec.canonicalizers.reduction import Reduction

__all__ = ["Canon", "Energy", "Identity", "Optim"]


class Identity(nn.Module):
    """Answers with the identity warp to every map: a control.

    Args:
        channels: channels of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, features: Tensor, *, channels_last: bool = False) -> Canonicalization:
        """The identity for a batch of maps; ShapeError for a wrong rank or channels."""
        x = channels_first(features, self.channels, channels_last, "identity")
        precise = torch.promote_types(x.dtype, torch.float32)
        return Canonicalization(SeparableWarp.identity(x.shape[0], device=x.device, dtype=precise))


class Energy(nn.Module):
    """The learned energy of Eq. 7, E(S^-1(F; Phi)), which is low where the features are in canonical form.

    A small CNN from a canonicalized map to a number; zero for every map before training.

    Args:
        channels: channels of the features.
        resolution: the features are reduced to at most this many pixels a side.
        projection: channels after projection.
        widths: channels of the convolutions.
    """

    def __init__(
        self, channels: int, resolution: int = 16, projection: int = 32, widths: tuple[int, ...] = (64, 128)
    ) -> None:
        super().__init__()
        self.reduction = Reduction(channels, projection, resolution)
        layers: list[nn.Module] = []
        before = projection
        for width in widths:
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.SiLU()]
            before = width
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Linear(before, 1, bias=False)  # a constant would change no minimum
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Energies (B,) of reduced maps (B, projection, h, w) under log-slopes (B, 2, N)."""
        canonical = unscale(x, SeparableWarp.from_log_slopes(w))
        return self.head(self.convolutions(canonical).mean((2, 3)))[:, 0].to(
            torch.promote_types(x.dtype, w.dtype)
        )


class Canon(nn.Module):
    """Discrete canonicalization (Canon in the paper): the warp of least energy (Eq. 7) in a fixed set.

    The choice passes gradient straight through: forward the best warp, backward the mixture by
    softmax of the negative energies. The set holds the identity, which wins ties, so a fresh
    canonicalizer answers with it.

    Args:
        channels: channels of the features.
        warps: how many warps, the identity among them; the paper has 64.
        segments: equal segments an axis.
        ratio: bound on their slopes, within [1/ratio, ratio]; above 1, at most 4.
        temperature: of the softmax, above 0.
        seed: of the warps, which are part of the state.
        resolution: the energy sees at most this many pixels a side.
        widths: channels of the energy's convolutions.

    Raises:
        LSEError: a setting out of its range.
    """

    templates: Tensor

    def __init__(
        self,
        channels: int,
        *,
        warps: int = 64,
        segments: int = 8,
        ratio: float = 2.0,
        temperature: float = 1.0,
        seed: int = 0,
        resolution: int = 16,
        widths: tuple[int, ...] = (32, 64, 64),
    ) -> None:
        super().__init__()
        if warps < 2 or segments < 2 or not 1.0 < ratio <= 4.0 or not temperature > 0.0:
            raise LSEError(
                "canon: warps and segments must be at least 2, ratio above 1 and at most 4, temperature "
                f"above 0; got {warps}, {segments}, {ratio}, {temperature}"
            )
        self.channels, self.temperature = channels, temperature
        self.energy = Energy(channels, resolution, widths=widths)
        generator = torch.Generator().manual_seed(seed)
        templates = random_log_slopes(warps, segments, ratio, generator=generator)
        templates[0] = 0.0
        self.register_buffer("templates", templates)

    def forward(self, features: Tensor, *, channels_last: bool = False) -> Canonicalization:
        """The best warp for each of a batch of maps; ShapeError for a wrong rank or channels."""
        channels_first(features, self.channels, channels_last, "canon")
        x = self.energy.reduction(features, channels_last)
        b, k = x.shape[0], self.templates.shape[0]
        templates = self.templates.to(torch.promote_types(features.dtype, torch.float32))
        # every map with every warp: maps repeat in the outer order, warps in the inner one
        tried = x.repeat_interleave(k, dim=0), templates.repeat(b, 1, 1)
        energies = self.energy(*tried).view(b, k)
        mixture = ((-energies / self.temperature).softmax(-1) @ templates.flatten(1)).view(
            b, *templates.shape[1:]
        )
        best = templates[energies.argmin(-1)]
        return Canonicalization(SeparableWarp.from_log_slopes(best + (mixture - mixture.detach())))


class Optim(nn.Module):
    """Optimisation (Optim in the paper): gradient descent on the energy of Eq. 7 for every map.

    Takes a fixed number of steps and differentiates through them, so memory and time grow with the steps. The
    paper reports eight times the memory of a DEC.

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
