"""What code changes that is to outlast its call: globals, values of its module, defaults, its class.

Where code runs apart from the program, such changes end with the process that made them. They are
found by the syntax alone, as far as a reader would see them: a name that another one stands for is not
followed, nor what a function that is called does.
"""

from __future__ import annotations

import ast
import functools
import types
from collections import deque
from collections.abc import Iterable, Iterator, MutableMapping, MutableSequence, MutableSet
from typing import Any, NamedTuple

from tracegraph.marking import marked
from tracegraph.parsing import tree_of
from tracegraph.prelude import defaults_of, names_around

__all__ = ["Change", "LostStateWarning", "changes", "lost"]

_MOST_REMEMBERED = 32
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_CONTAINERS = (MutableSequence, MutableMapping, MutableSet, deque)
_FRESH = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp, ast.Call)
_CHANGING = frozenset({
    "add", "append", "appendleft", "clear", "discard", "extend", "extendleft", "insert", "pop", "popitem",
    "popleft", "remove", "reverse", "rotate", "setdefault", "sort", "subtract", "update",
})  # fmt: skip
"""Methods of Python's containers that change them."""


class LostStateWarning(UserWarning):
    """Code runs in the sandbox and changes there what was to be kept: it ends with the call."""


class Change(NamedTuple):
    """A change that outlasts the call, where the code runs in its program.

    Attributes:
        name: what is changed, as the code calls it.
        line: where, counted from 1.
        root: the name that it is reached by, as far as the text does not say what that is.
        calls: whether it is changed by a call that only a container takes for a change.
    """

    name: str
    line: int
    root: str | None = None
    calls: bool = False


def changes(text: str, entry: str) -> list[Change]:
    """What outlasts a call of the function or method `entry` of a text, as far as the syntax tells.

    >>> changes("def f(x, seen=[]):\\n    global last\\n    last = x\\n    seen.append(x)\\n", "f")[0]
    Change(name='last', line=3, root=None, calls=False)
    """
    return list(_changes_of(text, entry))


@functools.lru_cache(_MOST_REMEMBERED)
def _changes_of(text: str, entry: str) -> tuple[Change, ...]:
    """As `changes`; a text is asked about when its version is made, and again when that is warned of."""
    tree = tree_of(text)
    values = _values(tree)
    found = {
        change
        for function, outer in _reached(_functions(tree), entry)
        for change in _changes(function, outer, values)
    }
    return tuple(sorted(found, key=lambda change: (change.line, change.name)))


def lost(text: str, original: Any) -> str:
    """What ends with a call of a text that runs apart, for a person and a model alike; or nothing.

    `original` is the function in the place of which the text runs.

    >>> SEEN = []
    >>> def f(x): ...
    >>> print(lost("def f(x):\\n    SEEN.append(x)\\n", f))
    a change of SEEN ends with the call, as the code runs apart from its program: return what is to be \
kept; where the code is trusted (parameter.trust()) it runs here, and the change stays
       1 | def f(x):
       2 |     SEEN.append(x)  <--- SEEN is as before in the next call
    """
    known = names_around(original) if isinstance(original, types.FunctionType) else {}
    found = [
        one
        for one in changes(text, getattr(original, "__name__", ""))
        if not one.calls or one.root is None or isinstance(known.get(one.root), _CONTAINERS)
    ]
    if not found:
        return ""
    names = list(dict.fromkeys(change.name for change in found))
    told = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    first = found[0]
    return (
        f"a change of {told} ends with the call, as the code runs apart from its program: return what is "
        "to be kept; where the code is trusted (parameter.trust()) it runs here, and the change stays\n"
        f"{marked(text, first.line, f'{first.name} is as before in the next call')}"
    )


def _functions(tree: ast.Module) -> list[tuple[Any, frozenset[str]]]:
    """The functions of a text, each with the names of the functions around it."""
    found: list[tuple[Any, frozenset[str]]] = []
    todo: list[tuple[ast.AST, frozenset[str]]] = [(tree, frozenset())]
    while todo:
        node, outer = todo.pop()
        if isinstance(node, _FUNCTIONS):
            found.append((node, outer))
            outer |= _own(node)
        todo += [(item, outer) for item in ast.iter_child_nodes(node)]
    return found


