"""A call that failed: what is remembered of it, and the exception that its caller sees.

The caller sees an instance of the original type *and* of `ExecutionError`: a class joined of both,
made once per type, whose fields are those of the original. A few types refuse to be joined; then
the original passes unchanged. `failed_node` finds the node in every case.
"""

from __future__ import annotations

import linecache
import re
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracegraph.errors import ExecutionError

if TYPE_CHECKING:
    from tracegraph.node import Node

__all__ = ["Failure", "failed_node", "frame_of", "innermost", "joined", "masked", "stands_in"]

_LIMIT = 2_000
_SECRETS = frozenset(
    ("key", "keys", "apikey", "token", "tokens", "secret", "secrets", "password", "passwords",
     "passwd", "pwd", "passphrase", "credential", "credentials", "auth", "authorization", "bearer",
     "cookie", "cookies")
)  # fmt: skip
# Texts, which `re` compiles at the first use and keeps: few programs fail.
_WORDS = r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+"
_ENTRY = (
    r"""(['"]?([\w-]+)['"]?\s*[:=]\s*)"""
    r"""(?:b?'(?:[^'\\]|\\.)*'?|b?"(?:[^"\\]|\\.)*"?|[^\s,})\]]+)"""
)


@dataclass(frozen=True, slots=True)
class Failure:
    """What a failed call said: the exception's type name, its message, and where it happened."""

    type: str
    message: str
    source: str = ""

    @classmethod
    def of(
        cls,
        error: BaseException,
        code: types.CodeType | None = None,
        told: str = "",
        through: BaseException | None = None,
    ) -> Failure:
        """Read `error`, and mark the line of `code` (or of the innermost frame) that raised it.

        What is `told` beside it, such as the values of variables, stands below the lines. What went
        `through` the code may be another exception, raised in the place of `error`.
        """
        try:
            message = str(error)
        except Exception:  # an exception that cannot be shown is still an exception
            message = "<the message cannot be shown>"
        if len(message) > _LIMIT:
            message = f"{message[:_LIMIT]} (+{len(message) - _LIMIT:,} characters)"
        marked = getattr(error, "__dict__", {}).get("marked")
        source = marked or "\n".join(filter(None, (_marked(through or error, code, message), told)))
        return cls(type(error).__name__, message, source)

    def __str__(self) -> str:
        return f"({self.type}) {self.message}" if self.message else f"({self.type})"

    def text(self) -> str:
        """The failure with the failing line marked, for a person and a model alike."""
        return f"{self}\n{self.source}" if self.source else str(self)


def failed_node(error: BaseException) -> Node[Any] | None:
    """The node of the recorded call that raised `error`, or ``None`` when none did.

    >>> import tracegraph as tg
    >>> try:
    ...     tg.node(1) / 0
    ... except ZeroDivisionError as error:
    ...     print(tg.failed_node(error).data)
    (ZeroDivisionError) division by zero
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        node = getattr(error, "__dict__", {}).get("exception_node")
        if node is not None:
            return node  # type: ignore[no-any-return]
        error = error.__cause__  # type: ignore[assignment]
    return None


def original(error: Exception) -> Exception:
    """The exception as the user's own code raised it, without our joined class."""
    cause = error.__cause__
    if isinstance(error, ExecutionError) and isinstance(cause, Exception):
        return original(cause)
    return error


def joined(error: Exception, node: Node[Any]) -> Exception:
    """`error` as an instance of its own type and of `ExecutionError`, pointing at `node`.

    Gives `error` itself where its type cannot be joined.
    """
    first = original(error)
    both = _join(type(first))
    if both is not None:
        try:
            twin = _made(both, first)
            twin.__dict__.update(first.__dict__)
            twin.__dict__["exception_node"] = node
            twin.__cause__ = first
            if str(twin) == str(first):
                return twin
        except Exception:
            pass
    getattr(first, "__dict__", {})["exception_node"] = node
    return first


_joined: dict[type[Exception], type[Exception] | None] = {}


def _join(kind: type[Exception]) -> type[Exception] | None:
    if kind not in _joined:
        _joined.setdefault(kind, _joining(kind))  # another thread may have been faster
    return _joined[kind]


