"""Local scaling: monotone warps along each axis, this project's own group."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lse_core.errors import unknown_name
from lse_core.random import DISTRIBUTIONS
from lse_core.separable import SeparableWarp
from lse_soft.errors import SoftError
from lse_soft.generators import central_derivative
from lse_soft.gram import gram_matrix, scaling_mixing_gram
from lse_soft.groups.base import Grid, Group
from lse_soft.sampled import (
    affine_difference,
    axis_matrices,
    path_length,
    random_maps,
    sampled_array_gram,
    sampled_functional_gram,
    sampled_mixing_gram,
    warp_matrices,
)
from lse_soft.spectra import DenseSpectrum, KroneckerSpectrum, Spectrum
from lse_soft.spectra.dense import functional_gram

__all__ = ["LocalScale"]

METHODS = ("sampled", "lie")


@dataclass(frozen=True)
class LocalScale(Group):
    """Monotone scaling as `lse_core.scale` does it, drawn as the test set draws it.

    A filter sees a warp that is affine across its window: dilations about its centre, and, where the stride
    exceeds 1, shifts within a stride. Convolutions of 1 x 1 are exactly equivariant. Token mixing is
    constrained along both axes, position embeddings by the Legendre operator.

    Strictly equivariant maps along an axis are only the identity and the two end values, and a functional of
    a whole image degenerates to its corners: the latter is refused.

    Args:
        ratio: slopes lie within [1/ratio, ratio], above 1.
        segments: segments an axis of the warps drawn.
        distribution: of the warps, see `lse_core.random`.
        samples: warps or dilations that stand for all, at least 2.
        seed: of what is drawn.
        method: "sampled", differences of real resampling; or "lie", generators: exact between functions,
            further from what happens on pixels. Position embeddings: "lie" is the Legendre operator.
        translations: whether strided filters are constrained by shifts too.
    """

    title: ClassVar[str] = "local_scale"
    kinds: ClassVar[tuple[str, ...]] = ("patch", "convolution", "mixing")
    orthogonal: ClassVar[bool] = False

    ratio: float = 2.0
    segments: int = 4
    distribution: str = "log_uniform"
    samples: int = 64
    seed: int = 0
    method: str = "sampled"
    translations: bool = True

    def __post_init__(self) -> None:
        if not 1 < self.ratio < math.inf:
            raise SoftError(f"ratio must be above 1; got {self.ratio}")
        if self.samples < 2 or self.segments < 1:
            raise SoftError("samples must be at least 2 and segments at least 1")
        if self.distribution not in DISTRIBUTIONS:
            raise unknown_name("distribution", self.distribution, DISTRIBUTIONS)
        if self.method not in METHODS:
            raise unknown_name("method", self.method, METHODS)

    @property
    def metric(self) -> str:
        """Path length of warps, logarithms of slopes for filters."""
        how = f"root mean square over warps with slopes up to {self.ratio:g}"
        if self.method == "lie":
            how = "maximum between functions, times the root of the largest slope"
        return f"path length of the warp (filters: log slope, shift in strides), {how}"

    def filter(self, size: Grid, stride: Grid) -> Spectrum | None:
        """Dilations about the centre, and shifts below a strided filter; None for 1 x 1."""
        if size == (1, 1):
            return None
        if self.method == "lie":
            return DenseSpectrum(functional_gram(self._filter_generators(size, stride)))
        return DenseSpectrum(sampled_functional_gram(self._dilations(size, stride)))

    def functional(self, grid: Grid) -> Spectrum | None:
        """Refused."""
        raise SoftError(
            "a functional of a whole image that is invariant "
            "under local scaling reads only its four corners; "
            "soften filters or token mixing instead"
        )

    def array(self, grid: Grid) -> Spectrum | None:
        """Warps of an embedding."""
        h, w = grid
        if self.method == "lie":
            return DenseSpectrum(
                torch.kron(gram_matrix(h), torch.eye(w, dtype=torch.float64))
                + torch.kron(torch.eye(h, dtype=torch.float64), gram_matrix(w))
            )
        generator = torch.Generator().manual_seed(self.seed)
        warps = SeparableWarp.random(
            self.samples,
            self.segments,
            self.ratio,
            distribution=self.distribution,
            generator=generator,
            dtype=torch.float64,
        )
        one = torch.eye(h * w, dtype=torch.float64)
        lengths = path_length(warps).tolist()
        pairs = zip(warp_matrices(warps, grid), lengths, strict=True)
        return DenseSpectrum(sampled_array_gram((s - one, d) for s, d in pairs))

    def mixing(self, outputs: Grid, inputs: Grid) -> Spectrum | None:
        """Warps of either axis alone, whose constraints add up to those of both.

        Raises:
            SoftError: grids of different size.
        """
        if outputs != inputs:
            raise SoftError(f"local scaling mixes tokens within one grid; got {inputs} and {outputs}")
        grams = {n: self._axis_gram(n) for n in set(inputs)}
        return KroneckerSpectrum(grams[inputs[0]], grams[inputs[1]], outputs, inputs)

    def _axis_gram(self, n: int) -> Tensor:
        if self.method == "lie":
            return scaling_mixing_gram(n)
        maps = random_maps(self.samples, self.ratio, self.segments, self.distribution, self.seed)
        one = torch.eye(n, dtype=torch.float64)
        pairs = zip(axis_matrices(maps, n), path_length(maps).tolist(), strict=True)
        return sampled_mixing_gram((s - one, d) for s, d in pairs)

    def _strided(self, stride: Grid) -> bool:
        return self.translations and stride != (1, 1)

    def _dilations(self, size: Grid, stride: Grid) -> Iterator[tuple[Tensor, float]]:
        generator = torch.Generator().manual_seed(self.seed)
        drawn = 2 * torch.rand(self.samples, 4, generator=generator, dtype=torch.float64) - 1
        # what shrinks to the window comes from as far as ratio times its half
        pad = math.ceil(0.5 * (self.ratio - 1) * max(size) + (0.5 * max(stride))) + 1
        across = torch.tensor([stride[1], stride[0]], dtype=torch.float64)
        for u in drawn:
            logs = math.log(self.ratio) * u[:2]
            shift = 0.5 * u[2:] if self._strided(stride) else torch.zeros(2, dtype=torch.float64)
            distance = math.hypot(float(logs.norm()), float(shift.norm()))
            yield affine_difference(size, pad, torch.diag(torch.exp(-logs)), -shift * across), distance

    def _filter_generators(self, size: Grid, stride: Grid) -> list[Tensor]:
        h, w = size
        u = torch.arange(w, dtype=torch.float64) - 0.5 * (w - 1)
        v = torch.arange(h, dtype=torch.float64) - 0.5 * (h - 1)
        one_h, one_w = torch.eye(h, dtype=torch.float64), torch.eye(w, dtype=torch.float64)
        d_x, d_y = central_derivative(w), central_derivative(h)
        made = [
            -torch.kron(one_h, u.unsqueeze(1) * d_x),
            -torch.kron(v.unsqueeze(1) * d_y, one_w),
        ]
        if self._strided(stride):
            made += [-stride[1] * torch.kron(one_h, d_x), -stride[0] * torch.kron(d_y, one_w)]
        return made
