"""Crossover asks for a child of what scored well; Merge makes one without asking anybody."""

from __future__ import annotations

import json
import re
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tracegraph as tg
from optimizers import Budget, Crossover, Merge, Mix, OptoPrime, fit
from optimizers.llm.merge import merged
from tracegraph.errors import OptimizerError
from tracegraph.llm import Request, Scripted

WORDS = [f"word{n}" for n in range(12)]


def worth(text: str) -> float:
    return sum(word in WORDS for word in set(text.split())) / len(WORDS)


def united(request: Request) -> str:
    """A model that takes every word of the members it is shown, and a new one by chance; nothing else."""
    text = request.messages[-1].text
    shown = re.findall(r"^\(text\) prompt = (.*)$", text, re.M)
    words = dict.fromkeys(word for member in shown for word in member.split())
    random = Random(text)
    new = random.choice([*WORDS, "noise"])
    return json.dumps({"suggestion": {"prompt": " ".join([*words, new])}})


@pytest.fixture
def prompt() -> Any:
    return tg.node("word0", trainable=True, name="prompt")


def suggest(**values: Any) -> str:
    return json.dumps({"suggestion": values})


@pytest.mark.parametrize("scheme", ["GA", "DE"])
def test_what_two_parents_have_comes_together(scheme: Any, prompt: Any) -> None:
    crossover = Crossover([prompt], llm=Scripted(united), scheme=scheme)
    for _ in range(100):
        crossover.backward(prompt + "", worth(prompt.data))
        crossover.step()
    assert max(member.score for member in crossover.population) == pytest.approx(1.0)


def test_with_the_parents_hidden_nothing_comes_together(prompt: Any) -> None:
    def blind(request: Request) -> str:
        message = request.messages[-1]
        hidden = re.sub(r"(?m)^\(text\).*$", "(hidden)", message.text)
        return united(Request.of(hidden))

    crossover = Crossover([prompt], llm=Scripted(blind))
    for _ in range(100):
        crossover.backward(prompt + "", worth(prompt.data))
        crossover.step()
    assert max(member.score for member in crossover.population) == pytest.approx(1 / len(WORDS))


def test_the_prompt_shows_the_parents_with_their_scores_and_no_feedback(prompt: Any) -> None:
    llm = Scripted([suggest(prompt=f"child {n}") for n in range(9)])
    crossover = Crossover([prompt], llm=llm, scheme="DE")
    for score in (0.1, 0.4, 0.3, 0.2, 0.6):
        crossover.backward(prompt + "", [score, "some words"])
        crossover.step()
    asked = [request.messages[-1].text for request in llm.requests]
    assert [len(re.findall(r"^\(text\)", text, re.M)) for text in asked] == [1, 2, 2, 4, 4]
    best = asked[-1].split("#Best member, ")[1]
    assert best.startswith("score 0.6\n(text) prompt = child 3")
    assert "some words" not in "".join(asked)


def test_only_the_best_are_kept_and_values_that_were_tried_are_refused(prompt: Any) -> None:
    llm = Scripted([suggest(prompt=w) for w in ("a", "b", "c", "a")])
    crossover = Crossover([prompt], llm=llm, population=2)
    for score in (0.5, 0.1, 0.9):
        crossover.backward(prompt + "", score)
        crossover.step()
    assert [m.score for m in crossover.population] == [0.9, 0.5]
    crossover.backward(prompt + "", 0.2)
    update = crossover.step()
    assert "tried before" in update.rejections[0].reason
    assert prompt.data == "c"


def test_a_refused_child_may_be_a_parent(prompt: Any) -> None:
    crossover = Crossover([prompt], llm=Scripted([suggest(prompt="other")]))
    crossover.backward(prompt + "", 0.5)
    crossover.refuse(crossover.propose(), "no better", score=0.4)
    assert [m.values["prompt"] for m in crossover.population] == ["word0", "other"]


def test_without_scores_nothing_is_asked(prompt: Any) -> None:
    llm = Scripted([])
    crossover = Crossover([prompt], llm=llm)
    crossover.backward(prompt + "", "only words")
    with pytest.raises(OptimizerError, match="needs a score"):
        crossover.step()
    assert llm.requests == []


