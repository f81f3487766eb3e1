"""A model repository for Triton Inference Server: the folder layout and `config.pbtxt`."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from lse_core.atomic import staging
from lse_core.errors import LSEError, OutputError, unknown_name
from lse_export.errors import ExportError
from lse_export.gate import check
from lse_export.gate.graph import open_model, sizes_of, type_name, weight_files
from lse_export.metadata import facts_of

__all__ = ["TritonModel", "write_triton"]

# types that Triton can pass
_TYPES = ("float32", "float16", "bfloat16", "float64", "int8", "int16", "int32", "int64",
          "uint8", "uint16", "uint32", "uint64", "bool", "string")  # fmt: skip
LABELS = "labels.txt"
PARAMETERS = ("lse.preprocess", "lse.raw_pictures")  # metadata that the config passes on to clients
OURS = frozenset({"model.onnx", "model.plan", "config.pbtxt", LABELS})  # names in the folder
LARGEST = 32  # batch, where nothing else is said


class _Enum(str):
    """A member of an enumeration of protobuf, which its text format does not quote."""


KINDS = {"cpu": _Enum("KIND_CPU"), "gpu": _Enum("KIND_GPU"), "auto": _Enum("KIND_AUTO")}
"""Where Triton runs the instances of a model."""


@dataclass(frozen=True)
class TritonModel:
    """What was written.

    Attributes:
        folder: the model's folder in the repository.
        config: text of its `config.pbtxt`.
        model: the model file in its version folder.
        max_batch_size: largest batch Triton will form; 0 where the batch is fixed.
    """

    folder: Path
    config: str
    model: Path
    max_batch_size: int


def write_triton(
    path: str | Path,
    repository: str | Path,
    *,
    name: str | None = None,
    version: int = 1,
    plan: str | Path | None = None,
    max_batch_size: int | None = None,
    max_queue_delay_us: int = 100,
    kind: str = "auto",
    instances: int = 1,
    warmup: bool = True,
) -> TritonModel:
    """Write one model into a Triton model repository.

    What the file's metadata say of preprocessing goes into the config as parameters, "lse.preprocess" and,
    where the file takes raw pictures, "lse.raw_pictures"; names of classes into labels.txt.

    Args:
        path: an ONNX file; its inputs and outputs describe the model.
        repository: the repository's folder, made where absent.
        name: the model's name there, of letters, digits, ".", "-" and "_"; None takes the file's.
        version: its version, at least 1.
        plan: a TensorRT engine built from `path`, served in its place. One that `build_engine` wrote must
            have been built from this very file.
        max_batch_size: largest batch formed of requests that wait; ignored where the batch is fixed. None:
            32, or the largest that the engine's profile allows.
        max_queue_delay_us: how long a request may wait for others, microseconds.
        kind: "cpu", "gpu" or "auto", where instances run.
        instances: how many run side by side.
        warmup: let Triton run a random batch before it reports the model ready.

    Raises:
        ExportError: no ONNX file or one that would not run, a foreign plan, a type unknown to Triton.
        OutputError: the repository has this version already, or cannot be written.
        LSEError: a setting out of range.
    """
    path, repository = Path(path), Path(repository)
    if kind not in KINDS:
        raise unknown_name("kind of instance", kind, KINDS)
    most = LARGEST if plan is None else _largest(Path(plan), path)
    asked = most if max_batch_size is None else max_batch_size
    if version < 1 or instances < 1 or asked < 1 or max_queue_delay_us < 0:
        raise LSEError(
            "version, instances and max_batch_size must be at least 1, the queue delay not negative"
        )
    if plan is not None and (asked > most or kind == "cpu"):
        raise LSEError(
            f"the engine runs on GPUs, batches up to {most}; got {kind!r} and max_batch_size {asked}"
        )
    name = name or path.stem
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise LSEError(f"{name!r} cannot be a model's name: use letters, digits, '.', '-' and '_'")
    proto = open_model(path).proto
    graph, facts = proto.graph, facts_of(path, proto)
    inputs, outputs = ([_tensor(value) for value in values] for values in (graph.input, graph.output))
    scores = outputs[0][2] if outputs else []
    count = scores[1] if len(scores) == 2 and scores[1] > 0 else None
    labels = [" ".join(label.split()) for label in facts.class_names(count)]
    facts.preprocess()  # what clients are told must be true
    facts.raw_pictures()
    batched = all(shape[:1] == [-1] for _, _, shape in (*inputs, *outputs))
    largest = asked if batched else 0
    # without the batch axis, where Triton adds that
    taken, shown = (
        [{"name": n, "data_type": kind, "dims": shape[batched:]} for n, kind, shape in tensors]
        for tensors in (inputs, outputs)
    )
    if labels:
        shown[0]["label_filename"] = LABELS
    told = {key: facts.metadata[key] for key in PARAMETERS if key in facts.metadata}
    config: dict[str, Any] = {
        "name": name,
        "backend": "tensorrt" if plan else "onnxruntime",
        "max_batch_size": largest,
        "input": taken,
        "output": shown,
        "parameters": [{"key": key, "value": {"string_value": text}} for key, text in told.items()],
        "instance_group": {"kind": KINDS[kind], "count": instances},
    }
    if batched:
        config["dynamic_batching"] = {"max_queue_delay_microseconds": max_queue_delay_us}
    if warmup:  # what varies is warmed up at size 1
        random = [
            {"key": tensor, "value": {"data_type": kind, "dims": [max(n, 1) for n in shape[batched:]],
                                      "random_data": True}}
            for tensor, kind, shape in inputs
        ]  # fmt: skip
        config["model_warmup"] = {"name": "random", "batch_size": int(batched), "inputs": random}
    text = "".join(_text({key: value}) + "\n" for key, value in config.items() if value != [])
    # external weights must keep their names
    weights = [(path.parent / name, name) for name in _weights(path, graph)]
    found = [] if plan else check(path, "onnxruntime").problems
    if wrong := [problem for problem in found if problem.severity == "error"]:
        raise ExportError(f"{path} would not run in Triton: {wrong[0]} (lse export check {path} shows all)")
    files = [(Path(plan), "model.plan")] if plan else [(path, "model.onnx"), *weights]
    folder = repository / name
    _place(folder, version, text, files, labels)
    return TritonModel(folder, text, folder / str(version) / files[0][1], largest)


def _weights(path: Path, graph: onnx.GraphProto) -> list[str]:
    """Names of the files of external weights; none may take the place of another file of the model."""
    names = weight_files(path, graph)
    for name in names:
        if Path(name).parts[0].casefold() in OURS:
            raise ExportError(
                f"{path} keeps weights in {name!r}, a name that Triton's folder needs for another file; "
                "save the model again with its weights under another name"
            )
    return names


def _tensor(value: onnx.ValueInfoProto) -> tuple[str, _Enum, list[int]]:
    """Name, Triton type and shape, -1 for what varies."""
    kind = type_name(value.type.tensor_type.elem_type)
    if kind not in _TYPES:
        raise ExportError(f"{value.name!r} is {kind}, which Triton cannot pass")
    name = kind.replace("bfloat", "bf").replace("float", "fp").upper()
    return value.name, _Enum(f"TYPE_{name}"), [-1 if n is None else n for n in sizes_of(value)]


def _text(message: Mapping[str, Any]) -> str:
    """A message in protobuf's text format; names of tensors may hold anything."""
    parts = []
    for key, value in message.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, Mapping):
                parts.append(f"{key} {{ {_text(each)} }}")
            else:
                parts.append(
                    f"{key}: {each if isinstance(each, _Enum) else json.dumps(each, ensure_ascii=False)}"
                )
    return " ".join(parts)


