"""Blame: who failed is seen from the values between the operations, and from nothing else."""

from __future__ import annotations

import pytest

from optimizers import OptoPrime, Reflect
from tests.worlds.two_stages import TwoStages


@pytest.mark.parametrize("seed", range(6))
def test_the_stage_to_blame_is_found_and_the_other_stays(seed: int) -> None:
    world = TwoStages(seed)
    innocent = (world.two, world.one)[world.blamed]
    before = innocent.data
    assert world.accuracy == 0.0
    assert world.learn() >= 0.9
    assert innocent.data == before


@pytest.mark.parametrize("seed", range(3))
def test_without_the_values_between_nobody_can_be_blamed(seed: int) -> None:
    world = TwoStages(seed)
    optimizer = OptoPrime([world.one, world.two], llm=world.ask, mask=["Others"])
    assert world.learn(optimizer=optimizer) == 0.0


def test_both_stages_are_to_blame_in_turn() -> None:
    assert {TwoStages(seed).blamed for seed in range(6)} == {0, 1}


def test_reflection_on_one_component_shows_its_own_inputs() -> None:
    world = TwoStages(next(seed for seed in range(9) if TwoStages(seed).blamed == 1))
    reflect = Reflect([world.one, world.two], llm=world.ask)
    output = world.run(world.train[0])
    reflect.backward(output, world.guide(world.train[0], output.data))
    reflect.turn = 1
    reflect.propose()
    said = reflect.log[-1].messages[1].text
    assert "word = '" in said
    assert world.train[0].text not in said
