"""The kinds of value that a parameter can have, and how any value is shown.

A kind knows how to tell its values, to read a value out of a model's reply, and to copy one. It
never guesses: ``"no"`` is not a truth value, ``2.9`` is not 2, and a text is not a list.

`show` writes any value as text of a bounded length that is the same in every process.
"""

from __future__ import annotations

import ast
import copy
import json
import math
import numbers
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Final, final

__all__ = ["ATOMS", "KINDS", "Kind", "is_array", "is_tensor", "kind_of", "preview", "show"]

ATOMS: Final = frozenset({int, float, str, bool, type(None), bytes, complex})
"""Types that hold no other value: nothing is looked for inside them."""

_NUMBERS = ATOMS - {str, bytes}
_ADDRESS = r" at 0x[0-9a-fA-F]+"
_CONTAINERS = (list, dict, set, bytearray)
_LARGE_SET = 10_000


def is_tensor(value: object) -> bool:
    """Whether `value` is a torch tensor; never imports torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_array(value: object) -> bool:
    """Whether `value` is a numpy array; never imports numpy."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def show(value: object, limit: int = 400) -> str:
    """`value` as text of at most about `limit` characters, the same in every process.

    Texts are quoted; long ones say how much was left out. Arrays are shown by shape and type.

    >>> show({"b": [1, 2], "a": "x"})
    "{'b': [1, 2], 'a': 'x'}"
    >>> show("a" * 50, limit=20)
    "'aaaaaaaaaaaaaaaaaaaa' (+30 characters)"
    """
    writer = _Writer(limit)
    writer.write(value, 0)
    return "".join(writer.parts)


def preview(value: object) -> str | None:
    """What a container that can change looks like now; ``None`` for any other value."""
    return show(value, 200) if isinstance(value, _CONTAINERS) else None


class _Writer:
    """Writes a value piece by piece and stops when the room is used."""

    def __init__(self, limit: int) -> None:
        self.parts: list[str] = []
        self.room = limit
        self._open: set[int] = set()

    def put(self, text: str) -> None:
        self.parts.append(text)
        self.room -= len(text)

    def write(self, value: object, depth: int) -> None:
        if type(value) in _NUMBERS:
            self._number(value)
        elif isinstance(value, str):
            self._text(value, repr)
        elif isinstance(value, (bytes, bytearray)):
            self._text(bytes(value), repr)
        elif isinstance(value, Enum):
            self.put(f"{type(value).__name__}.{value.name}")
        elif id(value) in self._open or depth > 6:
            self.put("...")
        else:
            self._open.add(id(value))
            self._structure(value, depth)
            self._open.discard(id(value))

    def _text(self, value: Any, quote: Any) -> None:
        room = max(self.room, 16)
        if len(value) <= room:
            self.put(quote(value))
        else:
            self.put(f"{quote(value[:room])} (+{len(value) - room:,} characters)")

    def _number(self, value: Any) -> None:
        if type(value) is int and abs(value) >= 10**40:
            self.put(f"<int of {value.bit_length():,} bits>")
        else:
            self.put(repr(value))

    def _structure(self, value: Any, depth: int) -> None:
        if type(value) is list:
            self._many("[", "]", value, len(value), depth)
        elif type(value) is tuple:
            self._many("(", ")", value, len(value), depth)
        elif isinstance(value, Mapping):
            self._many("{", "}", value.items(), len(value), depth, pairs=True)
        elif isinstance(value, (set, frozenset)):
            if not value:
                self.put("set()")
                return
            if len(value) > _LARGE_SET:
                self.put(f"<{type(value).__name__} of {len(value):,}>")
            else:
                self._many("{", "}", sorted(value, key=_order), len(value), depth)
        elif is_tensor(value) or is_array(value):
            self._array(value)
        elif is_dataclass(value) and not isinstance(value, type):
            items = [(f.name, getattr(value, f.name, None)) for f in fields(value) if f.repr]
            self._fields(type(value).__name__, items, depth)
        elif hasattr(type(value), "model_fields") and hasattr(value, "__dict__"):
            self._fields(type(value).__name__, list(vars(value).items()), depth)
        else:
            self._object(value)

    def _many(
        self, start: str, end: str, items: Any, count: int, depth: int, *, pairs: bool = False
    ) -> None:
        self.put(start)
        for written, item in enumerate(items):
            if self.room <= 0 and written:
                self.put(f", ... {count - written:,} more")
                break
            if written:
                self.put(", ")
            if pairs:
                self.write(item[0], depth + 1)
                self.put(": ")
                item = item[1]
            self.write(item, depth + 1)
        if start == "(" and count == 1:
            self.put(",")
        self.put(end)

    def _fields(self, name: str, items: list[tuple[str, object]], depth: int) -> None:
        self.put(f"{name}(")
        for position, (key, item) in enumerate(items):
            if self.room <= 0:
                self.put(f", ... {len(items) - position} more")
                break
            self.put(f"{', ' if position else ''}{key}=")
            self.write(item, depth + 1)
        self.put(")")

    def _array(self, value: Any) -> None:
        name = "tensor" if is_tensor(value) else "array"
        shape = tuple(int(n) for n in value.shape)
        kind = str(value.dtype).removeprefix("torch.")
        if math.prod(shape) <= 8 and not kind.startswith("object"):
            self.put(f"{name}({value.tolist()!r}, {kind})")
        else:
            self.put(f"{name}(shape={list(shape)}, {kind})")

    def _object(self, value: Any) -> None:
        if isinstance(value, type):
            self.put(f"<class {value.__qualname__}>")
            return
        if callable(value) and hasattr(value, "__qualname__"):
            self.put(f"<function {value.__qualname__}>")
            return
        if _plain_repr(type(value)):
            self.put(f"<{type(value).__qualname__}>")
            return
        try:
            text = re.sub(_ADDRESS, "", repr(value))
        except Exception:  # a value that cannot be shown must not stop the program
            text = f"<{type(value).__qualname__}>"
        room = max(self.room, 16)
        self.put(text if len(text) <= room else f"{text[:room]} (+{len(text) - room:,} characters)")


