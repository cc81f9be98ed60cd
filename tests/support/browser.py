"""A headless Chromium, controlled over a pipe by the DevTools protocol: JSON messages, each ended by a NUL."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.streams import CHROMIUM

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars --remote-debugging-pipe"
)
PATIENCE = 60.0  # seconds for an answer; a busy machine is slow


class Tab:
    """One page of the browser."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._received = bytearray()
        self._number = 0
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Emulation.setDeviceMetricsOverride", width=1200, height=640, deviceScaleFactor=1, mobile=False)

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """What the browser answers to a command."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def go(self, url: str) -> None:
        """Open a page."""
        self.call("Page.navigate", url=url)

    def value(self, script: str) -> Any:
        """What an expression of JavaScript is in the page."""
        answer = self._evaluate(script)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, script: str) -> None:
        """Until an expression is true; one that fails, e.g. while the page loads, is not."""
        deadline = time.monotonic() + PATIENCE
        while "exceptionDetails" in (answer := self._evaluate(script)) or not answer["result"].get("value"):
            assert time.monotonic() < deadline, f"{script}: {answer}; {self.value('document.body.innerText')}"
            time.sleep(0.05)

    def _evaluate(self, script: str) -> dict[str, Any]:
        return self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)

    def picture(self) -> NDArray[np.uint8]:
        """What is on the screen, (H, W, 3) RGB."""
        png = np.frombuffer(base64.b64decode(self.call("Page.captureScreenshot")["data"]), np.uint8)
        return np.asarray(cv2.imdecode(png, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            assert select.select([self._from], [], [], PATIENCE)[0], "the browser does not answer"
            part = os.read(self._from, 1 << 16)
            assert part, "the browser has ended"
            self._received += part
        message, _, rest = bytes(self._received).partition(b"\0")
        self._received = bytearray(rest)
        found: dict[str, Any] = json.loads(message)
        return found


@contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """A browser with an empty tab."""
    (its_input, to_browser), (from_browser, its_output) = os.pipe(), os.pipe()
    # It reads from descriptor 3 and writes to 4; numbers above those leave both free.
    inherited = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 100) for each in (its_input, its_output)]
    command = f'exec "$@" 3<&{inherited[0]} 4>&{inherited[1]}'
    process = subprocess.Popen(
        ["bash", "-c", command, "bash", CHROMIUM, *FLAGS.split(), f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=inherited,
    )
    for each in (its_input, its_output, *inherited):
        os.close(each)
    try:
        yield Tab(to_browser, from_browser)
    finally:
        os.close(to_browser)
        os.close(from_browser)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
