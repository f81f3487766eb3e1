"""What a canonicalizer costs: operations, waits for the device, graph breaks; and that the numbers stay.

Counts are of kernels: operations that are no views.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import lse_dec
from lse_core import SeparableWarp, registry, unscale
from lse_core.resample import averaging_weights
from lse_dec.canonicalizers import DEC
from lse_dec.canonicalizers.network import UpdateNetwork, segment_weights
from lse_dec.solvers import solve

SOLVERS = ["anderson", "anderson-i", "broyden", "naive"]


def dec(solver: str = "anderson", rule: str = "residual", channels: int = 6, **settings: Any) -> DEC:
    torch.manual_seed(0)
    step, update = registry().get("solver", solver)(), registry().get("update", rule)()
    made = DEC(channels, solver=step, rule=update, **settings).eval()
    nn.init.normal_(made.update.head.weight, std=0.3)
    return made


def features(size: tuple[int, int] = (14, 14), channels: int = 6, batch: int = 3) -> Tensor:
    coarse = torch.randn(batch, channels, 4, 4, generator=torch.Generator().manual_seed(1))
    return F.interpolate(coarse, size=size, mode="bicubic", align_corners=True)


# the numbers --------------------------------------------------------------------------------------


def proposal_by_the_definition(net: UpdateNetwork, x: Tensor) -> Tensor:
    """Profiles along each axis by means, then the head on one axis after the other."""
    x = net.convolutions(x)
    proposals = []
    for n, other in ((x.shape[3], 2), (x.shape[2], 3)):
        profile = x.mean(other) @ segment_weights(n, net.segments, x).T
        proposals.append(net.head(F.silu(net.mix(profile))).squeeze(1))
    return torch.stack(proposals, dim=1)


@pytest.mark.parametrize("size", [(16, 16), (9, 14), (1, 5)])
def test_the_head_is_one_profile_an_axis(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    net = UpdateNetwork(5, 8, widths=(6, 7))
    nn.init.normal_(net.head.weight, std=0.01)
    nn.init.zeros_(net.convolutions[0].weight)
    net.convolutions[0].weight.data[range(5), range(5), 1, 1] = 0.1
    for layer in (net.convolutions[2], net.mix):
        layer.weight.data.mul_(0.05)
    net.eval()
    x = torch.randn(3, 5, *size)
    want = proposal_by_the_definition(net, x)
    assert want.std() > 1e-7
    assert (net(x) - want).abs().max() < 1e-5 * want.abs().max()


def update_by_the_definition(made: DEC, x: Tensor, w: Tensor) -> Tensor:
    """Reduce, project, unscale, network, Eq. 16 with its pull and its bound; nothing made beforehand."""
    h, wide = x.shape[2:]
    a_y, a_x = (averaging_weights(n, min(n, 16), dtype=x.dtype) for n in (h, wide))
    small = torch.einsum("ih,bchw,jw->bijc", a_y, x, a_x)
    small = made.reduce.project(made.reduce.norm(small)).permute(0, 3, 1, 2)
    seen = unscale(small, SeparableWarp.from_log_slopes(w))
    proposal = proposal_by_the_definition(made.update, seen)
    w = w - 0.5 * torch.tanh(proposal - proposal.mean(-1, keepdim=True)) - 0.1 * w
    half = 0.5 * math.log(made.ratio)
    w = w - w.mean(-1, keepdim=True)
    free = w.clamp(-0.75 * half, 0.75 * half)
    return free + 0.25 * half * torch.tanh((w - free) / (0.25 * half))


@pytest.mark.parametrize("size", [(14, 14), (40, 40), (12, 33)])
@pytest.mark.parametrize("grad", [False, True])
def test_the_update_is_the_definitions(size: tuple[int, int], grad: bool) -> None:
    made, x = dec(), features(size)
    w = 0.1 * torch.randn(3, 2, 8, generator=torch.Generator().manual_seed(2))
    with torch.set_grad_enabled(grad):  # with and without a gradient weights are written differently
        update, _ = made.problem(x)
        got, want = update(w.flatten(1)).view(3, 2, 8), update_by_the_definition(made, x, w)
    assert (want - w).abs().max() > 1e-2
    assert (got - want).abs().max() < 1e-5


def by_anderson(f: Callable[[Tensor], Tensor], z: Tensor, steps: int, kind: str) -> Iterator[Tensor]:
    """Iterates of Anderson mixing from its definition, every system made anew and solved by LAPACK."""
    zs, gs = [z], [f(z) - z]
    for _ in range(steps):
        yield zs[-1] + gs[-1]
        z = zs[-1] + gs[-1]
        if len(zs) > 1:
            dz = torch.stack([b - a for a, b in pairwise(zs)], dim=1)
            dg = torch.stack([b - a for a, b in pairwise(gs)], dim=1)
            left = dg if kind == "II" else -dz
            gamma = torch.linalg.solve(left @ dg.mT, (left @ gs[-1].unsqueeze(-1)))
            z = z - ((dz + dg).mT @ gamma).squeeze(-1)
        zs, gs = [*zs, z][-5:], [*gs, f(z) - z][-5:]


def by_broyden(f: Callable[[Tensor], Tensor], z: Tensor, steps: int) -> Iterator[Tensor]:
    """Images of the iterates of Broyden's good method, with its inverse Jacobian as a matrix."""
    d = z.shape[1]
    inverse, g = -torch.eye(d, dtype=z.dtype).expand(len(z), d, d), f(z) - z
    for _ in range(steps):
        yield z + g
        after = z - (inverse @ g.unsqueeze(-1)).squeeze(-1)
        s, y = (after - z).unsqueeze(-1), (f(after) - after - g).unsqueeze(-1)
        inverse = inverse + (s - inverse @ y) @ (s.mT @ inverse) / (s.mT @ inverse @ y)
        z, g = after, f(after) - after


