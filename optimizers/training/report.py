"""A training as a page to click through: who descends from whom, with values, scores and spend."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from tracegraph.kinds import show
from tracegraph.view import Candidate, Curve, Page, fronts, lineage, write_html

if TYPE_CHECKING:
    from optimizers.training.result import Event, Result

__all__ = ["page", "write_report"]

_STATES = ("started", "proposed", "dropped", "rejected", "accepted", "finished")
"""What may become of a candidate; the last of these that happened is told."""


def write_report(result: Result, path: str | Path) -> Path:
    """Write `page` to a file that ends in .html, whole or not at all; gives its path."""
    return write_html(page(result), path)


def page(result: Result) -> Page:
    """The page of a training."""
    told: dict[str, list[Event]] = {}
    for event in result.history:
        if event.candidate:
            told.setdefault(event.candidate, []).append(event)
    made = [_candidate(result, name, events) for name, events in told.items()]
    scored = [(float(at), c.score) for at, c in enumerate(made) if c.score is not None]
    best = accumulate((score for _, score in scored), max)
    dollars = [(float(at), e.spend.dollars) for at, e in enumerate(result.history)]
    calls = [(float(at), float(e.spend.runs)) for at, e in enumerate(result.history)]
    curves = [
        Curve(
            "Best score by candidate",
            tuple((at, b) for (at, _), b in zip(scored, best, strict=True)),
        ),
        Curve("Spend", tuple(dollars), "$"),
        Curve("Runs of the workflow", tuple(calls)),
    ]
    shown = tuple(curve for curve in curves if any(y for _, y in curve.points))
    return Page("training", (), lineage(made), shown, tuple(fronts(made)))


def _candidate(result: Result, name: str, events: list[Event]) -> Candidate:
    state = max(events, key=lambda e: _STATES.index(e.kind) if e.kind in _STATES else -1)
    scores = [event for event in events if event.score is not None]
    validated = [event for event in scores if event.kind == "validated"]
    last = (validated or scores)[-1] if scores else None
    values = result.candidates[name].values if name in result.candidates else {}
    return Candidate(
        id=name,
        parents=events[0].parents,
        step=events[0].step,
        score=None if last is None else last.score,
        status=state.kind,
        note="\n".join(dict.fromkeys(event.note for event in events if event.note)),
        scores={} if last is None else last.objectives,
        values={n: v if isinstance(v, str) else show(v) for n, v in values.items()},
    )
