from __future__ import annotations

import json
import math
import random
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from operator import attrgetter
from typing import Annotated, Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

import tracegraph as tg
from optimizers import Evolve
from optimizers.candidate import identity
from optimizers.search import Candidate, RandomSearch, Search, Trial
from optimizers.search.lexicase import lexicase
from tests.interleaving import Once
from tracegraph.errors import OptimizerError, Rejected
from tracegraph.feedback import UnknownFeedback

STRATEGIES = [Evolve, RandomSearch]


@tg.bundle(trainable=True, trust=True)
def gain(x: int) -> int:
    """How much x is worth."""
    return x - 1


def everything() -> list[Any]:
    """One parameter of every kind; each call makes new ones."""
    gain.parameters()[0].assign(gain.parameters()[0].initial)
    return [
        tg.node(0.5, trainable=True, name="rate", constraint=Annotated[float, Field(ge=0, le=1)]),
        tg.node(3, trainable=True, name="count", constraint=Annotated[int, Field(ge=1, le=9)]),
        tg.node("slow", trainable=True, name="pace", constraint=Literal["slow", "fast"]),
        tg.node(False, trainable=True, name="loud"),
        tg.node("Be kind. Be brief.", trainable=True, name="prompt"),
        tg.node({"k": [1, 2.0]}, trainable=True, name="plan"),
        tg.node(torch.ones(2), trainable=True, name="weight"),
        gain,
    ]


def worth(values: Any) -> float:
    """A score that every parameter has a part in."""
    return (
        values["rate"]
        + values["count"] / 9
        + (values["pace"] == "fast")
        + values["loud"]
        - len(values["prompt"]) / 30
        + sum(values["plan"]["k"])
        - float(values["weight"].detach().abs().sum())
        + ("x + 1" in values["gain"])
    )


def numbers(count: int, start: float = 4.0) -> list[Any]:
    return [tg.node(start, trainable=True, name=f"x{i}") for i in range(count)]


def sphere(values: Any) -> float:
    return -sum((value - 1) ** 2 for value in values.values())


def run(search: Search, evaluations: int, score: Any = worth, batch: int = 1) -> Search:
    told = 0
    while told < evaluations:
        candidates = search.ask(batch)
        if not candidates:
            break
        for candidate in candidates:
            search.tell(candidate, score(candidate.values))
        told += len(candidates)
    return search


def record(search: Search) -> list[tuple[str, float]]:
    return [(trial.candidate.id, trial.score) for trial in search.history]


# It finds what is better


@pytest.mark.parametrize("seed", range(5))
def test_solves_the_sphere_in_a_few_hundred_evaluations(seed: int) -> None:
    search = run(Evolve(numbers(3), seed=seed), 300, sphere)
    assert search.best_score > -0.05  # it started at -27


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.campaign) for n in (1, 2))]
)
def test_beats_random_search_on_every_kind_together(seed: int) -> None:
    evolved = run(Evolve(everything(), seed=seed), 200).best_score
    drawn = run(RandomSearch(everything(), seed=seed), 200).best_score
    assert evolved > drawn + 0.5


def test_minimizes_where_asked() -> None:
    search = Evolve(numbers(2), minimize=True, seed=0)
    run(search, 200, lambda values: -sphere(values))
    assert 0 <= search.best_score < 0.05


def test_the_step_size_adapts() -> None:
    search = run(Evolve(numbers(3), seed=0), 400, sphere)
    assert search.best.step < 0.1 < Evolve(numbers(1)).first_step


# It keeps its promises about candidates


@pytest.mark.parametrize("make", STRATEGIES)
@given(seed=st.integers(0, 10**6), batch=st.integers(1, 9))
@settings(max_examples=8, deadline=None)
def test_candidates_are_allowed_and_never_the_same_twice(make: Any, seed: int, batch: int) -> None:
    parameters = everything()
    search = make(parameters, seed=seed)
    first = search.ask()[0]
    assert first.values["prompt"] == "Be kind. Be brief."
    search.tell(first, 0.0)
    seen = {first.id}
    for _ in range(4):
        for candidate in search.ask(batch):
            assert candidate.id not in seen
            seen.add(candidate.id)
            for name, value in candidate.values.items():
                search.named_parameters[name].check(value)
            search.tell(candidate, worth(candidate.values))


