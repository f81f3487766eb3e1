"""The exported graph in a browser: ONNX Runtime Web in headless Chromium gives the model's logits."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from torch import nn

import lse_export
from lse_core import Preprocess, attach, card_of
from lse_dec import adapt

PAGE = Path(__file__).parent / "browser"
RUNTIME = PAGE / "node_modules" / "onnxruntime-web"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip
# solver, site and more settings; at the image triangular warps are taps (GatherElements), at a block products
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("naive", "blocks.0", {}),
    ("anderson", "image", {}),
    ("broyden", "image", {"warp": "triangular"}),
    ("naive", "blocks.0", {"warp": "triangular", "order": "yx"}),
]
TYPES = {".html": "text/html", ".json": "application/json", ".mjs": "text/javascript",
         ".wasm": "application/wasm", "": "application/octet-stream"}  # fmt: skip
TOLERANCE = 1e-3
SECONDS = 120  # until we give up on the browser

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no Chromium here; .ci/run installs Debian's"),
    pytest.mark.skipif(not RUNTIME.is_dir(), reason="no onnxruntime-web here; .ci/run installs it"),
]


class Handler(SimpleHTTPRequestHandler):
    """The page and the runtime from one folder, what a test made from another; reports go to a queue."""

    extensions_map = TYPES

    def __init__(self, *args: Any, made: Path, reports: queue.Queue[bytes], **options: Any) -> None:
        self.made, self.reports = made, reports
        super().__init__(*args, directory=str(PAGE), **options)

    def translate_path(self, path: str) -> str:
        own = self.made / Path(path).name
        return str(own) if own.is_file() else super().translate_path(path)

    def do_POST(self) -> None:
        self.reports.put(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Keep requests off the terminal."""


@contextmanager
def serving(made: Path) -> Iterator[tuple[str, queue.Queue[bytes]]]:
    reports: queue.Queue[bytes] = queue.Queue()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, made=made, reports=reports)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/index.html", reports
        finally:
            server.shutdown()


def in_browser(jobs: list[dict[str, Any]], made: Path) -> dict[str, Any]:
    """Run the jobs in a new browser with an empty profile; what the page reported."""
    (made / "jobs.json").write_text(json.dumps(jobs))
    assert BROWSER
    with serving(made) as (address, reports):
        command = [BROWSER, *FLAGS, f"--user-data-dir={made / 'profile'}", address]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return json.loads(reports.get(timeout=SECONDS))
        except queue.Empty:
            pytest.fail(f"the browser reported nothing within {SECONDS} s (exit status {browser.poll()})")
        finally:
            browser.terminate()
            browser.wait(20)


def vit() -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, patch_size=8, depth=1, embed_dim=48, num_classes=10
    )
    nn.init.normal_(model.head.weight, std=0.5)  # logits as large as a trained model's
    return model.eval()


def moving_vit(solver: str, site: str, **more: Any) -> nn.Module:
    """The same with a site whose update asks for more than the identity."""
    model = adapt(vit(), [site], solver=solver, steps=3, resolution=8, segments=4, **more).eval()
    for canonicalizer in model.canonicalizers.values():
        nn.init.normal_(canonicalizer.update.head.weight, std=1.0)  # adapt starts it at zero: the identity
    return model


def test_the_browser_gives_the_models_logits(tmp_path: Path) -> None:
    coarse = torch.randn(3, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    images = 2.0 * nn.functional.interpolate(coarse, (64, 64), mode="bicubic", align_corners=True)
    jobs, expected = [], []
    for i, (solver, site, more) in enumerate(CASES):
        plain, model, name = vit(), moving_vit(solver, site, **more), f"{i}.onnx"
        with torch.no_grad():
            moved = (model(images) - plain(images)).abs().amax()
        assert moved > 50 * TOLERANCE  # warps that stay at the identity would prove little
        lse_export.export_onnx(model, images[:2], tmp_path / name)
        assert lse_export.check(tmp_path / name, target="web").ok
        for batch in (1, 3):  # neither is the size it was exported at
            images[:batch].numpy().tofile(tmp_path / f"{batch}.bin")
            shape = [batch, 3, 64, 64]
            jobs.append({"model": name, "input": f"{batch}.bin", "shape": shape})
            with torch.no_grad():
                expected.append(model(images[:batch]))
    report = in_browser(jobs, tmp_path)
    assert "error" not in report, report["error"]
    assert "HeadlessChrome" in report["agent"]
    pinned = json.loads((PAGE / "package.json").read_text())["dependencies"]["onnxruntime-web"]
    assert report["runtime"] == pinned
    assert len(report["results"]) == len(jobs)
    for job, result, wanted in zip(jobs, report["results"], expected, strict=True):
        logits = torch.tensor(result["logits"]["values"]).view(result["logits"]["shape"])
        torch.testing.assert_close(logits, wanted, rtol=0.0, atol=TOLERANCE, msg=lambda m, j=job: f"{j}: {m}")


def test_a_file_that_prepares_pictures_takes_them_as_the_browser_decodes_them(tmp_path: Path) -> None:
    model = moving_vit("naive", "image")
    attach(
        model, preprocess=Preprocess(channels=3, size=(64, 64), crop_pct=0.9, mean=(0.3,) * 3, std=(0.2,) * 3)
    )
    noise = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(noise, (90, 120), mode="bilinear")[0].permute(1, 2, 0) * 255
    Image.fromarray(smooth.to(torch.uint8).numpy()).save(tmp_path / "picture.png")
    lse_export.export_onnx(model, torch.zeros(1, 3, 64, 64), tmp_path / "raw.onnx", preprocess=(90, 120))
    report = in_browser([{"model": "raw.onnx", "picture": "picture.png"}], tmp_path)
    assert "error" not in report, report["error"]
    prepared = card_of(model).preprocess
    assert prepared is not None
    with torch.no_grad():
        expected = model(prepared.batch([tmp_path / "picture.png"]))
    found = torch.tensor(report["results"][0]["logits"]["values"]).view(1, -1)
    torch.testing.assert_close(found, expected, rtol=0.0, atol=TOLERANCE)


def test_what_fails_in_the_browser_is_reported(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    torch.zeros(1, 3, 4, 4).numpy().tofile(tmp_path / "x.bin")
    report = in_browser([{"model": "broken.onnx", "input": "x.bin", "shape": [1, 3, 4, 4]}], tmp_path)
    assert "protobuf" in report["error"].lower(), report
