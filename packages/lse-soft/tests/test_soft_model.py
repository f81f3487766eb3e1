"""soften, unsoften, fold, folded and bound on small models of every kind."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lse_soft
from lse_core.errors import LSEError, ShapeError, UnknownNameError
from lse_soft.groups import Rotation
from lse_soft.places import KINDS, find_places
from lse_soft.spectra import DenseSpectrum


class Patches(nn.Module):
    """A small vision transformer's front end: patch embedding, positions, token mixing."""

    def __init__(self):
        super().__init__()
        self.grid_size = (4, 4)
        self.proj = nn.Conv2d(3, 6, 4, 4)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = Patches()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 6))
        self.pos_embed = nn.Parameter(torch.randn(1, 17, 6))
        self.scale = nn.Parameter(torch.ones(6))
        self.linear_tokens = nn.Linear(16, 16)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        t = self.patch_embed.proj(x).flatten(2).mT
        t = torch.cat([self.cls_token.expand(len(x), -1, -1), t], 1) + self.pos_embed
        mixed = self.linear_tokens(t[:, 1:].mT).mT
        return self.head((self.scale * mixed).mean(1) + t[:, 0])


def convolutional():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 2, 5, 2))


@pytest.fixture
def small():
    torch.manual_seed(0)
    return Small()


IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_places_of_every_kind_are_found(small):
    found = {place.name: place for place in find_places(small, KINDS)}
    assert {name: place.kind for name, place in found.items()} == {
        "pos_embed": "position",
        "patch_embed.proj": "patch",
        "linear_tokens": "mixing",
    }
    assert found["pos_embed"].prefix == 1
    assert found["pos_embed"].grid == (4, 4)
    kinds = [(place.name, place.kind) for place in find_places(convolutional(), KINDS)]
    assert kinds == [("0", "convolution"), ("3", "convolution")]  # 1 x 1 is exact


@pytest.mark.parametrize("group", ["rotation", "translation", "local_scale", "cyclic", "rigid"])
@pytest.mark.parametrize("threshold", ["hard", "cosine"])
def test_soften_then_unsoften_is_bit_equal_and_fold_is_the_same(small, group, threshold):
    plain = copy.deepcopy(small)
    settings = {"degree": 30} if group == "rigid" else {}
    names = list(small.state_dict())
    parameters = {id(p) for p in small.parameters()}
    with torch.no_grad():
        before = small(IMAGES)
    soft = lse_soft.soften(small, group, keep=0.4, threshold=threshold, **settings)
    assert soft is small
    assert sum(p.numel() for p in soft.parameters()) == sum(p.numel() for p in plain.parameters())
    assert {id(p) for p in soft.parameters()} == parameters
    with torch.no_grad():
        softened = soft(IMAGES)
        assert float((softened - before).abs().max()) > 1e-3
        with lse_soft.folded(soft) as inside:
            assert list(inside.state_dict()) == names
            assert type(inside) is Small
            assert torch.equal(inside(IMAGES), softened)
        assert torch.equal(soft(IMAGES), softened)
        again = lse_soft.fold(copy.deepcopy(soft))
        assert list(again.state_dict()) == names
        assert type(again.patch_embed.proj) is nn.Conv2d
        assert torch.equal(again(IMAGES), softened)
    lse_soft.unsoften(soft)
    assert list(soft.state_dict()) == names
    for name, value in plain.state_dict().items():
        assert torch.equal(soft.state_dict()[name], value), name
    assert {id(p) for p in soft.parameters()} == parameters
    with torch.no_grad():
        assert torch.equal(soft(IMAGES), before)


@pytest.mark.parametrize("group", ["rotation", "translation", "local_scale", "cyclic"])
@pytest.mark.parametrize("preserve_dc", [True, False])
def test_certificates_keep_kappa_below_b(small, group, preserve_dc):
    lse_soft.soften(small.double(), group, 1.0, preserve_dc=preserve_dc)
    found = lse_soft.bound(small)
    assert set(found) == set(lse_soft.softeners(small))
    for certificate in found.values():
        assert certificate.guaranteed
        assert certificate.b == 1.0
        assert 0 <= certificate.kappa <= 1.0 + 1e-9
        assert certificate.error(0.5) == pytest.approx(0.5 * certificate.kappa)


