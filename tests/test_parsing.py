"""Syntax is read, whatever else reads syntax meanwhile."""

from __future__ import annotations

import ast
import gc
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from optimizers.localisation import blamed_lines
from optimizers.search.code import crossed_code, varied_code
from optimizers.search.synthesis import synthesized
from tracegraph.companions import companions
from tracegraph.parsing import expression_of, tree_of
from tracegraph.prelude import is_plain, prelude
from tracegraph.source import Source, dedented

LONG = f"[{', '.join(f'({n} + 1)' for n in range(2_000))}]"
F = "def f(x):\n    y = x + 1\n    return y\n"
G = "def f(x):\n    y = x\n    return -y\n"


@pytest.fixture
def interrupted() -> Iterator[list[ast.Module]]:
    """The first run of the collector reads syntax itself, as a finalizer or another thread may."""
    read: list[ast.Module] = []

    def during(phase: str, _: dict[str, int]) -> None:
        if not read:
            read.append(ast.parse("y = 1"))

    gc.collect()
    gc.callbacks.append(during)
    yield read
    gc.callbacks.remove(during)


@pytest.mark.parametrize("read", [tree_of, expression_of])
def test_syntax_is_read_where_the_collector_reads_another(
    read: Callable[[str], ast.AST], interrupted: list[ast.Module]
) -> None:
    found = read(LONG)
    assert interrupted, "the collector did not run"
    assert ast.unparse(found) == ast.unparse(ast.parse(LONG))


class Pair:
    """An object with another method."""

    def one(self, by: int = 2) -> int:
        """Half."""
        return by

    def other(self) -> int:
        """Whole."""
        return self.one()


def none(_: object) -> None:
    """No method of these is a parameter."""


READERS: dict[str, Callable[[], Any]] = {
    "a function's text": lambda: Source(F, entry="f").replaced(G).text,
    "a text with an indent": lambda: dedented("    def f():\n        return 1\n"),
    "names around": lambda: prelude("def f():\n    return K", {"K": 3}),
    "a plain value": lambda: is_plain([1, "a"]),
    "methods that go along": lambda: companions(Pair, "def other(self): self.one()", "other", none),
    "blamed lines": lambda: blamed_lines(F, [([2], False), ([3], True)]),
    "a variation": lambda: varied_code(F, Random(0), ["x * x"]),
    "a cross": lambda: crossed_code(F, G, Random(0)),
    "a synthesis": lambda: synthesized(F, [({"x": 3}, 9), ({"x": 4}, 16)]),
}


@pytest.mark.parametrize("name", READERS)
def test_every_reader_of_code_reads_once_more(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, parse = READERS[name](), ast.parse
    failed: list[bool] = []
    for cached in (varied_code.__globals__["_read"], companions.__globals__["_bare"]):
        cached.cache_clear()

    def miscounting(*args: Any, **kwargs: Any) -> ast.AST:
        failed.append(not failed or not failed[-1])
        if failed[-1]:
            raise SystemError("AST constructor recursion depth mismatch (before=12, after=16)")
        return parse(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(ast, "parse", miscounting)
        found = READERS[name]()
    assert found == expected
    assert failed
