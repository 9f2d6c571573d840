"""Objects that a program holds, by the way to them from a few that it starts at.

An object that cannot be written down, such as a model or a connection, is there again when the same
program runs again, at the same place: in the same variable of the same function, say. Only what can be
reached so is found, and only what was there when this was made, before anything ran; nothing is made.
"""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar, final

from tracegraph.bundle import Bundle
from tracegraph.kinds import ATOMS
from tracegraph.node import Node

__all__ = ["AtHand"]

T = TypeVar("T")
_MOST: Final = 5_000
_DEEPEST: Final = 12
_WIDEST: Final = 200
_LIBRARIES: Final = re.compile(r"(builtins|tracegraph|optimizers|torch)(\.|$)")
"""What a person wrote is elsewhere; from functions of torch the way goes through thousands of its own."""


@final
class AtHand:
    """Knows objects by identity, and the way to each.

    Args:
        roots: where to begin, by name.

    >>> client = object()
    >>> hand = AtHand({"workflow": functools.partial(print, client)})
    >>> hand.way_to(client)
    'workflow.args[0]'
    >>> hand.at("workflow.args[0]") is client
    True
    """

    def __init__(self, roots: Mapping[str, Any]) -> None:
        self._ways: dict[int, str] = {}
        self._found: dict[str, Any] = {}  # holds them, so that an id is not given twice
        todo = list(roots.items())
        for _ in range(_DEEPEST):
            held, todo = todo, []
            for way, value in held:
                if type(value) in ATOMS or id(value) in self._ways:
                    continue
                if len(self._ways) >= _MOST:
                    return
                self._ways[id(value)], self._found[way] = way, value
                with suppress(Exception):  # a proxy without its context, a lazy import that fails
                    todo += list(_inside(way, value))

    def way_to(self, value: Any) -> str | None:
        """The way to an object; ``None`` where there is none."""
        return self._ways.get(id(value))

    def at(self, way: str) -> Any:
        """The object at the end of a way.

        Raises:
            KeyError: there is none.
        """
        return self._found[way]

    def all_of(self, kind: type[T]) -> dict[str, T]:
        """The objects of a class, by the way to each."""
        return {way: value for way, value in self._found.items() if isinstance(value, kind)}


def _inside(way: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What an object holds, each with the way to it."""
    if isinstance(value, (Node, type, types.ModuleType)):
        return
    if isinstance(value, types.MethodType):
        yield f"{way}.__self__", value.__self__
        yield f"{way}.__func__", value.__func__
    elif isinstance(value, functools.partial):
        yield f"{way}.func", value.func
        yield from _inside(f"{way}.args", list(value.args))
        yield from _inside(way, dict(value.keywords))
    elif isinstance(value, Bundle):
        yield f"{way}.function", value._function
        yield f"{way}.operation", value.operation
        yield f"{way}.parameter", value.parameter
    elif isinstance(value, types.FunctionType):
        if not _LIBRARIES.match(value.__module__ or ""):
            yield from _variables(way, value)
            yield f"{way}.__code__", value.__code__
    elif isinstance(value, types.CodeType):  # of the functions that are written within it
        for at, constant in enumerate(value.co_consts):
            if type(constant) not in ATOMS:
                yield f"{way}.co_consts[{at}]", constant
    elif isinstance(value, Mapping):
        for key, item in list(value.items())[:_WIDEST]:
            if isinstance(key, (str, int)):
                yield f"{way}[{key!r}]", item
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value[:_WIDEST]):
            yield f"{way}[{index}]", item
    else:
        own = list(getattr(value, "__dict__", {}).items())  # another thread may add to it
        yield from ((f"{way}.{n}", item) for n, item in own)
        for kind in type(value).__mro__:
            if not _LIBRARIES.match(kind.__module__):
                yield from ((f"{way}.{n}", f) for n, f in list(vars(kind).items()) if _called(f))


def _called(member: Any) -> bool:
    """Whether a member of a class is a function that a person wrote."""
    return isinstance(member, (Bundle, types.FunctionType))


def _variables(way: str, function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function reads from around it, and what its arguments are by default."""
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"{way}.{name}", cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    names = _names(code)
    for name in names:
        held = function.__globals__.get(name)
        if type(held) in ATOMS:
            continue
        yield f"{way}.{name}", held
        if isinstance(held, types.ModuleType):  # tg.call_llm
            own = vars(held)
            late = set(names).intersection(getattr(held, "__all__", ()))  # loaded when first used
            for n in names:
                if n in own or n in late:
                    yield f"{way}.{name}.{n}", getattr(held, n, None)
    yield from _inside(f"{way}.__defaults__", list(function.__defaults__ or ()))
    yield from _inside(f"{way}.__kwdefaults__", dict(function.__kwdefaults__ or {}))
    yield from ((f"{way}.{n}", item) for n, item in list(vars(function).items()))


def _names(code: types.CodeType) -> list[str]:
    """The global names in a function and in those inside it."""
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return [*code.co_names, *(name for c in inner for name in _names(c))]
