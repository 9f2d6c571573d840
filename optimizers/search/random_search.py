"""Random search: every candidate is drawn for itself, whatever the scores say."""

from __future__ import annotations

import math
from random import Random
from typing import Any, final

from optimizers.candidate import Candidate, Trial
from optimizers.search.search import Search

__all__ = ["RandomSearch"]


@final
class RandomSearch(Search):
    """Draw candidates at random; what every other search has to beat.

    A number with two bounds is drawn evenly between them (evenly in its logarithm, where it is
    varied by factors). Every other value is the first one after one to eight mutations.

    >>> import tracegraph as tg
    >>> from typing import Literal
    >>> color = tg.node("red", trainable=True, name="color", constraint=Literal["red", "green"])
    >>> [candidate.values["color"] for candidate in RandomSearch([color]).ask(9)]
    ['red', 'green']
    """

    def _brood(self) -> int:
        return 1

    def _bred(self, random: Random, effort: int, chosen: list[Trial]) -> Candidate:
        values: dict[str, Any] = dict(self._root.values)
        moving, edited = self._free()
        for name in moving:
            bounded = all(map(math.isfinite, self.named_parameters[name].constraint.bounds))
            step, times = (1.0, 3) if bounded else (0.5, random.randint(1, 8))
            values[name] = self._varied(name, values[name], random, step, times=times)
        for name in edited:
            values[name] = self._varied(name, values[name], random, times=random.randint(1, 8))
        return Candidate("", values, (self._root.id,))
