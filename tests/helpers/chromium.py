"""A headless Chromium, driven through the pipe of its DevTools protocol: no driver, no port, no download."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 60
PROGRAM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = [
    *"--headless --remote-debugging-pipe --no-sandbox --disable-gpu --disable-extensions --hide-scrollbars".split(),
    *"--disable-background-networking --disable-component-update --disable-sync --no-first-run".split(),
    "--disable-dev-shm-usage",
]


class Page:
    """A page that is open: what it asked for, what its policy refused, what it complained of, what it answers."""

    def __init__(self, to: int, of: int) -> None:
        self._to, self._of, self._read, self._number = to, of, b"", 0
        self.requests: dict[str, str] = {}
        self.refused: list[str] = []
        self.complaints: list[str] = []
        self._session = ""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to a command; what the browser tells meanwhile is kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        content = json.dumps(message | ({"sessionId": self._session} if self._session else {})).encode() + b"\0"
        while content:
            content = content[os.write(self._to, content) :]
        while (answer := self._next()).get("id") != self._number:
            pass
        assert "error" not in answer, answer["error"]
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, path: Path) -> None:
        """Opens a file and waits until it is loaded and painted."""
        self.send("Page.navigate", url=path.as_uri())
        while self._next().get("method") != "Page.loadEventFired":
            pass
        self.settle()

    def settle(self) -> None:
        """Waits for two frames: what was changed is shown."""
        self.ask("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")

    def ask(self, script: str) -> Any:
        """What an expression gives, as Python has it."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def size(self, width: int, height: int, is_dark: bool = False) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.settle()

    def mouse(self, kind: str, x: float, y: float) -> None:
        button = {"button": "left", "buttons": 1, "clickCount": 1} if kind != "mouseMoved" else {}
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)
        self.settle()

    def click(self, x: float, y: float) -> None:
        self.mouse("mouseMoved", x, y)
        self.mouse("mousePressed", x, y)
        self.mouse("mouseReleased", x, y)

    def drag(self, x: float, y: float, to_x: float, to_y: float) -> None:
        self.mouse("mouseMoved", x, y)
        self.mouse("mousePressed", x, y)
        pressed = {"button": "left", "buttons": 1}
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=to_x, y=to_y, **pressed)
        self.mouse("mouseReleased", to_x, to_y)

    def middle(self, script: str) -> tuple[float, float]:
        """The middle of an element, which is scrolled into view."""
        x, y = self.ask(
            f"(() => {{ const e = {script}; e.scrollIntoView({{block: 'center', behavior: 'instant'}});"
            "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        return x, y

    def type(self, script: str, text: str) -> None:
        """Writes into a field, as a person would."""
        self.click(*self.middle(script))
        self.ask(f"{script}.select()")
        self.send("Input.insertText", text=text)
        self.settle()

    def picture(self, path: Path, is_whole: bool = True) -> None:
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=is_whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._of], [], [], TIMEOUT_SECONDS)
            assert ready, f"Chromium said nothing for {TIMEOUT_SECONDS} s"
            more = os.read(self._of, 1 << 16)
            assert more, "Chromium ended"
            self._read += more
        message, _, self._read = self._read.partition(b"\0")
        event: dict[str, Any] = json.loads(message)
        self._record_result(event.get("method", ""), event.get("params", {}))
        return event

    def _record_result(self, method: str, params: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests[params["requestId"]] = params["request"]["url"]
        elif method == "Network.loadingFailed" and params.get("blockedReason") == "csp":
            self.refused.append(
                self.requests.pop(params["requestId"])
            )  # the page's policy forbade it: nothing was sent
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"].get("exception", {}).get("description", "?"))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(params["args"]))


@contextmanager
def chromium(home: Path) -> Iterator[Page]:
    """A page of a new browser, whose profile is in `home`."""
    assert PROGRAM is not None
    (low_in, our_out), (our_in, low_out) = os.pipe(), os.pipe()
    its_in, its_out = (fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in (low_in, low_out))  # out of the way of 3 and 4
    for each in (low_in, low_out):
        os.close(each)
    command = [PROGRAM, *FLAGS, f"--user-data-dir={home}"]
    # It reads commands from descriptor 3 and answers on 4; the shell puts the pipes there.
    script = f'exec "$@" 3<&{its_in} 4>&{its_out}'
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", *command], pass_fds=(its_in, its_out),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(its_in)
    os.close(its_out)
    try:
        yield Page(our_out, our_in)
    finally:
        process.terminate()
        process.wait()
        os.close(our_out)
        os.close(our_in)
