"""A rule's body as a short list of operations that write over their own operands where they may.

The body is run once on values that write down what is done to them. A product that ends in a sum is one
operation with it; a value that nothing reads any more gives its place to the next; what must stay is
copied to scratch before it is written over.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from typing_extensions import override

from optimizers.numeric.executors.symbols import SAID, Symbol
from optimizers.numeric.rules.dialect import bound
from optimizers.numeric.rules.rule import Rule

__all__ = ["Call", "Number", "Plan", "planned"]

P, G = 0, 1
"""The places of the parameter and its gradient; the states follow."""

FRESH = ("gt", "lt", "ge", "le", "where")
"""Operations whose result does not go to the place of an operand."""


@dataclass(frozen=True, slots=True)
class Number:
    """A constant, or `factor` times the host's scalar of that index."""

    factor: float
    index: int | None = None

    def of(self, scalars: tuple[float, ...]) -> float:
        """The number itself."""
        return self.factor if self.index is None else self.factor * scalars[self.index]

    def __neg__(self) -> Number:
        return Number(-self.factor, self.index)


Operand = int | Number


@dataclass(frozen=True, slots=True)
class Call:
    """One operation. `args` and `out` are values in a body, places in a plan.

    In a plan the result of `op` is written over its first operand, which is at `out`, and was
    copied there from `copied` if that is given; results of FRESH operations are put at `out`.
    """

    op: str
    args: tuple[Operand, ...]
    out: int
    copied: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The calls of a body; then each of `moves` is copied from the first place to the second.

    Places 0, 1, 2.. are of the parameter, the gradient and the states; `scratch` lists those that
    calls need beside them. `changed` lists the states that the body changes.
    """

    calls: tuple[Call, ...]
    moves: tuple[tuple[int, int], ...]
    scratch: tuple[int, ...]
    changed: tuple[int, ...]


class _Value(Symbol):
    """A place or a number, with the calls so far."""

    __slots__ = ("at", "calls", "inputs")

    def __init__(self, calls: list[Call], inputs: int, at: Operand) -> None:
        self.calls, self.inputs, self.at = calls, inputs, at

    @override
    def say(self, op: str, *operands: Any) -> _Value:
        args = [x.at if isinstance(x, _Value) else Number(float(x)) for x in operands]
        if all(isinstance(x, Number) for x in args):
            raise TypeError("a rule's body computes on two scalars; do it in its `scalars`")
        if isinstance(args[0], Number) and op != "where":  # a tensor comes first
            args.reverse()
            op = {"sub": "rsub", "div": "rdiv", "gt": "lt", "lt": "gt", "ge": "le", "le": "ge"}.get(
                op, op
            )
        if op == "sub" and isinstance(args[1], Number):
            op, args[1] = "add", -args[1]
        said = next((c for c in self.calls if c.op == op and c.args == tuple(args)), None)
        if said is None:  # an expression that a body says twice is computed once
            said = Call(op, tuple(args), self.inputs + len(self.calls))
            self.calls.append(said)
        return _Value(self.calls, self.inputs, said.out)


class _Fusion:
    """Sums that take the product, or the quotient, that they add into one operation."""

    def __init__(self, calls: list[Call], finals: tuple[int, ...]) -> None:
        self.calls = {call.out: call for call in calls}
        self.uses = Counter(x for call in calls for x in call.args if isinstance(x, int))
        self.uses.update(finals)

    def done(self) -> list[Call]:
        """The calls that are left."""
        for out in list(self.calls):
            call = self.calls.get(out)
            if call is not None and call.op in ("add", "sub"):
                self._sum(call)
        return [self.calls[out] for out in sorted(self.calls)]

    def _once(self, value: Operand, op: str) -> Call | None:
        """The call that makes `value` by `op` for one reader alone."""
        call = self.calls.get(value) if isinstance(value, int) else None
        return call if call is not None and call.op == op and self.uses[call.out] == 1 else None

    def _scaled(self, value: Operand) -> tuple[Operand, Number, tuple[Call, ...]]:
        """`value` as a tensor times a number, and the call that this saves."""
        call = self._once(value, "mul")
        if call is not None and isinstance(call.args[1], Number):
            return call.args[0], call.args[1], (call,)
        return value, Number(1.0), ()

    def _sum(self, call: Call) -> None:
        x, y = call.args
        sides = [(x, y)] if call.op == "sub" else [(x, y), (y, x)]
        for kept, term in sides:
            if isinstance(kept, int) and isinstance(term, int) and self._absorb(call, kept, term):
                return

    def _absorb(self, call: Call, x: int, term: int) -> bool:
        inner, number, saved = self._scaled(term)
        quotient, product = self._once(inner, "div"), self._once(inner, "mul")
        difference = self._once(inner, "sub")
        args: tuple[Operand, ...]
        if quotient is not None and all(isinstance(a, int) for a in quotient.args):
            op, (a, b) = "addcdiv", quotient.args
            if not saved:
                a, number, saved = self._scaled(a)
            args, saved = (x, a, b), (*saved, quotient)
        elif product is not None and all(isinstance(a, int) for a in product.args):
            op, args, saved = "addcmul", (x, *product.args), (*saved, product)
        elif saved and call.op == "add" and difference is not None and difference.args[1] == x:
            op, args, saved = "lerp", (x, difference.args[0]), (*saved, difference)
            square = self._once(args[1], "mul")
            if square is not None and all(isinstance(a, int) and a != x for a in square.args):
                op, args, saved = "lerp_product", (x, *square.args), (*saved, square)
        elif saved:
            op, args = "axpy", (x, inner)
        else:
            return False
        for gone in saved:
            del self.calls[gone.out]
        self.calls[call.out] = Call(op, (*args, -number if call.op == "sub" else number), call.out)
        return True


@lru_cache(maxsize=256)
def planned(rule: Rule, scalars: int, *, own_gradient: bool) -> Plan:
    """The plan of `rule` for that many scalars; `own_gradient` says that place 1 may be written.

    >>> from optimizers.numeric.rules.momentum import SGD
    >>> [call.op for call in planned(SGD, 2, own_gradient=False).calls]
    ['axpy', 'axpy']

    Raises:
        TypeError: the body computes on two scalars.
    """
    inputs = 2 + len(rule.states)
    calls: list[Call] = []
    values = [_Value(calls, inputs, k) for k in range(inputs)]
    h = tuple(_Value(calls, inputs, Number(1.0, k)) for k in range(scalars))
    p, new = bound(rule.body, SAID)(values[P], values[G], tuple(values[2:]), h)
    finals = {P: p.at} | {2 + k: value.at for k, value in enumerate(new)}
    changed = {place: value for place, value in finals.items() if value != place}
    fused = _Fusion(calls, tuple(changed.values())).done()
    return _Places(fused, inputs, changed, own_gradient).plan()


class _Places:
    """Decides which place each value goes to."""

    def __init__(
        self, calls: list[Call], inputs: int, finals: dict[int, int], own_gradient: bool
    ) -> None:
        self.calls, self.inputs, self.finals = calls, inputs, finals
        self.home = {value: place for place, value in finals.items()}
        self.written = {*finals} | ({G} if own_gradient else set())
        self.at = {k: k for k in range(inputs)}
        self.last = {x: i for i, call in enumerate(calls) for x in call.args if isinstance(x, int)}
        self.last |= dict.fromkeys(finals.values(), len(calls))
        self.scratch: list[int] = []
        self.next = inputs

    def plan(self) -> Plan:
        """The whole."""
        done = tuple(self._placed(i, call) for i, call in enumerate(self.calls))
        moves: list[tuple[int, int]] = []
        for place, value in self.finals.items():
            source = self.at[value]
            if source != place:
                if source < self.inputs:  # another's place, which is written as well
                    through = self._new()
                    moves.insert(0, (source, through))
                    source = through
                moves.append((source, place))
        changed = tuple(place - 2 for place in self.finals if place != P)
        return Plan(done, tuple(moves), tuple(self.scratch), changed)

    def _placed(self, i: int, call: Call) -> Call:
        args = call.args
        if call.op in FRESH:
            place, copied = self.next, None
            self.next += 1
        else:
            order = (0, 1) if call.op in ("add", "mul") and isinstance(args[1], int) else (0,)
            chosen = next((k for k in order if self._may(call.out, args[k], i)), None)
            if chosen == 1:
                args = (args[1], args[0])
            first = args[0]
            assert isinstance(first, int)
            place, copied = self.at[first], None
            if chosen is None:
                place, copied = self._free(i, call.out), place
        placed = tuple(self.at[x] if isinstance(x, int) else x for x in args)
        if copied is not None:
            placed = (place, *placed[1:])
        self.at[call.out] = place
        return Call(call.op, placed, place, copied)

    def _may(self, out: int, value: Operand, i: int) -> bool:
        """Whether call `i` may write its result `out` over `value`."""
        if not isinstance(value, int) or self.last[value] != i:
            return False
        place = self.at[value]
        ours = place >= self.inputs or place in self.written
        # the last value of one tensor does not stay in the place of another
        return ours and (place >= self.inputs or self.home.get(out, place) == place)

    def _free(self, i: int, out: int) -> int:
        """A place for `out` whose value is read no more, not even by call `i`."""
        taken = {self.at[v] for v, last in self.last.items() if last >= i and v in self.at}
        home = self.home.get(out)
        choices = [*self.scratch] if home is None else [home, *self.scratch]
        free = next((place for place in choices if place not in taken), None)
        return self._new() if free is None else free

    def _new(self) -> int:
        self.scratch.append(self.next)
        self.next += 1
        return self.scratch[-1]
