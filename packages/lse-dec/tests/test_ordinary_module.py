"""An adapted model is an ordinary module: compiled, distributed, checkpointed, traced by autograd."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.distributed as dist
from torch import Tensor, nn

import lse_dec

TOKENS = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 3, "num_classes": 5}


def vit() -> lse_dec.AdaptedModel:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", **TOKENS).eval()
    adapted = lse_dec.adapt(model, rule="compose", steps=3)
    with torch.no_grad():
        for canonicalizer in adapted.canonicalizers.values():
            canonicalizer.update.head.weight.normal_(std=2.0)
    return adapted


def images() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def gradients(model: nn.Module, out: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    out.square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    model = vit().train()
    plain = gradients(model, model(images()))
    model.set_grad_checkpointing(True)
    saved = gradients(model, model(images()))
    assert plain.keys() == saved.keys()
    for name, grad in plain.items():
        torch.testing.assert_close(saved[name], grad, msg=name)


def test_distributed_data_parallel(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = vit().train()
        plain = gradients(model, model(images()))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parallel = nn.parallel.DistributedDataParallel(model)  # raises where a parameter goes unused
            out = parallel(images())
        for name, grad in gradients(model, out).items():
            torch.testing.assert_close(grad, plain[name], msg=name)
        parallel(images()).sum().backward()  # a second pass would say which parameters had no gradient
    finally:
        dist.destroy_process_group()


def test_autocast_trains() -> None:
    model = vit().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(images())
    assert out.dtype == torch.bfloat16
    assert all(g.isfinite().all() for g in gradients(model, out.float()).values())


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager"])
def test_compiles_without_breaking_the_graph(backend: str) -> None:
    model = vit()
    with torch.no_grad():
        plain = model(images())
        compiled: Any = torch.compile(model, backend=backend, fullgraph=True)
        assert (compiled(images()) - plain).abs().max() < 1e-5


@pytest.mark.slow
def test_compiled_training_step() -> None:
    model = vit().train()
    plain = gradients(model, model(images()))
    compiled: Any = torch.compile(model, backend="aot_eager")
    for name, grad in gradients(model, compiled(images())).items():
        torch.testing.assert_close(grad, plain[name], rtol=1e-3, atol=1e-5, msg=name)


def test_scripts_of_its_own_can_be_pickled_whole(tmp_path: Path) -> None:
    # multiprocessing and torch.save of whole modules need it; `lse_dec.save` never does
    model = vit()
    torch.save(model, tmp_path / "whole.pt")
    again = torch.load(tmp_path / "whole.pt", weights_only=False)
    assert torch.equal(again(images()), model(images()))
