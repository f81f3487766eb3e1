"""Folders, configs and names from strangers: nothing in them is executed, imported or fetched unasked."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from click.testing import CliRunner
from PIL import Image

import lse_dec
from lse_core.cli import main
from lse_core.errors import LSEError
from lse_export.loading import load_model

SMALL = {"num_classes": 2, "channels": (8, 8, 8, 8), "stem_width": 8}
CANARY = """
from pathlib import Path
Path("executed").write_text("imported")
import timm
def make(**kwargs):
    Path("executed").write_text("called")
    return timm.create_model("resnet10t", num_classes=2, channels=(8, 8, 8, 8), stem_width=8, **kwargs)
"""
SHELL = {"command": "touch executed"}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """A folder with a canary that tells when it is imported; sockets are forbidden, and watched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("canary.py").write_text(CANARY)
    Image.new("RGB", (40, 40), (9, 99, 199)).save("a.png")
    opened: list[Any] = []

    def refuse(*args: Any, **_: Any) -> Any:
        opened.append(args)
        raise OSError("sockets are forbidden in this test")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield opened
    sys.modules.pop("canary", None)
    assert opened == []
    assert not Path("executed").exists()


def small(**kwargs: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model("resnet10t", **{**SMALL, **kwargs}).eval()


def saved(folder: str) -> Path:
    adapted = lse_dec.adapt(small(), "image", segments=3, projection=4, widths=[8], resolution=8)
    return lse_dec.save(adapted, folder, model_kwargs=SMALL)


Change = Callable[[dict[str, Any]], Any]


def model(**entries: Any) -> Change:
    return lambda config: config.update(model=entries)


def kwargs(**entries: Any) -> Change:
    return lambda config: config["model"]["kwargs"].update(entries)


def setting(**entries: Any) -> Change:
    return lambda config: config["adapt"]["settings"].update(entries)


CHANGES: dict[str, tuple[Change, str]] = {
    "a shell": (
        model(source="factory", name="os:system", kwargs=SHELL),
        "which would be imported and called",
    ),
    "an import": (model(source="factory", name="canary:make"), "which would be imported and called"),
    "a hub's model": (
        model(source="timm", name="hf-hub:evil/model"),
        "unknown timm model 'hf-hub:evil/model'",
    ),
    "a folder's model": (model(source="timm", name="local-dir:/tmp"), "unknown timm model 'local-dir:/tmp'"),
    "a path for a name": (model(source="timm", name="../model"), "unknown timm model '../model'"),
    "a factory as timm's": (
        model(source="timm", name="os:system", kwargs=SHELL),
        "unknown timm model 'os:system'",
    ),
    "a factory as a plugin": (
        model(source="plugin", name="os:system", kwargs=SHELL),
        "unknown model 'os:system'",
    ),
    "a hub behind a plugin": (
        model(source="plugin", name="numbers", kwargs={"name": "hf-hub:evil/model"}),
        "must be a number to 100,000, a word or a list",
    ),
    "weights behind a plugin": (
        model(source="plugin", name="numbers", kwargs={"name": "resnet18", "checkpoint_path": "x.pth"}),
        "'checkpoint_path' of the model 'numbers' would read weights from another file",
    ),
    "weights of a checkpoint": (
        kwargs(checkpoint_path="/tmp/evil.pth"),
        "would read weights from another file",
    ),
    "pretrained weights": (kwargs(pretrained=True), "would read weights from another file"),
    "weights of a config": (kwargs(pretrained_cfg={"file": "x"}), "would read weights from another file"),
    "weights of an overlay": (
        kwargs(pretrained_cfg_overlay={"url": "x"}),
        "would read weights from another file",
    ),
    "a cache": (kwargs(cache_dir="/tmp"), "would read weights from another file"),
    "an unknown keyword": (kwargs(loader="canary"), "the keyword 'loader', which is not among"),
    "a function in a keyword": (
        kwargs(block_fn="canary:make"),
        "must be a number to 100,000, a word or a list",
    ),
    "a path in a keyword": (
        kwargs(global_pool="/etc/passwd"),
        "must be a number to 100,000, a word or a list",
    ),
    "a command as a setting": (
        setting(command={"name": "demo", "settings": {"args": ["--quick", "--out", "executed"]}}),
        "setting 'command' names 'demo'",
    ),
    "a loader as a setting": (
        setting(loader={"name": "lse-dec", "settings": {"path": "/"}}),
        "setting 'loader' names 'lse-dec'",
    ),
    "a canonicalizer of no plugin": (
        setting(canonicalizer="canary:make"),
        "unknown canonicalizer 'canary:make'",
    ),
    "weights outside": (lambda c: c["weights"].update(file="../other.safetensors"), "in the folder itself"),
    "weights at a path": (lambda c: c["weights"].update(file="/etc/passwd"), "in the folder itself"),
}

COMMANDS: dict[str, list[str]] = {
    "evaluate": ["evaluate", "DIR", "--data", "pictures", "--set", "root=."],
    "look": ["look", "DIR", "a.png", "--out", "look.png"],
    "export": ["export", "onnx", "DIR", "--out", "model.onnx"],
    "verify": ["export", "verify", "model.onnx", "DIR"],
    "bench": ["bench", "DIR"],
    "predict": ["predict", "DIR", "a.png"],
    "adapt": ["adapt", "DIR", "--out", "again"],
}


def refused(args: list[str], words: str) -> None:
    done = CliRunner().invoke(main, args, standalone_mode=True)
    assert done.exit_code == 1, (args, done.output)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, (args, done.stderr)
    assert lines[0].startswith("error: ")
    assert words in lines[0]


def edited(folder: Path, change: Change) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("name", CHANGES)
def test_a_strangers_config_is_refused_by_every_command(name: str) -> None:
    change, words = CHANGES[name]
    edited(saved("evil"), change)
    for args in COMMANDS.values():
        refused([arg.replace("DIR", "evil") for arg in args], words)
    with pytest.raises(LSEError):
        lse_dec.load("evil")
    with pytest.raises(LSEError):
        lse_dec.AdaptedModel.from_pretrained("evil")


def run_of(told: dict[str, Any]) -> dict[str, Any]:
    """What version 1 wrote beside the weights of a run."""
    data = {"name": "digits", "options": {}, "train": {}, "val": None, "tests": {}}
    config = {"model": told, "data": data, "precision": "float32"}
    return {"config": config, "mean": [0.1], "std": [0.3], "resolution": [32, 32]}


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"name": "os:system", "kwargs": SHELL}, "which would be imported and called"),
        ({"name": "canary:make", "kwargs": {}}, "which would be imported and called"),
        ({"name": "hf-hub:evil/model", "kwargs": {}}, "'hf-hub:evil/model'"),
        (
            {"name": "resnet10t", "kwargs": {"checkpoint_path": "/tmp/evil.pth"}},
            "would read weights from another file",
        ),
    ],
)
@pytest.mark.parametrize("config", ["deleted", "given"])
def test_a_run_of_the_older_version_is_refused_too(told: dict[str, Any], words: str, config: str) -> None:
    folder = saved("evil")
    weights = folder / "model.safetensors"
    if config == "deleted":
        (folder / "config.json").unlink()
    else:
        sha = hashlib.sha256(weights.read_bytes()).hexdigest()
        old = {
            "format": "lse-dec", "version": 1, "lse_dec": "0.1.0", "sites": ["image"], "mode": "invariant",
            "model": {"source": "given", "class": "timm.ResNet"}, "settings": {}, "dtype": "float32",
            "weights": {"file": "model.safetensors", "sha256": sha}, "plugins": {},
        }  # fmt: skip
        (folder / "config.json").write_text(json.dumps(old))
    (folder / "run.json").write_text(json.dumps(run_of(told)))
    for args in COMMANDS.values():
        refused([arg.replace("DIR", "evil") for arg in args], words)


