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
import re
import threading
import types
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracegraph.errors import SandboxError
from tracegraph.failure import masked
from tracegraph.pullback import Pullback, has_tensors
from tracegraph.recorder import current
from tracegraph.source import Source, marked

if TYPE_CHECKING:
    from tracegraph.sandbox import Failure, Policy, Result, Runner

__all__ = ["Ran", "apart", "isolated"]

_LONGEST_CONSTANT = 10_000
_MOST_PRINTED = 10_000
_MOST_TOLD = 500


@dataclass(frozen=True, slots=True)
class Ran:
    """What is known of a call that ran apart: ``node.info["ran"]``.

    Attributes:
        stdout, stderr: what was printed, its last 10,000 characters.
        seconds: wall clock, without the time in host functions.
        cpu_seconds, max_rss: processor time, and the most memory in bytes, where they are known.
    """

    stdout: str
    stderr: str
    seconds: float
    cpu_seconds: float | None
    max_rss: int | None


def isolated(
    source: Source,
    original: Callable[..., Any],
    sandbox: str | Policy | Runner = "isolated",
    host: Mapping[str, Callable[..., Any]] | None = None,
) -> Callable[..., Any]:
    """The function that `source` defines, run in a sandbox in place of `original`.

    Arguments and results are values: numbers, texts, lists, dicts, arrays, tensors. Gradients go back
    from tensor to tensor where torch is loaded in the sandbox (`pullback`). What the code raises is
    raised here as the builtin exception of its type, with the line of the code marked. A generator
    runs to its end before its first item is given, and cannot be sent anything.
    """
    run = apart(source, original, sandbox, host)
    raw = inspect.unwrap(original)
    if inspect.isgeneratorfunction(raw):

        def items(*args: Any, **kwargs: Any) -> Iterator[Any]:
            yield from run(*args, **kwargs)

        return items

    async def run_async(*args: Any, **kwargs: Any) -> Any:
        import asyncio  # costs 30 ms; who awaits this has it loaded

        return await asyncio.to_thread(run, *args, **kwargs)

    if inspect.isasyncgenfunction(raw):

        async def items_async(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            for item in await run_async(*args, **kwargs):
                yield item

        return items_async
    return run_async if inspect.iscoroutinefunction(raw) else run


def apart(
    source: Source,
    original: Callable[..., Any],
    sandbox: str | Policy | Runner = "isolated",
    host: Mapping[str, Callable[..., Any]] | None = None,
) -> Callable[..., Any]:
    """As `isolated`, but every call waits for its result, and the items of a generator are a list."""
    lines = _prelude(source, original)
    text = "".join(f"{line}\n" for line in lines) + source.text
    entry, collector = _collecting(source.entry, inspect.unwrap(original))
    text += collector
    raw: Any = inspect.unwrap(original)
    names = raw.__code__.co_varnames[: raw.__code__.co_argcount]
    elsewhere = {name for name, value in raw.__globals__.items() if callable(value)}

    def run(*args: Any, **kwargs: Any) -> Any:
        box = _box(sandbox, tensors=has_tensors(args, kwargs))
        wanted = Pullback.wanted(args, kwargs)
        try:
            if wanted:
                result = Pullback(box, text, entry, args, kwargs, host or {}).call()
            else:
                result = box.call(text, entry, args, kwargs, host=host)
        except SandboxError as error:
            _name_argument(error, names, inner=wanted)
            raise
        _tell(result)
        return _value(result, source, len(lines), elsewhere)

    return run


def _collecting(entry: str, raw: Any) -> tuple[str, str]:
    """What to call in the sandbox, and the code that it needs: the items of a generator as a list."""
    name = f"_items_of_{entry}"
    if inspect.isgeneratorfunction(raw):
        return name, f"\ndef {name}(*args, **kwargs):\n    return list({entry}(*args, **kwargs))\n"
    if inspect.isasyncgenfunction(raw):
        items = f"[item async for item in {entry}(*args, **kwargs)]"
        return name, f"\nasync def {name}(*args, **kwargs):\n    return {items}\n"
    return entry, ""


_ARGUMENT = re.compile(r"call\['args'\]\[(\d+)\]|call\['kwargs'\]\['(\w+)'\]")
_INNER = {"call['args'][1]": "call['args']", "call['args'][2]": "call['kwargs']"}
"""Where a call that may be asked for its gradient has the arguments of the code."""


def _name_argument(error: SandboxError, names: tuple[str, ...], *, inner: bool) -> None:
    """Say which argument cannot travel by its name, and what else could be done."""
    text = str(error)
    for outer, place in _INNER.items() if inner else ():
        text = text.replace(outer, place, 1) if text.startswith(outer) else text
    found = _ARGUMENT.match(text)
    if found is None:
        return
    at = None if found[1] is None else int(found[1])
    name = found[2] if at is None else names[at] if at < len(names) else f"number {at}"
    error.args = (
        f"the argument {name}{text[found.end() :]}; where the code is trusted "
        "(parameter.trust()) it runs here, and takes any object",
    )


def _tell(result: Result) -> None:
    """Leave the facts of a call with the recorded call that is open, if one is."""
    policy = current()
    if policy is not None and policy.frame is not None:
        ran = Ran(
            result.stdout[-_MOST_PRINTED:],
            result.stderr[-_MOST_PRINTED:],
            result.seconds,
            result.cpu_seconds,
            result.max_rss,
        )
        policy.frame.keep("ran", ran)


def _value(result: Result, source: Source, shift: int, elsewhere: set[str]) -> Any:
    if result.error is None:
        return result.value
    error, failure = result.error, result.failure
    if failure is not None:
        line = 0 if failure.line is None else failure.line - shift
        held = ", ".join(f"{n} = {masked(n, value)}" for n, value in failure.locals.items())
        lines = marked(source.text, line, _mark(failure)) if line > 0 else ""
        undefined = re.match(r"name '(\w+)' is not defined", str(error))
        told = [
            lines,
            f"where {held}" if held and lines else "",
            _apart(undefined[1]) if undefined and undefined[1] in elsewhere else "",
            _printed(result),
        ]
        error.__dict__["marked"] = "\n".join(filter(None, told))
    raise error


def _apart(name: str) -> str:
    return (
        f"{name} is a function of the program, and the code runs apart from it; "
        f"bundle(host={{{name!r}: {name}}}) lets the code call it"
    )


def _mark(failure: Failure) -> str:
    head = failure.message.splitlines()[0] if failure.message else ""
    return f"({failure.type}) {head}".strip()


def _printed(result: Result) -> str:
    """The end of what was printed, for a reader who looks for the cause of a failure."""
    text = (result.stdout + result.stderr).rstrip()
    cut = "..." if len(text) > _MOST_TOLD else ""
    return f"printed before: {cut}{text[-_MOST_TOLD:]}" if text else ""


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


_boxes: dict[tuple[int, str | Policy, bool], Runner] = {}
_opening = threading.Lock()
_WITH_TORCH = ("isolated", "bwrap")
_TORCH_MEMORY_MB = 2048  # torch itself takes about 700 of them


def _box(sandbox: str | Policy | Runner, *, tensors: bool = False) -> Runner:
    """The sandbox of this process for a name or for limits; a forked process opens its own.

    A sandbox of a name has torch loaded where there are `tensors`; limits of your own say themselves
    what is loaded.
    """
    from tracegraph.sandbox import Policy, open_sandbox  # only when code must run in it

    if not isinstance(sandbox, str | Policy):
        return open_sandbox(sandbox)
    with_torch = tensors and sandbox in _WITH_TORCH
    key = (os.getpid(), sandbox, with_torch)
    with _opening:
        if key not in _boxes:
            if isinstance(sandbox, Policy):
                _boxes[key] = open_sandbox("isolated", sandbox)
            elif with_torch:
                loaded = (*Policy().preload, "torch")
                limits = Policy(preload=loaded, memory_mb=_TORCH_MEMORY_MB)
                _boxes[key] = open_sandbox(sandbox, limits)
            else:
                _boxes[key] = open_sandbox(sandbox)
        return _boxes[key]


@atexit.register
def _close() -> None:
    for (process, *_), box in _boxes.items():
        if process == os.getpid():
            box.close()
