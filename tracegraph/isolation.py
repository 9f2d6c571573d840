"""Run the text of a function away from this process, as a call that looks like any other.

What the text needs of its module goes with it where that is plainly possible (`prelude`). Other functions
of the module do not; a function that the code may call here is named as a host function, and runs here
while the code waits.
"""

from __future__ import annotations

import atexit
import inspect
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracegraph import profiling
from tracegraph.errors import SandboxError
from tracegraph.failure import masked
from tracegraph.forking import new_lock
from tracegraph.lasting import lost
from tracegraph.marking import marked
from tracegraph.prelude import (
    brought,
    lacking,
    names_around,
    prelude,
    told_apart,
    without_annotations,
    without_defaults,
)
from tracegraph.pullback import Pullback, has_tensors
from tracegraph.recorder import current
from tracegraph.spans import lines_of

if TYPE_CHECKING:
    from tracegraph.sandbox import Failure, Policy, Result, Runner

__all__ = ["Ran", "apart", "as_called", "away", "isolated", "many"]

_MOST_PRINTED = 10_000
_MOST_TOLD = 500


@dataclass(frozen=True, slots=True)
class Ran:
    """What is known of a call that ran apart: ``node.info["ran"]``.

    Attributes:
        stdout, stderr: what was printed, its last 10,000 characters.
        seconds: wall clock, without the time in host functions.
        cpu_seconds, max_rss: processor time, and the most memory in bytes, where they are known.
        lost: what the code changes that ends with the call, in words (`lasting.lost`); or nothing.
    """

    stdout: str
    stderr: str
    seconds: float
    cpu_seconds: float | None
    max_rss: int | None
    lost: str = ""


def isolated(
    text: str,
    entry: str,
    original: Callable[..., Any],
    sandbox: str | Policy | Runner = "isolated",
    host: Mapping[str, Callable[..., Any]] | None = None,
    *,
    alone: bool = False,
    profile: bool = False,
) -> Callable[..., Any]:
    """The function `entry` of a text, run in a sandbox in place of `original`.

    Arguments and results are values: numbers, texts, lists, dicts, arrays, tensors. Gradients go back
    from tensor to tensor where torch is loaded in the sandbox (`pullback`). What the code raises is
    raised here as the builtin exception of its type, with the line of the code marked. A generator
    runs to its end before its first item is given, and cannot be sent anything. What the text needs of
    the module of `original` goes with it, unless it stands `alone`. With `profile` the lines of the text
    are measured.
    """
    run = apart(text, entry, original, sandbox, host, alone=alone, profile=profile)
    return as_called(run, profiling.way_of(original))


