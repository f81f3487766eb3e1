"""Groups: their samples against real resampling, and what they promise on elements never seen."""

import math

import pytest
import torch
from torch.nn import functional as F

from lse_core import hookimpl, registry
from lse_core.errors import LSEError, UnknownNameError
from lse_core.monotone import MonotoneMap
from lse_core.resample import scale
from lse_core.separable import SeparableWarp
from lse_soft.bounds import error_bound
from lse_soft.circular import circular_harmonics
from lse_soft.generators import (
    central_derivative,
    rotation_generator,
    so3_generators,
    spectral_derivative,
    translation_generators,
)
from lse_soft.groups import SO3, Cyclic, LocalScale, Lorentz, Rigid, Rotation, Translation, make_group
from lse_soft.groups.cyclic import quarter_turn
from lse_soft.sampled import (
    affine_difference,
    affine_matrix,
    angles,
    axis_matrices,
    random_maps,
    sampled_array_gram,
    sampled_functional_gram,
    sampled_mixing_gram,
    turn,
    warp_matrices,
)
from lse_soft.spectra import ChebyshevSpectrum
from lse_soft.thresholds import factors


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hard(b):
    return lambda s: factors(s, b, "hard")


def test_affine_matrices_against_grid_sample():
    image, t = draw(1, 1, 7, 9), 0.4
    c, s = math.cos(t), math.sin(t)
    # grid_sample wants the map in units of half the side, here between the outermost centres
    ratio = (7 - 1) / (9 - 1)
    theta = torch.tensor([[[c, -s * ratio, 0.2], [s / ratio, c, -0.1]]], dtype=torch.float64)
    grid = F.affine_grid(theta, [1, 1, 7, 9], align_corners=True)
    shift = torch.tensor([0.2 * 4, -0.1 * 3], dtype=torch.float64)
    for border, mode in ((False, "zeros"), (True, "border")):
        expected = F.grid_sample(image, grid, padding_mode=mode, align_corners=True)
        found = affine_matrix((7, 9), 0, turn(t), shift, border=border) @ image.reshape(-1)
        torch.testing.assert_close(found.view(7, 9), expected[0, 0], rtol=0, atol=1e-8)
    assert float(affine_difference((5, 5), 2, torch.eye(2)).abs().max()) == 0.0
    # rows read from the padded window sum to one: nothing of the signal is lost
    assert float((affine_matrix((5, 5), 2, turn(t), torch.zeros(2)).sum(1) - 1).abs().max()) < 1e-9


def test_warp_matrices_are_what_lse_core_does():
    warps = SeparableWarp.random(3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    image = draw(1, 1, 6, 5)
    for k, matrix in enumerate(warp_matrices(warps, (6, 5))):
        expected = scale(image, warps[k])
        torch.testing.assert_close(
            (matrix @ image.reshape(-1)).view(6, 5), expected[0, 0], rtol=0, atol=1e-12
        )


def test_generators_differentiate_the_action():
    n = 9
    x = torch.arange(n, dtype=torch.float64)
    wave = torch.sin(2 * math.pi * 2 * x / n)
    slope = 2 * math.pi * 2 / n * torch.cos(2 * math.pi * 2 * x / n)
    torch.testing.assert_close(spectral_derivative(n) @ wave, slope, rtol=0, atol=1e-12)
    even = spectral_derivative(8)
    torch.testing.assert_close(even, -even.T, rtol=0, atol=0)
    checkerboard = torch.tensor([1.0, -1.0] * 4, dtype=torch.float64)
    # both derivatives are blind to it: sigma = 0 there is spurious
    assert float((even @ checkerboard).abs().max()) < 1e-12
    assert float((central_derivative(8) @ checkerboard)[1:-1].abs().max()) == 0.0
    # e^{tA} against resampling, on a smooth blob, up to interpolation
    side, t = 16, 1.0
    at = torch.arange(side, dtype=torch.float64) - 7.5
    blob = torch.exp(-((at - 2).square().unsqueeze(0) + at.square().unsqueeze(1)) / 8).reshape(-1)
    a = rotation_generator((side, side))
    torch.testing.assert_close(a, -a.T, rtol=0, atol=1e-12)
    turned = affine_matrix((side, side), 0, turn(-t), torch.zeros(2)) @ blob
    generated = torch.matrix_exp(t * a) @ blob
    assert float((turned - generated).norm()) < 0.1 * float((turned - blob).norm())
    right, down = translation_generators((side, side))
    for generator, axis in ((right, 1), (down, 0)):
        moved = blob.view(side, side).roll(1, axis).reshape(-1)
        torch.testing.assert_close(torch.matrix_exp(generator) @ blob, moved, rtol=0, atol=2e-3)


def test_so3_generators_close():
    j_x, j_y, j_z = so3_generators()
    torch.testing.assert_close(j_x @ j_y - j_y @ j_x, j_z)
    values = SO3().vectors((1, 0), (1, 0)).values()
    expected = torch.tensor([0.0] + [2**0.5] * 3 + [6**0.5] * 5, dtype=torch.float64)
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-7)
    # only the Lorentz boosts stretch
    assert SO3().orthogonal
    assert not Lorentz().orthogonal


