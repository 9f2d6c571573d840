"""Variations of a function's text by its syntax tree.

Edits change constants, operators, comparisons and conditions, move, copy, guard and delete
statements, and put expressions in the place of others. New expressions come from the function's own
ingredients and from those that a person gives, as in W. Weimer et al., "Automatically Finding Patches
Using Genetic Programming" (ICSE 2009), which draws repairs from the program under repair, and are
chosen by sort: a condition for a condition, a number for a number. Names, parameters, defaults,
decorators and annotations of the functions stay; comments are lost.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any, Final

__all__ = ["varied_code"]

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_SCOPES: Final = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_ARITHMETIC: Final = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod)
_ORDER: Final = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
_PAIRS: Final = {ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is}
_OF_MANY: Final = frozenset({"enumerate", "len", "list", "max", "min", "sorted", "sum", "tuple"})
_CONSTANTS: Final[dict[type, str]] = {
    bool: "condition", int: "number", float: "number", str: "text",
}  # fmt: skip
_FORMS: Final[dict[Any, str]] = {
    (ast.Compare, ast.BoolOp): "condition",
    (ast.BinOp,): "number",
    (ast.JoinedStr,): "text",
    (*_SCOPES, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.Lambda): "object",
}
_COUNTING: Final = frozenset({"abs", "count", "float", "index", "int", "len", "round", "sum"})
_KEEPS: Final = 0x20 | 0x80 | 0x200  # CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR
_TRIES: Final = 20


def varied_code(
    text: str,
    random: Random,
    expressions: Sequence[str] = (),
    *,
    suspects: Mapping[int, float] | None = None,
    limit: int = 400,
) -> str:
    """Another text of the same functions, which compiles; `text` itself where none was found.

    Args:
        text: Python that defines one or more functions.
        random: the source of chance.
        expressions: Python expressions that may be used besides the ingredients of `text`.
        suspects: how suspicious lines of `text` are; nine edits in ten begin at one of them, drawn in
            proportion. Without, edits begin anywhere.
        limit: the most nodes that the syntax tree may grow to.

    Raises:
        ValueError: one of the `expressions` is none.

    >>> print(varied_code("def f(x):\\n    return x + 1", Random(2)))
    def f(x):
        return x // 1
    """
    given = [_expression(piece) for piece in expressions]
    before = ast.unparse(ast.parse(text))
    for _ in range(_TRIES):
        tree = ast.parse(text)
        room = max(limit, _size(tree))
        for _ in range(1 + (random.random() < 0.3) + (random.random() < 0.1)):
            _edit(tree, random, given, _drawn(suspects, random))
        _drop_dead_statements(tree)
        ast.fix_missing_locations(tree)
        varied = ast.unparse(tree)
        if _size(tree) <= room and varied != before and _sound(varied, text):
            return varied
    return text


def _expression(piece: str) -> ast.expr:
    try:
        return ast.parse(piece, mode="eval").body
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


def _edit(tree: ast.Module, random: Random, given: list[ast.expr], line: int | None) -> None:
    functions = [item for item in tree.body if isinstance(item, _Function)]
    if line is not None:
        around = [item for item in functions if item.lineno <= line <= (item.end_lineno or 0)]
        functions = around or functions
    if not functions:
        return
    body = _Body(random.choice(functions), given, line)
    edits = [edit for edit, weight in _EDITS.items() for _ in range(weight)]
    random.shuffle(edits)
    for edit in edits:
        if edit(body, random):
            return


def _drop_dead_statements(tree: ast.Module) -> None:
    """Take away what stands behind a statement that leaves its block."""
    for block in _blocks(tree):
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


def _flags(text: str) -> dict[str, int]:
    module = compile(text, "<variation>", "exec", dont_inherit=True)
    codes = [const for const in module.co_consts if hasattr(const, "co_code")]
    return {code.co_name: code.co_flags & _KEEPS for code in codes}


@dataclass(frozen=True, slots=True)
class _Slot:
    """A place in the tree that holds an expression, and the names that only live there."""

    owner: ast.AST
    field: str
    index: int | None
    bound: frozenset[str]

    @property
    def held(self) -> ast.expr:
        found = getattr(self.owner, self.field)
        return found if self.index is None else found[self.index]  # type: ignore[no-any-return]

    def put(self, expression: ast.expr) -> None:
        if self.index is None:
            setattr(self.owner, self.field, expression)
        else:
            getattr(self.owner, self.field)[self.index] = expression


class _Body:
    """What one function offers to an edit: slots, blocks of statements, and ingredients."""

    def __init__(self, function: _Function, given: list[ast.expr], line: int | None) -> None:
        self.function = function
        self.line = line
        self.slots = [slot for item in function.body for slot in _slots(item, frozenset())]
        self.slots = [slot for slot in self.slots if not _documentation(slot.owner)]
        self.blocks = list(_blocks(function))
        self.nodes = [node for item in function.body for node in ast.walk(item)]
        self.names = _names(self.nodes)
        self.bound = frozenset(name for node in self.nodes for name in _targets(node))
        names = [item.arg for item in ast.walk(function.args) if isinstance(item, ast.arg)]
        stored = [n for n in self.nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        own = dict.fromkeys([*names, *(name.id for name in stored)])
        known = [ast.Name(name, ast.Load()) for name in own]
        self.ingredients = [*(slot.held for slot in self.slots), *known, *given]
        self.slots = [slot for slot in self.slots if self.near(slot.held)]
        self.nodes = [node for node in self.nodes if self.near(node)]

    def near(self, node: ast.AST) -> bool:
        """Whether an edit may begin at `node`: it stands on the line that was asked for, if any."""
        return self.line is None or getattr(node, "lineno", None) in (self.line, None)

    def movable(self, block: list[ast.stmt]) -> list[int]:
        """The places of the statements of a block that may be moved or deleted."""
        return [i for i, item in enumerate(block) if not _documentation(item) and self.near(item)]

    def holding(self, *kinds: type) -> list[_Slot]:
        return [slot for slot in self.slots if isinstance(slot.held, kinds)]

    def sort(self, node: ast.expr) -> str:
        return _sort(node, self.names)

    def wanted(self, slot: _Slot) -> str:
        """What is expected in a slot, by where it stands and what it holds."""
        if slot.field in ("test", "ifs") or isinstance(slot.owner, ast.BoolOp):
            return "condition"
        if slot.field == "iter":
            return "object"
        held = self.sort(slot.held)
        calculated = isinstance(slot.owner, ast.BinOp) and held == "unknown"
        return "number" if calculated else held

    def of_sort(self, sort: str) -> list[_Slot]:
        return [slot for slot in self.slots if self.wanted(slot) == sort]

    def ingredient(
        self, slot: _Slot, sort: str | None, random: Random, *, other: bool = True
    ) -> ast.expr | None:
        """A copy of an expression that may stand in `slot`, or ``None``."""
        held = ast.dump(slot.held) if other else ""
        fitting = [
            found
            for found in self.ingredients
            if (sort is None or _fits(self.sort(found), sort))
            and _free(found) & self.bound <= slot.bound
            and ast.dump(found) != held
        ]
        distinct = {ast.dump(found): found for found in fitting}
        return copy.deepcopy(random.choice(list(distinct.values()))) if distinct else None


def _slots(node: ast.AST, bound: frozenset[str]) -> Iterator[_Slot]:
    """The places below `node` where another expression may stand."""
    inner = bound | set(_targets(node)) if isinstance(node, _SCOPES) else bound
    for field, value in ast.iter_fields(node):
        if _closed(node, field):
            continue
        for index, item in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(item, ast.AST):
                continue
            read = isinstance(getattr(item, "ctx", ast.Load()), ast.Load)
            part = (
                isinstance(item, ast.Starred | ast.Slice)
                or (isinstance(node, ast.Call) and field == "func")
                or (isinstance(node, ast.Subscript) and field == "value")
            )
            if isinstance(item, ast.expr) and read and not part:
                yield _Slot(node, field, index, inner)
            yield from _slots(item, inner)


def _closed(node: ast.AST, field: str) -> bool:
    """Whether what stands in this field must stay what it is for the text to keep its meaning."""
    if isinstance(node, ast.JoinedStr):
        return True
    if field in (
        "annotation",
        "returns",
        "decorator_list",
        "bases",
        "pattern",
        "target",
        "targets",
    ):
        return True
    if isinstance(node, ast.Call) and field == "func":
        return not isinstance(node.func, ast.Attribute)
    if isinstance(node, ast.Compare):
        return any(isinstance(op, ast.Is | ast.IsNot) for op in node.ops)
    if isinstance(node, ast.arguments | ast.Import | ast.ImportFrom | ast.ExceptHandler):
        return field not in ("body",)
    return False


def _blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    for item in ast.walk(node):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(item, field, None)
            if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                yield block


def _documentation(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _targets(node: ast.AST) -> Iterable[str]:
    """The names that a comprehension binds, which live only inside it."""
    for generator in getattr(node, "generators", ()):
        for name in ast.walk(generator.target):
            if isinstance(name, ast.Name):
                yield name.id


def _free(node: ast.AST) -> frozenset[str]:
    used = {item.id for item in ast.walk(node) if isinstance(item, ast.Name)}
    own = {name for item in ast.walk(node) for name in _targets(item)}
    return frozenset(used - own)


def _sort(node: ast.expr, names: Mapping[str, str]) -> str:
    """What an expression yields, as far as its form tells.

    One of condition, number, text, object (what is indexed, iterated or asked), unknown.
    """
    if isinstance(node, ast.Name):
        return names.get(node.id, "unknown")
    if isinstance(node, ast.UnaryOp):
        return "condition" if isinstance(node.op, ast.Not) else "number"
    if isinstance(node, ast.Constant):
        return _CONSTANTS.get(type(node.value), "unknown")
    if isinstance(node, ast.Call):
        called = node.func
        name = getattr(called, "id", None) or getattr(called, "attr", "")
        return "number" if name in _COUNTING else "unknown"
    return next((sort for kinds, sort in _FORMS.items() if isinstance(node, kinds)), "unknown")


def _names(nodes: Iterable[ast.AST]) -> dict[str, str]:
    """What names hold, by how they are used: calculated with, or else asked for parts."""
    found: dict[str, str] = {}
    for node in nodes:
        asked: list[ast.AST] = []
        if isinstance(node, ast.Subscript | ast.Attribute | ast.Starred):
            asked = [node.value]
        elif isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
            asked = [node.iter]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in _OF_MANY:
            asked = list(node.args[:1])
        elif isinstance(node, ast.BinOp):
            found |= {n.id: "number" for n in (node.left, node.right) if isinstance(n, ast.Name)}
        found |= {item.id: "object" for item in asked if isinstance(item, ast.Name)}
    return found


def _fits(sort: str, wanted: str) -> bool:
    """Whether an expression may stand where `wanted` is expected; unknown may be a number."""
    return sort == wanted or {sort, wanted} == {"number", "unknown"}


# The edits: each changes the tree and says whether it did


def _constant(body: _Body, random: Random) -> bool:
    slots = [s for s in body.holding(ast.Constant) if type(_value(s)) in (bool, int, float, str)]
    if not slots:
        return False
    slot = random.choice(slots)
    now = _value(slot)
    others = [_value(s) for s in slots if type(_value(s)) is type(now) and _value(s) != now]
    options: list[Any] = list(others)
    if isinstance(now, bool):
        options = [not now]
    elif isinstance(now, int):
        options += [now + 1, now - 1, now * 2, now // 2, -now, 0, 1]
    elif isinstance(now, float):
        options += [
            now * 2,
            now / 2,
            -now,
            now + random.gauss(0, 1),
            now * random.lognormvariate(0, 0.5),
        ]
    options = [option for option in options if option != now]
    if not options:
        return False
    slot.put(_literal(random.choice(options)))
    return True


def _value(slot: _Slot) -> Any:
    return getattr(slot.held, "value", None)


def _literal(value: Any) -> ast.expr:
    """A constant as Python writes it: a negative number is a sign and a number."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value < 0:
        return ast.UnaryOp(ast.USub(), ast.Constant(-value))
    return ast.Constant(value)


