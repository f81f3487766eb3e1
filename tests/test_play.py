"""`lse play`: the folder that it writes, and what it says of inputs that it cannot use."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from foreign import foreign
from onnx import TensorProto
from PIL import Image

from lse_core.cli import main
from lse_core.errors import LSEError
from lse_measure.play import find_runtime, serving, write_playground
from lse_measure.play.runtime import FILES

PAIR = Path(__file__).parents[1] / "tools" / "site" / "play"


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """What npm would install, in name only: no test here runs it."""
    folder = tmp_path / "npm" / "node_modules" / "onnxruntime-web" / "dist"
    folder.mkdir(parents=True)
    for file in FILES:
        (folder / file).write_text(file)
    return folder


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "noise.png")
    return folder


def lse(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_the_command_writes_all_that_the_page_needs(tmp_path: Path, runtime: Path) -> None:
    out = tmp_path / "page"
    models = [PAIR / "plain.onnx", PAIR / "adapted.onnx"]
    done = lse("play", *models, PAIR, "--out", out, "--runtime", runtime, "--no-serve")
    assert done.exit_code == 0, done.output
    assert "2 models and 6 pictures" in done.output
    told = json.loads((out / "play.json").read_text(encoding="utf-8"))
    assert [model["adapted"] for model in told["models"]] == [False, True]
    for model, path in zip(told["models"], models, strict=True):
        assert (out / model["file"]).read_bytes() == path.read_bytes()
        assert (model["mean"], model["std"], model["type"], model["layout"]) == (
            [0.1],
            [0.3],
            "float32",
            "nchw",
        )
        assert model["classNames"][80] == "080"
    first = told["pictures"][0]
    (view,) = first["views"]  # both models take the same pixels
    np.testing.assert_array_equal(
        np.array(Image.open(out / view["image"])), np.array(Image.open(PAIR / "080.png"))
    )
    masks = np.array(Image.open(PAIR / "080.mask.png"))
    assert len(view["masks"]) == 3
    for number, mask in enumerate(view["masks"], 1):
        np.testing.assert_array_equal(np.array(Image.open(out / mask["file"])) > 127, masks == number)
    assert np.array(Image.open(out / view["background"])).max() < 40  # no digit is left
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://localhost:8000", "")
    assert "https://" not in page
    for file in FILES:
        assert (out / "ort" / file).read_text() == file


def test_only_what_a_model_names_is_copied_with_it(tmp_path: Path, photograph: Path) -> None:
    paths = []
    for name in ("plain", "adapted"):
        paths.append(tmp_path / name / "model.onnx")
        paths[-1].parent.mkdir()
        graph = onnx.load(PAIR / f"{name}.onnx")
        onnx.save(graph, paths[-1], save_as_external_data=True, location="weights.data")
    secret = tmp_path / "secret"
    secret.write_text("of the user")
    (tmp_path / "plain" / "model.onnx.data").symlink_to(secret)
    write_playground(paths, [photograph], tmp_path / "page")
    told = json.loads((tmp_path / "page" / "play.json").read_text(encoding="utf-8"))
    for model, path in zip(told["models"], paths, strict=True):
        (weights,) = model["weights"]
        assert weights["path"] == "weights.data"
        copied = tmp_path / "page" / weights["data"]
        assert copied.read_bytes() == path.with_name("weights.data").read_bytes()
    held = [file.read_bytes() for file in (tmp_path / "page").rglob("*") if file.is_file()]
    assert b"of the user" not in held


def test_models_that_take_different_pixels_get_their_own(tmp_path: Path, photograph: Path) -> None:
    small = foreign(tmp_path / "small.onnx")
    bytes_last = foreign(tmp_path / "bytes.onnx", TensorProto.UINT8, (2, 24, 40, 3))
    written = write_playground(
        [small, bytes_last],
        [photograph],
        tmp_path / "page",
        mean=[0.5],
        std=[0.25],
        class_names=list("abcde"),
    )
    assert written.pictures == ["noise.png"]
    told = json.loads((tmp_path / "page" / "play.json").read_text(encoding="utf-8"))
    assert [(m["type"], m["layout"], m["batch"], m["view"]) for m in told["models"]] == [
        ("float32", "nchw", None, 0),
        ("uint8", "nhwc", 2, 1),
    ]
    sizes = [Image.open(tmp_path / "page" / view["image"]).size for view in told["pictures"][0]["views"]]
    assert sizes == [(32, 32), (40, 24)]
    assert not (tmp_path / "page" / "ort").exists()


def test_a_folder_is_replaced_only_if_a_playground_is_in_it(tmp_path: Path, photograph: Path) -> None:
    model, out = foreign(tmp_path / "m.onnx"), tmp_path / "page"
    numbers = {"mean": [0.5], "std": [0.5]}
    write_playground([model], [photograph], out, **numbers)
    (out / "old").touch()
    write_playground([model], [photograph], out, **numbers)
    assert not (out / "old").exists()
    with pytest.raises(LSEError, match="is no folder of lse play"):
        write_playground([model], [photograph], photograph, **numbers)
    (photograph / "noise.png").write_bytes(b"")
    before = sorted(out.rglob("*"))
    with pytest.raises(LSEError, match="none of the 1 pictures can be read"):
        write_playground([model], [photograph], out, **numbers)
    assert sorted(out.rglob("*")) == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_each_wrong_input_gets_one_line(tmp_path: Path, photograph: Path, runtime: Path) -> None:
    model, half = foreign(tmp_path / "m.onnx"), foreign(tmp_path / "half.onnx", TensorProto.FLOAT16)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").touch()
    numbers = (
        "--mean",
        "0.5",
        "--std",
        "0.5",
        "--no-serve",
        "--out",
        tmp_path / "page",
        "--runtime",
        runtime,
    )
    for words, status, told in (
        ([photograph], 2, "models come first"),
        ([tmp_path / "run", photograph], 2, "lse export onnx"),
        ([model], 2, "no pictures were given"),
        ([tmp_path / "absent.onnx", photograph], 1, "there is no such file"),
        ([tmp_path / "broken.onnx", photograph], 1, "broken.onnx"),
        ([half, photograph], 1, "float16"),
        ([model, tmp_path / "nowhere"], 1, "no such file or folder"),
        ([model, photograph, "--masks", tmp_path / "nowhere"], 1, "no such folder of masks"),
    ):
        done = lse("play", *words, *numbers)
        assert done.exit_code == status, (words, done.output)
        said = done.output.strip().splitlines()[-1]
        assert told in said, said
        assert not (tmp_path / "page").exists()
    done = lse("play", model, photograph, "--no-serve", "--out", tmp_path / "page", "--runtime", runtime)
    assert done.exit_code == 1
    assert "give --mean, --std" in done.output


def test_the_runtime_is_found_or_said_how_to_get(
    tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = runtime.parents[2] / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert find_runtime() == runtime
    assert find_runtime(runtime.parent) == find_runtime(runtime.parents[1]) == runtime
    (runtime / FILES[-1]).unlink()
    for folder in (None, runtime):
        with pytest.raises(LSEError, match="npm install onnxruntime-web"):
            find_runtime(folder)


def test_the_server_gives_files_and_says_if_its_port_is_taken(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("here")
    (tmp_path / "page.mjs").write_text("1")
    with serving(tmp_path) as address:
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address) as answer:
            assert answer.read() == b"here"
            assert answer.headers["Cache-Control"] == "no-cache"
        with urllib.request.urlopen(f"{address}page.mjs") as answer:
            assert answer.headers["Content-Type"] == "text/javascript"
        port = int(address.rstrip("/").rsplit(":", 1)[1])
        with pytest.raises(LSEError, match=f"port {port} cannot be used"), serving(tmp_path, port):
            pass
