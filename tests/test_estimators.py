"""Each estimator against the analytic gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import tracegraph as tg
from tracegraph import Gradient, Score, bundle, node
from tracegraph.estimators import (
    finite_differences,
    implicit,
    score_function,
    spsa,
    straight_through,
)


def value(parameter: Any) -> Any:
    return parameter.feedback[Gradient].value


def boxed(rule: Any) -> Any:
    """``sum(sin(x) * table) + rate**2`` by numpy."""

    @bundle(rules={Gradient: rule})
    def box(x: Any, table: Any, rate: float, label: str = "") -> float:
        return float((np.sin(x.detach().numpy()) * table).sum() + rate**2)

    return box


def parts() -> tuple[Any, Any, Any]:
    x = node(torch.tensor([0.3, -1.2], dtype=torch.float64), trainable=True, name="x")
    table = node(np.array([2.0, 3.0]), trainable=True, name="table")
    return x, table, node(0.7, trainable=True, name="rate")


@pytest.mark.parametrize(
    ("rule", "tolerance"),
    [
        (finite_differences(), 1e-8),
        (finite_differences(step=1e-4), 1e-6),
        (spsa(samples=4000, step=1e-4), 0.25),
    ],
    ids=["differences", "differences of a step", "spsa"],
)
def test_against_the_analytic_gradient(rule: Any, tolerance: float) -> None:
    x, table, rate = parts()
    w = node(torch.tensor([1.0, 2.0], dtype=torch.float64), trainable=True, name="w")
    (boxed(rule)(x, table, rate, "a") * w * 2.0).sum().backward(1.0)
    plain = x.data.detach().numpy()
    assert value(x).numpy() == pytest.approx(6 * np.cos(plain) * table.data, abs=tolerance * 6)
    assert value(table) == pytest.approx(6 * np.sin(plain), abs=tolerance * 6)
    assert value(rate) == pytest.approx(6 * 2 * 0.7, abs=tolerance * 6)
    assert type(value(rate)) is float


def test_float32_takes_a_step_that_fits_its_precision() -> None:
    @bundle(rules={Gradient: finite_differences()})
    def box(x: Any) -> Any:
        return x.detach() ** 2

    x = node(torch.tensor([0.5, 300.0]), trainable=True, name="x")
    box(x).sum().backward(1.0)
    assert value(x).dtype == torch.float32
    assert torch.allclose(value(x), 2 * x.data.detach(), rtol=1e-2)


def test_the_same_seed_gives_the_same_draws() -> None:
    found = []
    for seed in (1, 1, 2):
        x, table, rate = parts()
        boxed(spsa(seed=seed))(x, table, rate).backward(Gradient(1.0))
        found.append(value(x).tolist())
    assert found[0] == found[1] != found[2]


def test_what_cannot_be_called_again_says_what_to_give() -> None:
    @bundle(rules={Gradient: finite_differences()})
    def nested(x: Any) -> float:
        return float(x[0] * 2)

    x = node(1.0, trainable=True, name="x")
    with pytest.raises(tg.NoRule, match="function="):
        nested([x]).backward(Gradient(1.0))

    @bundle(rules={Gradient: finite_differences()})
    def broken(x: float) -> float:
        return math.inf if x > 1 else x

    with pytest.raises(tg.FeedbackError, match="smaller step"):
        broken(x).backward(Gradient(1.0))

    @bundle(rules={Gradient: finite_differences()})
    def wordy(x: float) -> Any:
        return x if x == 1.0 else "a text"

    with pytest.raises(tg.NoRule, match="a text"):
        wordy(x).backward(Gradient(1.0))
    assert not x.feedback


@pytest.mark.parametrize(
    "make",
    [
        lambda: finite_differences(step=0.0),
        lambda: spsa(step=-1.0),
        lambda: spsa(samples=0),
        lambda: score_function(lambda y: y, inputs="x", baseline=1.0),
    ],
)
def test_bad_options_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="="):
        make()


def draw(logits: Any, rng: Any, baseline: float | None) -> Any:
    rule = score_function(
        lambda sample, logits: torch.log_softmax(logits, 0)[sample],
        inputs=["logits"],
        baseline=baseline,
    )

    @bundle(rules={Score: rule})
    def choose(logits: Any, hint: str) -> int:
        odds = torch.softmax(logits.detach(), 0).numpy()
        return int(rng.choice(len(odds), p=odds))

    return lambda: choose(logits, node("hint", trainable=True, name="hint"))


@pytest.mark.parametrize("baseline", [None, 0.9])
def test_the_mean_of_the_score_function_is_the_gradient_of_the_expected_score(
    baseline: float | None,
) -> None:
    rewards = torch.tensor([1.0, 5.0, 2.0], dtype=torch.float64)
    logits = node(torch.tensor([0.1, 0.4, -0.3], dtype=torch.float64), trainable=True, name="l")
    pick = draw(logits, np.random.default_rng(0), baseline)
    count = 1500
    total = torch.zeros(3, dtype=torch.float64)
    for _ in range(count):
        sample = pick()
        total += sample.backward(rewards[sample.data].item())[logits][Gradient].value
        logits.zero_feedback()
    free = logits.data.detach().clone().requires_grad_()
    (torch.softmax(free, 0) @ rewards).backward()
    assert torch.allclose(total / count, -free.grad, atol=0.15)


def test_the_score_goes_on_to_other_inputs() -> None:
    logits = node(torch.zeros(2), trainable=True, name="logits")
    sample = draw(logits, np.random.default_rng(0), None)()
    received = sample.backward(0.5)
    hint = sample.inputs["hint"].parameter
    assert received[hint][Score].mean == 0.5
    assert received[logits].keys() == {Gradient}


def test_choices_are_learned_through_text() -> None:
    logits = node(torch.zeros(3, dtype=torch.float64), trainable=True, name="logits")
    pick = draw(logits, np.random.default_rng(1), 0.9)
    words = ["bad", "good", "worse"]
    for _ in range(150):
        sample = pick()
        said = node(words)[sample].upper()
        said.backward(1.0 if said.data == "GOOD" else 0.0)
        with torch.no_grad():
            logits.data.sub_(0.5 * value(logits))
        logits.zero_feedback()
    assert torch.softmax(logits.data, 0)[1] > 0.8


def test_straight_through_passes_and_stops_outside() -> None:
    @bundle(rules={Gradient: straight_through("x", low=-1.0, high=1.0)})
    def sign(x: Any) -> Any:
        return x.detach().sign()

    x = node(torch.tensor([0.5, -3.0, 0.9]), trainable=True, name="x")
    (sign(x) * torch.tensor([1.0, 2.0, 3.0])).sum().backward(1.0)
    assert value(x).tolist() == [1.0, 0.0, 3.0]
    rate = node(5.0, trainable=True)
    assert (
        bundle(rules={Gradient: straight_through(high=1.0)})(lambda r: float(int(r)))(rate)
        .backward(Gradient(2.0))[rate][Gradient]
        .value
        == 0.0
    )
    with pytest.raises(tg.FeedbackError, match="inputs"):
        bundle(rules={Gradient: straight_through("y")})(lambda r: r)(rate).backward(Gradient(1.0))


def test_a_solver_by_the_implicit_function_theorem() -> None:
    @bundle(rules={Gradient: implicit(lambda x, matrix, right: matrix @ x - right)})
    def solve(matrix: Any, right: Any) -> Any:
        return torch.from_numpy(np.linalg.solve(matrix.detach().numpy(), right))

    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 3, dtype=torch.float64, generator=generator) + 3 * torch.eye(3)
    matrix = node(start, trainable=True, name="matrix")
    right = node(np.array([1.0, 2.0, 3.0]), trainable=True, name="right")
    (solve(matrix * 2.0, right) ** 2).sum().backward(1.0)
    a = start.detach().clone().requires_grad_()
    b = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    (torch.linalg.solve(a * 2.0, b) ** 2).sum().backward()
    assert torch.allclose(value(matrix), a.grad, rtol=1e-9)
    assert value(right) == pytest.approx(b.grad.numpy(), rel=1e-9)


def test_the_implicit_rule_keeps_the_precision_of_numbers() -> None:
    root = bundle(rules={Gradient: implicit(lambda x, a: x * x - a)})(lambda a: math.sqrt(a))
    a = node(0.3, trainable=True)
    received = root(a).backward(Gradient(1.0))
    assert received[a][Gradient].value == pytest.approx(0.5 / math.sqrt(0.3), rel=1e-14)


def test_a_singular_or_crooked_residual_is_named() -> None:
    a = node(2.0, trainable=True)
    flat = bundle(rules={Gradient: implicit(lambda x, a: a * 1.0 + 0.0 * x)})(lambda a: a)
    with pytest.raises(tg.FeedbackError, match="singular"):
        flat(a).backward(Gradient(1.0))
    wide = bundle(rules={Gradient: implicit(lambda x, a: torch.stack([x - a, x + a]))})(lambda a: a)
    with pytest.raises(tg.FeedbackError, match="2 equations"):
        wide(a).backward(Gradient(1.0))
    assert not a.feedback


def test_a_pipeline_from_text_to_a_number_with_a_black_box_trains() -> None:
    """Words become features, a linear map scores them, a black box squashes, a rate scales."""
    texts = [("good good", 1.0), ("bad", 0.0), ("good", 0.8), ("bad bad", 0.0), ("bad good", 0.5)]

    @bundle
    def features(text: str) -> Any:
        words = text.split()
        return torch.tensor([words.count("good"), words.count("bad")], dtype=torch.float64)

    @bundle(rules={Gradient: spsa(samples=4, step=1e-3)})
    def squash(x: Any) -> float:
        return 1 / (1 + math.exp(-x.item()))

    weight = node(torch.zeros(2, dtype=torch.float64), trainable=True, name="weight")
    rate = node(0.5, trainable=True, name="rate")
    history = []
    for _ in range(150):
        losses = []
        for text, target in texts:
            guess = squash((features(node(text)) * weight).sum()) * rate
            losses.append((guess * torch.ones((), dtype=torch.float64) - target) ** 2)
        tg.backward([(loss, 1.0) for loss in losses])
        history.append(sum(loss.data.item() for loss in losses))
        with torch.no_grad():
            weight.data.sub_(0.5 * value(weight))
        rate.assign(rate.data - 0.1 * value(rate))
        weight.zero_feedback()
    assert history[-1] < 0.1 * history[0]
