"""Chromium, driven as a person would: a page opened, looked at until it shows something, its buttons pressed.

It speaks the browser's own protocol (Chrome DevTools) over a web socket.
"""

import base64
import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking", "disable-sync"]
QUIET += ["disable-component-update", "window-size=1400,2000"]

TEXT = "(document.body?.innerText ?? '')"


class Page:
    """One page, and what it complained of."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0
        self.errors: list[str] = []
        """Errors of its scripts, and what its scripts wrote to the console as errors."""
        for domain in ("Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable")

    def open(self, address: str) -> None:
        """Go to an address."""
        self._ask("Page.navigate", url=address)

    def find(self, script: str) -> Any:
        """The value of an expression of JavaScript, as JSON has it."""
        found = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def text(self) -> str:
        """All that can be read on the page."""
        return str(self.find(TEXT))

    def wait_for(self, script: str, seconds: float = 60) -> Any:
        """The value of an expression, once it is true."""
        end = time.monotonic() + seconds
        while not (found := self.find(script)):
            assert time.monotonic() < end, f"not within {seconds} s: {script}\n{self.text()}"
            time.sleep(0.3)
        return found

    def reads(self, *words: str) -> None:
        """Wait until all of these can be read."""
        for each in words:
            self.wait_for(f"{TEXT}.includes({json.dumps(each)})")

    def press(self, words: str) -> None:
        """Press the button, tab or link with exactly these words on it, once it is there."""
        found = "[...document.querySelectorAll('button, a, [role=tab], [role=button], li')]"
        self.wait_for(f"{found}.some(each => each.innerText.trim() === {json.dumps(words)})")
        self.find(f"{found}.find(each => each.innerText.trim() === {json.dumps(words)}).click()")

    def picture(self, file: Path) -> None:
        """Write what is shown to a PNG file."""
        file.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"]))

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while (message := json.loads(self._connection.recv(timeout=60))).get("id") != self._number:
            self._hear(message)
        assert "error" not in message, message
        result: dict[str, Any] = message["result"]
        return result

    def _hear(self, message: dict[str, Any]) -> None:
        told = message.get("params", {})
        if message["method"] == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(told["exceptionDetails"]))
        elif message["method"] == "Runtime.consoleAPICalled" and told["type"] == "error":
            self.errors.append(json.dumps(told["args"]))
        elif message["method"] == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.errors.append(json.dumps(told["entry"]))


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """An empty page of a headless Chromium with a profile of its own in a folder."""
    assert CHROMIUM is not None
    profile = folder / "profile"
    options = [*QUIET, "headless", "remote-debugging-port=0", f"user-data-dir={profile}"]
    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen([CHROMIUM, *(f"--{each}" for each in options)], stdout=log, stderr=log)
    try:
        with connect(_address(profile / "DevToolsActivePort", process), max_size=None) as connection:
            yield Page(connection)
    finally:
        process.terminate()
        process.wait(30)


def _address(told: Path, process: subprocess.Popen[bytes]) -> str:
    """Where the browser's page is to be spoken to; it writes its port into a file once it listens."""
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError, IndexError, httpx.HTTPError):
            pages = httpx.get(f"http://127.0.0.1:{told.read_text().splitlines()[0]}/json/list").json()
            return str(next(each["webSocketDebuggerUrl"] for each in pages if each["type"] == "page"))
        time.sleep(0.2)
    raise TimeoutError("Chromium did not start")
