"""What a build does around TensorRT: files whole or absent, errors in one line, options passed on.

TensorRT itself is a stand-in here: classes with the names that a release really has (`tensorrt_names/`) and
no others, methods where it has methods, whose builder makes a few bytes. What TensorRT makes of a file is for
tests/gpu/test_tensorrt_gpu.py, and what TensorRT for RTX makes of it for test_export_rtx.py, for real.
"""

from __future__ import annotations

import json
import signal
import sys
import tomllib
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

import onnx
import pytest
import torch
from onnx import TensorProto, helper

import lse_export
from lse_export.tensorrt.build import BuildOptions
from lse_export.tensorrt.library import BuildProgress

NAMES = Path(__file__).parent / "tensorrt_names"
PLAN, CACHE, LAYERS = b"engine", b"timings", '{"Layers": []}'


def make(path: Path, op: str = "Relu") -> Path:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 3, 8, 8]) for n in ("image", "y"))
    graph = helper.make_graph([helper.make_node(op, ["image"], ["y"], name="it")], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


class StandIn:
    """An object of a TensorRT class: attributes it does not have in that release cannot be read or set."""

    members: set[str]
    methods: set[str]
    kind: str
    library: Library

    def __init__(self, *args: Any) -> None:
        pass

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.members:
            self.library.calls.append((f"{self.kind}.{name}", (value,)))
        elif type(self).__module__ != "lse_export.tensorrt.library":  # our subclasses have more
            raise AttributeError(f"TensorRT {self.library.__version__} has no {self.kind}.{name}")
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in self.members:
            raise AttributeError(f"TensorRT {self.library.__version__} has no {self.kind}.{name}")
        if name not in self.methods:
            return self.library.answer(f"{self.kind}.{name}", ())

        def call(*args: Any) -> Any:
            self.library.calls.append((f"{self.kind}.{name}", args))
            return self.library.answer(f"{self.kind}.{name}", args)

        return call


class Library(ModuleType):
    """The module `tensorrt` of one release; `answers` says what its methods return."""

    def __init__(self, version: str) -> None:
        super().__init__("tensorrt")
        names: dict[str, str] = tomllib.loads((NAMES / f"{version}.toml").read_text("utf-8"))["classes"]
        self.__version__ = version
        self.__spec__ = SimpleNamespace(name="tensorrt")  # type: ignore[assignment]
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.refused: list[str] = []
        self.answers: dict[str, Any] = {}
        for k, (name, members) in enumerate(sorted(names.items())):
            split = {member.removesuffix("()") for member in members.split()}
            methods = {member.removesuffix("()") for member in members.split() if member.endswith("()")}
            owner, _, inner = name.rpartition(".")
            if {"name", "value"} <= split:  # an enum; its numbers mean nothing and differ by release
                made: Any = SimpleNamespace(**{m: k + i for i, m in enumerate(sorted(split))})
            else:
                made = type(name, (StandIn,), {"members": split, "methods": methods, "kind": name,
                                           "library": self})  # fmt: skip
            setattr(getattr(self, owner) if owner else self, inner, made)

    def answer(self, name: str, args: tuple[Any, ...]) -> Any:
        if name in self.answers:
            found = self.answers[name]
            return found(*args) if callable(found) else found
        # fmt: off
        made = {"create_network": "INetworkDefinition", "create_builder_config": "IBuilderConfig",
                "create_optimization_profile": "IOptimizationProfile", "create_timing_cache": "ITimingCache",
                "create_engine_inspector": "EngineInspector", "deserialize_cuda_engine": "ICudaEngine"}
        # fmt: on
        if (method := name.partition(".")[2]) in made:
            return getattr(self, made[method])()
        return {"parse_from_file": True, "add_optimization_profile": 0, "set_timing_cache": True,
                "build_serialized_network": PLAN, "serialize": CACHE,
                "get_engine_information": LAYERS}.get(method)  # fmt: skip

    def given(self, name: str) -> list[tuple[Any, ...]]:
        """Arguments of every call of a method, or values an attribute was set to."""
        return [args for called, args in self.calls if called == name]


@pytest.fixture(params=["10.0.1", "10.16.1.11", "11.0.0.114", "11.4.0.106"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library(request.param)
    monkeypatch.setitem(sys.modules, "tensorrt", made)
    monkeypatch.setattr("lse_export.tensorrt.build.require_gpu", lambda device, hint: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    return made


def test_engine_facts_and_layers_are_written(library: Library, tmp_path: Path) -> None:
    built = lse_export.build_engine(make(tmp_path / "m.onnx"), tmp_path / "e.plan", axes={"batch": (1, 2, 4)})
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "e.plan",
        "e.plan.json",
        "e.plan.layers.json",
        "m.onnx",
    ]
    assert built.path.read_bytes() == PLAN
    assert built.layers.read_text() == LAYERS
    facts = json.loads(built.sidecar.read_text())
    assert facts["tensorrt"] == library.__version__
    assert facts["compute_capability"] == [9, 0]
    assert facts["profile"] == {"image": [[1, 3, 8, 8], [2, 3, 8, 8], [4, 3, 8, 8]]}
    assert facts["inputs"] == {"image": "float32"}
    assert facts["outputs"] == {"y": "float32"}
    flag = library.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert library.given("Builder.create_network") == [(1 << flag,)]
    shapes = ("image", (1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))
    assert library.given("IOptimizationProfile.set_shape") == [shapes]


def test_options_reach_the_builder(library: Library, tmp_path: Path) -> None:
    source = make(tmp_path / "m.onnx")
    lse_export.build_engine(source, tmp_path / "plain.plan")
    assert not library.given("IBuilderConfig.set_flag")
    assert library.given("IBuilderConfig.clear_flag") == [(library.BuilderFlag.TF32,)]
    assert not library.given("IBuilderConfig.set_memory_pool_limit")
    options = BuildOptions(
        workspace_gib=0.5,
        optimization_level=5,
        version_compatible=True,
        hardware_compatible=True,
        refit=True,
        tf32=True,
    )
    library.calls.clear()
    lse_export.build_engine(source, tmp_path / "e.plan", options=options)
    flags = [(library.BuilderFlag.VERSION_COMPATIBLE,), (library.BuilderFlag.REFIT,)]
    assert library.given("IBuilderConfig.set_flag") == flags
    assert not library.given("IBuilderConfig.clear_flag")
    assert library.given("IBuilderConfig.set_memory_pool_limit") == [
        (library.MemoryPoolType.WORKSPACE, 2**29)
    ]
    assert library.given("IBuilderConfig.builder_optimization_level") == [(5,)]
    level = library.HardwareCompatibilityLevel.AMPERE_PLUS
    assert library.given("IBuilderConfig.hardware_compatibility_level") == [(level,)]
    assert library.given("Runtime.engine_host_code_allowed") == [(True,)]
    facts = lse_export.tensorrt.read_facts(tmp_path / "e.plan")
    assert (facts.refit, facts.tf32, facts.optimization_level) == (True, True, 5)


def test_timings_are_kept_for_the_next_build(library: Library, tmp_path: Path) -> None:
    source, cache = make(tmp_path / "m.onnx"), tmp_path / "kernels.cache"
    lse_export.build_engine(source, tmp_path / "e.plan", timing_cache=cache)
    assert cache.read_bytes() == CACHE
    library.calls.clear()
    lse_export.build_engine(source, tmp_path / "e.plan", timing_cache=cache, overwrite=True)
    assert library.given("IBuilderConfig.create_timing_cache") == [(CACHE,)]
    library.calls.clear()
    library.answers["IBuilderConfig.set_timing_cache"] = False  # measured elsewhere
    lse_export.build_engine(source, tmp_path / "e.plan", timing_cache=cache, overwrite=True)
    assert library.given("IBuilderConfig.create_timing_cache") == [(CACHE,), (b"",)]


def test_parser_errors_name_their_nodes(library: Library, tmp_path: Path) -> None:
    said = [("neck/Conv_1", "Conv", "kernel\nis odd"), *(("", "", f"problem {k}") for k in range(6))]

    def error(k: int) -> StandIn:
        made: StandIn = library.ParserError()
        names = ("node_name", "node_operator", "desc")
        library.answers |= {f"ParserError.{n}": text for n, text in zip(names, said[k], strict=True)}
        return made

    library.answers |= {"OnnxParser.parse_from_file": False, "OnnxParser.get_error": error}
    library.answers["OnnxParser.num_errors"] = len(said)
    words = "Conv 'neck/Conv_1': kernel is odd; problem 0; problem 1; problem 2; problem 3; and 2 more"
    with pytest.raises(lse_export.ExportError, match=f"{library.__version__} cannot read .*m.onnx: {words}$"):
        lse_export.build_engine(make(tmp_path / "m.onnx"), tmp_path / "e.plan")
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_a_build_that_fails_tells_what_tensorrt_logged(library: Library, tmp_path: Path) -> None:
    def fail(network: Any, config: Any) -> None:
        (log,) = {args[0] for args in library.given("built")}
        log.log(library.ILogger.Severity.WARNING, "is only a warning")
        log.log(library.ILogger.Severity.ERROR, "no implementation\nfor node it")
        log.log(library.ILogger.Severity.INFO, "is nothing")

    library.Builder.__init__ = lambda self, log: library.calls.append(("built", (log,)))
    library.answers["Builder.build_serialized_network"] = fail
    with pytest.raises(lse_export.ExportError, match=r"cannot build .*\(no implementation for node it\)$"):
        lse_export.build_engine(make(tmp_path / "m.onnx"), tmp_path / "new" / "e.plan")
    assert not list((tmp_path / "new").iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_build_and_leaves_nothing(
    library: Library, tmp_path: Path, number: signal.Signals
) -> None:
    class Impatient(BuildProgress):
        def step(self, phase: str, step: int) -> bool:
            signal.raise_signal(number)
            return super().step(phase, step)

    def stopped(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt(number)

    def build(network: Any, config: Any) -> bytes | None:
        ((monitor,),) = library.given("IBuilderConfig.progress_monitor")
        monitor.phase_start("building", None, 2)
        return PLAN if monitor.step_complete("building", 0) else None

    library.answers["Builder.build_serialized_network"] = build
    before = signal.signal(number, stopped)
    try:
        with Impatient() as progress, pytest.raises(KeyboardInterrupt, match=str(int(number))):
            lse_export.build_engine(make(tmp_path / "m.onnx"), tmp_path / "e.plan", progress=progress)
        assert signal.getsignal(number) is stopped
    finally:
        signal.signal(number, before)
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_the_gate_speaks_before_tensorrt_does(library: Library, tmp_path: Path) -> None:
    with pytest.raises(lse_export.ExportError, match=r"Bernoulli 'it': TensorRT 1[01] has no such operator"):
        lse_export.build_engine(make(tmp_path / "m.onnx", "Bernoulli"), tmp_path / "e.plan")
    assert not library.calls


def test_other_majors_are_refused(library: Library, tmp_path: Path) -> None:
    library.__version__ = "8.6.1"
    with pytest.raises(
        lse_export.ExportError, match=r"TensorRT 8\.6\.1 is installed, but release 10 or 11 is needed"
    ):
        lse_export.build_engine(make(tmp_path / "m.onnx"), tmp_path / "e.plan")
