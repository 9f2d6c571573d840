"""SPO in a training: duels with the present values decide, nobody knows right answers."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tracegraph as tg
from optimizers import SPO, Budget, Paired, Pareto, Processes, afit, fit
from optimizers.duels import Duels
from tests.optimizers.training.elsewhere import greeted
from tests.worlds.intransitive import Intransitive
from tracegraph.errors import OptimizerError
from tracegraph.llm import Reply, Scripted, Usage

EXAMPLES = ["a", "bb", "ccc"]


def longer(example: Any, first: str, second: str) -> float:
    return len(first) - len(second)


def suggest(value: str) -> str:
    return json.dumps({"suggestion": {"word": value}})


def made(*replies: Any, judge: Any = longer) -> tuple[Any, SPO, Any]:
    word = tg.node("plain", trainable=True, name="word")
    spo = SPO([word], llm=Scripted(replies), requirements="be long", judge=judge)
    return word, spo, lambda example: word + example


def trained(workflow: Any, spo: SPO, steps: int, **options: Any) -> Any:
    options = {"tries": 1, "workers": 1, "acceptance": Paired(alpha=1), **options}
    return fit(workflow, EXAMPLES, spo.guide, optimizer=spo, budget=Budget(steps=steps), **options)


@given(st.lists(st.sampled_from(["x", "plain", "other", "longer", "the longest"]), max_size=6))
def test_an_honest_judge_lets_pass_what_is_better_than_the_present_and_nothing_else(
    words: list[str],
) -> None:
    word, spo, workflow = made(*map(suggest, words), suggest(""))
    result = trained(workflow, spo, len(words) + 1)
    best, accepted = "plain", []
    for said in words:
        if len(said) > len(best):
            best = said
            accepted.append(said)
    assert word.data == best
    kept = [event for event in result.history if event.kind == "accepted"]
    assert [event.score for event in kept] == [1.0] * len(accepted)


@pytest.mark.parametrize("place", [1.0, -1.0])
def test_a_judge_that_prefers_a_place_changes_nothing(place: float) -> None:
    word, spo, workflow = made(suggest("another"), judge=lambda example, first, second: place)
    result = trained(workflow, spo, 1)
    assert word.data == "plain"
    (tried,) = (event for event in result.history if event.kind == "rejected")
    assert tried.score == 0.0


def test_the_model_sees_outputs_and_judges_in_both_orders_and_its_cost_is_counted() -> None:
    def said(text: str) -> Reply:
        return Reply(text, usage=Usage(5, 1), cost=0.5)

    replies = [said(suggest("longer")), *map(said, "ABABAB"), said(suggest("longest"))]
    llm = Scripted([*replies, *map(said, "BABABA")])
    word = tg.node("plain", trainable=True, name="word")
    spo = SPO([word], llm=llm, requirements="be long")
    result = trained(lambda example: word + example, spo, 2)
    assert word.data == "longer"
    first, swapped = (request.messages[1].text for request in llm.requests[1:3])
    assert first.index("longera") < first.index("plaina")
    assert swapped.index("longera") > swapped.index("plaina")
    assert "output: 'plainccc'" in llm.requests[0].messages[1].text
    assert "output: 'longerccc'" in llm.requests[7].messages[1].text
    assert "plainccc" not in llm.requests[7].messages[1].text
    assert (result.spend.calls, result.spend.dollars) == (
        14,
        7.0,
    )  # two proposals, two duels of six


def test_a_candidate_that_fails_loses_and_one_that_mends_a_failure_wins() -> None:
    word = tg.node("plain", trainable=True, name="word")

    @tg.bundle
    def run(word: str, example: str) -> str:
        if (word == "bad" and example != "a") or (word == "plain" and example == "bb"):
            raise ValueError("it cannot be")
        return "longer" if word == "bad" else "equal"

    spo = SPO(
        [word], llm=Scripted([suggest("bad"), suggest("good")]), requirements="x", judge=longer
    )
    result = trained(lambda example: run(word, example), spo, 2)
    assert word.data == "good"
    assert [event.step for event in result.history if event.kind == "accepted"] == [2]


def test_doubt_is_settled_on_further_examples_against_the_present_values() -> None:
    word, spo, workflow = made(suggest("longer"), suggest("plain"))
    examples = list("abcdefgh")
    result = fit(
        workflow, examples, spo.guide, optimizer=spo, budget=Budget(steps=2), tries=1, batch_size=2,
        acceptance=Paired(alpha=0.05), anchors=["z"], workers=1,
    )  # fmt: skip
    assert word.data == "longer"
    ends = [e for e in result.history if e.kind in ("accepted", "rejected")]
    assert [(e.kind, e.step) for e in ends] == [("accepted", 1), ("rejected", 2)]
    assert (
        result.spend.runs == 2 * 6 + 2 + 2
    )  # six of each leave no doubt; the anchor; the next batch


def test_an_anchor_is_compared_with_the_present_values_not_with_those_of_its_last_duel() -> None:
    def judge(example: str, first: str, second: str) -> float:
        if example == "z":  # it takes anything but very long words
            return float(len(first) < 9) - float(len(second) < 9)
        return len(first) - len(second)

    word, spo, workflow = made(
        suggest("longer"), suggest("the longest"), suggest("longish"), judge=judge
    )
    trained(workflow, spo, 3, anchors=["z"])
    assert word.data == "longish"


def test_who_is_ready_first_decides_nothing() -> None:
    word, spo, _ = made(suggest("longer"))

    @tg.bundle
    def run(word: str, example: str) -> str:
        time.sleep(0.02 * (3 - len(example)))
        return word + example

    trained(lambda example: run(word, example), spo, 1, workers=3)
    shown = spo.log[0].messages[-1].text
    assert [shown.index(f"input: '{e}'") for e in EXAMPLES] == sorted(
        shown.index(f"input: '{e}'") for e in EXAMPLES
    )


def test_workers_change_nothing() -> None:
    one, many = (Intransitive(7, trained=True, sabotage=0.3, workers=n) for n in (1, 16))
    assert one.learn() == many.learn()
    assert (one.kept, one.calls) == (many.kept, many.calls)


def test_a_training_that_goes_on_comes_to_the_same(tmp_path: Path) -> None:
    def begun() -> tuple[Any, SPO, Any]:
        lengths = Random(3).choices(range(1, 30), k=12)
        return made(*(suggest("w" * n) for n in lengths))

    word, spo, workflow = begun()
    whole = trained(workflow, spo, 12)
    at = tmp_path / "runs.db"
    again, first, run = begun()
    trained(run, first, 5, store=at)
    rest = Scripted([Reply(suggest("w" * n)) for n in Random(3).choices(range(1, 30), k=12)][5:])
    second = SPO([again], llm=rest, requirements="be long", judge=longer)
    again.assign("plain")
    going = trained(run, second, 12, store=at)
    assert again.data == word.data
    assert [e.score for e in going.history] == [e.score for e in whole.history]


def test_awaited_it_is_the_same() -> None:
    word, spo, _ = made(suggest("longer"), suggest("x"))

    async def workflow(example: str) -> Any:
        await asyncio.sleep(0)
        return word + example

    asyncio.run(afit(workflow, EXAMPLES, spo.guide, optimizer=spo, budget=Budget(steps=2), tries=1))
    assert word.data == "longer"


@pytest.mark.parametrize(
    "options",
    [{"search": Pareto()}, {"search": Pareto(), "validation": ["d"]}],
    ids=lambda options: " ".join(options),
)
def test_what_would_rank_several_by_duels_is_refused_before_anything_runs(options: Any) -> None:
    ran: list[str] = []
    _, spo, _ = made()
    with pytest.raises(OptimizerError, match="go round in a circle"):
        trained(ran.append, spo, 1, **options)
    assert ran == []


class OnlyThePresent:
    """A guide of a person's own that compares with the present values."""

    relative = True

    def __call__(self, example: str, output: str) -> float:
        return 0.0


