"""Normal generators: singular values and projections from Schur forms, without any Kronecker product.

For normal X = U_X T_X U_X^T and Y = U_Y T_Y U_Y^T (real Schur forms; the blocks of T are numbers, or
2 x 2 blocks alpha I + beta J with J = [[0, -1], [1, 0]]) write W' = U_Y^T W U_X. Where both blocks are
2 x 2, B - J B J and B + J B J (halved) commute and anticommute with J. The first part has the singular
value hypot(d alpha, beta_x - beta_y), the second one hypot(d alpha, beta_x + beta_y): a mask that treats
whole blocks alike, by the difference of |lambda|, keeps antilinear parts that are far from equivariant.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lse_core.errors import ShapeError
from lse_soft.errors import SoftError
from lse_soft.spectra.base import Filter, Shape, Spectrum, cleaned

__all__ = ["NormalForm", "NormalSpectrum"]

NORMAL = 1e-9  # of the squared norm: how far A A^T and A^T A may be apart


@dataclass(frozen=True, eq=False)
class NormalForm:
    """A normal matrix A (n, n) = basis T basis^T with T of 1 x 1 and 2 x 2 blocks.

    Attributes:
        basis: (n, n) orthogonal, float64.
        alpha: (n,) real part of the eigenvalue that each basis vector belongs to.
        beta: (n,) its imaginary part, at least 0; 0 exactly for 1 x 1 blocks.
        partner: (n,) int64, the other vector of a 2 x 2 block; itself for 1 x 1 blocks.
        sign: (n,) A maps the plane as alpha I + beta J; J takes a vector to sign * its partner. 0 for
            1 x 1 blocks.
    """

    basis: Tensor
    alpha: Tensor
    beta: Tensor
    partner: Tensor
    sign: Tensor

    @classmethod
    def skew(cls, a: Tensor) -> NormalForm:
        """From a skew matrix, by the Hermitian eigenvalue problem of iA.

        Raises:
            SoftError: A is not skew.
        """
        a = _square(a)
        if float((a + a.T).abs().max()) > NORMAL * max(float(a.abs().max()), 1e-300):
            raise SoftError("the generator is not skew-symmetric; use NormalForm.schur or a DenseSpectrum")
        values, vectors = torch.linalg.eigh(1j * a)
        top = float(values.abs().max())
        up = values > 1e-10 * top
        beta, v = values[up], vectors[:, up]
        # A v = -i beta v, so with v = (p + i q) / sqrt 2: A p = beta q and A q = -beta p
        pairs = torch.stack([v.real, v.imag], dim=2).reshape(a.shape[0], -1) * 2**0.5
        rest = torch.eye(a.shape[0], dtype=torch.float64) - pairs @ pairs.T
        kernel = torch.linalg.eigh(rest).eigenvectors[:, pairs.shape[1] :]
        return cls._of_planes(torch.cat([pairs, kernel], 1), torch.zeros(a.shape[0]).double(), beta)

    @classmethod
    def schur(cls, a: Tensor) -> NormalForm:
        """From any normal matrix, by its real Schur form.

        Raises:
            SoftError: A A^T and A^T A differ.
        """
        from scipy.linalg import schur  # torch and numpy have none

        a = _square(a)
        if float((a @ a.T - a.T @ a).norm()) > NORMAL * max(float(a.norm()) ** 2, 1e-300):
            raise SoftError("the generator is not normal (A A^T differs from A^T A); use a DenseSpectrum")
        t_np, u_np = schur(a.numpy(), output="real")
        t, u = torch.from_numpy(np.ascontiguousarray(t_np)), torch.from_numpy(np.ascontiguousarray(u_np))
        small = 1e-10 * max(float(t.abs().max()), 1e-300)
        planes: list[int] = []
        i = 0
        while i < a.shape[0] - 1:
            if abs(float(t[i + 1, i])) > small:
                planes.append(i)
                i += 1
            i += 1
        first = torch.tensor(planes, dtype=torch.long)
        taken = {*planes, *(p + 1 for p in planes)}
        single = torch.tensor([i for i in range(a.shape[0]) if i not in taken], dtype=torch.long)
        beta = t[first + 1, first]
        second = first + 1
        # beta >= 0 by the order of the two vectors
        lead, follow = torch.where(beta >= 0, first, second), torch.where(beta >= 0, second, first)
        order = torch.cat([torch.stack([lead, follow], 1).reshape(-1), single])
        mean = 0.5 * (t[first, first] + t[second, second])
        alpha = torch.cat([mean.repeat_interleave(2), t[single, single]])
        return cls._of_planes(u[:, order], alpha, beta.abs())

    @classmethod
    def _of_planes(cls, basis: Tensor, alpha: Tensor, beta: Tensor) -> NormalForm:
        """Planes first, each by two vectors (p, q) with A p = alpha p + beta q; then the 1 x 1 blocks."""
        n, planes = basis.shape[0], beta.shape[0]
        partner = torch.arange(n)
        partner[: 2 * planes] = partner[: 2 * planes].view(-1, 2).flip(1).reshape(-1)
        sign, every = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
        sign[: 2 * planes] = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(planes)
        every[: 2 * planes] = beta.repeat_interleave(2)
        return cls(basis, alpha, every, partner, sign)


class _NormalFilter(Filter):
    """U_Y (F * W' + G * J W' J) U_X^T."""

    def __init__(self, x: NormalForm, y: NormalForm, linear: Tensor, antilinear: Tensor) -> None:
        super().__init__()
        self.constant("u_x", x.basis)
        self.constant("u_y", y.basis)
        self.constant("same", 0.5 * (linear + antilinear))
        self.constant("turned", 0.5 * (antilinear - linear) * _turn(x, y))
        self.constant("columns", x.partner)
        self.constant("rows", y.partner)
        self.u_x: Tensor
        self.u_y: Tensor
        self.same: Tensor
        self.turned: Tensor
        self.columns: Tensor
        self.rows: Tensor

    def forward(self, weight: Tensor) -> Tensor:
        """(m, n) to (m, n)."""
        u_x, u_y = self.u_x.to(weight.dtype), self.u_y.to(weight.dtype)
        w = u_y.T @ weight @ u_x
        turned = w[self.rows][:, self.columns]
        w = self.same.to(weight.dtype) * w + self.turned.to(weight.dtype) * turned
        return u_y @ w @ u_x.T


class NormalSpectrum(Spectrum):
    """Equivariant maps W (m, n) between two actions of one normal generator each.

    Args:
        inputs: the form of X (n, n).
        outputs: the form of Y (m, m).
    """

    def __init__(self, inputs: NormalForm, outputs: NormalForm) -> None:
        self.x, self.y = inputs, outputs
        gap = outputs.alpha.unsqueeze(1) - inputs.alpha
        linear = torch.hypot(gap, outputs.beta.unsqueeze(1) - inputs.beta)
        antilinear = torch.hypot(gap, outputs.beta.unsqueeze(1) + inputs.beta)
        both = cleaned(torch.stack([linear, antilinear]))
        self._linear, self._antilinear = both[0], both[1]

    def values(self) -> Tensor:
        """All m n singular values."""
        # in each 2 x 2 block two of the four directions are linear; elsewhere both values agree
        y, x = torch.arange(len(self.y.alpha)), torch.arange(len(self.x.alpha))
        odd = ((y.unsqueeze(1) > self.y.partner.unsqueeze(1)) & (self.x.partner != x)).bool()
        return torch.where(odd, self._antilinear, self._linear).reshape(-1).sort().values

    def filter(self, shape: Shape) -> Filter:
        """Products with the two bases and two elementwise ones."""
        return _NormalFilter(self.x, self.y, shape(self._linear), shape(self._antilinear))

    def energy(self, weight: Tensor) -> Tensor:
        """||W X - Y W||_F^2."""
        linear, antilinear = self._parts(weight)
        return (self._linear * linear).square().sum() + (self._antilinear * antilinear).square().sum()

    def error(self, weight: Tensor, t: float) -> float:
        """||W e^{tX} - e^{tY} W||_F in closed form, for skew generators.

        The root of sum |W'_ij|^2 4 sin^2(t sigma_ij / 2), linear and antilinear parts each with its own
        sigma.

        Raises:
            SoftError: a generator has a symmetric part.
        """
        if float(self.x.alpha.abs().max()) > 0 or float(self.y.alpha.abs().max()) > 0:
            raise SoftError("the closed form of the error is for skew generators")
        linear, antilinear = self._parts(weight.double())
        slow, fast = (2 * torch.sin(0.5 * t * s) for s in (self._linear, self._antilinear))
        return float(((linear * slow).square().sum() + (antilinear * fast).square().sum()).sqrt())

    def _parts(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """W' in Schur coordinates, as linear and antilinear part; all linear outside 2 x 2 blocks."""
        w = self.y.basis.T @ weight @ self.x.basis
        turn = _turn(self.x, self.y)
        turned = turn * w[self.y.partner][:, self.x.partner]
        antilinear = torch.where(turn == 0, torch.zeros_like(w), 0.5 * (w + turned))
        return w - antilinear, antilinear


def _turn(x: NormalForm, y: NormalForm) -> Tensor:
    """T with (J W' J)_ij = T_ij W'[partner i, partner j]; 0 outside blocks of 2 x 2."""
    # J e_i = s_i e_partner(i), so J has the entry s_j at (partner j, j):
    # (J W J)_ij = J[i, p_i] W[p_i, p_j] J[p_j, j] = s_{p_i} s_j W[p_i, p_j], and s_{p_i} = -s_i
    return -y.sign.unsqueeze(1) * x.sign


def _square(a: Tensor) -> Tensor:
    if a.ndim != 2 or a.shape[0] != a.shape[1]:
        raise ShapeError(f"a generator is a square matrix; got {tuple(a.shape)}")
    return a.detach().double().cpu()