def test_the_state_is_json_and_comes_back(prompt: Any) -> None:
    one = Crossover([prompt], llm=Scripted(united))
    for _ in range(5):
        one.backward(prompt + "", worth(prompt.data))
        one.step()
    state = json.loads(json.dumps(one.state_dict()))
    two = Crossover([prompt], llm=Scripted(united))
    two.load_state_dict(state)
    assert two.state_dict() == state
    for optimizer in (one, two):
        optimizer.backward(prompt + "", 0.5)
    assert one.propose().values == two.propose().values
    with pytest.raises(OptimizerError):
        two.load_state_dict({"population": 3})


def test_wrong_options_are_refused(prompt: Any) -> None:
    for wrong in ({"scheme": "PSO"}, {"population": 1}):
        with pytest.raises(OptimizerError):
            Crossover([prompt], llm=Scripted([]), **wrong)  # type: ignore[arg-type]


# Merge

VALUES = st.fixed_dictionaries({name: st.integers(0, 2) for name in "abcd"})


@given(VALUES, VALUES, VALUES)
def test_a_merge_keeps_every_change_of_one_side_and_conflicts_go_to_the_better(
    ancestor: Any, better: Any, other: Any
) -> None:
    child = merged(ancestor, better, other)
    for name in ancestor:
        sides = {better[name], other[name]} - {ancestor[name]}
        if len(sides) == 1:
            assert child[name] in sides
        elif not sides:
            assert child[name] == ancestor[name]
        else:
            assert child[name] == better[name]


@pytest.fixture
def parts() -> dict[str, Any]:
    return {name: tg.node(0, trainable=True, name=name) for name in "abc"}


def values(a: int, b: int, c: int) -> dict[str, int]:
    return {"a": a, "b": b, "c": c}


def ready(merge: Merge, parts: Any) -> None:
    merge.backward(parts["a"] + parts["b"] + parts["c"], 0.0)


def proposed(merge: Merge) -> dict[str, Any]:
    return {p.label: value for p, value in merge.propose().values.items()}


def test_only_what_has_a_common_worse_ancestor_is_merged(parts: Any) -> None:
    merge = Merge(parts)
    root = merge.watch(values(0, 0, 0), 0.5)
    merge.watch(values(1, 0, 0), 0.9, root)
    merge.watch(values(0, 1, 0), 0.4, root)  # worse than its ancestor
    foreign = merge.watch(values(2, 2, 2), 0.8)  # no ancestor in common
    merge.watch(values(2, 2, 1), 0.9, foreign)  # its own parent's child
    assert proposed(merge) == {}
    merge.watch(values(0, 0, 1), 0.7, root)
    assert proposed(merge) == values(1, 0, 1)


def test_a_candidate_is_not_merged_with_its_own_ancestor(parts: Any) -> None:
    merge = Merge(parts)
    root = merge.watch(values(0, 0, 0), 0.1)
    parent = merge.watch(values(1, 0, 0), 0.3, root)
    merge.watch(values(0, 2, 0), 0.5, parent)  # it took back what its parent had changed
    assert proposed(merge) == {}


def test_a_merge_is_proposed_once_and_ancestors_reach_over_generations(parts: Any) -> None:
    merge = Merge(parts)
    root = merge.watch(values(0, 0, 0), 0.1)
    left = merge.watch(values(1, 0, 0), 0.3, root)
    merge.watch(values(1, 2, 0), 0.6, left)
    merge.watch(values(0, 0, 3), 0.5, root)
    found = [proposed(merge) for _ in range(3)]
    assert found == [values(1, 2, 3), values(1, 0, 3), {}]


