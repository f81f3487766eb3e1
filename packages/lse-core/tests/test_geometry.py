"""Distances, the path from the identity, batches of unlike maps, and what survives saving."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lse_core import MonotoneMap, SeparableWarp
from lse_core.errors import DTypeError, LSEError, ShapeError, UnknownNameError

EXAMPLES = settings(max_examples=200, derandomize=True, deadline=None)
seeds = st.integers(0, 2**31)


def draw(seed: int, batch: int = 2, ratio: float = 20.0) -> MonotoneMap:
    """Random maps on uneven knots."""
    generator = torch.Generator().manual_seed(seed)
    n = 1 + seed % 7
    a, b = (torch.randn(batch, n, generator=generator, dtype=torch.float64) for _ in range(2))
    return MonotoneMap.from_logits(a, ratio) @ ~MonotoneMap.from_logits(b, ratio)


FINE = np.linspace(0, 1, 20001)


def naive(a: MonotoneMap, b: MonotoneMap, kind: str) -> float:
    """The definition, on twenty thousand points."""
    y = [np.interp(FINE, m.knots[0], m.values[0]) for m in (a, b)]
    if kind == "max":
        return float(np.abs(y[0] - y[1]).max())
    if kind == "rms":
        return float(np.sqrt(np.mean((y[0] - y[1]) ** 2)))
    return float(np.arccos(min(1.0, np.sqrt(np.diff(y[0]) * np.diff(y[1])).sum())))


@pytest.mark.parametrize("kind", ["max", "rms", "fisher_rao"])
def test_distances_are_what_they_say(kind: str) -> None:
    for seed in range(20):
        a, b = draw(seed, 1), draw(seed + 100, 1)
        assert float(a.distance(b, kind)) == pytest.approx(naive(a, b, kind), rel=2e-2, abs=1e-4)


@pytest.mark.parametrize("kind", ["max", "rms", "fisher_rao"])
@EXAMPLES
@given(seed=seeds)
def test_distances_are_metrics(kind: str, seed: int) -> None:
    a, b, c = (draw(seed + i) for i in range(3))
    assert float(a.distance(a, kind).max()) <= 1e-7
    assert torch.allclose(a.distance(b, kind), b.distance(a, kind), atol=1e-12)
    assert bool((a.distance(c, kind) <= a.distance(b, kind) + b.distance(c, kind) + 1e-12).all())
    if kind != "rms":  # invariant: the same reparametrization of both changes nothing
        assert torch.allclose((a @ c).distance(b @ c, kind), a.distance(b, kind), atol=1e-9)


@EXAMPLES
@given(seed=seeds, t=st.floats(0, 1))
def test_the_geodesic_is_shortest_and_of_constant_speed(seed: int, t: float) -> None:
    m = draw(seed)
    e = MonotoneMap.identity(2, dtype=torch.float64)
    on_the_way = m.geodesic(t)
    whole = m.distance(e, "fisher_rao")
    assert torch.allclose(on_the_way.distance(e, "fisher_rao"), t * whole, atol=1e-7)
    assert torch.allclose(on_the_way.distance(m, "fisher_rao"), (1 - t) * whole, atol=1e-7)
    assert bool((on_the_way.values.diff(dim=1) >= 0).all())
    assert float(m.geodesic(1.0).distance(m).max()) <= 1e-12
    assert float(m.geodesic(0.0).distance(e).max()) <= 1e-12


def test_each_map_may_have_its_own_share() -> None:
    w = SeparableWarp.random(3, 4, 4.0, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shares = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    path = w.geodesic(shares)
    e = SeparableWarp.identity(dtype=torch.float64)
    assert torch.allclose(path.distance(e, "fisher_rao"), shares * w.distance(e, "fisher_rao"))
    with pytest.raises(ShapeError, match=r"t must be a number or \(3,\)"):
        w.geodesic(torch.zeros(2))


def test_distance_between_separable_warps() -> None:
    w, v = (
        SeparableWarp.random(1, 4, 4.0, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        for i in (0, 1)
    )
    u = torch.linspace(0, 1, 401, dtype=torch.float64)
    p = torch.stack(torch.meshgrid(u, u, indexing="xy"), -1).reshape(-1, 2)
    apart = (w(p) - v(p))[0].norm(dim=-1)
    assert float(w.distance(v)) == pytest.approx(float(apart.max()), rel=1e-2)
    assert float(w.distance(v, "rms")) == pytest.approx(float(apart.square().mean().sqrt()), rel=1e-2)
    with pytest.raises(UnknownNameError, match=r"unknown distance 'maximum'\. Did you mean 'max'\?"):
        w.distance(v, "maximum")


def test_distance_and_path_have_finite_gradients_at_the_identity() -> None:
    z = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    e = MonotoneMap.identity(dtype=torch.float64)
    for kind in ("max", "rms", "fisher_rao"):
        (g,) = torch.autograd.grad(MonotoneMap.from_logits(z).distance(e, kind).sum(), z)
        assert bool(g.isfinite().all())
    (g,) = torch.autograd.grad(MonotoneMap.from_logits(z).geodesic(0.5).values[0, 2], z)
    assert float(g.abs().max()) > 0


# batches ----------------------------------------------------------------------------------------


def test_maps_of_unlike_knots_stack_unchanged() -> None:
    maps = [draw(seed, batch) for seed, batch in ((1, 1), (2, 3), (6, 2))]
    stacked = MonotoneMap.stack(maps)
    assert stacked.batch == 6
    start = 0
    for m in maps:
        assert float(stacked[start : start + m.batch].distance(m).max()) <= 1e-12
        start += m.batch
    assert bool((stacked.knots.diff(dim=1) >= 0).all())


def test_warps_stack() -> None:
    a, b = SeparableWarp.random(2, 3), SeparableWarp.random(1, 7)
    both = SeparableWarp.stack([a, b])
    assert both.batch == 3
    assert float(both[2].distance(b)) <= 1e-6
    with pytest.raises(ShapeError, match="at least one map"):
        SeparableWarp.stack([])
    with pytest.raises(DTypeError, match="one dtype and device"):
        SeparableWarp.stack([a, b.to(torch.float64)])


# saving -----------------------------------------------------------------------------------------

WARPS = [
    MonotoneMap.from_logits(torch.randn(2, 3)),
    SeparableWarp.random(2, 3),
]


def leaves(w: MonotoneMap | SeparableWarp) -> list[Tensor]:
    return list(w.state_dict().values())


@pytest.mark.parametrize("warp", WARPS, ids=lambda w: type(w).__name__)
def test_warps_survive_pickling_copying_and_saving(warp: MonotoneMap | SeparableWarp) -> None:
    file = io.BytesIO()
    torch.save({"warp": warp}, file)
    file.seek(0)
    copies = [
        pickle.loads(pickle.dumps(warp)),
        copy.deepcopy(warp),
        copy.copy(warp),
        torch.load(file, weights_only=True)["warp"],
        type(warp).from_state_dict(warp.state_dict()),
    ]
    for other in copies:
        assert type(other) is type(warp)
        assert all(torch.equal(a, b) for a, b in zip(leaves(other), leaves(warp), strict=True))


def test_a_module_can_keep_a_warp_in_its_buffers() -> None:
    class Holder(torch.nn.Module):
        def __init__(self, warp: SeparableWarp) -> None:
            super().__init__()
            for name, t in warp.state_dict().items():
                self.register_buffer(name.replace(".", "_"), t.clone())

        @property
        def warp(self) -> SeparableWarp:
            return SeparableWarp.from_state_dict({k.replace("_", "."): v for k, v in self.named_buffers()})

    first, second = Holder(SeparableWarp.random(1, 4)), Holder(SeparableWarp.identity(1, 4))
    second.load_state_dict(first.state_dict())
    assert float(second.warp.distance(first.warp)) == 0.0
    assert second.double().warp.dtype == torch.float64


@pytest.mark.parametrize(
    "build",
    [
        lambda: MonotoneMap.from_state_dict({"knots": torch.zeros(1, 2)}),
        lambda: SeparableWarp.from_state_dict({"x.knots": torch.zeros(1, 2), "z": torch.zeros(1)}),
        lambda: MonotoneMap.from_state_dict({"knots": torch.zeros(1, 2), "values": torch.zeros(1, 2)}),
        lambda: MonotoneMap.identity().to(torch.int64),
    ],
)
def test_broken_state_is_refused(build: object) -> None:
    with pytest.raises(LSEError):
        build()  # type: ignore[operator]


def test_moves_between_dtypes_and_devices() -> None:
    w = SeparableWarp.random(2, 3)
    assert w.to(torch.float64).dtype == torch.float64
    assert w.to("meta").device.type == "meta"
    assert w.to("cpu", torch.float64).x.knots.dtype == torch.float64
