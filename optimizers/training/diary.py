"""What happened in a training, in order: kept, told to listeners, and to whoever keeps runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import final

from optimizers.candidate import Candidate
from optimizers.training.account import Account
from optimizers.training.result import Event, Kind, Listener
from optimizers.training.tally import Tally
from tracegraph.events import observe

__all__ = ["Diary"]


@final
class Diary:
    """Makes an `Event` of what happened and hands it on."""

    def __init__(self, listeners: Iterable[Listener], account: Account) -> None:
        self.events: list[Event] = []
        self._listeners = tuple(listeners)
        self._account = account

    def tell(
        self,
        kind: Kind,
        note: str = "",
        *,
        candidate: Candidate | None = None,
        after: Tally | None = None,
        before: Tally | None = None,
    ) -> Event:
        """Say that something happened to a candidate, which did `after` where another did `before`."""
        event = Event(
            kind,
            self._account.spend.steps,
            note,
            None if after is None else after.mean,
            None if before is None else before.mean,
            "" if candidate is None else candidate.id,
            () if candidate is None else candidate.parents,
            {} if after is None else after.objectives,
            replace(self._account.spend, seconds=0.0),
        )
        self.events.append(event)
        observe("training", event=kind, note=note, score=event.score, before=event.before)
        if candidate is not None:
            observe(
                "candidate", id=candidate.id, parents=candidate.parents, score=event.score,
                status=kind, values=dict(candidate.values), objectives=dict(event.objectives),
                scores=[] if after is None else list(after.scores),
                violations=0 if after is None else after.violations,
            )  # fmt: skip
        for listener in self._listeners:
            listener(event)
        return event
