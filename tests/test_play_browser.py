"""The playground in headless Chromium, by real events: its arithmetic is ours, its answers the models'."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from chromium import BROWSER, Page, chromium
from foreign import foreign
from onnx import TensorProto
from PIL import Image

import lse_export.runtime
from lse_core import MonotoneMap, SeparableWarp, scale, unscale
from lse_core.objects import scale_objects
from lse_measure.play import find_runtime, serving, write_playground

HERE = Path(__file__).parent
PAIR = HERE.parent / "tools" / "site" / "play"
RUNTIME = HERE / "browser" / "node_modules" / "onnxruntime-web"
LEVELS = 0.02  # of 255, by which the page's pictures may differ from lse_core's
SAME = 1e-3  # by which its probabilities may differ from ONNX Runtime's here
MOVES = 0.05  # by which a probability of the adapted model may change in the drags below

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no Chromium here; .ci/run installs Debian's"),
    pytest.mark.skipif(not RUNTIME.is_dir(), reason="no onnxruntime-web here; .ci/run installs it"),
]


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The documentation's playground: models of the demo, six pictures of its test set.

    Large weights lie beside the models, in files of the same name.
    """
    place = tmp_path_factory.mktemp("playground")
    out, models = place / "page", []
    for name in ("plain", "adapted"):
        models.append(place / name / f"{name}.onnx")
        models[-1].parent.mkdir()
        graph = onnx.load(PAIR / f"{name}.onnx")
        onnx.save(graph, models[-1], save_as_external_data=True, location="weights.data")
    write_playground(models, [PAIR], out, runtime=find_runtime(RUNTIME))
    with serving(out) as found:
        yield found


def opened(page: Page, address: str, picture: str = "080.png", width: int = 1280, **window: Any) -> None:
    """Show the page at one of its pictures, as people do."""
    if not same_window(page, address, width, **window):
        page.show(address, width, **window)
        page.wait("globalThis.lse?.ready || globalThis.lse?.error")
        assert page.run("lse.error ?? null") is None
    click(page, f'[aria-label="{picture}"]')
    settled(page)


def same_window(page: Page, *window: Any, **more: Any) -> bool:
    """Whether the page is shown so already: loading it again takes a second."""
    before, page.window = getattr(page, "window", None), (window, more)
    return before == page.window and page.run("location.href") == window[0]


def click(page: Page, selector: str) -> None:
    page.run(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'nearest'}})")
    page.drag([page.middle(selector)])


def settled(page: Page) -> None:
    """Wait until the page has answered all that was asked."""
    page.run("new Promise(requestAnimationFrame)")
    page.wait("lse.ready && !lse.playground.busy")


def answers(page: Page) -> list[np.ndarray[Any, Any]]:
    found = page.run("lse.answers.map(({ probabilities }) => probabilities)")
    return [np.array(one) for one in found]


def tensor(picture: dict[str, Any]) -> torch.Tensor:
    shape = (picture["height"], picture["width"], picture["channels"])
    return torch.tensor(picture["data"], dtype=torch.float64).reshape(shape).permute(2, 0, 1)[None]


def picture(pixels: torch.Tensor) -> str:
    """A picture (1, C, H, W) as JavaScript that makes it."""
    _, c, h, w = pixels.shape
    data = pixels[0].permute(1, 2, 0).flatten().tolist()
    return f"{{width: {w}, height: {h}, channels: {c}, data: Float32Array.from({data})}}"


