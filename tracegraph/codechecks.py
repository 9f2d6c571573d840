"""What the text of code must be before it becomes a parameter's value.

Checks compose: give any number of them as ``constraint=``, or with property tests as ``checks=`` of
`bundle`. They keep code readable and to the point; they are no wall. What code may *do* is for
the sandbox alone.
"""

from __future__ import annotations

import ast
import atexit
import functools
import io
import linecache
import os
import re
import sys
import tokenize
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, final

from tracegraph.bounded import make_room
from tracegraph.errors import MissingExtra
from tracegraph.kinds import show
from tracegraph.marking import BadSource, marked
from tracegraph.parsing import tree_of
from tracegraph.spans import lines_of

__all__ = [
    "AllowedImports",
    "CodeCheck",
    "Fault",
    "MaxComplexity",
    "MaxSize",
    "PassesTests",
    "TypeChecks",
]

_MOST_REMEMBERED = 64
_SHOWN = 200
_MYPY = re.compile(r":(\d+): error: (.*)")
_MYPY_SECONDS = 120
_DECISIONS = (
    ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.Assert,
    ast.comprehension, ast.match_case,
)  # fmt: skip


class Fault(NamedTuple):
    """What is wrong with a text: the reason, and the line that it is about."""

    reason: str
    line: int | None = None


