"""What goes along with a text of code that runs apart from its program, and what stays.

Imported modules go by name and plain constants by value. What stays is missed by the code; the failure is
then explained, with what to do.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from tracegraph.errors import Forbidden
from tracegraph.parsing import expression_of, tree_of
from tracegraph.spans import Span, replaced, span

__all__ = [
    "brought", "defaults_of", "is_plain", "lacking", "names_around", "prelude", "told_apart",
    "without_annotations", "without_defaults",
]  # fmt: skip

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITIONS = (*_FUNCTIONS, ast.ClassDef)
_LONGEST_CONSTANT = 10_000
_NO_NAME = re.compile(r"name '(\w+)' is not defined")
_NO_MODULE = re.compile(r"No module named '(\w+)")


def names_around(raw: Any) -> dict[str, Any]:
    """What a function can name beside what it defines: its module's names, and those around it."""
    found = dict(raw.__globals__)
    for name, cell in zip(raw.__code__.co_freevars, raw.__closure__ or (), strict=True):
        with suppress(ValueError):  # it has no value yet
            found[name] = cell.cell_contents
    return found


def brought(lines: Sequence[str]) -> set[str]:
    """The names that the lines of a prelude define."""
    return {
        line.rpartition(" as ")[2]
        if "import " in line.partition("=")[0]
        else line.partition(" ")[0]
        for line in lines
    }


def without_defaults(
    text: str, entry: str, raw: Any, before: Sequence[str]
) -> tuple[str, Callable[[Any, Any], tuple[Any, Any]] | None]:
    """`text` with None for those defaults of `entry` that are values of the program.

    What they were at decoration of the function `raw` is sent with each call: gives also what adds
    it to the arguments, where there is any. `before` are the lines of the prelude.
    """
    tree, known = tree_of(text), brought(before)
    signature, spans, kept = inspect.signature(raw), [], {}
    for item in tree.body:
        if not isinstance(item, _FUNCTIONS) or item.name != entry:
            continue
        for name, default in defaults_of(item.args):
            value = signature.parameters[name].default
            asked = _names_asked(default)
            asked -= {n.name for n in tree.body if isinstance(n, _DEFINITIONS)}
            if asked and (is_plain(value) or not asked <= known):
                spans.append(_in_place_of(text, default, "None"))
                kept[name] = value

    def filled(args: Any, kwargs: Any) -> tuple[Any, Any]:
        bound = signature.bind(*args, **kwargs)
        bound.arguments = {**kept, **bound.arguments}
        return bound.args, bound.kwargs

    return replaced(text, spans), filled if kept else None


def defaults_of(arguments: ast.arguments) -> list[tuple[str, ast.expr]]:
    """The arguments that have a default, by name, each with the expression of it."""
    positional = [*arguments.posonlyargs, *arguments.args]
    names = positional[len(positional) - len(arguments.defaults) :]
    found = list(zip(names, arguments.defaults, strict=True))
    found += [(a, d) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d]
    return [(argument.arg, default) for argument, default in found]


def without_annotations(text: str, known: set[str]) -> str:
    """`text` with ``object`` for the annotations that name what stays in the program."""
    tree = tree_of(text)
    annotations = [
        getattr(item, field)
        for item in ast.walk(tree)
        for field in ("annotation", "returns")
        if hasattr(item, field)
    ]
    known = known | _bound(tree)
    unknown = [a for a in annotations if a is not None and not _names_asked(a) <= known]
    return replaced(text, [_in_place_of(text, annotation, "object") for annotation in unknown])


def _names_asked(item: ast.expr) -> set[str]:
    """The names that an expression takes from around it, but for those of Python itself."""
    used = {n.id for n in ast.walk(item) if isinstance(n, ast.Name)}
    return {name for name in used - _bound(item) if not hasattr(builtins, name)}


def _bound(tree: ast.AST) -> set[str]:
    """The names that are given a value somewhere in a tree."""
    found = set()
    for item in ast.walk(tree):
        match item:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                found.add(name)
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
            ):
                found.add(name)
            case ast.alias(name=name, asname=other):
                found.add(other or name.partition(".")[0])
    return found


def _in_place_of(text: str, item: ast.expr, word: str) -> Span:
    """An edit that keeps the number of lines."""
    lines = "\n" * ((item.end_lineno or 0) - item.lineno)
    return span(text, item, f"({word}{lines})")