def as_called(run: Callable[..., Any], way: str) -> Callable[..., Any]:
    """`run`, which waits for its result, as a function that is called the way of the original."""

    def items(*args: Any, **kwargs: Any) -> Iterator[Any]:
        yield from _items(run(*args, **kwargs))

    async def run_async(*args: Any, **kwargs: Any) -> Any:
        import asyncio  # costs 30 ms; who awaits this has it loaded

        return await asyncio.to_thread(run, *args, **kwargs)

    async def items_async(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        for item in _items(await run_async(*args, **kwargs)):
            yield item

    ways = {"value": run, "items": items, "async": run_async, "items of async": items_async}
    return ways[way]


def _items(found: Any) -> list[Any]:
    if not isinstance(found, list):
        raise SandboxError(
            f"the sandbox gave a {type(found).__name__} in the place of a list of the items that the code "
            "yields: the code has changed what runs it"
        )
    return found


def apart(
    text: str,
    entry: str,
    original: Callable[..., Any],
    sandbox: str | Policy | Runner = "isolated",
    host: Mapping[str, Callable[..., Any]] | None = None,
    *,
    alone: bool = False,
    profile: bool = False,
) -> Callable[..., Any]:
    """As `isolated`, but every call waits for its result, and the items of a generator are a list."""
    raw: Any = inspect.unwrap(original)
    called, collector = _collecting(entry, raw)
    names = {} if alone else names_around(raw)
    lines = prelude(text, names)
    sent, given = (text, None) if alone else without_defaults(text, entry, raw, lines)
    run = away(
        text,
        called,
        before=lines,
        after=collector,
        sandbox=sandbox,
        host=host,
        profile=profiling.way_of(raw) if profile else "",
        known=names,
        arguments=raw.__code__.co_varnames[: raw.__code__.co_argcount],
        sent=sent,
        ends=lost(text, raw),
    )

    if given is None:
        return run
    fill = given

    def filled(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = fill(args, kwargs)
        return run(*args, **kwargs)

    return filled


def many(
    text: str,
    entry: str,
    original: Callable[..., Any],
    sandbox: str | Policy | Runner = "isolated",
    host: Mapping[str, Callable[..., Any]] | None = None,
) -> Callable[..., Any]:
    """As `apart`, for a list of calls that one child runs one after the other."""
    names = names_around(inspect.unwrap(original))
    name = f"_calls_of_{entry}"
    code = f"\ndef {name}(calls):\n    return [{entry}(*call) for call in calls]\n"
    return away(
        text, name, before=prelude(text, names), after=code, sandbox=sandbox, host=host,
        known=names,
    )  # fmt: skip


def away(
    text: str,
    entry: str,
    *,
    before: Sequence[str] = (),
    after: str = "",
    sandbox: str | Policy | Runner = "isolated",
    host: Mapping[str, Callable[..., Any]] | None = None,
    profile: str = "",
    known: Mapping[str, Any] | None = None,
    arguments: tuple[str, ...] | None = None,
    sent: str | None = None,
    ends: str = "",
) -> Callable[..., Any]:
    """A function that runs `entry` of a text in a sandbox, with lines before it and code after it.

    What the code raises is raised here, with the line of `text` marked.

    Args:
        text: the code, as a reader knows it.
        entry: what is called.
        before, after: code around it.
        sandbox, host: as `bundle` has them.
        profile: how the code is called (`profiling.way_of`), where its lines are to be measured.
        known: what the program around the text can name; a failure for the lack of it says so.
        arguments: the names of the arguments by position, for messages; None where they are not the
            code's own.
        sent: what goes there in the place of `text`, line by line.
        ends: what the code changes that ends with the call, in words.
    """
    present = brought(before)
    body = without_annotations(text if sent is None else sent, present)
    head = "".join(f"{line}\n" for line in before) + body
    whole, called, asked = head + after, entry, host or {}
    if profile:
        called, meter, report = profiling.apart(entry, profile, text, len(before))
        whole += meter
        asked = {**asked, profiling.REPORT: report}
    missing = told_apart(text, known or {}, present)

    def run(*args: Any, **kwargs: Any) -> Any:
        box = _box(sandbox, tensors=has_tensors(args, kwargs))
        wanted = Pullback.wanted(args, kwargs)
        try:
            if wanted:  # runs twice, and is not measured
                result = Pullback(box, head + after, entry, args, kwargs, host or {}).call()
            else:
                result = box.call(whole, called, args, kwargs, host=asked)
        except SandboxError as error:
            _name_argument(error, arguments, inner=wanted)
            raise
        _tell(result, ends)
        return _value(result, text, len(before), missing, ends)

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


_ARGUMENT = re.compile(r"args\[(\d+)\]|kwargs\['(\w+)'\]")
_INNER = {"args[1]": "args", "args[2]": "kwargs"}
"""Where a call that may be asked for its gradient has the arguments of the code."""


def _name_argument(error: SandboxError, names: tuple[str, ...] | None, *, inner: bool) -> None:
    """Say which argument cannot travel by its name, and what else could be done."""
    text = str(error)
    outer = text[: len("args[1]")]
    if inner and outer in _INNER:
        text = _INNER[outer] + text[len(outer) :]
    if names is None:
        error.args = (text,)
        return
    found = _ARGUMENT.match(text)
    if found is None:
        return
    at = None if found[1] is None else int(found[1])
    name = found[2] if at is None else names[at] if at < len(names) else f"number {at}"
    error.args = (
        f"the argument {name}{text[found.end() :]}; where the code is trusted "
        "(parameter.trust()) it runs here, and takes any object",
    )


def _tell(result: Result, ends: str) -> None:
    """Leave the facts of a call with the recorded call that is open, if one is."""
    policy = current()
    if policy is not None and policy.frame is not None:
        ran = Ran(
            result.stdout[-_MOST_PRINTED:],
            result.stderr[-_MOST_PRINTED:],
            result.seconds,
            result.cpu_seconds,
            result.max_rss,
            ends,
        )
        policy.frame.keep("ran", ran)


def _value(result: Result, text: str, shift: int, missing: Mapping[str, str], ends: str) -> Any:
    if result.error is None:
        return result.value
    error, failure = result.error, result.failure
    if failure is not None:
        line = 0 if failure.line is None else failure.line - shift
        held = ", ".join(
            f"{n} = {masked(n, value)}" for n, value in failure.locals.items() if n != "self"
        )
        within = 0 < line <= len(lines_of(text))
        said = lacking(error, failure.message, missing)
        if said:
            error.add_note(said)  # a person may see the traceback alone
        told = [
            marked(text, line, _mark(failure)) if within else "",
            f"where {held}" if held and within else "",
            said,
            ends,
            _printed(result),
            _measured(),
        ]
        error.__dict__["marked"] = "\n".join(filter(None, told))
    raise error


def _measured() -> str:
    """What the lines of the open call cost, where they are measured."""
    policy = current()
    return profiling.told(None if policy is None or policy.frame is None else policy.frame.facts)


def _mark(failure: Failure) -> str:
    head = failure.message.splitlines()[0] if failure.message else ""
    return f"({failure.type}) {head}".strip()


def _printed(result: Result) -> str:
    """The end of what was printed, for a reader who looks for the cause of a failure."""
    text = (result.stdout + result.stderr).rstrip()
    cut = "..." if len(text) > _MOST_TOLD else ""
    return f"printed before: {cut}{text[-_MOST_TOLD:]}" if text else ""


_boxes: dict[tuple[int, str | Policy, bool], Runner] = {}
_opening = new_lock()
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
    for (process, *_), box in list(_boxes.items()):
        if process == os.getpid():
            box.close()