READ = "({width, height, channels, data}) => ({width, height, channels, data: Array.from(data)})"


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 37, 52), (1, 20, 2)])
def test_warps_are_those_of_lse_core(
    page: Page, address: str, channels: int, height: int, width: int
) -> None:
    page.show(f"{address}play.json")  # the modules alone
    generator = torch.Generator().manual_seed(width)
    pixels = torch.randint(0, 256, (1, channels, height, width), generator=generator).double()
    x, y = (MonotoneMap.from_logits(torch.randn(1, n, generator=generator).double(), 4.0) for n in (5, 3))
    warp = SeparableWarp(x, y)
    told = {
        name: {"knots": m.knots[0].tolist(), "values": m.values[0].tolist()}
        for name, m in (("x", x), ("y", y))
    }
    for name, ours in (("scale", scale), ("unscale", unscale)):
        script = (
            f"import('/geometry.mjs').then((g) => ({READ})(g.{name}({picture(pixels)}, {json.dumps(told)})))"
        )
        found = tensor(page.run(script))
        expected = ours(pixels, warp)
        assert (expected - pixels).abs().max() > 50
        assert (found - expected).abs().max() <= LEVELS, name


def test_resized_objects_are_those_of_lse_core(page: Page, address: str) -> None:
    page.show(f"{address}play.json")
    generator = torch.Generator().manual_seed(3)
    pixels, background = torch.randint(0, 256, (2, 1, 3, 40, 50), generator=generator).double()
    masks = torch.zeros(1, 2, 40, 50, dtype=torch.float64)
    masks[0, 0, 5:20, 8:30], masks[0, 1, 15:33, 25:44] = 1.0, 1.0
    masks[0, 1, 15, 25:44] = 0.75  # an edge that was blurred
    shapes = ", ".join(picture(255 * masks[:, k : k + 1]) for k in (0, 1))
    for factors in ((0.5, 1.6), (1.0, 0.73), (2.5, 1.0)):
        script = f"""import('/objects.mjs').then((o) => {{
            const objects = [{shapes}].map((mask) => o.objectOf("", mask));
            return ({READ})(o.resized(
                {{picture: {picture(pixels)}, background: {picture(background)}, objects}}, {list(factors)}));
        }})"""
        expected = scale_objects(pixels, masks, torch.tensor([factors]).double(), background=background).image
        assert (tensor(page.run(script)) - expected).abs().max() <= LEVELS, factors


def test_answers_warps_and_residuals_are_the_models(page: Page, address: str) -> None:
    opened(page, address, "405.png")
    click(page, "#swing")
    page.wait("lse.updates > 8")
    click(page, "#swing")
    settled(page)
    shown = tensor(page.run(f"({READ})(lse.playground.shown[0])"))
    images = ((shown / 255 - 0.1) / 0.3).float()
    found = page.run("lse.answers[1].sites[0]")
    assert found["name"] == "image"
    for name, ours in zip(("plain", "adapted"), answers(page), strict=True):
        session = lse_export.runtime.open_session(PAIR / f"{name}.onnx", "cpu")
        outputs = lse_export.runtime.run(session, images)
        np.testing.assert_allclose(ours, outputs["logits"][0].double().softmax(0), atol=SAME, rtol=0)
    for axis in ("x", "y"):
        np.testing.assert_allclose(found["warp"][axis]["values"], outputs[f"warp_{axis}.image"][0], atol=SAME)
    assert found["residual"] == pytest.approx(float(outputs["residual.image"]), abs=SAME)


@pytest.mark.parametrize(
    ("name", "line", "by"), [("922.png", "Vertical line 1", 0.15), ("157.png", "Vertical line 1", -0.15)]
)
def test_a_drag_changes_the_plain_answer_and_hardly_the_adapted_one(
    page: Page, address: str, name: str, line: str, by: float
) -> None:
    opened(page, address, name)
    first = answers(page)
    label = int(name[:3])
    assert [int(one.argmax()) for one in first] == [label, label]
    x, y = page.middle(f'[aria-label="{line}"]')
    side = page.run("document.querySelector('.stage .figure').clientWidth")
    seen = []

    def look() -> None:
        settled(page)
        seen.append(answers(page))

    page.drag([(x + by * side * k / 5, y) for k in range(6)], look)
    plain, adapted = zip(*seen, strict=True)
    assert int(plain[-1].argmax()) != label
    assert plain[-1][label] < 0.3
    assert max(float(np.abs(one - first[1]).max()) for one in adapted) <= MOVES
    assert page.run("document.querySelectorAll('.card')[0].classList.contains('changed')")
    click(page, "#reset")
    settled(page)
    assert all(np.array_equal(a, b) for a, b in zip(answers(page), first, strict=True))


