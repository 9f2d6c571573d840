"""Variations of code by its syntax tree: of a function, or inside a whole class or module.

Edits change constants, operators, comparisons and conditions, move, copy, guard and delete
statements, and put expressions in the place of others. New expressions come from the function's own
ingredients and from those that a person gives, as in W. Weimer et al., "Automatically Finding Patches
Using Genetic Programming" (ICSE 2009), which draws repairs from the program under repair, and are
chosen by sort: a condition for a condition, a number for a number. Names, parameters, defaults,
decorators and annotations of the functions stay; comments are lost.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import types
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from random import Random
from typing import Final

from optimizers.search.body import Body, Function, Scope, blocks, scopes, statements
from optimizers.search.edits import EDITS, OF_VALUES
from optimizers.search.small import small_edit
from tracegraph.parsing import expression_of, tree_of
from tracegraph.spans import lines_of

__all__ = ["crossed_code", "joined_code", "varied_code"]

_KEEPS: Final = 0x20 | 0x80 | 0x200  # CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR
_TRIES: Final = 20
_SMALL: Final = 0.5
"""How often a variation of blamed code, which is nearly right, is one of the smallest edits alone."""


def varied_code(
    text: str,
    random: Random,
    expressions: Sequence[str] = (),
    *,
    suspects: Mapping[int, float] | None = None,
    limit: int = 400,
) -> str:
    """Another text of the same functions and classes, which compiles; `text` itself where none was found.

    Args:
        text: Python that defines functions or classes.
        random: the source of chance.
        expressions: Python expressions that may be used besides the ingredients of `text`.
        suspects: how suspicious lines of `text` are; nine edits in ten begin at one of them, drawn in
            proportion, and every second variation is one of the smallest edits (`small`). Without, edits
            begin anywhere and are of every size.
        limit: the most nodes that the syntax tree may grow to.

    Raises:
        ValueError: one of the `expressions` is none.

    >>> print(varied_code("def f(x):\\n    return x + 1", Random(2)))
    def f(x):
        return x // 1
    """
    given = [_expression(piece) for piece in expressions]
    before, size = _read(text)
    room = max(limit, size)
    for _ in range(_TRIES):
        tree = tree_of(text)
        small = bool(suspects) and random.random() < _SMALL
        edits = 1 if small else 1 + (random.random() < 0.3) + (random.random() < 0.1)
        for _ in range(edits):
            _edit(tree, random, given, _drawn(suspects, random), small)
        _drop_dead_statements(tree)
        ast.fix_missing_locations(tree)
        varied = ast.unparse(tree)
        if _size(tree) <= room and varied != before and _sound(varied, text):
            return varied
    return text


def crossed_code(mother: str, father: str, random: Random) -> str | None:
    """A text with each difference of two texts taken from one of them; None where none was found.

    Two repairs of different lines come together so.

    >>> one, two = "def f(x):\\n    y = x + 1\\n    return y", "def f(x):\\n    y = x\\n    return -y"
    >>> print(crossed_code(one, two, Random(0)))
    def f(x):
        y = x + 1
        return -y
    """
    texts = [_read(text)[0] for text in (mother, father)]
    ours, theirs = (lines_of(text, ends=False) for text in texts)
    parts = difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes()
    for _ in range(_TRIES):
        child: list[str] = []
        for word, a, b, c, d in parts:
            if word == "replace" and b - a == d - c:
                child += map(random.choice, zip(ours[a:b], theirs[c:d], strict=True))
            else:
                child += ours[a:b] if word == "equal" or random.random() < 0.5 else theirs[c:d]
        text = "\n".join(child)
        if text not in texts and _sound(text, mother):
            return text
    return None


def joined_code(first: str, mother: str, father: str) -> str | None:
    """The changes of two texts to the `first` in one text; None where they touch each other.

    >>> first = "def f(x):\\n    y = x\\n    return y"
    >>> one, two = first.replace("= x", "= x + 1"), first.replace("return y", "return -y")
    >>> print(joined_code(first, one, two))
    def f(x):
        y = x + 1
        return -y
    """
    lines, *others = (lines_of(_read(text)[0], ends=False) for text in (first, mother, father))
    changes = sorted(
        (a, b, other[c:d])
        for other in others
        for word, a, b, c, d in difflib.SequenceMatcher(None, lines, other, False).get_opcodes()
        if word != "equal"
    )
    if any(begin < end or begin == start for (start, end, _), (begin, *_) in pairwise(changes)):
        return None
    for start, end, new in reversed(changes):
        lines[start:end] = new
    text = "\n".join(lines)
    return text if _sound(text, mother) else None


@lru_cache(64)
def _read(text: str) -> tuple[str, int]:
    """A text as the parser writes it, and how many nodes its tree has."""
    tree = tree_of(text)
    return ast.unparse(tree), _size(tree)


def _expression(piece: str) -> ast.expr:
    try:
        return expression_of(piece)
    except SyntaxError as error:
        raise ValueError(
            f"expressions= takes Python expressions to build code from, got {piece!r}: {error.msg}"
        ) from error


def _drawn(suspects: Mapping[int, float] | None, random: Random) -> int | None:
    """The line at which an edit begins; None for any."""
    weights = {line: share for line, share in (suspects or {}).items() if share > 0}
    if not weights or random.random() < 0.1:
        return None
    return random.choices(list(weights), list(weights.values()))[0]


def _edit(
    tree: ast.Module, random: Random, given: list[ast.expr], line: int | None, small: bool
) -> None:
    places = list(scopes(tree))
    if line is not None:
        around = [(scope, kin) for scope, kin in places if _holds(scope, line)]
        places = around[-1:] or places
    if not places:
        return
    scope, kin = places[0]
    if len(places) > 1:
        sizes = [sum(_size(item) for item in statements(scope)) for scope, _ in places]
        scope, kin = random.choices(places, sizes)[0]
    body = Body(scope, [*kin, *given], line)
    if small and isinstance(scope, Function) and small_edit(body, random):
        return
    edits = [edit for edit, weight in EDITS.items() for _ in range(weight)]
    if not isinstance(scope, Function):  # the order of what a class or a module sets has a reason
        edits = [edit for edit in edits if edit in OF_VALUES]
    random.shuffle(edits)
    for edit in edits:
        if edit(body, random):
            return


def _holds(scope: Scope, line: int) -> bool:
    places = [scope] if isinstance(scope, Function) else statements(scope)
    return any(item.lineno <= line <= (item.end_lineno or 0) for item in places)


def _drop_dead_statements(tree: ast.Module) -> None:
    """Take away what stands behind a statement that leaves its block."""
    for block in blocks(tree):
        for place, item in enumerate(block):
            if isinstance(item, ast.Return | ast.Raise | ast.Continue | ast.Break):
                del block[place + 1 :]
                break


def _size(tree: ast.AST) -> int:
    return sum(1 for _ in ast.walk(tree))


def _sound(text: str, before: str) -> bool:
    """Whether the text compiles, and its functions stay generators, coroutines, or neither."""
    try:
        return _flags(text) == _flags(before)
    except (SyntaxError, ValueError, RecursionError, OverflowError):
        return False


@lru_cache(64)
def _flags(text: str) -> dict[str, int]:
    module = compile(text, "<variation>", "exec", dont_inherit=True)
    return dict(_flags_in(module, ""))


def _flags_in(code: types.CodeType, owner: str) -> Iterator[tuple[str, int]]:
    """The kind of each function of a module or class body, and of the classes in it."""
    for found in code.co_consts:
        if isinstance(found, types.CodeType) and not found.co_name.startswith("<"):
            name = f"{owner}.{found.co_name}"
            yield name, found.co_flags & _KEEPS
            if not found.co_flags & inspect.CO_OPTIMIZED:  # the body of a class
                yield from _flags_in(found, name)
