"""A prompt and a vector are learned together: with either kind of feedback withheld there is nothing."""

from __future__ import annotations

import pytest

from tests.worlds.mixed import Mixed


def test_words_and_numbers_are_learned_in_one_loop() -> None:
    assert Mixed(6, sabotage=0.3).learn() >= 0.9


@pytest.mark.campaign
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_over_http_it_comes_to_the_same() -> None:
    here, there = Mixed(5, sabotage=0.3), Mixed(5, sabotage=0.3)
    with there.served() as model:
        assert there.learn(model) == here.learn() >= 0.9
    assert here.calls == there.calls


@pytest.mark.parametrize("withheld", ["words", "gradients"])
def test_either_kind_of_feedback_alone_is_worth_nothing(withheld: str) -> None:
    assert Mixed(5, masked=withheld).learn() == 0.0  # type: ignore[arg-type]
