"""Several optimizers as one: each parameter has one, and nothing moves when one cannot propose."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import pytest
import torch
from pydantic import Field

import tracegraph as tg
from optimizers import AdamW, Evolve, OptoPrime, Partition, optimize
from tracegraph import bundle, node
from tracegraph.errors import DuplicateName, ModelFailed, NotReached, OptimizerError
from tracegraph.llm import Scripted

NEW = '{"reasoning": "r", "suggestion": {"prompt": "new"}}'


class Mixed:
    """A text, a number and a plain tensor, each with an optimizer of its own."""

    def __init__(self, *replies: Any) -> None:
        self.prompt = node("old", trainable=True, name="prompt")
        self.rate = node(
            0.5, trainable=True, name="rate", constraint=Annotated[float, Field(ge=0, le=1)]
        )
        self.weight = torch.zeros(3, requires_grad=True)
        self.model = Scripted(list(replies))
        self.partition = Partition(
            torch.optim.AdamW([self.weight], lr=0.1),
            Evolve([self.rate]),
            OptoPrime([self.prompt], llm=self.model),
        )

    def feed(self, feedback: Any) -> None:
        ((self.weight - 1) ** 2).sum().backward()  # type: ignore[no-untyped-call]
        self.partition.backward(answer(self.prompt, self.rate), feedback)

    @property
    def state(self) -> tuple[Any, ...]:
        return self.prompt.data, self.rate.data, self.weight.detach().tolist()


@bundle
def answer(prompt: str, rate: float) -> str:
    return f"{prompt} {rate}"


def test_one_step_moves_a_text_a_number_and_a_tensor() -> None:
    mixed = Mixed(NEW)
    mixed.feed(("be kinder", 0.3))
    update = mixed.partition.step()
    assert {c.name for c in update.changes} == {"prompt", "rate"}
    assert mixed.prompt.data == "new"
    assert mixed.rate.data != 0.5
    assert mixed.weight.detach().tolist() == pytest.approx([0.1] * 3)
    assert update.usage.calls == 1
    assert update.reasoning == "r"


def test_when_the_model_is_down_nothing_moves_and_the_feedback_stays() -> None:
    mixed = Mixed(ModelFailed("down"), NEW)
    before = mixed.state
    mixed.feed(("be kinder", 0.3))
    with pytest.raises(ModelFailed):
        mixed.partition.step()
    assert mixed.state == before
    assert mixed.prompt.feedback
    assert mixed.rate.feedback
    mixed.partition.step()
    assert mixed.prompt.data == "new"
    search = mixed.partition.optimizers[1]
    assert [trial.scores for trial in search.history] == [(0.3,)]  # it was asked last: once


def test_when_the_search_has_no_score_nothing_moves() -> None:
    mixed = Mixed(NEW)
    before = mixed.state
    mixed.feed("words only")
    with pytest.raises(OptimizerError, match="score"):
        mixed.partition.step()
    assert mixed.state == before
    assert mixed.prompt.feedback


def test_bypassing_moves_nothing() -> None:
    mixed = Mixed(NEW, NEW)
    before = mixed.state
    mixed.feed(("be kinder", 0.3))
    update = mixed.partition.step(bypassing=True)
    assert {c.name for c in update.changes} >= {"prompt"}
    assert mixed.state == before


def test_zero_feedback_reaches_all() -> None:
    mixed = Mixed(NEW)
    mixed.feed(("be kinder", 0.3))
    mixed.partition.zero_feedback()
    assert not mixed.prompt.feedback
    assert not mixed.rate.feedback
    assert mixed.weight.grad is None
    mixed.partition.zero_grad()


def test_tensors_behind_the_graph_and_texts_learn_from_one_walk() -> None:
    prompt = node("old", trainable=True, name="prompt")
    weight = node(torch.zeros(2, requires_grad=True), trainable=True, name="weight")
    partition = Partition(AdamW([weight], lr=0.1), OptoPrime([prompt], llm=Scripted([NEW])))
    loss = ((weight - 1) ** 2).sum()
    partition.zero_feedback()
    partition.backward([(loss, 1.0), (prompt.upper(), "no")])
    update = partition.step()
    assert prompt.data == "new"
    assert weight.data.tolist() == pytest.approx([0.1, 0.1], abs=1e-3)
    assert "prompt" in {c.name for c in update.changes}


def test_an_output_that_nobody_can_learn_from_is_told() -> None:
    mixed = Mixed()
    with pytest.raises(NotReached, match="no parameter lies behind upper"):
        mixed.partition.backward(node("given").upper(), "no")


def test_a_parameter_has_one_optimizer() -> None:
    prompt = node("old", trainable=True, name="prompt")
    weight = torch.zeros(1, requires_grad=True)
    with pytest.raises(DuplicateName, match="'prompt' is given to two optimizers, Evolve and Opto"):
        Partition(Evolve([prompt]), OptoPrime([prompt], llm=Scripted([])))
    with pytest.raises(DuplicateName, match="a tensor"):
        Partition(torch.optim.SGD([weight], lr=1), torch.optim.AdamW([weight]))


@pytest.mark.parametrize("given", [(), (3,), (None,), ([],), (node("x", trainable=True),)])
def test_what_is_no_optimizer_is_refused(given: Any) -> None:
    with pytest.raises(OptimizerError, match="Partition"):
        Partition(*given)


def test_nested_partitions_work() -> None:
    mixed = Mixed(NEW)
    outer = Partition(mixed.partition)
    mixed.feed(("be kinder", 0.3))
    assert outer.step()
    assert mixed.prompt.data == "new"


# Routing by kind


def test_each_kind_goes_to_an_optimizer_that_fits() -> None:
    prompt = node("old", trainable=True, name="prompt")
    rate = node(0.5, trainable=True, name="rate")
    weight = node(torch.zeros(2), trainable=True, name="weight")
    array = node(np.zeros(2), trainable=True, name="array")
    assert type(optimize([prompt, rate])) is Evolve
    assert type(optimize([prompt, rate], llm=Scripted([]))) is OptoPrime
    assert type(optimize([weight])).__name__ == "AdamW"
    both = optimize([weight, prompt], llm=Scripted([]))
    assert isinstance(both, Partition)
    assert [type(o).__name__ for o in both.optimizers] == ["AdamW", "OptoPrime"]
    assert type(optimize([array])) is Evolve


def test_options_go_to_the_optimizer_of_their_name() -> None:
    prompt = node("old", trainable=True, name="prompt")
    weight = node(torch.zeros(2), trainable=True, name="weight")
    both = optimize(
        [weight, prompt], llm=Scripted([]), AdamW={"lr": 0.5}, OptoPrime={"memory_size": 1}
    )
    assert both.optimizers[0].param_groups[0]["lr"] == 0.5
    assert both.optimizers[1].memory.size == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"AdamW": {"lr": 1}}, "options for AdamW were given, but no parameter goes there"),
        ({"Adamw": {}}, "options for Adamw were given"),
        ({"OptoPrime": {}}, "give llm="),
    ],
)
def test_options_that_go_nowhere_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptimizerError, match=said):
        optimize([node("old", trainable=True)], **options)


def test_nothing_to_optimize_is_refused() -> None:
    with pytest.raises(OptimizerError, match="at least one parameter"):
        optimize([])
    with pytest.raises(OptimizerError, match="holds no parameter"):
        optimize([tg.node("given")])
