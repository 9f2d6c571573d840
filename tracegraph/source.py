"""Code as data: the text of one function, taken and replaced by its syntax tree.

A `Source` is a text that defines exactly one entry with one signature, and whatever helpers and
imports it needs. It compiles into a function that keeps the original's closures, ``super()`` and
module globals, and whose tracebacks show its own lines.
"""

from __future__ import annotations
import __future__

import ast
import inspect
import linecache
import textwrap
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, TypeVar

from tracegraph.marking import BadSource
from tracegraph.parsing import tree_of
from tracegraph.spans import lines_of
from tracegraph.standing import decorating, locals_named, refusal

__all__ = [
    "Source",
    "Text",
    "class_of",
    "dedented",
    "definition_of",
    "future_flags",
    "inner_code",
    "is_filled",
    "kept_decorators",
    "outside_function",
    "parsed",
    "private",
    "private_names",
    "signature_of",
    "unlike",
    "yields",
]

_Definition = ast.FunctionDef | ast.AsyncFunctionDef
_Defined = TypeVar("_Defined", bound=ast.stmt)


class Text:
    """A text of code: parsed once, compiled once, its lines known to tracebacks while it lives.

    Attributes:
        text: the code itself.
        entry: the name of what it defines.
        tree: its syntax tree.
        filename: what tracebacks call it.
    """

    __slots__ = ("__weakref__", "entry", "filename", "flags", "text", "tree")

    def __init__(self, text: str, *, entry: str, flags: int = 0) -> None:
        self.text = text
        self.entry = entry
        self.flags = flags
        self.tree = parsed(text)
        self.filename = f"<code of {entry} {id(self):x}>"
        lines = lines_of(text)
        linecache.cache[self.filename] = (len(text), None, lines, self.filename)
        weakref.finalize(self, linecache.cache.pop, self.filename, None)

    def compiled(self, tree: ast.Module, given: tuple[str, ...]) -> types.CodeType:
        """`tree` inside a function ``_make``, which gives the entry, and sees the names `given`."""
        misplaced = outside_function(tree)
        if misplaced is not None:
            error = SyntaxError(f"{misplaced[0]!r} outside function")
            error.lineno = misplaced[1]
            raise _unparsable(self.text, error)
        for item in tree.body:
            if isinstance(item, ast.ImportFrom) and item.module == "__future__":
                raise BadSource(
                    "leave out the import from __future__: the code becomes a part of its module, whose "
                    "first lines decide that",
                    text=self.text,
                    line=item.lineno,
                    mark="leave this out",
                )
        template = tree_of(
            f"def _outer({', '.join(given)}):\n def _make():\n  return {self.entry}\n return _make"
        )
        make: Any = template.body[0].body[0]  # type: ignore[attr-defined]
        make.body = [*tree.body, *make.body]
        return self._code(template)

    def compiled_module(self) -> types.CodeType:
        """The text as the body of a module."""
        return self._code(self.tree)

    def _code(self, tree: ast.Module) -> types.CodeType:
        try:
            code: types.CodeType = compile(
                tree, self.filename, "exec", flags=self.flags, dont_inherit=True
            )
            return code
        except SyntaxError as error:
            raise _unparsable(self.text, error) from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise BadSource(f"the code does not compile: {error}") from error


