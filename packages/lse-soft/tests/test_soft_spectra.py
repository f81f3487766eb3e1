"""Singular values and projections by every route against naive references in float64."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import schur

from lse_core.errors import LSEError, ShapeError
from lse_soft.generators import rotation_generator, translation_generators
from lse_soft.gram import gram_matrix, gram_polynomials, scaling_mixing_gram
from lse_soft.groups.cyclic import Cyclic
from lse_soft.spectra import (
    BlockSpectrum,
    ChebyshevSpectrum,
    DenseSpectrum,
    KroneckerSpectrum,
    NormalForm,
    NormalSpectrum,
)
from lse_soft.spectra.dense import array_gram, equivariance_gram, functional_gram
from lse_soft.thresholds import factors, softness_for


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def skew(n, seed=0):
    a = random(n, n, seed=seed)
    return a - a.T


def normal(n, seed=0):
    """A normal matrix that is neither skew nor symmetric: a polynomial of a skew one."""
    s = skew(n, seed) / n
    return s + 0.7 * s @ s + 0.2 * torch.eye(n, dtype=torch.float64)


def svd_projection(x, y, b):
    """The paper's route: right singular vectors of L on columns of W stacked."""
    n, m = x.shape[0], y.shape[0]
    # column-major vec(W X - Y W)
    L = np.kron(x.T.numpy(), np.eye(m)) - np.kron(np.eye(n), y.numpy())
    _, sigma, v = np.linalg.svd(L)
    kept = v[sigma < b]
    return lambda w: torch.from_numpy(
        (kept.T @ (kept @ w.numpy().flatten(order="F"))).reshape(m, n, order="F")
    ), np.sort(sigma)


def gap(sigma, share):
    """A softness in the widest gap near a share of the spectrum, so that rounding decides nothing."""
    k = round(share * len(sigma))
    near = sigma[k - 3 : k + 3]
    i = int(np.argmax(np.diff(near)))
    return float(near[i] + near[i + 1]) / 2


@pytest.mark.parametrize("kind", ["skew", "normal"])
def test_every_route_gives_one_projection(kind):
    make = skew if kind == "skew" else normal
    x, y, w = make(6, 1), make(5, 2), random(5, 6, seed=3)
    naive, sigma = svd_projection(x, y, 0)
    b = gap(sigma, 0.4)
    naive, _ = svd_projection(x, y, b)
    expected = naive(w)

    def hard(s):
        return factors(s, b, "hard")

    dense = DenseSpectrum(equivariance_gram([x], [y]))
    routes = {"eigh": dense.filter(hard)(w.reshape(1, -1)).reshape(5, 6)}
    forms = [("schur", NormalForm.schur)] + ([("skew", NormalForm.skew)] if kind == "skew" else [])
    for name, form in forms:
        spectrum = NormalSpectrum(form(x), form(y))
        routes[name] = spectrum.filter(hard)(w)
        torch.testing.assert_close(spectrum.values(), torch.from_numpy(sigma), rtol=0, atol=1e-7)
        residual = w @ x - y @ w
        assert abs(float(spectrum.energy(w)) - float(residual.square().sum())) < 1e-11
    for name, found in routes.items():
        assert float((found - expected).abs().max()) < 1e-12, name
    assert float((expected - w).abs().max()) > 1e-2  # the projection does something


def test_schur_forms_rebuild_the_generator():
    for a, form in ((skew(7), NormalForm.skew), (skew(7), NormalForm.schur), (normal(8), NormalForm.schur)):
        f = form(a)
        t = torch.diag(f.alpha)
        columns = torch.arange(len(f.beta))
        t[f.partner, columns] += f.beta * f.sign
        torch.testing.assert_close(f.basis @ t @ f.basis.T, a, rtol=0, atol=1e-12)
        torch.testing.assert_close(f.basis.T @ f.basis, torch.eye(len(a)).double(), rtol=0, atol=1e-12)


def test_antilinear_parts_are_not_kept():
    """Blocks whose |lambda| agree hide antilinear parts, which are as far from equivariant as can be."""
    x = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    y = 1.001 * x
    conjugation = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))
    spectrum = NormalSpectrum(NormalForm.skew(x), NormalForm.skew(y))
    torch.testing.assert_close(
        spectrum.values(),
        torch.tensor([0.001, 0.001, 2.001, 2.001], dtype=torch.float64),
        rtol=1e-6,
        atol=1e-9,
    )
    for threshold in ("hard", "cosine"):
        filtered = spectrum.filter(lambda s, t=threshold: factors(s, 0.1, t))
        assert float(filtered(conjugation).abs().max()) < 1e-12
        turn = math.cos(0.3) * torch.eye(2).double() + math.sin(0.3) * x  # a linear map stays
        kept = factors(torch.tensor(0.001, dtype=torch.float64), 0.1, threshold)
        torch.testing.assert_close(filtered(turn), kept * turn, rtol=0, atol=1e-12)
    # what the antilinear part would have cost: at t = pi / 2 an error of 2 on ||W|| = sqrt 2
    assert spectrum.error(conjugation, math.pi / 2) > 1.99 * 2**0.5 - 0.01


