"""Folders, files and names from strangers, and what each would do to somebody who trusts it."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from faults.fault import Fault, both, edit, fault, write
from faults.folders import CONFIG, WEIGHTS, config, model, setting
from faults.onnx_files import external, graph
from faults.runs import line

SHELL = {"command": "touch executed"}
CANARY = """
from pathlib import Path
Path("executed").write_text("imported")
def make(**kwargs):
    Path("executed").write_text("called")
"""
IMPORTED = "which would be imported and called"
ELSEWHERE = "would read weights from another file"
WORD = "must be a number to 100,000, a word or a list"


def kwargs(**entries: Any) -> Callable[[Path], None]:
    return edit(CONFIG, lambda values: values["model"]["kwargs"].update(entries))


def command() -> bytes:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, ("touch executed",)

    return pickle.dumps(Evil())


def pickled_weights(place: Path) -> None:
    data = command()
    (place / WEIGHTS).write_bytes(data)
    values = json.loads((place / CONFIG).read_text(encoding="utf-8"))
    values["weights"]["sha256"] = hashlib.sha256(data).hexdigest()
    (place / CONFIG).write_text(json.dumps(values), encoding="utf-8")


def pickled_state(place: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, ("touch executed",)

    (place / "run" / "result.json").unlink()
    torch.save({"step": Evil()}, place / "run" / "state.pt")


def pipe(name: str) -> Callable[[Path], None]:
    def run(place: Path) -> None:
        (place / name).unlink()
        os.mkfifo(place / name)

    return run


def linked(name: str, to: str) -> Callable[[Path], None]:
    def run(place: Path) -> None:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).unlink(missing_ok=True)
        (place / name).symlink_to(to)

    return run


CHANGES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "a config that names a shell": (
        model(source="factory", name="os:system", kwargs=SHELL),
        IMPORTED,
        "run a shell command",
    ),
    "a config that names a function": (
        model(source="factory", name="canary:make"),
        IMPORTED,
        "import a module and call it",
    ),
    "a config that names a model of a hub": (
        model(source="timm", name="hf-hub:evil/model"),
        "hf-hub:evil/model",
        "fetch weights, and code, from a hub",
    ),
    "a config that names a folder's model": (
        model(source="timm", name="local-dir:/tmp"),
        "local-dir:/tmp",
        "read weights from any folder",
    ),
    "a config that names a path": (
        model(source="timm", name="../model"),
        "../model",
        "read what lies beside",
    ),
    "a function that is called timm's": (
        model(source="timm", name="os:system", kwargs=SHELL),
        "os:system",
        "run a shell command",
    ),
    "a function that is called a plugin's": (
        model(source="plugin", name="os:system", kwargs=SHELL),
        "os:system",
        "run a shell command",
    ),
    "a hub's model behind a plugin": (
        model(source="plugin", name="numbers", kwargs={"name": "hf-hub:evil/model"}),
        WORD,
        "fetch weights",
    ),
    "weights of a file behind a plugin": (
        model(source="plugin", name="numbers", kwargs={"name": "resnet18", "checkpoint_path": "x.pth"}),
        ELSEWHERE,
        "unpickle a file",
    ),
    "a keyword that unpickles a file": (
        kwargs(checkpoint_path="/tmp/evil.pth"),
        ELSEWHERE,
        "unpickle a file",
    ),
    "a keyword that fetches weights": (kwargs(pretrained=True), ELSEWHERE, "fetch weights"),
    "a keyword that says where weights lie": (
        kwargs(pretrained_cfg={"file": "x"}),
        ELSEWHERE,
        "unpickle a file",
    ),
    "a keyword that says from where to fetch": (
        kwargs(pretrained_cfg_overlay={"url": "x"}),
        ELSEWHERE,
        "fetch from any address",
    ),
    "a keyword that says where to keep files": (kwargs(cache_dir="/tmp"), ELSEWHERE, "write to any folder"),
    "a keyword that nobody vouches for": (
        kwargs(loader="canary"),
        "loader",
        "do what the next release makes of it",
    ),
    "a function in a keyword": (kwargs(block_fn="canary:make"), WORD, "import a module and call it"),
    "a path in a keyword": (kwargs(global_pool="/etc/passwd"), WORD, "read any file"),
    "a number that fills the memory": (kwargs(depth=10**7), "100,000", "exhaust the memory"),
    "a command as a setting": (
        setting(command={"name": "demo", "settings": {"args": ["--quick", "--out", "executed"]}}),
        "command",
        "run any command of `lse`",
    ),
    "a loader as a setting": (
        setting(loader={"name": "lse-dec", "settings": {"path": "/"}}),
        "loader",
        "read any folder",
    ),
    "a canonicalizer that is a function": (
        setting(canonicalizer="canary:make"),
        "canary:make",
        "import a module",
    ),
    "steps that never end": (setting(steps=10**9), "steps", "compute for weeks"),
    "weights in the folder above": (
        edit(CONFIG, lambda c: c["weights"].update(file="../plain/model.safetensors")),
        "folder itself",
        "read any file",
    ),
    "weights that are a pickle": (pickled_weights, "model.safetensors", "run a shell command"),
    "weights that are a pipe": (pipe(WEIGHTS), "model.safetensors", "wait for ever"),
    "a config that is a pipe": (pipe(CONFIG), "config.json", "wait for ever"),
    "a plugin to install from an address": (
        edit(CONFIG, lambda c: c["adapt"]["plugins"].update({"solver:zzz": "evil --index-url evil.example"})),
        "if you know it",
        "have its reader install a stranger's package",
    ),
    "escape codes of a terminal": (
        config(format="\x1b[2J\x1b]0;owned\x07"),
        "config.json",
        "write to the terminal",
    ),
}

FAULTS: list[Fault] = [
    *(
        fault(
            f"{what}, for {reader}",
            args,
            words,
            prepare=both(write("canary.py", CANARY), damage),
            would=would,
        )
        for what, (damage, words, would) in CHANGES.items()
        for reader, args in {
            "predict": "predict model photos/cup",
            "look": "look model photos/cup/0.png --out look.png",
        }.items()
    ),
    *(
        fault(
            f"a run that names {what}",
            "train run.yaml --out new",
            words,
            prepare=both(write("canary.py", CANARY), line(*change)),
            would=would,
        )
        for what, change, words, would in (
            ("a shell", ("name: resnet10t", "name: 'os:system'"), IMPORTED, "run a shell command"),
            (
                "a function",
                ("name: resnet10t", "name: 'canary:make'"),
                IMPORTED,
                "import a module and call it",
            ),
            (
                "a hub's model",
                ("name: resnet10t", "name: 'hf-hub:evil/model'"),
                "hf-hub:evil/model",
                "fetch weights",
            ),
            (
                "a file of weights",
                ("stem_width: 4}", "stem_width: 4, checkpoint_path: x.pth}"),
                ELSEWHERE,
                "unpickle a file",
            ),
            (
                "a method of its own",
                ("device: cpu", "device: cpu\nmethod: 'canary:make'"),
                IMPORTED,
                "import a module",
            ),
        )
    ),
    fault(
        "a state to resume from that is a pickle",
        "train run.yaml --out run",
        "state.pt",
        prepare=pickled_state,
        would="run a shell command",
    ),
    fault(
        "data that a folder names",
        "evaluate model",
        "--trust",
        prepare=edit(
            CONFIG,
            lambda c: c.update(
                training={"data": {"name": "pictures", "options": {"root": "/"}, "tests": {"all": {}}}}
            ),
        ),
        would="read, and list, any folder",
    ),
    *(
        fault(
            f"an ONNX file with weights at {where}, for {reader}",
            args,
            "model.onnx",
            prepare=external(where),
            would="put a stranger's file into the answer, or into the repository that is served",
        )
        for where in ("/etc/passwd", "../../../../etc/passwd", "photos/../../outside.bin")
        for reader, args in {
            "predict": "predict model.onnx photos/cup",
            "export triton": "export triton model.onnx repo",
            "export verify": "export verify model.onnx model",
        }.items()
    ),
    fault(
        "an ONNX file of a stranger's operators",
        "predict model.onnx photos/cup",
        "model.onnx",
        prepare=graph(lambda proto: setattr(proto.graph.node[0], "domain", "evil.ops")),
        would="ask its reader to load a library",
    ),
    fault(
        "an mmsegmentation folder whose config is a program",
        "export onnx segmentor --out new.onnx --size 32 32",
        "config.py",
        "would be executed",
        "--trust",
        prepare=both(
            write("segmentor/config.py", "import os\nos.system('touch executed')\n"),
            write("segmentor/iter_1.pth", command()),
            write("segmentor/last_checkpoint", "segmentor/iter_1.pth"),
        ),
        would="run any program",
    ),
    fault(
        "an mmsegmentation folder whose checkpoint lies elsewhere",
        "export onnx segmentor --out new.onnx --size 32 32",
        "no such checkpoint",
        prepare=both(
            write("segmentor/config.py", "model = None\n"),
            write("outside.pth", command()),
            write("segmentor/last_checkpoint", "../outside.pth"),
        ),
        would="unpickle a file of any folder",
    ),
    fault(
        "a data set whose images are a pickle",
        "data preview --from digits --out p.png",
        "digits",
        prepare=write("digits/digits.safetensors", command()),
        would="run a shell command",
    ),
    fault(
        "a data set whose images are a pipe",
        "data preview --from digits --out p.png",
        "digits",
        prepare=pipe("digits/digits.safetensors"),
        would="wait for ever",
    ),
    fault(
        "a picture in a data folder that is a link to what is no picture",
        "predict model.onnx photos/cup",
        "a.png",
        prepare=linked("photos/cup/a.png", "/etc/passwd"),
        would="put a stranger's file into the answer",
    ),
    fault(
        "a CSV file that is a link to another",
        "predict model.onnx photos/cup --out out.csv",
        "out.csv",
        prepare=linked("out.csv", "run.yaml"),
        would="overwrite what the link leads to",
    ),
    fault(
        "a recipe's folder that leads away by a link",
        "train recipe.yaml --out results",
        "link",
        prepare=both(linked("results/cells", "../photos")),
        would="write where the link leads",
        changes=("results", "results/*"),
    ),
    fault(
        "a picture whose name breaks the line",
        "predict model.onnx photos/cup",
        "cannot be read",
        prepare=write("photos/cup/a\nerror: all is well.png", b"x"),
        would="forge a line of the output",
    ),
]