def test_fingers_and_keys_on_a_small_dark_screen(page: Page, address: str) -> None:
    opened(page, address, width=360, height=740, dark=True, touch=True)
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    page.run("document.querySelector('[name=mode][value=object]').click()")
    x, y = page.middle('[aria-label="Size of object 2"]')
    page.swipe([(x + 4 * k, y + 4 * k) for k in range(8)])
    settled(page)
    factors = page.run("lse.playground.stage.factors")
    assert factors[1] > 1.3
    assert (factors[0], factors[2]) == (1, 1)
    assert page.run("scrollY") == 0  # the finger moved the object, not the page
    for key, direction in (("ArrowLeft", -1), ("ArrowUp", 1)):
        before = page.run("lse.playground.stage.factors[1]")
        page.press(key)
        assert (page.run("lse.playground.stage.factors[1]") - before) * direction > 0
    page.press("Home")
    assert page.run("lse.playground.stage.factors") == [1, 1, 1]
    page.run("document.querySelector('[name=mode][value=warp]').click()")
    page.run("document.querySelector('[aria-label=\"Vertical line 1\"]').focus()")
    page.press("Tab")
    assert page.run("document.activeElement.ariaLabel") == "Vertical line 2"
    page.press("ArrowRight", modifiers=8)
    assert page.run("document.activeElement.ariaValueNow") == "60"
    for _ in range(20):
        page.press("ArrowRight", modifiers=8)
    values = page.run("lse.playground.stage.warp.x.values")
    assert values[3] - values[2] == pytest.approx(0.25 / 4)  # no slope falls below 1/4


def test_the_page_fits_and_asks_nobody_else(page: Page, address: str) -> None:
    for width, dark in ((360, False), (1600, True)):
        opened(page, address, width=width, height=800, dark=dark)
        assert page.run("document.documentElement.scrollWidth") == width
        assert page.errors == []
        assert len(page.requests) > 15
        assert [
            url for url in page.requests if not url.startswith((address, "data:", f"blob:{address}"))
        ] == []


def test_models_of_others_and_a_missing_runtime(page: Page, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    models = [
        foreign(tmp_path / "bytes.onnx", TensorProto.UINT8, (2, 24, 40, 3)),
        foreign(tmp_path / "double.onnx", TensorProto.DOUBLE, ("n", 3, 24, 40)),
    ]
    out = tmp_path / "page"
    options: dict[str, Any] = {"mean": (0.5, 0.4, 0.3), "std": (0.05,), "class_names": list("abcde")}
    write_playground(models, [tmp_path / "noise.png"], out, runtime=find_runtime(RUNTIME), **options)
    with serving(out) as address:
        page.show(address)
        page.wait("globalThis.lse?.ready || globalThis.lse?.error")
        found = answers(page)
    normalised = (pixels.astype(np.float64).transpose(2, 0, 1) / 255 - [[[0.5]], [[0.4]], [[0.3]]]) / 0.05
    inputs = (torch.from_numpy(pixels).expand(2, -1, -1, -1), torch.from_numpy(normalised)[None])
    for path, x, one in zip(models, inputs, found, strict=True):
        session = lse_export.runtime.open_session(path, "cpu")
        scores = lse_export.runtime.run(session, x.contiguous())["scores"][0]
        np.testing.assert_allclose(one, scores.double().softmax(0), atol=SAME, rtol=0)
    for file in (out / "ort").iterdir():
        file.unlink()
    with serving(out) as address:
        page.show(address)
        page.wait("globalThis.lse?.error")
        assert "npm package onnxruntime-web" in page.run("document.getElementById('trouble').textContent")