def test_real_schur_blocks_by_hand():
    """The two masks of each 2 x 2 block, against scipy's Schur form and explicit J B J."""
    x, y, w = normal(6, 4), normal(6, 5), random(6, 6, seed=6)
    (t_x, u_x), (t_y, u_y) = schur(x.numpy()), schur(y.numpy())

    def blocks(t):
        out, i = [], 0
        while i < len(t):
            size = 2 if i + 1 < len(t) and abs(t[i + 1, i]) > 1e-9 else 1
            out.append((i, size))
            i += size
        return out

    b, inner = 0.9, u_y.T @ w.numpy() @ u_x
    for r, height in blocks(t_y):
        for c, width in blocks(t_x):
            block = inner[r : r + height, c : c + width]
            d_alpha = t_y[r, r] - t_x[c, c]
            beta_y = t_y[r + 1, r] if height == 2 else 0.0
            beta_x = t_x[c + 1, c] if width == 2 else 0.0
            if height == width == 2:
                j = np.array([[0.0, -1.0], [1.0, 0.0]])
                turned = j @ block @ j
                linear, anti = (block - turned) / 2, (block + turned) / 2
                new = linear * (math.hypot(d_alpha, beta_x - beta_y) < b)
                new = new + anti * (math.hypot(d_alpha, beta_x + beta_y) < b)
            else:
                new = block * (math.hypot(d_alpha, beta_x, beta_y) < b)
            inner[r : r + height, c : c + width] = new
    expected = torch.from_numpy(u_y @ inner @ u_x.T)
    found = NormalSpectrum(NormalForm.schur(x), NormalForm.schur(y)).filter(lambda s: factors(s, b, "hard"))
    assert float((found(w) - expected).abs().max()) < 1e-12


def test_closed_form_of_the_error():
    x, y, w = skew(5, 1), skew(7, 2), random(7, 5, seed=3)
    spectrum = NormalSpectrum(NormalForm.skew(x), NormalForm.skew(y))
    for t in (0.01, 0.4, 2.0):
        direct = w @ torch.matrix_exp(t * x) - torch.matrix_exp(t * y) @ w
        assert abs(spectrum.error(w, t) - float(direct.norm())) < 1e-11
    with pytest.raises(LSEError, match="skew generators"):
        NormalSpectrum(NormalForm.schur(normal(3)), NormalForm.skew(skew(3))).error(random(3, 3), 1.0)


@pytest.mark.parametrize("n", [2, 5, 14, 64])
def test_gram_eigenvalues_are_exactly_degree_times_degree_plus_one(n):
    values = torch.linalg.eigvalsh(gram_matrix(n))
    k = torch.arange(n).double()
    assert float((values - k * (k + 1)).abs().max()) < 1e-12 * n * n
    vectors, sigma = gram_polynomials(n)
    torch.testing.assert_close(sigma, (k * (k + 1)).sqrt())
    # the vector of degree k is a polynomial of degree k of the position
    at = torch.linspace(-1, 1, n, dtype=torch.float64)
    for degree in range(min(n, 4)):
        powers = torch.stack([at**p for p in range(degree + 1)], 1)
        fit = powers @ torch.linalg.lstsq(powers, vectors[:, degree : degree + 1]).solution
        assert float((fit[:, 0] - vectors[:, degree]).abs().max()) < 1e-9


def test_kronecker_sum_is_the_full_matrix():
    """Two decompositions of 25 x 25 matrices against one of 625 x 625."""
    n = 5
    c = scaling_mixing_gram(n)
    spectrum = KroneckerSpectrum(c, c, (n, n), (n, n))
    one = torch.eye(n).double()
    # the naive constraints: fields act on one axis of a grid read row by row
    from lse_soft.gram import scaling_fields

    fields = scaling_fields(n)
    both = [torch.kron(one, f) for f in fields] + [torch.kron(f, one) for f in fields]
    full = equivariance_gram(both, both)
    sigma = torch.linalg.eigvalsh(full).clamp_min(0).sqrt()
    largest = float(sigma.max())
    assert float((spectrum.values() ** 2 - sigma**2).abs().max()) < 1e-12 * largest**2
    w = random(n * n, n * n)
    b = gap(sigma.numpy(), 0.3)

    def hard(s):
        return factors(s, b, "hard")

    expected = DenseSpectrum(full).filter(hard)(w.reshape(1, -1)).reshape(w.shape)
    assert float((spectrum.filter(hard)(w) - expected).abs().max()) < 1e-12 * 10
    naive = sum((w @ f - f @ w).square().sum() for f in both)
    assert abs(float(spectrum.energy(w) / naive) - 1) < 1e-12
    with pytest.raises(ShapeError, match="vertical Gram matrix must be 25 x 25"):
        KroneckerSpectrum(c[:5, :5], c, (n, n), (n, n))


