"""What happened in a training, in order: kept, told to listeners, and to whoever keeps runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, final

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
        self._did: dict[str, Tally] = {}

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
            self._observe(kind, note, candidate, after)
        for listener in self._listeners:
            listener(event)
        return event

    def _observe(self, kind: Kind, note: str, candidate: Candidate, after: Tally | None) -> None:
        """Tell whoever keeps runs of a candidate, with what is known of it by now."""
        if after is not None:
            self._did[candidate.id] = after
        did = self._did.get(candidate.id)
        facts: dict[str, Any] = {}
        if did is not None:
            facts = {
                "score": did.mean, "scores": did.objectives, "examples": list(did.scores),
                "violations": did.violations,
            }  # fmt: skip
        if note:
            facts["note"] = note
        observe(
            "candidate", id=candidate.id, parents=candidate.parents, status=kind,
            values=dict(candidate.values), **facts,
        )  # fmt: skip
