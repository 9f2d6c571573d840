"""Which lines of a function cost what: ``@bundle(trainable=True, profile=True)``.

The numbers of a call are on its node, ``node.info["profile"]``, and stand beside the failure of a call
that failed. An optimizer reads them in its problem.
"""

from __future__ import annotations

import functools
import inspect
import linecache
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracegraph.failure import stands_in
from tracegraph.recorder import current
from tracegraph.spans import lines_of

__all__ = ["Line", "Profile", "apart", "in_place", "told", "way_of"]

_MOST_SHOWN = 12
_LEAST_SHARE = 0.01
_LEAST_BYTES = 1 << 20
_MOST = 1 << 62  # of anything that a line can cost
REPORT = "_report_lines"
"""The host function through which lines that are measured in the sandbox are told."""


@dataclass(frozen=True, slots=True)
class Line:
    """What one line of the text cost in one call.

    Attributes:
        number: of the line, as in the marked line of a failure.
        text: the line itself.
        passes: how often it began.
        seconds: in all passes, with the code that it called that is not in the text.
        bytes: the most that one pass needed in addition.
    """

    number: int
    text: str
    passes: int
    seconds: float
    bytes: int


@dataclass(frozen=True, slots=True)
class Profile:
    """The lines of one call that ran; measured, so slower than without."""

    lines: tuple[Line, ...]

    @property
    def seconds(self) -> float:
        """The time of all lines."""
        return sum(line.seconds for line in self.lines)

    def text(self) -> str:
        """The lines that cost most, at most twelve, for a person and a model.

        >>> print(Profile((Line(2, "    return x * x", 3, 0.5, 0),)).text())
        time by line, 500 ms in all:
           2 |     return x * x  <--- 100 %, 3 passes
        """
        total = self.seconds or 1.0
        costly = [
            line
            for line in self.lines
            if line.seconds >= _LEAST_SHARE * total or line.bytes >= _LEAST_BYTES
        ]
        most = sorted(costly, key=lambda line: (-line.seconds, line.number))[:_MOST_SHOWN]
        shown = [f"{line.number:>4} | {_said(line, total)}" for line in sorted(
            most, key=lambda line: line.number
        )]  # fmt: skip
        return "\n".join([f"time by line, {_time(self.seconds)} in all:", *shown])


def _said(line: Line, total: float) -> str:
    passes = "1 pass" if line.passes == 1 else f"{line.passes:,} passes"
    memory = f", {line.bytes / (1 << 20):.1f} MiB" if line.bytes >= _LEAST_BYTES else ""
    share = f"{100 * line.seconds / total:.0f} %"
    return f"{line.text.rstrip()[:200]}  <--- {share}, {passes}{memory}"


def _time(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{1e3 * seconds:.0f} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.0f} us"


def told(extra: Mapping[str, Any] | None) -> str:
    """The profile that a node remembers, as text; nothing where it has none."""
    profile = (extra or {}).get("profile")
    return profile.text() if isinstance(profile, Profile) else ""


def way_of(function: Any) -> str:
    """What calling `function` gives: "value", "items", "async" or "items of async"."""
    raw = inspect.unwrap(function)
    if inspect.isgeneratorfunction(raw):
        return "items"
    if inspect.isasyncgenfunction(raw):
        return "items of async"
    return "async" if inspect.iscoroutinefunction(raw) else "value"


def in_place(function: Callable[..., Any], within: str = "") -> Callable[..., Any]:
    """`function`, which is measured and leaves its profile with the recorded call that is open."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:  # a decorator below made it something else than a function
        return function
    lines = linecache.getlines(code.co_filename)

    def is_own(other: Any) -> bool:
        return stands_in(other, code, within)

    def report(rows: object) -> None:
        _leave(rows, lines, 0)

    from tracegraph import linemeter  # here: it loads tracemalloc, and few functions are measured

    run = linemeter.metered(  # type: ignore[no-untyped-call]
        function, way_of(function), is_own, report
    )
    return functools.wraps(function)(run)


def apart(entry: str, way: str, text: str, shift: int) -> tuple[str, str, Callable[[object], None]]:
    """What measures `entry` in the sandbox: the name to call, the code for it, and who is told.

    There generators are run to their end, so that `way` only tells what must be awaited.

    The code goes behind the text; `shift` lines stand before it.
    """
    name = f"_measured_{entry}"
    kind = "async" if "async" in way else "value"
    lines = lines_of(text)
    count = len(lines)
    meter = Path(__file__).with_name("linemeter.py").read_text(encoding="utf-8")
    code = f"""
_meter_of_{entry} = {{"__name__": "linemeter"}}
exec({meter!r}, _meter_of_{entry})

def _is_own_of_{entry}(code, name={entry}.__code__.co_filename):
    return code.co_filename == name and {shift} < code.co_firstlineno <= {shift + count}

{name} = _meter_of_{entry}["metered"]({entry}, {kind!r}, _is_own_of_{entry}, {REPORT})
"""
    return name, code, lambda rows: _leave(rows, lines, shift)


def _leave(rows: object, lines: Sequence[str], shift: int) -> None:
    """Keep what was measured with the open call; what a child told may be anything."""
    policy = current()
    if policy is None or policy.frame is None or not isinstance(rows, list):
        return
    found = []
    for row in rows[: len(lines)]:
        match row:
            case [int(number), int(passes), float(seconds), int(size)]:
                at = number - shift
                if 1 <= at <= len(lines) and all(0 <= n < _MOST for n in (passes, seconds, size)):
                    found.append(Line(at, lines[at - 1], passes, seconds, size))
    policy.frame.keep("profile", Profile(tuple(found)))
