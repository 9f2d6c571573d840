"""Numeric optimizers over tracegraph parameters: tensors, numbers and arrays."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from pydantic import Field

import tracegraph as tg
from optimizers import SGD, AdamW, Partition
from tracegraph import Gradient, node


def parts() -> tuple[Any, Any, Any]:
    return (
        node(torch.tensor([1.0, -2.0], dtype=torch.float64), trainable=True, name="w"),
        node(0.5, trainable=True, name="rate"),
        node(np.array([3.0, 4.0]), trainable=True, name="table"),
    )


def loss_of(w: Any, rate: Any, table: Any) -> Any:
    return ((w * table * 0.2 - 1.0) ** 2).sum() + (w * rate).exp().sum() + rate * rate


@pytest.mark.parametrize("make", [lambda p: SGD(p, lr=0.01, momentum=0.9), lambda p: AdamW(p)])
def test_numbers_and_arrays_step_as_tensors_do_in_torch(make: Any) -> None:
    w, rate, table = parts()
    optimizer = make([w, rate, table])
    plain = [torch.tensor(p.data.tolist() if p is not rate else 0.5, dtype=torch.float64,
                          requires_grad=True) for p in (w, rate, table)]  # fmt: skip
    theirs = make(plain)
    for _ in range(6):
        optimizer.zero_feedback()
        optimizer.backward(loss_of(w, rate, table), 1.0)
        optimizer.step()
        theirs.zero_grad()
        loss_of(*plain[:1], plain[1], plain[2]).backward()
        theirs.step()
    assert torch.allclose(w.data, plain[0], rtol=1e-12)
    assert rate.data == pytest.approx(plain[1].item(), rel=1e-12)
    assert table.data == pytest.approx(plain[2].detach().numpy(), rel=1e-12)
    assert type(rate.data) is float
    assert isinstance(table.data, np.ndarray)
    assert (w.version, rate.version, table.version) == (6, 6, 6)


def test_a_loss_without_feedback_has_the_gradient_one() -> None:
    w, rate, table = parts()
    optimizer = SGD([w, rate, table], lr=0.01)
    for loss in (loss_of(w, rate, table), loss_of(w, rate, table).reshape(1, 1)):
        implied = optimizer.backward(loss)
        given = optimizer.backward(loss, 1.0)
        for p in (w, rate, table):
            ours, theirs = implied[p][Gradient].value, given[p][Gradient].value
            assert np.array_equal(np.asarray(ours), np.asarray(theirs))
        optimizer.zero_feedback()
    with pytest.raises(tg.OptimizerError, match=r"multiply:\d+ has the shape \(2,\): sum"):
        optimizer.backward(w * 2.0)
    assert not any(p.feedback for p in (w, rate, table))
    implied = optimizer.backward((rate * 2.0) ** 2)  # no tensor in it
    assert implied[rate][Gradient].value == pytest.approx(8 * rate.data)
    with pytest.raises(tg.OptimizerError, match=r"has the shape \(\d+,.*\): sum"):
        optimizer.backward(table * 2.0)


@tg.bundle
def squared(rate: float) -> float:
    return rate**2


@tg.bundle
def tensor_of(rate: float) -> torch.Tensor:
    return torch.tensor(rate)


@pytest.mark.parametrize(
    ("program", "feedback", "said"),
    [
        (squared, 1.0, "a number is a score where the output is no tensor"),
        (tensor_of, None, "something on the way to the output has no derivative"),
        (lambda rate: rate * 2.0, 1.0, "or no feedback at all"),
    ],
    ids=["a score", "a bundle in the way", "arithmetic"],
)
def test_numbers_of_which_no_gradient_comes_are_an_error(
    program: Callable[[Any], Any], feedback: float | None, said: str
) -> None:
    rate = node(0.5, trainable=True, name="rate")
    with pytest.raises(tg.errors.NoRule, match=rf"no gradient came to 'rate.*{said}"):
        SGD([rate]).backward(program(rate), feedback)
    assert rate.data == 0.5


def test_a_gradient_for_an_older_version_is_told_as_such() -> None:
    rate = node(1.0, trainable=True, name="rate")
    optimizer = SGD([rate], lr=0.1)
    stale = rate * torch.tensor(2.0)
    optimizer.backward(stale)
    optimizer.step()
    with pytest.warns(tg.StaleFeedbackWarning, match="came after version 1 began"):
        assert optimizer.backward(stale) == {}
    assert optimizer.backward([]) == {}


def test_words_may_come_where_no_gradient_comes() -> None:
    rate = node(0.5, trainable=True, name="rate")
    optimizer = SGD([rate])
    optimizer.backward(squared(rate), "too large")
    optimizer.step()
    assert rate.data == 0.5


def test_an_optimizer_of_plain_tensors_says_how_their_gradients_come() -> None:
    layer = torch.nn.Linear(2, 1)
    loss = tg.bundle(lambda x: layer(x).sum())(torch.ones(2))
    with pytest.raises(tg.OptimizerError, match=r"loss\.data\.backward\(\)"):
        SGD(layer.parameters()).backward(loss)


def test_after_a_step_the_feedback_is_used_up_and_zeroing_clears_both() -> None:
    w, rate, table = parts()
    optimizer = SGD([w, rate, table], lr=0.01)
    optimizer.backward([(loss_of(w, rate, table), 1.0)])
    assert all(p.feedback for p in (w, rate, table))
    optimizer.step()
    assert not any(p.feedback for p in (w, rate, table))
    before = rate.data
    optimizer.zero_feedback()
    optimizer.step()
    assert rate.data == before
    assert rate.version == 1
    optimizer.backward(loss_of(w, rate, table), 1.0)
    optimizer.zero_grad()
    assert w.data.grad is None
    assert not any(p.feedback for p in (w, rate, table))


def test_a_step_stays_within_the_bounds() -> None:
    rate = node(0.9, trainable=True, name="rate", constraint=Annotated[float, Field(ge=0, le=1)])
    optimizer = SGD([rate], lr=1.0)
    for slope, expected in ((-5.0, 1.0), (5.0, 0.0), (-0.25, 0.25)):
        optimizer.backward(rate * torch.tensor(slope), 1.0)
        optimizer.step()
        assert rate.data == expected


def test_a_value_that_the_constraint_refuses_is_not_taken() -> None:
    rate = node(0.5, trainable=True, name="rate", constraint=lambda x: x > 0)
    optimizer = SGD([rate], lr=1.0)
    optimizer.backward(rate * torch.tensor(5.0), 1.0)
    with pytest.warns(RuntimeWarning, match=r"rate.*stays 0\.5") as said:
        optimizer.step()
    assert said[0].filename == __file__  # neither torch's line nor ours
    assert rate.data == 0.5
    assert rate.version == 0
    optimizer.backward(rate * torch.tensor(0.25), 1.0)
    optimizer.step()
    assert rate.data == 0.25


def test_a_new_value_from_a_person_is_stepped_from() -> None:
    rate = node(0.5, trainable=True, name="rate")
    optimizer = SGD([rate], lr=1.0)
    stale = rate * torch.tensor(1.0)
    optimizer.backward(stale, 1.0)
    rate.assign(4.0)
    optimizer.step()
    assert rate.data == 4.0  # what had arrived was about another value
    optimizer.backward(rate * torch.tensor(1.0), 1.0)
    optimizer.step()
    assert rate.data == 3.0


def test_whole_numbers_are_refused() -> None:
    with pytest.raises(tg.Rejected, match=r"holds a int .*floating numbers"):
        AdamW([node(3, trainable=True, name="count")])


def test_an_output_that_no_parameter_is_behind_is_named() -> None:
    w, rate, _ = parts()
    with pytest.raises(tg.NotReached, match="'w"):
        SGD([w]).backward((node(torch.ones(1)) * rate).sum(), 1.0)


def test_a_partition_of_numbers_tensors_and_words() -> None:
    import optimizers

    class Shouting(optimizers.Optimizer):
        def propose(self, **options: Any) -> Any:
            return optimizers.Proposal({p: p.data.upper() for p in self.parameters})

    w, rate, _ = parts()
    word = node("ab", trainable=True, name="word")

    @tg.bundle(traceable=True)
    def scored(text: Any, x: Any, rate: Any) -> Any:
        return (x * rate).sum() * tg.len_(text)

    both = Partition(SGD([w, rate], lr=0.1), Shouting([word]))
    assert both.parameters[:2] == [w, rate]
    loss = scored(word, w, rate)
    both.zero_feedback()
    both.backward([(loss, 1.0), (loss, "louder")])
    assert rate.feedback[Gradient].value == -2.0
    both.step()
    assert word.data == "AB"
    assert rate.data == pytest.approx(0.7)
    assert torch.allclose(w.data, torch.tensor([0.9, -2.1], dtype=torch.float64))
    assert not any(p.feedback for p in (w, rate, word))
    with pytest.raises(tg.DuplicateName, match="rate"):
        Partition(SGD([rate]), AdamW([rate]))


@pytest.mark.parametrize("parted", [False, True])
def test_plain_tensors_beside_parameters_train_in_the_same_loop(parted: bool) -> None:
    w, rate, table = parts()
    layer = torch.nn.Linear(2, 2).double()
    twin = copy.deepcopy(layer)
    plain = [
        torch.as_tensor(p.data).detach().double().clone().requires_grad_() for p in (w, rate, table)
    ]

    def loss(layer: Any, w: Any, rate: Any, table: Any) -> Any:
        return (w @ layer.weight + layer.bias * rate - table).square().sum()

    mine = AdamW([w, rate, table], lr=0.02) if parted else None
    optimizer: Any = (
        Partition(AdamW(layer.parameters(), lr=0.01), mine)
        if parted
        else AdamW(
            [{"params": layer.parameters(), "lr": 0.01}, {"params": [w, rate, table]}], lr=0.02
        )
    )
    groups: list[Any] = [{"params": twin.parameters(), "lr": 0.01}, {"params": plain}]
    theirs = torch.optim.AdamW(groups, lr=0.02)
    for _ in range(8):
        optimizer.zero_feedback()
        optimizer.backward(loss(layer, w, rate, table), 1.0)
        optimizer.step()
        theirs.zero_grad()
        loss(twin, *plain).backward()
        theirs.step()
    for p, q in zip(layer.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-9, atol=1e-9)
    for held, other in zip((w, rate, table), plain, strict=True):
        value = torch.as_tensor(held.data, dtype=torch.float64)
        assert torch.allclose(value, other, rtol=1e-9, atol=1e-9)