def test_a_small_space_is_searched_through_and_then_ends() -> None:
    def small() -> list[Any]:
        return [
            tg.node(1, trainable=True, name="a", constraint=Literal[1, 2, 3]),
            tg.node(True, trainable=True, name="b"),
        ]

    for make in STRATEGIES:
        search = make(small())
        asked = search.ask(20)
        assert len(asked) == 6
        assert search.ask(1) == []


def test_equal_values_are_equal_candidates_and_survive_the_way_to_a_process() -> None:
    first, second = Evolve(everything()).ask()[0], Evolve(everything()).ask()[0]
    assert first == second
    assert hash(first) == hash(second)
    with pytest.raises(TypeError):
        first.values["rate"] = 1.0  # type: ignore[index]
    with pytest.raises(AttributeError):
        first.number = 3  # type: ignore[misc]


def test_candidates_go_to_other_processes_and_back() -> None:
    asked = Evolve(everything(), seed=4).ask(8)
    facts = attrgetter("id", "number", "parents")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        assert list(pool.map(facts, asked)) == [facts(candidate) for candidate in asked]
        names = list(pool.map(identity, [dict(candidate.values) for candidate in asked]))
    assert names == [candidate.id for candidate in asked]


# The same seed and scores give the same candidates


@pytest.mark.parametrize("make", STRATEGIES)
def test_replay_is_the_same_and_another_seed_is_not(make: Any) -> None:
    first = record(run(make(everything(), seed=7), 40))
    assert record(run(make(everything(), seed=7), 40)) == first
    assert record(run(make(everything(), seed=8), 40)) != first


def test_nobody_elses_chance_is_touched_or_used() -> None:
    random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), torch.get_rng_state().tolist()
    first = record(run(Evolve(everything(), seed=7), 30))
    assert (random.getstate(), torch.get_rng_state().tolist()) == before
    random.seed(2)
    assert record(run(Evolve(everything(), seed=7), 30)) == first


@given(st.randoms(use_true_random=False))
@settings(max_examples=10, deadline=None)
def test_the_order_of_telling_a_brood_does_not_matter(shuffler: Any) -> None:
    expected = record(run(Evolve(numbers(2), seed=3, lambda_=6), 36, sphere))
    search = Evolve(numbers(2), seed=3, lambda_=6)
    for _ in range(6):
        candidates = search.ask(6)
        shuffler.shuffle(candidates)
        for candidate in candidates:
            search.tell(candidate, sphere(candidate.values))
    assert record(search) == expected


def test_step_by_step_is_the_same_search() -> None:
    expected = record(run(Evolve(numbers(2), seed=5), 30, sphere))
    parameters = numbers(2)
    search = Evolve(parameters, seed=5)
    for _ in range(30):
        output = parameters[0] + parameters[1]
        search.zero_feedback()
        search.backward(output, sphere({p.label: p.data for p in parameters}))
        assert search.step()
    assert record(search) == expected
    assert search.finish()
    assert {p.label: p.data for p in parameters} == dict(search.best.values)


# Going on after a stop


@pytest.mark.parametrize("make", STRATEGIES)
@pytest.mark.parametrize("stop", [0, 1, 5, 13])
def test_resumed_equals_uninterrupted(make: Any, stop: int) -> None:
    whole = run(make(everything(), seed=2), 30)
    part = run(make(everything(), seed=2), stop) if stop else make(everything(), seed=2)
    saved = json.dumps(part.state_dict())
    resumed = make(everything(), seed=2)
    resumed.load_state_dict(json.loads(saved))
    run(resumed, 30 - stop)
    assert record(resumed) == record(whole)
    assert json.dumps(resumed.state_dict()) == json.dumps(whole.state_dict())


