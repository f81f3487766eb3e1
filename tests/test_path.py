"""The whole path with pictures of one's own: train, evaluate, export, verify, predict, serve.

Whatever computes the answer, torch, ONNX Runtime, a file that prepares raw pictures itself, or a client that
follows Triton's config, it is the same answer for every picture.
"""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from google.protobuf import text_format
from PIL import Image
from tritonclient.grpc import model_config_pb2

from lse_core import Preprocess
from lse_core.cli import main

SIDES = (60, 90)  # height and width of every picture, once upright
TOLERANCE = 1e-4  # of a probability

RUN = """
model: {{name: "{name}", kwargs: {kwargs}}}
data:
  name: image_folder
  options: {{root: photos, resolution: [48, 64], channels: {channels}, crop: 0.9, skip_bad: true}}
  val: {{}}
  mean: 0.3
  std: 0.4
adapt: {{sites: [image], segments: 4, projection: 4, widths: [8], resolution: 8}}
canonicalizer: {{task_gradient: true}}
steps: 12
batch_size: 8
device: cpu
"""

SMALL = {"num_classes": 2, "channels": [8, 8, 8, 8], "stem_width": 8}
MODELS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "three channels": (3, "resnet10t", SMALL),
    "one channel": (1, "resnet10t", {**SMALL, "in_chans": 1}),
    "a recipe's": (
        1,
        "lse_dec.recipes.models:number_model",
        {"name": "small_resnet", "pool": True, "channels": [8, 8, 8, 8]},
    ),
}


def photograph(generator: np.random.Generator, label: int) -> np.ndarray[Any, Any]:
    """Broad stripes along x (0) or along y (1), of any colours, with noise: uint8 (H, W, 3)."""
    y, x = np.mgrid[: SIDES[0], : SIDES[1]]
    wave = np.sin(2 * np.pi * (x if label == 0 else y) / generator.uniform(12, 20))[..., None]
    colours = generator.uniform(40, 215, (2, 3))
    mixed = colours[0] + (colours[1] - colours[0]) * (wave + 1) / 2
    return (mixed + generator.normal(0, 12, mixed.shape)).clip(0, 255).astype(np.uint8)