class Source(Text):
    """The text of a function, with the name and the signature that it must keep.

    Raises:
        BadSource: the text does not parse, or does not define exactly `entry` with `signature`.

    >>> source = Source("def twice(x):\\n    return 2 * x", entry="twice")
    >>> source.replaced("def twice(x):\\n    return x + x").text
    'def twice(x):\\n    return x + x'
    >>> source.replaced("def double(x):\\n    return x + x")
    Traceback (most recent call last):
    tracegraph.marking.BadSource: the code must define 'twice', it defines 'double'
       1 | def double(x):  <--- no 'twice' here or below
       2 |     return x + x
    """

    __slots__ = ("_module", "free", "given", "owner", "signature", "yields")

    def __init__(
        self,
        text: str,
        *,
        entry: str,
        signature: str | None = None,
        yielding: bool | None = None,
        free: tuple[str, ...] = (),
        flags: int = 0,
        owner: str = "",
        given: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(text, entry=entry, flags=flags)
        definition = _definition(self.tree, entry, text)
        self.signature = signature_of(definition) if signature is None else signature
        if signature_of(definition) != self.signature:
            raise BadSource(
                f"the signature of {entry!r} must stay {self.signature}, it became "
                f"{signature_of(definition)}; other code calls it as it was",
                text=text,
                line=definition.lineno,
                mark=f"must be {self.signature}:",
            )
        self.yields = yields(definition) if yielding is None else yielding
        if yields(definition) != self.yields:
            reason = unlike(self.yields)
            raise BadSource(
                f"{entry!r} {reason}", text=text, line=definition.lineno, mark=reason.split(":")[0]
            )
        self.free = free
        self.owner = owner
        self.given = given
        self._module = self._compiled()

    @classmethod
    def of(cls, function: Callable[..., Any], is_marker: Callable[[Any], bool]) -> Source:
        """The source of `function`, without the decorators down to the one `is_marker` knows.

        Raises:
            BadSource: the source cannot be had, or is not that of a ``def``.
        """
        raw = inspect.unwrap(function)
        refused = refusal(raw)
        if refused:
            raise BadSource(refused)
        name = getattr(raw, "__name__", repr(raw))
        if name == "<lambda>":
            raise BadSource("a lambda cannot be trainable: give it a name with def")
        try:
            text = inspect.getsource(raw)
        except (OSError, TypeError) as error:
            raise BadSource(
                f"the source of {name!r} cannot be had (it was typed into a plain interpreter, made "
                "by exec, or is no Python function), and a trainable function needs it; put the "
                "function into a file, or record it without trainable=True"
            ) from error
        text = dedented(text)
        definition = _definition(parsed(text), name)
        code: types.CodeType = raw.__code__
        shift = code.co_firstlineno - 1
        frame = decorating(definition, code.co_filename, shift)
        running = 0 if frame is None else frame.f_lineno - shift
        kept = kept_decorators(definition, raw, is_marker, running)
        start = kept[0].lineno if kept else definition.lineno
        return cls(
            "\n".join(lines_of(text, ends=False)[start - 1 :]).rstrip() + "\n",
            entry=name,
            free=code.co_freevars,
            flags=future_flags(raw),
            owner=class_of(raw),
            given=locals_named(frame, kept),
        )

    def replaced(self, text: str) -> Source:
        """Another text for the same entry.

        Raises:
            BadSource: it does not parse, or does not define exactly this entry and signature.
        """
        made = Source(
            text,
            entry=self.entry,
            signature=self.signature,
            yielding=self.yields,
            free=self.free,
            flags=self.flags,
            owner=self.owner,
            given=self.given,
        )
        line = _bundled(made.tree, self.entry)
        if line is not None and _bundled(self.tree, self.entry) is None:
            raise BadSource(
                "leave out @bundle: the code stands below the one that the program has",
                text=text,
                line=line,
                mark="leave this out",
            )
        return made

    @property
    def header(self) -> str:
        """The line that every text of this entry has: ``def name(arguments):``."""
        return f"{self.signature}:"

    def compile(self, original: Callable[..., Any], kind: type | None = None) -> Callable[..., Any]:
        """The function that the text defines, in the place of `original`, a method of a class `kind`.

        It sees the cells of `original`'s closure themselves, so ``nonlocal``, ``super()`` and later
        changes work, and the globals of its module.
        """
        raw: Any = inspect.unwrap(original)
        cells = {name: types.CellType(value) for name, value in self.given.items()}
        cells |= {} if kind is None else {"__class__": types.CellType(kind)}
        cells |= dict(zip(raw.__code__.co_freevars, raw.__closure__ or (), strict=True))
        cells[_DEFAULTS] = types.CellType(raw.__defaults__ or ())
        cells[_KEYWORDS] = types.CellType(raw.__kwdefaults__ or {})
        made = inner_code(inner_code(self._module, "_outer"), "_make")
        function = types.FunctionType(
            made,
            raw.__globals__,
            closure=tuple(cells.get(name) or types.CellType() for name in made.co_freevars),
        )()
        if isinstance(function, (staticmethod, classmethod)):  # `original` stands inside such a one
            function = function.__func__
        if not callable(function):
            raise TypeError(
                f"{self.entry!r} is a value of type {type(function).__name__}, which cannot be called"
            )
        if isinstance(function, types.FunctionType):
            function.__annotations__ = dict(raw.__annotations__)
        with suppress(AttributeError, TypeError):  # a decorator may have given what is not its own
            function.__qualname__ = getattr(original, "__qualname__", self.entry)
            function.__module__ = getattr(original, "__module__", None)
        return function  # type: ignore[no-any-return]

    def _compiled(self) -> types.CodeType:
        """The text inside a function that has the closure's names as arguments.

        The defaults and annotations keep the values that they had at decoration: their names may
        be gone.
        """
        tree = parsed(self.text)  # a copy would take longer, and recurse
        entry = _definition(tree, self.entry)
        arguments = entry.args
        arguments.defaults = [_taken(_DEFAULTS, n, d) for n, d in enumerate(arguments.defaults)]
        arguments.kw_defaults = [
            d and _taken(_KEYWORDS, a.arg, d)
            for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        ]
        entry.returns = None
        for argument in ast.walk(arguments):
            if isinstance(argument, ast.arg):
                argument.annotation = None
        if self.owner:
            private_names(entry, self.owner)
        lacks = self.owner and "__class__" not in self.free  # the first text did not ask super()
        around = {*self.free, *self.given} | ({"__class__"} if lacks else set())
        return self.compiled(tree, (*sorted(around), _DEFAULTS, _KEYWORDS))


def _bundled(tree: ast.Module, entry: str) -> int | None:
    """The line where a decorator of the name ``bundle`` stands above the entry, or None."""
    for decorator in _definition(tree, entry).decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if ast.unparse(called).rpartition(".")[2] == "bundle":
            return decorator.lineno
    return None


def future_flags(function: types.FunctionType) -> int:
    """The flags under which the file of `function` was compiled, as far as they matter later."""
    return function.__code__.co_flags & __future__.annotations.compiler_flag


def class_of(function: Any) -> str:
    """The name of the class in whose body `function` was defined, or nothing."""
    name: str = function.__qualname__.rpartition(".")[0].rpartition(".")[2]
    return "" if name == "<locals>" else name


def private(name: str, owner: str) -> str:
    """`name` as Python has it inside the body of a class `owner`.

    >>> private("__x", "_Till"), private("__x__", "Till"), private("__x", "")
    ('_Till__x', '__x__', '__x')
    """
    bare = owner.lstrip("_")
    is_private = name.startswith("__") and not name.endswith("__") and "." not in name
    return f"_{bare}{name}" if bare and is_private else name


def private_names(definition: ast.AST, owner: str) -> None:
    """Write private names (``self.__x``) as Python does inside the body of a class `owner`."""
    todo = [definition]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Attribute):
            node.attr = private(node.attr, owner)
        elif isinstance(node, ast.Name):
            node.id = private(node.id, owner)
        if not isinstance(node, ast.ClassDef):
            todo += ast.iter_child_nodes(node)


