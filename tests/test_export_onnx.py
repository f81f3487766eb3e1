"""Adapted models to ONNX and back: each solver unrolled, equal to the model, nothing but shared operators."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import pytest
import timm
import torch
from torch import Tensor, nn

import lse_export
from lse_core.errors import LSEError, OutputError
from lse_core.plugins import hookimpl, registry
from lse_core.resample import unscale
from lse_dec import adapt, observe
from lse_export.commands.running import _plain
from lse_export.unroll import recording, residual_traces

STEPS = 3
GOAL = torch.tensor([0.2, -0.2, -0.2, 0.2])  # log-slopes of four segments


def pictures(n: int, channels: int = 3, size: int = 64, seed: int = 0) -> Tensor:
    """Shaded surfaces with some texture: smooth, as photographs are, and telling how they are stretched."""
    coarse = torch.randn(n, channels, 6, 6, generator=torch.Generator().manual_seed(seed))
    texture = nn.functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)
    u = torch.linspace(-1.0, 1.0, size)
    shades = [
        u.view(1, -1).expand(size, size),
        u.view(-1, 1).expand(size, size),
        u.view(1, -1) * u.view(-1, 1),
    ]
    return 2.0 * torch.stack(shades)[:channels] + 0.2 * texture


def vit(depth: int = 2) -> nn.Module:
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, patch_size=8, depth=depth, embed_dim=48, num_classes=10
    )
    nn.init.normal_(model.head.bias)  # timm starts it at zero, which the optimiser drops from the graph
    return model


def resnet() -> nn.Module:
    return timm.create_model("resnet10t", num_classes=10)


def contract(model: nn.Module, images: Tensor, iterations: int = 500) -> None:
    """Train every update for a few seconds, to leave 0.3 of the distance to a warp that is not the identity.

    Parity means little where warps are the identity, and nothing where the update does not contract.
    """
    torch.manual_seed(1)
    features: dict[str, Tensor] = {}
    hooks = [
        c.register_forward_pre_hook(lambda module, args, site=site: features.update({site: args[0]}))
        for site, c in model.canonicalizers.items()
    ]
    for site, canonicalizer in model.canonicalizers.items():
        with torch.no_grad():
            model(images)  # again for each site: what it sees depends on the sites before it
        f = features[site].repeat_interleave(6, 0)
        last = model.sites[site].where.layout.channels_last
        goal = GOAL.expand(len(f), 2, -1)
        optimizer = torch.optim.Adam(canonicalizer.update.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=iterations)
        for _ in range(iterations):
            w = 0.25 * torch.randn(goal.shape)
            w = w - w.mean(-1, keepdim=True)
            found = canonicalizer(f, channels_last=last, steps=1, start=w).solution.z
            wanted = 0.3 * w + 0.7 * goal
            loss = (found - wanted.flatten(1)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    for hook in hooks:
        hook.remove()


@dataclass
class Case:
    model: nn.Module
    images: Tensor
    report: lse_export.OnnxExport
    proto: onnx.ModelProto


CASES = {
    "naive": (vit, {"sites": ["image", "blocks.1"], "rule": "residual", "mode": "invariant"}, {}),
    "anderson": (resnet, {"sites": ["layer2"], "rule": "compose", "mode": "equivariant"}, {}),
    "broyden": (
        partial(vit, depth=1),
        {"sites": ["blocks.0"], "rule": "absolute", "mode": "equivariant"},
        {"with_warps": True, "class_names": list("abcdefghij")},
    ),
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """Every solver, rule, mode, backbone and kind of site at least once, in three exports."""
    made = {}
    for solver, (backbone, options, extra) in CASES.items():
        torch.manual_seed(0)
        model = adapt(
            backbone(), solver=solver, steps=STEPS, resolution=8, segments=4, gradient="unrolled", **options
        )
        images = pictures(5)
        model.eval()
        contract(model, images)
        path = tmp_path_factory.mktemp(solver) / "model.onnx"
        report = lse_export.export_onnx(model.train(), images[:2], path, **extra)
        assert model.training, "the export must leave the model in the mode it was in"
        made[solver] = Case(model.eval(), images, report, onnx.load(path))
    return made


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest, cases: dict[str, Case]) -> Case:
    return cases[request.param]


def test_what_is_exported_is_worth_exporting(case: Case) -> None:
    """The updates move the picture visibly and contract; else parity would prove nothing."""
    with torch.no_grad():
        for site, trace in residual_traces(case.model, case.images).items():
            assert trace[-1] < 0.5 * trace[0], (site, trace)
        with observe(case.model) as answers:
            warped = case.model(case.images)
        for answer in answers.values():
            ramp = torch.linspace(0, 1, 64).expand(len(case.images), 1, 64, 64)
            assert (unscale(ramp, answer.warp) - ramp).abs().amax() > 1 / 64  # a pixel and more
        # and the logits depend on it
        heads = [c.update.head for c in case.model.canonicalizers.values()]
        kept = [(h.weight.clone(), h.bias.clone()) for h in heads]
        try:
            for head in heads:
                head.weight.zero_(), head.bias.zero_()
            identity = case.model(case.images)
        finally:
            for head, (weight, bias) in zip(heads, kept, strict=True):
                head.weight.copy_(weight), head.bias.copy_(bias)
        assert (identity - warped).abs().max() > 1e-3 * (warped.max() - warped.min())


def test_equal_to_the_model_at_both_batch_sizes(case: Case) -> None:
    report = lse_export.verify(case.report.path, case.model, case.images, batch_sizes=(1, 5))
    assert report.relative <= 1e-4
    assert report.max_abs_diff <= 1e-3
    assert report.argmax_agreement == 1.0
    assert report.providers == ["CPUExecutionProvider"]
    assert report.ok
    assert {(row.inputs, row.batch_size) for row in report.rows} >= {
        ("real", 1),
        ("real", 5),
        ("constant", 5),
        ("extreme", 5),
        ("random", 5),
    }


def test_equal_without_our_own_verification(case: Case) -> None:
    session = ort.InferenceSession(str(case.report.path), providers=["CPUExecutionProvider"])
    for n in (1, 3):
        (logits, *_) = session.run(None, {"image": case.images[:n].numpy()})
        with torch.no_grad():
            expected = case.model(case.images[:n]).numpy()
        assert abs(logits - expected).max() <= 1e-4 * (expected.max() - expected.min())


def test_graph_has_only_operators_that_every_runtime_shares(case: Case) -> None:
    domains = {node.domain for node in case.proto.graph.node}
    assert domains <= {"", "ai.onnx"}
    assert not set(case.report.ops) & {"GridSample", "Loop", "If", "Scan", "Resize", "NonZero", "Einsum"}
    assert not case.proto.functions
    assert [(o.domain, o.version) for o in case.proto.opset_import] == [("", 18)]
    assert sum(case.report.ops.values()) == case.report.nodes == len(case.proto.graph.node)
    assert 0 < case.report.canonicalizer_nodes < case.report.nodes
    kinds = {i.data_type for i in case.proto.graph.initializer}
    assert onnx.TensorProto.DOUBLE not in kinds


@pytest.mark.parametrize("target", ["tensorrt10", "tensorrt11", "onnxruntime", "web"])
def test_graph_passes_the_gate(case: Case, target: str) -> None:
    assert lse_export.check(case.report.path, target).problems == []


def test_names_and_dynamic_batch(case: Case) -> None:
    (image,) = case.proto.graph.input
    assert image.name == "image"
    dims = image.type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["batch", 3, 64, 64]
    logits = case.proto.graph.output[0]
    assert logits.name == "logits"
    assert [d.dim_param or d.dim_value for d in logits.type.tensor_type.shape.dim] == ["batch", 10]


def test_metadata(cases: dict[str, Case]) -> None:
    for solver, case in cases.items():
        facts = {p.key: p.value for p in case.proto.metadata_props}
        _, options, _ = CASES[solver]
        assert facts["lse.solver"] == solver
        assert facts["lse.steps"] == str(STEPS)
        assert facts["lse.rule"] == options["rule"]
        assert facts["lse.mode"] == options["mode"]
        assert json.loads(facts["lse.sites"]) == options["sites"]
        assert facts["lse.torch"] == torch.__version__
        assert facts["lse.onnx"] == onnx.__version__
        low, high = json.loads(facts["lse.input_range"])
        assert (low, high) == pytest.approx(
            (float(case.images[:2].min()), float(case.images[:2].max())), rel=1e-5
        )
        with torch.no_grad():
            traces = residual_traces(case.model, case.images[:2])
        assert json.loads(facts["lse.residual"]) == pytest.approx(
            {site: trace[-1] for site, trace in traces.items()}, rel=1e-3
        )
        assert facts == case.report.metadata
    names = cases["broyden"].report.metadata["lse.class_names"]
    assert json.loads(names) == list("abcdefghij")


def test_warps_and_residuals_as_outputs(cases: dict[str, Case]) -> None:
    case = cases["broyden"]
    assert case.report.outputs == ["logits", "warp_x.blocks.0", "warp_y.blocks.0", "residual.blocks.0"]
    session = ort.InferenceSession(str(case.report.path), providers=["CPUExecutionProvider"])
    _, warp_x, warp_y, residual = session.run(None, {"image": case.images.numpy()})
    with torch.no_grad(), recording(case.model) as answers:
        case.model(case.images)
    answer = answers["blocks.0"]
    assert abs(warp_x - answer.warp.x.values.numpy()).max() < 1e-5
    assert abs(warp_y - answer.warp.y.values.numpy()).max() < 1e-5
    assert abs(residual - answer.solution.residual.numpy()).max() < 1e-5


def test_nothing_of_the_machine_is_in_the_file(case: Case) -> None:
    data = case.report.path.read_bytes()
    for trace in (
        str(Path(__file__).parents[1]),
        str(case.report.path.parent),
        "stack_trace",
        "site-packages",
    ):
        assert trace.encode() not in data
    scopes = {node.name.rpartition("/")[0] for node in case.proto.graph.node}
    assert any(scope.endswith("canonicalizer.update.convolutions.0") for scope in scopes)


def test_fewer_steps_leave_the_model_alone_and_bytes_are_the_same_again(
    cases: dict[str, Case], tmp_path: Path
) -> None:
    case = cases["broyden"]
    first = lse_export.export_onnx(case.model, case.images[:1], tmp_path / "a.onnx", steps=1)
    again = lse_export.export_onnx(case.model, case.images[:1], tmp_path / "b.onnx", steps=1)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert first.nodes == again.nodes < case.report.nodes
    assert first.metadata["lse.steps"] == "1"
    assert case.model.canonicalizers["blocks.0"].steps == STEPS
    # verify compares at the file's one step, not at the model's three
    assert lse_export.verify(tmp_path / "a.onnx", case.model, case.images).steps == {"blocks.0": 1}
    with torch.no_grad():
        three = case.model(case.images)
    session = ort.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    (one,) = session.run(None, {"image": case.images.numpy()})
    assert abs(one - three.numpy()).max() > 1e-3


def test_verify_catches_other_weights(cases: dict[str, Case], tmp_path: Path) -> None:
    case = cases["naive"]
    proto = onnx.ModelProto()
    proto.CopyFrom(case.proto)
    bias = next(i for i in proto.graph.initializer if i.name.endswith("head.bias") and i.dims == [10])
    moved = onnx.numpy_helper.to_array(bias) + 0.01
    bias.CopyFrom(onnx.numpy_helper.from_array(moved, bias.name))
    onnx.save(proto, tmp_path / "moved.onnx")
    with pytest.raises(lse_export.VerificationError, match="does not compute what the model computes"):
        lse_export.verify(tmp_path / "moved.onnx", case.model, case.images)
    report = lse_export.verify(tmp_path / "moved.onnx", case.model, case.images, throw=False)
    assert not report.ok
    assert report.max_abs_diff == pytest.approx(0.01, rel=0.01)


def test_verify_says_that_an_update_does_not_contract(cases: dict[str, Case]) -> None:
    class Flip:
        def __call__(self, w: Tensor, proposal: Tensor, ratio: float) -> Tensor:
            return GOAL - w  # there and back again: the residual stays

    torch.manual_seed(0)
    sites = ["image", "blocks.1"]
    model = adapt(vit(), sites, solver="naive", rule=Flip(), steps=STEPS, resolution=8, segments=4).eval()
    images = cases["naive"].images
    report = lse_export.verify(cases["naive"].report.path, model, images, throw=False, edges=False)
    assert not report.ok
    assert list(report.not_contracting) == sites
    assert "does not contract at 'image' (0.2 to 0.2 in 3 steps), 'blocks.1'" in report.summary()
    assert not lse_export.verify(cases["naive"].report.path, cases["naive"].model, images).not_contracting


def test_verify_tells_amplified_rounding_from_a_wrong_file(tmp_path: Path) -> None:
    """A chaotic model: no two implementations can agree, and it is not the export's fault."""

    class Chaos(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.sigmoid(x.mean((2, 3)))
            for _ in range(40):
                y = 3.99 * y * (1 - y)
            return y

    images = pictures(5)
    lse_export.export_onnx(Chaos(), images, tmp_path / "m.onnx", allow_plain=True)
    report = lse_export.verify(tmp_path / "m.onnx", Chaos(), images, edges=False)
    assert report.relative > report.tolerance
    assert {row.verdict for row in report.rows} == {"amplified"}
    assert report.ok
    assert "by rounding of its input alone" in report.summary()


def test_latency_ratio_compares_like_with_like(cases: dict[str, Case]) -> None:
    case = cases["naive"]
    latency = lse_export.latency_ratio(case.report.path, case.model, case.images[:1], rounds=4, warmup=1)
    assert latency > 0
    with pytest.raises(LSEError, match="at least 2 rounds"):
        lse_export.latency_ratio(case.report.path, case.model, case.images, rounds=1)


class Here:
    """Loads one model from one folder: what is tested is the command, not how models are stored."""

    def __init__(self, model: nn.Module, folder: Path) -> None:
        self.model, self.folder = model, folder

    @hookimpl
    def lse_loaders(self) -> dict[str, Any]:
        return {"here": lambda path, *, trust: self.model if path == self.folder else None}


@pytest.fixture
def here(cases: dict[str, Case], tmp_path: Path) -> Iterator[None]:
    registry().register(Here(cases["broyden"].model, tmp_path), "here")
    yield
    registry().unregister("here")


def test_command_line_end_to_end(here: None, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from lse_export.commands import export

    out = tmp_path / "m.onnx"
    run = CliRunner().invoke(
        export, ["onnx", str(tmp_path), "--out", str(out), "--json", "--steps", "auto", "--tolerance", "0.5"]
    )
    assert run.exit_code == 0, run.output
    report = json.loads(run.stdout)
    choice = json.loads(report["metadata"]["lse.steps_choice"])
    assert report["metadata"]["lse.steps"] == str(choice["steps"])
    assert list(report["phases"]) == ["trace", "simplify", "write"]
    assert 0.0 < sum(report["phases"].values()) <= report["seconds"]
    assert "deviation" in run.stderr
    assert out.exists()
    run = CliRunner().invoke(export, ["verify", str(out), str(tmp_path), "--json"])
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout)["ok"] is True
    # the model's three steps are not what another file holds
    run = CliRunner().invoke(export, ["onnx", str(tmp_path), "--out", str(out)])
    assert isinstance(run.exception, OutputError)
    run = CliRunner().invoke(export, ["onnx", str(tmp_path / "absent"), "--out", str(tmp_path / "n.onnx")])
    assert isinstance(run.exception, lse_export.ExportError)
    assert "absent: no such file or folder" in str(run.exception)


def test_the_plain_model_is_timed_beside_the_adapted_one(
    here: None, cases: dict[str, Case], tmp_path: Path
) -> None:
    from click.testing import CliRunner

    from lse_core.cli import main

    model = cases["broyden"].model
    sites = list(model.sites)
    run = CliRunner().invoke(main, ["bench", str(tmp_path), "--rounds", "2", "--ways", "eager", "--json"])
    assert run.exit_code == 0, run.output
    assert [row["model"] for row in json.loads(run.stdout)] == ["plain", "adapted"]
    assert list(model.sites) == sites
    plain = _plain(model)
    assert not hasattr(plain, "canonicalizers")
    with torch.no_grad(), model.without_sites() as base:
        assert torch.equal(plain(cases["broyden"].images), base(cases["broyden"].images))