def test_a_guide_that_cannot_compare_with_the_best_refuses_validation() -> None:
    _, spo, workflow = made(suggest("x"))
    with pytest.raises(OptimizerError, match="against"):
        fit(workflow, EXAMPLES, OnlyThePresent(), optimizer=spo, validation=["d"])


# Validation: duels with the best so far


def picky(example: str, first: str, second: str) -> float:
    """On validation examples the shorter one wins."""
    return (len(first) - len(second)) * (-1 if example.startswith("v") else 1)


def test_the_best_is_who_wins_on_examples_that_nobody_learned_from() -> None:
    """What wins on the examples that it was written for can lose on others."""
    word, spo, workflow = made(suggest("longer"), suggest("the longest"), judge=picky)
    result = trained(workflow, spo, 2, validation=["v1", "v2"])
    assert [e.kind for e in result.history].count("accepted") == 2
    assert (word.data, result.best.values["word"]) == ("plain", "plain")
    assert [entry.candidate.id for entry in result.front] == [result.best.id]


@given(st.lists(st.sampled_from(["x", "plain", "other", "longer", "the longest"]), max_size=4))
def test_each_accepted_one_fights_the_best_until_then(words: list[str]) -> None:
    def judge(example: str, first: str, second: str) -> float:
        if example.startswith("v"):  # longest is best, but for the very longest
            first, second = (said if len(said) < 9 else "" for said in (first, second))
        return len(first) - len(second)

    word, spo, workflow = made(*map(suggest, words), suggest(""), judge=judge)
    result = trained(workflow, spo, len(words) + 1, validation=["v", "vv"])
    present, best = "plain", "plain"
    for said in words:
        if len(said) > len(present):
            present = said
            best = said if len(said) + 2 < 9 and len(said) > len(best) else best
    assert word.data == best
    told = [event for event in result.history if event.kind == "validated"]
    assert told[0].score == 0.0
    assert all(event.score in (-1.0, 0.0, 1.0) for event in told)