def test_resumed_between_ask_and_tell_and_in_the_middle_of_steps() -> None:
    search = Evolve(numbers(2), seed=1)
    asked = search.ask(3)
    search.tell(asked[1], -1.0)
    search.apply(asked[2])
    resumed = Evolve(numbers(2), seed=1)
    resumed.load_state_dict(json.loads(json.dumps(search.state_dict())))
    assert resumed.current == asked[2]
    for one in (search, resumed):
        one.tell(asked[0], -3.0)
        one.tell(asked[2], -2.0)
    assert [c.id for c in resumed.ask(9)] == [c.id for c in search.ask(9)]


def _without_trials(state: dict[str, Any]) -> None:
    del state["trials"]


def _other_value(state: dict[str, Any]) -> None:
    state["trials"][0]["values"]["x0"] = 77.0


def _forbidden_value(state: dict[str, Any]) -> None:
    state["trials"][0]["values"]["x0"] = "seven"


def _other_seed(state: dict[str, Any]) -> None:
    state["options"]["seed"] = 99


def _no_such_candidate(state: dict[str, Any]) -> None:
    state["waiting"] = ["nobody"]


@pytest.mark.parametrize(
    "damage",
    [_without_trials, _other_value, _forbidden_value, _other_seed, _no_such_candidate, dict.clear],
)
def test_a_damaged_or_foreign_state_is_refused_and_changes_nothing(damage: Any) -> None:
    search = run(Evolve(numbers(2), seed=1), 5, sphere)
    before = json.dumps(search.state_dict())
    state = json.loads(before)
    damage(state)
    with pytest.raises((OptimizerError, Rejected)):
        search.load_state_dict(state)
    assert json.dumps(search.state_dict()) == before


# Scores, failures, and what is no score


def test_scores_that_are_none_are_refused_and_nothing_is_told() -> None:
    search = Evolve(numbers(1))
    (candidate,) = search.ask()
    with pytest.raises(UnknownFeedback, match="NaN"):
        search.tell(candidate, math.nan)
    with pytest.raises(UnknownFeedback, match="a score is a number"):
        search.tell(candidate, "good")  # type: ignore[arg-type]
    with pytest.raises(OptimizerError, match="is no candidate of this search"):
        search.tell(Candidate("0" * 16, {"x0": 1.0}), 1.0)
    assert search.history == []
    with pytest.raises(OptimizerError, match="no candidate has a score yet"):
        _ = search.best


def test_a_failed_candidate_counts_less_than_every_score_and_is_no_parent() -> None:
    search = Evolve(numbers(1), seed=0, mu=2, lambda_=4)
    good, bad, *rest = search.ask(4)
    search.tell(good, -1e300)
    search.tell(bad, None, feedback="ZeroDivisionError")
    for candidate in rest:
        search.tell(candidate, None)
    assert search.best == good
    assert search.history[1].failed
    assert search.history[1].feedback == "ZeroDivisionError"
    assert all(child.parents == (good.id,) for child in search.ask(4))
    only = Evolve(numbers(1))
    only.tell(only.ask()[0], None)
    with pytest.raises(OptimizerError, match=r"no candidate has a score yet \(1 failed\)"):
        only.finish()


def test_a_candidate_told_twice_counts_by_its_mean() -> None:
    search = Evolve(numbers(1))
    (candidate,) = search.ask()
    search.tell(candidate, 1.0)
    search.tell(candidate, 2.0)
    assert search.best_score == 1.5
    search.tell(candidate, None)
    assert search.history[0].failed


def test_words_alone_are_refused_clearly_and_stay() -> None:
    x = tg.node(1.0, trainable=True, name="x")
    search = Evolve([x])
    search.backward(x * 2, "too small")
    with pytest.raises(OptimizerError, match=r"Evolve needs a score .* none arrived: 'too small'"):
        search.step()
    assert x.data == 1.0
    assert x.feedback
    search.backward(x * 2, 0.5)
    assert search.step()
    assert search.history[0].feedback == "too small"