def _order(element: object) -> str:
    """By what an element of a set is sorted: the order of a set differs from run to run."""
    return repr(element) if type(element) in ATOMS else show(element, 200)


def _plain_repr(kind: type) -> bool:
    return getattr(kind, "__repr__", None) is object.__repr__


class Kind(ABC):
    """A kind of parameter: what it is called, and how its values are told, read and copied."""

    name: str

    def __repr__(self) -> str:
        return f"<kind {self.name}>"

    @abstractmethod
    def fault(self, value: Any, initial: Any) -> str | None:
        """Why `value` may not take the place of `initial`, or ``None`` when it may."""

    def read(self, raw: Any) -> Any:
        """The value that a model meant by `raw`, a piece of JSON; raises ValueError if unclear."""
        return raw

    def revised(self, raw: Any, now: Any) -> Any:
        """What `raw` means where it describes a change of `now`; else `raw` itself."""
        return raw

    def copy(self, value: Any) -> Any:
        """A copy that does not change when `value` does."""
        return copy.deepcopy(value)

    def show(self, value: Any, limit: int = 400) -> str:
        """`value` as a person and a model read it."""
        return show(value, limit)


@final
class _Text(Kind):
    """Any text: prompts, instructions, answers."""

    name = "text"

    def fault(self, value: Any, initial: Any) -> str | None:
        if not isinstance(value, str):
            return f"expects text, got {_described(value)}"
        return _unwritable(value)


@final
class _Code(Kind):
    """The source text of a function; a model may answer with it whole, or with edits of it."""

    name = "code"

    def fault(self, value: Any, initial: Any) -> str | None:
        if not isinstance(value, str):
            return f"expects source text, got {_described(value)}"
        return _unwritable(value)

    def revised(self, raw: Any, now: Any) -> Any:
        if not isinstance(raw, str):
            return raw
        from tracegraph.edits import edited, read_edits  # only when a model has answered
        from tracegraph.replies import code_in

        edits = read_edits(raw)
        return edited(now, edits) if edits else code_in(raw)

    def show(self, value: Any, limit: int = 400) -> str:
        if len(value) <= limit:
            return str(value)
        return f"{value[:limit]}\n... (+{len(value) - limit:,} characters)"