def test_the_knob_goes_from_equivariant_to_free():
    torch.manual_seed(0)
    model = convolutional().double()
    free = lse_soft.bound(model, "rotation")
    assert all(c.b is None and not c.guaranteed for c in free.values())
    kappas = []
    for keep in (0.0, 0.3, 0.6, 0.9, 1.0):
        copied = lse_soft.soften(copy.deepcopy(model), "rotation", keep=keep, preserve_dc=False)
        kappas.append([c.kappa for c in lse_soft.bound(copied).values()])
    for earlier, later in itertools.pairwise(kappas):
        assert all(a <= b + 1e-12 for a, b in zip(earlier, later, strict=True))
    assert kappas[-1] == pytest.approx([c.kappa for c in free.values()])
    softened = lse_soft.soften(model, "rotation", math.inf)
    for softener in lse_soft.softeners(softened).values():
        weight = torch.randn(2, 9 if softener.place.grid == (3, 3) else 25, dtype=torch.float64)
        torch.testing.assert_close(softener.filter(weight), weight, rtol=0, atol=1e-12)


def test_a_softened_convolution_errs_less_on_rotated_signals_than_its_bound():
    """End to end: the layer on a signal and on the rotated signal, read at the centre."""
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 11, bias=False).double()
    plain = layer.weight.detach().clone()
    lse_soft.soften(
        nn.Sequential(layer), Rotation(degrees=60), keep=5 / 121, threshold="hard", preserve_dc=False
    )
    with torch.no_grad():
        weight, ratios, shares = layer.weight, [], {"soft": [], "plain": []}
        for seed in range(20):
            generator = torch.Generator().manual_seed(seed)
            x = F.avg_pool2d(torch.randn(1, 2, 23, 23, generator=generator, dtype=torch.float64), 5, 1)
            t = torch.rand((), generator=generator, dtype=torch.float64) * 2 - 1
            c, s = torch.cos(t), torch.sin(t)
            theta = torch.stack([torch.stack([c, -s, 0 * c]), torch.stack([s, c, 0 * c])]).unsqueeze(0)
            turned = F.grid_sample(x, F.affine_grid(theta, x.shape, align_corners=True), align_corners=True)
            answers = {name: F.conv2d(x, w)[0, :, 4, 4] for name, w in (("soft", weight), ("plain", plain))}
            moved = {
                name: F.conv2d(turned, w)[0, :, 4, 4] for name, w in (("soft", weight), ("plain", plain))
            }
            for name, kept in shares.items():
                kept.append(float((moved[name] - answers[name]).norm() / answers[name].norm()))
            size = weight.norm() * x[0, :, 4:15, 4:15].norm() * t.abs()
            ratios.append(float((moved["soft"] - answers["soft"]).norm() / size))
    kappa = lse_soft.softeners(nn.Sequential(layer))["0"].spectrum.kappa(weight.reshape(-1, 121))
    rms = math.sqrt(sum(r * r for r in ratios) / len(ratios))
    assert rms <= kappa
    soft, free = (sorted(shares[name])[10] for name in ("soft", "plain"))  # medians
    assert soft < 0.5 * free


def test_constant_signals_are_answered_as_before():
    torch.manual_seed(0)
    model = convolutional()
    sums = [m.weight.sum((-1, -2)).clone() for m in (model[0], model[3])]
    lse_soft.soften(model, "rotation", keep=0.3)
    for module, expected in zip((model[0], model[3]), sums, strict=True):
        torch.testing.assert_close(module.weight.sum((-1, -2)), expected, rtol=1e-4, atol=1e-5)
    lse_soft.unsoften(model)
    lse_soft.soften(model, "rotation", keep=0.3, preserve_dc=False)
    assert float((model[0].weight.sum((-1, -2)) - sums[0]).detach().abs().max()) > 1e-3