def _joining(kind: type[Exception]) -> type[Exception] | None:
    if issubclass(kind, ExecutionError):
        return kind
    try:
        above = issubclass(ExecutionError, kind)
        return types.new_class(
            kind.__name__,
            (ExecutionError,) if above else (kind, ExecutionError),
            exec_body=lambda body: body.update(
                __module__=kind.__module__, __qualname__=kind.__qualname__
            ),
        )
    except Exception:  # final types, clashing layouts, metaclasses that refuse
        return None


def _made(both: type[Exception], first: Exception) -> Exception:
    """An instance that holds what `first` holds.

    The builtin type's own code makes and fills it; then fields declared in C or as slots follow.
    """
    builtin: Any = next(c for c in type(first).__mro__ if c.__module__ == "builtins")
    twin: Exception = builtin.__new__(both, *first.args)
    builtin.__init__(twin, *first.args)
    twin.args = first.args
    for owner in type(first).__mro__:
        for name, member in vars(owner).items():
            if name.startswith("__") or name == "args":
                continue
            if isinstance(member, (types.MemberDescriptorType, types.GetSetDescriptorType)):
                try:
                    value = getattr(first, name)
                    if getattr(twin, name, None) is not value:
                        setattr(twin, name, value)
                except (AttributeError, TypeError):
                    continue
    notes = getattr(first, "__notes__", None)
    if notes:
        twin.__notes__ = list(notes)
    return twin


def frame_of(error: BaseException, code: types.CodeType | None) -> types.FrameType | None:
    """The innermost frame of `code` that `error` went through; ``None`` where there is none."""
    step = None if code is None else _step(error, code)
    return None if step is None else step.tb_frame


def innermost(
    error: BaseException, code: types.CodeType | None, within: str = ""
) -> types.CodeType | None:
    """The code of one text that failed: `code`, or what it called that stands in the same text.

    A text that was compiled on its own is a file of its own. Of a text in a larger file, `within`
    is the qualified name of what holds it; by default what is defined inside `code` counts.
    """
    if code is None:
        return None
    found = code
    step = error.__traceback__
    entered = False
    while step is not None:
        now = step.tb_frame.f_code
        entered = entered or now is code
        if entered and stands_in(now, code, within):
            found = now
        step = step.tb_next
    return found


def stands_in(other: types.CodeType, code: types.CodeType, within: str = "") -> bool:
    """Whether `other` is code of the same text as `code`, see `innermost`."""
    if other is code:
        return True
    alone = code.co_filename.startswith("<code of ")
    inside = other.co_qualname.startswith(f"{within or code.co_qualname}.")
    return other.co_filename == code.co_filename and (alone or inside)


def _step(error: BaseException, code: types.CodeType | None) -> types.TracebackType | None:
    found = None
    step = error.__traceback__
    while step is not None:
        if code is None or step.tb_frame.f_code is code:
            found = step
        step = step.tb_next
    return found


def masked(name: str, text: str) -> str:
    """`text`, the value of a variable, without what goes by the name of a secret.

    >>> masked("api_key", "'abc'"), masked("headers", "{'Authorization': 'abc', 'n': 3}")
    ('[secret]', "{'Authorization': [secret], 'n': 3}")
    """
    if _says_secret(name):
        return "[secret]"
    return re.sub(_ENTRY, lambda m: f"{m[1]}[secret]" if _says_secret(m[2]) else m[0], text)


def _says_secret(name: str) -> bool:
    words = re.sub(_WORDS, "_", name).lower().split("_")
    return any(word in _SECRETS for word in words)


def _marked(error: BaseException, code: types.CodeType | None, message: str) -> str:
    """The lines around the one that failed, with a mark behind it."""
    step = _step(error, code)
    if step is None or code is None:
        return ""
    filename, line = code.co_filename, step.tb_lineno
    lines = linecache.getlines(filename)
    if not lines:
        return ""
    first = max(code.co_firstlineno, line - 10)
    ends = max((number for *_, number in code.co_lines() if number), default=line)
    last = min(len(lines), line + 3, max(ends, line))
    head = message.splitlines()[0] if message else ""
    written = []
    for number in range(first, last + 1):
        text = lines[number - 1].rstrip("\n")
        mark = f"  <--- ({type(error).__name__}) {head[:200]}" if number == line else ""
        written.append(f"{number:>4} | {text}{mark}")
    return "\n".join(written)
