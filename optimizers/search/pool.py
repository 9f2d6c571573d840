"""Grow expressions from small ones, and keep those whose values on the examples are new.

A list among them may be gone through: expressions of an item are grown in the same way, from the items of
all examples at once, and become the bodies and conditions of comprehensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from optimizers.search.vocabulary import KINDS_OF_VALUES, OPERATIONS, REFUSALS, Operation

__all__ = ["Budget", "Found", "Pool", "key_of"]

_LONGEST: Final = 200  # of a text or list among the values: growth is no way to a small function
_LARGEST: Final = 10**12
_MOST_ITEMS: Final = 300  # of all examples' lists together, for what is found to be built upon
_MOST_DISTINCT: Final = 1_000
_MOST_SOURCES: Final = 12
_SOURCE_SIZE: Final = 3
_BODY_SIZE: Final = 5
_BODIES: Final = 3_000
_LAST_BODY_SIZE: Final = 7  # of lists that are an answer or nothing
_LAST_BODIES: Final = 20_000
_WORDS: Final = ("xyzuvw", "abcdef")
_FLAT: Final = (bool, int, str, type(None))


@dataclass(slots=True)
class Budget:
    """How many expressions may still be tried."""

    left: int


@dataclass(frozen=True, slots=True)
class Found:
    """An expression: how it reads, its size, and its value on each example."""

    text: str
    closed: bool
    size: int
    values: tuple[Any, ...]

    @property
    def inside(self) -> str:
        """How it reads inside another."""
        return self.text if self.closed else f"({self.text})"


@dataclass(frozen=True, slots=True)
class _Source:
    """A list that is gone through, and what is found of its items.

    Items that are the same, and stand beside the same values of all other names, are one in `pool`.
    """

    found: Found
    target: str
    pool: Pool
    items: tuple[Any, ...]
    places: list[int]
    counts: list[int]

    @property
    def many(self) -> bool:
        """Whether what is found of the items is an answer or nothing, and not built upon."""
        return len(self.items) > _MOST_ITEMS

    def lists(self, values: Sequence[Any]) -> tuple[list[Any], ...]:
        """One list for each example, from the values for each item of the pool."""
        return _cut([values[place] for place in self.places], self.counts)


class Pool:
    """The expressions found so far: of those with the same values, the first.

    Args:
        seeds: expressions of one word with their values; all have one value for each example.
        budget: what all pools of a search may try together.
        most: how many are kept.
        wanted: values; `answer` is the first expression that has them.
        depth: how many comprehensions may stand in each other.
        judge: called with each expression that is found.
        unpacked: the names of the parts of an item, for items that are tuples of so many.
    """

    def __init__(
        self,
        seeds: Iterable[tuple[str, Sequence[Any]]],
        budget: Budget,
        *,
        most: int,
        wanted: tuple[Any, ...] | None = None,
        depth: int = 1,
        judge: Callable[[Found], None] | None = None,
        unpacked: Mapping[int, str] | None = None,
    ) -> None:
        self._budget, self._most, self._depth = budget, most, depth
        self._wanted = None if wanted is None else key_of(wanted)
        self._results = wanted
        self._by_size: dict[tuple[int, type], list[Found]] = {}
        self._seen: set[Any] = set()
        self._judge, self._unpacked = judge, dict(unpacked or {})
        self._inner: dict[str, _Source] = {}
        self._names = {name for name, _ in seeds}
        self.leaves: list[Found] = []
        self.answer: Found | None = None
        for text, values in seeds:
            self.add("{0}", [Found(text, True, 1, ())], True, 1, tuple(values))

    @property
    def full(self) -> bool:
        """Whether nothing more is tried."""
        return len(self._seen) >= self._most or self._budget.left <= 0

    def add(
        self, form: str, parts: Sequence[Found], closed: bool, size: int, values: tuple[Any, ...]
    ) -> None:
        """Keep an expression of these parts, if its values are new and of one type."""
        kind = type(values[0])
        if kind not in KINDS_OF_VALUES:
            return
        for value in values:
            if type(value) is not kind or not _small(value):
                return
        key = (kind, values) if kind in _FLAT else key_of(values)
        if key in self._seen:
            return
        self._seen.add(key)
        found = Found(form.format(*(part.inside for part in parts)), closed, size, values)
        self._by_size.setdefault((size, kind), []).append(found)
        if key == self._wanted and self.answer is None:
            self.answer = found
        if self._judge is not None:
            self._judge(found)

    def _offer(self, found: Found) -> None:
        """Take an expression for the answer, if it is one; it is not built upon."""
        wanted = self._results
        if (
            wanted is not None
            and self.answer is None
            and key_of(found.values[:1]) == key_of(wanted[:1])
        ):
            self.answer = found if key_of(found.values) == self._wanted else None
        if self._judge is not None:
            self._judge(found)

    def grow(self, size: int) -> None:
        """Add the expressions of this size; what goes through long lists first: each costs much."""
        if self._depth:
            if size == 2:
                self._add_sources(1)
            self._go_through(size, many=True)
        for operation in OPERATIONS:
            for parts in self._parts(operation, size - 1):
                if self.answer or self.full:
                    return
                self._budget.left -= 1
                self._apply(operation, parts, size)
        if self._depth:
            self._go_through(size, many=False)
            self._add_sources(size)

    def _apply(self, operation: Operation, parts: tuple[Found, ...], size: int) -> None:
        run = operation.run
        try:
            if len(parts) == 1:
                values = tuple(map(run, parts[0].values))
            else:
                values = tuple(map(run, parts[0].values, parts[1].values))
        except REFUSALS:
            if self._results is not None:
                self._add_leaf(operation, parts, size)
            return
        self.add(operation.form, parts, operation.closed, size, values)

    def _add_leaf(self, operation: Operation, parts: tuple[Found, ...], size: int) -> None:
        """Keep what fails on some examples and is right on others, for one side of a condition."""
        values: list[Any] = []
        right = 0
        for column, wanted in zip(
            zip(*(p.values for p in parts), strict=True), self._results or (), strict=True
        ):
            try:
                value = operation.run(*column)
            except REFUSALS:
                values.append(Failed)
                continue
            right += key_of((value,)) == key_of((wanted,))
            values.append(value)
        if right:
            text = operation.form.format(*(part.inside for part in parts))
            self.leaves.append(Found(text, operation.closed, size, tuple(values)))

    def _parts(self, operation: Operation, size: int) -> Iterator[tuple[Found, ...]]:
        """The arguments of an operation whose sizes add up."""
        takes = operation.takes
        if len(takes) == 1:
            yield from ((found,) for found in self._of(size, takes[0]))
            return
        for first in range(1, size):
            if operation.commutes and first > size - first:
                return
            ones, others = self._of(first, takes[0]), self._of(size - first, takes[1])
            if operation.commutes and 2 * first == size:
                yield from ((a, b) for n, a in enumerate(ones) for b in others[n:])
            else:
                yield from product(ones, others)

    def _of(self, size: int, kinds: Iterable[type]) -> list[Found]:
        return [found for kind in kinds for found in self._by_size.get((size, kind), ())]

    def of_kind(self, kind: type) -> Iterator[Found]:
        """All expressions of a type, the smallest first."""
        for (_, held), those in sorted(self._by_size.items(), key=lambda item: item[0][0]):
            if held is kind:
                yield from those

    def everything(self) -> Iterator[Found]:
        """All expressions, the smallest first."""
        for _, those in sorted(self._by_size.items(), key=lambda item: item[0][0]):
            yield from those

    # Comprehensions

    def _go_through(self, size: int, *, many: bool) -> None:
        """Add the comprehensions of this size: of an item's expressions, over each such source."""
        for source in self._inner.values():
            inner = size - source.found.size
            if source.many is not many or not 1 <= inner <= (
                _LAST_BODY_SIZE if source.many else _BODY_SIZE
            ):
                continue
            if inner > 1 and not source.pool.full:
                source.pool.grow(inner)
            for kind in KINDS_OF_VALUES:
                for body in source.pool._of(inner, (kind,)):
                    if self.answer or self.full:
                        return
                    self._budget.left -= 1
                    self._add_comprehension(source, body, size)
                    if kind is bool and not many:
                        self._add_filter(source, body, size)

    def _add_comprehension(self, source: _Source, body: Found, size: int) -> None:
        parts = body, Found(source.target, True, 1, ()), source.found
        form, lists = "[{0} for {1} in {2}]", source.lists(body.values)
        if source.many:
            text = form.format(*(part.inside for part in parts))
            self._offer(Found(text, True, size, lists))
        else:
            self.add(form, parts, True, size, lists)

    def _add_filter(self, source: _Source, condition: Found, size: int) -> None:
        kept = zip(source.lists(condition.values), _cut(source.items, source.counts), strict=True)
        values = tuple([v for yes, v in zip(one, items, strict=True) if yes] for one, items in kept)
        target = Found(source.target, True, 1, ())
        item = Found(source.target, "," not in source.target, 1, ())
        parts = condition, target, source.found, item
        self.add("[{3} for {1} in {2} if {0}]", parts, True, size, values)

    def _add_sources(self, size: int) -> None:
        """Begin to go through the lists and texts that were found at this size, and pairs of lists."""
        if size > _SOURCE_SIZE:
            return
        for found in self._of(size, (list, tuple, str)):
            self._add_source(found, found.values)
        lists = [*self._of(1, (list, tuple))]
        if size == 2:
            for a, b in product(lists, lists):
                if a is not b and all(
                    len(x) == len(y) for x, y in zip(a.values, b.values, strict=True)
                ):
                    pairs = tuple(
                        [*zip(x, y, strict=True)] for x, y in zip(a.values, b.values, strict=True)
                    )
                    self._add_parts(Found(f"zip({a.text}, {b.text})", True, 2, pairs), 2)

    def _add_source(self, found: Found, values: Sequence[Any]) -> None:
        """Go through a list; one of tuples that are all as long by the names of their parts, too.

        A long list is gone through as it is given, and in one way, as each way costs as much again.
        """
        many = sum(map(len, values)) > _MOST_ITEMS
        if many and found.size > 1:
            return
        lengths = {len(item) if type(item) is tuple else 0 for value in values for item in value}
        if len(lengths) == 1 and 2 <= max(lengths) <= len(_WORDS[0]):
            self._add_parts(found, *lengths)
            if many:
                return
        name = next((word for word in ("x", "y") if word not in self._names), None)
        if name is not None:
            self._enter(found, name, lambda item: (item,))

    def _add_parts(self, found: Found, length: int) -> None:
        """Go through a list of tuples of this length."""
        known = self._unpacked.get(length)
        targets = [*filter(None, [known]), *(", ".join(words[:length]) for words in _WORDS)]
        target = next((one for one in targets if not self._names & set(one.split(", "))), None)
        if target is not None:
            self._enter(found, target, tuple)

    def _enter(self, found: Found, target: str, parts: Callable[[Any], tuple[Any, ...]]) -> None:
        """Begin with the expressions of an item, whose `parts` have the names of the target."""
        counts = [len(value) for value in found.values]
        items = tuple(item for value in found.values for item in value)
        if len(self._inner) >= _MOST_SOURCES or not items:
            return
        around = [one for one in self.everything() if one.size == 1]
        if len(items) > _MOST_ITEMS:
            around = [one for one in around if type(one.values[0]) not in (list, tuple)]
        beside = [[one.values[n] for one in around] for n in range(len(counts))]
        rows = [
            (*parts(item), *beside[n]) for n, value in enumerate(found.values) for item in value
        ]
        distinct: dict[Any, tuple[int, tuple[Any, ...]]] = {}
        places = [distinct.setdefault(key_of(row), (len(distinct), row))[0] for row in rows]
        if len(distinct) > _MOST_DISTINCT:
            return
        names = [*target.split(", "), *(one.text for one in around)]
        columns = zip(*(row for _, row in distinct.values()), strict=True)
        many = len(items) > _MOST_ITEMS
        pool = Pool(
            [*zip(names, columns, strict=True)],
            self._budget,
            most=_LAST_BODIES if many else _BODIES,
            depth=self._depth - 1,
        )
        text = f"{found.text} by {target}"
        self._inner[text] = _Source(found, target, pool, items, places, counts)


class Failed:
    """Stands for the value of an example on which an expression fails."""


def key_of(values: Any) -> Any:
    """What tells values apart: 1, 1.0 and True are three; lists by their items.

    >>> key_of([1]) == key_of([1]), key_of([1]) == key_of([True])
    (True, False)
    """
    kinds = set(map(type, values))
    if len(kinds) == 1:
        (kind,) = kinds
        if kind in _FLAT:
            return kind, tuple(values)
        if kind is float:
            return kind, tuple("nan" if math.isnan(v) else (v, math.copysign(1, v)) for v in values)
        if kind in (list, tuple):
            return kind, tuple(map(key_of, values))
    return tuple((type(v).__name__, key_of((v,)) if type(v) in _KEYED else v) for v in values)


_KEYED: Final = (list, tuple, float)


def _cut(values: Sequence[Any], counts: Sequence[int]) -> tuple[list[Any], ...]:
    """`values` as one list for each example."""
    found, start = [], 0
    for count in counts:
        found.append(list(values[start : start + count]))
        start += count
    return tuple(found)


def _small(value: Any) -> bool:
    if isinstance(value, str | list | tuple):
        return len(value) <= _LONGEST
    return not isinstance(value, int | float) or abs(value) <= _LARGEST