def _largest(plan: Path, model: Path) -> int:
    """Largest batch of an engine, which must have been built from `model` where that can be known."""
    from lse_export.tensorrt.sidecar import check_files, read_facts, sidecar_of

    if plan.is_file() and not sidecar_of(plan).is_file():  # built by other means
        return LARGEST
    facts = read_facts(plan)
    if facts.flavour != "tensorrt":
        raise ExportError(
            f"{plan} was built by TensorRT for RTX, which Triton does not run; leave the plan out"
        )
    check_files(facts, plan, model)
    return min(largest[0] for _, _, largest in facts.profile.values())


def _place(
    folder: Path, version: int, config: str, files: list[tuple[Path, str]], labels: Sequence[str]
) -> None:
    """Fill the version's folder beside its place and move it there whole, then the config."""
    target = folder / str(version)
    if target.exists():
        raise OutputError(f"{target} exists already; choose another version or name")
    try:
        # Triton looks at numbered folders only, so a dotted one is invisible to a running server
        with staging(target) as work:
            for source, name in files:
                (work / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, work / name)
            (work / "config.pbtxt").write_text(config, "utf-8")
            if labels:
                (work / LABELS).write_text("\n".join(labels) + "\n", "utf-8")
                os.replace(work / LABELS, folder / LABELS)
            os.replace(work / "config.pbtxt", folder / "config.pbtxt")
            work.chmod(0o755)
            os.replace(work, target)
    finally:
        with suppress(OSError):  # raised unless the folder is empty, as after an error
            folder.rmdir()