def test_cyclic_has_three_singular_values():
    values = Cyclic(4).functional((3, 3)).values()
    assert {round(float(v), 6) for v in values} <= {0.0, round(2**0.5, 6), 2.0}
    image = draw(3, 3)
    torch.testing.assert_close((quarter_turn(3) @ image.reshape(-1)).view(3, 3), torch.rot90(image))
    with pytest.raises(LSEError, match="square grids"):
        Cyclic().functional((3, 4))
    with pytest.raises(LSEError, match="order 4 and 2"):
        Cyclic(3)


def test_rotation_functionals_on_real_rotations():
    """Sampled constraints and harmonics know what resampling does to smooth signals; generators do not."""
    grid, pad = (14, 14), 4
    smooth = F.avg_pool2d(draw(40, 1, 26, 26), 5, 1).reshape(40, -1).T
    x = smooth / smooth.norm(dim=0)
    errors = {}
    for name, group in {
        "sampled": Rotation(),
        "harmonics": Rotation(method="harmonics"),
        "spectral": Rotation(method="lie"),
        "central": Rotation(method="lie", derivative="central"),
    }.items():
        w = group.filter(grid, (1, 1)).vectors[:, :5].T
        moved = [w @ affine_difference(grid, pad, turn(t)) @ x for t in (0.3, 1.1, 2.0, -2.7)]
        answer = w @ affine_matrix(grid, pad, torch.eye(2), torch.zeros(2)) @ x
        errors[name] = float(torch.stack(moved).norm() / 2 / answer.norm())
    assert errors["sampled"] < 0.1
    assert errors["harmonics"] < 0.15
    assert min(errors["spectral"], errors["central"]) > 0.2


def test_sampled_bounds_hold_as_root_mean_squares_on_elements_never_seen():
    group = Rotation(degrees=90, samples=64)
    spectrum = group.functional((8, 8))
    b = float(spectrum.values()[16])
    w = spectrum.filter(hard(b))(draw(1, 64))
    held_out = angles(math.radians(90), 51)  # midpoints that the group's own 64 angles do not have
    errors = [
        float((w @ affine_difference((8, 8), 0, turn(-t))).norm() / w.norm()) / abs(t) for t in held_out
    ]
    rms = math.sqrt(sum(e * e for e in errors) / len(errors))
    assert rms <= 1.05 * error_bound(spectrum.kappa(w), 1.0)
    assert max(errors) > error_bound(spectrum.kappa(w), 1.0)  # which is why it is no maximum


def test_token_mixing_under_held_out_warps():
    """Sampled constraints beat generators on the warps that really happen, and reach 0.13."""
    n, found = 14, {}
    warps = axis_matrices(random_maps(60, 2.0, 4, "log_uniform", 1), n)
    for method in ("sampled", "lie"):
        spectrum = LocalScale(method=method, samples=128)._axis_gram(n)
        vectors = torch.linalg.eigh(spectrum).eigenvectors[:, :20]
        errors = []
        for seed in range(4):
            w = (vectors @ draw(20, seed=seed)).reshape(n, n)
            errors.append(torch.linalg.matrix_norm(w @ warps - warps @ w, 2).mean() / w.norm())
        found[method] = float(torch.stack(errors).mean())
    assert found["sampled"] <= 0.13
    assert found["lie"] > 2 * found["sampled"]


