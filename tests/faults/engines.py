"""Engines of TensorRT that are damaged, or whose sidecar does not fit; a real one is built, without a GPU."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from faults.fault import Fault, both, cut, edit, fault, remove, write
from onnx import TensorProto, helper, save

import lse_export
from lse_export.tensorrt import Engine


@functools.cache
def files() -> dict[str, bytes]:
    """A small engine, its sidecar, and the ONNX file that it was built from, by name."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in "xy")
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], "relu")], "small", [x], [y])
        opset = helper.make_opsetid("", 18)
        save(helper.make_model(graph, opset_imports=[opset], ir_version=10), folder / "small.onnx")
        lse_export.build_engine(folder / "small.onnx", folder / "e.plan", flavour="rtx")
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def engine(place: Path) -> None:
    """Put the engine into the workshop."""
    if find_spec("tensorrt_rtx") is None:
        pytest.skip("TensorRT for RTX has no wheel for this machine")
    for name, data in files().items():
        (place / name).write_bytes(data)


def flip(position: float) -> Callable[[Path], None]:
    """Change one byte of the engine, at a share of its length."""

    def run(place: Path) -> None:
        data = bytearray((place / "e.plan").read_bytes())
        data[int(position * (len(data) - 1))] ^= 0xFF
        (place / "e.plan").write_bytes(data)

    return run


def told(**facts: Any) -> Callable[[Path], None]:
    """Change what the sidecar says; None removes the entry."""

    def change(values: dict[str, Any]) -> None:
        for name, value in facts.items():
            values.pop(name) if value is None else values.update({name: value})

    return edit("e.plan.json", change)


def load(place: Path) -> Any:
    return Engine(place / "e.plan")


def load_for_its_model(place: Path) -> Any:
    return Engine(place / "e.plan", model=place / "small.onnx")


CHANGED = ("e.plan", "changed or truncated", "build it again")
NO_FACTS = ("e.plan.json", "does not describe an engine", "build it again")
DAMAGE: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "an engine cut in half": (cut("e.plan", 0.5), CHANGED),
    "an engine cut by its last byte": (lambda p: (p / "e.plan").write_bytes(files()["e.plan"][:-1]), CHANGED),
    "an empty engine": (write("e.plan", b""), CHANGED),
    "an engine with its first byte flipped": (flip(0.0), CHANGED),
    "an engine with a byte flipped in the middle": (flip(0.5), CHANGED),
    "an engine with its last byte flipped": (flip(1.0), CHANGED),
    "an engine with bytes behind its end": (
        lambda p: (p / "e.plan").write_bytes(files()["e.plan"] + b"more"),
        CHANGED,
    ),
    "another file in the place of an engine": (write("e.plan", "no engine at all"), CHANGED),
    "an engine that is missing": (remove("e.plan"), ("e.plan", "no such file", "lse export tensorrt")),
    "an engine without its sidecar": (remove("e.plan.json"), ("e.plan.json", "no such file")),
    "a sidecar of another engine": (told(engine_hash="0" * 64), CHANGED),
    "a sidecar cut in half": (cut("e.plan.json", 0.5), NO_FACTS),
    "a sidecar that is no JSON": (write("e.plan.json", "TensorRT"), NO_FACTS),
    "a sidecar that is a list": (write("e.plan.json", "[]"), NO_FACTS),
    "a sidecar nested without end": (write("e.plan.json", "[" * 100_000), NO_FACTS),
    "a sidecar without the hash": (told(engine_hash=None), (*NO_FACTS, "engine_hash")),
    "a sidecar without the profile": (told(profile=None), (*NO_FACTS, "profile")),
    "a sidecar with a profile of words": (told(profile={"x": "large"}), (*NO_FACTS, "profile")),
    "a sidecar of a flavour that does not exist": (told(flavour="gtx"), (*NO_FACTS, "flavour")),
    "a sidecar with a capability of words": (
        told(compute_capability="8.6"),
        (*NO_FACTS, "compute_capability"),
    ),
}  # fmt: skip


def elsewhere(place: Path) -> None:
    """The sidecar of TensorRT proper, whose engines Triton runs."""
    told(flavour="tensorrt")(place)


FAULTS: list[Fault] = [
    *(
        fault(f"{what}, loaded", load, *words, prepare=both(engine, damage))
        for what, (damage, words) in DAMAGE.items()
    ),
    *(
        fault(
            f"{what}, served",
            "export triton small.onnx repo --plan e.plan",
            *words,
            prepare=both(engine, elsewhere, damage),
        )
        for what, (damage, words) in DAMAGE.items()
        # one without a sidecar was built by other means, and one of TensorRT for RTX is refused as such
        if what not in ("an engine without its sidecar", "a sidecar of a flavour that does not exist")
    ),
    fault(
        "an engine of another model, loaded",
        load_for_its_model,
        "e.plan was built from another model",
        "small.onnx",
        prepare=both(engine, lambda place: (place / "model.onnx").replace(place / "small.onnx")),
    ),
    fault(
        "an engine of another model, served",
        "export triton model.onnx repo --plan e.plan",
        "e.plan was built from another model",
        "model.onnx",
        prepare=both(engine, elsewhere),
    ),
    fault(
        "an engine of TensorRT for RTX, served",
        "export triton small.onnx repo --plan e.plan",
        "e.plan was built by TensorRT for RTX",
        "leave the plan out",
        prepare=engine,
    ),
    fault(
        "an ONNX file as an engine",
        lambda place: Engine(place / "model.onnx"),
        "model.onnx.json",
        "no such file",
    ),
]  # fmt: skip
