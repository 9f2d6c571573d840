"""Runs in which functions were decorated and objects were made are read back, and nothing of theirs runs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pytest
import torch
from pydantic import BaseModel, PrivateAttr

import tracegraph as tg
from tracegraph import Problem
from tracegraph.errors import HistoryError
from tracegraph.history.at_hand import AtHand
from tracegraph.history.traces import trace_data, trace_of
from tracegraph.node import next_id


class Tone(Enum):
    WARM = "warm"
    COLD = "cold"


@dataclass(frozen=True, slots=True)
class Draft:
    text: str
    tone: Tone = Tone.WARM
    made: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.made.append("made")


class Answer(BaseModel):
    drafts: list[Draft]
    scores: dict[str, float] = {}
    row: Any = None
    _seen: int = PrivateAttr(default=0)


class Connection:
    """Declared as nothing: it may hold what is gone after a kill."""

    def __init__(self) -> None:
        self.number = 3


word = tg.node("Go", trainable=True, name="word")


def workflow(case: str) -> Any:
    end = tg.node("!", name="end")

    @tg.bundle
    def draft(word: str, case: str) -> Draft:
        """Write a draft."""
        return Draft(word + case, Tone.COLD)

    @tg.bundle
    def answer(draft: Draft, end: str) -> Answer:
        """Collect what was written."""
        said = Answer(drafts=[draft, draft], scores={end: 0.5}, row=torch.ones(2))
        said._seen = 2
        return said

    return answer(draft(word, case), end)


def there_and_back(run: Any, *more: Any) -> tuple[Any, Any]:
    hand = AtHand({"word": word, "workflow": run, "more": more})
    since, tensors = next_id(), {}
    output = run("x")
    data = json.loads(json.dumps(trace_data(output, hand, since=since, tensors=tensors)))
    return output, trace_of(data, hand, tensors=tensors)


def problem(output: Any) -> str:
    received = list(output.backward("No."))
    text = str(Problem.of({p.name: p for p in received}))
    for parameter in received:
        parameter.zero_feedback()
    return text


def test_what_was_decorated_and_made_within_a_run_is_read_back() -> None:
    output, again = there_and_back(workflow)
    assert problem(again) == problem(output)
    assert "Write a draft." in problem(again)
    first, made = output.data, again.data
    assert type(made) is Answer
    assert made.drafts == first.drafts
    assert made.drafts[0].made == ["made"], "nothing of the class ran"
    assert made.drafts[0].tone is Tone.COLD
    assert (made._seen, made.scores, made.model_fields_set) == (
        2,
        {"!": 0.5},
        first.model_fields_set,
    )
    assert made.row.tolist() == [1.0, 1.0]
    operations = [n.operation.code for n in tg.Graph.of(again).nodes if n.op == "draft"]
    assert operations == [n.operation.code for n in tg.Graph.of(output).nodes if n.op == "draft"]


def test_what_is_not_declared_as_data_is_refused() -> None:
    @tg.bundle
    def connected(word: str) -> Any:
        return Connection()

    with pytest.raises(HistoryError, match=r"Connection.* is no plain data"):
        there_and_back(lambda case: connected(word), Connection, connected)


def test_what_holds_itself_is_refused() -> None:
    @tg.bundle
    def endless(word: str) -> Any:
        answer = Answer(drafts=[])
        answer.row = [answer]
        return answer

    with pytest.raises(HistoryError, match="nested too deeply, or holds itself"):
        there_and_back(lambda case: endless(word), Answer, endless)


def test_a_function_of_tensors_that_was_decorated_within_a_run_is_refused() -> None:
    weight = tg.node(torch.ones(2), trainable=True, name="weight")

    def run(case: str) -> Any:
        @tg.bundle
        def relu(weight: Any) -> Any:
            return weight * 2

        return relu(weight)

    with pytest.raises(HistoryError, match="relu was decorated within the run"):
        there_and_back(run, weight)
