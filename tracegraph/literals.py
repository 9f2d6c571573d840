"""Values as Python source: an expression that evaluates to the very value, and to nothing else.

A text is always written as a string literal, whatever it holds; nothing in it can become code. What
no expression can say exactly is refused, never written about.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, TypeVarTuple

from tracegraph.kinds import is_array, is_tensor

__all__ = ["Unwritable", "literal"]

_MOST_ELEMENTS = 100_000
_LINE = 70
_LONG_NUMBER = 10_000  # bits; Python refuses to read very many decimal digits
_DEEPEST = 50
_WIDEST = {"f": 8, "c": 16}  # bytes of the numbers that a Python number holds exactly


class Unwritable(ValueError):
    """A value that no expression of bounded length says exactly; the message names it."""


def literal(value: Any, name_of: Callable[[Any], str] | None = None) -> str:
    """`value` as an expression.

    Args:
        value: None, a truth value, number, text, bytes, list, tuple, dict, set, frozenset, array,
            tensor, member of an Enum, variable or alias of types, dataclass, pydantic model, or these nested.
        name_of: the name under which a class or module can be had where the expression stands;
            without it, values that need one are refused.

    Raises:
        Unwritable: no expression says it exactly.

    >>> literal({"a": [1, 2.5, float("inf")], "b": ("x",)})
    "{'a': [1, 2.5, float('inf')], 'b': ('x',)}"
    >>> literal(object())
    Traceback (most recent call last):
    tracegraph.literals.Unwritable: an object of type object cannot be written as Python
    """
    return _Writer(name_of).write(value, 0)


class _Writer:
    def __init__(self, name_of: Callable[[Any], str] | None) -> None:
        self._name_of = name_of
        self._open: set[int] = set()

    def write(self, value: Any, depth: int) -> str:
        if depth > _DEEPEST or id(value) in self._open:
            raise Unwritable(f"a value that contains itself, or is nested over {_DEEPEST} deep")
        self._open.add(id(value))
        try:
            return self._written(value, depth + 1)
        finally:
            self._open.discard(id(value))

    def _written(self, value: Any, depth: int) -> str:
        kind = type(value)
        if kind in (bool, type(None), bytes):
            return repr(value)
        if kind is int:
            return repr(value) if value.bit_length() < _LONG_NUMBER else hex(value)
        if kind is str:
            return _text(value)
        if kind is float:
            return repr(value) if math.isfinite(value) else f"float({str(value)!r})"
        if kind is complex:
            return f"complex({self.write(value.real, depth)}, {self.write(value.imag, depth)})"
        if kind in (list, tuple, set, frozenset):
            return self._many(value, depth)
        if kind is dict:
            items = (f"{self.write(k, depth)}: {self.write(v, depth)}" for k, v in value.items())
            return f"{{{', '.join(items)}}}"
        if isinstance(value, enum.Enum):
            return self._member(value)
        if is_array(value) or is_tensor(value):
            return self._array(value, depth)
        if kind.__module__ == "numpy":
            return f"{self._named(_numpy())}.{kind.__name__}({self.write(value.item(), depth)})"
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._dataclass(value, depth)
        if hasattr(kind, "model_fields"):
            return f"{self._named(kind)}.model_construct({self._fields(vars(value), depth)})"
        if kind in (TypeVar, ParamSpec, TypeVarTuple):
            return self._variable(value)
        if typing.get_origin(value) is not None:
            return self._alias(value, depth)
        raise Unwritable(f"an object of type {kind.__qualname__} cannot be written as Python")

    def _variable(self, value: Any) -> str:
        """A variable of types, with what bounds it."""
        kinds = [("", kind) for kind in getattr(value, "__constraints__", ())]
        if (bound := getattr(value, "__bound__", None)) is not None:
            kinds.append(("bound=", bound))
        if not all(type(kind) is type for _, kind in kinds):
            raise Unwritable(f"{value!r}, whose bound is no plain class,")
        given = [repr(value.__name__), *(word + self._named(kind) for word, kind in kinds)]
        words = ("covariant", "contravariant")
        given += [f"{word}=True" for word in words if getattr(value, f"__{word}__", False)]
        return f"{self._named(type(value))}({', '.join(given)})"

    def _alias(self, value: Any, depth: int) -> str:
        """Types put together: ``list[int]``, ``int | None``, ``typing.Literal['a']``."""
        origin, said = typing.get_origin(value), typing.get_args(value)
        if origin is typing.Literal:
            given = [self.write(item, depth) for item in said]
        elif origin is typing.Annotated:
            given = [self._type(said[0], depth), *(self.write(item, depth) for item in said[1:])]
        else:
            given = [self._type(item, depth) for item in said]
        if isinstance(value, types.UnionType):
            return " | ".join(given)
        name = str(origin).removeprefix("typing.")  # of a special form, such as Union
        if isinstance(origin, type):
            name = value.__name__
            if isinstance(value, types.GenericAlias) or origin is not typing.get_origin(
                getattr(typing, name, None)
            ):
                return f"{self._named(origin)}[{', '.join(given) or '()'}]"
        return f"{self._named(typing)}.{name}[{', '.join(given) or '()'}]"

    def _type(self, value: Any, depth: int) -> str:
        if value is types.NoneType:
            return "None"
        if value is ...:
            return "..."
        if isinstance(value, list):  # the arguments of a Callable
            return f"[{', '.join(self._type(item, depth) for item in value)}]"
        if isinstance(value, (str, typing.ForwardRef)):
            return repr(value if isinstance(value, str) else value.__forward_arg__)
        if type(value) in (TypeVar, ParamSpec, TypeVarTuple):
            raise Unwritable(f"types that depend on the variable {value.__name__!r}")
        return self._named(value) if isinstance(value, type) else self.write(value, depth)

    def _many(self, value: Any, depth: int) -> str:
        items = [self.write(item, depth) for item in value]
        if isinstance(value, (set, frozenset)):
            word = f"{{{', '.join(sorted(items))}}}" if items else "set()"
            return word if type(value) is set else f"frozenset({word if items else ''})"
        if isinstance(value, tuple):
            return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
        return f"[{', '.join(items)}]"

    def _member(self, value: enum.Enum) -> str:
        if value.name is None or not value.name.isidentifier():
            raise Unwritable(f"{value!r}, which has no name")
        return f"{self._named(type(value))}.{value.name}"

    def _array(self, value: Any, depth: int) -> str:
        size = math.prod(value.shape)
        if size > _MOST_ELEMENTS:
            raise Unwritable(
                f"an array of {size:,} elements is too large for a Python file (at most "
                f"{_MOST_ELEMENTS:,}); write it with save()"
            )
        if is_tensor(value):
            values = value.detach().cpu().reshape(-1).tolist()
            kind = str(value.dtype).removeprefix("torch.")
            torch = self._named(_module("torch"))
            made = f"{torch}.tensor({self.write(values, depth)}, dtype={torch}.{kind})"
        else:
            plain = value.dtype.kind in "biufcSU" and value.dtype.itemsize <= _WIDEST.get(
                value.dtype.kind, math.inf
            )
            if not plain:
                raise Unwritable(f"an array of {value.dtype} cannot be written as Python")
            values = value.reshape(-1).tolist()
            numpy = self._named(_numpy())
            made = f"{numpy}.array({self.write(values, depth)}, dtype={value.dtype.str!r})"
        return f"{made}.reshape({tuple(int(n) for n in value.shape)!r})"

    def _dataclass(self, value: Any, depth: int) -> str:
        fields = dataclasses.fields(value)
        given = {f.name: getattr(value, f.name) for f in fields if f.init}
        twin = type(value)(**given)
        for field in fields:
            now, then = (self.write(getattr(v, field.name), depth) for v in (value, twin))
            if now != then:
                raise Unwritable(
                    f"{type(value).__qualname__}.{field.name} is not what its __init__ makes of it"
                )
        return f"{self._named(type(value))}({self._fields(given, depth)})"

    def _fields(self, given: Mapping[str, Any], depth: int) -> str:
        return ", ".join(f"{name}={self.write(item, depth)}" for name, item in given.items())

    def _named(self, thing: Any) -> str:
        if self._name_of is None:
            raise Unwritable(f"{thing.__name__} would have to be imported")
        return self._name_of(thing)


def _text(value: str) -> str:
    """A string literal; a long text has a line of its own for each of its lines."""
    lines = value.splitlines(keepends=True)
    if len(lines) < 2 or len(value) < _LINE:
        return repr(value)
    return "(\n" + "".join(f"    {line!r}\n" for line in lines) + ")"


def _numpy() -> Any:
    return _module("numpy")


def _module(name: str) -> Any:
    return sys.modules[name]