def test_sampled_grams_are_means_of_squared_differences():
    samples = [(draw(4, 4, seed=k), 0.5 + k) for k in range(3)]
    w = draw(4, 4, seed=9)
    mixing = sum(float((w @ d - d @ w).norm()) ** 2 / t**2 for d, t in samples) / 3
    assert float(w.reshape(-1) @ sampled_mixing_gram(samples) @ w.reshape(-1)) == pytest.approx(mixing)
    v = w[0]
    functional = sum(float((v @ d).norm()) ** 2 / t**2 for d, t in samples) / 3
    assert float(v @ sampled_functional_gram(samples) @ v) == pytest.approx(functional)
    array = sum(float((d @ v).norm()) ** 2 / t**2 for d, t in samples) / 3
    assert float(v @ sampled_array_gram(samples) @ v) == pytest.approx(array)
    for gram in (sampled_mixing_gram, sampled_functional_gram, sampled_array_gram):
        with pytest.raises(LSEError, match="identity"):
            gram([(draw(2, 2), 0.0)])
        with pytest.raises(LSEError, match="at least one sample"):
            gram([])


def test_local_scale_on_filters():
    group = LocalScale(ratio=2.0)
    assert group.filter((1, 1), (1, 1)) is None
    for method in ("sampled", "lie"):
        plain = LocalScale(method=method).filter((5, 5), (1, 1))
        strided = LocalScale(method=method).filter((5, 5), (2, 2))
        fixed = LocalScale(method=method, translations=False).filter((5, 5), (2, 2))
        # a delta at the centre only scales; it shifts too where the stride lets it
        delta = torch.zeros(25, dtype=torch.float64)
        delta[12] = 1.0
        assert plain.kappa(delta) < 1e-6
        assert strided.kappa(delta) > 0.1
        assert fixed.kappa(delta) < 1e-6
    with pytest.raises(LSEError, match="four corners"):
        group.functional((8, 8))
    with pytest.raises(LSEError, match="ratio must be above 1"):
        LocalScale(ratio=1.0)
    # constants are invariant arrays, ramps are not
    for method in ("sampled", "lie"):
        spectrum = LocalScale(method=method).array((6, 5))
        assert spectrum.kappa(torch.ones(30)) < 1e-7
        assert spectrum.kappa(torch.arange(30.0) - 14.5) > 0.3


def test_local_scale_on_filters_says_what_warps_do_to_them():
    """Against `lse_core`'s own warps that are affine across the filter: kappa is the root mean square."""
    side, size, half = 25, 5, 0.2
    spectrum = LocalScale(ratio=2.0, samples=256).filter((size, size), (1, 1))
    w = spectrum.filter(hard(float(spectrum.values()[15])))(draw(2, 25, seed=4))
    big = torch.zeros(2, side, side, dtype=torch.float64)
    big[:, 10:15, 10:15] = w.view(2, size, size)
    logs = math.log(2) * (2 * torch.rand(80, 2, generator=torch.Generator().manual_seed(5)).double() - 1)
    knots = torch.tensor([0, 0.5 - half, 0.5 + half, 1], dtype=torch.float64).expand(80, 4)
    axes = []
    for k in (0, 1):
        reach = half * torch.exp(-logs[:, k : k + 1])
        ends = torch.zeros(80, 1, dtype=torch.float64)
        axes.append(MonotoneMap(knots, torch.cat([ends, 0.5 - reach, 0.5 + reach, ends + 1], 1)))
    warps = ~SeparableWarp(*axes)  # scale(x, ~l) reads x(l(p)), and the slope of l at the centre is exp(-log)
    one, errors = torch.eye(side**2, dtype=torch.float64), []
    for matrix, log in zip(warp_matrices(warps, (side, side)), logs, strict=True):
        errors.append(float((big.flatten(1) @ (matrix - one)).norm() / w.norm()) / float(log.norm()))
    rms = math.sqrt(sum(e * e for e in errors) / len(errors))
    assert rms == pytest.approx(spectrum.kappa(w), rel=0.1)


