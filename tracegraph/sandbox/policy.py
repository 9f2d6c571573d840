"""What sandboxed code may use, and how much of it.

Nothing here can widen the sandbox to writing files, to the network or to starting processes: those
are never allowed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from tracegraph.errors import SandboxError

__all__ = ["LAYERS", "Policy"]

LAYERS = ("namespaces", "capabilities", "undumpable", "landlock", "seccomp", "rlimits")
"""Every layer, in the order in which it is put on."""

_LEAST_MEMORY_MB = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The limits of a sandbox, compared by value.

    Args:
        timeout: wall clock for one call, in seconds; the time in host functions is not counted.
        cpu: processor time for one child, in seconds, rounded up to whole ones by the kernel.
        memory_mb: address space of one child in MiB; numpy needs about 256, torch 1024.
        max_output: characters kept of what one call prints, for each of stdout and stderr.
        max_value: bytes of arguments, of a returned value, and of each message to a host function; all
            messages of one call together may have 16 times as many.
        max_host_calls: calls of host functions during one call.
        preload: modules imported before the walls go up, so that no call pays for them.
        read: files and folders that may be read, besides Python's own libraries.
        require: layers without which the sandbox refuses to start.
        layers: layers to put on where the system has them; fewer is for tests.

    >>> Policy(timeout=0.5).timeout
    0.5
    >>> Policy(timeout=0)
    Traceback (most recent call last):
    tracegraph.errors.SandboxError: Policy(timeout=0): must be a finite number above 0
    """

    timeout: float = 2.0
    cpu: float = 5.0
    memory_mb: int = 1024
    max_output: int = 1 << 20
    max_value: int = 64 << 20
    max_host_calls: int = 1000
    preload: tuple[str, ...] = ("math", "json", "re", "random", "itertools", "numpy")
    read: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    layers: tuple[str, ...] = LAYERS

    def __post_init__(self) -> None:
        for name in ("timeout", "cpu"):
            self._check(name, _positive(getattr(self, name)), "must be a finite number above 0")
        for name in ("max_output", "max_host_calls"):
            self._check(name, _whole(getattr(self, name)), "must be a whole number, 0 or more")
        self._check(
            "max_value", _whole(self.max_value) and self.max_value >= 1024, "must be 1024 or more"
        )
        self._check(
            "memory_mb",
            _whole(self.memory_mb) and self.memory_mb >= _LEAST_MEMORY_MB,
            f"must be {_LEAST_MEMORY_MB} or more: Python itself needs that much",
        )
        for name in ("preload", "read", "require", "layers"):
            self._check_names(name)
        for name in ("require", "layers"):
            unknown = [layer for layer in getattr(self, name) if layer not in LAYERS]
            self._check(name, not unknown, f"unknown layer {unknown}; the layers are {LAYERS}")
        missing = [path for path in self.read if not os.path.exists(path)]
        self._check("read", not missing, f"{missing} does not exist")

    def _check(self, name: str, good: bool, why: str) -> None:
        if not good:
            raise SandboxError(f"Policy({name}={getattr(self, name)!r}): {why}")

    def _check_names(self, name: str) -> None:
        value: Any = getattr(self, name)
        if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
            value = tuple(value)
            object.__setattr__(self, name, value)
        good = isinstance(value, tuple) and all(isinstance(item, str) for item in value)
        self._check(name, good, "must be a tuple of strings")

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, for the sandbox's own program."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def _positive(value: object) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0  # type: ignore[arg-type, operator]


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
