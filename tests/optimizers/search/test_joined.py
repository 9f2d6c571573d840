"""Two variations of one code that are better on different cases are joined: half repairs make a whole one."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import tracegraph as tg
from optimizers import Evolve
from optimizers.candidate import Candidate, Trial
from optimizers.search.code import joined_code
from optimizers.search.lexicase import complementary
from tracegraph.kinds import KINDS
from tracegraph.parameter import Parameter

TEXT = "def f(x):\n    a = 1\n    b = 2\n    c = 3\n    d = 4\n    return [a, b, c, d]"


def changed(places: dict[int, int], extra: set[int]) -> str:
    """`TEXT` with other numbers in some lines, and with lines after some."""
    lines = TEXT.split("\n")
    for place, number in places.items():
        lines[place] = f"    {lines[place].strip()[0]} = {number}"
    for place in sorted(extra, reverse=True):
        lines.insert(place + 1, f"    x = {place + 10}")
    return "\n".join(lines)


SIDES = st.dictionaries(st.integers(1, 4), st.integers(5, 9), max_size=2)
MORE = st.sets(st.integers(1, 4), max_size=1)


@given(SIDES, MORE, SIDES, MORE)
def test_both_changes_are_in_the_text_or_they_touch(
    mine: dict[int, int], my_lines: set[int], yours: dict[int, int], your_lines: set[int]
) -> None:
    assume(not my_lines & your_lines)  # at one place, either may come first
    mother, father = changed(mine, my_lines), changed(yours, your_lines)
    both = joined_code(TEXT, mother, father)
    touched = mine.keys() | my_lines, yours.keys() | your_lines
    near = {place + step for place in touched[1] for step in (-1, 0, 1)}
    if both is None:
        assert touched[0] & near
    else:
        assert both == changed({**mine, **yours}, my_lines | your_lines)
        assert both == joined_code(TEXT, father, mother)


def test_lines_at_one_place_have_no_order() -> None:
    assert joined_code(TEXT, changed({}, {2}), changed({}, {2}).replace("x", "y")) is None


def test_what_would_not_compile_is_none() -> None:
    first = "def f(x):\n    y = x\n    for i in x:\n        y = i\n    return y"
    gone = "def f(x):\n    y = x\n    y = i\n    return y"
    broken = first.replace("y = i", "break")
    assert joined_code(first, gone, broken) is None


def trial(number: int, cases: dict[str, int], *parents: Trial) -> Trial:
    ids = tuple(one.candidate.id for one in parents)
    return Trial(
        Candidate.of({"x": number}, ids), (0.0,), cases={k: float(v) for k, v in cases.items()}
    )


CASES = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 1), min_size=1)


@given(st.lists(st.tuples(CASES, st.integers(-1, 4)), max_size=8))
def test_pairs_are_of_one_origin_and_each_gains_what_the_other_does_not(made: Any) -> None:
    trials = [trial(0, {"a": 0, "b": 0, "c": 1})]
    for number, (cases, parent) in enumerate(made, 1):
        origin = trials[min(parent, number - 1)] if parent >= 0 else None
        trials.append(trial(number, cases, *([] if origin is None else [origin])))
    by_id = {one.candidate.id: one for one in trials}
    found = complementary(by_id, trials)

    def gains(one: Trial, origin: Trial) -> set[str]:
        return {k for k, v in one.cases.items() if v > origin.cases.get(k, v)}

    wanted = {
        (origin.candidate.id, one.candidate.id, two.candidate.id)
        for place, one in enumerate(trials)
        for two in trials[place + 1 :]
        for origin in trials
        if one.candidate.parents == two.candidate.parents == (origin.candidate.id,)
        and gains(one, origin) - gains(two, origin)
        and gains(two, origin) - gains(one, origin)
    }
    assert {tuple(t.candidate.id for t in three) for three in found} == wanted
    assert len(found) == len(wanted)


def test_who_has_two_parents_or_none_that_is_known_is_in_no_pair() -> None:
    first = trial(0, {"a": 0, "b": 0})
    one, two = trial(1, {"a": 1, "b": 0}, first), trial(2, {"a": 0, "b": 1}, first)
    child, other = trial(3, {"a": 1, "b": 1}, one, two), trial(4, {"a": 2, "b": 0}, one, two)
    known = {t.candidate.id: t for t in (one, two, child, other)}
    assert complementary(known, [one, two, child, other]) == []
    known[first.candidate.id] = first
    assert complementary(known, [one, child, other]) == []
    assert complementary(known, [one, two, child, other]) == [(first, one, two)]


def halves(optimizer: Evolve, first: Candidate) -> None:
    """Tell half repairs of each line, made by hand, as variations of the first code."""
    for place, cases in ((1, [1.0, 0.0, 0.0]), (4, [0.0, 1.0, 0.0])):
        text = changed({place: 9}, set())
        made = optimizer._admitted({"f": text}, (first.id,), 0.0)
        optimizer.tell(made, sum(cases), cases=cases)


def prepared(seed: int = 0, **options: Any) -> Evolve:
    parameter = Parameter(TEXT, name="f", kind=KINDS["code"], **options)
    optimizer = Evolve([parameter], seed=seed, crossover=0.0)  # which could find it by chance
    (first,) = optimizer.ask()
    optimizer.tell(first, 1.0, cases=[0.0, 0.0, 1.0])  # right by chance where the halves are wrong
    halves(optimizer, first)
    return optimizer


def test_the_search_joins_them_also_after_it_was_kept() -> None:
    optimizer, other = prepared(), prepared()
    other.load_state_dict(json.loads(json.dumps(optimizer.state_dict())))
    whole = changed({1: 9, 4: 9}, set())
    asked = optimizer.ask(40)
    assert whole in [candidate.values["f"] for candidate in asked]
    assert [c.values for c in asked] == [c.values for c in other.ask(40)]


def test_what_is_not_allowed_is_not_joined() -> None:
    def fits(text: str) -> bool:
        return text.count("9") < 2

    optimizer = prepared(constraint=fits)
    assert all(fits(candidate.values["f"]) for candidate in optimizer.ask(40))


def test_frozen_code_stays_as_it_is_today() -> None:
    optimizer = prepared()
    (parameter,) = optimizer.named_parameters.values()
    x = tg.node(1.0, trainable=True, name="x")
    both = Evolve([parameter, x], seed=1)
    (first,) = both.ask()
    both.tell(first, 1.0, cases=[0.0, 0.0, 1.0])
    for place, cases in ((1, [1.0, 0.0, 0.0]), (4, [0.0, 1.0, 0.0])):
        values = {**first.values, "f": changed({place: 9}, set())}
        both.tell(both._admitted(values, (first.id,), 0.0), 1.0, cases=cases)
    parameter.freeze()
    assert {candidate.values["f"] for candidate in both.ask(20)} == {TEXT}


@pytest.mark.parametrize("seed", range(3))
def test_without_cases_nothing_is_joined_and_chance_is_as_it_was(seed: int) -> None:
    optimizer = Evolve([Parameter(TEXT, name="f", kind=KINDS["code"])], seed=seed)
    state = random.getstate()
    for number in range(12):
        (candidate,) = optimizer.ask()
        optimizer.tell(candidate, float(number))
    assert optimizer._joined(random.Random(seed), []) is None
    assert random.getstate() == state
