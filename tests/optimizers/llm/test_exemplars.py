from __future__ import annotations

import itertools
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tracegraph as tg
from optimizers import Budget, Exemplars, fit
from optimizers.llm.similarity import covering, likeness, spread
from tracegraph.errors import OptimizerError


@tg.bundle
def respond(shown: list[dict[str, str]], text: str) -> str:
    """Answers a text whose first letter was shown, or stands in the alphabet's first half."""
    known = {demo["text"][0] for demo in shown}
    return text.upper() if text[0] in known or text[0] < "n" else "?"


@pytest.fixture
def shown() -> Any:
    return tg.node([], trainable=True, name="shown")


def give(exemplars: Exemplars, shown: Any, texts: str, score: float = 1.0) -> None:
    exemplars.backward([(respond(shown, text), score) for text in texts.split()])


def test_only_good_runs_are_shown(shown: Any) -> None:
    exemplars = Exemplars(shown, k=3)
    give(exemplars, shown, "apple berry")
    give(exemplars, shown, "cherry", score=0.9)
    exemplars.step()
    assert sorted(demo["text"] for demo in shown.data) == ["apple", "berry"]
    assert {demo["output"] for demo in shown.data} == {"APPLE", "BERRY"}


def test_without_good_runs_nothing_changes(shown: Any) -> None:
    exemplars = Exemplars(shown)
    give(exemplars, shown, "zebra", score=0.0)
    assert not exemplars.step()
    assert shown.data == []


@pytest.mark.parametrize("search", ["random", "mutation", "nearest", "diverse"])
def test_no_choice_is_made_twice(shown: Any, search: Any) -> None:
    exemplars = Exemplars(shown, k=2, search=search)
    choices = []
    for _ in range(6):
        give(exemplars, shown, "apple berry cherry date")
        exemplars.step()
        choices.append(tuple(sorted(demo["text"] for demo in shown.data)))
    assert len(set(choices)) == 6


def test_mutation_changes_one_demonstration(shown: Any) -> None:
    exemplars = Exemplars(shown, k=3, search="mutation")
    give(exemplars, shown, "apple berry cherry date elder fig")
    exemplars.step()
    before = {demo["text"] for demo in shown.data}
    give(exemplars, shown, "apple")
    exemplars.step()
    assert len(before & {demo["text"] for demo in shown.data}) == 2


def test_the_nearest_to_what_went_wrong_are_shown(shown: Any) -> None:
    exemplars = Exemplars(shown, k=2, search="nearest")
    give(exemplars, shown, "apples bananas cherries dates")
    give(exemplars, shown, "cherry banana", score=0.0)
    exemplars.step()
    assert sorted(demo["text"] for demo in shown.data) == ["bananas", "cherries"]


def test_the_diverse_are_not_alike(shown: Any) -> None:
    exemplars = Exemplars(shown, k=3, search="diverse")
    give(exemplars, shown, "cherry cherries cherrys banana bananas apple")
    exemplars.step()
    firsts = {demo["text"][0] for demo in shown.data}
    assert firsts == {"a", "b", "c"}


def test_what_is_covered_already_gains_nothing() -> None:
    texts = ["apple", "banana", "apples", "cherries"]
    assert covering(texts, ["apple", "banana", "cherry"], 3) == [0, 1, 3]


TEXTS = st.lists(st.text("abcd ", min_size=1, max_size=8), min_size=3, max_size=7, unique=True)


@given(TEXTS, TEXTS, st.integers(1, 3))
def test_a_greedy_choice_covers_as_well_as_is_proved(texts: Any, wanted: Any, k: int) -> None:
    def worth(chosen: Any) -> float:
        return sum(max(likeness(texts[i], w) for i in chosen) for w in wanted)

    best = max(map(worth, itertools.combinations(range(len(texts)), k)))
    chosen = covering(texts, wanted, k)
    assert len(set(chosen)) == k
    assert worth(chosen) >= (1 - 1 / math.e) * best - 1e-9


@given(TEXTS, st.integers(2, 3), st.integers(0, 9))
def test_the_spread_is_at_least_half_of_the_best(texts: Any, k: int, start: int) -> None:
    def apart(chosen: Any) -> float:
        pairs = itertools.combinations(chosen, 2)
        return min(1 - likeness(texts[i], texts[j]) for i, j in pairs)

    best = max(map(apart, itertools.combinations(range(len(texts)), k)))
    chosen = spread(texts, k, start=start)
    assert len(set(chosen)) == k
    assert apart(chosen) >= best / 2 - 1e-9


def test_what_it_remembers_is_json_and_comes_back(shown: Any) -> None:
    one = Exemplars(shown, k=2)
    give(one, shown, "apple berry cherry")
    proposal = one.propose()
    state = json.loads(json.dumps(one.state_dict()))
    two = Exemplars(shown, k=2)
    two.load_state_dict(state)
    assert two.state_dict() == state
    assert two.propose().values == one.propose().values != proposal.values
    with pytest.raises(OptimizerError, match="state"):
        two.load_state_dict({"pool": 3})


def test_a_training_finds_the_demonstrations_that_help(shown: Any) -> None:
    @tg.bundle
    def covered(shown: list[dict[str, str]], text: str) -> str:
        """Right for two texts always, and for those that stand in the demonstrations."""
        seen = {demo["text"] for demo in shown}
        return "yes" if text in ("a", "b") or text in seen or ("b" in seen and text > "c") else "no"

    fit(
        lambda text: covered(shown, text), list("abcdef"), lambda e, o: float(o == "yes"),
        optimizer=Exemplars(shown, k=1), budget=Budget(steps=6), workers=1,
    )  # fmt: skip
    assert [demo["text"] for demo in shown.data] == ["b"]


def test_bad_input_is_refused(shown: Any) -> None:
    with pytest.raises(OptimizerError, match="list"):
        Exemplars(tg.node("text", trainable=True))
    with pytest.raises(OptimizerError, match="k must"):
        Exemplars(shown, k=0)
    with pytest.raises(OptimizerError, match="search"):
        Exemplars(shown, search="magic")  # type: ignore[arg-type]
