"""Triton's interpreter without what it does again and again, which took a third of its time.

A launch puts the interpreter's functions in place of Triton's and takes them away at its end. Triton does so
anew at every call of a device function within, where all is replaced already.
"""

from __future__ import annotations

from functools import cache
from types import FunctionType, ModuleType
from typing import Any

import triton.language as tl
from triton.runtime import interpreter

_patch, _launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
_patched: set[ModuleType] = set()
"""The modules that the launch under way has replaced."""


@cache
def _seen_from(function: FunctionType) -> frozenset[ModuleType]:
    return frozenset(
        {tl, tl.core}.intersection(
            value for value in function.__globals__.values() if isinstance(value, ModuleType)
        )
    )


def _once(function: FunctionType) -> Any:
    modules = _seen_from(function)
    if modules <= _patched:
        return interpreter._LangPatchScope()
    _patched.update(modules)
    return _patch(function)


def _launched(self: Any, *arguments: Any, **named: Any) -> None:
    _patched.clear()
    try:
        _launch(self, *arguments, **named)
    finally:
        _patched.clear()


def once_a_launch() -> None:
    """Have this process interpret so from now on."""
    interpreter._patch_lang, interpreter.GridExecutor.__call__ = _once, _launched