def test_the_front_is_by_example_where_scores_are(parts: Any) -> None:
    merge = Merge(parts)
    root = merge.watch(values(0, 0, 0), [0.0, 0.0, 0.0])
    merge.watch(values(1, 0, 0), [1.0, 0.0, 0.0], root)  # best on the first example
    merge.watch(values(0, 1, 0), [0.0, 1.0, 0.0], root)  # best on the second
    merge.watch(
        values(0, 0, 1), [0.9, 0.9, 0.0], root
    )  # the best mean, and best on none but the third
    found = {tuple(v.items()) for v in iter(lambda: proposed(merge), {})}
    pairs = [values(1, 1, 0), values(1, 0, 1), values(0, 1, 1)]
    assert found == {tuple(v.items()) for v in pairs}  # on the third all are equally best
    other = Merge(parts)
    root = other.watch(values(0, 0, 0), [0.0, 0.0])
    other.watch(values(1, 0, 0), [1.0, 0.0], root)
    other.watch(values(0, 1, 0), [0.0, 1.0], root)
    other.watch(values(0, 0, 1), [0.9, 0.9], root)
    assert list(iter(lambda: proposed(other), {})) == [values(1, 1, 0)]


def test_candidates_are_told_apart_by_their_values_alone(parts: Any) -> None:
    merge = Merge(parts)
    root = merge.watch(values(0, 0, 0), 0.1)
    first = merge.watch(values(1, 0, 0), 0.2, root)
    again = merge.watch(values(1, 0, 0), 0.3)
    assert first == again
    assert again.parents == (root.id,)
    merge.watch(values(0, 1, 0), 0.3, root)
    merge.watch(values(1, 1, 0), 0.9)  # their merge is known already
    assert proposed(merge) == {}


def test_the_state_of_a_merge_is_json_and_comes_back(parts: Any) -> None:
    def filled() -> Merge:
        merge = Merge(parts)
        root = merge.watch(values(0, 0, 0), 0.1)
        for place in range(3):
            child = [0, 0, 0]
            child[place] = 1
            merge.watch(values(*child), 0.2 + place / 10, root)
        return merge

    one, two = filled(), Merge(parts)
    one.propose()
    state = json.loads(json.dumps(one.state_dict()))
    two.load_state_dict(state)
    assert two.state_dict() == state
    assert proposed(two) == proposed(one) != {}
    with pytest.raises(OptimizerError, match="no state"):
        two.load_state_dict({"known": 1})


def test_bad_input_to_merge_is_refused(parts: Any) -> None:
    with pytest.raises(OptimizerError, match="got one"):
        Merge([parts["a"]])
    merge = Merge(parts)
    for given_values, scores in (
        ({"a": 1}, 0.1), (values(0, 0, 0), []), (values(0, 0, 0), float("nan")),
    ):  # fmt: skip
        with pytest.raises(OptimizerError):
            merge.watch(given_values, scores)
    ready(merge, parts)
    assert "nothing to merge" in merge.step().note


def test_in_a_mix_the_merge_joins_what_two_other_optimizers_found(parts: Any) -> None:
    """One model can only improve a, the other only b; only their merge has both."""

    def one(name: str) -> Any:
        return Scripted(lambda request: suggest(**{name: 1, "c": 0}))

    def score(output: Any) -> float:
        a, b, c = output
        return 0.2 + 0.3 * (a == 1 and b == 0) + 0.3 * (b == 1 and a == 0) + 0.8 * (a == b == 1) - c

    @tg.bundle
    def flow(a: int, b: int, c: int) -> tuple[int, int, int]:
        return a, b, c

    merge = Merge(parts)
    root = merge.watch(values(0, 0, 0), 0.2)
    for child in (values(1, 0, 0), values(0, 1, 0)):
        merge.watch(child, 0.5, root)
    mix = Mix([OptoPrime(parts, one("a")), OptoPrime(parts, one("b")), merge])
    result = fit(
        lambda example: flow(parts["a"], parts["b"], parts["c"]), list(range(6)),
        lambda example, output: (score(output), "more"), optimizer=mix, budget=Budget(steps=12), workers=1,
    )  # fmt: skip
    assert result.score == pytest.approx(1.0)
    assert (parts["a"].data, parts["b"].data) == (1, 1)
    assert min(mix.bandit.pulls) >= 1
