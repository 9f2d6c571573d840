"""A rule's body read as C++: run once on terms that write down what is done to them."""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from optimizers.numeric.executors.symbols import SAID, Symbol
from optimizers.numeric.rules.dialect import bound
from optimizers.numeric.rules.rule import Rule

__all__ = ["Term", "Written", "written"]

Lines = list[str]

CPP = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "gt": "{0} > {1}",
    "lt": "{0} < {1}",
    "ge": "{0} >= {1}",
    "le": "{0} <= {1}",
    "sqrt": "std::sqrt({0})",
    "absolute": "std::fabs({0})",
    "sign": "T({0} > T(0)) - T({0} < T(0))",
    "where": "{0} ? {1} : {2}",
    # a NaN on the left stays: the comparison with it is false
    "maximum": "{0} < {1} ? {1} : {0}",
    "minimum": "{0} > {1} ? {1} : {0}",
}


class Term(Symbol):
    """A C++ expression with a name; operations on it append a line and give a new one.

    A `scalar` term is one of the host's. Arithmetic on two of those is refused: it would be
    done in the kernel's precision where the other executions do it in float64.
    """

    __slots__ = ("lines", "name", "scalar")

    def __init__(self, lines: Lines, name: str, *, scalar: bool = False) -> None:
        self.lines, self.name, self.scalar = lines, name, scalar

    @override
    def say(self, op: str, *operands: Any) -> Term:
        if len(operands) > 1 and all(isinstance(x, Term) and x.scalar for x in operands):
            raise TypeError("a rule's body computes on two scalars; do it in its `scalars`")
        spelt = (x.name if isinstance(x, Term) else f"T({float(x)!r})" for x in operands)
        kind = "bool" if op in ("gt", "lt", "ge", "le") else "T"
        name = f"x{len(self.lines)}"
        self.lines.append(f"const {kind} {name} = {CPP[op].format(*spelt)};")
        return Term(self.lines, name)


class Written:
    """A body as lines of C++: `lines` from p, g, s0.. and h0.. to `p` and the changed `states`."""

    def __init__(self, lines: Lines, p: str, states: tuple[str | None, ...], scalars: int) -> None:
        self.lines, self.p, self.states, self.scalars = lines, p, states, scalars


def written(rule: Rule, scalars: int) -> Written:
    """`rule` as C++ for that many scalars; a state that the body leaves alone is None."""
    lines: Lines = []
    s = tuple(Term(lines, f"s{k}") for k in range(len(rule.states)))
    h = tuple(Term(lines, f"h{k}", scalar=True) for k in range(scalars))
    p, new = bound(rule.body, SAID)(Term(lines, "p"), Term(lines, "g"), s, h)
    names = tuple(None if a is b else a.name for a, b in zip(new, s, strict=True))
    return Written(lines, p.name, names, scalars)
