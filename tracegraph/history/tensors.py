"""The only door to safetensors: tensors and arrays as files that hold numbers and nothing else.

Tensors come back as tensors and arrays as arrays. bfloat16 and float8 need torch, which is loaded
wherever such a tensor is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tracegraph.errors import HistoryError, MissingExtra
from tracegraph.kinds import is_tensor

__all__ = ["tensor_bytes", "tensors_in"]


def tensor_bytes(tensors: Mapping[str, Any]) -> bytes:
    """`tensors` as the bytes of one safetensors file; the same tensors give the same bytes.

    Raises:
        MissingExtra: safetensors is not installed.
        HistoryError: safetensors has no such type.
    """
    torches = {name: t for name, t in tensors.items() if is_tensor(t)}
    arrays = {name: t for name, t in tensors.items() if not is_tensor(t)}
    about = {"arrays": json.dumps(sorted(arrays))}
    try:
        if not torches:
            from safetensors.numpy import save as save_arrays

            return bytes(save_arrays(arrays, about))
        import safetensors.torch

        return bytes(safetensors.torch.save({**torches, **_as_tensors(arrays)}, about))
    except ImportError as error:
        raise _missing() from error
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        kinds = sorted({str(t.dtype) for t in tensors.values()})
        raise HistoryError(f"tensors of {', '.join(kinds)} cannot be kept: {error}") from error


def tensors_in(path: Path) -> dict[str, Any]:
    """The tensors and arrays in a file, by name.

    Raises:
        MissingExtra: safetensors is not installed.
        HistoryError: the file is missing or damaged.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise _missing() from error
    found: dict[str, Any] = {}
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = set(json.loads((file.metadata() or {}).get("arrays", "[]")))
            names = list(file.keys())
            for name in sorted(arrays):
                found[name] = file.get_tensor(name)
        if len(arrays) < len(names):
            with safe_open(path, framework="pt") as file:
                for name in names:
                    if name not in arrays:
                        found[name] = file.get_tensor(name).clone()
    except (SafetensorError, OSError, ValueError) as error:
        raise HistoryError(f"{path} cannot be read as safetensors: {error}") from error
    return found


def _as_tensors(arrays: Mapping[str, Any]) -> dict[str, Any]:
    if not arrays:
        return {}
    import sys

    torch: Any = sys.modules["torch"]
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def _missing() -> MissingExtra:
    return MissingExtra(
        "keeping tensors needs the package safetensors: pip install 'tracegraph[torch]'"
    )
