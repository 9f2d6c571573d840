"""Run the text of a function away from this process, as a call that looks like any other.

What the text needs of its module goes with it where that is plainly possible: imported modules by
name, and plain constants by value. Other functions of the module do not; a function that the code
may call here is named as a host function, and runs here while the code waits.
"""

from __future__ import annotations

import ast
import atexit
import builtins
import inspect
import os
import threading
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tracegraph.source import Source

if TYPE_CHECKING:
    from tracegraph.sandbox import Result, Runner

__all__ = ["apart", "isolated"]

_LONGEST_CONSTANT = 10_000


def isolated(
    source: Source,
    original: Callable[..., Any],
    sandbox: str | Runner = "isolated",
    host: Mapping[str, Callable[..., Any]] | None = None,
) -> Callable[..., Any]:
    """The function that `source` defines, run in a sandbox in place of `original`.

    Arguments and results are values: numbers, texts, lists, dicts, arrays. What the code raises is
    raised here as the builtin exception of its type, with the line of the code marked.
    """
    run = apart(source, original, sandbox, host)
    if not inspect.iscoroutinefunction(inspect.unwrap(original)):
        return run

    async def run_async(*args: Any, **kwargs: Any) -> Any:
        import asyncio  # costs 30 ms; who awaits this has it loaded

        return await asyncio.to_thread(run, *args, **kwargs)

    return run_async


def apart(
    source: Source,
    original: Callable[..., Any],
    sandbox: str | Runner = "isolated",
    host: Mapping[str, Callable[..., Any]] | None = None,
) -> Callable[..., Any]:
    """As `isolated`, but every call waits for its result, also where `original` is async."""
    lines = _prelude(source, original)
    text = "".join(f"{line}\n" for line in lines) + source.text

    def run(*args: Any, **kwargs: Any) -> Any:
        result = _box(sandbox).call(text, source.entry, args, kwargs, host=host)
        return _value(result, source, len(lines))

    return run


def _value(result: Result, source: Source, shift: int) -> Any:
    if result.error is None:
        return result.value
    error, failure = result.error, result.failure
    if failure is not None:
        from tracegraph.sandbox.result import excerpt

        line = None if failure.line is None else failure.line - shift
        held = ", ".join(f"{name} = {value}" for name, value in failure.locals.items())
        marked = excerpt(source.text, line) if line is not None and line > 0 else ""
        error.__dict__["marked"] = f"{marked}\nwhere {held}" if held and marked else marked
    raise error


def _prelude(source: Source, original: Callable[..., Any]) -> list[str]:
    """Lines that bring along what the code names and does not define: modules and constants."""
    raw: Any = inspect.unwrap(original)
    known = {**raw.__globals__, **inspect.getclosurevars(raw).nonlocals}
    lines = []
    for name in sorted(_free_names(ast.parse(source.text))):
        value = known.get(name, original)
        if isinstance(value, types.ModuleType):
            lines.append(f"import {value.__name__} as {name}")
        elif value is not original and not callable(value) and _is_plain(value):
            lines.append(f"{name} = {value!r}")
    return lines


def _free_names(tree: ast.Module) -> set[str]:
    names = [n for n in ast.walk(tree) if isinstance(n, ast.Name)]
    loaded = {n.id for n in names if isinstance(n.ctx, ast.Load)}
    defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
    return {name for name in loaded - defined if not hasattr(builtins, name)}


def _is_plain(value: Any) -> bool:
    """Whether ``repr`` writes the very value: numbers, texts, and containers of these."""
    if not isinstance(value, (int, float, str, bytes, bool, type(None), list, tuple, dict, set)):
        return False
    text = repr(value)
    if len(text) > _LONGEST_CONSTANT:
        return False
    try:
        return bool(ast.literal_eval(text) == value)
    except (ValueError, SyntaxError, RecursionError):
        return False


_boxes: dict[tuple[int, str], Runner] = {}
_opening = threading.Lock()


def _box(sandbox: str | Runner) -> Runner:
    """The sandbox of this process; a forked process opens its own."""
    from tracegraph.sandbox import open_sandbox  # starts a process: only when code must run in it

    if not isinstance(sandbox, str):
        return sandbox
    key = (os.getpid(), sandbox)
    with _opening:
        if key not in _boxes:
            _boxes[key] = open_sandbox(sandbox)
        return _boxes[key]


@atexit.register
def _close() -> None:
    for (process, _), box in _boxes.items():
        if process == os.getpid():
            box.close()