def _operator(body: _Body, random: Random) -> bool:
    found = [n for n in body.nodes if isinstance(n, ast.BinOp) and isinstance(n.op, _ARITHMETIC)]
    if not found:
        return False
    node = random.choice(found)
    node.op = random.choice([op for op in _ARITHMETIC if not isinstance(node.op, op)])()
    return True


def _comparison(body: _Body, random: Random) -> bool:
    found = [n for n in body.nodes if isinstance(n, ast.Compare)]
    if not found:
        return False
    node = random.choice(found)
    place = random.randrange(len(node.ops))
    now = type(node.ops[place])
    pair = _PAIRS.get(now)
    other = pair or random.choice([op for op in _ORDER if op is not now])
    node.ops[place] = other()
    return True


def _logic(body: _Body, random: Random) -> bool:
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


def _replace(body: _Body, random: Random) -> bool:
    if not body.slots:
        return False
    slot = random.choice(body.slots)
    sort = body.wanted(slot) if random.random() < 0.9 else None
    found = body.ingredient(slot, sort, random)
    if found is None:
        return False
    slot.put(found)
    return True


def _combine(body: _Body, random: Random) -> bool:
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
        slot.put(ast.BinOp(slot.held, random.choice(_ARITHMETIC[:4])(), found))
    return True


