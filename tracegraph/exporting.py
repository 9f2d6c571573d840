"""Write what was trained as plain Python: today's values and today's code, in one file.

Texts are written as string literals, never as code. What is written is what Python would need to
make the same things again: the definitions, what they name, and imports. Where that cannot be done
faithfully nothing is written, and the reason says what is in the way.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import keyword
import symtable
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from importlib.util import resolve_name
from pathlib import Path
from typing import Any, cast, get_origin

from tracegraph.bundle import Bundle, bundle
from tracegraph.definitions import class_statement
from tracegraph.errors import ParameterError
from tracegraph.formatting import formatted
from tracegraph.literals import Unwritable, literal
from tracegraph.lowering import lower
from tracegraph.marking import BadSource
from tracegraph.module import Map, Module, Seq, is_module, model, named_parameters
from tracegraph.node import Node
from tracegraph.parameter import Parameter, node
from tracegraph.recorded import bundle_of
from tracegraph.source import dedented, future_flags, is_filled
from tracegraph.spans import Span, lines_of, offset, replaced, span
from tracegraph.together import code_of
from tracegraph.whole import ClassCode, Program
from tracegraph.writing import write_whole

__all__ = ["export"]

_HEADER = "# Written by tracegraph: the values and the code of a program, as they were then.\n"
_WARNING = "# An optimizer wrote this and nobody has trusted it: read it before you run it.\n"


def export(things: Any, path: str | Path | None = None, *, untrusted: bool = False) -> str:
    """Plain Python that makes `things` again, with the values and the code of today.

    Decorators of tracegraph are left out, and parameters become their values, so that the file needs
    tracegraph only where other code of it does. Formatted by ruff where that is installed.

    Args:
        things: a module object, a function, a trainable class or module, a parameter with a name, a
            list of these, or a mapping from the names that they shall have.
        path: where to write it, too.
        untrusted: write also code that an optimizer wrote and nobody has trusted, with a warning
            above it.

    Raises:
        ParameterError: something cannot be written faithfully, or is not trusted; nothing is written.

    >>> import tracegraph as tg
    >>> prompt = tg.node("import os", trainable=True, name="prompt")
    >>> print(export([prompt]), end="")
    # Written by tracegraph: the values and the code of a program, as they were then.
    <BLANKLINE>
    prompt = 'import os'
    """
    text = formatted(_File(untrusted).text(things))
    if path is not None:
        write_whole(path, text.encode())
    return text


class _File:
    """One file in the making: what was named, and what was written, in order."""

    def __init__(self, untrusted: bool) -> None:
        self._untrusted = untrusted
        self._named: dict[str, Any] = {}
        self._imports: dict[str, None] = {}
        self._parts: list[str] = []
        self._objects: dict[type, Any] = {}
        self._homes = {"__main__"}
        self._placed: set[int] = set()
        self._twins: list[tuple[Any, Any]] = []
        self._future = False
        self._inside: dict[str, str] = {}  # what the texts themselves bind, and how

    def text(self, things: Any) -> str:
        """The whole file."""
        if isinstance(things, Program):
            return "".join(self._written(things.parameter))
        named = _by_name(things)
        for thing in named.values():
            if get_origin(thing) is None:  # list[int] stands where list does
                self._homes.add(_home(thing))
            self._collect(thing, set())
        for name, thing in named.items():
            kind = type(thing)
            self._define(*((kind.__name__, kind) if is_module(thing) else (name, thing)))
        self._check_placed(named)
        imports = "".join(f"{line}\n" for line in sorted(self._imports))
        future = "from __future__ import annotations\n" if self._future else ""
        return "\n".join(filter(None, [_HEADER, future + imports, *self._parts]))

    def _collect(self, holder: Any, seen: set[int]) -> None:
        """Know the object of every class whose text will hold its values."""
        if id(holder) in seen or isinstance(holder, (Node, type)):
            return
        seen.add(id(holder))
        if is_module(holder):
            for kind in type(holder).__mro__:
                other = self._objects.setdefault(kind, holder)
                mine = kind is type(holder)
                if mine and other is not holder and _values(other) != _values(holder):
                    raise ParameterError(
                        f"two objects of {kind.__qualname__} hold different values, and its text can "
                        "hold those of one; export each by itself"
                    )
                if mine and other is not holder:
                    self._twins.append((other, holder))
            inside: Iterable[Any] = vars(holder).values()
        elif isinstance(holder, (Mapping, Map)):
            inside = holder.values()
        elif isinstance(holder, (list, tuple, Seq)):
            inside = holder
        else:
            return
        for item in inside:
            self._collect(item, seen)

    def _check_placed(self, named: Mapping[str, Any]) -> None:
        for first, twin in self._twins:
            placed = named_parameters(first)
            for path, parameter in named_parameters(twin).items():
                if id(placed[path]) in self._placed:
                    self._placed.add(id(parameter))
        for path, parameter in named_parameters(dict(named)).items():
            if id(parameter) not in self._placed:
                raise ParameterError(
                    f"{path} has no place in the text: a method must set it, as `self.name = ...`, so that "
                    "its value can stand there"
                )

    # Names

    def _define(self, name: str, value: Any) -> None:
        """Write what gives `name` the meaning of `value`, once."""
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ParameterError(
                f"{name!r} cannot name anything in Python; give a mapping of names"
            )
        if name in self._named and self._named[name] is value:
            return
        if name in self._named or name in self._inside:
            raise _two_meanings(name)
        self._named[name] = value
        made = self._definition(name, value)
        if made:
            self._parts.append(made)

    def _definition(self, name: str, value: Any) -> str:
        if isinstance(value, types.ModuleType):
            plain = value.__name__ == name
            self._imports[f"import {value.__name__}" + ("" if plain else f" as {name}")] = None
            return ""
        if isinstance(value, Bundle):
            return self._function(name, value)
        if isinstance(value, Program):
            raise ParameterError(f"{name} is a trainable module: export it by itself")
        plain = get_origin(value) is None  # list[int] is called as list is, and has its name
        if plain and (
            isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__"))
        ):
            return self._code(name, value)
        if is_module(value):
            raise ParameterError(
                f"{name} is an object of {type(value).__qualname__}: export it by itself; its class is "
                "written with its values"
            )
        return f"{name} = {self._literal(name, value)}\n"

    def _literal(self, name: str, value: Any) -> str:
        if isinstance(value, Parameter) and value.kind.name == "code":
            raise ParameterError(
                f"{name} is the text of a function or class; export the function itself, which knows "
                "what the text needs"
            )
        found: list[Node[Any]] = []
        plain = lower(_bare(value), "", found, [])
        self._placed |= {id(n.parameter) for n in found if n.parameter is not None}
        try:
            return literal(plain, self._name_of)
        except Unwritable as error:
            raise ParameterError(f"{name} cannot be exported: {error}") from error

    def _name_of(self, thing: Any) -> str:
        name: str = thing.__name__
        self._define(name, thing)
        return name

    # Functions and classes

    def _function(self, name: str, value: Bundle[Any, Any]) -> str:
        raw: Any = inspect.unwrap(value._function)
        if value._method:
            raise ParameterError(f"{name} is a method: export the object that it belongs to")
        parameter = value.parameter
        warning, text = ("", _source(raw)) if parameter is None else self._written(parameter)
        return self._text(name, raw, text, warning)

    def _code(self, name: str, value: Any) -> str:
        if _is_elsewhere(value, self._homes):
            shown = value.__name__ if value.__name__ == name else f"{value.__name__} as {name}"
            self._imports[f"from {value.__module__} import {shown}"] = None
            return ""
        if isinstance(value, type):
            return self._class(name, value)
        if isinstance(value, types.MethodType):
            raise ParameterError(f"{name} is a method: export the object that it belongs to")
        raw, inner = inspect.unwrap(value), bundle_of(value)
        text = _source(raw)
        if inner is not None and inner.parameter is not None:  # other decorators stand above
            item = ast.parse(text).body[0]
            text = replaced(text, [self._beneath(text, item, inner.parameter, _names(raw))])
        return self._text(name, raw, text, "")

    def _text(self, name: str, raw: Any, text: str, warning: str) -> str:
        """The text of a function, behind what it names, without our decorators."""
        names, entry = self._around(raw), raw.__name__
        tree = ast.parse(text)
        edits = [e for item in tree.body for e in self._undecorated(text, item, names)]
        edits += [
            span(text, item, item.value.id)
            for item in ast.walk(tree)
            if isinstance(item, ast.Attribute)
            and item.attr == "data"
            and isinstance(item.value, ast.Name)
            and isinstance(names.get(item.value.id), Node)
        ]
        kept = replaced(text, [*edits, *_absolute(text, tree, names)])
        self._check_alone(kept, entry)
        self._claim(kept, entry)
        self._define_all(_global_names(kept), names, entry)
        return f"\n{warning}{kept.rstrip()}\n" + _alias(name, entry)

    def _claim(self, text: str, entry: str) -> None:
        """Refuse helpers of a text that would take the place of another text's, or of a value."""
        for item in ast.parse(text).body:
            for name in _bound(item) - {entry}:
                how = ast.dump(item)
                if self._inside.setdefault(name, how) != how or name in self._named:
                    raise _two_meanings(name)

    def _define_all(self, used: Iterable[str], names: Mapping[str, Any], entry: str) -> None:
        for name in used:
            if name in names and name != entry:
                self._define(name, names[name])

    def _around(self, raw: Any) -> dict[str, Any]:
        """What a function can name: its module's globals, and the variables around it."""
        if not isinstance(raw, types.FunctionType) or raw.__name__ == "<lambda>":
            raise ParameterError(
                f"{raw!r} cannot be exported: only what def or class made has a text of its own"
            )
        self._future = self._future or bool(future_flags(raw))
        return _names(raw)

    def _check_alone(self, text: str, entry: str) -> None:
        try:
            compile(text, entry, "exec", dont_inherit=True)
        except SyntaxError as error:
            raise ParameterError(
                f"{entry} cannot stand by itself: {error.msg} (line {error.lineno}); what it keeps in "
                "the function around it must move into an argument or an object"
            ) from error

    def _undecorated(self, text: str, item: ast.AST, names: Mapping[str, Any]) -> list[Span]:
        """Edits that take our decorators away."""
        return [
            Span(offset(text, d.lineno, 0), offset(text, d.end_lineno or 0, None), "")
            for d in getattr(item, "decorator_list", ())
            if _meant(d.func if isinstance(d, ast.Call) else d, names) in (bundle, model)
        ]

    def _written(self, parameter: Parameter[Any]) -> tuple[str, str]:
        """The code of today, behind the warning that it needs."""
        self._placed.add(id(parameter))
        now = parameter._cell().now
        if now.trusted:
            return "", now.data
        if not self._untrusted:
            raise ParameterError(
                f"an optimizer wrote {parameter.label!r} and nobody has trusted it: read it "
                "(parameter.data) and call parameter.trust(), or export(..., untrusted=True)"
            )
        return _WARNING, now.data

    # The class of an object, with its values

    def _class(self, name: str, value: type) -> str:
        code = cast("ClassCode | None", code_of(value))
        known: dict[str, Any] = {**vars(sys.modules.get(value.__module__, builtins))}
        for member in vars(value).values():
            raw = inspect.unwrap(_plain(member)) if member is not None else None
            if isinstance(raw, types.FunctionType) and raw.__qualname__.startswith(
                f"{value.__qualname__}."
            ):
                known |= self._around(raw)
        warning, text = ("", _source(value)) if code is None else self._written(code.parameter)
        if code is not None:
            known |= code.source.names
        entry = value.__name__
        known[entry] = value
        holder = self._objects.get(value)
        definition = _class_statement(text, value)
        edits = self._undecorated(text, definition, known)
        if code is None:
            for item in definition.body:
                member = vars(value).get(getattr(item, "name", ""))
                edits += self._method(text, item, member, holder, known)
        kept = replaced(text, edits)
        kept = replaced(kept, _absolute(kept, ast.parse(kept), known))
        definition = _class_statement(kept, value)
        writer = _ClassText(kept, definition, known, holder, self._literal)
        kept = replaced(kept, writer.edits()).rstrip() + "\n" + writer.call()
        self._check_alone(kept, entry)
        self._claim(kept, entry)
        self._define_all(_global_names(kept), known, entry)
        return f"\n{warning}{kept}" + _alias(name, entry)

    def _method(
        self, text: str, item: ast.stmt, member: Any, holder: Any, names: Mapping[str, Any]
    ) -> list[Span]:
        """Edits that make one method plain, with today's text where it is trainable."""
        function = bundle_of(_plain(member))
        if function is None:
            return []
        edits = self._undecorated(text, item, names)
        if function.parameter is None:
            return edits
        mine = function if holder is None else member.__get__(holder, type(holder))
        parameter = getattr(bundle_of(_plain(mine)), "parameter", None) or function.parameter
        new = self._beneath(text, item, parameter, names)
        return [*(e for e in edits if e.start < new.start), new]

    def _beneath(
        self, text: str, item: ast.stmt, parameter: Parameter[Any], names: Mapping[str, Any]
    ) -> Span:
        """The edit that puts today's text where a function stands below the decorator that is ours."""
        decorators = getattr(item, "decorator_list", [])
        last = [d.end_lineno or 0 for d in decorators if _meant(_called(d), names) is bundle]
        start = offset(text, (max(last) if last else item.lineno - 1) + 1, 0)
        new = _indented("".join(self._written(parameter)), " " * item.col_offset)
        return Span(start, offset(text, item.end_lineno or 0, None), new)


