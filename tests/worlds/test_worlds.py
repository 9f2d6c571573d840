"""Each world: what it teaches is learned, over HTTP as in place, and with the feedback masked nothing is."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import pytest

from optimizers import SPO
from optimizers.demo.learning import NOTHING
from tests.worlds.chance import Chance
from tests.worlds.from_examples import FromExamples
from tests.worlds.hidden_rules import START
from tests.worlds.intransitive import STYLES, Intransitive
from tests.worlds.noisy import Noisy
from tests.worlds.two_objectives import TwoObjectives
from tests.worlds.two_stages import TwoStages
from tests.worlds.world import World
from tracegraph.llm import Scripted

WORLDS: dict[str, tuple[Callable[..., World], float]] = {
    "two stages": (TwoStages, 0.9),
    "code from examples": (FromExamples, 0.9),
    "two objectives": (TwoObjectives, 0.6),
    "noisy metric": (Noisy, 0.6),
    "intransitive judge": (Intransitive, 0.9),
    "intransitive judge in a training": (partial(Intransitive, trained=True), 0.9),
}

over_http = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


FAST = ("two stages", "code from examples", *(name for name in WORLDS if "intransitive" in name))
"""They ask least often."""


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.campaign) for n in WORLDS]
)
@over_http
def test_it_is_learned_and_over_http_it_comes_to_the_same(name: str) -> None:
    make, least = WORLDS[name]
    here, there = make(5, sabotage=0.3), make(5, sabotage=0.3)
    with there.served() as model:
        reached = there.learn(model)
    assert reached >= least
    assert reached == here.learn()
    assert (here.calls, here.longest) == (there.calls, there.longest)


@pytest.mark.parametrize("name", sorted(WORLDS.keys() - set(FAST)))
def test_it_is_learned_in_place(name: str) -> None:
    make, least = WORLDS[name]
    assert make(5, sabotage=0.3).learn() >= least


@pytest.mark.parametrize("name", WORLDS)
def test_with_feedback_masked_nothing_is_learned(name: str) -> None:
    world = WORLDS[name][0](6, masked=True)
    assert world.learn() == 0.0
    assert world.calls["optimizer"] >= 8


@pytest.mark.campaign
@pytest.mark.parametrize("name", WORLDS)
@over_http
def test_the_task_over_http_comes_to_the_same_too(name: str) -> None:
    make, _ = WORLDS[name]
    here, there = make(6, sabotage=0.3), make(6, sabotage=0.3)
    with there.served() as model:
        assert there.learn(model, model) == here.learn()
    assert here.calls == there.calls


@pytest.mark.parametrize("seed", [0])
def test_the_dearer_a_line_the_fewer_there_are(seed: int) -> None:
    """The prices lie between the shares of the rules, so that the best prompts differ."""
    lines = []
    for price in (0.03, 0.1, 0.25):
        world = TwoObjectives(seed, price=price)
        world.learn()
        assert 0.0 <= world.worth <= world.best + 1e-9
        lines.append(world.lines)
    assert lines == sorted(lines, reverse=True)
    assert lines[0] > lines[-1]


def test_who_believes_every_score_keeps_luck() -> None:
    """What changes nothing in truth scores higher half of the time; the paired test asks for more."""
    lost = {}
    for alpha in (0.1, 1.0):
        worlds = [Noisy(seed, alpha=alpha, noise=1.0, sabotage=0.3) for seed in range(2)]
        for world in worlds:
            world.learn()
        lost[alpha] = sum(after <= before for w in worlds for before, after in w.accepted)
    assert lost[0.1] < lost[1.0]


@pytest.mark.parametrize("seed", range(3))
def test_a_circle_of_styles_costs_no_right_answer_once_most_are_right(seed: int) -> None:
    """Below a half the styles have the majority of the duels, above it the right answers have."""
    world = Intransitive(seed, sabotage=0.3)
    world.learn()
    accuracies = [accuracy for _, accuracy in world.kept]
    steps = itertools.pairwise(accuracies)
    assert all(after >= before for before, after in steps if before > 0.5)
    assert {style for style, _ in world.kept} == set(STYLES)


@pytest.mark.parametrize("seed", [11, pytest.param(12, marks=pytest.mark.campaign)])
def test_rules_are_read_from_runs_that_chance_made_differ(seed: int) -> None:
    """More than half of what can be known, by scores alone; where all score the same nobody is asked."""
    world, masked = Chance(seed, sabotage=0.3), Chance(seed, masked=True)
    assert world.learn() > 0.5
    assert masked.learn() == 0.0
    assert masked.calls["optimizer"] == 0


def test_the_place_on_the_screen_decides_nothing() -> None:
    world = Intransitive(0)
    same = f'{{"suggestion": {{"prompt": "{START} Style: red, truly."}}}}'
    spo = SPO([world.prompt], llm=Scripted([same]), requirements="x", judge=world.judge)
    _, duel = spo.improve(lambda case: f"{NOTHING} in red", world.examples)
    assert duel is not None
    assert (duel.won, duel.lost, duel.drawn) == (0, 0, len(world.examples))
