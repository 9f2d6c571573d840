"""The other methods of an object, for a method that runs in the sandbox.

They go there as text, and work there on the values of the object: nothing of them runs here. What cannot
go is answered there by an error that says why.
"""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tracegraph.marking import BadSource
from tracegraph.parsing import expression_of, tree_of
from tracegraph.prelude import is_plain, names_around, prelude
from tracegraph.source import class_of, dedented, parsed, private, private_names

__all__ = ["Companion", "companions", "written"]

_ASKED_BY_SYNTAX = frozenset({
    "__abs__", "__add__", "__and__", "__bool__", "__call__", "__contains__", "__enter__", "__eq__",
    "__exit__", "__float__", "__floordiv__", "__ge__", "__getitem__", "__gt__", "__hash__", "__int__",
    "__invert__",
    "__iter__", "__le__", "__len__", "__lt__", "__matmul__", "__mod__", "__mul__", "__ne__", "__neg__",
    "__next__", "__or__", "__pos__", "__pow__", "__radd__", "__reversed__", "__rmul__", "__rsub__",
    "__setitem__", "__str__", "__sub__", "__truediv__", "__xor__",
})  # fmt: skip
"""Methods that no text names where it uses them."""
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)

Text = Callable[[Any], str | None]
"""The text in force of a trainable method; None for any other."""


class Companion(NamedTuple):
    """A method that goes along, or why it cannot.

    Attributes:
        name: what the object calls it.
        word: what wraps it: ``staticmethod``, ``classmethod``, ``property`` or nothing.
        function: its own name in `source`.
        source: code that defines it, alone.
        reason: why it stays; empty where it goes.
    """

    name: str
    word: str
    function: str
    source: str
    reason: str


def companions(
    kind: type, text: str, entry: str, text_of: Text, *, owner: str = ""
) -> tuple[list[Companion], set[str]]:
    """The methods of `kind` that a text may call, and those that these may call.

    The text was written for the body of a class `owner`, where private names are its own.

    Gives also the names that all of them ask of the object.
    """
    found: dict[str, Companion] = {}
    asked = {private(name, owner) for name in _attributes(text)}
    todo = [*sorted(asked), *(n for n in sorted(_ASKED_BY_SYNTAX) if _own(kind, n) is not None)]
    while todo:
        name = todo.pop()
        if name in found or name == entry:
            continue
        member = _own(kind, name)
        word = (
            type(member).__name__
            if isinstance(member, (staticmethod, classmethod, property))
            else ""
        )
        inner = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if not callable(inner) or isinstance(inner, type):
            continue
        made = _companion(name, word, inner, text_of(inner))
        found[name] = made
        more = _attributes(made.source) - asked
        asked |= more
        todo += sorted(more)
    return list(found.values()), asked


def _own(kind: type, name: str) -> Any:
    """A member of a class that a person wrote; None for what Python itself brings."""
    for base in kind.__mro__[:-1]:
        if name in vars(base):
            return vars(base)[name]
    return None


def _attributes(text: str) -> set[str]:
    return {item.attr for item in ast.walk(tree_of(text)) if isinstance(item, ast.Attribute)}


def _companion(name: str, word: str, function: Any, text: str | None) -> Companion:
    raw = inspect.unwrap(function)
    called = getattr(raw, "__name__", name)
    try:
        if text is None:
            source, names = _bare(raw)
        else:
            source, names = _as_in(class_of(raw), text, called), names_around(raw)
    except BadSource as error:
        return Companion(name, word, called, "", error.reason)
    return Companion(name, word, called, "\n".join([*prelude(source, names), source]), "")


def _as_in(owner: str, text: str, entry: str) -> str:
    """A text whose function has its private names as in the body of a class `owner`."""
    tree = parsed(text)
    for item in tree.body:
        if isinstance(item, _FUNCTION) and item.name == entry:
            private_names(item, owner)
    return ast.unparse(tree)


@functools.lru_cache(256)
def _bare(raw: Any) -> tuple[str, dict[str, Any]]:
    """A function's text without decorators and annotations, its defaults written out."""
    if not inspect.isfunction(raw):
        raise BadSource("it is no Python function")
    if "__class__" in raw.__code__.co_freevars:
        raise BadSource("it uses super(), which belongs to its class")
    try:
        tree = parsed(dedented(inspect.getsource(raw)))
    except (OSError, TypeError) as error:
        raise BadSource("its source cannot be had") from error
    item = tree.body[0]
    if not isinstance(item, _FUNCTION):
        raise BadSource("it was made in another way than by def")
    if any(
        ast.unparse(d).rpartition(".")[2] not in _KNOWN for d in map(_called, item.decorator_list)
    ):
        raise BadSource("a decorator stands above it")
    private_names(item, class_of(raw))
    item.decorator_list, item.returns = [], None
    for argument in ast.walk(item.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    defaults = [*(raw.__defaults__ or ()), *(raw.__kwdefaults__ or {}).values()]
    if not all(map(is_plain, defaults)):
        raise BadSource("a default of it is no plain value")
    item.args.defaults = [_literal(value) for value in raw.__defaults__ or ()]
    keywords = raw.__kwdefaults__ or {}
    item.args.kw_defaults = [
        _literal(keywords[a.arg]) if a.arg in keywords else None for a in item.args.kwonlyargs
    ]
    return ast.unparse(ast.fix_missing_locations(tree)), names_around(raw)


_KNOWN = frozenset({"bundle", "classmethod", "property", "setter", "staticmethod"})


def _called(decorator: ast.expr) -> ast.expr:
    return decorator.func if isinstance(decorator, ast.Call) else decorator


def _literal(value: Any) -> ast.expr:
    return expression_of(repr(value))


def written(those: Iterable[Companion], owner: str) -> str:
    """Code that gives the class `owner` these methods; each has names of its own."""
    lines = [
        f"""
def _add_to_{owner}(name, word, function, source, reason):
    def stays(*args, **kwargs):
        raise AttributeError(name + " stays outside the sandbox: " + reason)
    made = stays
    if not reason:
        names = dict(globals())
        try:
            exec(source, names)
            made = names[function]
        except Exception as error:
            reason = type(error).__name__ + ": " + str(error)
    if isinstance(made, (staticmethod, classmethod, property)):
        word = ""
    word = {{"staticmethod": staticmethod, "classmethod": classmethod, "property": property}}.get(word)
    setattr({owner}, name, made if word is None else word(made))
"""
    ]
    lines += [f"_add_to_{owner}{tuple(one)!r}\n" for one in those]
    return "\n".join(lines)
