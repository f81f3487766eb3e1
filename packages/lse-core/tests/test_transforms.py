"""Warps under torch.compile, torch.export and vmap: the same numbers as eagerly."""

import pytest
import torch
from torch import Tensor

from lse_core import GridWarp, Layout, MonotoneMap, SeparableWarp, Tokens, scale, unscale

SIZES = pytest.mark.parametrize("size", [(9, 14), (40, 41)], ids=["few", "many"])
LAYOUTS = pytest.mark.parametrize("layout", ["nchw", "nhwc", "tokens"])


def example(layout: str, size: tuple[int, int], batch: int = 2) -> tuple[Tensor, Layout | str, Tensor]:
    torch.manual_seed(0)
    h, w = size
    c = 20
    shapes = {"nchw": (batch, c, h, w), "nhwc": (batch, h, w, c), "tokens": (batch, 1 + h * w, c)}
    return (
        torch.rand(shapes[layout]),
        Tokens((h, w)) if layout == "tokens" else layout,
        torch.randn(batch, 2, 4),
    )


class RoundTrip(torch.nn.Module):
    def __init__(self, layout: Layout | str) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        warp = SeparableWarp.from_logits(z) @ SeparableWarp.from_logits(0.5 * z)
        return unscale(scale(x, warp, self.layout), warp, self.layout)


@LAYOUTS
@SIZES
def test_compile_without_graph_breaks(layout: str, size: tuple[int, int]) -> None:
    torch.compiler.reset()
    x, lay, z = example(layout, size)
    module = RoundTrip(lay)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    results = []
    for f in (module, compiled):
        leaf, logits = x.clone().requires_grad_(), z.clone().requires_grad_()
        out = f(leaf, logits)
        results.append([out, *torch.autograd.grad(out.square().sum(), (leaf, logits))])
    for got, want in zip(*results, strict=True):
        assert torch.allclose(got, want, rtol=1e-3, atol=1e-3)


def test_compile_passes_warps_in_and_out() -> None:
    torch.compiler.reset()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def twice(w: SeparableWarp) -> SeparableWarp:
        return w @ w

    w = SeparableWarp.random(2, 3)
    assert float(twice(w).distance(w @ w).max()) <= 1e-6


@LAYOUTS
@SIZES
def test_export_with_a_free_batch(layout: str, size: tuple[int, int]) -> None:
    x, lay, z = example(layout, size)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(RoundTrip(lay), (x, z), dynamic_shapes=({0: batch}, {0: batch}))
    other = example(layout, size, batch=5)
    assert torch.allclose(program.module()(other[0], other[2]), RoundTrip(lay)(other[0], other[2]), atol=1e-4)
    ops = {str(n.target) for n in program.graph.nodes if n.op == "call_function"}
    assert not [op for op in ops if "grid_sampler" in op or "searchsorted" in op or "index_select" in op]


@LAYOUTS
@SIZES
@pytest.mark.parametrize("dims", [(0, 0), (None, 0), (0, None)], ids=str)
def test_vmap_over_warps_and_maps(layout: str, size: tuple[int, int], dims: tuple) -> None:
    x, lay, z = example(layout, size)
    many = torch.stack([x, x.flip(0), 2 * x]), torch.stack([z, -z, 0.3 * z])
    module = RoundTrip(lay)
    inputs = [m if d == 0 else m[0] for m, d in zip(many, dims, strict=True)]
    got = torch.func.vmap(module, in_dims=dims)(*inputs)
    for i in range(3):
        one = [m[i] if d == 0 else m for m, d in zip(inputs, dims, strict=True)]
        assert torch.allclose(got[i], module(*one), atol=1e-5)


@LAYOUTS
@SIZES
def test_gradients_under_vmap(layout: str, size: tuple[int, int]) -> None:
    x, lay, z = example(layout, size)

    def loss(z: Tensor, x: Tensor) -> Tensor:
        return unscale(x, SeparableWarp.from_logits(z), lay).square().sum()

    per_sample = torch.func.vmap(torch.func.grad(lambda z, x: loss(z[None], x[None])))(z, x)
    leaf = z.clone().requires_grad_()
    (whole,) = torch.autograd.grad(loss(leaf, x), leaf)
    assert torch.allclose(per_sample, whole, rtol=1e-3, atol=1e-3)


def test_coupled_grids_compile_and_vmap() -> None:
    torch.compiler.reset()
    g = torch.Generator().manual_seed(0)
    x, logits = torch.rand(2, 3, 20, 21, generator=g), torch.randn(3, 2, 4, 3, generator=g)

    def there(z: Tensor) -> Tensor:
        return unscale(x, GridWarp.from_logits(z, 0.5 * z))

    results = []
    for f in (there, torch.compile(there, fullgraph=True, backend="aot_eager")):
        z = logits[0].clone().requires_grad_()
        out = f(z)
        results.append([out, *torch.autograd.grad(out.square().sum(), z)])
    for got, want in zip(*results, strict=True):
        assert torch.allclose(got, want, rtol=1e-3, atol=1e-3)
    mapped = torch.func.vmap(there)(logits)
    for i in range(3):
        assert torch.allclose(mapped[i], there(logits[i]), atol=1e-5)
    gradient = torch.func.vmap(torch.func.grad(lambda z: there(z).square().sum()))(logits)
    assert torch.allclose(gradient[0], results[0][1], rtol=1e-3, atol=1e-3)


def test_vmap_takes_and_returns_maps() -> None:
    maps = MonotoneMap.from_logits(torch.randn(12, 3))
    stacked = MonotoneMap(maps.knots.view(3, 4, -1), maps.values.view(3, 4, -1), check=False)
    squared = torch.func.vmap(lambda m: m @ m)(stacked)
    assert torch.allclose(squared.values.flatten(0, 1), (maps @ maps).values)


@pytest.mark.slow
def test_compile_to_machine_code() -> None:
    torch.compiler.reset()
    x, lay, z = example("nhwc", (9, 14))
    module = RoundTrip(lay)
    assert torch.allclose(torch.compile(module, fullgraph=True)(x, z), module(x, z), atol=1e-5)
