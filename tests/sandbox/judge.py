"""Whether an attack reached anything, judged from outside of it."""

from __future__ import annotations

import builtins
import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.processes import descendants
from tracegraph import errors, node
from tracegraph.sandbox import Result

__all__ = [
    "EXPECTED",
    "HELD",
    "HOSTS",
    "LIMITS",
    "PATIENT",
    "QUICK",
    "SECRET",
    "traces",
    "untouched",
]

SECRET = "correct horse battery staple"
HELD = node(["as it was"], trainable=True, name="held")
EXPECTED = "expected answer of this very test"
LIMITS: dict[str, Any] = {
    "cpu": 10,
    "memory_mb": 400,
    "max_output": 20_000,
    "max_value": 8 << 20,
    "preload": ("math", "json", "numpy", "ctypes", "socket", "urllib.request", "subprocess"),
}
# Seconds. Where the clock is not what stops an attack, a busy machine may take its time.
QUICK, PATIENT = 0.3, 10.0


def _refuse() -> None:
    raise LookupError("the host refused")


HOSTS: dict[str, Callable[..., Any]] = {
    "echo": lambda *args, **kwargs: None,
    "long": lambda: "x" * 1_000_000,
    "refuse": _refuse,
}
"""The host functions that an attack may be given."""


def traces(others: frozenset[int] = frozenset()) -> dict[str, object]:
    """What an attack could leave behind in or around this process; `others` were there before."""
    return {
        "processes": len(descendants(os.getpid()) - others),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
    }


_LIBRARY = (builtins.len, json.dumps, errors.SandboxError)


def untouched(result: Result, world: dict[str, Any], listening: Any) -> None:
    """Nothing secret came out, nobody connected, and files, parameters and the library are as before."""
    assert SECRET not in repr(result)
    assert EXPECTED not in repr(result)
    told = f"{result.failure}{result.error}"
    assert f"{result.stdout}{result.stderr}{told}".encode()
    assert re.search(r"[\0-\x08\x0b-\x1f\x7f-\x9f]", told) is None  # a terminal would obey them
    assert result.cpu_seconds is None or 0 <= result.cpu_seconds < 100
    assert os.listdir(world["scratch"]) == []
    for folder in ("/dev/shm", world["home"]):
        assert not Path(folder, "tracegraph-attack").exists()
    assert (HELD.data, HELD.version) == (["as it was"], 0)
    secret = Path(world["secret"])
    assert secret.read_text() == SECRET
    assert (secret.stat().st_mode & 0o777, secret.stat().st_mtime) == world["as it was"]
    assert (builtins.len, json.dumps, errors.SandboxError) == _LIBRARY
    for one in listening["sockets"]:
        one.setblocking(False)
        with pytest.raises(BlockingIOError):
            one.accept()
