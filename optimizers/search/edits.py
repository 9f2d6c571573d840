"""The edits of code: each changes the tree of a function and says whether it did."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any, Final

from optimizers.search.body import Body, Slot, free, is_documentation, statements
from optimizers.search.small import ARITHMETIC, ORDER, PAIRS, literal, options

__all__ = ["EDITS", "OF_VALUES"]


def _constant(body: Body, random: Random) -> bool:
    slots = [s for s in body.holding(ast.Constant) if type(_value(s)) in (bool, int, float, str)]
    if not slots:
        return False
    slot = random.choice(slots)
    found = options(_value(slot), [_value(s) for s in slots], random)
    if not found:
        return False
    slot.put(literal(random.choice(found)))
    return True


def _value(slot: Slot) -> Any:
    return getattr(slot.held, "value", None)


def _operator(body: Body, random: Random) -> bool:
    found = [n for n in body.nodes if isinstance(n, ast.BinOp) and isinstance(n.op, ARITHMETIC)]
    if not found:
        return False
    node = random.choice(found)
    node.op = random.choice([op for op in ARITHMETIC if not isinstance(node.op, op)])()
    return True


def _comparison(body: Body, random: Random) -> bool:
    found = [n for n in body.nodes if isinstance(n, ast.Compare)]
    if not found:
        return False
    node = random.choice(found)
    place = random.randrange(len(node.ops))
    now = type(node.ops[place])
    pair = PAIRS.get(now)
    other = pair or random.choice([op for op in ORDER if op is not now])
    node.ops[place] = other()
    return True


def _logic(body: Body, random: Random) -> bool:
    slots = body.of_sort("condition")
    if not slots:
        return False
    slot = random.choice(slots)
    held = slot.held
    if isinstance(held, ast.BoolOp) and random.random() < 0.5:
        held.op = ast.And() if isinstance(held.op, ast.Or) else ast.Or()
    elif isinstance(held, ast.UnaryOp) and isinstance(held.op, ast.Not):
        slot.put(held.operand)
    else:
        slot.put(ast.UnaryOp(ast.Not(), held))
    return True


def _replace(body: Body, random: Random) -> bool:
    if not body.slots:
        return False
    slot = random.choice(body.slots)
    sort = body.wanted(slot) if random.random() < 0.9 else None
    found = body.ingredient(slot, sort, random)
    if found is None:
        return False
    slot.put(found)
    return True


def _combine(body: Body, random: Random) -> bool:
    """``x`` becomes ``x + y``, with any operator; a condition ``x and y`` or ``x or y``."""
    slots = [s for s in body.slots if body.wanted(s) in ("condition", "number", "unknown")]
    if not slots:
        return False
    slot = random.choice(slots)
    condition = body.wanted(slot) == "condition"
    sort = "condition" if condition else "number"
    found = body.ingredient(slot, sort, random, other=condition)
    if found is None:
        return False
    if condition:
        slot.put(ast.BoolOp(random.choice((ast.And, ast.Or))(), [slot.held, found]))
    else:
        slot.put(ast.BinOp(slot.held, random.choice(ARITHMETIC[:4])(), found))
    return True


def _simplify(body: Body, random: Random) -> bool:
    slots = body.holding(ast.BinOp, ast.BoolOp, ast.UnaryOp, ast.IfExp)
    if not slots:
        return False
    slot = random.choice(slots)
    parts = [item for item in ast.iter_child_nodes(slot.held) if isinstance(item, ast.expr)]
    slot.put(random.choice(parts))
    return True


def _choose(body: Body, random: Random) -> bool:
    """``x`` becomes ``y if condition else x``."""
    slots = [slot for slot in body.slots if body.wanted(slot) != "condition"]
    if not slots:
        return False
    slot = random.choice(slots)
    condition = body.ingredient(slot, "condition", random)
    other = body.ingredient(slot, body.wanted(slot), random)
    if condition is None or other is None:
        return False
    slot.put(ast.IfExp(condition, other, slot.held))
    return True


def _swap_arguments(body: Body, random: Random) -> bool:
    calls = [n for n in body.nodes if isinstance(n, ast.Call) and len(n.args) > 1]
    if not calls:
        return False
    call = random.choice(calls)
    first, second = random.sample(range(len(call.args)), 2)
    call.args[first], call.args[second] = call.args[second], call.args[first]
    return True


def _swap_statements(body: Body, random: Random) -> bool:
    places = [
        (block, first, second)
        for block in body.blocks
        for first, second in pairwise(_movable(block))
        if body.near(block[first]) or body.near(block[second])
    ]
    if not places:
        return False
    block, first, second = random.choice(places)
    block[first], block[second] = block[second], block[first]
    return True


def _delete_statement(body: Body, random: Random) -> bool:
    places = [(block, place) for block in body.blocks for place in body.movable(block)]
    if not places:
        return False
    block, place = random.choice(places)
    if len(_movable(block)) == 1:
        if block is statements(body.scope):
            return False
        block[place] = ast.Pass()
    else:
        del block[place]
    return True


def _copy_statement(body: Body, random: Random) -> bool:
    found = [block[place] for block in body.blocks for place in body.movable(block)]
    if not found:
        return False
    block = random.choice(body.blocks)
    start = 1 if is_documentation(block[0]) else 0
    block.insert(random.randrange(start, len(block) + 1), copy.deepcopy(random.choice(found)))
    return True


def _guard_statement(body: Body, random: Random) -> bool:
    """A statement becomes ``if condition: statement``."""
    places = [(block, place) for block in body.blocks for place in body.movable(block)]
    if not places:
        return False
    block, place = random.choice(places)
    conditions = [
        found
        for found in body.ingredients
        if body.sort(found) == "condition" and not free(found) & body.bound
    ]
    if not conditions:
        return False
    block[place] = ast.If(copy.deepcopy(random.choice(conditions)), [block[place]], [])
    return True


def _movable(block: list[ast.stmt]) -> list[int]:
    return [index for index, item in enumerate(block) if not is_documentation(item)]


EDITS: Final[dict[Callable[[Body, Random], bool], int]] = {
    _constant: 3,
    _operator: 2,
    _comparison: 2,
    _logic: 1,
    _replace: 5,
    _combine: 4,
    _simplify: 2,
    _choose: 1,
    _swap_arguments: 1,
    _swap_statements: 1,
    _delete_statement: 1,
    _copy_statement: 1,
    _guard_statement: 1,
}
"""Every edit, and how often it is tried in proportion to the others."""

OF_VALUES: Final = frozenset({_constant, _operator, _comparison, _simplify})
"""The edits for what a class or a module sets."""
