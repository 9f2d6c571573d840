"""Code as data where it is more than one function: the text of a whole class, or of a whole module.

What other code relies on must stay: the class with its bases, and every public method or function
with its signature. Names with a leading underscore come and go as the text likes. A text that is
refused says which line is to blame.
"""

from __future__ import annotations

import abc
import ast
import inspect
import linecache
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, final

from tracegraph.held import is_written
from tracegraph.marking import BadSource
from tracegraph.source import (
    Text,
    dedented,
    definition_of,
    future_flags,
    inner_code,
    is_filled,
    kept_decorators,
    parsed,
    signature_of,
    unlike,
    yields,
)
from tracegraph.standing import decorating, locals_named

__all__ = [
    "Around",
    "ClassSource",
    "Member",
    "ModuleSource",
    "class_statement",
    "has_metaclass",
    "members_of",
]

_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_PROPERTIES = frozenset({"property", "cached_property", "setter", "deleter", "getter"})
_BASES = "_bases_at_decoration"
_REFUSED = {
    "__getattribute__": "every access would go through the text, also that of the recorder",
    "__del__": "it would run at a moment that nobody chose",
}


class Around(NamedTuple):
    """What a class statement sees and does not define: it is the same for every text.

    Attributes:
        names: the globals of its module.
        cells: the variables of functions around it that its methods use.
        bases: the base classes themselves.
        qualname: where it stands.
        whole: why the values of its objects are not in a ``__dict__`` that another class could share, or
            nothing: then methods work on the objects themselves.
        slots: whether slots are all of the reason; their values can travel into the sandbox.
    """

    names: dict[str, Any]
    cells: dict[str, types.CellType]
    bases: tuple[Any, ...]
    qualname: str
    whole: str = ""
    slots: bool = False


class Member(NamedTuple):
    """What other code relies on: how a member is called, where it stands, and whether it yields."""

    signature: str
    line: int
    yields: bool = False


def members_of(body: Iterable[ast.stmt], owner: str = "") -> dict[str, Member]:
    """The public functions and classes of a body, and its special methods, by dotted name.

    >>> found = members_of(ast.parse("class A:\\n def f(self, x): ...\\n def _g(self): ...").body)
    >>> list(found), found["A.f"]
    (['A', 'A.f'], Member(signature='def f(self, x)', line=2, yields=False))
    """
    found: dict[str, Member] = {}
    for item in body:
        if isinstance(item, _FUNCTION) and _is_public(item.name):
            signature = _kind(item) + signature_of(item)
            found[f"{owner}{item.name}"] = Member(signature, item.lineno, yields(item))
        elif isinstance(item, ast.ClassDef) and _is_public(item.name):
            found[f"{owner}{item.name}"] = Member(_class_header(item), item.lineno)
            fields = _fields(item)
            if fields and item.decorator_list:  # a decorator may make the constructor of them
                found[f"{owner}{item.name} fields"] = Member(f"fields {fields}", item.lineno)
            found |= members_of(item.body, f"{owner}{item.name}.")
            line = _defines(item, "__slots__")
            if line is not None:
                slots = next(ast.unparse(n) for n in item.body if n.lineno == line)
                found[f"{owner}{item.name}.__slots__"] = Member(slots, line)
    return found


def _is_public(name: str) -> bool:
    return not name.startswith("_") or (name.startswith("__") and name.endswith("__"))


