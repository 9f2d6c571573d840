"""Join what two candidates learned since their common ancestor.

Source: Agrawal and others, "GEPA", 2025 (arXiv 2507.19457), appendix on system-aware merge: for each
parameter take the side that changed it; where both did, the side that scores better.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from optimizers.candidate import Candidate, identity
from optimizers.training.policies.policy import Entry

__all__ = ["ancestors", "merged"]


def merged(first: Entry, second: Entry, ancestor: Candidate) -> Candidate | None:
    """What both made of an ancestor, in one candidate; ``None`` where it is no new one.

    >>> start, a, b = ({"x": 0, "y": 0}, {"x": 1, "y": 0}, {"x": 0, "y": 2})
    >>> one, two = (Entry(Candidate.of(values)) for values in (a, b))
    >>> dict(merged(one, two, Candidate.of(start)).values)
    {'x': 1, 'y': 2}
    """
    better, other = (first, second) if first.rank >= second.rank else (second, first)
    values = {
        name: other.candidate.values[name]
        if _same(better.candidate.values[name], value)
        else better.candidate.values[name]
        for name, value in ancestor.values.items()
    }
    parents = (first.candidate.id, second.candidate.id)
    made = Candidate.of(values, parents)
    return None if made.id in (*parents, ancestor.id) else made


def ancestors(candidate: Candidate, known: Mapping[str, Candidate]) -> Iterator[str]:
    """The ids of a candidate's ancestors, the nearest first."""
    waiting, seen = list(candidate.parents), set()
    while waiting:
        name = waiting.pop(0)
        if name in known and name not in seen:
            seen.add(name)
            yield name
            waiting += known[name].parents


def _same(first: Any, second: Any) -> bool:
    return identity({"": first}) == identity({"": second})
