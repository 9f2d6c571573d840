"""What an attack is given, and what listens for it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.judge import EXPECTED, HELD, SECRET


@pytest.fixture(scope="module")
def listening() -> Iterator[dict[str, Any]]:
    name = f"\0tracegraph-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(name)
        unix.listen()
        yield {"tcp": tcp.getsockname(), "abstract": name, "sockets": [tcp, unix]}


@pytest.fixture
def world(tmp_path: Path, listening: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("API_KEY", SECRET)
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    (tmp_path / "scratch").mkdir()
    return {
        "secret": str(secret),
        "as it was": (secret.stat().st_mode & 0o777, secret.stat().st_mtime),
        "scratch": str(tmp_path / "scratch"),
        "home": str(Path.home()),
        "host": os.getpid(),
        "tcp": listening["tcp"],
        "abstract": listening["abstract"],
        "mark": EXPECTED[::-1],
        "held": HELD.data,
    }
