"""What the other tests rely on: the world is learned only by what reaches the request."""

from __future__ import annotations

from typing import Any

import pytest

from optimizers import OptoPrime
from optimizers.training.loop import fit
from tests.worlds.facts import Fact, facts_in
from tests.worlds.hidden_rules import HiddenRules
from tests.worlds.server import Server
from tracegraph.llm import LiteLLM


def trained(world: HiddenRules, model: Any = None, **options: Any) -> float:
    run, prompt = world.workflow()
    optimizer = OptoPrime([prompt], llm=model or world.ask, budget=1_250)
    options = {"budget": 400, "workers": 1, "validate_every": 5, "perfect": 1.0, **options}
    fit(run, world.train, world.guide, validation=world.validation, optimizer=optimizer, **options)
    return world.accuracy(prompt.data)


@pytest.mark.parametrize("seed", range(3))
def test_with_feedback_masked_nothing_is_learned(seed: int) -> None:
    world = HiddenRules(seed, masked=True)
    assert trained(world) == 0.0
    assert world.calls["optimizer"] > 10


@pytest.mark.parametrize("sabotage", [0.0, 0.3])
def test_with_feedback_the_rules_are_learned(sabotage: float) -> None:
    world = HiddenRules(7, sabotage=sabotage)
    assert trained(world) >= 0.95
    assert world.calls["optimizer"] <= 25
    assert world.longest <= 5_000


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_over_http_it_comes_to_the_same() -> None:
    here, there = (HiddenRules(2, sabotage=0.3, rules=6, sizes=(12, 6, 30)) for _ in "ab")
    with Server(there.answer) as server:
        model = LiteLLM("openai/served", api_base=server.base, api_key="x")
        over_http = trained(there, model, budget=120, batch_size=6)
    assert over_http == trained(here, budget=120, batch_size=6)
    assert over_http > 0.6


def test_words_are_of_the_seed_alone() -> None:
    one, same, other = HiddenRules(1), HiddenRules(1), HiddenRules(2)
    assert (one.rules, one.train) == (same.rules, same.train)
    assert not set(one.rules) & set(other.rules)
    assert not {c.text for c in one.train} & {c.text for c in one.test}


@pytest.mark.parametrize(
    "said",
    [
        'text=\'ab cd ef\' -> The answer is "gh", not "x".',
        "Input: 'ab cd ef'\nOutput: 'x'\nThe answer is \"gh\".",
        "respond0 = respond(prompt=prompt, text='ab cd ef')\n\nrespond0: The answer is \"gh\".",
        "f0 = f(a=b, text=text0)\ng0 = g(f0=f0)\n\ntext0 = 'ab cd ef'\n\ng0: The answer is \"gh\".",
    ],
)
def test_facts_are_found_wherever_they_stand(said: str) -> None:
    assert facts_in(said) == [Fact("ab cd ef", "gh")]


@pytest.mark.parametrize(
    "said", ["'ab cd ef'", 'The answer is "gh".', "", 'f0: The answer is "gh".']
)
def test_half_a_fact_is_none(said: str) -> None:
    assert facts_in(said) == []
