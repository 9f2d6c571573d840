"""The server that the demonstration asks."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from optimizers.demo.server import Response, Server


def test_many_callers_get_a_line_before_any_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whom the system has no room for tries again, after a second and then ever later."""
    accept, served = ThreadingHTTPServer.get_request, threading.Event()

    def late(self: Any) -> Any:
        served.wait(30)
        return accept(self)

    monkeypatch.setattr(ThreadingHTTPServer, "get_request", late)
    with Server(lambda request, headers: Response("{}")) as server, ExitStack() as lines:
        lines.callback(served.set)
        address = urlsplit(server.base)
        for _ in range(64):
            line = socket.create_connection((address.hostname, address.port), timeout=10)
            lines.enter_context(line)
