"""Headless Chromium with a local page in it, driven by the DevTools protocol over two pipes: JSON, then a zero byte."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import HANG

AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
FLAGS = (
    *(
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--no-first-run",
        "--disable-background-networking",
    ),
    *("--disable-extensions", "--disable-sync", "--disable-component-update", "--remote-debugging-pipe"),
)
# Chromium reads from descriptor 3 and writes to 4: the program that becomes it puts the pipes there.
START = (
    "import fcntl, os, sys; r, w = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3]); "
    "os.dup2(r, 3); os.dup2(w, 4); os.execv(sys.argv[3], sys.argv[3:])"
)
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "PageUp": 33, "PageDown": 34, "End": 35, "Home": 36,
        "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}  # fmt: skip
TEXTS = {"Enter": "\r", "Tab": ""}


class Browser:
    """One tab. `console` holds what the open page wrote or threw, `requests` what it asked for besides itself."""

    def __init__(self, writes: int, reads: int) -> None:
        self.console: list[str] = []
        self.requests: list[str] = []
        self._writes, self._reads, self._received, self._numbers = writes, reads, b"", itertools.count(1)
        self._session: dict[str, str] = {}
        self._loaded, self._url = False, ""
        tab = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result; events that come meanwhile are noted."""
        number = next(self._numbers)
        message = json.dumps({"id": number, "method": method, "params": params} | self._session)
        left = message.encode() + b"\0"
        while left:
            left = left[os.write(self._writes, left) :]
        while (answer := self._receive()).get("id") != number:
            self._note(answer.get("method", ""), answer.get("params", {}))
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            assert select.select([self._reads], [], [], HANG)[0], "Chromium hangs"
            part = os.read(self._reads, 1 << 20)
            assert part, "Chromium has ended"
            self._received += part
        message, _, self._received = self._received.partition(b"\0")
        return dict(json.loads(message))

    def _note(self, event: str, said: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Runtime.consoleAPICalled":
            texts = (str(part.get("value", part.get("description"))) for part in said["args"])
            self.console.append(f"{said['type']}: {' '.join(texts)}")
        elif event == "Runtime.exceptionThrown":
            details = said["exceptionDetails"]
            self.console.append(f"thrown: {details.get('exception', {}).get('description', details['text'])}")
        elif event == "Log.entryAdded":  # the browser's own messages, such as a breach of the page's security policy
            self.console.append(f"{said['entry']['level']}: {said['entry']['text']}")
        elif event == "Network.requestWillBeSent":
            url = said["request"]["url"]
            if url != self._url and not url.startswith(("data:", "blob:")):
                self.requests.append(url)

    def look(self, width: int = 1280, height: int = 900, scheme: str = "light", media: str = "") -> None:
        """Set the window's size, as a phone's below 600 pixels; the colour scheme; and `print`, or "" for a screen."""
        mobile = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def open(self, path: Path, **look: Any) -> None:
        """Open a file and wait until it is loaded; `look` is as in `look`."""
        self.look(**look)
        self.console, self.requests, self._loaded, self._url = [], [], False, path.resolve().as_uri()
        self.call("Page.navigate", url=self._url)
        while not self._loaded:
            message = self._receive()
            self._note(message.get("method", ""), message.get("params", {}))
        self.frames()

    def evaluate(self, script: str) -> Any:
        """Return an expression's value as JSON gives it, a promise's once it is there; fails on what it throws."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def frames(self, number: int = 2) -> None:
        """Wait until the page has been drawn so many times more."""
        for _ in range(number):
            self.evaluate("new Promise(done => requestAnimationFrame(() => done(0)))")

    def key(self, *keys: str) -> None:
        """Press and release keys: those in KEYS, or single characters."""
        for key in keys:
            text = TEXTS.get(key, key if len(key) == 1 else "")
            about: dict[str, Any] = {"key": key, "code": "Space" if key == " " else key, "text": text}
            about["windowsVirtualKeyCode"] = KEYS.get(key) or ord(key.upper())
            self.call("Input.dispatchKeyEvent", type="keyDown", **about)
            self.call("Input.dispatchKeyEvent", type="keyUp", **about | {"text": ""})

    def mouse(self, kind: str, x: float, y: float) -> None:
        """Send `mouseMoved`, `mousePressed` or `mouseReleased`, the latter two of the left button, at a point."""
        held = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **held)

    def click(self, x: float, y: float) -> None:
        """Move to a point and click there."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.mouse(kind, x, y)

    def middle(self, selector: str) -> tuple[float, float]:
        """Scroll to an element and return its middle, in pixels of the window."""
        box = f"const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}}); "
        x, y = self.evaluate(f"{{{box} const b = e.getBoundingClientRect(); [b.x + b.width / 2, b.y + b.height / 2]}}")
        return x, y

    def screenshot(self, path: Path | None = None) -> bytes:
        """Return the whole page's PNG, below the window's edge, too; also write it to a file."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=size | {"scale": 1})
        content = base64.b64decode(answer["data"])
        if path:
            path.write_bytes(content)
        return content

    def axe(self, *impacts: str) -> list[str]:
        """Return what axe-core finds of these impacts (`serious` and `critical` unless named): a line for each rule."""
        if not AXE.is_file():
            pytest.skip("axe-core is not installed (npm install --no-save axe-core)")
        if not self.evaluate("'axe' in window"):
            self.evaluate(AXE.read_text(encoding="utf-8") + "; 0")
        found = self.evaluate("axe.run({resultTypes: ['violations']}).then(result => result.violations)")
        wanted = impacts or ("serious", "critical")
        return [
            f"{rule['id']} ({rule['impact']}): {[node['html'][:120] for node in rule['nodes'][:5]]}"
            for rule in found
            if rule["impact"] in wanted
        ]


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Run Chromium; skips the test where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium is installed")
    reads, its_writes = os.pipe()
    its_reads, writes = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        words = [sys.executable, "-I", "-S", "-c", START, str(its_reads), str(its_writes), program, *FLAGS]
        process = subprocess.Popen(
            [*words, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(its_reads, its_writes),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(its_reads)
        os.close(its_writes)
        try:
            yield Browser(writes, reads)
        finally:
            os.close(writes)  # Chromium ends when nobody can write to it any more
            os.close(reads)
            try:
                process.wait(HANG)
            finally:
                process.kill()
