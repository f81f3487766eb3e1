"""ONNX files that are damaged, foreign, hostile or in the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from faults.fault import Fault, cut, fault, write
from onnx import TensorProto, helper


def graph(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def run(place: Path) -> None:
        proto = onnx.load(place / "model.onnx")
        change(proto)
        onnx.save(proto, place / "model.onnx")

    return run


def metadata(**entries: str | None) -> Callable[[Path], None]:
    def change(proto: Any) -> None:
        kept = {p.key: p.value for p in proto.metadata_props}
        for name, value in entries.items():
            kept.pop(f"lse.{name}", None)
            kept.pop(name, None)
            if value is not None:
                kept[f"lse.{name}" if any(k.startswith("lse.") for k in kept) else name] = value
        del proto.metadata_props[:]
        helper.set_model_props(proto, kept)

    return graph(change)


def external(location: str, length: int = 1 << 20) -> Callable[[Path], None]:
    def change(proto: Any) -> None:
        tensor = next(t for t in proto.graph.initializer if len(t.raw_data) >= 64)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value

    return lambda place: (place / "model.onnx").write_bytes(
        _changed(onnx.load(place / "model.onnx"), change).SerializeToString()
    )


def _changed(proto: Any, change: Callable[[Any], Any]) -> Any:
    change(proto)
    return proto


READERS = {
    "predict": "predict model.onnx photos/cup",
    "export check": "export check model.onnx",
    "export verify": "export verify model.onnx model",
    "export triton": "export triton model.onnx repo",
}
DAMAGE: dict[str, Callable[[Path], None]] = {
    "an empty file": write("model.onnx", b""),
    "a text file": write("model.onnx", "no graph at all"),
    "a file cut short": cut("model.onnx", 0.5),
    "weights outside of the folder": external("../../../../etc/passwd"),
    "weights at an absolute path": external("/etc/passwd"),
    "weights in a file that is missing": external("weights.bin"),
    "weights in a file that is too short": lambda place: (
        external("weights.bin")(place),
        (place / "weights.bin").write_bytes(b"x"),
        None,
    )[2],
    "a graph without nodes": graph(lambda proto: proto.graph.ClearField("node")),
    "an operator that does not exist": graph(
        lambda proto: setattr(proto.graph.node[0], "op_type", "Frobnicate")
    ),
    "an operator set of the future": graph(lambda proto: setattr(proto.opset_import[0], "version", 999)),
    "a node that reads nothing": graph(lambda proto: proto.graph.node[0].input.__setitem__(0, "nowhere")),
}

FAULTS: list[Fault] = [
    *(
        fault(
            f"{what}, read by {reader}",
            args,
            "model.onnx" if reader != "export check" else "",
            prepare=damage,
        )
        for what, damage in DAMAGE.items()
        for reader, args in READERS.items()
        # a file that runs nowhere is a finding of `check`, which prints a table
        if not (reader == "export check" and what.startswith(("a graph", "an operator", "a node", "weights")))
    ),
    *(
        fault(
            f"a file that is missing, {reader}",
            args.replace("model.onnx", "none.onnx"),
            "none.onnx",
            status=status,
        )
        for reader, args, status in (
            ("predict", READERS["predict"], 1),
            ("export check", READERS["export check"], 1),
            ("export verify", READERS["export verify"], 1),
            ("export triton", READERS["export triton"], 1),
        )
    ),
    fault("an existing file to export to", "export onnx model --out model.onnx", "model.onnx", "--force"),
    fault("a folder to export to", "export onnx model --out photos", "photos", "folder"),
    fault("a file of another model, verified", "export verify model.onnx plain", status=1),
    fault("an existing CSV file", "predict model.onnx photos/cup --out run.yaml", "run.yaml", "--force"),
    fault(
        "a CSV file in the place of a folder",
        "predict model.onnx photos/cup --out photos",
        "photos",
        "directory",
        status=2,
    ),
    fault(
        "a version that the repository holds",
        "export triton model.onnx repo",
        "repo",
        "version",
        prepare=write("repo/model/1/model.onnx", b"earlier"),
    ),
]