@final
class _Number(Kind):
    """An int, or a float (which takes whole numbers as well), of a size that a float can have."""

    name = "number"

    def fault(self, value: Any, initial: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            return f"expects a number, got {_described(value)}"
        if isinstance(initial, numbers.Integral) and not isinstance(value, numbers.Integral):
            return f"expects a whole number, got {value!r}"
        try:
            finite = math.isfinite(value)
        except OverflowError:
            return f"expects a number of at most {sys.float_info.max:.1e}, got {show(value, 80)}"
        return None if finite else f"expects a finite number, got {value!r}"

    def read(self, raw: Any) -> Any:
        return _literal(raw)


@final
class _Choice(Kind):
    """One of a few values: a truth value, a member of a `Literal` or of an `Enum`."""

    name = "choice"

    def fault(self, value: Any, initial: Any) -> str | None:
        if isinstance(initial, bool) and not isinstance(value, bool):
            return f"expects True or False, got {_described(value)}"
        if isinstance(initial, Enum) and not isinstance(value, type(initial)):
            names = ", ".join(member.name for member in type(initial))
            return f"expects one of {names}, got {_described(value)}"
        return None

    def read(self, raw: Any) -> Any:
        if isinstance(raw, str) and raw.strip() in {"true", "false", "True", "False"}:
            return raw.strip().lower() == "true"
        return raw


@final
class _Json(Kind):
    """A list, tuple, dict, set, dataclass or pydantic model."""

    name = "json"

    def fault(self, value: Any, initial: Any) -> str | None:
        if initial is None or isinstance(value, type(initial)):
            return None
        return f"expects {_article(type(initial).__name__)}, got {_described(value)}"

    def read(self, raw: Any) -> Any:
        return _literal(raw)


@final
class _Tensor(Kind):
    """A torch tensor or a numpy array; its shape and type stay."""

    name = "tensor"

    def fault(self, value: Any, initial: Any) -> str | None:
        if type(value) is not type(initial) and not (is_tensor(value) and is_tensor(initial)):
            return f"expects {_article(type(initial).__name__)}, got {_described(value)}"
        if tuple(value.shape) != tuple(initial.shape):
            return f"expects shape {list(initial.shape)}, got {list(value.shape)}"
        if value.dtype != initial.dtype:
            return f"expects {initial.dtype}, got {value.dtype}"
        return None

    def copy(self, value: Any) -> Any:
        return value.detach().clone() if is_tensor(value) else value.copy()


KINDS: Final[dict[str, Kind]] = {
    kind.name: kind for kind in (_Text(), _Number(), _Choice(), _Code(), _Json(), _Tensor())
}
"""Every kind by its name: text, number, choice, code, json, tensor."""


def kind_of(value: object) -> Kind | None:
    """The kind that fits `value`, or ``None`` when no kind does.

    >>> kind_of("Answer briefly."), kind_of(0.5), kind_of(True)
    (<kind text>, <kind number>, <kind choice>)
    """
    if isinstance(value, (bool, Enum)):
        return KINDS["choice"]
    if isinstance(value, str):
        return KINDS["text"]
    if isinstance(value, numbers.Real):
        return KINDS["number"]
    if is_tensor(value) or is_array(value):
        return KINDS["tensor"]
    if value is None or isinstance(value, (list, tuple, dict, set, frozenset)):
        return KINDS["json"]
    if (is_dataclass(value) and not isinstance(value, type)) or hasattr(
        type(value), "model_fields"
    ):
        return KINDS["json"]
    return None


def _unwritable(text: str) -> str | None:
    """Why no file and no model could be given `text`, or ``None`` for any proper text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return (
            f"half a character (a lone surrogate) stands at position {error.start:,}; leave it out"
        )
    return None


def _described(value: object) -> str:
    return f"{_article(type(value).__name__)} {show(value, 80)}"


def _article(word: str) -> str:
    return f"{'an' if word[:1].lower() in 'aeiou' else 'a'} {word}"


def _literal(raw: Any) -> Any:
    """Read a value that a model put between quotes: ``"0.5"`` for 0.5; never invents one."""
    if not isinstance(raw, str):
        return raw
    try:
        return json.loads(raw)
    except ValueError:
        pass
    try:
        return ast.literal_eval(raw.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return raw