def test_a_failed_run_is_told_as_a_failure() -> None:
    @tg.bundle
    def divide(value: float) -> float:
        return 1 / (value - 1)

    x = tg.node(1.0, trainable=True, name="x")
    search = Evolve([x])
    with pytest.raises(ZeroDivisionError) as caught:
        divide(x)
    search.backward(caught.value.exception_node, caught.value)  # type: ignore[attr-defined]
    assert search.step()
    assert search.history[0].failed
    assert "ZeroDivisionError" in search.history[0].feedback
    assert x.data != 1.0


def test_several_outputs_count_by_their_weighted_mean() -> None:
    x = tg.node(1.0, trainable=True, name="x")
    search = Evolve([x])
    search.backward([(x * 2, 1.0, 3.0), (x * 3, 0.0, 1.0)])
    search.step()
    assert search.history[0].score == 0.75


def test_a_step_without_feedback_and_a_bypassed_step_change_nothing() -> None:
    x = tg.node(1.0, trainable=True, name="x")
    search = Evolve([x])
    assert not search.step()
    search.backward(x * 2, 1.0)
    before = json.dumps(search.state_dict())
    shown = search.step(bypassing=True)
    assert json.dumps(search.state_dict()) == before
    assert x.data == 1.0
    done = search.step()
    assert shown.changes[0].after == done.changes[0].after == x.data


# Putting candidates into the parameters


def test_apply_is_all_or_none_and_says_who_wrote() -> None:
    limit = [10.0]
    x = tg.node(1.0, trainable=True, name="x")
    y = tg.node(1.0, trainable=True, name="y", constraint=lambda v: v < limit[0])
    search = Evolve([x, y])
    _, candidate = search.ask(2)
    limit[0] = -10.0
    with pytest.raises(Rejected, match=r"y: .*nothing has changed"):
        search.apply(candidate)
    assert (x.data, y.data, x.origin) == (1.0, 1.0, "person")
    limit[0] = 10.0
    assert search.apply(candidate)
    assert (x.data, y.data) == (candidate.values["x"], candidate.values["y"])
    assert x.origin == "optimizer"


def test_what_happens_to_a_parameter_in_place_does_not_reach_a_candidate() -> None:
    weight = tg.node(torch.ones(2, requires_grad=True), trainable=True, name="weight")
    plan = tg.node([1, 2], trainable=True, name="plan")
    search = Evolve([weight, plan])
    first, second = search.ask(2)
    search.apply(second)
    kept = second.values["weight"].tolist(), list(second.values["plan"])
    with torch.no_grad():
        weight.data.add_(1)
    plan.data.append(9)
    assert (second.values["weight"].tolist(), second.values["plan"]) == kept
    assert weight.data.requires_grad
    assert first.values["weight"].tolist() == [1, 1]


def test_frozen_parameters_stay() -> None:
    x, y = numbers(2)
    search = Evolve([x, y], seed=1)
    y.freeze()
    run(search, 20, sphere)
    assert {trial.candidate.values["x1"] for trial in search.history} == {4.0}
    search.finish()
    assert (x.version, y.version) == (1, 0)


@pytest.mark.parametrize(
    "options",
    [
        {"mu": 0},
        {"lambda_": 1.5},
        {"seed": "a"},
        {"seed": True},
        {"crossover": 2},
        {"step": 0},
        {"phrases": "one text"},
        {"phrases": [3]},
        {"expressions": ["x +"]},
        {"logarithmic": ["nobody"]},
    ],
    ids=str,
)
def test_bad_options_are_named(options: Any) -> None:
    with pytest.raises(OptimizerError, match=next(iter(options))):
        Evolve(numbers(1), **options)


def test_asking_for_nothing_is_an_error() -> None:
    with pytest.raises(OptimizerError, match="at least one"):
        Evolve(numbers(1)).ask(0)


CASES = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 2), min_size=1), min_size=1, max_size=6
)


