"""Write a small pure function from examples, smallest expressions first, without a model.

Bottom-up enumeration up to observational equivalence (A. Albarghouthi, S. Gulwani and Z. Kincaid,
"Recursive program synthesis", CAV 2013): expressions are built from smaller ones and kept when their
values on the examples are new, so that of all ways to say the same only the shortest is pursued. Where
no single expression fits, a condition chooses between two that fit a part of the examples each (R. Alur,
A. Radhakrishna and A. Udupa, "Scaling enumerative program synthesis via divide and conquer", TACAS
2017). Only the operations of the table below are ever run, never a text.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from tracegraph.errors import OptimizerError
from tracegraph.kinds import show

__all__ = ["Example", "expression_for", "synthesized"]

Example = tuple[Mapping[str, Any], Any]
"""The arguments of a call by name, and what it must return."""

_LONGEST: Final = 200  # of a text or list among the values: growth is no way to a small function
_LARGEST: Final = 10**12
_MOST: Final = 20_000
_DEEPEST: Final = 12
_CONSTANTS: Final = (bool, int, float, str)


@dataclass(frozen=True, slots=True)
class _Operation:
    """How an operation reads, what it does, and the types that it takes."""

    form: str
    run: Callable[..., Any]
    takes: tuple[tuple[type, ...], ...]


_NUMBER: Final = (int, float)
_SEQUENCE: Final = (str, list, tuple)
_ANY: Final = (bool, int, float, str, list, tuple, type(None))
_OPERATIONS: Final = (
    _Operation("-{0}", operator.neg, (_NUMBER,)),
    _Operation("abs({0})", abs, (_NUMBER,)),
    _Operation("not {0}", operator.not_, ((bool,),)),
    _Operation("len({0})", len, (_SEQUENCE,)),
    _Operation("sum({0})", sum, ((list, tuple),)),
    _Operation("max({0})", max, ((list, tuple),)),
    _Operation("min({0})", min, ((list, tuple),)),
    _Operation("sorted({0})", sorted, ((list, tuple),)),
    _Operation("{0}[::-1]", lambda x: x[::-1], (_SEQUENCE,)),
    _Operation("{0}[1:]", lambda x: x[1:], (_SEQUENCE,)),
    _Operation("{0}[:-1]", lambda x: x[:-1], (_SEQUENCE,)),
    _Operation("{0}.upper()", str.upper, ((str,),)),
    _Operation("{0}.lower()", str.lower, ((str,),)),
    _Operation("{0}.strip()", str.strip, ((str,),)),
    _Operation("{0}.split()", str.split, ((str,),)),
    _Operation("{0} + {1}", operator.add, (_NUMBER, _NUMBER)),
    _Operation("{0} - {1}", operator.sub, (_NUMBER, _NUMBER)),
    _Operation("{0} * {1}", operator.mul, (_NUMBER, _NUMBER)),
    _Operation("{0} / {1}", operator.truediv, (_NUMBER, _NUMBER)),
    _Operation("{0} // {1}", operator.floordiv, (_NUMBER, _NUMBER)),
    _Operation("{0} % {1}", operator.mod, (_NUMBER, _NUMBER)),
    _Operation("min({0}, {1})", min, (_NUMBER, _NUMBER)),
    _Operation("max({0}, {1})", max, (_NUMBER, _NUMBER)),
    _Operation("{0} + {1}", operator.add, ((str,), (str,))),
    _Operation("{0} + {1}", operator.add, ((list,), (list,))),
    _Operation("{0}.join({1})", str.join, ((str,), (list,))),
    _Operation("{0}[{1}]", operator.getitem, (_SEQUENCE, (int,))),
    _Operation("{0} < {1}", operator.lt, (_NUMBER, _NUMBER)),
    _Operation("{0} <= {1}", operator.le, (_NUMBER, _NUMBER)),
    _Operation("{0} == {1}", operator.eq, (_ANY, _ANY)),
    _Operation("{0} in {1}", lambda x, y: x in y, (_ANY, (list, tuple))),
    _Operation("{0} in {1}", lambda x, y: x in y, ((str,), (str,))),
    _Operation("{0} and {1}", lambda x, y: x and y, ((bool,), (bool,))),
    _Operation("{0} or {1}", lambda x, y: x or y, ((bool,), (bool,))),
)


@dataclass(frozen=True, slots=True)
class _Found:
    """An expression, as it reads alone and inside another, and its value on each example."""

    text: str
    inside: str
    size: int
    values: tuple[Any, ...]


def synthesized(
    text: str, examples: Iterable[Example], *, constants: Iterable[Any] = (), most: int = _MOST
) -> str | None:
    """The function of `text` with a body that fits all the examples; None where none was found.

    Its name, parameters and documentation stay. No text is run, neither `text` nor what is found.

    Args:
        text: Python that defines one function.
        examples: the arguments of calls by name, and what they must return. Few examples are fitted by
            many functions: keep some back, and see whether what was found fits them too.
        constants: values to build from, besides the function's own, 0, 1 and 2.
        most: how many expressions are kept before giving up.

    Raises:
        OptimizerError: `text` is not one plain function, there are no examples, or an example's
            arguments are none of its parameters.

    >>> shipping = "def shipping(weight, express):\\n    return 5"
    >>> known = [({"weight": w, "express": e}, 4 + 2 * w if e else 4) for w in (1, 3) for e in (True, False)]
    >>> print(synthesized(shipping, known, constants=[4]))
    def shipping(weight, express):
        return weight + (weight + 4) if express else 4
    """
    tree = ast.parse(text)
    functions = [item for item in tree.body if isinstance(item, ast.FunctionDef)]
    if len(functions) != 1:
        raise OptimizerError(
            f"a body is found for one plain function, and the text defines {len(functions)}: "
            f"{show(text, 80)}"
        )
    (function,) = functions
    names = [item.arg for item in ast.walk(function.args) if isinstance(item, ast.arg)]
    known = list(examples)
    for arguments, _ in known:
        if not set(arguments) <= set(names):
            raise OptimizerError(
                f"an example gives {', '.join(sorted(arguments))}, and the parameters of "
                f"{function.name} are {', '.join(names)}"
            )
    nodes = [node for item in function.body for node in ast.walk(item)]
    own = [n.value for n in nodes if isinstance(n, ast.Constant) and type(n.value) in _CONSTANTS]
    found = expression_for(known, constants=[*constants, *own], most=most)
    if found is None:
        return None
    documented = ast.get_docstring(function) is not None
    body = ast.parse(f"return {found}").body
    function.body = [*function.body[:1], *body] if documented else body
    return ast.unparse(ast.fix_missing_locations(tree))


def expression_for(
    examples: Iterable[Example], *, constants: Iterable[Any] = (), most: int = _MOST
) -> str | None:
    """The smallest expression that was found to fit all the examples, or None.

    >>> expression_for([({"x": 3}, 9), ({"x": 4}, 16)])
    'x * x'
    """
    known = list(examples)
    if not known:
        raise OptimizerError("a function is written from examples, and there are none")
    wanted = tuple(result for _, result in known)
    pool = _Pool(wanted, most)
    for name in known[0][0]:
        if all(name in arguments for arguments, _ in known):
            pool.add(name, 1, tuple(arguments[name] for arguments, _ in known))
    for value in (*constants, 0, 1, 2, True, False, "", " "):
        pool.add(repr(value), 1, (value,) * len(known))
    for size in range(2, _DEEPEST):
        pool.grow(size)
        found = pool.answer or pool.joined(2 * size)
        if found or pool.full:
            return ast.unparse(ast.parse(found, mode="eval")) if found else None
    return None


class _Pool:
    """The expressions found so far: of those with the same values, the first."""

    def __init__(self, wanted: tuple[Any, ...], most: int) -> None:
        self._wanted, self._most, self._results = _key(wanted), most, wanted
        self._found: dict[tuple[int, type], list[_Found]] = {}
        self._seen: set[Any] = set()
        self.answer: str | None = None

    @property
    def full(self) -> bool:
        return len(self._seen) >= self._most

    def add(self, text: str, size: int, values: tuple[Any, ...]) -> None:
        kind, *others = {type(value) for value in values}
        if others or kind not in _ANY or not all(map(_small, values)):
            return
        key = _key(values)
        if key in self._seen:
            return
        self._seen.add(key)
        found = _Found(text, _bracketed(text), size, values)
        self._found.setdefault((size, kind), []).append(found)
        if key == self._wanted and self.answer is None:
            self.answer = text

    def grow(self, size: int) -> None:
        """Add the expressions of this size."""
        for operation in _OPERATIONS:
            for parts in self._parts(operation.takes, size - 1):
                if self.answer or self.full:
                    return
                try:
                    columns = zip(*(part.values for part in parts), strict=True)
                    values = tuple(operation.run(*column) for column in columns)
                except (ArithmeticError, IndexError, TypeError, ValueError):
                    continue
                self.add(operation.form.format(*(part.inside for part in parts)), size, values)

    def _parts(
        self, takes: tuple[tuple[type, ...], ...], size: int
    ) -> Iterator[tuple[_Found, ...]]:
        """Tuples of expressions of these types whose sizes add up."""
        if len(takes) == 1:
            yield from ((found,) for found in self._of(size, takes[0]))
            return
        for first in range(1, size):
            yield from product(self._of(first, takes[0]), self._of(size - first, takes[1]))

    def _of(self, size: int, kinds: Iterable[type]) -> list[_Found]:
        return [found for kind in kinds for found in self._found.get((size, kind), ())]

    def joined(self, most: int) -> str | None:
        """``a if condition else b`` that fits, the smallest of those up to the size `most`."""
        fitting: dict[frozenset[int], _Found] = {}
        for _, those in sorted(self._found.items(), key=lambda item: item[0][0]):
            for found in those:
                right = frozenset(
                    i
                    for i, (value, wanted) in enumerate(
                        zip(found.values, self._results, strict=True)
                    )
                    if _key(value) == _key(wanted)
                )
                if right:
                    fitting.setdefault(right, found)
        everywhere = frozenset(range(len(self._results)))
        best: tuple[int, str] | None = None
        for condition in self._of_any_size(bool):
            true = frozenset(i for i, value in enumerate(condition.values) if value)
            then, other = _covering(true, fitting), _covering(everywhere - true, fitting)
            if then is None or other is None:
                continue
            size = condition.size + then.size + other.size + 1
            if size <= most and (best is None or size < best[0]):
                best = (size, f"{then.inside} if {condition.text} else {other.inside}")
        return best[1] if best else None

    def _of_any_size(self, kind: type) -> Iterator[_Found]:
        for (_, held), those in sorted(self._found.items(), key=lambda item: item[0][0]):
            if held is kind:
                yield from those


def _covering(needed: frozenset[int], fitting: Mapping[frozenset[int], _Found]) -> _Found | None:
    right = [found for covered, found in fitting.items() if needed <= covered]
    return min(right, key=lambda found: found.size, default=None)


def _key(value: Any) -> Any:
    """What tells values apart: 1, 1.0 and True are three; lists by their items."""
    if isinstance(value, list | tuple):
        return (type(value).__name__, *map(_key, value))
    return (type(value).__name__, repr(value) if isinstance(value, float) else value)


def _small(value: Any) -> bool:
    if isinstance(value, str | list | tuple):
        return len(value) <= _LONGEST
    return not isinstance(value, int | float) or abs(value) <= _LARGEST


def _bracketed(text: str) -> str:
    """`text` in brackets where it is more than one word or call."""
    node = ast.parse(text, mode="eval").body
    atom = ast.Name | ast.Constant | ast.Call | ast.Subscript | ast.Attribute
    return text if isinstance(node, atom) else f"({text})"
