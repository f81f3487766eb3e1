"""Chromium without a window, driven through its own protocol by real events of pointer, touch and keys.

Commands go through a pipe (`--remote-debugging-pipe`), so no library and no port is needed.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
SECONDS = 120  # until we give up on an answer

Point = tuple[float, float]


class Page:
    """One tab. Points are in CSS pixels of the window, from its left and top.

    Attributes:
        errors: what went wrong in the page that is shown.
        requests: addresses that it asked for.
    """

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._rest, self._number, self._session = b"", 0, ""
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.window: object = None  # for those who share a page: what is shown
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol and its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._answers, 1 << 20)
            if not part:
                raise RuntimeError("Chromium ended")
            self._rest += part
        first, self._rest = self._rest.split(b"\0", 1)
        found: dict[str, Any] = json.loads(first)
        return found

    def _note(self, event: dict[str, Any]) -> None:
        """Keep what the page asked for, and what went wrong in it."""
        params = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        if event.get("method") == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        if event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def show(
        self, address: str, width: int = 1280, height: int = 900, *, dark: bool = False, touch: bool = False
    ) -> None:
        """Open an address in a window of this size."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=touch,
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.errors.clear()
        self.requests.clear()
        self.call("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, a promise's once it is kept."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            details = done["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return done["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + SECONDS
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > end:
                raise TimeoutError(f"{condition} did not come true within {SECONDS} s; {self.errors}")
            time.sleep(0.05)

    def middle(self, selector: str) -> Point:
        """The middle of an element."""
        script = (
            f"(() => {{ const b = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
        )
        x, y = self.run(f"{script} return [b.left + b.width / 2, b.top + b.height / 2]; }})()")
        return x, y

    def drag(self, points: Iterable[Point], at_each: Callable[[], None] = lambda: None) -> None:
        """Press the mouse at the first point, move along the others, and let go at the last."""
        for k, (x, y) in enumerate(points):
            for kind in ("mouseMoved", "mousePressed") if k == 0 else ("mouseMoved",):
                held = int(kind == "mousePressed" or k > 0)
                self._mouse(kind, x, y, held)
            at_each()
        self._mouse("mouseReleased", x, y, 0)

    def _mouse(self, kind: str, x: float, y: float, held: int) -> None:
        more = {"button": "left", "buttons": held, "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def swipe(self, points: Iterable[Point], at_each: Callable[[], None] = lambda: None) -> None:
        """The same by a finger."""
        for k, (x, y) in enumerate(points):
            kind = "touchMove" if k else "touchStart"
            self.call("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y}])
            at_each()
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press and release a key, such as "Tab" or "ArrowLeft"; modifiers 8 is Shift."""
        codes = {"Tab": 9, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, modifiers=modifiers,
                      windowsVirtualKeyCode=codes[key])  # fmt: skip

    def picture(self, whole: bool = False) -> bytes:
        """A PNG of the window, or of the whole page."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(found["data"])


@contextmanager
def chromium() -> Iterator[Page]:
    """A new Chromium with an empty profile, which ends with the block."""
    assert BROWSER, "no Chromium here; .ci/run installs Debian's"
    # Chromium reads commands from file 3 and writes answers to file 4
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "chromium", BROWSER, *FLAGS,
                   f"--user-data-dir={Path(profile)}"]  # fmt: skip
        browser = subprocess.Popen(
            command, pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            yield Page(ours_out, ours_in)
        finally:
            browser.terminate()
            browser.wait(20)
            os.close(ours_out)
            os.close(ours_in)
