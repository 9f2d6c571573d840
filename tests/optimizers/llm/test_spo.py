from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

import tracegraph as tg
from optimizers import SPO, ModelCompares
from optimizers.llm.spo import Duel
from tracegraph.errors import OptimizerError
from tracegraph.llm import Scripted

EXAMPLES = ["a", "bb", "ccc"]


def suggest(value: str) -> str:
    return json.dumps({"suggestion": {"word": value}})


def longer(example: Any, first: str, second: str) -> float:
    return len(first) - len(second)


def made(*replies: str, judge: Any = longer) -> tuple[Any, SPO]:
    word = tg.node("plain", trainable=True, name="word")
    return word, SPO([word], llm=Scripted(replies), requirements="be long", judge=judge)


def test_the_better_is_kept_and_the_worse_is_not() -> None:
    """The right way round: a judge that is always right lets nothing worse pass."""
    random = Random(1)
    kept = {True: 0, False: 0}
    for _ in range(100):
        better = random.random() < 0.5
        word, spo = made(suggest("longer word" if better else "bad"))
        spo.improve(lambda x, word=word: word + x, EXAMPLES)
        kept[better] += word.data != "plain"
    assert kept[False] == 0
    assert kept[True] > 30


@pytest.mark.parametrize("place", [1.0, -1.0])
def test_a_judge_that_prefers_a_place_counts_for_nothing(place: float) -> None:
    word, spo = made(suggest("another"), judge=lambda example, first, second: place)
    update, duel = spo.improve(lambda x: word + x, EXAMPLES)
    assert duel == Duel(0, 0, 3)
    assert (word.data, bool(update)) == ("plain", False)
    assert "won 0" in spo.rejected[0].reason


def test_an_intransitive_judge_brings_no_harm_beyond_its_word() -> None:
    beats = {("rock", "scissors"), ("paper", "rock"), ("scissors", "paper")}

    def judge(example: Any, first: str, second: str) -> float:
        one, two = first.rstrip("abc"), second.rstrip("abc")
        return float((one, two) in beats) - float((two, one) in beats)

    word = tg.node("rock", trainable=True, name="word")
    spo = SPO([word], llm=Scripted([suggest("scissors"), suggest("paper")]), requirements="win",
              judge=judge)  # fmt: skip
    spo.improve(lambda x: word + x, ["a"])
    assert word.data == "rock"
    spo.improve(lambda x: word + x, ["a"])
    assert word.data == "paper"


def test_the_model_judges_where_nobody_else_does() -> None:
    word = tg.node("plain", trainable=True, name="word")
    llm = Scripted([suggest("longer"), "A", "B", "A.", "**B**", "T", "B"])
    spo = SPO([word], llm=llm, requirements="be long")
    update, duel = spo.improve(lambda x: word + x, EXAMPLES)
    assert duel == Duel(won=3, lost=0, drawn=0)
    assert (word.data, update.usage.calls) == ("longer", 7)
    first, swapped = (request.messages[1].text for request in llm.requests[1:3])
    assert first.index("longera") < first.index("plaina")
    assert swapped.index("longera") > swapped.index("plaina")


def test_what_another_judge_asks_a_model_counts() -> None:
    word = tg.node("plain", trainable=True, name="word")
    judge = ModelCompares(Scripted(lambda request: '{"better": "neither"}'), "Long.")
    spo = SPO([word], llm=Scripted([suggest("longer")]), requirements="be long", judge=judge)
    update, duel = spo.improve(lambda x: word + x, EXAMPLES)
    assert (duel, update.usage.calls) == (Duel(won=0, lost=0, drawn=3), 7)


def test_a_proposal_that_cannot_be_used_runs_nothing() -> None:
    ran: list[str] = []
    word, spo = made("no JSON")
    update, duel = spo.improve(lambda x: ran.append(x) or word + x, EXAMPLES)  # type: ignore[func-returns-value]
    assert (duel, len(ran), word.data) == (None, 3, "plain")
    assert update.rejections


@pytest.mark.parametrize("count", [1, 3, 400])
def test_a_request_stays_within_its_budget_and_says_what_it_left_out(count: int) -> None:
    llm = Scripted([suggest("x")])
    word = tg.node("plain", trainable=True, name="word")
    spo = SPO([word], llm=llm, requirements="be long", judge=longer, budget=1_000)
    spo.improve(lambda x: word + x, [f"{n} " + "long " * 400 for n in range(count)])
    asked = llm.requests[0].messages
    assert sum(len(m.text) for m in asked) <= 4_000
    shown = asked[1].text.count("output: ")
    assert shown >= min(count, 3)
    assert (f"({count - shown} further runs are left out)" in asked[1].text) == (shown < count)


def test_bad_input_is_refused() -> None:
    word, spo = made()
    with pytest.raises(OptimizerError, match="examples is empty"):
        spo.improve(lambda x: word + x, [])
    with pytest.raises(OptimizerError, match="requirements"):
        SPO([word], llm=Scripted([]), requirements=" ")
