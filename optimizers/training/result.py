"""What a training tells while it runs, and what it comes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

from optimizers.candidate import Candidate
from optimizers.training.budget import Spend
from optimizers.training.policies.policy import Entry
from optimizers.training.report import write_report

if TYPE_CHECKING:
    from tracegraph import view

__all__ = ["Event", "Kind", "Listener", "Result"]

Kind = Literal[
    "started", "proposed", "dropped", "accepted", "rejected", "skipped", "validated", "finished"
]


@final
@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; plain data.

    Attributes:
        kind: what happened.
        step: counts from 1; 0 is before the first step.
        note: in words.
        score: of the candidate, on the step's examples or on the validation set.
        before: the score of the present values on the same examples.
        candidate: its id.
        parents: the ids of the candidates that it was made from.
        objectives: the mean of each objective, where the guide gives several.
        spend: what was spent so far.
    """

    kind: Kind
    step: int
    note: str = ""
    score: float | None = None
    before: float | None = None
    candidate: str = ""
    parents: tuple[str, ...] = ()
    objectives: Mapping[str, float] = field(default_factory=dict)
    spend: Spend = field(default_factory=Spend)

    def __str__(self) -> str:
        score = "" if self.score is None else f" {self.score:.3f}"
        before = "" if self.before is None else f" (before {self.before:.3f})"
        named = ", ".join(f"{name} {value:.3f}" for name, value in self.objectives.items())
        said = "; ".join(filter(None, (named, self.note)))
        return f"step {self.step} {self.kind}{score}{before}{f': {said}' if said else ''}"


Listener = Callable[[Event], Any]


@final
@dataclass(frozen=True, slots=True)
class Result:
    """What a training came to; its best values are in the parameters now.

    Attributes:
        best: the best candidate.
        score: its mean score on the validation set; without one, on its last examples.
        baseline: the same for the values at the start.
        front: candidates that none other beats everywhere, with their scores: over the objectives
            where the guide gives several, else example by example.
        history: everything that happened, in order.
        spend: what was used.
        stopped: why it ended, in words.
        error: what ended it early, or ``None``.
        candidates: every candidate that was accepted, by id.
        state: give it to ``fit(state=...)`` to go on.
    """

    best: Candidate
    score: float
    baseline: float
    front: Sequence[Entry]
    history: tuple[Event, ...]
    spend: Spend
    stopped: str
    error: BaseException | None = None
    candidates: Mapping[str, Candidate] = field(default_factory=dict)
    state: Any = None

    def _card(self) -> view.Card:
        """The result on a card, for a notebook or a terminal: scores, spend, what happened."""
        from tracegraph import view  # drawing is loaded when something is drawn

        scores = [e.score for e in self.history if e.score is not None]
        rows = [
            (str(e.step), e.kind, "" if e.score is None else f"{e.score:.4g}", e.note)
            for e in self.history
        ]
        facts = {
            "score": f"{self.baseline:.4g} -> {self.score:.4g}", "spend": str(self.spend),
            "stopped": self.stopped,
        }  # fmt: skip
        if self.error is not None:
            facts["error"] = f"{type(self.error).__name__}: {self.error}"
        parts = (
            view.Facts(facts),
            view.Spark("scores of the candidates", scores),
            view.Table("what happened", ("step", "", "score", "note"), rows[-20:]),
        )
        return view.Card("training", parts)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return self._card().bundle(str(self))

    def __rich__(self) -> view.Card:
        return self._card()

    def __str__(self) -> str:
        kept = sum(event.kind == "accepted" for event in self.history)
        return (
            f"{self.baseline:.3f} -> {self.score:.3f}, {kept} proposals accepted; {self.spend}; "
            f"{self.stopped}"
        )

    def report(self, path: str | Path) -> Path:
        """Write a page to click through: who descends from whom, with scores and values.

        Args:
            path: of the HTML file, which needs nothing else.
        """
        return write_report(self, path)
