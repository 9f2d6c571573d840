"""Join expressions that fit a part of the examples each by conditions that tell the parts apart.

As in R. Alur, A. Radhakrishna and A. Udupa, "Scaling enumerative program synthesis via divide and
conquer" (TACAS 2017), with chains in the place of trees: one side of each condition is an expression.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from optimizers.search.pool import Found, Pool, key_of

__all__ = ["decided"]

_MOST_CONDITIONS: Final = 3
_BEAM: Final = 24


class _Chain(NamedTuple):
    size: int
    text: str
    alone: bool = False  # without a condition


def decided(pool: Pool, results: tuple[Any, ...], most: int) -> str | None:
    """``a if condition else b`` that gives the results, b perhaps such a choice again.

    The smallest that was found, of those up to the size `most`.
    """
    fitting = _fitting((*pool.everything(), *pool.leaves), results)
    conditions = _told_apart(pool.of_kind(bool))
    found = _chain(frozenset(range(len(results))), fitting, conditions, most, _MOST_CONDITIONS)
    return None if found is None else found.text


def _fitting(those: Iterable[Found], results: tuple[Any, ...]) -> dict[frozenset[int], Found]:
    """The smallest expression for each set of examples that some expression fits."""
    keys = [key_of((result,)) for result in results]
    found: dict[frozenset[int], Found] = {}
    for one in those:
        right = frozenset(i for i, value in enumerate(one.values) if key_of((value,)) == keys[i])
        if right and (right not in found or one.size < found[right].size):
            found[right] = one
    return found


def _told_apart(conditions: Iterable[Found]) -> dict[frozenset[int], Found]:
    """The smallest condition for each set of examples for which one holds."""
    found: dict[frozenset[int], Found] = {}
    for one in conditions:
        found.setdefault(frozenset(i for i, value in enumerate(one.values) if value), one)
    return found


def _covering(needed: frozenset[int], fitting: Mapping[frozenset[int], Found]) -> Found | None:
    right = [found for covered, found in fitting.items() if needed <= covered]
    return min(right, key=lambda found: found.size, default=None)


def _chain(
    needed: frozenset[int],
    fitting: Mapping[frozenset[int], Found],
    conditions: Mapping[frozenset[int], Found],
    most: int,
    left: int,
) -> _Chain | None:
    """The smallest choice for the examples `needed` with at most `left` conditions."""
    leaf = _covering(needed, fitting)
    best = None if leaf is None or leaf.size > most else _Chain(leaf.size, leaf.inside, alone=True)
    if best is not None or not left:
        return best
    steps: list[tuple[float, int, Found, Found, frozenset[int], bool]] = []
    seen: set[frozenset[int]] = set()
    for holds, condition in conditions.items():
        for side, other, yes in (
            (needed & holds, needed - holds, True),
            (needed - holds, needed & holds, False),
        ):
            if not side or not other or side in seen or condition.size >= most:
                continue
            seen.add(side)
            then = _covering(side, fitting)
            if then is not None:
                cost = condition.size + then.size
                steps.append((cost / len(side), cost, condition, then, other, yes))
    steps.sort(key=lambda step: step[:2])
    for _, cost, condition, then, rest, yes in steps[: _BEAM if left > 1 else None]:
        room = (most if best is None else best.size - 1) - cost - 1
        if room < 1:
            continue
        otherwise = _chain(rest, fitting, conditions, room, left - 1)
        if otherwise is None:
            continue
        if yes:
            text = f"{then.inside} if {condition.text} else {otherwise.text}"
        elif otherwise.alone:
            text = f"{otherwise.text} if {condition.text} else {then.inside}"
        else:
            text = f"{then.inside} if not {condition.inside} else {otherwise.text}"
        best = _Chain(cost + otherwise.size + 1, text)
    return best