class _ClassText:
    """The edits of a class statement that put an object's values where its nodes were made."""

    def __init__(
        self,
        text: str,
        definition: ast.ClassDef,
        names: Mapping[str, Any],
        holder: Any,
        write: Callable[[str, Any], str],
    ) -> None:
        self._text, self._definition, self._names = text, definition, names
        self._holder, self._write = holder, write
        self._replaced: set[str] = set()

    def edits(self) -> list[Span]:
        """All of them."""
        values = [] if self._holder is None else self._values()
        return [*values, *self._data_reads(), *self._bases()]

    def call(self) -> str:
        """The ``__call__`` that a class has from us, where it relies on it."""
        own = {getattr(item, "name", "") for item in self._definition.body}
        if "forward" not in own or "__call__" in own:
            return ""
        called = "return self.forward(*args, **kwargs)"
        return f"\n    def __call__(self, *args, **kwargs):\n        {called}\n"

    def _values(self) -> list[Span]:
        edits = []
        for statement in ast.walk(self._definition):
            name = _attribute_set(statement)
            if name is None or not self._makes_nodes(statement):
                continue
            value = getattr(statement, "value", None)
            held = vars(self._holder).get(name)
            if value is not None and name in vars(self._holder):
                self._replaced.add(name)
                new = self._write(f"self.{name}", held)
                edits.append(span(self._text, value, new))
        return edits

    def _makes_nodes(self, statement: ast.AST) -> bool:
        return any(
            isinstance(item, ast.Call) and _meant(item.func, self._names) in (node, Seq, Map)
            for item in ast.walk(statement)
        )

    def _data_reads(self) -> list[Span]:
        """``self.prompt.data`` is ``self.prompt`` once that is a plain value."""
        return [
            span(self._text, item, f"self.{item.value.attr}")
            for item in ast.walk(self._definition)
            if isinstance(item, ast.Attribute)
            and item.attr == "data"
            and isinstance(item.value, ast.Attribute)
            and isinstance(item.value.value, ast.Name)
            and item.value.value.id == "self"
            and item.value.attr in self._replaced
        ]

    def _bases(self) -> list[Span]:
        bases = self._definition.bases
        ours = [base for base in bases if _meant(base, self._names) is Module]
        if not ours:
            return []
        rest = [ast.unparse(b) for b in bases if b not in ours]
        rest += [ast.unparse(k) for k in self._definition.keywords]
        given = [*bases, *(k.value for k in self._definition.keywords)]
        start = span(self._text, bases[0], "").start
        end = span(self._text, given[-1], "").end
        return [Span(start, end, ", ".join(rest))]