def _kind(item: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """What a decorator says of how the function is called, in front of its signature."""
    for decorator in item.decorator_list:
        last = decorator.func if isinstance(decorator, ast.Call) else decorator
        name = last.attr if isinstance(last, ast.Attribute) else getattr(last, "id", "")
        if name in _PROPERTIES:
            return "@property "
        if name in ("staticmethod", "classmethod"):
            return f"@{name} "
    return ""


def _class_header(item: ast.ClassDef) -> str:
    above = "".join(f"@{ast.unparse(decorator)} " for decorator in item.decorator_list)
    given = [ast.unparse(base) for base in item.bases] + [ast.unparse(k) for k in item.keywords]
    return f"{above}class {item.name}" + (f"({', '.join(given)})" if given else "")


def _fields(item: ast.ClassDef) -> str:
    """The annotated names of a class body, in order, and which have a default."""
    fields = [
        n for n in item.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    ]
    return ", ".join(f"{ast.unparse(n.target)}{'' if n.value is None else '=...'}" for n in fields)


def _check(kept: dict[str, Member], found: dict[str, Member], text: str, line: int | None) -> None:
    """Refuse a text that lacks a member or calls it otherwise."""
    for name, member in kept.items():
        now = found.get(name)
        if now is None:
            raise BadSource(
                f"the code must keep {name!r}, as `{member.signature}`: other code uses it",
                text=text,
                line=line,
                mark=f"has no {name!r}",
            )
        if now.signature != member.signature:
            raise BadSource(
                f"{name!r} must stay `{member.signature}`, it became `{now.signature}`; other code "
                "uses it as it was",
                text=text,
                line=now.line,
                mark=f"must be {member.signature}:",
            )
        if now.yields != member.yields:
            reason = unlike(member.yields)
            raise BadSource(
                f"{name!r} {reason}", text=text, line=now.line, mark=reason.split(":")[0]
            )


@final
class ClassSource(Text):
    """The text of a class, with the name, the bases and the public members that it must keep.

    Raises:
        BadSource: the text does not parse, or does not define exactly that class.

    >>> source = ClassSource("class A:\\n    def f(self): return 1\\n", entry="A")
    >>> source.replaced("class A:\\n    def g(self): return 1\\n")
    Traceback (most recent call last):
    tracegraph.marking.BadSource: the code must keep 'A.f', as `def f(self)`: other code uses it
       1 | class A:  <--- has no 'A.f'
       2 |     def g(self): return 1
    """

    __slots__ = ("_module", "around", "members")

    def __init__(
        self,
        text: str,
        *,
        entry: str,
        members: dict[str, Member] | None = None,
        around: Around | None = None,
        flags: int = 0,
    ) -> None:
        super().__init__(text, entry=entry, flags=flags)
        definition = definition_of(self.tree, entry, ast.ClassDef, text=text)
        found = members_of([definition])
        _check(members or {}, found, text, definition.lineno)
        self.members = found if members is None else members
        for name, why in _REFUSED.items():
            line = _defines(definition, name)
            if line is not None:
                raise BadSource(f"a trainable class has no {name}: {why}", text=text, line=line)
        for name in ("__init__", "__new__", "__slots__"):
            added = f"{entry}.{name}"
            if added in found and added not in self.members:
                raise BadSource(
                    f"{entry!r} makes its objects without {name} of its own; one would change that",
                    text=text,
                    line=found[added].line,
                )
        self.around = around or Around({}, {}, (object,), entry)
        self._module = self._compiled()

    @classmethod
    def of(cls, target: type, is_marker: Callable[[Any], bool]) -> ClassSource:
        """The source of the class `target`, without the decorators down to the one `is_marker` knows.

        Raises:
            BadSource: the source cannot be had, or objects of the class are no plain Python objects.
        """
        functions = _functions(target)
        definition, lines = class_statement(target)
        frame = decorating(definition, functions[0].__code__.co_filename)
        running = 0 if frame is None else frame.f_lineno
        kept = kept_decorators(definition, functions[0], is_marker, running)
        start = kept[0].lineno if kept else definition.lineno
        text = dedented("".join(lines[start - 1 : definition.end_lineno]))
        seen: list[ast.AST] = [*kept]
        if frame is not None and frame.f_code.co_flags & inspect.CO_OPTIMIZED:  # no class around it
            seen += [*definition.keywords, *_evaluated(definition.body)]
        cells = {n: types.CellType(v) for n, v in locals_named(frame, seen).items()}
        for function in functions:
            cells |= dict(
                zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
            )
        for own in ("__class__", target.__name__):
            cells.pop(own, None)
        bases = vars(target).get("__orig_bases__", target.__bases__)
        return cls(
            text.rstrip() + "\n",
            entry=target.__name__,
            around=Around(
                functions[0].__globals__, cells, bases, target.__qualname__, *_whole(target)
            ),
            flags=future_flags(functions[0]),
        )

    def replaced(self, text: str) -> ClassSource:
        """Another text for the same class; raises BadSource for one that does not fit."""
        return ClassSource(
            text, entry=self.entry, members=self.members, around=self.around, flags=self.flags
        )

    @property
    def header(self) -> str:
        """The line that every text of this class has."""
        return f"{self.members[self.entry].signature}:"

    def describe(self) -> str:
        """What every text must keep, in words."""
        kept = [f"`{m.signature}`" for n, m in self.members.items() if n != self.entry]
        return f"defines exactly `{self.header}`" + (f" with {', '.join(kept)}" if kept else "")

    def compile(self) -> type:
        """The class that the text defines, with what is around the original."""
        return self._run(self._module)

    def compile_for(self, target: type) -> type:
        """A class whose functions work on objects of `target`, also by ``super()``; it makes none itself."""
        made = self._run(self._compiled(alone=True))
        for member in vars(made).values():
            function = inspect.unwrap(getattr(member, "__func__", getattr(member, "fget", member)))
            code = getattr(function, "__code__", None)
            if code is not None and "__class__" in code.co_freevars:
                cell = function.__closure__[code.co_freevars.index("__class__")]
                if is_filled(cell) and cell.cell_contents is made:
                    cell.cell_contents = target
        return made

    def _run(self, module: types.CodeType) -> type:
        cells = {**self.around.cells, _BASES: types.CellType(self.around.bases)}
        made = inner_code(inner_code(module, "_outer"), "_make")
        new: type = types.FunctionType(
            made, self.around.names, closure=tuple(cells[n] for n in made.co_freevars)
        )()
        new.__qualname__ = self.around.qualname
        return new

    @property
    def names(self) -> dict[str, Any]:
        """What the text can name beside what it defines."""
        return {**self.around.names, **{n: c.cell_contents for n, c in self.around.cells.items()
                                        if is_filled(c)}}  # fmt: skip

    def bases(self) -> list[tuple[ast.expr, Any]]:
        """The base classes, as they are written and as they are."""
        written = definition_of(self.tree, self.entry, ast.ClassDef).bases
        return list(zip(written, self.around.bases, strict=False))

    def attributes(self) -> set[str]:
        """The names that the class body binds."""
        body = definition_of(self.tree, self.entry, ast.ClassDef).body
        return {
            n.id for item in body for n in ast.walk(item)
            if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        } | {item.name for item in body if isinstance(item, (*_FUNCTION, ast.ClassDef))}  # fmt: skip

    def brings(self) -> set[str]:
        """The names that the text defines or imports at its top."""
        own = {n.name for n in self.tree.body if isinstance(n, (*_FUNCTION, ast.ClassDef))}
        for item in self.tree.body:
            if isinstance(item, (ast.Import, ast.ImportFrom)):
                own |= {(a.asname or a.name).partition(".")[0] for a in item.names}
        return own

    def _compiled(self, *, alone: bool = False) -> types.CodeType:
        """The text, with the bases themselves in the place of their names, or without bases and slots."""
        tree = parsed(self.text)  # a copy would take longer, and recurse
        definition = definition_of(tree, self.entry, ast.ClassDef)
        if alone:
            definition.keywords = []
            line = _defines(definition, "__slots__")
            definition.body = [n for n in definition.body if n.lineno != line] or [ast.Pass()]
            if not definition.decorator_list:
                definition.bases = []
            ast.fix_missing_locations(tree)
        if definition.bases:
            read = ast.Starred(ast.Name(_BASES, ast.Load()), ast.Load())
            definition.bases = [
                ast.fix_missing_locations(ast.copy_location(read, definition.bases[0]))
            ]
        return self.compiled(tree, (*sorted(self.around.cells), _BASES))


def _defines(definition: ast.ClassDef, name: str) -> int | None:
    """The line where a class body binds `name`, or None."""
    for item in definition.body:
        if getattr(item, "name", None) == name:
            return item.lineno
        targets = item.targets if isinstance(item, ast.Assign) else [getattr(item, "target", None)]
        if any(isinstance(t, ast.Name) and t.id == name for t in targets):
            return item.lineno
    return None


def _functions(target: type) -> list[types.FunctionType]:
    """The functions that the body of a class defines, as written: they know where it stands."""
    found = []
    for member in vars(target).values():
        if isinstance(member, property):
            member = member.fget
        raw = inspect.unwrap(getattr(member, "__func__", member)) if member is not None else None
        if isinstance(raw, types.FunctionType) and raw.__qualname__ == (
            f"{target.__qualname__}.{raw.__name__}"
        ):
            found.append(raw)
    written = [f for f in found if linecache.getlines(f.__code__.co_filename)]
    if not written:
        raise BadSource(
            f"the source of {target.__qualname__!r} cannot be had: it has no method that was written "
            "in a file; a trainable class needs one"
        )
    return written


def has_metaclass(target: type) -> bool:
    """Whether more than Python itself makes the class."""
    return type(target) not in (type, abc.ABCMeta)


def _whole(target: type) -> tuple[str, bool]:
    """Why objects of a class are more than a ``__dict__`` that another class could share, or nothing.

    And whether that is for slots alone.
    """
    if has_metaclass(target):
        return f"it is made by the metaclass {type(target).__name__}", False
    if "__new__" in vars(target):
        return "it has a __new__", False
    said = "they keep values outside their __dict__, as {} says"
    bases = target.__mro__[:-1]
    for base in bases:
        if not (is_written(base) or base.__module__ in ("typing", "_typing")):
            return said.format(base.__qualname__), False
    slotted = next((base for base in bases if vars(base).get("__slots__")), None)
    return ("", False) if slotted is None else (said.format(slotted.__qualname__), True)


def class_statement(target: type) -> tuple[ast.ClassDef, list[str]]:
    """The class statement of `target`, and the lines of the file that it stands in.

    Raises:
        BadSource: it is not found; the class has no method that stands in a file.
    """
    codes = [function.__code__ for function in _functions(target)]
    filename = codes[0].co_filename
    lines = linecache.getlines(filename)
    begins = {code.co_firstlineno for code in codes if code.co_filename == filename}
    for item in ast.walk(parsed("".join(lines))):
        if isinstance(item, ast.ClassDef) and item.name == target.__name__:
            held = [n for n in _directly(item.body) if isinstance(n, (*_FUNCTION, ast.Lambda))]
            marked = [d for n in held for d in getattr(n, "decorator_list", ())]
            if begins & {n.lineno for n in [*held, *marked]}:
                return item, lines
    raise BadSource(
        f"the class statement of {target.__qualname__!r} was not found in {filename}; was the "
        "file changed since it was loaded?"
    )


def _directly(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """What stands in a body, without what stands in its functions and classes."""
    todo = [*body]
    while todo:
        item = todo.pop()
        yield item
        if not isinstance(item, (*_FUNCTION, ast.Lambda, ast.ClassDef)):
            todo += ast.iter_child_nodes(item)


def _evaluated(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """What is evaluated when a body runs: of a function its decorators, defaults and annotations."""
    for item in body:
        if isinstance(item, _FUNCTION):
            yield from filter(None, [*item.decorator_list, item.args, item.returns])
        else:
            yield item


@final
class ModuleSource(Text):
    """The text of a module, with the public functions and classes that it must keep.

    Raises:
        BadSource: the text does not parse, or lacks one of them.

    >>> source = ModuleSource("def f(x): return x\\nRATE = 2\\n", entry="rates")
    >>> source.replaced("def f(y): return y\\n")
    Traceback (most recent call last):
    tracegraph.marking.BadSource: 'f' must stay `def f(x)`, it became `def f(y)`; ...
       1 | def f(y): return y  <--- must be def f(x):
    """

    __slots__ = ("code", "members")

    def __init__(self, text: str, *, entry: str, members: dict[str, Member] | None = None) -> None:
        super().__init__(text, entry=entry)
        found = members_of(self.tree.body)
        _check(members or {}, found, text, 1)
        self.members = found if members is None else members
        self.code = self.compiled_module()

    @classmethod
    def of(cls, module: types.ModuleType) -> ModuleSource:
        """The source of `module`.

        Raises:
            BadSource: it cannot be had, or defines no public function.
        """
        try:
            text = inspect.getsource(module)
        except (OSError, TypeError) as error:
            raise BadSource(
                f"the source of the module {module.__name__!r} cannot be had; it is no .py file"
            ) from error
        made = cls(text, entry=module.__name__)
        if not made.functions():
            raise BadSource(f"the module {module.__name__!r} defines no public function to call")
        return made

    def functions(self) -> list[str]:
        """The names of the public functions."""
        return [n for n, m in self.members.items() if n.isidentifier() and "def " in m.signature]

    def replaced(self, text: str) -> ModuleSource:
        """Another text for the same module; raises BadSource for one that does not fit."""
        return ModuleSource(text, entry=self.entry, members=self.members)

    def describe(self) -> str:
        """What every text must keep, in words."""
        return f"a module with {', '.join(f'`{m.signature}`' for m in self.members.values())}"

    def compile(self, original: types.ModuleType) -> types.ModuleType:
        """The module that the text defines, in the place of `original`."""
        made = types.ModuleType(original.__name__)
        for name in ("__file__", "__package__", "__spec__", "__loader__", "__path__"):
            if name in vars(original):
                setattr(made, name, vars(original)[name])
        exec(self.code, vars(made))
        return made
