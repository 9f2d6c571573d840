"""Several proposals and a choice among them; several optimizers and a bandit among them."""

from __future__ import annotations

import json
import math
import re
from random import Random
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tracegraph as tg
from optimizers import (
    OPRO,
    Budget,
    Merge,
    Mix,
    ModelJudge,
    OptoPrime,
    Partition,
    Several,
    Usage,
    by_evaluation,
    by_judge,
    by_majority,
    fit,
)
from optimizers.base import Proposal
from optimizers.llm.bandit import Bandit
from optimizers.llm.mix import dollars
from tracegraph.errors import ModelFailed, OptimizerError
from tracegraph.llm import Reply, Request, Scripted
from tracegraph.llm import Usage as Tokens


def suggest(word: Any) -> str:
    return json.dumps({"suggestion": {"word": word}})


@pytest.fixture
def word() -> Any:
    return tg.node("a", trainable=True, name="word")


def asked(word: Any, *words: Any, **options: Any) -> tuple[Several, Any]:
    llm = Scripted(lambda request: suggest(words[request.attempt]))
    several = Several(OptoPrime([word], llm=llm), n=len(words), **options)
    several.backward(word + "!", "Not this.")
    return several, llm


# The choice


def test_the_majority_wins_and_of_equals_the_first(word: Any) -> None:
    several, llm = asked(word, "x", "y", "z", "y ", "x", " y")
    update = several.step()
    assert word.data == "y"
    assert update.note == "3 of 6 proposals agree"
    assert (update.usage.calls, len(llm.requests)) == (6, 6)
    assert by_majority([Proposal({word: w}) for w in "bcbc"]).index == 0


def test_a_question_that_is_asked_again_is_another_attempt(word: Any) -> None:
    several, llm = asked(word, "x", "y", "z")
    several.step()
    assert sorted(request.attempt for request in llm.requests) == [0, 1, 2]


def test_the_one_that_scores_best_when_it_is_run_wins(word: Any) -> None:
    ran: list[str] = []

    def workflow(example: int) -> Any:
        ran.append(word.data)
        if word.data == "fails":
            raise ValueError("no")
        return word * example

    select = by_evaluation(workflow, [1, 2], lambda example, output: (len(output), "text"))
    several, _ = asked(word, "fails", "xx", "yyyy", "xx", "z", select=select)
    update = several.step()
    assert word.data == "yyyy"
    assert sorted(ran) == ["fails"] * 2 + ["xx"] * 2 + ["yyyy"] * 2 + ["z"] * 2
    assert "best of 4" in update.note


def test_where_every_run_fails_the_first_is_taken_and_a_guide_without_score_is_an_error(
    word: Any,
) -> None:
    def broken(example: int) -> Any:
        raise ValueError("no")

    select = by_evaluation(broken, [1], lambda example, output: 1.0)
    assert select([Proposal({word: w}) for w in "bc"]).index == 0
    select = by_evaluation(lambda example: word, [1], lambda example, output: math.nan)
    with pytest.raises(OptimizerError, match="no score"):
        select([Proposal({word: w}) for w in "bc"])
    with pytest.raises(OptimizerError, match="empty"):
        by_evaluation(broken, [], lambda example, output: 1.0)


def longest(request: Request) -> str:
    """A judge that prefers the longest value, and tells its number."""
    shown = request.messages[-1].text.split("Candidate ")[1:]
    values = [part.split("word = ")[1].strip() for part in shown]
    return f"Candidate {1 + values.index(max(values, key=len))}."


def test_a_judge_sees_both_orders_and_a_place_counts_for_nothing(word: Any) -> None:
    judge = Scripted(longest)
    several, _ = asked(word, "xx", "yyyy", "xx", "z", select=by_judge(judge, objective="Long."))
    update = several.step()
    assert word.data == "yyyy"
    assert (update.usage.calls, len(judge.requests)) == (6, 2)
    asked_at_once = [request.messages[-1].text for request in judge.requests]
    assert all(text.startswith("What is wanted: Long.") for text in asked_at_once)
    assert {text.index("'xx'") < text.index("'z'") for text in asked_at_once} == {True, False}
    for place in ("1", "3", "the first", "99", ""):
        votes = by_judge(Scripted(lambda request, place=place: place))
        chosen = votes([Proposal({word: w}) for w in "bcd"])
        assert chosen.index in ((0, 2) if place in "13" else (0,))
        assert "2 of 2" not in chosen.note


