"""The value of a parameter as it is kept: taken at once, written later.

A text or code is kept as text, everything else as JSON, tensors as a safetensors file beside the
history. What cannot be read back, or is too large, is kept as it is shown.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tracegraph.errors import HistoryError, MissingExtra
from tracegraph.history.redact import Redactor
from tracegraph.history.store import keep_text, kept_text
from tracegraph.history.tensors import tensor_bytes, tensors_in
from tracegraph.history.values import pack, unpack
from tracegraph.kinds import is_array, is_tensor, show
from tracegraph.parameter import Parameter

__all__ = ["Taken", "read_value", "take", "tensor_file"]

_SHOWN = 10_000


@dataclass(frozen=True, slots=True)
class Taken:
    """A parameter's value at one moment; `codec` is text, json, tensors or shown."""

    name: str
    kind: str
    version: int
    origin: str
    trusted: bool
    codec: str
    data: Any
    tensors: dict[str, Any] = field(default_factory=dict)

    def write(
        self, connection: sqlite3.Connection, path: Path, run: int, step: int, clean: Redactor
    ) -> None:
        """Write it as the value that holds from `step` on."""
        codec, data = self.codec, self.data
        if self.tensors:
            try:
                file = _keep_tensors(path, self.tensors)
                text = json.dumps({"file": file, "data": data})
            except (HistoryError, MissingExtra):
                codec, text = "shown", "; ".join(show(t) for t in self.tensors.values())
        else:
            text = data if isinstance(data, str) and codec != "json" else json.dumps(data)
        sha = keep_text(connection, clean.clean(text))
        connection.execute(
            "INSERT OR REPLACE INTO params VALUES (?,?,?,?,?,?,?,?,?)",
            (
                run, clean.clean_name(self.name), step, self.kind, self.version, self.origin,
                self.trusted, codec, sha,
            ),
        )  # fmt: skip


def take(name: str, parameter: Parameter[Any], *, largest: int, value: Any = None) -> Taken:
    """The value of `parameter` now, or `value`; tensors larger than `largest` bytes in words."""
    now = parameter._cell().now
    value = now.data if value is None else value
    tensors: dict[str, Any] = {}
    codec, data = "text", value
    if not isinstance(value, str):
        try:
            if _size(value) > largest:
                raise HistoryError("too large")
            data = pack(value, tensors, path=name)
            codec = "tensors" if tensors else "json"
        except HistoryError:
            codec, data = "shown", _described(value)
    return Taken(
        name, parameter.kind.name, now.version, now.origin, now.trusted, codec, data, tensors
    )


def read_value(connection: sqlite3.Connection, path: Path, codec: str, sha: bytes) -> Any:
    """The value that was kept; a text that describes it where it was kept so.

    Raises:
        HistoryError: it is missing or damaged.
    """
    text = kept_text(connection, sha) or ""
    if codec in ("text", "shown"):
        return text
    data = json.loads(text)
    if codec == "json":
        return _plain(data)
    found = tensors_in(tensor_file(path, data["file"]))
    return unpack(data["data"], found)


def tensor_file(path: Path, sha: str) -> Path:
    """Where the tensors of that hash lie, for the history at `path`."""
    return path.parent / "tensors" / f"{sha}.safetensors"


def _plain(data: Any) -> Any:
    try:
        return unpack(data, {})
    except HistoryError:  # a dataclass or enumeration, whose type is not here
        return data


def _keep_tensors(path: Path, tensors: dict[str, Any]) -> str:
    content = tensor_bytes(tensors)
    sha = hashlib.sha256(content).hexdigest()
    target = tensor_file(path, sha)
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        partial = target.with_name(f"{target.name}.{os.getpid()}.part")
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    return sha


def _size(value: Any) -> int:
    return int(value.nbytes) if is_tensor(value) or is_array(value) else 0


def _described(value: Any) -> str:
    text = show(value, _SHOWN)
    if is_array(value) and value.dtype.kind in "biuf":
        numbers = value
    elif is_tensor(value) and value.dtype not in (sys.modules["torch"].bool,):
        numbers = value.detach().float()
    else:
        return text
    if not numbers.shape or 0 in numbers.shape:
        return text
    ends = ", ".join(
        f"{n} {float(getattr(numbers, n)()):.6g}" for n in ("min", "max", "mean", "std")
    )
    return f"{text} {ends}"
