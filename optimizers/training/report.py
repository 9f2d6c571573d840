"""A training as a page to click through: the lineage of its candidates, with scores and values.

One step of the page for the values at the start, one for each accepted candidate, one for the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optimizers.candidate import Candidate
from tracegraph.kinds import show
from tracegraph.view import Arrow, Box, Entry, Frame, Page, Picture, Role, Version, write_html

if TYPE_CHECKING:
    from optimizers.training.result import Event, Result

__all__ = ["page", "write_report"]

_ROLES: dict[str, Role] = {"accepted": "operation", "rejected": "failure", "dropped": "failure"}
_STATES = ("started", "proposed", "dropped", "rejected", "accepted", "validated", "finished")


def write_report(result: Result, path: str | Path) -> Path:
    """Write `page` to a file that ends in .html, whole or not at all; gives its path."""
    return write_html(page(result), path)


def page(result: Result) -> Page:
    """The page of a training."""
    accepted = [at for at, event in enumerate(result.history) if event.kind == "accepted"]
    first = next(
        (at for at, e in enumerate(result.history) if e.kind not in ("started", "validated")), 0
    )
    ends = [first, *(at + 1 for at in accepted), len(result.history)]
    frames = [_frame(result, result.history[:end]) for end in ends]
    return Page("training", tuple(frames))


def _frame(result: Result, events: Sequence[Event]) -> Frame:
    present = next(
        (e.candidate for e in reversed(events) if e.kind in ("accepted", "finished")), ""
    )
    told = {
        event.candidate: [e for e in events if e.candidate == event.candidate] for event in events
    }
    told.pop("", None)
    parents = {name: of_one[0].parents for name, of_one in told.items()}
    for of_one in list(parents.values()):
        for name in of_one:
            parents.setdefault(name, ())
    keys = {name: number for number, name in enumerate(parents, 1)}
    boxes = tuple(_box(keys[name], name, told.get(name, []), name == present) for name in keys)
    arrows = tuple(
        Arrow(tail=keys[parent], head=keys[name])
        for name, of_one in parents.items()
        for parent in of_one
    )
    last = events[-1] if events else None
    candidate = result.candidates.get(present)
    return Frame(
        picture=Picture(boxes, arrows, "who descends from whom"),
        title="the values at the start" if last is None or not last.step else str(last),
        note=result.stopped if last is not None and last.kind == "finished" else "",
        details={
            key: _values(result.candidates[name]) for name, key in keys.items() if name in result.candidates
        },
        parameters={} if candidate is None else {n: Version(number=key, text=_text(v), origin="optimizer")
            for n, v in candidate.values.items() for key in (keys[present],)},
        score=None if last is None else last.score,
        facts={} if last is None else {"spend": str(last.spend)},
    )  # fmt: skip


def _box(key: int, name: str, events: Sequence[Event], present: bool) -> Box:
    states = {event.kind for event in events}
    state = next((kind for kind in reversed(_STATES) if kind in states), "started")
    kept = "accepted" if "accepted" in states else state
    scores = [
        f"{'validation' if e.kind == 'validated' else 'examples'} {e.score:.3f}"
        + "".join(f", {name} {value:.3f}" for name, value in e.objectives.items())
        for e in events
        if e.score is not None and e.kind in ("proposed", "dropped", "validated")
    ]
    role: Role = "output" if present else _ROLES.get(kept, "input" if not events else "operation")
    return Box(
        key=key, title=name[:8], lines=(kept, *scores), role=role,
        tooltip="\n".join(map(str, events)),
    )  # fmt: skip


def _values(candidate: Candidate) -> tuple[Entry, ...]:
    return tuple(Entry(name, "text", _text(value)) for name, value in candidate.values.items())


def _text(value: object) -> str:
    return value if isinstance(value, str) else show(value)