def test_one_distinct_proposal_needs_no_judge(word: Any) -> None:
    judge = Scripted([])
    several, _ = asked(word, "x", "x", select=by_judge(judge))
    several.step()
    assert (word.data, judge.requests) == ("x", [])


def test_what_cannot_be_used_is_left_out_and_where_nothing_is_left_the_reason_is_told() -> None:
    word = tg.node("a", trainable=True, name="word", constraint=re.compile("[a-z]"))
    replies = ["no JSON", suggest("XX"), suggest("a"), suggest("b")]
    several = Several(OptoPrime([word], llm=Scripted(lambda request: replies[request.attempt])))
    several.backward(word + "!", "Not this.")
    assert several.step()
    assert word.data == "b"
    last = [suggest("XX"), "no JSON"]
    several = Several(OptoPrime([word], llm=Scripted(lambda request: last[request.attempt])), n=2)
    several.backward(word + "!", "Not this.")
    update = several.step()
    assert not update
    assert "no JSON object" in update.rejections[0].reason
    assert update.usage.calls == 2


def test_several_optimizers_are_asked_in_turn_and_temperatures_go_with_the_requests(
    word: Any,
) -> None:
    words = [{0.0: "x", 1.0: "y"}, {0.5: "y", 0.0: "z"}]
    models = [Scripted(lambda r, w=w: suggest(w[r.options["temperature"]])) for w in words]
    several = Several([OptoPrime([word], llm=m) for m in models], n=4, temperatures=[0.0, 0.5, 1.0])
    several.backward(word + "!", "Not this.")
    several.step()
    assert word.data == "y"
    sent = [{r.options["temperature"] for r in m.requests} for m in models]
    assert sent == [{0.0, 1.0}, {0.5, 0.0}]


def test_a_refusal_reaches_the_one_that_proposed(word: Any) -> None:
    one, two = (OptoPrime([word], llm=Scripted([suggest(w)])) for w in "xy")
    several = Several([one, two], select=lambda proposals: by_majority(proposals[1:]))
    several.select = lambda proposals: type(by_majority(proposals))(1)
    several.backward(word + "!", "Not this.")
    several.refuse(several.propose(), "it is worse", score=0.0)
    assert (one.rejected, two.rejected[0].reason) == ((), "it is worse")


def test_what_running_proposals_costs_is_counted(word: Any) -> None:
    def said(text: str) -> Reply:
        return Reply(text, usage=Tokens(5, 1), cost=0.5)

    def judge(request: Request) -> Reply:
        return said(json.dumps({"score": len(request.messages[-1].text) % 10}))

    task = Scripted(lambda request: said(request.messages[-1].text))
    select = by_evaluation(
        lambda example: tg.call_llm(task, word + example), ["x", "y"],
        ModelJudge(Scripted(judge), "Long."),
    )  # fmt: skip

    def several() -> Several:
        llm = Scripted([said(suggest(w)) for w in ("one", "three")])
        return Several(OptoPrime([word], llm=llm), n=2, select=select)

    whole = several()
    whole.backward(word + "!", "Not this.")
    usage = whole.step(bypassing=True).usage
    assert usage == Usage(2 + 4, 30, 6, 0.5 * (2 + 4 + 4))  # of the task's only the money
    result = fit(
        lambda example: word + example, ["x"], lambda example, output: 0.0, optimizer=several(),
        budget=Budget(steps=1), tries=1,
    )  # fmt: skip
    assert (result.spend.calls, result.spend.dollars) == (usage.calls, usage.cost)


def test_in_a_training_the_best_of_n_needs_fewer_steps(word: Any) -> None:
    def guide(example: int, output: str) -> float:
        return float(output == "right")

    words = iter(["wrong", "bad", "right", "worse"])
    llm = Scripted(lambda request: suggest(next(words)))
    select = by_evaluation(lambda example: word + "", list(range(3)), guide)
    several = Several(OptoPrime([word], llm=llm), n=4, select=select)
    result = fit(
        lambda example: word + "", list(range(4)), lambda e, o: (guide(e, o), "wrong"),
        optimizer=several, budget=Budget(steps=1), workers=1,
    )  # fmt: skip
    assert (result.score, word.data, result.spend.calls) == (1.0, "right", 4)


