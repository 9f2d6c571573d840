"""Drive a Firefox without a window by its own protocol, Marionette: nothing need be installed.

A message is its length, a colon, and JSON: ``[0, number, command, parameters]`` to the browser,
``[1, number, error, result]`` back.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

FIREFOX = next(filter(None, map(shutil.which, ("firefox-esr", "firefox"))), None)


class Firefox:
    """A browser with one page; `folder` is an empty one for its profile."""

    def __init__(self, folder: Path) -> None:
        assert FIREFOX is not None
        (folder / "user.js").write_text('user_pref("marionette.port", 0);\n')
        self._process = subprocess.Popen(
            [FIREFOX, "--headless", "--no-remote", "--marionette", "--profile", str(folder)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._number = 0
        self._socket: socket.socket | None = None
        try:
            self._socket = socket.create_connection(("127.0.0.1", self._port(folder)), timeout=100)
            self._read()  # the greeting
            self.ask("WebDriver:NewSession", capabilities={"alwaysMatch": {}})
            self.ask("WebDriver:SetWindowRect", width=1300, height=900)
        except BaseException:
            self._end()
            raise

    def _port(self, folder: Path) -> int:
        told = folder / "MarionetteActivePort"
        for _ in range(600):
            if told.exists() and told.read_text().strip():
                return int(told.read_text())
            if self._process.poll() is not None:
                raise RuntimeError(f"Firefox ended with {self._process.returncode}")
            time.sleep(0.1)
        raise TimeoutError("Firefox did not say its port in a minute")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        """Leave neither the connection nor the process behind, however far it came."""
        if self._socket is not None:
            self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ask(self, command: str, **parameters: Any) -> Any:
        """Send a command, give its result."""
        self._number += 1
        text = json.dumps([0, self._number, command, parameters]).encode()
        assert self._socket is not None
        self._socket.sendall(str(len(text)).encode() + b":" + text)
        _, _, error, result = self._read()
        if error is not None:
            raise RuntimeError(f"{command}: {error['message']}")
        return result

    def _read(self) -> Any:
        head = b""
        while not head.endswith(b":"):
            head += self._some(1)
        left, parts = int(head[:-1]), []
        while left:
            parts.append(self._some(min(left, 65_536)))
            left -= len(parts[-1])
        return json.loads(b"".join(parts))

    def _some(self, count: int) -> bytes:
        assert self._socket is not None
        found = self._socket.recv(count)
        if not found:
            raise ConnectionError("Firefox closed the connection")
        return found

    def open(self, path: Path) -> None:
        """Open a file and wait until its script is ready."""
        self.ask("WebDriver:Navigate", url=path.as_uri())
        for _ in range(200):
            if self.run("return document.documentElement.dataset.ready === 'yes'"):
                return
            time.sleep(0.05)
        raise TimeoutError(f"{path.name} did not get ready")

    def run(self, script: str) -> Any:
        """What a function with this body gives."""
        return self.ask("WebDriver:ExecuteScript", script=script, args=[])["value"]

    def click(self, selector: str) -> None:
        """Press and let go the mouse on the middle of the first element that a selector finds."""
        x, y = self.run(
            f"const area = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            "return [area.x + area.width / 2, area.y + area.height / 2].map(Math.round);"
        )
        moves = [
            {"type": "pointerMove", "x": x, "y": y},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        mouse = {"type": "pointer", "id": "m", "parameters": {"pointerType": "mouse"}}
        self.ask("WebDriver:PerformActions", actions=[{**mouse, "actions": moves}])

    def press(self, key: str) -> None:
        """Press a key where the focus is."""
        keys = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self.ask("WebDriver:PerformActions", actions=[{"type": "key", "id": "k", "actions": keys}])
