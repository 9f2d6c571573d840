"""A rule's body read as C++: run once on terms that write down what is done to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optimizers.numeric.rules.dialect import bound
from optimizers.numeric.rules.rule import Rule

__all__ = ["Term", "Written", "written"]

Lines = list[str]


class Term:
    """A C++ expression with a name; operations on it append a line and give a new one.

    A `scalar` term is one of the host's. Arithmetic on two of those is refused: it would be
    done in the kernel's precision where the other executions do it in float64.
    """

    __slots__ = ("lines", "name", "scalar")

    def __init__(self, lines: Lines, name: str, *, scalar: bool = False) -> None:
        self.lines, self.name, self.scalar = lines, name, scalar

    def _say(self, expression: str, kind: str = "T") -> Term:
        name = f"x{len(self.lines)}"
        self.lines.append(f"const {kind} {name} = {expression};")
        return Term(self.lines, name)

    def _spell(self, other: Any) -> str:
        if isinstance(other, Term):
            if self.scalar and other.scalar:
                raise TypeError("a rule's body computes on two scalars; do it in its `scalars`")
            return other.name
        return f"T({float(other)!r})"

    def _infix(self, sign: str, other: Any, kind: str = "T") -> Term:
        return self._say(f"{self.name} {sign} {self._spell(other)}", kind)

    def _swapped(self, sign: str, other: Any) -> Term:
        return self._say(f"{self._spell(other)} {sign} {self.name}")

    def __add__(self, other: Any) -> Term:
        return self._infix("+", other)

    def __sub__(self, other: Any) -> Term:
        return self._infix("-", other)

    def __mul__(self, other: Any) -> Term:
        return self._infix("*", other)

    def __truediv__(self, other: Any) -> Term:
        return self._infix("/", other)

    def __radd__(self, other: Any) -> Term:
        return self._swapped("+", other)

    def __rsub__(self, other: Any) -> Term:
        return self._swapped("-", other)

    def __rmul__(self, other: Any) -> Term:
        return self._swapped("*", other)

    def __rtruediv__(self, other: Any) -> Term:
        return self._swapped("/", other)

    def __neg__(self) -> Term:
        return self._say(f"-{self.name}")

    def __gt__(self, other: Any) -> Term:
        return self._infix(">", other, "bool")

    def __lt__(self, other: Any) -> Term:
        return self._infix("<", other, "bool")

    def __ge__(self, other: Any) -> Term:
        return self._infix(">=", other, "bool")

    def __le__(self, other: Any) -> Term:
        return self._infix("<=", other, "bool")


def _call(form: str) -> Callable[..., Term]:
    def call(first: Term, *others: Any) -> Term:
        return first._say(form.format(first.name, *(first._spell(x) for x in others)))

    return call


CPP = {
    "sqrt": _call("std::sqrt({0})"),
    "absolute": _call("std::fabs({0})"),
    "sign": _call("T({0} > T(0)) - T({0} < T(0))"),
    "where": _call("{0} ? {1} : {2}"),
    # a NaN on the left stays: the comparison with it is false
    "maximum": _call("{0} < {1} ? {1} : {0}"),
    "minimum": _call("{0} > {1} ? {1} : {0}"),
}


class Written:
    """A body as lines of C++: `lines` from p, g, s0.. and h0.. to `p` and the changed `states`."""

    def __init__(self, lines: Lines, p: str, states: tuple[str | None, ...], scalars: int) -> None:
        self.lines, self.p, self.states, self.scalars = lines, p, states, scalars


def written(rule: Rule, scalars: int) -> Written:
    """`rule` as C++ for that many scalars; a state that the body leaves alone is None."""
    lines: Lines = []
    s = tuple(Term(lines, f"s{k}") for k in range(len(rule.states)))
    h = tuple(Term(lines, f"h{k}", scalar=True) for k in range(scalars))
    p, new = bound(rule.body, CPP)(Term(lines, "p"), Term(lines, "g"), s, h)
    names = tuple(None if a is b else a.name for a, b in zip(new, s, strict=True))
    return Written(lines, p.name, names, scalars)