def _simplify(body: _Body, random: Random) -> bool:
    slots = body.holding(ast.BinOp, ast.BoolOp, ast.UnaryOp, ast.IfExp)
    if not slots:
        return False
    slot = random.choice(slots)
    parts = [item for item in ast.iter_child_nodes(slot.held) if isinstance(item, ast.expr)]
    slot.put(random.choice(parts))
    return True


def _choose(body: _Body, random: Random) -> bool:
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


def _swap_arguments(body: _Body, random: Random) -> bool:
    calls = [n for n in body.nodes if isinstance(n, ast.Call) and len(n.args) > 1]
    if not calls:
        return False
    call = random.choice(calls)
    first, second = random.sample(range(len(call.args)), 2)
    call.args[first], call.args[second] = call.args[second], call.args[first]
    return True


def _swap_statements(body: _Body, random: Random) -> bool:
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


def _delete_statement(body: _Body, random: Random) -> bool:
    places = [(block, place) for block in body.blocks for place in body.movable(block)]
    if not places:
        return False
    block, place = random.choice(places)
    if len(_movable(block)) == 1:
        if block is body.function.body:
            return False
        block[place] = ast.Pass()
    else:
        del block[place]
    return True


def _copy_statement(body: _Body, random: Random) -> bool:
    found = [block[place] for block in body.blocks for place in body.movable(block)]
    if not found:
        return False
    block = random.choice(body.blocks)
    start = 1 if _documentation(block[0]) else 0
    block.insert(random.randrange(start, len(block) + 1), copy.deepcopy(random.choice(found)))
    return True


def _guard_statement(body: _Body, random: Random) -> bool:
    """A statement becomes ``if condition: statement``."""
    places = [(block, place) for block in body.blocks for place in body.movable(block)]
    if not places:
        return False
    block, place = random.choice(places)
    conditions = [
        found
        for found in body.ingredients
        if body.sort(found) == "condition" and not _free(found) & body.bound
    ]
    if not conditions:
        return False
    block[place] = ast.If(copy.deepcopy(random.choice(conditions)), [block[place]], [])
    return True


def _movable(block: list[ast.stmt]) -> list[int]:
    return [index for index, item in enumerate(block) if not _documentation(item)]


_EDITS: Final[dict[Callable[[_Body, Random], bool], int]] = {
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