class CodeCheck(ABC):
    """A condition on the text of code; derive from it and say what is wrong with a text.

    >>> class NoLoops(CodeCheck):
    ...     def describe(self):
    ...         return "has no while loop"
    ...     def fault(self, tree, text):
    ...         loops = [n for n in ast.walk(tree) if isinstance(n, ast.While)]
    ...         return Fault("a while loop may not end", loops[0].lineno) if loops else None
    >>> NoLoops()("def f():\\n    while True:\\n        pass")
    Traceback (most recent call last):
    tracegraph.marking.BadSource: a while loop may not end
       1 | def f():
       2 |     while True:  <--- a while loop may not end
       3 |         pass
    """

    @abstractmethod
    def fault(self, tree: ast.Module, text: str) -> Fault | None:
        """The first thing that is wrong with the code, or ``None``."""

    @abstractmethod
    def describe(self) -> str:
        """The condition in words, for a person and a model: "imports only math"."""

    def __call__(self, text: str) -> bool:
        """True for a text that meets the condition.

        Raises:
            BadSource: it does not; with the line marked.
        """
        try:
            tree = tree_of(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", None)
            raise BadSource(f"the code does not parse: {error}", text=text, line=line) from error
        found = self.fault(tree, text)
        if found is not None:
            raise BadSource(found.reason, text=text, line=found.line)
        return True


@final
class AllowedImports(CodeCheck):
    """Code may import these modules and what is below them, and no others; given none, nothing.

    >>> AllowedImports("math")("import math\\nx = math.pi")
    True
    """

    def __init__(self, *modules: str) -> None:
        for name in modules:
            if not (isinstance(name, str) and all(part.isidentifier() for part in name.split("."))):
                raise TypeError(f"AllowedImports takes names of modules, got {name!r}")
        self._modules = modules

    def describe(self) -> str:
        """The condition in words."""
        return f"imports only {', '.join(self._modules)}" if self._modules else "imports nothing"

    def fault(self, tree: ast.Module, text: str) -> Fault | None:
        """The first thing that is wrong with the code, or ``None``."""
        for node in ast.walk(tree):
            for module, name in _imported(node):
                if not self._allows(module) and not (name and self._allows(f"{module}.{name}")):
                    line = getattr(node, "lineno", None)
                    return Fault(f"may not import {module!r}: the code {self.describe()}", line)
        return None

    def _allows(self, name: str) -> bool:
        return any(name == m or name.startswith(f"{m}.") for m in self._modules)


_LOADING = frozenset({"__builtins__", "__import__", "__loader__", "__spec__"})
"""Names by which modules can be had without a statement that says so."""


def _imported(node: ast.AST) -> list[tuple[str, str]]:
    """The modules that one node of a tree imports, with what is taken from each.

    ``from . import x`` takes x from the module ``.``.
    """
    if isinstance(node, ast.Import):
        return [(alias.name, "") for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        module = f"{'.' * node.level}{node.module or ''}"
        return [(module, alias.name) for alias in node.names]
    name = getattr(node, "id", getattr(node, "attr", None))
    return [(name, "")] if name in _LOADING else []


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MaxSize(CodeCheck):
    """Code has at most so many lines, characters, and nodes of its syntax tree.

    >>> MaxSize(lines=2)("def f(x):\\n    return x\\n")
    True
    """

    lines: int | None = None
    characters: int | None = None
    nodes: int | None = None

    def __post_init__(self) -> None:
        for name in ("lines", "characters", "nodes"):
            _check_limit(f"MaxSize({name}=", getattr(self, name))

    def describe(self) -> str:
        """The condition in words."""
        said = [
            f"{getattr(self, name):,} {word}"
            for name, word in (
                ("lines", "lines"), ("characters", "characters"), ("nodes", "nodes of syntax"),
            )
            if getattr(self, name) is not None
        ]  # fmt: skip
        return f"has at most {', '.join(said)}"

    def fault(self, tree: ast.Module, text: str) -> Fault | None:
        """The first thing that is wrong with the code, or ``None``."""
        lines = len(lines_of(text))
        if self.lines is not None and lines > self.lines:
            return Fault(f"has {lines:,} lines, more than {self.lines:,}", self.lines + 1)
        if self.characters is not None and len(text) > self.characters:
            line = text.count("\n", 0, self.characters) + 1
            return Fault(f"has {len(text):,} characters, more than {self.characters:,}", line)
        count = sum(1 for _ in ast.walk(tree))
        if self.nodes is not None and count > self.nodes:
            return Fault(f"has {count:,} nodes of syntax, more than {self.nodes:,}; simplify it")
        return None


@final
@dataclass(frozen=True, slots=True)
class MaxComplexity(CodeCheck):
    """Each function has at most `paths` independent ways through it.

    The cyclomatic number of T. J. McCabe, "A complexity measure", IEEE Transactions on Software
    Engineering 2 (1976): one more than the decisions, where every ``and``, ``or``, loop, handler
    and case is one. A function inside another counts for itself.

    >>> MaxComplexity(2)("def f(x):\\n    return 1 if x else 2")
    True
    """

    paths: int

    def __post_init__(self) -> None:
        _check_limit("MaxComplexity(paths=", self.paths)

    def describe(self) -> str:
        """The condition in words."""
        return f"each function has a cyclomatic complexity of at most {self.paths}"

    def fault(self, tree: ast.Module, text: str) -> Fault | None:
        """The first thing that is wrong with the code, or ``None``."""
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found = _paths(node)
                if found > self.paths:
                    reason = (
                        f"{node.name!r} has a cyclomatic complexity of {found}, more than "
                        f"{self.paths}; split it or simplify it"
                    )
                    return Fault(reason, node.lineno)
        return None


def _paths(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    count = 1
    todo: list[ast.AST] = list(function.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        count += isinstance(node, _DECISIONS)
        if isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            count += len(node.ifs)
        todo += ast.iter_child_nodes(node)
    return count


def _check_limit(name: str, limit: object) -> None:
    if limit is not None and (type(limit) is not int or limit < 1):
        raise TypeError(f"{name}{limit!r}): a limit is a whole number from 1")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TypeChecks(CodeCheck):
    """The types in the code fit together, as mypy sees it; needs ``tracegraph[code]``.

    Names of the module around the code, which the text does not define, count as of any type. A check
    takes a second or two. Only the text is read; nothing of it runs. A text that tells mypy to look away
    (``# type: ignore``, ``# mypy: ...``, ``no_type_check``) is refused.

    Args:
        strict: ask for annotations everywhere, too.

    >>> TypeChecks().describe()
    'its types fit together (mypy)'
    """

    strict: bool = False

    def describe(self) -> str:
        """The condition in words."""
        return f"its types fit together (mypy{' --strict' if self.strict else ''})"

    def fault(self, tree: ast.Module, text: str) -> Fault | None:
        """The first thing that is wrong with the code, or ``None``.

        Raises:
            MissingExtra: mypy is not installed.
        """
        silenced = _silenced(tree, text)
        if silenced is not None:
            return silenced
        if find_spec("mypy") is None:
            raise MissingExtra("TypeChecks needs mypy: pip install 'tracegraph[code]'")
        import subprocess  # inside: importing these takes 15 ms, and mypy takes seconds
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "code.py")
            file.write_text(text, encoding="utf-8")
            command = [
                sys.executable, "-m", "mypy", "--config-file", os.devnull, "--no-error-summary",
                "--no-color-output", "--hide-error-context", "--follow-imports", "silent",
                "--ignore-missing-imports", "--disable-error-code", "name-defined",
                "--cache-dir", _cache(),
                *(["--strict"] if self.strict else []), str(file),
            ]  # fmt: skip
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=_MYPY_SECONDS
            )
        for line in done.stdout.splitlines():
            found = _MYPY.search(line)
            if found:
                return Fault(f"the types do not fit: {found[2]}", int(found[1]))
        return None


_SILENCING = re.compile(r"#\s*(type:\s*ignore|mypy:)")


def _silenced(tree: ast.Module, text: str) -> Fault | None:
    """Where a text tells mypy not to look, for then its silence means nothing."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError) as error:
        return Fault(f"its comments cannot be read: {error.args[0]}")
    for token in tokens:
        if token.type == tokenize.COMMENT and _SILENCING.search(token.string):
            reason = "may not tell mypy what to ignore: make the types fit"
            return Fault(reason, token.start[0])
    for node in ast.walk(tree):
        if "no_type_check" in (getattr(node, field, "") for field in ("id", "attr", "name")):
            return Fault(
                "may not use no_type_check: make the types fit", getattr(node, "lineno", 1)
            )
    return None


@functools.cache
def _cache() -> str:
    """The folder of what mypy remembers between the checks of this process."""
    import tempfile

    made = tempfile.TemporaryDirectory()
    atexit.register(made.cleanup)
    return made.name


@final
class PassesTests:
    """Property tests that the function of a text must pass before the text is taken.

    A test is a function that is given the function, the class or the module, and calls it. It says
    no by returning False or by raising, as a test with ``assert`` does. The tests run here; only the
    code under test runs where `made` puts it, so that what is expected never reaches that code.

    Args:
        tests: the tests; all must pass.
        made: makes the function, the class or the module of a text.
        first: a text that needs no test: it may be what is to be repaired.
    """

    def __init__(
        self,
        tests: Sequence[Callable[[Callable[..., Any]], Any]],
        made: Callable[[str], Callable[..., Any]],
        first: str,
    ) -> None:
        self._tests = tuple(tests)
        self._made = made
        self._first = first
        self._known: dict[str, str] = {}

    def describe(self) -> str:
        """The tests by what their documentation says, or by name."""
        return f"passes the tests: {', '.join(_title(test) for test in self._tests)}"

    def __call__(self, text: str) -> bool:
        """True for a text whose function passes; each text is tested once.

        Raises:
            BadSource: a test failed; with the call that it failed on.
        """
        if text == self._first:
            return True
        verdict = self._known.get(text)
        if verdict is None:
            verdict = self._verdict(text)
            make_room(self._known, _MOST_REMEMBERED)
            self._known[text] = verdict
        if verdict:
            raise BadSource(verdict)
        return True

    def _verdict(self, text: str) -> str:
        """Why the text is refused, or nothing."""
        calls = _Calls()
        subject = calls.watched(self._made(text))
        for test in self._tests:
            try:
                passed = test(subject)
            except Exception as error:
                return calls.told(_title(test), error, test, text)
            if passed is not None and not passed:
                return calls.told(_title(test), None, test, text)
        return ""


class _Calls:
    """What a test called last, so that its failure can tell it."""

    def __init__(self) -> None:
        self._last: str | None = None
        self._raised: BaseException | None = None

    def watched(self, subject: Any) -> Any:
        """A function that remembers its last call; all functions of a module; a class as it is."""
        if isinstance(subject, type):
            return subject
        if callable(subject):
            self._last = "it was not called"
            return self._function(subject, "f")
        named = {
            name: self._function(member, name) if isinstance(member, types.FunctionType) else member
            for name, member in vars(subject).items()
        }
        return types.SimpleNamespace(**named)

    def _function(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            given = [show(arg, _SHOWN) for arg in args] + [
                f"{k}={show(v, _SHOWN)}" for k, v in kwargs.items()
            ]
            self._last = f"the last call was {name}({', '.join(given)})"
            try:
                result = function(*args, **kwargs)
            except Exception as error:
                self._raised = error
                raise
            self._last += f" = {show(result, _SHOWN)}"
            return result

        return run

    def told(self, title: str, error: Exception | None, test: Any, text: str) -> str:
        """Why a test failed, for a model and a person alike."""
        last = f"; {self._last}" if self._last else ""
        if error is None:
            return f"the test {title!r} said no{last}"
        said = f"({type(error).__name__}) {error}"[:2_000].strip()
        lines = error.__dict__.get("marked") or _marked(error, text)
        if error is self._raised:
            why = f"{self._last}, which raised {said}"
        else:
            why = f"{said}{_failing_line(error.__traceback__, test)}{last}"
        return f"the test {title!r} failed: {why}\n{lines}".strip()


def _marked(error: Exception, text: str) -> str:
    """The innermost line of the text that an error of code in place went through, marked."""
    line = None
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename.startswith("<code of "):
            line = step.tb_lineno
        step = step.tb_next
    return "" if line is None else marked(text, line, f"({type(error).__name__}) {error}")


def _failing_line(step: TracebackType | None, test: Any) -> str:
    """The line of the test that failed: ``assert`` without words says nothing itself."""
    found = ""
    while step is not None:
        code = step.tb_frame.f_code
        if code is getattr(test, "__code__", None):
            found = linecache.getline(code.co_filename, step.tb_lineno).strip()
        step = step.tb_next
    return f" at `{found[:_SHOWN]}`" if found else ""


def _title(test: Any) -> str:
    doc = (getattr(test, "__doc__", None) or "").strip().splitlines()
    return doc[0] if doc else str(getattr(test, "__name__", type(test).__name__))