_DEFAULTS = "_defaults_at_decoration"
_KEYWORDS = "_keyword_defaults_at_decoration"


def _taken(store: str, key: int | str, default: ast.expr) -> ast.expr:
    """Read a default from where `Source.compile` puts the original's."""
    read = ast.Subscript(ast.Name(store, ast.Load()), ast.Constant(key), ast.Load())
    return ast.fix_missing_locations(ast.copy_location(read, default))


def outside_function(tree: ast.Module) -> tuple[str, int] | None:
    """The first ``return``, ``yield`` or ``await`` that stands in no function, and its line."""
    words = {ast.Return: "return", ast.Yield: "yield", ast.YieldFrom: "yield", ast.Await: "await"}
    todo: deque[ast.AST] = deque(tree.body)
    while todo:
        item = todo.popleft()
        word = words.get(type(item))
        if word is not None:
            return word, item.lineno  # type: ignore[attr-defined]
        if not isinstance(item, (*_Definition.__args__, ast.Lambda, ast.ClassDef)):
            todo += ast.iter_child_nodes(item)
    return None


def inner_code(code: types.CodeType, name: str) -> types.CodeType:
    """The code of the function `name` that stands directly in `code`."""
    return next(c for c in code.co_consts if isinstance(c, types.CodeType) and c.co_name == name)


def parsed(text: str) -> ast.Module:
    """The syntax tree of a text; raises BadSource where it has none."""
    try:
        return tree_of(text)
    except SyntaxError as error:
        raise _unparsable(text, error) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise BadSource(f"the code does not parse: {error}") from error


def _unparsable(text: str, error: SyntaxError) -> BadSource:
    reason = f"the code does not parse: {error.msg}"
    return BadSource(reason, text=text, line=max(error.lineno or 1, 1), mark=error.msg)


def definition_of(tree: ast.Module, entry: str, *kinds: type[_Defined], text: str = "") -> _Defined:
    """The one definition of `entry`, of one of these kinds, at the top of a text.

    Raises:
        BadSource: there is none, or there are several.
    """
    found = [n for n in tree.body if isinstance(n, kinds) and getattr(n, "name", "") == entry]
    others = [n for n in tree.body if isinstance(n, (_Definition, ast.ClassDef))]
    if not found:
        word = "class" if ast.ClassDef in kinds else "def"
        told = ", ".join(repr(n.name) for n in others) or "nothing"
        if _bound(tree.body, entry):
            told = f"another thing of that name: write it with `{word}`"
        raise BadSource(
            f"the code must define {entry!r}, it defines {told}",
            text=text,
            line=others[0].lineno if others else 1,
            mark=f"no {entry!r} here or below",
        )
    again = [line for line in _bound(tree.body, entry) if line != found[0].lineno]
    if again:
        raise BadSource(
            f"the code gives the name {entry!r} {len(again) + 1} times; define it once",
            text=text,
            line=again[-1],
            mark=f"{entry!r} again",
        )
    return found[0]


