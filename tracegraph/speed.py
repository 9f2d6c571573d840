"""Speed as an objective: new code is taken only when it is faster, told in spite of noise.

Whether a text is right is for the tests beside it. This asks only whether it is faster than the text
that it would replace, where both run in the same place.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, final

from tracegraph.bounded import make_room
from tracegraph.marking import BadSource
from tracegraph.parameter import Parameter
from tracegraph.timing import is_faster, needed_wins, paired_times

__all__ = ["Faster", "IsFaster"]

_MOST_REMEMBERED = 64


@final
class Faster:
    """Take new code only when some work takes less time with it than with the present code.

    Give it among ``checks=``, beside at least one test: code that is fast and wrong is easy to find. Old and
    new run in turns, `pairs` times, and only who won a pair counts (see `tracegraph.timing`). Code
    that is not faster is taken with a chance of at most `rate`; of `n` such proposals, at most ``n * rate``
    are taken on average. A text that was in force before is always taken again.

    Args:
        work: for a plain function the arguments of each call, as tuples; for anything one function that is
            given the function, the method, the class or the module, and uses it, as a test does. It runs
            here and the code where it would run. A call in the sandbox costs 5 ms of its own: let the
            work take longer than that, or trust the code.
        rate: the chance of a false acceptance.
        by: the least share of the time that must be saved: 0.1 asks for ten percent.
        pairs: how often both are timed.

    Raises:
        ValueError: no work, or too few pairs for that rate.

    >>> Faster((10_000,), (20_000,), by=0.1).describe()
    'takes at least 10 % less time than the present code'
    """

    def __init__(
        self,
        *work: tuple[Any, ...] | Callable[[Any], object],
        rate: float = 0.01,
        by: float = 0.0,
        pairs: int = 30,
    ) -> None:
        calls = tuple(call for call in work if isinstance(call, tuple))
        uses = work[0] if len(work) == 1 and callable(work[0]) else None
        if not work or (uses is None and len(calls) < len(work)):
            raise ValueError(
                "Faster takes calls as tuples of arguments, ((10,), (20,)), or one function that uses the "
                f"code; got {work!r}"
            )
        if needed_wins(pairs, rate) > pairs:
            raise ValueError(
                f"{pairs} pairs can never tell at a rate of {rate}; give more pairs or a larger rate"
            )
        if not 0 <= by < 1:
            raise ValueError(f"by= is a share from 0 to below 1, got {by}")
        self.uses: Callable[[Any], object] | None = uses
        self.calls, self.rate, self.by, self.pairs = calls, rate, by, pairs

    def __call__(self, *_: Any) -> bool:
        """Refuse: it is no test by itself."""
        raise TypeError("Faster stands in checks=[...] of something trainable")

    def describe(self) -> str:
        """The condition in words."""
        share = f"at least {100 * self.by:g} % " if self.by else ""
        return f"takes {share}less time than the present code"


@final
@dataclass(slots=True)
class IsFaster:
    """The check that `Faster` asks for, of one parameter.

    Args:
        wanted: how much, and how surely.
        made: makes of a text what does the work once.
        first: the text in force until `follow` names the parameter.
        clock: seconds.
    """

    wanted: Faster
    made: Callable[[str], Callable[[], object]]
    first: str
    clock: Callable[[], float] = time.perf_counter
    _parameter: Parameter[str] | None = None
    _held: set[str] = field(default_factory=set)
    _known: dict[tuple[str, str], str] = field(default_factory=dict)

    def follow(self, parameter: Parameter[str]) -> None:
        """Compare with what `parameter` holds from now on."""
        self._parameter = parameter

    def following(self, parameter: Parameter[str]) -> IsFaster:
        """The same check of a copy of the parameter, as every object has of its methods' code."""
        known = set(self._held), dict(self._known)
        return IsFaster(self.wanted, self.made, self.first, self.clock, parameter, *known)

    def describe(self) -> str:
        """The condition in words."""
        return self.wanted.describe()

    def __call__(self, text: str) -> bool:
        """True for a text that is faster than the present one, or was in force before.

        Raises:
            BadSource: it is not, or fails on a call; with the times.
        """
        present = self.first if self._parameter is None else self._parameter.data
        self._held.add(present)
        if text in self._held:
            return True
        key = (present, text)
        verdict = self._known.get(key)
        if verdict is None:
            verdict = self._verdict(present, text)
            make_room(self._known, _MOST_REMEMBERED)
            self._known[key] = verdict
        if verdict:
            raise BadSource(verdict)
        return True

    def _verdict(self, present: str, text: str) -> str:
        """Why the text is refused, or nothing."""
        old, new = self.made(present), self.made(text)
        try:
            new()
        except Exception as error:
            lines = error.__dict__.get("marked", "")
            return f"fails on a call that it is timed by: ({type(error).__name__}) {error}\n{lines}"
        try:
            old()
        except Exception:  # what fails is slower than anything that works
            return ""
        wanted = self.wanted
        before, after = paired_times(old, new, pairs=wanted.pairs, clock=self.clock)
        if is_faster(before, after, rate=wanted.rate, by=wanted.by):
            return ""
        pairs = zip(before, after, strict=True)
        wins = sum(n < o * (1 - wanted.by) for o, n in pairs)
        need = needed_wins(wanted.pairs, wanted.rate)
        share = f" by {100 * wanted.by:g} %" if wanted.by else ""
        return (
            f"is not faster{share} than the present code: it won {wins} of {wanted.pairs} pairs, and "
            f"{need} are needed; a round of calls took {_time(after)}, with the present code {_time(before)}"
        )


def _time(times: list[float]) -> str:
    import statistics  # inside, as it takes 5 ms: only a refusal needs it

    seconds = statistics.median(times)
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
