"""The smallest edits of code: what a mutation test would try, each as likely as the others.

A mistake is mostly small (the competent programmer hypothesis: R. DeMillo, R. Lipton and F. Sayward,
"Hints on test data selection", Computer 11, 1978). Of all small edits that may begin somewhere one is
drawn, so that few candidates come close to trying all. The operators are those that suffice to find
mistakes (A. Offutt et al., "An experimental determination of sufficient mutant operators", TOSEM 5, 1996),
with constants, names and statements.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random
from typing import Any, Final

from optimizers.search.body import Body, Slot, fits, free, statements

__all__ = ["ARITHMETIC", "ORDER", "PAIRS", "literal", "options", "small_edit"]

ARITHMETIC: Final = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod)
ORDER: Final = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
PAIRS: Final = {ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is}

_Change = Callable[[], object]


def small_edit(body: Body, random: Random) -> bool:
    """Make one of the smallest edits; says whether there is any."""
    found = list(_changes(body, random))
    if not found:
        return False
    random.choice(found)()
    return True


def _changes(body: Body, random: Random) -> Iterator[_Change]:
    names = {n.id: n for n in body.ingredients if isinstance(n, ast.Name)}
    constants = [s.held.value for s in body.slots if isinstance(s.held, ast.Constant)]
    for slot in body.slots:
        for other in _others(body, slot, names, constants, random):
            yield partial(slot.put, other)
    for node in body.nodes:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ARITHMETIC):
            for kind in ARITHMETIC:
                if not isinstance(node.op, kind):
                    yield partial(setattr, node, "op", kind())
        elif isinstance(node, ast.BoolOp):
            turned = ast.And if isinstance(node.op, ast.Or) else ast.Or
            yield partial(setattr, node, "op", turned())
        elif isinstance(node, ast.Compare):
            for place, now in enumerate(node.ops):
                for order in _orders(now):
                    yield partial(node.ops.__setitem__, place, order())
    for block in body.blocks:
        if block is not statements(body.scope) or len(block) > 1:
            for place in body.movable(block):
                yield partial(block.__setitem__, place, ast.Pass())


def _orders(now: ast.cmpop) -> list[type[ast.cmpop]]:
    pair = PAIRS.get(type(now))
    return [order for order in ORDER if order is not type(now)] if pair is None else [pair]


def _others(
    body: Body, slot: Slot, names: dict[str, ast.Name], constants: Sequence[Any], random: Random
) -> Iterator[ast.expr]:
    """What may stand in a place, a step away from what does."""
    held, wanted = slot.held, body.wanted(slot)
    if isinstance(held, ast.Constant) and type(held.value) in (bool, int, float, str):
        yield from map(literal, options(held.value, constants, random))
    elif isinstance(held, ast.UnaryOp):
        yield held.operand
    elif wanted == "condition":
        yield ast.UnaryOp(ast.Not(), held)
    elif fits(wanted, "number"):
        yield ast.UnaryOp(ast.USub(), held)
    if isinstance(held, ast.Name):
        for name, other in names.items():
            alike = name != held.id and fits(body.sort(other), wanted)
            if alike and free(other) & body.bound <= slot.bound:
                yield ast.Name(name, ast.Load())


def options(now: Any, constants: Sequence[Any], random: Random) -> list[Any]:
    """Other values of a constant: those that stand elsewhere, and steps of every size from it."""
    found = [value for value in constants if type(value) is type(now)]
    if isinstance(now, bool):
        found = [not now]
    elif isinstance(now, int):
        most = min(math.log(abs(now) + 1), 700.0)  # a step that a float can hold
        far = round(math.exp(random.uniform(0, most)))
        found += [now + 1, now - 1, now * 2, now // 2, -now, 0, 1, now + far, now - far]
    elif isinstance(now, float):
        moved = now + random.gauss(0, 1)
        found += [now * 2, now / 2, -now, moved, now * random.lognormvariate(0, 0.5)]
    return list(dict.fromkeys(value for value in found if value != now))


def literal(value: Any) -> ast.expr:
    """A constant as Python writes it: a negative number is a sign and a number."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value < 0:
        return ast.UnaryOp(ast.USub(), ast.Constant(-value))
    return ast.Constant(value)
