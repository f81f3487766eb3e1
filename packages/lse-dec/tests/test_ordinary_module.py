"""An adapted model is an ordinary module: compiled, distributed, checkpointed, traced by autograd."""

import copy
import multiprocessing
import pickle
import runpy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
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


WORKER = """
import timm, torch
import torch.distributed as dist
import lse_dec

torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
model = lse_dec.adapt(timm.create_model("vit_tiny_patch16_224", **torch.load(f"{folder}/settings.pt")),
                      rule="compose", steps=3)
if rank == 0:  # the other one begins with its own weights, which DDP has to replace
    model.load_state_dict(torch.load(f"{folder}/weights.pt"))
parallel = torch.nn.parallel.DistributedDataParallel(model.train())  # raises where a parameter goes unused
mine = torch.load(f"{folder}/images.pt")[rank::2]
for _ in range(2):  # a second pass would say which parameters had no gradient
    parallel.zero_grad()
    parallel(mine).square().mean().backward()
torch.save({n: p.grad for n, p in model.named_parameters()}, f"{folder}/gradients{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_share_the_batch(tmp_path: Path) -> None:
    """DistributedDataParallel gives the gradients of one process with the whole batch."""
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    model = vit().train()
    torch.save(TOKENS, tmp_path / "settings.pt")
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    torch.save(x, tmp_path / "images.pt")
    (tmp_path / "worker.py").write_text(WORKER)
    context = multiprocessing.get_context("forkserver")  # torch is imported there: see conftest.py
    workers = [
        context.Process(
            target=runpy.run_path,
            args=(str(tmp_path / "worker.py"), {"rank": rank, "folder": str(tmp_path)}),
        )
        for rank in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(240)
    assert [worker.exitcode for worker in workers] == [0, 0]
    model(x).square().mean().backward()
    for rank in range(2):
        theirs = torch.load(tmp_path / f"gradients{rank}.pt")
        for name, p in model.named_parameters():
            torch.testing.assert_close(theirs[name], p.grad, rtol=1e-4, atol=1e-6, msg=name)


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


def test_state_dict_and_copies_survive_pickle_and_deepcopy() -> None:
    model = vit()
    state = pickle.loads(pickle.dumps(model.state_dict()))
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    assert not torch.equal(other(images()), model(images()))
    other.load_state_dict(state)
    assert torch.equal(other(images()), model(images()))


@pytest.mark.parametrize("canonicalizer", ["canon", "dec", "identity", "optim", "variation"])
def test_train_and_eval_reach_every_canonicalizer(canonicalizer: str) -> None:
    base = timm.create_model("resnet10t", num_classes=5)
    model = lse_dec.adapt(base, ["image", "layer2", "layer3.0"], canonicalizer=canonicalizer)
    for mode in (False, True):
        assert model.train(mode) is model
        assert {m.training for m in model.modules()} == {mode}
    model.eval()
    assert {m.training for m in base.modules()} == {False}
