"""Model folders that are damaged, incomplete, of another format or of another version."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.fault import Fault, both, cut, edit, fault, remove, write

CONFIG, WEIGHTS = "model/config.json", "model/model.safetensors"


def config(**entries: Any) -> Callable[[Path], None]:
    return edit(CONFIG, lambda values: values.update(entries))


def setting(**entries: Any) -> Callable[[Path], None]:
    return edit(CONFIG, lambda values: values["adapt"]["settings"].update(entries))


def model(**entries: Any) -> Callable[[Path], None]:
    return edit(CONFIG, lambda values: values["model"].update(entries))


def preprocess(**entries: Any) -> Callable[[Path], None]:
    return edit(CONFIG, lambda values: values["preprocess"].update(entries))


DAMAGE: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "no config": (remove(CONFIG), ("model",)),
    "an empty config": (write(CONFIG, ""), ("config.json",)),
    "a config cut short": (cut(CONFIG, 0.5), ("config.json",)),
    "a config that is a list": (write(CONFIG, "[]"), ("config.json",)),
    "a config that is no text": (write(CONFIG, b"\xff\xfe\x00"), ("config.json",)),
    "a config nested ten thousand deep": (write(CONFIG, "[" * 10_000 + "]" * 10_000), ("config.json",)),
    "a config of another format": (config(format="onnx"), ("config.json",)),
    "a config of a later version": (config(version=99), ("99",)),
    "a version that is a word": (config(version="two"), ("version",)),
    "an entry nobody knows": (config(extra=1), ("extra",)),
    "steps that are a word": (setting(steps="five"), ("steps", "five")),
    "steps that are none": (setting(steps=0), ("steps",)),
    "a ratio that is a word": (setting(ratio="big"), ("ratio",)),
    "a ratio out of range": (setting(ratio=100), ("ratio",)),
    "segments by the million": (setting(segments=10_000_000), ("segments",)),
    "a setting nobody knows": (setting(segmnts=4), ("segmnts",)),
    "a solver that does not exist": (setting(solver="andersen"), ("andersen",)),
    "a rule that is a number": (setting(rule=3), ("rule",)),
    "a mode that does not exist": (edit(CONFIG, lambda v: v["adapt"].update(mode="odd")), ("odd",)),
    "a site that does not exist": (edit(CONFIG, lambda v: v["adapt"].update(sites=["layer9"])), ("layer9",)),
    "no site at all": (edit(CONFIG, lambda v: v["adapt"].update(sites=[])), ("site",)),
    "a model that does not exist": (model(name="resnet1888"), ("resnet1888",)),
    "a model without a name": (edit(CONFIG, lambda v: v["model"].pop("name") and None), ("name",)),
    "a model of another size": (
        edit(CONFIG, lambda v: v["model"]["kwargs"].update(stem_width=8)),
        ("model.safetensors", "fit"),
    ),
    "a keyword of the wrong type": (
        edit(CONFIG, lambda v: v["model"]["kwargs"].update(channels="x")),
        ("resnet10t",),
    ),
    "a number type that does not exist": (config(dtype="float7"), ("float7",)),
    "a size of zero": (preprocess(size=[0, 32]), ("size",)),
    "a mean that is a word": (preprocess(mean=["a", "b", "c"]), ("mean",)),
    "a standard deviation of zero": (preprocess(std=[0, 1, 1]), ("std",)),
    "channels of the wrong number": (preprocess(channels=4), ("channels",)),
    "an interpolation that does not exist": (preprocess(interpolation="magic"), ("interpolation",)),
    "class names of the wrong number": (config(class_names=["one"]), ("class",)),
    "class names that are numbers": (config(class_names=[1, 2]), ("class_names",)),
    "no weights": (remove(WEIGHTS), ("model.safetensors",)),
    "empty weights": (write(WEIGHTS, b""), ("model.safetensors",)),
    "weights cut short": (cut(WEIGHTS, 0.9), ("model.safetensors",)),
    "weights of another model": (
        lambda place: (place / WEIGHTS).write_bytes((place / "plain/model.safetensors").read_bytes()),
        ("model.safetensors",),
    ),
    "a config of another model": (
        lambda place: (place / CONFIG).write_bytes((place / "plain/config.json").read_bytes()),
        ("model.safetensors",),
    ),
    "weights at another place": (
        edit(CONFIG, lambda v: v["weights"].update(file="/etc/passwd")),
        ("folder itself",),
    ),
}

READERS = {
    "predict": "predict model photos/cup",
    "export onnx": "export onnx model --out new.onnx",
}

FAULTS: list[Fault] = [
    *(
        fault(f"{what}, read by {reader}", args, *words, prepare=damage)
        for what, (damage, words) in DAMAGE.items()
        for reader, args in READERS.items()
    ),
    fault("a folder that is not there", "predict nowhere photos/cup", "nowhere"),
    fault("a folder of something else", "predict photos photos", "photos"),
    fault("a file that is no model", "predict run.yaml photos/cup", "run.yaml"),
    fault("a folder that holds a model already", "adapt plain --site image --out model", "--force"),
    fault("a file in the place of a folder", "adapt plain --site image --out run.yaml", "run.yaml"),
    fault("a model written into itself", "adapt plain --site image --out plain", "plain"),
    fault(
        "a run that is not finished",
        "predict run photos/cup",
        "run",
        prepare=both(remove("run/model/config.json")),
    ),
    fault("a folder to measure that has no data", "evaluate model", "--data"),
    fault(
        "a folder's data that are gone",
        "evaluate run --trust",
        "photos",
        prepare=lambda place: shutil.rmtree(place / "photos"),
    ),
]
