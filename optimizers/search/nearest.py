"""Functions that come near to what examples want, where none has to fit them all.

Bottom-up enumeration as in `optimizers.search.synthesis`, with a loss in the place of equality (S. Handa
and M. Rinard, "Inductive program synthesis over noisy data", ESEC/FSE 2020): of all functions that differ on
the examples, those with the least loss are kept.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Iterable
from typing import Any, Final

from optimizers.search.header import Example, Header, tidied
from optimizers.search.pool import Budget, Found, Pool
from optimizers.search.synthesis import seeds_of
from optimizers.search.vocabulary import REFUSALS
from tracegraph.errors import OptimizerError
from tracegraph.kinds import show

__all__ = ["nearest"]

_MOST: Final = 50_000
_KEPT: Final = 10_000
_DEEPEST: Final = 14


def nearest(
    text: str,
    examples: Iterable[Example],
    *,
    loss: Callable[[Any, Any], float],
    count: int = 10,
    constants: Iterable[Any] = (),
    most: int = _MOST,
) -> list[tuple[float, str]]:
    """The functions of `text` with the least mean loss on the examples, the best first, smaller ones before.

    Each comes with its loss. Their names, parameters and documentation stay. No text is run.

    Args:
        text: Python that defines one function.
        examples: the arguments of calls by name, and what `loss` is to be given beside the result.
        loss: how far a result is from what was wanted, from 0 up. A result for which it raises
            TypeError, ValueError or IndexError is none: such a function is passed over.
        count: how many at most.
        constants: values to build from, besides the function's own, 0, 1 and 2.
        most: how many expressions are tried.

    Raises:
        OptimizerError: as `synthesized`; `count` is less than 1; a loss is no number from 0 up.

    >>> noisy = [({"x": 1}, 2.1), ({"x": 4}, 7.9), ({"x": 9}, 18.0)]
    >>> nearest("def f(x):\\n    return 0", noisy, loss=lambda gave, wanted: abs(gave - wanted))[0][1]
    'def f(x):\\n    return x + x'
    """
    if not isinstance(count, int) or count < 1:
        raise OptimizerError(f"count must be a whole number from 1, got {show(count, 40)}")
    header = Header(text)
    known = header.checked(examples)
    kept: list[tuple[float, int, int, str]] = []
    met = 0

    def judge(found: Found) -> None:
        nonlocal met
        met += 1
        try:
            mean = sum(
                _number(loss(gave, wanted))
                for gave, (_, wanted) in zip(found.values, known, strict=True)
            ) / len(known)
        except REFUSALS:
            return
        insort(kept, (mean, found.size, met, found.text))
        del kept[count:]

    seeds = seeds_of(known, [*constants, *header.constants])
    pool = Pool(seeds, Budget(most), most=_KEPT, judge=judge, unpacked=header.unpacked)
    for size in range(2, _DEEPEST):
        pool.grow(size)
        if pool.full:
            break
    return [(mean, header.returning(tidied(found))) for mean, _, _, found in kept]


def _number(loss: Any) -> float:
    if isinstance(loss, bool) or not isinstance(loss, int | float) or not 0 <= loss < math.inf:
        raise OptimizerError(f"a loss must be a number from 0 up, got {show(loss, 40)}")
    return loss