def write_photos(root: Path) -> None:
    """Two classes; some pictures lie on their side and say so, some are grey or have 16 bits, one broken."""
    generator = np.random.default_rng(0)
    for label, name in enumerate(("along", "across")):
        (root / name).mkdir(parents=True)
        for number in range(8):
            pixels = photograph(generator, label)
            if number == 2:
                grey = pixels.mean(-1).astype(np.uint16) * 257
                Image.fromarray(grey).save(root / name / "sixteen.png")
            elif number == 3:
                Image.fromarray(pixels).convert("L").save(root / name / "grey.jpg", quality=95)
            elif number in (4, 5):
                exif = Image.Exif()
                exif[0x0112] = 6  # to be turned clockwise: stored turned the other way
                turned = Image.fromarray(np.rot90(pixels).copy())
                turned.save(root / name / f"turned{number}.jpg", exif=exif, quality=95)
            else:
                Image.fromarray(pixels).save(root / name / f"{number}.jpg", quality=95)
    whole = (root / "along" / "0.jpg").read_bytes()
    (root / "along" / "broken.jpg").write_bytes(whole[: len(whole) // 2])


def lse(*args: object, status: int = 0) -> Any:
    done = CliRunner().invoke(main, [str(arg) for arg in args], standalone_mode=True)
    assert done.exit_code == status, done.output
    return done


def answers(model: Path, out: Path) -> dict[str, dict[str, float]]:
    """Probabilities of the classes by picture, as `lse predict` writes them; {} for the broken one."""
    done = lse("predict", model, "photos/along", "photos/across", "--top", 2, "--out", out, "--skip-bad")
    assert f"wrote {out}: 16 pictures" in done.stdout
    assert "left out 1 of 17 pictures" in done.stderr
    assert "broken.jpg cannot be read as a picture" in done.stderr
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 17
    assert [row["file"] for row in rows if row["error"]] == ["photos/along/broken.jpg"]
    return {
        row["file"]: {
            row[f"class{rank}"]: float(row[f"probability{rank}"]) for rank in ("", "_2") if row["class"]
        }
        for row in rows
    }


def served(repository: Path, files: list[str]) -> dict[str, dict[str, float]]:
    """What a client computes that knows nothing but the model's folder in a Triton repository."""
    (folder,) = repository.iterdir()
    config = text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    prepare = Preprocess.from_json(config.parameters["lse.preprocess"].string_value)
    told = config.output[0].label_filename
    labels = (folder / told).read_text().splitlines() if told else [str(i) for i in range(1000)]
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {config.input[0].name: prepare.batch(files).numpy()})
    shares = torch.from_numpy(scores).softmax(1)
    return {
        file: {labels[int(i)]: float(row[i]) for i in row.topk(2).indices}
        for file, row in zip(files, shares, strict=True)
    }


def check_same(one: dict[str, dict[str, float]], other: dict[str, dict[str, float]]) -> None:
    assert one.keys() == other.keys()
    for file, shares in one.items():
        assert list(other[file]) == list(shares), file  # the same classes, best first
        assert list(other[file].values()) == pytest.approx(list(shares.values()), abs=TOLERANCE), file


def walk(run: Path, names: list[str]) -> dict[str, dict[str, float]]:
    """From a model's folder to every way of asking it; returns torch's answers."""
    by_torch = answers(run, Path("torch.csv"))
    seen = {name for shares in by_torch.values() for name in shares}
    assert seen <= set(names)
    verified = ("--images", "photos/across", "--batch-sizes", 4)
    lse("export", "onnx", run, "--out", "model.onnx", "--images", "photos/across")
    lse("export", "verify", "model.onnx", run, *verified)
    check_same(by_torch, answers(Path("model.onnx"), Path("onnx.csv")))
    done = lse("measure", run, "model.onnx", "photos", "--change", "warps", "--warps", 1, "--ratios", "1,2",
               "--orbit", 0, "--out", "measured", "--json")  # fmt: skip
    in_torch, in_onnx = json.loads(done.stdout)["measurements"]
    assert (in_torch["counts"]["pictures"], in_onnx["counts"]["unreadable"]) == (16, 1)
    error = in_torch["sweeps"][0]["invariance_error"]["value"]
    assert in_onnx["sweeps"][0]["invariance_error"]["value"] == pytest.approx(error, abs=TOLERANCE)
    lse("export", "onnx", run, "--out", "raw.onnx", "--preprocess", *SIDES)
    lse("export", "verify", "raw.onnx", run, *verified)
    check_same(by_torch, answers(Path("raw.onnx"), Path("raw.csv")))
    lse("export", "triton", "model.onnx", "models")
    whole = {file: shares for file, shares in by_torch.items() if shares}
    check_same(whole, served(Path("models"), list(whole)))
    lse("look", run, "photos/across/0.jpg", "--out", "look.png")
    assert Path("look.png").stat().st_size > 10_000
    return by_torch


@pytest.mark.parametrize("kind", MODELS)
def test_from_a_folder_of_pictures_to_a_deployed_answer(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_photos(Path("photos"))
    channels, name, kwargs = MODELS[kind]
    text = RUN.format(name=name, kwargs=json.dumps({**kwargs}), channels=channels)
    Path("run.yaml").write_text(text)
    if kind == "three channels":
        stopped = lse("train", "run.yaml", "--set", "data.options.skip_bad=false", "--out", "x", status=1)
        assert stopped.stderr.splitlines()[-1].startswith(
            "error: photos/along/broken.jpg cannot be read as a picture"
        )
    trained = lse("train", "run.yaml", "--out", "runs/mine")
    assert "warning: left out 1 of 17 pictures; photos/along/broken.jpg cannot be read" in trained.stderr
    assert "next: lse export onnx runs/mine --out runs/mine.onnx" in trained.stdout
    # the run's own data are read with trust alone; data that one names oneself are prepared as in training
    refused = lse("evaluate", "runs/mine", status=1)
    assert "'photos', which would be used: if you trust this folder, pass --trust" in refused.stderr
    own = json.loads(lse("evaluate", "runs/mine", "--trust", "--json").stdout)["val"]
    named = lse("evaluate", "runs/mine", "--data", "image_folder", "--set", "root=photos",
                "--set", "skip_bad=true", "--json")  # fmt: skip
    assert json.loads(named.stdout)["image_folder"] == own
    found = walk(Path("runs/mine"), ["across", "along", *map(str, range(2, 1000))])
    # evaluation and prediction read the same pictures in the same way
    right = [
        file for file, shares in found.items() if shares and next(iter(shares)) == Path(file).parent.name
    ]
    assert len(right) / 16 == own["accuracy"]
    config = json.loads(Path("runs/mine/model/config.json").read_text())
    assert config["preprocess"] == {
        "channels": channels, "size": [48, 64], "crop_mode": "center", "crop_pct": 0.9,
        "interpolation": "bicubic", "mean": [0.3] * channels, "std": [0.4] * channels, "colours": "rgb",
    }  # fmt: skip
    assert not Path("runs/mine/model/run.json").exists()


def test_the_demos_model_goes_the_same_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LSE_CACHE", str(tmp_path / "cache"))
    write_photos(Path("photos"))
    lse("demo", "--quick", "--out", "runs/demo")
    measured = json.loads(lse("evaluate", "runs/demo", "--json").stdout)
    results = json.loads(Path("runs/demo/results.json").read_text())["methods"]["dec"]
    assert measured["all"]["accuracy"] == pytest.approx(results["accuracy"])
    assert measured["all"]["invariance_error"] == pytest.approx(results["invariance_error"], rel=1e-4)
    walk(Path("runs/demo"), [f"{number:03d}" for number in range(1000)])
    # the file that the demo itself exported
    check_same(
        answers(Path("runs/demo"), Path("a.csv")), answers(Path("runs/demo/model.onnx"), Path("b.csv"))
    )


def test_a_run_without_canonicalizers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_photos(Path("photos"))
    text = RUN.format(name="resnet10t", kwargs=json.dumps(SMALL), channels=3)
    Path("run.yaml").write_text(re.sub(r"^(adapt|canonicalizer):.*\n", "", text, flags=re.MULTILINE))
    lse("train", "run.yaml", "--out", "runs/plain")
    by_torch = answers(Path("runs/plain"), Path("torch.csv"))
    lse("export", "onnx", "runs/plain", "--out", "model.onnx")
    check_same(by_torch, answers(Path("model.onnx"), Path("onnx.csv")))
    # a fresh canonicalizer changes nothing, and the folder to adapt from stays as it is
    done = lse("adapt", "runs/plain", "--site", "image", "--set", "segments=3", "--out", "runs/adapted")
    assert "next: lse export onnx runs/adapted" in done.stdout.lower()
    check_same(by_torch, answers(Path("runs/adapted"), Path("adapted.csv")))
    assert json.loads(Path("runs/plain/model/config.json").read_text())["adapt"] is None
    refused = lse("look", "runs/plain", "photos/across/0.jpg", "--out", "look.png", status=1)
    assert "runs/plain holds a model without canonicalizers" in refused.stderr


def test_the_readmes_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (settings,) = re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (commands,) = re.findall(r"^```console\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for label, name in enumerate(("bowl", "cup")):
            folder = Path("photos", split, name)
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(photograph(generator, label)).save(folder / f"{number}.jpg")
    # one file that is no picture any more stops no step of the path
    whole = Path("photos/val/cup/0.jpg").read_bytes()
    Path("photos/val/cup/broken.jpg").write_bytes(whole[: len(whole) // 2])
    # weights would have to be downloaded, and twenty epochs take long
    Path("photos.yaml").write_text(settings.replace(", pretrained: true", ""))
    smaller = [
        "--set",
        "model.name=resnet10t",
        "--set",
        "epochs=1",
        "--set",
        "batch_size=8",
        "--set",
        "device=cpu",
    ]
    printed = {}
    for line in commands.strip().splitlines():
        words = shlex.split(line)
        assert words[0] == "lse"
        printed[line] = lse(*words[1:], *(smaller if words[1] == "train" else [])).stdout
    assert len(printed) == 7
    with Path("results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    assert [row["file"] for row in rows if row["error"]] == ["photos/val/cup/broken.jpg"]
    assert {row["class"] for row in rows if not row["error"]} <= {"bowl", "cup"}