def test_validation_by_duels_costs_both_and_holds_the_budget() -> None:
    word, spo, workflow = made(suggest("longer"), suggest("the longest"))
    result = trained(workflow, spo, 2, validation=["v", "vv"])
    assert result.spend.runs == 2 + 2 * (3 + 3) + 2 * (2 + 2)
    word, spo, workflow = made(suggest("longer"), suggest("the longest"))
    tight = fit(
        workflow, EXAMPLES, spo.guide, optimizer=spo, budget=Budget(runs=15), tries=1, workers=1,
        validation=["v", "vv"], acceptance=Paired(alpha=1),
    )  # fmt: skip
    assert tight.spend.runs <= 15
    assert word.data == "longer"


def test_a_best_that_fails_everywhere_loses_to_whoever_runs() -> None:
    word = tg.node("plain", trainable=True, name="word")

    @tg.bundle
    def run(word: str, example: str) -> str:
        if word == "plain" and example.startswith("v"):
            raise ValueError("it cannot be")
        return word + example

    spo = SPO([word], llm=Scripted([suggest("longer")]), requirements="x", judge=longer)
    trained(lambda example: run(word, example), spo, 1, validation=["v", "vv"])
    assert word.data == "longer"


def test_a_constraint_that_the_best_holds_must_hold() -> None:
    word, spo, workflow = made(suggest("longer"))
    short = {"short": lambda example, output: not example.startswith("v") or len(output) < 7}
    result = trained(workflow, spo, 1, validation=["v"], constraints=short)
    assert [e.kind for e in result.history].count("accepted") == 1
    assert word.data == "plain"


