"""A candidate's values go into the parameters: all or none, and what the program held is its own again."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import Field

import tracegraph as tg
from optimizers import OptoPrime
from optimizers.training.values import Values
from tracegraph.errors import Rejected
from tracegraph.llm import Scripted


@tg.bundle(trainable=True)
def add(x: int) -> int:
    return x + 1


def test_a_text_of_the_program_is_its_own_again_and_others_are_not() -> None:
    code = add.parameter
    assert code is not None
    values = Values([OptoPrime([code], llm=Scripted([]))])
    (name,), first = values.parameters, values.present()
    values.assign(values.candidate({name: "def add(x: int) -> int:\n    return x + 2\n"}))
    assert (code.origin, code.trusted, code.version) == ("optimizer", False, 1)
    values.assign(values.candidate({name: code.data}))  # what is there stays
    assert code.version == 1
    values.assign(first)
    assert (code.origin, code.trusted, code.version) == ("person", True, 2)


def test_where_one_value_is_refused_none_is_taken() -> None:
    word = tg.node("a", trainable=True, name="word")
    rate: Any = tg.node(
        0.5, trainable=True, name="rate", constraint=Annotated[float, Field(ge=0, le=1)]
    )
    values = Values([OptoPrime([word, rate], llm=Scripted([]))])
    with pytest.raises(Rejected, match="rate"):
        values.assign(values.candidate({"word": "b", "rate": 7.0}))
    assert (word.data, word.version, rate.data, rate.version) == ("a", 0, 0.5, 0)
