"""The operations that functions are written from: how each reads, what it does, and what it takes."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["KINDS_OF_VALUES", "OPERATIONS", "REFUSALS", "Operation"]

REFUSALS: Final = (ArithmeticError, IndexError, TypeError, ValueError, MemoryError)
"""What operations raise for values that they do not take."""


@dataclass(frozen=True, slots=True)
class Operation:
    """How an operation reads, what it does, and the types that it takes.

    `closed` says that it reads as one word or call, so that it needs no brackets inside another; of an
    operation that `commutes` only one order of the arguments is tried.
    """

    form: str
    run: Callable[..., Any]
    takes: tuple[tuple[type, ...], ...]
    closed: bool = True
    commutes: bool = False


KINDS_OF_VALUES: Final = (bool, int, float, str, list, tuple, type(None))
_NUMBER: Final = (int, float)
_WHOLE: Final = (int,)
_LIST: Final = (list, tuple)
_SEQUENCE: Final = (str, list, tuple)
_TEXT: Final = (str,)
_YES: Final = (bool,)
_BASIC: Final = (int, float, str)
_LARGE: Final = 10**12


def _whole(text: str) -> int:
    if len(text) > 15 or not text.isdigit():
        raise ValueError
    return int(text)


def _range(*bounds: int) -> list[int]:
    found = range(*bounds)
    if len(found) > 200:
        raise ValueError
    return list(found)


def _of_numbers(run: Callable[..., Any]) -> Callable[..., Any]:
    """`run` for lists of numbers alone: the least of several texts or lists is rarely meant."""

    def of_numbers(items: Any) -> Any:
        if not all(isinstance(item, _NUMBER) and abs(item) < _LARGE for item in items):
            raise TypeError
        return run(items)

    return of_numbers


def _joined(lists: Any) -> list[Any]:
    if not all(isinstance(item, list) for item in lists):
        raise TypeError
    return [item for items in lists for item in items]


def _without_repeats(items: Any) -> list[Any]:
    return list(dict.fromkeys(items))


def _open(
    form: str, run: Callable[..., Any], *takes: tuple[type, ...], commutes: bool = False
) -> Operation:
    return Operation(form, run, takes, closed=False, commutes=commutes)


def _call(
    form: str, run: Callable[..., Any], *takes: tuple[type, ...], commutes: bool = False
) -> Operation:
    return Operation(form, run, takes, commutes=commutes)


OPERATIONS: Final = (
    _open("-{0}", operator.neg, _NUMBER),
    _open("not {0}", operator.not_, _YES),
    _call("abs({0})", abs, _NUMBER),
    _call("str({0})", str, _WHOLE),
    _call("int({0})", _whole, _TEXT),
    _call("len({0})", len, _SEQUENCE),
    _call("sum({0})", sum, _LIST),
    _call("sum({0}, [])", _joined, _LIST),
    _call("math.prod({0})", _of_numbers(math.prod), _LIST),
    _call("max({0})", _of_numbers(max), _LIST),
    _call("min({0})", _of_numbers(min), _LIST),
    _call("sorted({0})", sorted, _SEQUENCE),
    _call("max({0}, key=len)", lambda x: max(x, key=len), _LIST),
    _call("min({0}, key=len)", lambda x: min(x, key=len), _LIST),
    _call("list(dict.fromkeys({0}))", _without_repeats, _SEQUENCE),
    _call("{0}[::-1]", lambda x: x[::-1], _SEQUENCE),
    _call("{0}[0]", lambda x: x[0], _SEQUENCE),
    _call("{0}[-1]", lambda x: x[-1], _SEQUENCE),
    _call("{0}[1:]", lambda x: x[1:], _SEQUENCE),
    _call("{0}[:-1]", lambda x: x[:-1], _SEQUENCE),
    _call("{0}.upper()", str.upper, _TEXT),
    _call("{0}.lower()", str.lower, _TEXT),
    _call("{0}.title()", str.title, _TEXT),
    _call("{0}.strip()", str.strip, _TEXT),
    _call("{0}.split()", str.split, _TEXT),
    _call("{0}.isdigit()", str.isdigit, _TEXT),
    _open("{0} + {1}", operator.add, _NUMBER, _NUMBER, commutes=True),
    _open("{0} - {1}", operator.sub, _NUMBER, _NUMBER),
    _open("{0} * {1}", operator.mul, _NUMBER, _NUMBER, commutes=True),
    _open("{0} % {1}", operator.mod, _NUMBER, _NUMBER),
    _open("{0} // {1}", operator.floordiv, _NUMBER, _NUMBER),
    _open("{0} / {1}", operator.truediv, _NUMBER, _NUMBER),
    _call("min({0}, {1})", min, _NUMBER, _NUMBER, commutes=True),
    _call("max({0}, {1})", max, _NUMBER, _NUMBER, commutes=True),
    _open("{0} < {1}", operator.lt, _NUMBER, _NUMBER),
    _open("{0} <= {1}", operator.le, _NUMBER, _NUMBER),
    *(
        _open(form, run, (kind,), (kind,), commutes=True)
        for kind in (int, float, str, list)
        for form, run in (("{0} == {1}", operator.eq), ("{0} != {1}", operator.ne))
    ),
    _open("{0} + {1}", operator.add, _TEXT, _TEXT),
    _open("{0} + {1}", operator.add, (list,), (list,)),
    _call("{0}.join({1})", str.join, _TEXT, (list,)),
    _call("{0}.split({1})", str.split, _TEXT, _TEXT),
    _call("{0}.startswith({1})", str.startswith, _TEXT, _TEXT),
    _call("{0}.count({1})", lambda x, y: x.count(y), _LIST, _BASIC),
    _call("{0}.count({1})", str.count, _TEXT, _TEXT),
    _open("{0} in {1}", lambda x, y: x in y, _BASIC, _LIST),
    _open("{0} in {1}", lambda x, y: x in y, _TEXT, _TEXT),
    _call("{0}[{1}]", operator.getitem, _SEQUENCE, _WHOLE),
    _call("{0}[{1}:]", lambda x, y: x[y:], _SEQUENCE, _WHOLE),
    _call("{0}[:{1}]", lambda x, y: x[:y], _SEQUENCE, _WHOLE),
    _call("list(range({0}, {1}))", _range, _WHOLE, _WHOLE),
    _call("any({0})", any, _LIST),
    _call("all({0})", all, _LIST),
    _call("list(range({0}))", _range, _WHOLE),
    _open("{0} and {1}", lambda x, y: x and y, _YES, _YES, commutes=True),
    _open("{0} or {1}", lambda x, y: x or y, _YES, _YES, commutes=True),
)
"""In the order in which they are tried; ``{0}`` stands for the first argument."""
