"""What came of a call: a value, or an exception and where in the source it was raised."""

from __future__ import annotations

import builtins
from dataclasses import dataclass, field
from typing import Any

from tracegraph.errors import Forbidden, OutOfMemory, SandboxError

__all__ = ["Failure", "Result", "excerpt", "failure_from", "rebuilt", "writable"]

_AROUND = 3
_MAX_TEXT, _MAX_NAMES, _MAX_BITS = 4000, 20, 1000
_NOT_REBUILT = (Exception, StopIteration, StopAsyncIteration)


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception that sandboxed code raised, or the place where it was stopped, as text.

    The code could have forged all of it: show it, do not act on it. Everything is bounded, and
    control characters are shown as their numbers.

    >>> print(Failure("ZeroDivisionError", "division by zero", 2, "> 2 | return 1 / x", {"x": "0"}))
    ZeroDivisionError: division by zero
    > 2 | return 1 / x
    where x = 0
    """

    type: str
    message: str
    line: int | None = None
    excerpt: str = ""
    locals: dict[str, str] = field(default_factory=dict)
    traceback: str = ""

    def __str__(self) -> str:
        lines = [f"{self.type}: {self.message}" if self.message else self.type]
        if self.excerpt:
            lines.append(self.excerpt)
        if self.locals:
            held = ", ".join(f"{name} = {value}" for name, value in self.locals.items())
            lines.append(f"where {held}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Result:
    """One call in a sandbox.

    Args:
        value: what the code returned; None where it failed.
        error: None, or the exception that `unwrap` raises: a builtin exception of the type that the
            code raised, or TimedOut, OutOfMemory, Forbidden or another SandboxError.
        failure: the same for a reader: line, excerpt, variables. None where nothing is known.
        stdout, stderr: what was printed, up to `Policy.max_output` characters each.
        seconds: wall clock of the call as the host saw it.
        cpu_seconds: processor time; the kernel's count for a fresh child, its start of a few
            milliseconds included; the child's own word else.
        max_rss: most memory that the process ever had, in bytes; None for a child that lives on.

    >>> Result(value=3).unwrap()
    3
    """

    value: Any = None
    error: Exception | None = None
    failure: Failure | None = None
    stdout: str = ""
    stderr: str = ""
    seconds: float = 0.0
    cpu_seconds: float | None = None
    max_rss: int | None = None

    @property
    def ok(self) -> bool:
        """Whether the code returned."""
        return self.error is None

    def unwrap(self) -> Any:
        """The value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value


def excerpt(source: str, line: int) -> str:
    """The lines around `line`, which is marked.

    >>> print(excerpt("def f(x):\\n    return 1 / x\\n", 2))
      1 | def f(x):
    > 2 |     return 1 / x
    """
    lines = _lines(source)
    first, last = max(1, line - _AROUND), min(len(lines), line + _AROUND)
    width = len(str(last))
    return "\n".join(
        f"{'>' if number == line else ' '} {number:>{width}} | {_shown(lines[number - 1][:200])}"
        for number in range(first, last + 1)
    )


def _lines(source: str) -> list[str]:
    """The lines as Python counts them: a form feed, for one, ends none."""
    return source.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")


def failure_from(told: object, source: str, entry: str) -> Failure:
    """A Failure of what the child told, which may be anything."""
    told = told if isinstance(told, dict) else {}
    line = told.get("line")
    known = type(line) is int and 1 <= line <= len(_lines(source)) + 1
    steps = told.get("traceback")
    return Failure(
        type=_text(told.get("type")) or "Exception",
        message=_text(told.get("message")),
        line=line if known else None,
        excerpt=excerpt(source, line) if known and isinstance(line, int) else "",
        locals=_names(told.get("locals")),
        traceback=_traceback(steps if isinstance(steps, list) else [], source, entry),
    )


def _text(value: object) -> str:
    return _shown(value[:_MAX_TEXT]) if isinstance(value, str) else ""


_CONTROLS = {n: f"\\x{n:02x}" for n in (*range(32), *range(127, 160)) if n not in b"\t\n"}


def _shown(text: str) -> str:
    """A text that no terminal obeys: control characters are shown as their numbers."""
    return writable(text).translate(_CONTROLS)


def writable(text: str) -> str:
    """A text that can be written to any file: half a character is shown as its number.

    >>> print(writable("a\\ud800"))
    a\\ud800
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _names(value: object) -> dict[str, str]:
    items = list(value.items())[:_MAX_NAMES] if isinstance(value, dict) else []
    return {_text(name)[:200]: _text(text)[:200] for name, text in items if _text(name)}


def _traceback(steps: list[Any], source: str, entry: str) -> str:
    lines = _lines(source)
    shown = []
    for step in steps[:_MAX_NAMES]:
        match step:
            case [int(line), str(name)] if 1 <= line <= len(lines):
                shown.append(
                    _shown(f"line {line}, in {name[:200]}: {lines[line - 1].strip()[:200]}")
                )
    return "\n".join([f"in the source of {entry!r}", *shown]) if shown else ""


def rebuilt(told: object, failure: Failure) -> Exception:
    """The exception of what the child told.

    A builtin type comes back as itself, another as its nearest builtin base if that says more than
    Exception, else as a SandboxError; PermissionError is Forbidden and MemoryError is OutOfMemory.
    StopIteration is a SandboxError: raised where the caller loops over many, it would end the loop
    early and unseen.
    """
    told = told if isinstance(told, dict) else {}
    bases = told.get("builtin")
    kinds = [_exception_type(name) for name in (bases if isinstance(bases, list) else [])[:10]]
    error = _made([kind for kind in kinds if kind is not None], told.get("args"), failure)
    if failure.excerpt:
        error.add_note(str(failure))
    return error


def _is_short(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _MAX_TEXT
    if type(value) is int and value.bit_length() > _MAX_BITS:
        return False  # Python refuses to show a very long one
    return value is None or isinstance(value, (bool, int, float))


def _exception_type(name: object) -> type[Exception] | None:
    found = getattr(builtins, name, None) if isinstance(name, str) else None
    good = isinstance(found, type) and issubclass(found, Exception) and found not in _NOT_REBUILT
    return found if good else None


def _made(kinds: list[type[Exception]], args: object, failure: Failure) -> Exception:
    plain = isinstance(args, list) and len(args) <= 4 and all(map(_is_short, args))
    if plain and isinstance(args, list):
        args = [_shown(arg) if isinstance(arg, str) else arg for arg in args]
    for kind in kinds:
        wanted = {PermissionError: Forbidden, MemoryError: OutOfMemory}.get(kind, kind)
        message = failure.message
        if wanted is kind and kind.__name__ != failure.type:
            message = f"{failure.type}: {message}"
        if wanted is not kind and not message:
            message = f"{failure.type} in sandboxed code"
        exactly = wanted is not kind or kind.__name__ == failure.type
        for given in ([args] if plain and exactly and args else []) + [[message]]:
            try:
                return wanted(*given)  # type: ignore[misc]
            except Exception:  # a type that wants other arguments: try less, then its base
                continue
    if failure.type == "SandboxError":
        return SandboxError(failure.message)
    return SandboxError(f"{failure.type}: {failure.message}" if failure.message else failure.type)