def test_weights_that_are_a_pickle() -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            import os

            return os.system, ("touch executed",)

    folder = saved("evil")
    data = pickle.dumps(Evil())
    (folder / "model.safetensors").write_bytes(data)
    refused(["predict", "evil", "a.png"], "is not the file that its config.json belongs to")
    edited(folder, lambda c: c["weights"].update(sha256=hashlib.sha256(data).hexdigest()))
    refused(["predict", "evil", "a.png"], "is damaged")


RUN = """
model: {{name: "{name}", kwargs: {kwargs}{initial}}}
data: {{name: digits, options: {{resolution: 32, count: 8}}, mean: 0.1, std: 0.3}}
method: "{method}"
adapt: {{sites: [image], segments: 3, projection: 4, widths: [8], resolution: 8}}
steps: 2
batch_size: 4
device: cpu
"""
OWN = {"in_chans": 1, "num_classes": 1000, "channels": [8, 8, 8, 8], "stem_width": 8}


def written(name: str = "resnet10t", kwargs: Any = OWN, method: str = "plain", initial: str = "") -> str:
    Path("run.yaml").write_text(
        RUN.format(name=name, kwargs=json.dumps(kwargs), method=method, initial=initial)
    )
    return "run.yaml"


RECIPE = "table: t\ntitle: T\nseeds: 1\naxes: {a: {b: {}}}\nreports: []\nrun:\n"