@pytest.mark.parametrize("solver", ["anderson", "anderson-i", "broyden"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_are_the_definitions(solver: str, dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    a, b, z0 = (torch.randn(s, generator=g, dtype=dtype) for s in ((16, 16), (3, 16), (3, 16)))
    a = 0.7 * a / torch.linalg.matrix_norm(a, 2)

    def f(z: Tensor) -> Tensor:
        return torch.tanh(z @ a + b)

    regular = {} if solver == "broyden" else {"regularisation": 1e-12}
    found = solve(f, z0, registry().get("solver", solver)(**regular), steps=6)
    if solver == "broyden":
        reference = by_broyden(f, z0, 6)
    else:
        reference = by_anderson(f, z0, 6, "II" if solver == "anderson" else "I")
    images = list(reference)
    assert found.residuals[-1].max() < 0.05 * found.residuals[0].min()
    assert (found.z - images[-1]).abs().max() < (1e-5 if dtype == torch.float32 else 1e-8)


@pytest.mark.parametrize("rtol", [0.0, 0.1])
def test_codes_and_residuals_are_of_the_best_iterate(rtol: float) -> None:
    # the second step is worse than the first, the third overflows: the first one's numbers stay
    images = iter([1.01 * torch.ones(2, 4), 5.0 * torch.ones(2, 4), torch.full((2, 4), torch.inf)])
    found = solve(
        lambda z: next(images),
        torch.ones(2, 4),
        registry().get("solver", "naive")(),
        steps=3,
        tol=0.02 - rtol / 10,
        rtol=rtol,
    )
    assert torch.allclose(found.residual, torch.full((2,), 0.01), atol=1e-6)
    assert (found.z == 1.01).all()
    assert (found.codes == 0).all()
    assert found.residuals[2].isinf().all()


# operations ---------------------------------------------------------------------------------------

VIEWS = {
    *("_reshape_alias", "_unsafe_view", "alias", "as_strided", "detach", "expand", "lift_fresh", "permute"),
    *("select", "slice", "split", "squeeze", "t", "transpose", "unbind", "unsqueeze", "view"),
}


class Kernels(TorchDispatchMode):
    """Counts operations that are no views."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in VIEWS:
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


def kernels(f: Callable[[], Any]) -> Counter[str]:
    f()  # constants are made in the first call
    with torch.no_grad(), Kernels() as mode:
        f()
    return mode.seen


@pytest.mark.parametrize(
    ("solver", "most"), [("naive", 230), ("broyden", 340), ("anderson", 320), ("anderson-i", 325)]
)
def test_a_solve_is_lean(solver: str, most: int) -> None:
    made, x = dec(solver), features((40, 40))
    seen = kernels(lambda: made(x))
    assert seen["convolution"] == 4 * 5
    assert seen.total() <= most, seen
    # nothing that depends on sizes alone is made again
    assert not seen.keys() & {"arange", "linspace", "eye", "maximum", "_to_copy"}, seen


def test_work_grows_by_the_same_with_every_step() -> None:
    made, x = dec("naive"), features()
    counts = [kernels(lambda k=k: made(x, steps=k)).total() for k in (2, 3, 4, 20)]
    assert counts[1] - counts[0] == counts[2] - counts[1] == (counts[3] - counts[2]) // 16
    assert counts[1] - counts[0] <= 42


def test_work_grows_with_neither_depth_nor_classes() -> None:
    costs = []
    for depth, classes in ((1, 3), (3, 50)):
        shape = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "num_heads": 3}
        plain = timm.create_model("vit_tiny_patch16_224", depth=depth, num_classes=classes, **shape).eval()
        x = torch.randn(1, 3, 32, 32)
        without = kernels(lambda plain=plain, x=x: plain(x)).total()
        adapted = lse_dec.adapt(plain, ["image", "blocks.0"])
        costs.append(kernels(lambda adapted=adapted, x=x: adapted(x)).total() - without)
    assert costs[0] == costs[1]


def test_constants_are_in_no_state_and_serve_gradients_after_inference() -> None:
    made, x = dec(segments=7, resolution=11), features((13, 13))  # sizes that no other test has
    with torch.inference_mode():
        made(x)
    assert all(name.startswith(("reduce.", "update.")) for name in made.state_dict())
    made.train()(x).warp.x.values.square().sum().backward()
    assert made.reduce.project.weight.grad is not None


# waiting for the device ---------------------------------------------------------------------------


class OnDevice(TorchDispatchMode):
    """Raises where an operation reads a value back, or meets a tensor that is not on the device."""

    WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "unique", "masked_select", "item")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        assert not name.startswith(self.WAITS), f"the host waits for {name}"
        assert name != "lift_fresh", "a tensor is made of numbers on the host and sent to the device"
        for t in tree_leaves((args, kwargs, out)):
            # numbers that the host knows travel with the launch
            assert not isinstance(t, Tensor) or t.is_meta or t.ndim == 0, f"{name} has a tensor on {t.device}"
        return out


def on_meta(name: str, sites: list[str], **settings: Any) -> lse_dec.AdaptedModel:
    shape = {"img_size": 80, "depth": 2, "embed_dim": 24, "num_heads": 3} if "vit" in name else {}
    base = timm.create_model(name, num_classes=5, **shape)
    return lse_dec.adapt(base, sites, **settings).to("meta")


@pytest.mark.parametrize(
    ("name", "site", "settings"),
    [
        ("vit_tiny_patch16_224", "blocks.0", {}),
        ("vit_tiny_patch16_224", "blocks.1", {"solver": "broyden", "rule": "compose", "mode": "equivariant"}),
        ("resnet10t", "layer1", {"gradient": "implicit"}),
        ("resnet10t", "layer2", {"warp": "grid", "solver": "anderson-i"}),
    ],
)
def test_nothing_waits_for_the_device_and_nothing_is_sent(name: str, site: str, settings: Any) -> None:
    # the meta device holds no values, so reading one raises as well
    model = on_meta(name, ["image", site], **settings)
    x = torch.empty(2, 3, 80, 80, device="meta")
    with OnDevice():
        with torch.no_grad():
            model.eval()(x)
        model.train()(x).square().sum().backward()
    assert all(p.grad is not None for p in model.canonicalizer_parameters())
    with OnDevice(), pytest.raises(AssertionError, match="sent to the device"):
        torch.tensor([1.0, 2.0], device="meta")


WAITS = {"aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "aten::_unique2"}
"""Operators for whose result a host would wait for its device."""


def profiled(f: Callable[[], Any]) -> set[str]:
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        f()
    return {event.name for event in seen.events()}


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_profiler_sees_no_wait_in_inference(solver: str) -> None:
    model = timm.create_model("test_vit", num_classes=3).eval()
    adapted = lse_dec.adapt(model, ["image", "blocks.0"], solver=solver)
    x = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        calls = profiled(lambda: adapted(x))
        assert "aten::convolution" in calls  # it did look
        assert not WAITS & calls
        assert WAITS & profiled(lambda: adapted(x).sum().item())


# graphs -------------------------------------------------------------------------------------------

COMBINATIONS = [
    *((solver, "residual", {}) for solver in SOLVERS),
    ("anderson", "compose", {"start": "variation"}),
    ("broyden", "absolute", {"warp": "grid"}),
]


@pytest.mark.parametrize(("solver", "rule", "settings"), COMBINATIONS)
def test_one_graph_for_inference_and_training(solver: str, rule: str, settings: dict[str, Any]) -> None:
    torch.compiler.reset()
    made, x = dec(solver, rule, steps=3, widths=(4,), **settings), features((20, 20))
    found: Any = torch.compile(lambda x: made(x).warp.x.values, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        want = made(x).warp.x.values
        assert (found(x) - want).abs().max() < 1e-5
    grads = []
    for f in (lambda x: made(x).warp.x.values, found):
        made.zero_grad()
        f(x).square().sum().backward()
        grads.append({n: p.grad.clone() for n, p in made.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-3, atol=1e-5, msg=name)


def test_remembered_constants_stay_out_of_graphs() -> None:
    torch.compiler.reset()
    made, x = dec(steps=2, widths=(4,)), features((18, 18))
    made(x)
    held: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        held.extend(name for name, _ in graph.named_buffers())
        return graph

    compiled: Any = torch.compile(lambda x: made(x).warp.x.values, fullgraph=True, backend=backend)
    with torch.no_grad():
        assert torch.allclose(compiled(x), made(x).warp.x.values, atol=1e-6)
    assert not held
