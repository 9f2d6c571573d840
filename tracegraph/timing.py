"""Whether one function is faster than another, told in spite of noise.

Other programs, a hot processor and the garbage collector disturb single measurements by more than most
improvements are worth. So both functions are timed in pairs, one right after the other, and only which of the
two won a pair is counted: the sign test (W. J. Dixon and A. M. Mood, "The statistical sign test",
Journal of the American Statistical Association 41, 1946). If neither is faster each wins a pair with a
chance of one half, whatever the noise looks like, so the chance of a false "faster" is known exactly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

__all__ = ["is_faster", "needed_wins", "paired_times"]


def needed_wins(pairs: int, rate: float) -> int:
    """How many of `pairs` must be won so that a false "faster" has at most the chance `rate`.

    More than there are pairs, where so few can never tell.

    >>> needed_wins(20, 0.01), needed_wins(5, 0.01)
    (16, 6)
    """
    if pairs < 1 or not 0 < rate < 1:
        raise ValueError(
            f"a test needs at least one pair and a rate between 0 and 1, got {pairs} and {rate}"
        )
    tail = 0
    for wins in range(pairs, -1, -1):
        tail += math.comb(pairs, wins)
        if tail / 2**pairs > rate:
            return wins + 1
    return 0


def is_faster(
    before: Sequence[float], after: Sequence[float], *, rate: float = 0.01, by: float = 0.0
) -> bool:
    """Whether `after` beats `before`, by at least the share `by`, in enough of the pairs.

    If the new function is not faster by that share, True comes with a chance of at most `rate`.

    Args:
        before, after: seconds, pair by pair, as `paired_times` gives them.
        rate: the chance of a false True that is accepted.
        by: the least share of the time that must be saved: 0.1 asks for ten percent.

    Raises:
        ValueError: the times are no pairs, or an option is out of range.

    >>> is_faster([1.0] * 20, [0.8] * 20), is_faster([1.0] * 20, [0.8] * 20, by=0.3)
    (True, False)
    """
    if len(before) != len(after):
        raise ValueError(f"times come in pairs, got {len(before)} before and {len(after)} after")
    if not 0 <= by < 1:
        raise ValueError(f"by= is a share from 0 to below 1, got {by}")
    wins = sum(new < old * (1 - by) for old, new in zip(before, after, strict=True))
    return wins >= needed_wins(len(before), rate)


def paired_times(
    before: Callable[[], object],
    after: Callable[[], object],
    *,
    pairs: int = 30,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[float], list[float]]:
    """Seconds of both functions, pair by pair; which goes first changes with every pair.

    Both run once before, so that neither pays for what is loaded at the first call.

    >>> old, new = paired_times(lambda: sum(range(10_000)), lambda: sum(range(10)), pairs=20)
    >>> is_faster(old, new)
    True
    """
    before()
    after()
    old: list[float] = []
    new: list[float] = []
    for number in range(pairs):
        turns = [(before, old), (after, new)]
        for action, times in turns if number % 2 == 0 else reversed(turns):
            began = clock()
            action()
            times.append(clock() - began)
    return old, new