@pytest.mark.parametrize("kind", ["run", "recipe"])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "os:system", "kwargs": SHELL}, "which would be imported and called"),
        ({"name": "canary:make", "kwargs": {}}, "which would be imported and called"),
        ({"name": "hf-hub:evil/model", "kwargs": {}}, "'hf-hub:evil/model'"),
        ({"kwargs": {"checkpoint_path": "/tmp/evil.pth"}}, "would read weights from another file"),
        ({"method": "canary:make"}, "the class 'canary:make', which would be imported and called"),
    ],
)
def test_a_strangers_run_is_refused(
    settings: dict[str, Any], words: str, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LSE_CACHE", str(tmp_path / "cache"))
    path = Path(written(**settings))
    if kind == "recipe":
        path.write_text(RECIPE + "".join(f"  {line}\n" for line in path.read_text().strip().splitlines()))
    done = CliRunner().invoke(main, ["train", str(path), "--out", "out"], standalone_mode=True)
    assert done.exit_code == 1, done.output
    assert words in done.stderr.splitlines()[-1]


def test_a_folder_to_begin_from_gives_weights_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LSE_CACHE", str(tmp_path / "cache"))
    whole = {**SMALL, "in_chans": 1, "num_classes": 1000}
    lse_dec.save(timm.create_model("resnet10t", **whole), "evil", model_kwargs=whole)
    edited(Path("evil"), model(source="factory", name="os:system", kwargs=SHELL))
    done = CliRunner().invoke(main, ["train", written(initial=", initial: evil"), "--out", "out"])
    assert done.exit_code == 0, done.output


def test_a_state_to_resume_from_is_no_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LSE_CACHE", str(tmp_path / "cache"))

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            import os

            return os.system, ("touch executed",)

    from lse_train import RunConfig

    Path("out").mkdir()
    Path("out/settings.json").write_text(json.dumps(RunConfig.read(written()).plain()))
    torch.save({"step": Evil()}, "out/state.pt")
    refused_run = CliRunner().invoke(main, ["train", "run.yaml", "--out", "out"], standalone_mode=True)
    assert refused_run.exit_code == 1
    assert "state.pt is damaged (UnpicklingError)" in refused_run.stderr.splitlines()[-1]


def test_data_that_a_folder_names_are_not_read() -> None:
    folder = saved("evil")
    Path("private").mkdir()
    shutil.copy("a.png", "private")
    for options in (
        {"root": "private"},
        {"root": str(Path("private").resolve())},
        {"deep": ["x", "~"]},
        {"cache_dir": "new"},
    ):
        data = {"name": "pictures", "options": options, "tests": {"all": {}}}
        edited(folder, lambda c, data=data: c.update(training={"data": data}))  # type: ignore[misc]
        refused(["evaluate", "evil"], "which would be used: if you trust this folder, pass --trust, or name")


def test_a_config_of_mmengine_is_refused_by_every_command() -> None:
    pytest.importorskip("mmseg")
    Path("work").mkdir()
    Path("work/config.py").write_text("open('executed', 'w').write('config')\nmodel = {}\n")
    Path("work/last_checkpoint").write_text("iter_1.pth")
    Path("work/iter_1.pth").write_bytes(b"")
    for name in ("export", "verify", "bench", "predict"):
        args = [arg.replace("DIR", "work") for arg in COMMANDS[name]]
        refused(args, "is a config of mmengine, which is Python code and would be executed")


def test_with_trust_a_function_of_ones_own_goes_the_whole_way() -> None:
    refused(["adapt", "canary:make", "--list"], "which would be imported and called")
    assert not Path("executed").exists()
    run = ["adapt", "canary:make", "--trust", "--site", "image", "--set", "segments=3", "--size", "40", "40",
           "--mean", "0.5", "--std", "0.2", "--out", "mine"]  # fmt: skip
    done = CliRunner().invoke(main, run, standalone_mode=True)
    assert done.exit_code == 0, done.output
    assert Path("executed").read_text() == "called"
    told = json.loads(Path("mine/config.json").read_text())["model"]
    assert told == {"source": "factory", "name": "canary:make", "kwargs": {}}
    again = CliRunner().invoke(main, run, standalone_mode=True)
    assert again.stderr == (
        "error: mine holds a model already; choose another folder, or --force to replace it\n"
    )
    assert CliRunner().invoke(main, [*run, "--force"], standalone_mode=True).exit_code == 0
    Path("executed").unlink()
    refused(["predict", "mine", "a.png"], "'canary:make', which would be imported and called: if you trust")
    assert not Path("executed").exists()
    for args in (["predict", "mine", "a.png"], ["look", "mine", "a.png", "--out", "look.png"]):
        done = CliRunner().invoke(main, [*args, "--trust"], standalone_mode=True)
        assert done.exit_code == 0, done.output
    assert isinstance(load_model(Path("mine"), trust=True), lse_dec.AdaptedModel)
    assert isinstance(lse_dec.load("mine", trust=True), lse_dec.AdaptedModel)
    Path("executed").unlink()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (setting(solver=0), "setting 'solver' must name a plugin; got 0"),
        (setting(rule=[]), "setting 'rule' must name a plugin"),
        (setting(segments=1e308), "must be a number within 10000"),
        (setting(steps=10**9), "must be a number within 10000"),
        (setting(steps=2.5), "setting 'steps' must be a whole number of at least 1; got 2.5"),
        (setting(widths=[-1]), "setting 'widths' must be a whole number of at least 1; got -1"),
        (setting(projection=-1), "does not fit"),
        (kwargs(depth=10**7), "must be a number to 100,000"),
        (lambda c: c.update(dtype="complex64"), "unknown dtype 'complex64'"),
        (lambda c: c["weights"].update(file="a\0b"), "in the folder itself"),
        (lambda c: c["weights"].update(file=".."), "in the folder itself"),
        (lambda c: c["preprocess"].update(std=[1e-320] * 3), "greater than or equal to 0.000001"),
        (lambda c: c["preprocess"].update(crop_pct=1e-9), "greater than or equal to 0.01"),
        (
            lambda c: c["adapt"]["plugins"].update({"solver:zzz": "evil --index-url http://evil/"}),
            "It says that it comes from 'evil --index-url http://evil/': install that if you know it",
        ),
        (
            lambda c: c["adapt"]["plugins"].update({"nokind:q": "z"}),
            "is no kind of plugin that a model may ask for",
        ),
    ],
)
def test_odd_values_are_refused_in_one_line(change: Change, words: str) -> None:
    edited(saved("evil"), change)
    refused(["predict", "evil", "a.png"], words)


def test_a_pipe_for_weights_is_refused() -> None:
    import os

    folder = saved("evil")
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    refused(["predict", "evil", "a.png"], "model.safetensors is no file")


def test_adapt_leaves_runs_alone() -> None:
    args = ["adapt", "resnet10t", "--site", "image", "--out", "run", "--force"]
    for name in ("settings.json", "results.json", "model/config.json", "dec/config.json"):
        path = Path("run", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        refused(args, f"run is the folder of a run (it contains {name}): choose another folder")
        path.unlink()
    refused([*args[:-1], "--set", "segments=x"], "setting of DEC 'segments': input should be a valid integer")
    refused([*args[:-1], "--set", "segments=-3"], "segments must be at least 2")
    done = CliRunner().invoke(main, [*args, "--set", "rule=compose"], standalone_mode=True)
    assert done.exit_code == 2
    assert "rule is not set by --set; use its own option --rule" in done.stderr