def test_translation_leaves_stride_one_alone_and_blurs_the_rest():
    group = Translation(pixels=1.0)
    assert group.filter((3, 3), (1, 1)) is None
    spectrum = group.filter((5, 5), (2, 2))
    smooth = torch.outer(*[torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]).double()] * 2).reshape(-1)
    rough = torch.tensor([(-1.0) ** k for k in range(25)], dtype=torch.float64)
    assert spectrum.kappa(smooth) < 0.5 * spectrum.kappa(rough)
    # convolutions on a torus are what commutes with periodic shifts
    mixing = group.mixing((4, 4), (4, 4))
    kernel = draw(4, 4)
    circulant = torch.stack([kernel.roll((i // 4, i % 4), (0, 1)).reshape(-1) for i in range(16)])
    # even sides have one wave that no real derivative sees, so some maps beyond convolutions pass too
    odd = Translation().mixing((3, 3), (3, 3))
    small = torch.stack([kernel[:3, :3].roll((i // 3, i % 3), (0, 1)).reshape(-1) for i in range(9)])
    assert odd.kappa(small) < 1e-7
    assert int((odd.values() == 0).sum()) == 9
    assert mixing.kappa(circulant) < 2.0
    assert odd.kappa(draw(9, 9)) > 0.5


def test_rigid_goes_through_the_polynomial():
    spectrum = Rigid().mixing((4, 4), (4, 4))
    assert isinstance(spectrum, ChebyshevSpectrum)
    w = draw(16, 16)
    b = 2.0
    assert spectrum.kappa(spectrum.filter(lambda s: factors(s, b, "cosine"))(w)) < min(b, spectrum.kappa(w))
    assert Rigid().filter((3, 3), (1, 1)).values()[0] < Rigid().filter((3, 3), (1, 1)).values()[-1]
    assert Rigid().array((4, 4)).kappa(torch.ones(16)) < 1e-7


def test_circular_harmonics_are_an_orthonormal_basis():
    vectors, sigma = circular_harmonics((6, 6))
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(36).double(), rtol=0, atol=1e-10)
    assert bool((sigma.diff() >= 0).all())
    assert float(sigma[0]) == 0.0
    # a quarter turn maps harmonics of order 0 onto themselves
    flat = vectors[:, sigma == 0]
    assert float((quarter_turn(6) @ flat - flat).abs().max()) < 1e-9


def test_rotation_mixing_commutes_with_its_generator():
    group = Rotation()
    spectrum = group.mixing((4, 4), (5, 5))
    w = spectrum.filter(hard(0.8))(draw(16, 25))
    x, y = rotation_generator((5, 5)), rotation_generator((4, 4))
    for t in (0.2, 1.0):
        error = w @ torch.matrix_exp(t * x) - torch.matrix_exp(t * y) @ w
        assert float(torch.linalg.matrix_norm(error, 2)) <= 0.8 * t * float(w.norm())


def test_groups_by_name_and_from_plugins():
    made = make_group("rotation", {"degrees": 30})
    assert made == Rotation(degrees=30)
    assert make_group(made) is made
    assert made.settings()["degrees"] == 30
    assert set(registry().names("group")) >= {
        *("cyclic", "local_scale", "lorentz", "rigid", "rotation", "so3", "translation"),
    }
    with pytest.raises(UnknownNameError, match="rotation"):
        make_group("rotations")
    with pytest.raises(UnknownNameError, match="degrees"):
        make_group("rotation", {"degree": 30})
    with pytest.raises(LSEError, match="made already"):
        make_group(made, {"degrees": 20})

    class Half(Cyclic):
        title = "half"

    class Plugin:
        @hookimpl
        def lse_groups(self):
            return {"half": Half}

    registry().register(Plugin(), "mine")
    try:
        assert make_group("half", {"order": 2}) == Half(order=2)
    finally:
        registry().unregister("mine")


@pytest.mark.parametrize(
    ("kind", "settings", "text"),
    [
        (Rotation, {"degrees": 0}, "degrees"),
        (Rotation, {"samples": 1}, "samples"),
        (Rotation, {"method": "exact"}, "method"),
        (Rigid, {"pixels": 0.0}, "pixels"),
        (Rigid, {"degrees": 200}, "degrees"),
        (Translation, {"pixels": -1.0}, "pixels"),
        (LocalScale, {"distribution": "normal"}, "distribution"),
        (LocalScale, {"samples": 1}, "samples"),
    ],
)
def test_settings_out_of_range_are_named(kind, settings, text):
    with pytest.raises(LSEError, match=text):
        kind(**settings)


def test_what_a_group_does_not_act_on_is_said():
    with pytest.raises(LSEError, match="'so3' does not act on filters; it acts on: vectors"):
        SO3().filter((3, 3), (1, 1))
    with pytest.raises(LSEError, match="'rotation' does not act on vector features"):
        Rotation().vectors((1, 0), (1, 0))
    with pytest.raises(LSEError, match="within one grid"):
        LocalScale().mixing((3, 3), (4, 4))