@given(CASES, st.integers(0, 1000))
def test_who_is_chosen_is_beaten_by_nobody_on_every_case(
    told: list[dict[str, int]], seed: int
) -> None:
    trials = [
        Trial(Candidate.of({"x": n}), (0.0,), cases={k: float(v) for k, v in cases.items()})
        for n, cases in enumerate(told)
    ]
    chosen = lexicase(trials, random.Random(seed)).cases
    for other in trials:
        if other.cases.keys() == chosen.keys():
            better = [other.cases[name] - chosen[name] for name in chosen]
            assert not (min(better) >= 0 and max(better) > 0)


def test_cases_are_kept_and_checked() -> None:
    x = tg.node(1.0, trainable=True, name="x")
    one, two = Evolve([x], seed=2), Evolve([x], seed=2)
    (first,) = one.ask()
    for wrong in ([math.nan], ["good"], {"a": None}):
        with pytest.raises(OptimizerError, match="a number for each case"):
            one.tell(first, 1.0, cases=wrong)  # type: ignore[arg-type]
    assert not one.history
    one.tell(first, 1.0, cases=[1, 0.5])
    two.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert two.history[0].cases == {"0": 1.0, "1": 0.5}
    assert [c.values for c in one.ask(4)] == [c.values for c in two.ask(4)]


@pytest.mark.parametrize("seed", range(3))
def test_nobody_is_bred_with_itself(seed: int) -> None:
    """Where cases choose the father, too."""
    variables = [tg.node(float(n), trainable=True, name=f"x{n}") for n in range(3)]
    optimizer = Evolve(variables, mu=4, lambda_=4, crossover=1.0, seed=seed)
    crossed = 0
    for _ in range(30):
        (candidate,) = optimizer.ask()
        assert len(set(candidate.parents)) == len(candidate.parents)
        crossed += len(candidate.parents) == 2
        cases = [-abs(value) for value in candidate.values.values()]
        optimizer.tell(candidate, sum(cases), cases=cases)
    assert crossed > 5


def test_what_is_best_on_one_case_becomes_a_parent() -> None:
    """Of two halves of a solution the weaker one would never be among the best."""
    x = tg.node(1.0, trainable=True, name="x")
    optimizer = Evolve([x], mu=1, lambda_=2, crossover=0.0, seed=0)
    (first,) = optimizer.ask()
    optimizer.tell(first, 1.0, cases=[0.0, 1.0])
    (second,) = optimizer.ask()
    optimizer.tell(second, 9.0, cases=[9.0, 0.0])
    parents = {candidate.parents for candidate in optimizer.ask(20)[4:]}
    assert parents == {(first.id,), (second.id,)}


def test_threads_that_ask_at_once_get_different_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    search = Evolve([tg.node(0.5, trainable=True, name="x")], lambda_=4, seed=1)
    search.tell(*search.ask(), 1.0)
    asked: list[Any] = []
    once, following = Once(lambda: asked.extend(search.ask())), search._next

    def seen() -> Any:
        found = following()
        once()
        return found

    monkeypatch.setattr(search, "_next", seen)
    asked += search.ask(2)
    assert len({candidate.id for candidate in asked}) == 3


def test_scores_that_are_told_at_once_all_count() -> None:
    search = Evolve([tg.node(0.5, trainable=True, name="x")], seed=1)
    (candidate,) = search.ask()
    once = Once(lambda: search.tell(candidate, 1.0))

    class Cases(dict[str, float]):
        def items(self) -> Any:
            once()
            return super().items()

    search.tell(candidate, 3.0, cases=Cases(a=1.0))
    assert search.best_score == 2.0


def test_a_value_that_two_threads_find_at_once_is_one_candidate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    search = Evolve([tg.node(0.5, trainable=True, name="x")], seed=1)
    found: list[Any] = []
    once, copied = Once(lambda: found.append(search._admitted({"x": 0.25}))), search._copied

    def copying(*args: Any) -> Any:
        once()
        return copied(*args)

    monkeypatch.setattr(search, "_copied", copying)
    found.append(search._admitted({"x": 0.25}))
    other = search._admitted({"x": 0.125})
    assert found[0] is found[1]
    assert (found[0].number, other.number) == (1, 2)
