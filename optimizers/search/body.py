"""What a function offers to an edit of its code: places for expressions, statements, and ingredients.

Every expression has a sort, as far as its form tells: a condition, a number, a text, an object (what is
indexed, iterated or asked), or unknown. A place takes expressions of its own sort.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Final

__all__ = [
    "Body",
    "Function",
    "Scope",
    "Slot",
    "blocks",
    "fits",
    "free",
    "is_documentation",
    "scopes",
    "sort_of",
    "statements",
]

Function = ast.FunctionDef | ast.AsyncFunctionDef
Scope = Function | ast.ClassDef | ast.Module
_SCOPES: Final = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
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


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in the tree that holds an expression, and the names that only live there."""

    owner: ast.AST
    field: str
    index: int | None
    bound: frozenset[str]

    @property
    def held(self) -> ast.expr:
        """The expression that stands there."""
        found = getattr(self.owner, self.field)
        return found if self.index is None else found[self.index]  # type: ignore[no-any-return]

    def put(self, expression: ast.expr) -> None:
        """Let `expression` stand there."""
        if self.index is None:
            setattr(self.owner, self.field, expression)
        else:
            getattr(self.owner, self.field)[self.index] = expression


class Body:
    """What one function, or the values that a class or a module sets, offer to an edit.

    Args:
        scope: the function, class or module; of a class and a module only what they assign.
        given: expressions that may be used besides the scope's own.
        line: where the edit must begin, or None for anywhere.
    """

    def __init__(self, scope: Scope, given: Iterable[ast.expr], line: int | None) -> None:
        self.scope = scope
        self.line = line
        body = statements(scope)
        self.slots = [slot for item in body for slot in _slots(item, frozenset())]
        self.slots = [slot for slot in self.slots if not is_documentation(slot.owner)]
        self.nodes = [node for item in body for node in ast.walk(item)]
        self.names = _names(self.nodes)
        self.bound = frozenset(name for node in self.nodes for name in _targets(node))
        own: dict[str, None] = {}
        self.blocks: list[list[ast.stmt]] = []
        if isinstance(scope, Function):
            stored = (n for n in self.nodes if isinstance(n, ast.Name))
            names = [n.arg for n in ast.walk(scope.args) if isinstance(n, ast.arg)]
            own = dict.fromkeys([*names, *(n.id for n in stored if isinstance(n.ctx, ast.Store))])
            self.blocks = list(blocks(scope))
        known = [ast.Name(name, ast.Load()) for name in own]
        self.ingredients = [*(slot.held for slot in self.slots), *known, *given]
        self.slots = [slot for slot in self.slots if self.near(slot.held)]
        self.nodes = [node for node in self.nodes if self.near(node)]

    def near(self, node: ast.AST) -> bool:
        """Whether an edit may begin at `node`: it stands on the line that was asked for, if any."""
        return self.line is None or getattr(node, "lineno", None) in (self.line, None)

    def movable(self, block: list[ast.stmt]) -> list[int]:
        """The places of the statements of a block that may be moved or deleted."""
        return [i for i, item in enumerate(block) if not is_documentation(item) and self.near(item)]

    def holding(self, *kinds: type) -> list[Slot]:
        """The places that hold an expression of these kinds."""
        return [slot for slot in self.slots if isinstance(slot.held, kinds)]

    def sort(self, node: ast.expr) -> str:
        """What an expression yields here, see `sort_of`."""
        return sort_of(node, self.names)

    def wanted(self, slot: Slot) -> str:
        """What is expected in a slot, by where it stands and what it holds."""
        if slot.field in ("test", "ifs") or isinstance(slot.owner, ast.BoolOp):
            return "condition"
        if slot.field == "iter":
            return "object"
        held = self.sort(slot.held)
        calculated = isinstance(slot.owner, ast.BinOp) and held == "unknown"
        return "number" if calculated else held

    def of_sort(self, sort: str) -> list[Slot]:
        """The places where this sort is expected."""
        return [slot for slot in self.slots if self.wanted(slot) == sort]

    def ingredient(
        self, slot: Slot, sort: str | None, random: Random, *, other: bool = True
    ) -> ast.expr | None:
        """A copy of an expression that may stand in `slot`, or ``None``."""
        held = ast.dump(slot.held) if other else ""
        fitting = [
            found
            for found in self.ingredients
            if (sort is None or fits(self.sort(found), sort))
            and free(found) & self.bound <= slot.bound
            and ast.dump(found) != held
        ]
        distinct = {ast.dump(found): found for found in fitting}
        return copy.deepcopy(random.choice(list(distinct.values()))) if distinct else None


def scopes(node: ast.Module | ast.ClassDef) -> Iterator[tuple[Scope, list[ast.expr]]]:
    """Where edits may begin in a module or a class, with what other methods offer to each.

    These are its functions, the methods of its classes, and the classes and the module themselves for
    the values that they set. A method may use what others ask of the object that both are given.
    """
    methods = [item for item in node.body if isinstance(item, Function)]
    if statements(node):
        yield node, []
    for method in methods:
        kin = isinstance(node, ast.ClassDef) and method.args.args and method.args.args[0].arg
        yield method, [] if not kin else _of_object(kin, (m for m in methods if m is not method))
    for item in node.body:
        if isinstance(item, ast.ClassDef):
            yield from scopes(item)


def _of_object(name: str, methods: Iterable[Function]) -> list[ast.expr]:
    """The expressions of methods that need nothing but the object, as ``self.size``."""
    found = [
        item
        for method in methods
        for item in ast.walk(method)
        if isinstance(item, ast.Attribute | ast.Call | ast.BinOp | ast.Compare | ast.Subscript)
        and isinstance(getattr(item, "ctx", ast.Load()), ast.Load)
        and free(item) == {name}
        and not any(
            isinstance(other, ast.Call) and other.func is item for other in ast.walk(method)
        )
    ]
    return [*found]


def statements(scope: Scope) -> list[ast.stmt]:
    """The statements of a function; of a class or a module those that set plain names."""
    if isinstance(scope, Function):
        return scope.body
    return [item for item in scope.body if _sets_name(item)]


def _sets_name(item: ast.stmt) -> bool:
    targets = item.targets if isinstance(item, ast.Assign) else [getattr(item, "target", None)]
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    return bool(names) and not any(name.startswith("__") for name in names)


def _slots(node: ast.AST, bound: frozenset[str]) -> Iterator[Slot]:
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
                yield Slot(node, field, index, inner)
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


def blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    """The lists of statements at and below `node`."""
    for item in ast.walk(node):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(item, field, None)
            if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                yield block


def is_documentation(node: ast.AST) -> bool:
    """Whether a statement is a text alone."""
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


def free(node: ast.AST) -> frozenset[str]:
    """The names that an expression takes from around it."""
    used = {item.id for item in ast.walk(node) if isinstance(item, ast.Name)}
    own = {name for item in ast.walk(node) for name in _targets(item)}
    return frozenset(used - own)


def sort_of(node: ast.expr, names: Mapping[str, str]) -> str:
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


def fits(sort: str, wanted: str) -> bool:
    """Whether an expression may stand where `wanted` is expected; unknown may be a number."""
    return sort == wanted or {sort, wanted} == {"number", "unknown"}