def test_with_validation_a_training_goes_on_to_the_same(tmp_path: Path) -> None:
    words = ["longer", "x", "the longest", "w" * 20]

    def go(steps: int, store: Path | None, said: list[str]) -> Any:
        word, spo, workflow = made(*map(suggest, said), judge=picky)
        result = trained(workflow, spo, steps, validation=["v", "w"], store=store)
        return word.data, [str(e) for e in result.history], result.spend.runs

    whole = go(4, None, words)
    go(2, tmp_path, words[:2])
    again = go(4, tmp_path, words[2:])
    assert (again[0], again[2]) == (whole[0], whole[2])


# Elsewhere


@pytest.mark.parametrize("more", [{}, {"validation": ["v", "vv"]}], ids=str)
def test_candidates_may_run_elsewhere(more: Any) -> None:
    """Who is present is told by the values, not by where they ran."""

    def go(**options: Any) -> Any:
        word, spo, _ = made(
            suggest("x"), suggest("longer"), suggest("plain"), suggest("the longest")
        )
        workflow = lambda example: tg.bundle(lambda w, e: f"{w} {e}")(word, example)  # noqa: E731
        result = trained(workflow, spo, 4, **more, **options)
        return word.data, [str(e) for e in result.history], result.spend.runs

    with Processes(2) as executor:
        assert go(remote=greeted, executor=executor, workers=2) == go()


@pytest.mark.parametrize("said", ["better", None, float("nan")])
def test_a_judge_that_gives_no_number_is_named(said: Any) -> None:
    word, spo, workflow = made(suggest("other"), judge=lambda *duel: said)
    with pytest.raises(OptimizerError, match="must give a number"):
        trained(workflow, spo, 1)
    assert word.data == "plain"


def test_a_guide_by_itself() -> None:
    word = tg.node("plain", trainable=True, name="word")
    duels, example = Duels({"word": word}, longer), "x"
    assert float(duels(example, "abc")[0].mean) == 0.0
    with tg.stop_tracing(), tg.Overlay({word: "other"}):
        assert [float(duels(example, said)[0].mean) for said in ("abcd", "ab", "xyz")] == [1, -1, 0]
    assert duels.take() == [(example, "abc")]
    assert duels.take() == []


# A search: duels with outputs that stay the same


def searched(store: Path | None, note: Any) -> Any:
    """A search over words, each compared with what the first one gave."""

    def replies(request: Any) -> str:
        note(request.messages[-1].text)
        return suggest("x" * (sum(map(ord, request.messages[-1].text)) % 13))

    word = tg.node("plain", trainable=True, name="word")
    spo = SPO(
        [word], llm=Scripted(replies), requirements="be long", judge=longer,
        reference=lambda example: "plain" + example,
    )  # fmt: skip
    result = fit(
        lambda example: word + example, EXAMPLES, spo.guide, optimizer=spo, search=Pareto(),
        store=store, budget=Budget(steps=5), tries=1, workers=1, acceptance=Paired(alpha=1),
    )  # fmt: skip
    return word.data, result.score, [str(event) for event in result.history]


def test_compared_with_outputs_that_stay_the_same_a_search_may_choose(tmp_path: Path) -> None:
    """It goes on exactly after a kill at any question, and the model sees the outputs."""
    asked: list[str] = []
    expected = searched(None, asked.append)
    assert expected[:2] == ("x" * len(expected[0]), 1.0)
    assert all(f"{word}'" in asked[0] for word in ("plaina", "plainbb", "plainccc"))

    class Killed(BaseException):
        pass

    for kill in range(1, len(asked) + 1):
        again: list[str] = []

        def note(text: str, again: list[str] = again, kill: int = kill) -> None:
            again.append(text)
            if len(again) == kill:
                raise Killed

        with pytest.raises(Killed):
            searched(tmp_path / str(kill), note)
        assert searched(tmp_path / str(kill), again.append) == expected
        assert again == [*asked[:kill], *asked[kill - 1 :]]


def test_a_reference_that_is_no_function_is_refused() -> None:
    with pytest.raises(OptimizerError, match="reference gives the output to compare with"):
        SPO([tg.node("a", trainable=True)], llm=Scripted([]), requirements="long", reference="text")
