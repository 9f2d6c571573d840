"""Tensors of what a step has paid for, as files beside the store until the step is in the saved state.

A file is written before anything refers to it, and is believed only with the digest that whoever refers to it
knows. It holds numbers and nothing else (safetensors).
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from tracegraph.errors import HistoryError
from tracegraph.history.tensors import tensor_bytes, tensors_in

__all__ = ["KeptTensors"]


@final
class KeptTensors:
    """Keeps tensors and arrays under names.

    Args:
        folder: where the files lie; it need not be there yet.

    >>> import tempfile, numpy
    >>> kept = KeptTensors(Path(tempfile.mkdtemp()) / "runs")
    >>> digest = kept.keep("step 1/run 3", {"x": numpy.array([1.0, 2.0])})
    >>> kept.find("step 1/run 3", digest)["x"].tolist()
    [1.0, 2.0]
    >>> kept.clear()
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, name: str, tensors: Mapping[str, Any]) -> str:
        """Write tensors; gives their digest, empty where there is none to write.

        Raises:
            HistoryError: there is no way to write them, or the disk refuses.
            MissingExtra: safetensors is not installed.
        """
        if not tensors:
            return ""
        data = tensor_bytes(tensors)
        path = self._file(name)
        try:
            try:
                path.write_bytes(data)
            except FileNotFoundError:
                self._folder.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        except OSError as error:
            raise HistoryError(f"{path} cannot be written: {error}") from error
        return _digest(data)

    def find(self, name: str, digest: str) -> dict[str, Any]:
        """The tensors that were kept with this digest.

        Raises:
            HistoryError: they are missing or changed.
        """
        if not digest:
            return {}
        path = self._file(name)
        try:
            found = _digest(path.read_bytes())
        except OSError as error:
            raise HistoryError(f"{path} cannot be read: {error}") from error
        if found != digest:
            raise HistoryError(f"{path} is not what was kept: it was changed or is damaged")
        return tensors_in(path)

    def clear(self) -> None:
        """Forget all of them."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, name: str) -> Path:
        digest = hashlib.sha256(name.encode()).hexdigest()[:24]
        return self._folder / f"{digest}.safetensors"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
