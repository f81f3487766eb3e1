"""An update that contracts by construction: no layer, and no pixel, can pass on more than a known gain.

The chain that is bounded is w -> canonical map -> network -> proposal, in root mean squares over pixels and
Euclidean norms over channels and segments:

- A log-slope of one axis moves a coordinate by p_k |b_k - u|, hence all of them by at most
  sqrt(p_max)/2, with p_max = r / (r + N - 1) the largest share a segment can have at ratio r; a coordinate
  moves the map by at most its steepest difference of neighbouring pixels, G, which is read off each map.
- A convolution of k taps with weights of spectral norm s has at most the norm sqrt(k) s; SiLU has 1.1;
  averages over rows have 1, and onto N segments of n pixels sqrt(n max_j sum_s A_sj).

So with the weights of every layer scaled down to norm 1, the proposal L net(x) / G' has the Lipschitz
constant L in w on the set that the rule maps into; the rule tells which L it bears (`allowed`). By Banach's
theorem there is then one fixed point, and naive iteration finds it from anywhere.

The price: what contracts by its gain alone also answers by at most c / (1 + c) < 1/2 of a warp of its input,
and the bound is far from tight, so less in practice.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lse_dec.canonicalizers.network import UpdateNetwork, segment_weights
from lse_dec.contraction import spectral_bound

__all__ = ["NonexpansiveNetwork", "proposal_gain"]

SILU = 1.1
"""Bound on the slope of SiLU (1.0998)."""


class NonexpansiveNetwork(UpdateNetwork):
    """The update network with every layer's gain held to 1 (before the averages onto segments).

    The factors that scale the weights down follow them in training and are buffers otherwise: whoever
    changes weights by hand in eval mode calls `eval()` again. Arguments as `UpdateNetwork`.
    """

    factors: Tensor

    def __init__(
        self, channels: int, segments: int, widths: tuple[int, ...] = (32, 64), hidden: int = 32
    ) -> None:
        super().__init__(channels, segments, widths, hidden)
        self.register_buffer("factors", torch.ones(len(self._layers())))
        self.train(self.training)

    def _layers(self) -> list[nn.Conv2d | nn.Conv1d]:
        convolutions = [layer for layer in self.convolutions if isinstance(layer, nn.Conv2d)]
        return [*convolutions, self.mix, self.head]

    def _measured(self) -> Tensor:
        """What each layer's weights are to be multiplied by, at most 1."""
        found = []
        for layer in self._layers():
            weight = layer.weight.float()
            gain = math.sqrt(weight[0, 0].numel()) * spectral_bound(weight.flatten(1))
            limit = 1.0 if layer is self.head else 1.0 / SILU
            found.append((limit / gain).clamp_max(1.0))
        return torch.stack(found)

    def train(self, mode: bool = True) -> NonexpansiveNetwork:
        """As `nn.Module.train`; measures the weights again."""
        super().train(mode)
        with torch.no_grad():
            self.factors.copy_(self._measured())
        return self

    def forward(self, x: Tensor, averages: tuple[Tensor, ...] | None = None) -> Tensor:
        """As `UpdateNetwork.forward`."""
        factors = self.factors
        if self.training:
            factors = self._measured()
            with torch.no_grad():
                self.factors.copy_(factors)
        layers = self._layers()
        weights = [
            layer.weight * factor.to(layer.weight.dtype)
            for layer, factor in zip(layers, factors.unbind(), strict=True)
        ]
        (onto,) = self.averages(x) if averages is None else averages
        for layer, weight in zip(layers[:-2], weights, strict=False):
            x = F.silu(F.conv2d(x, weight, layer.bias, padding=1))
        return self.proposal(x, onto, (weights[-2], weights[-1]))


def proposal_gain(x: Tensor, segments: int, ratio: float) -> Tensor:
    """G' of every reduced map (B, C, h, w): bound on the gain from log-slopes to proposals, (B, 1, 1).

    For a network whose gain is 1 but for the averages; never zero, also where the map is blank.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    # differences of neighbours, as slopes of the map in units of the square
    steepest = [
        (x.diff(dim=axis) * max(x.shape[axis] - 1, 1)).square().sum(1).flatten(1).amax(1)
        if x.shape[axis] > 1
        else torch.zeros_like(x[:, 0, 0, 0])
        for axis in (3, 2)
    ]
    largest = ratio / (ratio + segments - 1)
    onto = sum(n * segment_weights(n, segments, x).sum(0).amax() for n in x.shape[2:])
    gain = (0.25 * largest * onto * (steepest[0] + steepest[1]) + 1e-12).sqrt()
    return gain.view(-1, 1, 1)
