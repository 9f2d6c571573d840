"""The candidates of a search as a picture: who descends from whom, what was kept, which are best.

The Pareto front holds the candidates that no other beats: none is at least as good in every score
and better in one (Deb, "Multi-objective optimization using evolutionary algorithms", 2001, 2.4).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

from tracegraph.errors import PictureError
from tracegraph.view.page import Entry, Frame, Front
from tracegraph.view.picture import Arrow, Box, Picture, Role

__all__ = ["Candidate", "front", "fronts", "lineage"]

_WORDS: tuple[tuple[str, str], ...] = (
    ("input", "start"), ("operation", "kept"), ("output", "best"), ("failure", "rejected"),
    ("way", "line of the best"), ("inputs", "Made from"), ("users", "Led to"),
)  # fmt: skip
_REFUSED = ("reject", "drop", "skip", "fail", "worse", "discard")
_SCORES = 200  # that the details of one candidate list


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A set of values that a search tried; larger scores are better.

    `scores` are by objective or example, `values` are texts by parameter. `status` is a word for
    what became of it ("accepted", "rejected"), `note` says why.
    """

    id: str
    parents: tuple[str, ...] = ()
    step: int = 0
    score: float | None = None
    status: str = ""
    note: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)


class Scored(Protocol):
    """Anything with scores by name; larger is better."""

    @property
    def scores(self) -> Mapping[str, float]:
        """The scores."""
        ...


S = TypeVar("S", bound=Scored)


def front(candidates: Iterable[S], objectives: Iterable[str] | None = None) -> list[S]:
    """The Pareto front: those that no other is at least as good as in every score and better in one.

    What counts are the scores named in `objectives`, by default all that any candidate has. Who lacks
    one of them, or has one that is not finite, is left out.

    >>> made = [Candidate(id=i, scores={"short": s, "right": r})
    ...         for i, s, r in [("a", 1, 0), ("b", 0, 1), ("c", 0, 0.5)]]
    >>> [candidate.id for candidate in front(made)]
    ['a', 'b']
    """
    candidates = list(candidates)
    every = {name for candidate in candidates for name in candidate.scores}
    names = sorted(every if objectives is None else set(objectives))
    whole = [c for c in candidates if names and c.scores.keys() >= set(names)]
    points = np.array([[c.scores[name] for name in names] for c in whole], float)
    kept = []
    for candidate, point in zip(whole, points, strict=True):
        beaten = (points >= point).all(axis=1) & (points > point).any(axis=1)
        if np.isfinite(point).all() and not beaten.any():
            kept.append(candidate)
    return kept


def fronts(candidates: Sequence[Candidate]) -> list[Front]:
    """The candidates by two scores at a time: the first three others against the first, by name."""
    names = sorted({name for candidate in candidates for name in candidate.scores})
    best = frozenset(candidate.id for candidate in front(candidates))
    return [
        Front(
            x=names[0], y=name, best=best,
            points=tuple(
                (c.id, c.scores[names[0]], c.scores[name]) for c in candidates
                if {names[0], name} <= c.scores.keys()
            ),
        )
        for name in names[1:4]
    ]  # fmt: skip


def lineage(candidates: Sequence[Candidate]) -> Frame:
    """A frame that shows `candidates`, each below those that it was made from.

    Parents that are not among them are left out. Raises `PictureError` where two share an id or
    one descends from itself.
    """
    by_id = {candidate.id: candidate for candidate in candidates}
    if len(by_id) < len(candidates):
        ids = [candidate.id for candidate in candidates]
        twice = next(name for name in ids if ids.count(name) > 1)
        raise PictureError(f"two candidates have the id {twice!r}; give each its own")
    keys = {name: number for number, name in enumerate(by_id, 1)}
    scored = [c for c in candidates if c.score is not None and not _refused(c)]
    best = max(scored, key=lambda c: c.score or 0.0, default=None)
    ahead = {candidate.id for candidate in front(candidates)}
    boxes = tuple(
        Box(
            key=keys[c.id],
            title=c.id[:8],
            lines=tuple(filter(None, (_scored(c), _told(c)))),
            role=_role(c, best),
            kind="front" if c.id in ahead else "",
            on_path=best is not None and c.id in _line(best, by_id),
            tooltip="\n".join(filter(None, (c.id, c.status, c.note))),
        )
        for c in candidates
    )
    marked = {box.key for box in boxes if box.on_path}
    arrows = tuple(
        Arrow(tail=keys[name], head=keys[c.id], on_path={keys[name], keys[c.id]} <= marked)
        for c in candidates
        for name in c.parents
        if name in keys
    )
    return Frame(
        picture=Picture(boxes, arrows, "who descends from whom", _WORDS),
        title="Candidates",
        details={keys[c.id]: tuple(_entries(c, by_id)) for c in candidates},
    )  # fmt: skip


def _refused(candidate: Candidate) -> bool:
    return candidate.status.lower().startswith(_REFUSED)


def _role(candidate: Candidate, best: Candidate | None) -> Role:
    if candidate is best:
        return "output"
    if _refused(candidate):
        return "failure"
    return "operation" if candidate.parents else "input"


def _line(best: Candidate, by_id: Mapping[str, Candidate]) -> set[str]:
    """The ids of `best` and all that it descends from."""
    found: set[str] = set()
    waiting = [best.id]
    for name in waiting:
        if name in by_id and name not in found:
            found.add(name)
            waiting.extend(by_id[name].parents)
    return found


def _scored(candidate: Candidate) -> str:
    return "" if candidate.score is None else f"score {candidate.score:.4g}"


def _told(candidate: Candidate) -> str:
    return " · ".join(filter(None, (f"step {candidate.step}", candidate.status)))


def _entries(candidate: Candidate, by_id: Mapping[str, Candidate]) -> Iterable[Entry]:
    facts = {"id": candidate.id, "step": str(candidate.step), "status": candidate.status}
    if candidate.score is not None:
        facts["score"] = f"{candidate.score:.6g}"
    if candidate.parents:
        facts["made from"] = ", ".join(candidate.parents)
    yield Entry("About", "facts", {name: fact for name, fact in facts.items() if fact})
    if candidate.note:
        yield Entry(
            "Why it was rejected" if _refused(candidate) else "Note", "text", candidate.note
        )
    if candidate.scores:
        shown = list(candidate.scores.items())[:_SCORES]
        yield Entry("Scores", "facts", {name: f"{score:.4g}" for name, score in shown})
    parent = next((by_id[name] for name in candidate.parents if name in by_id), None)
    for name, text in candidate.values.items():
        before = None if parent is None else parent.values.get(name)
        if before is not None and before != text:
            yield Entry(f"{name}: what changed", "diff", (before, text))
        yield Entry(name, "text", text)
