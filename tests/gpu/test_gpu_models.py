"""Adapted models on a GPU against the CPU: precisions, layouts, graphs, compilers, processes, waits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import lse_dec

FAMILIES = {"vit_tiny_patch16_224": 64, "swin_tiny_patch4_window7_224": 56, "resnet10t": 64}
"""timm models and pixels a side."""
CPU_WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2"}
CUDA_WAITS = {"cudaStreamSynchronize", "cudaEventSynchronize", "cudaMemcpy"}
"""What waits for a value; cudaDeviceSynchronize is left out, since the profiler itself ends in one."""

Make = Callable[..., Any]


def gradients(model: nn.Module, out: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    out.float().square().sum().backward()
    return {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("mode", ["invariant", "equivariant"])
@pytest.mark.parametrize("name", FAMILIES)
def test_outputs_and_gradients_are_those_of_the_cpu(
    device: str, moving: Make, pictures: Make, name: str, mode: str
) -> None:
    model, x = moving(name, mode=mode).double(), pictures(side=FAMILIES[name]).double()
    there = copy.deepcopy(model).to(device)
    expected, found = model(x), there(x.to(device))
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-7, atol=1e-9)
    slopes = gradients(model, expected)
    for each, gradient in gradients(there, found).items():
        # relative to the largest, for some are zero but for rounding
        assert (gradient - slopes[each]).abs().max() <= 1e-5 * slopes[each].abs().max() + 1e-8, each


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FAMILIES)
def test_autocast_leaves_coordinates_in_float32(
    device: str, moving: Make, pictures: Make, name: str, dtype: torch.dtype
) -> None:
    model, x = moving(name).to(device), pictures(side=FAMILIES[name]).to(device)
    with torch.no_grad(), lse_dec.observe(model) as exact:
        expected = model(x)
    with torch.autocast(device, dtype=dtype), lse_dec.observe(model) as seen:
        found = model(x)
    assert all(gradient.isfinite().all() for gradient in gradients(model, found).values())
    spread = expected.max() - expected.min()
    assert (found - expected).abs().max() < 0.1 * spread
    for site, observed in seen.items():
        assert observed.warp.dtype == torch.float32, site
        assert observed.solution is not None
        assert observed.solution.residuals.dtype == torch.float32
        moved = (observed.warp.x.values - exact[site].warp.x.values).abs().max()
        assert moved < 0.05, site


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
def test_channels_last_gives_the_same(device: str, moving: Make, pictures: Make, name: str) -> None:
    model, x = moving(name).to(device), pictures().to(device)
    with torch.no_grad():
        expected = model(x)
        last = model.to(memory_format=torch.channels_last)
        found = last(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_a_checkpoint_travels_between_devices(
    device: str, moving: Make, pictures: Make, tmp_path: Path
) -> None:
    model, x = moving("resnet10t"), pictures()
    lse_dec.save(model.to(device), tmp_path / "saved")
    again = lse_dec.load(tmp_path / "saved").eval()
    assert {p.device.type for p in again.parameters()} == {"cpu"}
    with torch.no_grad():
        torch.testing.assert_close(again(x), model.cpu()(x), rtol=1e-5, atol=1e-5)


def test_equation_5_is_that_of_the_cpu(device: str, moving: Make, pictures: Make) -> None:
    model, x = moving().double(), pictures().double()

    def loss(where: str) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        here = copy.deepcopy(model).to(where)
        return lse_dec.equivariance_loss(here, x.to(where), generator=generator).detach().cpu()

    torch.testing.assert_close(loss(device), loss("cpu"), rtol=1e-7, atol=1e-10)


# waits --------------------------------------------------------------------------------------------------


def waits(call: Callable[[], object], device: str) -> list[str]:
    """What the host waited for, or on a CPU would wait for if it were a GPU."""
    cuda = device != "cpu"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as seen:
        call()
    names = [event.name() for event in seen.profiler.kineto_results.events()]
    return [name for name in names if name in (CUDA_WAITS if cuda else CPU_WAITS)]


@pytest.mark.parametrize("solver", ["anderson", "anderson-i", "broyden", "naive"])
@pytest.mark.parametrize("warp", ["separable", "triangular", "grid"])
def test_the_host_never_waits(device: str, moving: Make, pictures: Make, solver: str, warp: str) -> None:
    model, x = moving(solver=solver, warp=warp).to(device), pictures().to(device)

    def infer() -> Tensor:
        with torch.no_grad():
            return model(x)

    def train() -> None:
        model.zero_grad()
        model(x).square().sum().backward()

    # on a CPU the backward pass of a warp may ask which samples lie on pixels; on a GPU it must not
    for call in (infer, train) if device != "cpu" else (infer,):
        call()  # libraries are loaded, algorithms are chosen, and constants are made, once
        if device != "cpu":
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
        try:
            assert waits(call, device) == []
        finally:
            if device != "cpu":
                torch.cuda.set_sync_debug_mode("default")
    assert waits(lambda: infer().sum().item(), device)  # it does see them


# graphs, compilers, processes ---------------------------------------------------------------------------


@pytest.mark.usefixtures("cuda_only")
@pytest.mark.parametrize("warp", ["separable", "triangular", "grid"])
def test_a_cuda_graph_replays_what_eager_does(moving: Make, pictures: Make, warp: str) -> None:
    model, first = moving(warp=warp).cuda(), pictures().cuda()
    fed = first.clone()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), torch.cuda.stream(stream):
        for _ in range(3):
            model(fed)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        out = model(fed)
    for x in (pictures(seed=1).cuda(), first):
        fed.copy_(x)
        graph.replay()
        with torch.no_grad():
            torch.testing.assert_close(out, model(x), rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("cuda_only")
def test_a_training_step_can_be_captured(moving: Make, pictures: Make) -> None:
    model, x = moving().cuda().train(), pictures().cuda()
    expected = gradients(model, model(x))
    captured = torch.cuda.make_graphed_callables(model, (x.clone(),))
    for name, gradient in gradients(model, captured(x)).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-2, atol=1e-4, msg=name)


@pytest.mark.usefixtures("cuda_only")
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_gives_the_same(moving: Make, pictures: Make, mode: str) -> None:
    torch.compiler.reset()
    model = moving().cuda()
    compiled = torch.compile(model, fullgraph=True, dynamic=False, mode=None if mode == "default" else mode)
    with torch.no_grad():
        for seed in (0, 1, 2):
            x = pictures(seed=seed).cuda()
            torch.testing.assert_close(compiled(x).clone(), model(x), rtol=1e-2, atol=1e-3)


@pytest.mark.usefixtures("cuda_only")
def test_a_compiled_training_step_gives_the_same(moving: Make, pictures: Make) -> None:
    torch.compiler.reset()
    model, x = moving().cuda().train(), pictures().cuda()
    expected = gradients(model, model(x))
    for name, gradient in gradients(model, torch.compile(model)(x)).items():
        scale = float(expected[name].abs().max())
        assert (gradient - expected[name]).abs().max() <= 0.02 * scale + 1e-4, name


def test_ddp_on_one_device_gives_the_same_gradients(
    device: str, moving: Make, pictures: Make, tmp_path: Path
) -> None:
    model, x = moving().to(device).train(), pictures().to(device)
    expected = gradients(model, model(x))
    backend = "gloo" if device == "cpu" else "nccl"
    dist.init_process_group(backend, init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(model, device_ids=None if device == "cpu" else [0])
        for _ in range(2):  # the second pass says which parameters had no gradient
            found = gradients(model, parallel(x))
    finally:
        dist.destroy_process_group()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
