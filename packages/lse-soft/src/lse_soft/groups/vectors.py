"""Features made of vectors and scalars: rotations of space, and Lorentz transformations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lse_soft.generators import lorentz_generators, so3_generators
from lse_soft.groups.base import Grid, Group
from lse_soft.spectra import BlockSpectrum, Spectrum
from lse_soft.spectra.dense import equivariance_gram

__all__ = ["SO3", "Lorentz"]


class _Vectors(Group):
    """Linear maps between stacks of vectors and scalars, under one set of generators."""

    kinds: ClassVar[tuple[str, ...]] = ("vectors",)

    def generators(self) -> Sequence[Tensor]:
        """Of the action on one vector."""
        raise NotImplementedError

    def vectors(self, outputs: Grid, inputs: Grid) -> Spectrum | None:
        """Blocks vector to vector, vector to scalar, scalar to vector; scalar to scalar is exact."""
        own = list(self.generators())
        nothing = [torch.zeros(1, 1, dtype=torch.float64)] * len(own)
        actions = {"vector": own, "scalar": nothing}
        grams = {
            (o, i): equivariance_gram(actions[i], actions[o]) for o in ("vector", "scalar") for i in actions
        }
        size = own[0].shape[0]

        def blocks(features: Grid) -> list[tuple[str, int]]:
            return [("vector", size)] * features[0] + [("scalar", 1)] * features[1]

        return BlockSpectrum(blocks(outputs), blocks(inputs), grams)


@dataclass(frozen=True)
class SO3(_Vectors):
    """Rotations of space, on features that are vectors of three numbers, then scalars.

    Singular values: 0 for multiples of the identity, sqrt(2) for the antisymmetric part of a block and
    for what mixes vectors with scalars, sqrt(6) for the symmetric traceless part.
    """

    title: ClassVar[str] = "so3"

    @property
    def metric(self) -> str:
        """Radians."""
        return "radians, maximum over all rotations"

    @property
    def farthest(self) -> float:
        """Half a turn."""
        return math.pi

    def generators(self) -> Sequence[Tensor]:
        """J_x, J_y, J_z."""
        return so3_generators()


@dataclass(frozen=True)
class Lorentz(_Vectors):
    """Rotations and boosts, on features that are four-vectors (t, x, y, z), then scalars.

    Boosts stretch: the bound takes the factor of `lse_soft.generators.growth`.
    """

    title: ClassVar[str] = "lorentz"
    orthogonal: ClassVar[bool] = False

    @property
    def metric(self) -> str:
        """Radians and rapidity together."""
        return "root of radians^2 + rapidity^2, maximum, times the growth factor of the boost"

    def generators(self) -> Sequence[Tensor]:
        """Three rotations, three boosts."""
        return lorentz_generators()