def test_alternating_projections_are_not_the_joint_projector():
    x = rotation_generator((4, 4))
    t, _ = translation_generators((4, 4))
    joint = DenseSpectrum(functional_gram([x, t]))
    b = gap(joint.values().numpy(), 0.5)
    w = random(1, 16)
    projected = joint.filter(lambda s: factors(s, b, "hard"))(w)
    alone = w
    for generator in (x, t):
        alone = DenseSpectrum(functional_gram([generator])).filter(lambda s: factors(s, b, "hard"))(alone)
    assert joint.kappa(projected) < b
    assert float((projected - alone).norm() / w.norm()) > 0.01


def test_chebyshev_filter_against_the_dense_one():
    grid = (4, 4)
    generators = [rotation_generator(grid), *translation_generators(grid)]
    dense = DenseSpectrum(equivariance_gram(generators, generators))
    spectrum = ChebyshevSpectrum(generators, generators, degree=80)
    assert spectrum.top >= float(dense.values()[-1]) ** 2
    w = random(16, 16)
    b = float(dense.values()[128])

    def cosine(s):
        return factors(s, b, "cosine")

    expected = dense.filter(cosine)(w.reshape(1, -1)).reshape(16, 16)
    error = float((spectrum.filter(cosine)(w) - expected).norm() / w.norm())
    promised = spectrum.filter_error(cosine)
    assert error <= promised * (1 + 1e-6)
    assert promised < 0.01
    assert spectrum.filter_error(lambda s: factors(s, b, "hard")) > 0.3  # a jump does not converge
    assert not spectrum.exact
    assert abs(float(spectrum.energy(w)) / float(dense.energy(w.reshape(1, -1))) - 1) < 1e-12
    # quantiles of the spectrum, by moments
    for share in (0.25, 0.5, 0.75):
        found = softness_for(spectrum.values(), share)
        true = float(dense.values()[round(share * 256)])
        assert abs(found - true) < 0.1 * float(dense.values()[-1])


def test_blocks_against_the_whole():
    """Two vectors and a scalar to one vector and two scalars, against stacked generators."""
    from lse_soft.generators import so3_generators
    from lse_soft.groups import SO3

    def action(j, vectors, scalars):
        return torch.block_diag(*[j] * vectors, *[torch.zeros(1, 1).double()] * scalars)

    spectrum = SO3().vectors((1, 2), (2, 1))
    assert isinstance(spectrum, BlockSpectrum)
    xs, ys = ([action(j, *f) for j in so3_generators()] for f in ((2, 1), (1, 2)))
    full = DenseSpectrum(equivariance_gram(xs, ys))
    torch.testing.assert_close(spectrum.values(), full.values(), rtol=0, atol=1e-9)
    w = random(5, 7)
    for b in (0.0, 1.0, 2.0, 2.2):
        for threshold in ("hard", "cosine"):

            def shape(s, b=b, t=threshold):
                return factors(s, b, t)

            expected = full.filter(shape)(w.reshape(1, -1)).reshape(5, 7)
            torch.testing.assert_close(spectrum.filter(shape)(w), expected, rtol=0, atol=1e-12)
    assert abs(spectrum.kappa(w) - full.kappa(w.reshape(1, -1))) < 1e-12
    with pytest.raises(ShapeError, match="expected a weight of shape"):
        spectrum.energy(random(7, 5))


def test_functionals_and_arrays_are_different_sides():
    a = random(4, 4)
    w = random(4, seed=1)
    assert abs(float(DenseSpectrum(functional_gram([a])).energy(w)) - float((a.T @ w).square().sum())) < 1e-12
    assert abs(float(DenseSpectrum(array_gram([a])).energy(w)) - float((a @ w).square().sum())) < 1e-12


def test_filters_are_differentiable_and_gradients_are_filtered():
    for spectrum, shape in (
        (DenseSpectrum(array_gram([skew(4)])), (2, 4)),
        (NormalSpectrum(NormalForm.skew(skew(4)), NormalForm.skew(skew(3))), (3, 4)),
        (Cyclic().mixing((2, 2), (2, 2)), (4, 4)),
        (KroneckerSpectrum(*[scaling_mixing_gram(3)] * 2, (3, 3), (3, 3)), (9, 9)),
        (ChebyshevSpectrum([skew(4)], [skew(3)], degree=8), (3, 4)),
    ):
        filter_ = spectrum.filter(lambda s: factors(s, 1.5, "cosine"))
        assert torch.autograd.gradcheck(filter_, random(*shape).requires_grad_())
        assert not filter_.state_dict()


def test_bad_generators_are_refused():
    with pytest.raises(LSEError, match="not skew"):
        NormalForm.skew(random(3, 3))
    with pytest.raises(LSEError, match="not normal"):
        NormalForm.schur(random(3, 3))
    with pytest.raises(ShapeError, match="square"):
        DenseSpectrum(random(3, 2))
