"""Keep every candidate that none other beats everywhere, and merge what two of them learned.

Source: Agrawal and others, "GEPA: Reflective Prompt Evolution Can Outperform Reinforcement Learning", 2025
(arXiv 2507.19457), algorithm 2: candidates that are the best on some instance are drawn by on how many
they are the best. Over objectives every candidate of the front is as likely.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from random import Random
from typing import Literal, final

from optimizers.candidate import Candidate
from optimizers.training.policies.merge import ancestors, merged
from optimizers.training.policies.policy import Entry, Policy, Task
from tracegraph.errors import OptimizerError

__all__ = ["Over", "Pareto", "dominates", "front"]

Over = Literal["instances", "objectives"]
_COORDINATES: dict[str, Callable[[Entry], tuple[float, ...]]] = {
    "instances": lambda entry: tuple(entry.scores),
    "objectives": lambda entry: (
        tuple(value for _, value in sorted(entry.objectives.items())) or (entry.score,)
    ),
}


def dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether the first is nowhere less and somewhere more.

    >>> dominates((1, 2), (1, 1)), dominates((1, 1), (1, 1)), dominates((2, 0), (1, 1))
    (True, False, False)
    """
    pairs = list(zip(first, second, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def front(entries: Sequence[Entry], over: Over = "instances") -> list[Entry]:
    """The entries that none other dominates, among those with the fewest violations.

    Of several with the same coordinates the first counts.
    """
    fewest = min((entry.violations for entry in entries), default=0)
    found: dict[tuple[float, ...], Entry] = {}
    for entry in entries:
        if entry.violations == fewest:
            found.setdefault(_COORDINATES[over](entry), entry)
    return [
        entry
        for place, entry in found.items()
        if not any(dominates(other, place) for other in found)
    ]


@final
class Pareto(Policy):
    """Draws the candidate to improve from the Pareto front.

    Args:
        over: ``"instances"`` compares candidates example by example, so that one which alone solves an
            example stays; ``"objectives"`` by the objectives that the guide gives.
        merge: whether two members of the front that descend from one ancestor are merged, once for
            every candidate that was told since.

    >>> from optimizers.candidate import Candidate
    >>> pareto = Pareto()
    >>> for x, scores in ((0, [0, 0]), (1, [1, 0]), (2, [0, 1]), (3, [0, 0.5])):
    ...     pareto.tell(Entry(Candidate.of({"x": x}), scores))
    >>> [entry.candidate.values["x"] for entry in pareto.front()]
    [1, 2]
    """

    def __init__(self, over: Over = "instances", *, merge: bool = True) -> None:
        if over not in _COORDINATES:
            raise OptimizerError(f"over is 'instances' or 'objectives', got {over!r}")
        self.over: Over = over
        self.merge = merge
        self.entries: list[Entry] = []
        self._front: list[Entry] = []
        self._made: set[str] = set()
        self._due = False

    def tell(self, entry: Entry) -> None:
        """Take in a candidate."""
        self.entries.append(entry)
        self._join(entry)
        self._made.add(entry.candidate.id)
        self._due = self.merge

    def ask(self, random: Random) -> Task:
        """A merge where one is due and can be made, else a member of the front."""
        members = self.front()
        if self._due:
            self._due = False
            made = self._merged(members, random)
            if made is not None:
                self._made.add(made.id)
                return Task(made, merged=True)
        return Task(random.choices(members, self._wins(members))[0].candidate)

    def front(self) -> list[Entry]:
        """The candidates that none other dominates."""
        return list(self._front)

    def _join(self, entry: Entry) -> None:
        """Take an entry into the front, if nobody there beats it; whoever it beats leaves."""
        members, place = self._front, _COORDINATES[self.over](entry)
        fewest = min((e.violations for e in members), default=entry.violations)
        if entry.violations < fewest:
            members = []
        places = [_COORDINATES[self.over](e) for e in members]
        if entry.violations > fewest or any(p == place or dominates(p, place) for p in places):
            return
        kept = [e for e, p in zip(members, places, strict=True) if not dominates(place, p)]
        self._front = [*kept, entry]

    def _wins(self, members: list[Entry]) -> list[int]:
        """On how many instances each member is the best; over objectives all are alike."""
        if self.over == "objectives":
            return [1] * len(members)
        places = [_COORDINATES[self.over](entry) for entry in members]
        most = [max(column) for column in zip(*places, strict=True)]
        wins = [sum(x == top for x, top in zip(place, most, strict=True)) for place in places]
        return wins if any(wins) else [1] * len(members)

    def _merged(self, members: list[Entry], random: Random) -> Candidate | None:
        known = {entry.candidate.id: entry.candidate for entry in self.entries}
        behind = {e.candidate.id: list(ancestors(e.candidate, known)) for e in members}
        pairs = list(combinations(members, 2))
        random.shuffle(pairs)
        for first, second in pairs:
            mine, theirs = behind[first.candidate.id], behind[second.candidate.id]
            if first.candidate.id in theirs or second.candidate.id in mine:
                continue
            shared = next((name for name in mine if name in theirs), None)
            made = None if shared is None else merged(first, second, known[shared])
            if made is not None and made.id not in self._made:
                return made
        return None
