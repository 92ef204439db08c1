"""Chromium without a window, driven as a person would: keys, a dropped file, and what is to be seen."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ("no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking", "disable-component-update")
KEYS = {"Tab": 9, "Enter": 13, " ": 32, "ArrowDown": 40}


class Tab:
    """One page, through Chrome's DevTools protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._last = socket, 0
        self.messages: list[str] = []
        """What the page wrote to the console, and its errors, as JSON."""
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol; gives its result."""
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": parameters}))
        while True:
            found = json.loads(self._socket.recv(60))
            if found.get("id") == self._last:
                assert "error" not in found, found
                return found["result"]
            if found.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
                self.messages.append(json.dumps(found["params"]))

    def value(self, expression: str) -> Any:
        """The value of an expression of JavaScript in the page."""
        made = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in made, made
        return made["result"].get("value")

    def wait(self, expression: str, seconds: float = 60) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.value(expression):
            assert time.monotonic() < end, f"{expression}: {self.value('document.body.innerText')}"
            time.sleep(0.05)

    def reads(self, *words: str) -> None:
        """Wait until all of these can be read on the page."""
        for each in words:
            self.wait(f"(document.body?.innerText ?? '').includes({json.dumps(each)})")

    def click(self, words: str) -> None:
        """Click the button, tab or link with exactly these words on it, once it is there."""
        found = "[...document.querySelectorAll('button, a, [role=tab], [role=button], li')]"
        self.wait(f"{found}.some(each => each.innerText.trim() === {json.dumps(words)})")
        self.value(f"{found}.find(each => each.innerText.trim() === {json.dumps(words)}).click()")

    def go(self, url: str) -> None:
        """Open another address in the page."""
        self.call("Page.navigate", url=url)

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press and release a key; modifiers 8 is Shift."""
        text = {"Enter": "\r", " ": " "}.get(key)
        named = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key]}
        down = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        self.call("Input.dispatchKeyEvent", **down, **named, modifiers=modifiers)
        self.call("Input.dispatchKeyEvent", type="keyUp", **named, modifiers=modifiers)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def drop(self, file: Path, selector: str) -> None:
        """Drag a file from a folder, and drop it over an element."""
        self.value(f"document.querySelector('{selector}').scrollIntoView()")
        box = f"document.querySelector('{selector}').getBoundingClientRect()"
        place = self.value(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({box})")
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=place[0], y=place[1], data=data)

    def picture(self, file: Path) -> None:
        """Draw the whole page into a PNG file."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def opened(url: str, folder: Path) -> Iterator[Tab]:
    """A page in a Chromium of its own, whose profile lies in the folder."""
    assert CHROMIUM is not None
    options = [*QUIET, f"user-data-dir={folder / 'profile'}", "remote-debugging-port=0", "window-size=1000,1400"]
    command = [CHROMIUM, "--headless", *(f"--{each}" for each in options), "about:blank"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            port = _port(folder / "profile/DevToolsActivePort")
            with connect(f"ws://127.0.0.1:{port[0]}{port[1]}", max_size=None) as browser:
                browser.send(json.dumps({"id": 1, "method": "Target.createTarget", "params": {"url": "about:blank"}}))
                target = json.loads(browser.recv(60))["result"]["targetId"]
                address = f"ws://127.0.0.1:{port[0]}/devtools/page/{target}"
                with connect(address, max_size=None) as socket:
                    tab = Tab(socket)
                    tab.call("Page.navigate", url=url)
                    tab.wait("document.readyState == 'complete' && location.href != 'about:blank'")
                    yield tab
        finally:
            process.terminate()


def _port(file: Path) -> tuple[str, str]:
    """The port and the path that Chromium writes when it listens."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        lines = file.read_text().splitlines() if file.exists() else []
        if len(lines) == 2:
            return lines[0], lines[1]
        time.sleep(0.05)
    raise AssertionError(f"{file}: Chromium does not listen.")