def _absolute(text: str, tree: ast.Module, names: Mapping[str, Any]) -> list[Span]:
    """Edits that give relative imports the whole name of what they import from."""
    found, package = [], names.get("__package__")
    for item in ast.walk(tree):
        if isinstance(item, ast.ImportFrom) and item.level and package:
            home = resolve_name("." * item.level + (item.module or ""), package)
            found.append(span(text, item, ast.unparse(ast.ImportFrom(home, item.names, 0))))
    return found


def _class_statement(text: str, value: type) -> ast.ClassDef:
    for item in ast.parse(text).body:
        if isinstance(item, ast.ClassDef) and item.name == value.__name__:
            return item
    raise ParameterError(f"the class statement of {value.__qualname__} was not found")


def _attribute_set(statement: ast.AST) -> str | None:
    """``prompt`` for a statement ``self.prompt = ...``, else None."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target: ast.expr = statement.targets[0]
    elif isinstance(statement, ast.AnnAssign):
        target = statement.target
    else:
        return None
    if (
        isinstance(target, ast.Attribute)
        and isinstance(target.value, ast.Name)
        and target.value.id == "self"
    ):
        return target.attr
    return None


def _by_name(things: Any) -> dict[str, Any]:
    if isinstance(things, (Mapping, Map)):
        return dict(things)
    named: dict[str, Any] = {}
    for thing in things if isinstance(things, (list, tuple, Seq)) else [things]:
        name = _own_name(thing)
        if name is None:
            raise ParameterError(
                f"{thing!r} has no name to be written under; give names by a mapping: {{'name': ...}}"
            )
        if named.setdefault(name, thing) is not thing:
            raise ParameterError(f"two things are named {name!r}; give names by a mapping")
    return named


def _two_meanings(name: str) -> ParameterError:
    return ParameterError(f"{name!r} names two things in what is exported; give one another name")


def _bound(item: ast.stmt) -> set[str]:
    """The names that a statement of a module binds."""
    if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {item.name}
    if isinstance(item, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).partition(".")[0] for alias in item.names}
    stores = (n for n in ast.walk(item) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    return {n.id for n in stores}


def _bare(value: Any) -> Any:
    """A value with plain lists and dicts in the place of ours."""
    if isinstance(value, (Seq, list)):
        return [_bare(item) for item in value]
    if isinstance(value, (Map, dict)):
        return {key: _bare(item) for key, item in value.items()}
    return value


def _alias(name: str, entry: str) -> str:
    return "" if entry == name else f"\n\n{name} = {entry}\n"


def _own_name(thing: Any) -> str | None:
    if isinstance(thing, Node):
        return thing.given_name
    if is_module(thing):
        return type(thing).__name__
    name = getattr(thing, "__name__", None)
    return name if isinstance(name, str) else None


def _home(thing: Any) -> str:
    kind = type(thing) if is_module(thing) else thing
    return str(getattr(kind, "__module__", "__main__"))


def _values(holder: Any) -> dict[str, Any]:
    return {path: repr(p._data) for path, p in named_parameters(holder).items()}


def _names(function: Any) -> dict[str, Any]:
    """What a function can name: its module's globals, and the variables around it."""
    raw = inspect.unwrap(function)
    cells = zip(raw.__code__.co_freevars, raw.__closure__ or (), strict=True)
    around = {name: cell.cell_contents for name, cell in cells if is_filled(cell)}
    around.pop("__class__", None)
    return {**raw.__globals__, **around}