def _reached(
    functions: list[tuple[Any, frozenset[str]]], entry: str
) -> list[tuple[Any, frozenset[str]]]:
    """Those of `functions` that a call of `entry` may run, as far as they are called by their names."""
    by_name: dict[str, list[tuple[Any, frozenset[str]]]] = {}
    for pair in functions:
        by_name.setdefault(getattr(pair[0], "name", entry), []).append(pair)
    found: list[tuple[Any, frozenset[str]]] = []
    todo = [entry]
    while todo:
        now = by_name.pop(todo.pop(), [])
        found += now
        nodes = [item for function, _ in now for item in ast.walk(function)]
        todo += {item.id for item in nodes if isinstance(item, ast.Name)}
        todo += {item.attr for item in nodes if isinstance(item, ast.Attribute)}
    return found


def _within(function: Any) -> Iterator[ast.AST]:
    """What runs when a function is called: its body without that of inner functions."""
    todo: list[ast.AST] = [*function.body] if isinstance(function.body, list) else [function.body]
    while todo:
        item = todo.pop()
        yield item
        if not isinstance(item, _FUNCTIONS):
            todo += ast.iter_child_nodes(item)


def _own(function: Any) -> frozenset[str]:
    """The names that belong to a function: its arguments, and what it binds."""
    return frozenset({*_arguments(function), *_bound(_within(function))}) - _declared(function)


def _arguments(function: Any) -> list[str]:
    return [item.arg for item in ast.walk(function.args) if isinstance(item, ast.arg)]


def _declared(function: Any) -> set[str]:
    """The names that a function declares to be another's."""
    said = [n for n in _within(function) if isinstance(n, ast.Global | ast.Nonlocal)]
    return {name for item in said for name in item.names}


def _bound(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The names that are given a value among these nodes."""
    for item in nodes:
        match item:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                yield name
            case ast.alias(name=name, asname=other):
                yield other or name.partition(".")[0]
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield item.name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                yield name
            case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                yield name


def _values(tree: ast.Module) -> frozenset[str]:
    """The names that a text itself gives a value, outside functions and classes."""
    statements = [n for n in tree.body if not isinstance(n, (*_FUNCTIONS, ast.ClassDef))]
    names = [n for item in statements for n in ast.walk(item) if isinstance(n, ast.Name)]
    return frozenset(name.id for name in names if isinstance(name.ctx, ast.Store))


def _changes(function: Any, outer: frozenset[str], values: frozenset[str]) -> Iterator[Change]:
    inside = list(_within(function))
    own, bound = _own(function), set(_bound(inside))
    shared = {name for item in inside if isinstance(item, ast.Global) for name in item.names}
    kept = {
        name: default.id if isinstance(default, ast.Name) else None
        for name, default in defaults_of(function.args)
        if name not in bound and isinstance(default, (*_FRESH, ast.Name))
    }
    for item in inside:
        calls = False
        match item:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                if name in shared:
                    yield Change(name, item.lineno)
                continue
            case ast.Attribute(value=holder, ctx=ast.Store() | ast.Del()):
                said = _written(item)
            case ast.Subscript(value=holder, ctx=ast.Store() | ast.Del()):
                said = _written(holder)
            case ast.Call(func=ast.Attribute(value=holder, attr=name)) if name in _CHANGING:
                said, calls = _written(holder), True
            case _:
                continue
        root, of_class = _root(holder)
        if of_class or (root == "cls" and root in own):
            yield Change(said, item.lineno)
        elif root in kept:
            yield Change(f"the default of {root}", item.lineno, kept[root], calls)
        elif root is not None and root not in own | outer:
            yield Change(said, item.lineno, None if root in values else root, calls)


def _written(item: ast.expr) -> str:
    try:
        return ast.unparse(item)
    except RecursionError:  # a long chain; the line is shown
        return "..."


def _root(item: ast.expr) -> tuple[str | None, bool]:
    """The name that an expression begins with, if it reaches a value; whether that is a class."""
    while True:
        match item:
            case ast.Name(id=name):
                return name, False
            case ast.Attribute(attr="__class__") | ast.Call(func=ast.Name(id="type"), args=[_]):
                return None, True
            case ast.Attribute(value=inner) | ast.Subscript(value=inner):
                item = inner
            case _:
                return None, False