def prelude(text: str, known: Mapping[str, Any]) -> list[str]:
    """Lines that bring along what the code names and does not define, as far as `known` has it.

    Modules and what modules of Python itself define are imported; plain constants are written out.
    """
    lines = []
    for name in sorted(_free_names(tree_of(text))):
        if name not in known:
            continue
        value = known[name]
        home = getattr(value, "__module__", None)
        if isinstance(value, types.ModuleType):
            lines.append(f"import {value.__name__} as {name}")
        elif _is_pythons_own(value, home):
            lines.append(f"from {home} import {value.__name__} as {name}")
        elif not callable(value) and is_plain(value):
            lines.append(f"{name} = {value!r}")
    return lines


def _is_pythons_own(value: Any, home: object) -> bool:
    """Whether ``from home import ...`` gives this very value in any process."""
    if not isinstance(home, str) or home.partition(".")[0] not in sys.stdlib_module_names:
        return False
    name = getattr(value, "__name__", None)
    return (
        home != "__main__"
        and isinstance(name, str)
        and name.isidentifier()
        and getattr(sys.modules.get(home), name, None) is value
    )


def _free_names(tree: ast.Module) -> set[str]:
    names = [n for n in ast.walk(tree) if isinstance(n, ast.Name)]
    loaded = {n.id for n in names if isinstance(n.ctx, ast.Load)}
    defined = {n.name for n in tree.body if isinstance(n, _DEFINITIONS)}
    return {name for name in loaded - defined if not hasattr(builtins, name)}


def is_plain(value: Any) -> bool:
    """Whether ``repr`` writes the very value: numbers, texts, and containers of these."""
    if not isinstance(value, (int, float, str, bytes, bool, type(None), list, tuple, dict, set)):
        return False
    text = repr(value)
    if len(text) > _LONGEST_CONSTANT:
        return False
    try:
        return bool(ast.literal_eval(expression_of(text)) == value)
    except (ValueError, SyntaxError, RecursionError):
        return False


def lacking(error: Exception, said: str, missing: Mapping[str, str]) -> str:
    """What to do about what the program has and the sandbox lacks, by what `error` said."""
    if isinstance(error, RuntimeError) and "__class__ cell not found" in said:
        return f"super() asks the class of the program, and {_AWAY}"
    if isinstance(error, SyntaxError) and "no binding for nonlocal" in said:
        return f"nonlocal changes a variable of the program, and {_AWAY}"
    if isinstance(error, Forbidden) or "can't start new thread" in said:
        return (
            "in the sandbox code reads no files but Python's own and those in Policy(read=...), and has no "
            "network, no threads and no other processes; bundle(host=...) lets it call a function that "
            "does it here"
        )
    if isinstance(error, ImportError):
        found = _NO_MODULE.match(said)
        if "relative import" in said or (found and found[1] in sys.modules):
            return f"this imports a module of the program, and {_AWAY}"
    found = _NO_NAME.match(said) if isinstance(error, NameError) else None
    if found is None or found[1] not in missing:
        return ""
    name, word = found[1], missing[found[1]]
    advice = _ADVICE[word].format(name)
    return f"{name} is a {word} of the program, and the code runs apart from it; {advice}"


_AWAY = "the code runs apart from it; where the code is trusted (parameter.trust()) it runs here"
_ADVICE = {
    "decorator": "put it above @bundle, where it is a part of the program",
    "class": "pass what the code needs of it as an argument",
    "function": "bundle(host={{{0!r}: {0}}}) lets the code call it",
    "value": "pass it as an argument",
}


def told_apart(text: str, known: Mapping[str, Any], present: set[str]) -> dict[str, str]:
    """What the program has and the sandbox lacks, by name: which key of the advice it is."""
    decorators = {
        name.id
        for item in ast.walk(tree_of(text))
        for decorator in getattr(item, "decorator_list", ())
        for name in ast.walk(decorator)
        if isinstance(name, ast.Name)
    }
    return {
        name: "decorator" if name in decorators
        else "class" if isinstance(value, type)
        else "function" if callable(value)
        else "value"
        for name, value in known.items()
        if name not in present
    }  # fmt: skip