@pytest.mark.parametrize("make", [Several, Mix])
def test_what_was_paid_for_before_a_kill_is_not_asked_for_again(tmp_path: Any, make: Any) -> None:
    def run(llm: Scripted, ends: bool) -> Any:
        word = tg.node("a", trainable=True, name="word")

        def workflow(example: int) -> Any:
            if ends and word.data != "a":
                raise KeyboardInterrupt
            return word * example

        return fit(
            workflow, [1, 2], lambda example, said: float(len(said)), workers=1, store=tmp_path / "s.db",
            optimizer=make([OptoPrime([word], llm=llm)]), budget=Budget(steps=1),
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        run(Scripted(lambda request: suggest("bbb")), True)
    result = run(Scripted([]), False)
    assert result.best.values == {"word": "bbb"}


def test_the_state_of_all_comes_back(word: Any) -> None:
    several, _ = asked(word, "x", "y", "x")
    several.step()
    state = json.loads(json.dumps(several.state_dict()))
    again = Several(OptoPrime([word], llm=Scripted([])), n=3)
    again.load_state_dict(state)
    assert again.state_dict() == state
    with pytest.raises(OptimizerError, match="no state"):
        again.load_state_dict({"owner": 7})


def test_bad_input_is_refused(word: Any) -> None:
    good = OptoPrime([word], llm=Scripted([]))
    other = OptoPrime([tg.node("b", trainable=True, name="word")], llm=Scripted([]))
    for make in (Several, Mix):
        for wrong in ([], [good, other], [good, "OPRO"], [Partition(good)]):
            with pytest.raises(OptimizerError):
                make(wrong)
    for options in ({"n": 0}, {"n": "two"}, {"select": "best"}):
        with pytest.raises(OptimizerError):
            Several(good, **options)  # type: ignore[arg-type]


# The bandit

ARMS = [(0.10, 1.0), (0.30, 6.0), (0.25, 1.5), (0.05, 0.2), (0.9, 40.0)]
"""Chance of a gain of 1, and the mean cost; the last but one gives most for the money."""


def regret(money: float, seed: int, arms: list[tuple[float, float]]) -> float:
    """How much less a bandit gains for its money than the best arm would."""
    bandit, random = Bandit(len(arms), least=0.0, seed=seed), Random(f"world {seed}")
    spent = gained = 0.0
    while spent < money:
        arm = bandit.choose()
        chance, cost = arms[arm]
        gain = float(random.random() < chance)
        paid = cost * random.uniform(0.5, 1.5)
        bandit.tell(arm, gain=gain, cost=paid)
        spent, gained = spent + paid, gained + chance
    return spent * max(chance / cost for chance, cost in arms) - gained


def test_the_regret_grows_more_slowly_than_the_money() -> None:
    arms = [(0.1, 1.0), (0.3, 1.5), (0.05, 0.5)]
    short, long = (fmean(regret(m, seed, arms) for seed in range(20)) for m in (150, 1_200))
    assert 0 < short < 150 * 0.2  # better than what the best arm would have given at all
    assert long < 8 * short / 2  # eight times the money, and less than four times the regret


def test_for_the_same_gain_the_cheap_one_is_taken_and_for_the_same_cost_the_good_one() -> None:
    for arms, best in (([(0.3, 9.0), (0.3, 1.0)], 1), ([(0.5, 1.0), (0.1, 1.0)], 0)):
        bandit, random = Bandit(2, seed=1), Random(1)
        for _ in range(400):
            arm = bandit.choose()
            chance, cost = arms[arm]
            bandit.tell(arm, gain=float(random.random() < chance), cost=cost)
        assert bandit.pulls[best] > 4 * bandit.pulls[1 - best]


def test_what_gives_nothing_for_nothing_is_not_pulled_for_ever() -> None:
    bandit, random = Bandit(2, seed=0), Random(0)
    for _ in range(600):
        arm = bandit.choose()
        bandit.tell(arm, gain=float(arm and random.random() < 0.3), cost=float(arm))
    assert bandit.pulls[1] > 2 * bandit.pulls[0]


@given(
    st.lists(st.tuples(st.floats(-1, 5), st.floats(0, 100)), min_size=1, max_size=30),
    st.floats(1e-6, 1e6),
)
def test_units_do_not_matter_and_a_state_goes_on_exactly(
    outcomes: list[tuple[float, float]], unit: float
) -> None:
    one, two, three = Bandit(3), Bandit(3), Bandit(3)
    for gain, cost in outcomes:
        arm = one.choose()
        assert two.choose() == arm
        one.tell(arm, gain=gain, cost=cost)
        two.tell(arm, gain=gain * 2.0, cost=cost * 4.0)
    three.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert [three.choose() for _ in range(5)] == [one.choose() for _ in range(5)]
    for gain, cost in ((math.nan, 1.0), (0.0, -1.0), (0.0, math.inf)):
        with pytest.raises(OptimizerError):
            one.tell(0, gain=gain, cost=cost)


# The mix


def paid(value: Any, cost: float) -> Reply:
    text = json.dumps({"suggestion": {"level": value}})
    return Reply(text, usage=Tokens(10, 10), cost=cost)


def test_of_two_models_the_one_that_improves_more_for_a_dollar_is_asked() -> None:
    level = tg.node(0, trainable=True, name="level")
    dear = Scripted(lambda request: paid(level.data + 1, 0.10), name="dear")
    cheap = Scripted(lambda request: paid(level.data + 1, 0.01), name="cheap")
    useless = Scripted(lambda request: paid(level.data, 0.01), name="useless")
    mix = Mix([OPRO([level], llm=llm) for llm in (dear, useless, cheap)])
    for _ in range(120):
        mix.backward(level + 0, level.data / 100)
        mix.step()
    assert mix.bandit.pulls[2] > 3 * max(mix.bandit.pulls[:2])


def test_a_gain_is_credited_to_the_one_that_proposed_and_a_refusal_is_none() -> None:
    level = tg.node(0, trainable=True, name="level")
    one, two = (OPRO([level], llm=Scripted([paid(n, 0.5)])) for n in (1, 2))
    mix = Mix([one, two])
    mix.backward(level + 0, 0.25)
    mix.settle(mix.propose())
    mix.backward(level + 0, 0.75)
    mix.refuse(mix.propose(), "no better", score=0.5)
    assert (mix.bandit.gains, mix.bandit.costs, mix.bandit.pulls) == (
        [0.5, 0.0],
        [0.5, 0.5],
        [1, 1],
    )
    assert (len(one.rejected), len(two.rejected)) == (0, 1)


def test_a_model_that_fails_has_gained_nothing_and_its_error_passes() -> None:
    level = tg.node(0, trainable=True, name="level")
    broken = Scripted([ModelFailed("down", status=500)])
    mix = Mix([OPRO([level], llm=broken), OPRO([level], llm=Scripted([paid(1, 0.1)]))])
    mix.backward(level + 0, 0.5)
    with pytest.raises(ModelFailed):
        mix.step()
    assert mix.step()
    assert mix.bandit.pulls[0] == 1
    assert level.data == 1


def test_a_mix_needs_scores_and_asks_nobody_without() -> None:
    level = tg.node(0, trainable=True, name="level")
    llm = Scripted([])
    mix = Mix([OptoPrime([level], llm=llm)])
    mix.backward(level + 0, "only words")
    with pytest.raises(OptimizerError, match="needs a score"):
        mix.step()
    assert llm.requests == []


def test_the_state_of_a_mix_goes_on_exactly() -> None:
    def made() -> tuple[Any, Mix]:
        parts = {name: tg.node(0, trainable=True, name=name) for name in ("level", "other")}
        llm = Scripted(lambda request: paid(parts["level"].data + 1, 0.1))
        return parts, Mix([OPRO(parts, llm=llm), Merge(parts), OPRO(parts, llm=llm)])

    def steps(parts: Any, mix: Mix, count: int) -> list[int]:
        found = []
        for _ in range(count):
            mix.backward(parts["level"] + parts["other"], parts["level"].data / 100)
            mix.step()
            found.append(sum(mix.bandit.pulls))
        return found

    parts, whole = made()
    steps(parts, whole, 20)
    first_parts, first = made()
    steps(first_parts, first, 9)
    state = json.loads(json.dumps(first.state_dict()))
    second_parts, second = made()
    second.load_state_dict(state)
    for name, parameter in second_parts.items():
        parameter.assign(first_parts[name].data)
    steps(second_parts, second, 11)
    assert second.bandit.state_dict() == whole.bandit.state_dict()
    with pytest.raises(OptimizerError, match="no state"):
        second.load_state_dict({"open": [1]})


def test_the_price_of_a_proposal() -> None:
    assert dollars(Usage(1, 10, 10, 0.5)) == 0.5
    assert dollars(Usage(3, 0, 0, 0.0)) == 0.0
    assert dollars(Usage(1, 400, 100)) == pytest.approx(0.0005)
    assert dollars(Usage()) == 0.0
