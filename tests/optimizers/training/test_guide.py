from __future__ import annotations

import math
from typing import Any

import pytest

from optimizers.training.guide import BadVerdict, judge
from tracegraph.feedback import Preference, Remark, Score


@pytest.mark.parametrize(
    ("said", "score", "text"),
    [
        (1, 1.0, ""),
        (True, 1.0, ""),
        ((0.5, "why"), 0.5, "why"),
        ((0.5, ""), 0.5, ""),
        ((0.5, None), 0.5, ""),
        (Score(0.2), 0.2, ""),
        ([Score(0.2), Remark("a"), "b"], 0.2, "a\nb"),
        ((1.0, Preference("x", better=True)), 1.0, "better than 'x'"),
    ],
)
def test_a_score_is_read_in_every_form(said: Any, score: float, text: str) -> None:
    verdict = judge(lambda example, output: said, 1, 2)
    assert (verdict.score, verdict.text) == (score, text)


@pytest.mark.parametrize(
    "said",
    [math.nan, None, "good", (), (1.0, 2.0), {"score": "1"}, (math.nan, "x"), (0.5, object())],
)
def test_what_is_no_score_is_an_error_that_names_the_example(said: Any) -> None:
    with pytest.raises(BadVerdict, match="the-example"):
        judge(lambda example, output: said, "the-example", "output")


def test_a_guide_that_raises_is_an_error_of_its_own() -> None:
    def guide(example: Any, output: Any) -> float:
        return 1 / 0

    with pytest.raises(BadVerdict, match="ZeroDivisionError") as caught:
        judge(guide, "the-example", 2)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