def _plain(member: Any) -> Any:
    return getattr(member, "__func__", member)


def _called(decorator: ast.expr) -> ast.expr:
    return decorator.func if isinstance(decorator, ast.Call) else decorator


def _meant(expression: ast.expr, names: Mapping[str, Any]) -> Any:
    """What a dotted name stands for, or None."""
    if isinstance(expression, ast.Attribute):
        return getattr(_meant(expression.value, names), expression.attr, None)
    return names.get(expression.id) if isinstance(expression, ast.Name) else None


def _is_elsewhere(value: Any, homes: set[str]) -> bool:
    """Whether an import gives this very value, and it does not stand in the exported files."""
    home = getattr(value, "__module__", None)
    if home in homes or not isinstance(home, str):
        return False
    return getattr(sys.modules.get(home), value.__name__, None) is value


def _source(thing: Any) -> str:
    name = getattr(thing, "__qualname__", repr(thing))
    try:
        text = dedented(_class_lines(thing) or inspect.getsource(thing))
        ast.parse(text)
        return text
    except (OSError, TypeError, SyntaxError, BadSource) as error:
        raise ParameterError(
            f"{name} cannot be exported: its source cannot be had ({type(error).__name__}: {error})"
        ) from error


def _class_lines(thing: Any) -> str:
    """The lines of a class statement, found by its methods; nothing where it has none."""
    if not isinstance(thing, type):
        return ""
    try:
        definition, lines = class_statement(thing)
    except BadSource:
        return ""
    first = min([definition.lineno, *(d.lineno for d in definition.decorator_list)])
    return "".join(lines[first - 1 : definition.end_lineno])


def _global_names(text: str) -> list[str]:
    """The names that a text uses and does not define, in alphabetical order."""
    found: set[str] = set()
    top = symtable.symtable(text, "<exported>", "exec")
    own = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    todo = [top]
    while todo:
        table = todo.pop()
        todo += table.get_children()
        found |= {
            s.get_name()
            for s in table.get_symbols()
            if s.is_referenced() and (s.is_global() or table is top)
        }
    return sorted(name for name in found - own if not hasattr(builtins, name))


def _indented(text: str, indent: str) -> str:
    """A text further to the right, but not inside strings that run over lines."""
    inside: set[int] = set()
    for item in ast.walk(ast.parse(text)):
        if isinstance(item, (ast.Constant, ast.JoinedStr)) and item.end_lineno is not None:
            inside.update(range(item.lineno + 1, item.end_lineno + 1))
    lines = lines_of(text)
    return "".join(
        line if number in inside or not line.strip() else indent + line
        for number, line in enumerate(lines, 1)
    )