def test_prefix_tokens_stay_and_constants_of_embeddings_too(small):
    original = small.pos_embed.detach().clone()
    lse_soft.soften(small, "rotation", 0.0, places=["pos_embed"])
    softened = small.pos_embed.detach()
    assert torch.equal(softened[:, 0], original[:, 0])
    assert softened.shape == original.shape
    lse_soft.unsoften(small)
    with torch.no_grad():
        small.pos_embed[:, 1:] = 3.0
    lse_soft.soften(small, "rotation", 0.1, places=["pos_embed"])
    torch.testing.assert_close(
        small.pos_embed[:, 1:].detach(), torch.full((1, 16, 6), 3.0), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("shape", [(1, 4, 4, 6), (1, 6, 4, 4)])
def test_maps_of_positions_in_both_layouts(shape):
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.pos_embed = nn.Parameter(torch.zeros(shape))

    model = Positions()
    ramp = torch.arange(4.0)
    with torch.no_grad():
        model.pos_embed += ramp.view(1, 4, 1, 1) if shape[3] == 6 else ramp.view(1, 1, 4, 1)
    original = model.pos_embed.detach().clone()
    lse_soft.soften(model, "cyclic", 0.5)
    found = model.pos_embed.detach()
    assert found.shape == original.shape
    # what quarter turns leave of a ramp is its mean
    torch.testing.assert_close(found, torch.full(shape, 1.5), rtol=0, atol=1e-5)


def test_gradients_pass_through_the_projection(small):
    lse_soft.soften(small, "rotation", 0.5, places=["patch_embed.proj"], preserve_dc=False, threshold="hard")
    small(IMAGES).square().sum().backward()
    (parameter,) = [
        p for n, p in small.named_parameters() if n.startswith("patch_embed") and n.endswith("original")
    ]
    gradient = parameter.grad.reshape(-1, 16)
    softener = lse_soft.softeners(small)["patch_embed.proj"]
    torch.testing.assert_close(softener.filter(gradient), gradient, rtol=0, atol=1e-4)
    assert float(gradient.norm()) > 0
    # a step of an optimiser on the same parameters keeps the bound
    torch.optim.SGD(small.parameters(), 0.1).step()
    assert lse_soft.bound(small)["patch_embed.proj"].kappa <= 0.5 + 1e-5


def test_linear_layers_by_description():
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * 64, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    lse_soft.soften(model, "rotation", keep=0.2, places={"1": "image:8x8"}, threshold="hard")
    (certificate,) = lse_soft.bound(model).values()
    assert certificate.kind == "image"
    spectrum = lse_soft.softeners(model)["1"].spectrum
    assert isinstance(spectrum, DenseSpectrum)
    assert certificate.kappa < certificate.b
    lse_soft.fold(model)
    assert lse_soft.bound(model, "rotation", places={"1": "image:8x8"})["1"].kappa == pytest.approx(
        certificate.kappa
    )


def test_vector_features_with_their_bias():
    torch.manual_seed(0)
    layer = nn.Linear(2 * 3 + 1, 3 + 2).double()
    model = nn.Sequential(layer)
    lse_soft.soften(model, "so3", 0.5, places={"0": "vectors:2+1:1+2"})
    assert set(lse_soft.bound(model)) == {"0", "0.bias"}
    with torch.no_grad():
        assert float(layer.bias[:3].abs().max()) < 1e-12  # no direction is preferred
        assert float(layer.bias[3:].abs().min()) > 0
        turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
        turn = turn * torch.linalg.det(turn)
        x = torch.randn(4, 7, dtype=torch.float64)
        x_turned = torch.cat([x[:, :3] @ turn.T, x[:, 3:6] @ turn.T, x[:, 6:]], 1)
        y = layer(x)
        expected = torch.cat([y[:, :3] @ turn.T, y[:, 3:]], 1)
        torch.testing.assert_close(layer(x_turned), expected, rtol=0, atol=1e-12)


def test_exponential_says_that_it_guarantees_nothing(small):
    lse_soft.soften(small, "rotation", 0.5, threshold="exponential", places=["patch"])
    (certificate,) = lse_soft.bound(small).values()
    assert not certificate.guaranteed


def test_two_precisions_and_deep_copies(small):
    lse_soft.soften(small, "rotation", 0.5)
    copied = copy.deepcopy(small).half().float()
    with torch.no_grad():
        assert float((copied(IMAGES) - small(IMAGES)).abs().max()) < 0.05


def test_autocast_does_not_round_the_projection(small):
    lse_soft.soften(small, "rotation", 0.5)
    expected = small.linear_tokens.weight.detach()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(small.linear_tokens.weight, expected)
        assert small(IMAGES).dtype == torch.bfloat16


def test_errors_are_one_line_and_leave_the_model_alone(small):
    for call, error, text in (
        (lambda: lse_soft.soften(small, "rotation"), LSEError, "exactly one of softness"),
        (lambda: lse_soft.soften(small, "rotation", 1.0, keep=0.5), LSEError, "exactly one of softness"),
        (lambda: lse_soft.soften(small, "rotation", -1.0), LSEError, "at least 0"),
        (lambda: lse_soft.soften(small, "rotation", keep=2.0), LSEError, "within"),
        (lambda: lse_soft.soften(small, "rotation", 1.0, places=["pos"]), UnknownNameError, "pos_embed"),
        (lambda: lse_soft.soften(small, "rotation", 1.0, places=["convolution"]), LSEError, "no place of"),
        (lambda: lse_soft.soften(small, "so3", 1.0), LSEError, "name layers and say what they are"),
        (lambda: lse_soft.soften(small, "rotation", 1.0, threshold="soft"), UnknownNameError, "cosine"),
        (lambda: lse_soft.soften(small, "rotation", 1.0, places={"head": "image:3x3"}), ShapeError, "3 x 3"),
        (
            lambda: lse_soft.soften(small, "rotation", 1.0, places={"head": "picture:3x3"}),
            UnknownNameError,
            "image",
        ),
        (
            lambda: lse_soft.soften(small, "rotation", 1.0, places={"head": "image:3"}),
            LSEError,
            "HEIGHTxWIDTH",
        ),
        (
            lambda: lse_soft.soften(small, "so3", 1.0, places={"head": "vectors:2"}),
            LSEError,
            "vectors:IN:OUT",
        ),
        (
            lambda: lse_soft.soften(small, "so3", 1.0, places={"head": "vectors:2:2"}),
            LSEError,
            "expected a weight",
        ),
        (
            lambda: lse_soft.soften(small, "rotation", 1.0, places={"haed": "image:3x3"}),
            UnknownNameError,
            "head",
        ),
        (
            lambda: lse_soft.soften(small, "local_scale", 1.0, places={"linear_tokens": "image:4x4"}),
            LSEError,
            "linear_tokens: a functional of a whole image",
        ),
        (lambda: lse_soft.soften(nn.Linear(2, 2), "rotation", 1.0), LSEError, "no place of the kinds"),
        (lambda: lse_soft.fold(small), LSEError, "not softened"),
        (lambda: lse_soft.unsoften(small), LSEError, "not softened"),
        (lambda: lse_soft.bound(small), LSEError, "name a group"),
    ):
        with pytest.raises(error, match=text) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert not lse_soft.softeners(small)
    lse_soft.soften(small, "rotation", 1.0)
    with pytest.raises(LSEError, match="softened already"):
        lse_soft.soften(small, "rotation", 1.0)
    with pytest.raises(LSEError, match="already exactly equivariant under translation"):
        lse_soft.soften(nn.Sequential(nn.Conv2d(1, 1, 3)), "translation", 1.0)
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 1, 3)))
    with pytest.raises(LSEError, match="already has a parametrization"):
        lse_soft.soften(normed, "rotation", 1.0)
    with lse_soft.folded(nn.Linear(2, 2)):  # nothing to fold is no error
        pass