def _bound(body: Iterable[ast.AST], name: str) -> list[int]:
    """The lines where statements of a module bind or delete `name`, without inner scopes."""
    lines = []
    todo = list(body)
    while todo:
        item = todo.pop()
        names = [getattr(item, "name", None)]
        if isinstance(item, ast.Name) and not isinstance(item.ctx, ast.Load):
            names.append(item.id)
        elif isinstance(item, ast.alias):
            names = [item.asname or item.name.partition(".")[0]]
        if name in names:
            lines.append(item.lineno)  # type: ignore[attr-defined]
        if not isinstance(item, (*_Definition.__args__, ast.ClassDef, ast.Lambda)):
            todo += ast.iter_child_nodes(item)
    return sorted(lines)


def _definition(tree: ast.Module, entry: str, text: str = "") -> _Definition:
    found: Any = definition_of(tree, entry, ast.FunctionDef, ast.AsyncFunctionDef, text=text)
    return found  # type: ignore[no-any-return]


def signature_of(definition: _Definition) -> str:
    """Names, kinds and which have defaults: what a caller relies on."""
    source = definition.args

    def bare(arg: ast.arg) -> ast.arg:
        return ast.arg(arg=arg.arg)

    args = ast.arguments(
        posonlyargs=[bare(a) for a in source.posonlyargs],
        args=[bare(a) for a in source.args],
        vararg=bare(source.vararg) if source.vararg else None,
        kwonlyargs=[bare(a) for a in source.kwonlyargs],
        kw_defaults=source.kw_defaults,
        kwarg=bare(source.kwarg) if source.kwarg else None,
        defaults=source.defaults,
    )
    word = "async def" if isinstance(definition, ast.AsyncFunctionDef) else "def"
    return f"{word} {definition.name}({ast.unparse(args)})"


def yields(definition: _Definition) -> bool:
    """Whether a function gives its items one by one: a ``yield`` stands in it, and in no inner one."""
    todo: list[ast.AST] = list(definition.body)
    while todo:
        item = todo.pop()
        if isinstance(item, (ast.Yield, ast.YieldFrom)):
            return True
        if not isinstance(item, (*_Definition.__args__, ast.Lambda)):
            todo += ast.iter_child_nodes(item)
    return False


def unlike(yielding: bool) -> str:
    """Why a text may not begin or cease to yield."""
    return (
        "must yield its items: other code goes through them"
        if yielding
        else "must return, not yield: other code uses what it returns"
    )


def dedented(text: str) -> str:
    """Take the common indent away, but not inside texts that run over lines."""
    first = lines_of(text)[0]
    indent = len(first) - len(first.lstrip())
    if not indent:
        return text
    try:
        tree = tree_of("if True:\n" + text)
    except SyntaxError:
        return textwrap.dedent(text)
    inside: set[int] = set()
    documentation = {
        id(item.body[0].value)
        for item in ast.walk(tree)
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and isinstance(item.body[0], ast.Expr)
    }
    for item in ast.walk(tree):
        if (
            isinstance(item, (ast.Constant, ast.JoinedStr))
            and item.end_lineno is not None
            and id(item) not in documentation
        ):
            inside.update(range(item.lineno - 1, item.end_lineno - 1))
    lines = lines_of(text)
    return "".join(
        line if number in inside or line[:indent].strip() else line[indent:] or "\n"
        for number, line in enumerate(lines)
    )


def kept_decorators(
    definition: _Definition | ast.ClassDef,
    function: Any,
    is_marker: Callable[[Any], bool],
    running: int = 0,
) -> list[ast.expr]:
    """The decorators below the one that made the function trainable; all, if none is found.

    That is the one that is being called in the line `running`, whatever its name is, or else the last
    that `is_marker` knows.
    """
    marker = -1
    for index, decorator in enumerate(definition.decorator_list):
        if decorator.lineno <= running or is_marker(_resolved(decorator, function)):
            marker = index
    return definition.decorator_list[marker + 1 :]


def _resolved(expression: ast.expr, function: Any) -> Any:
    """What a decorator's name means where the function was defined; None if it cannot be told."""
    if isinstance(expression, ast.Call):
        return _resolved(expression.func, function)
    if isinstance(expression, ast.Attribute):
        return getattr(_resolved(expression.value, function), expression.attr, None)
    if isinstance(expression, ast.Name):
        names = function.__globals__
        frame_names = {
            name: cell.cell_contents
            for name, cell in zip(
                function.__code__.co_freevars, function.__closure__ or (), strict=True
            )
            if is_filled(cell)
        }
        return frame_names.get(expression.id, names.get(expression.id))
    return None


def is_filled(cell: types.CellType) -> bool:
    """Whether a closure's variable has a value by now."""
    try:
        cell.cell_contents  # noqa: B018 - reading is the only way to ask
    except ValueError:
        return False
    return True
