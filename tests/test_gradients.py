"""Gradients through the graph: torch's islands, rules between them, numbers, arrays, looking inside."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import tracegraph as tg
from tracegraph import Gradient, bundle, node
from tracegraph.tensor import hessian_vector


def tensor(*values: float, name: str = "w") -> Any:
    return node(torch.tensor(values, dtype=torch.float64), trainable=True, name=name)


def value(parameter: Any) -> Any:
    return parameter.feedback[Gradient].value


@bundle(rules={Gradient: lambda made, g: {"x": 2.0 * made.inputs["x"].data * g.value}})
def squared_by_numpy(x: Any) -> Any:
    return torch.from_numpy(x.detach().numpy() ** 2)


@bundle(rules={Gradient: lambda made, g: {"x": math.cos(made.inputs["x"].data) * g.value}})
def sine(x: float) -> float:
    return math.sin(x)


class Engine:
    """Counts the calls of torch's engine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        plain = torch.autograd.grad

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return plain(*args, **kwargs)

        monkeypatch.setattr(torch.autograd, "grad", counted)


def test_a_rule_between_two_islands_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch)
    w = tensor(1.0, 2.0)
    loss = (squared_by_numpy(w * 3).sin() * w).sum()
    loss.backward(1.0)
    plain = w.data.detach().clone().requires_grad_()
    (((plain * 3) ** 2).sin() * plain).sum().backward()
    assert torch.allclose(value(w), plain.grad, rtol=1e-14)
    assert torch.equal(w.data.grad, value(w))
    assert engine.calls == 2


def test_one_engine_call_where_no_rule_stands_between(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch)
    w, v = tensor(1.0, 2.0), tensor(3.0, 4.0, name="v")
    rate = node(0.5, trainable=True, name="rate")
    first, second = (w * v * rate).sum(), (w.exp() + v).sum()
    tg.backward([(first, 1.0), (second, 1.0, 2.0), (first * second, 0.5), (w, "in words")])
    assert engine.calls == 1


def test_rules_one_behind_the_other_run_once_each_with_all_that_comes_to_them() -> None:
    ran = []

    def rule(made: Any, g: Any) -> Any:
        ran.append(made.id)
        return {"x": g.value * 2.0}

    @bundle(rules={Gradient: rule})
    def double(x: Any) -> Any:
        return x.detach() * 2

    w = tensor(1.0, 2.0)
    low = double(w * 1.0)
    high = double(low.sin() + low)
    loss = (high * low + low.exp() + high).sum() + low.sum()
    tg.backward([(loss, 1.0), (high, torch.ones(2)), (low.cos(), torch.ones(2))])
    assert sorted(ran) == [low.id, high.id]
    x = w.data.detach().clone().requires_grad_()
    a = x * 2
    b = (a.sin() + a) * 2
    ((b * a + a.exp() + b).sum() + a.sum() + b.sum() + a.cos().sum()).backward()
    assert torch.allclose(value(w), x.grad, rtol=1e-12)


def test_a_rule_wins_over_torchs_own_record_of_the_inside() -> None:
    @bundle(rules={Gradient: lambda made, g: {"x": g.value * 10}})
    def scaled(x: Any) -> Any:
        return x * 3

    w = tensor(1.0)
    out = scaled(w * 1)
    (out * 2).sum().backward(1.0)
    assert value(w).tolist() == [20.0]
    assert out.data.is_leaf


def test_a_registered_rule_holds_for_tensors_recorded_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tracegraph import lifting, propagate

    monkeypatch.setattr(lifting, "CUT", lifting.CUT)
    monkeypatch.setitem(propagate._rules, ("sigmoid", Gradient), None)
    tg.register_rule("sigmoid", Gradient, lambda made, g: {"x": g.value * 7})
    try:
        w = tensor(0.0)
        (w.sigmoid() * 2).sum().backward(1.0)
        assert value(w).tolist() == [14.0]
    finally:
        lifting.CUT.discard("sigmoid")


def test_without_a_gradient_wanted_a_rule_leaves_the_result_alone() -> None:
    kept = torch.ones(2, dtype=torch.float64)

    @bundle(rules={Gradient: lambda made, g: {"x": g}})
    def box(x: Any) -> Any:
        return kept

    assert box(torch.zeros(2)).data is kept
    with torch.no_grad():
        assert box(tensor(1.0, 2.0)).data is kept
    w = tensor(1.0, 2.0)
    assert box(w).data.requires_grad
    assert not kept.requires_grad


# Numbers and arrays


def test_a_number_gets_its_gradient_and_stays_a_number() -> None:
    w = tensor(1.0, 2.0)
    rate = node(0.5, trainable=True, name="rate")
    ((w * rate).sum() + rate * w.exp().sum() + torch.mul(w, rate).sum()).backward(1.0)
    assert type(rate.data) is float
    assert type(value(rate)) is float
    assert value(rate) == pytest.approx(6.0 + math.e + math.e**2)
    assert torch.allclose(value(w), 1.0 + 0.5 * w.data.exp().detach())


def test_a_number_is_lifted_once_for_each_of_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forwards after the first share the leaf of torch's record; a new value has one of its own."""
    made, plain = [], torch.scalar_tensor
    monkeypatch.setattr(torch, "scalar_tensor", lambda x, **o: made.append(x) or plain(x, **o))
    x, rate = node(torch.ones(3)), node(0.5, trainable=True)
    for changed in (None, None, 2.0, 0.5):
        if changed is not None:
            rate.assign(changed)
        rate.zero_feedback()
        loss = (x * rate * rate).sum()
        assert loss.data.item() == pytest.approx(3 * rate.data**2)
        loss.backward(1.0)
        assert value(rate) == pytest.approx(6 * rate.data)
        del loss  # which holds the leaf as well
    assert made == [0.5, 2.0, 0.5]
    rate.zero_feedback()
    rate.freeze()
    assert not (x * rate).data.requires_grad
    rate.unfreeze()
    assert (x * rate).data.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.complex64])
@pytest.mark.parametrize("shape", [(), (2,)])
def test_a_lifted_number_changes_no_result_type(dtype: Any, shape: Any) -> None:
    plain = torch.ones(shape, dtype=dtype)
    rate = node(0.5, trainable=True)
    for operate in (lambda x, y: x * y, lambda x, y: y - x, lambda x, y: x / y):
        made = operate(node(plain), rate)
        assert made.data.dtype == operate(plain, 0.5).dtype
        assert torch.equal(made.data.detach(), operate(plain, 0.5))
        assert made.data.requires_grad


def test_nothing_is_lifted_where_no_parameter_is_behind() -> None:
    x = node(torch.ones(2))
    frozen = node(0.5, trainable=True)
    frozen.freeze()
    for number in (node(2.0), node(2.0) + 1.0, 2.0, frozen, node(3, trainable=True)):
        assert not (x * number).data.requires_grad
    rate = node(0.5, trainable=True)
    with torch.no_grad():
        assert not (x * rate).data.requires_grad
    with tg.stop_tracing():
        assert not (x * rate).data.requires_grad


def test_an_argument_that_must_be_a_plain_number_stays_one() -> None:
    slope = node(0.1, trainable=True)
    out = torch.nn.functional.leaky_relu(node(torch.tensor([-1.0, 1.0])), slope)
    assert out.data.tolist() == pytest.approx([-0.1, 1.0])


def test_python_arithmetic_behind_a_tensor_goes_back() -> None:
    w = tensor(1.0, 2.0)
    a = node(2.0, trainable=True, name="a")
    b = node(3.0, trainable=True, name="b")
    c = -(a * b + a**2 - b / a) + 1.5 - abs(a - b) + 2.0**a
    (w * c).sum().backward(1.0)
    x = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    y = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    z = -(x * y + x**2 - y / x) + 1.5 - abs(x - y) + 2.0**x
    (3.0 * z).backward()
    assert value(a) == pytest.approx(x.grad.item())
    assert value(b) == pytest.approx(y.grad.item())


def test_a_rule_among_numbers_between_islands() -> None:
    w = tensor(1.0, 2.0)
    rate = node(0.5, trainable=True, name="rate")
    (w * (sine(rate) * 3.0)).sum().backward(1.0)
    assert value(rate) == pytest.approx(9.0 * math.cos(0.5))


def test_arrays_get_arrays() -> None:
    table = node(np.array([1.0, 2.0]), trainable=True, name="table")
    w = tensor(3.0, 4.0)
    ((table * 2.0 + np.ones((3, 2))).sum(axis=0) if False else w * (table * 2.0)).sum().backward(
        1.0
    )
    assert isinstance(value(table), np.ndarray)
    assert value(table).tolist() == [6.0, 8.0]
    assert value(w).tolist() == [2.0, 4.0]
    table.zero_feedback()
    (table @ np.array([[1.0, 2.0], [3.0, 4.0]])).backward(Gradient(np.array([1.0, 1.0])))
    assert value(table).tolist() == [3.0, 7.0]
    table.zero_feedback()
    np.exp(table).backward(Gradient(1.0))
    assert value(table) == pytest.approx(np.exp([1.0, 2.0]))


def test_a_traceable_bundle_lifts_inside() -> None:
    @bundle(traceable=True)
    def scaled(x: Any, rate: Any) -> Any:
        return x * rate

    rate = node(0.5, trainable=True, name="rate")
    scaled(tensor(1.0, 2.0), rate).sum().backward(1.0)
    assert value(rate) == 3.0


def test_a_gradient_at_a_whole_number_is_an_error_that_names_it() -> None:
    count = node(3, trainable=True, name="count")

    @bundle(rules={Gradient: lambda made, g: {"x": g.value}})
    def as_float(x: int) -> float:
        return float(x)

    with pytest.raises(tg.NoRule, match=r"'count', which holds 3: whole numbers"):
        as_float(count).backward(Gradient(1.0))
    assert not count.feedback


def test_wrong_shapes_are_refused_and_nothing_changes() -> None:
    table = node(np.array([1.0, 2.0]), trainable=True, name="table")
    w = tensor(1.0, 2.0)
    with pytest.raises(tg.FeedbackError, match=r"shape \[3\].*'table'"):
        tg.backward([((w * 2).sum(), 1.0), (table, Gradient(np.ones(3)))])
    with pytest.raises(tg.FeedbackError, match=r"shape \[3\] was given"):
        (w * 2).backward(torch.ones(3))
    assert not table.feedback
    assert not w.feedback
    assert w.data.grad is None


# Sharing, staleness, words beside


def test_two_parameters_that_share_a_tensor_add_to_its_grad_once() -> None:
    shared = torch.ones(2, requires_grad=True)
    a = node(shared, trainable=True, name="a")
    b = node(shared, trainable=True, name="b")
    (a * 2 + b * 3).sum().backward(1.0)
    assert shared.grad.tolist() == [5.0, 5.0]


def test_a_gradient_about_a_tensor_that_was_replaced_is_discarded() -> None:
    w = tensor(1.0)
    loss = (w * 2).sum()
    w.assign(torch.tensor([5.0], dtype=torch.float64, requires_grad=True))
    with pytest.warns(tg.StaleFeedbackWarning, match="'w'"):
        assert loss.backward(1.0) == {}
    assert w.data.grad is None
    with pytest.raises(tg.StaleFeedback):
        loss.backward(1.0, strict=True)


def test_words_pass_a_rule_for_gradients_and_gradients_pass_beside_words() -> None:
    w = tensor(1.0, 2.0)
    prompt = node("p", trainable=True, name="prompt")

    @bundle(rules={Gradient: lambda made, g: {"x": g.value * 2.0}})
    def box(x: Any, text: str) -> Any:
        return x.detach() * 2 * len(text)

    out = box(w * 1, prompt)
    received = tg.backward([((out * 3).sum(), 1.0), (out, "in words"), (out.sum(), 0.5)])
    assert received[w][Gradient].value.tolist() == [7.0, 7.0]
    assert str(received[w][tg.Remark]) == "in words"
    assert str(received[prompt][tg.Remark]) == "in words"


# Higher order, and looking inside


def test_create_graph_gives_a_gradient_to_differentiate_again() -> None:
    w, rate = tensor(2.0), node(3.0, trainable=True, name="rate")
    received = (w**3 * rate).sum().backward(1.0, create_graph=True)
    (second,) = torch.autograd.grad(received[w][Gradient].value.sum(), w.data)
    assert second.tolist() == [36.0]


def test_hessian_times_vector() -> None:
    w, v = tensor(1.0, 2.0), tensor(3.0, 4.0, name="v")
    loss = (w**2 * v).sum() + w.prod()
    direction = torch.tensor([1.0, -1.0], dtype=torch.float64)
    got = hessian_vector(loss, {w: direction, v: direction})
    full = torch.autograd.functional.hessian(
        lambda a, b: (a**2 * b).sum() + a.prod(), (w.data.detach(), v.data.detach())
    )
    want = [row[0] @ direction + row[1] @ direction for row in full]
    assert torch.allclose(got[w], want[0])
    assert torch.allclose(got[v], want[1])
    assert not w.feedback
    assert w.data.grad is None
    with pytest.raises(tg.NoRule, match="squared_by_numpy"):
        hessian_vector(squared_by_numpy(w * 1).sum(), {w: direction})
    with pytest.raises(tg.NotReached, match="v"):
        hessian_vector(w.sum(), {v: direction})
    with pytest.raises(tg.FeedbackError, match="one number"):
        hessian_vector(w * 2, {w: direction})
    assert hessian_vector(w.sum(), {w: direction})[w].tolist() == [0.0, 0.0]


def test_gradients_inside_are_there_when_asked_for() -> None:
    w = tensor(1.0, 2.0)
    inner = w * 3
    box = squared_by_numpy(inner)
    loss = box.sum()
    received = tg.backward([(loss, 1.0), (inner, torch.ones(2))], inspect=[inner, box, loss])
    assert received[loss][Gradient].value.item() == 1.0
    assert received[box][Gradient].value.tolist() == [1.0, 1.0]
    assert received[inner][Gradient].value.tolist() == [7.0, 13.0]
    assert received[w][Gradient].value.tolist() == [21.0, 39.0]
    assert not (set(loss.backward(1.0)) - {w})
    assert received.keys() == {w, inner, box, loss}
    assert w.backward("said", inspect=[w])[w].keys() == {tg.Remark}
    with pytest.raises(TypeError, match="inspect"):
        loss.backward(1.0, inspect=["x"])


def test_a_tensor_in_a_container_goes_through() -> None:
    w = tensor(1.0, 2.0)

    @bundle
    def many(x: Any) -> Any:
        return {"a": [x * 2, x], "b": x}

    made = many(w)
    ((made["a"][0] * made["b"]).sum() + node([w, 1.0])[0].sum()).backward(1.0)
    assert value(w).tolist() == [5.0, 9.0]


def test_a_dropped_graph_with_lifted_numbers_is_freed() -> None:
    import gc
    import weakref

    rate = node(0.5, trainable=True)
    loss = (node(torch.ones(2)) * (rate * 2.0)).sum()
    loss.backward(1.0)
    rate.zero_feedback()
    ghost = weakref.ref(loss)
    del loss
    gc.collect()
    assert ghost() is None


def test_hooks_that_wait_for_a_gradient_are_called_once_it_is_there() -> None:
    """ZeRO and optimizers that step in the backward pass wait for it so."""
    w, seen = tensor(1.0, 2.0), []

    def hook(p: torch.Tensor) -> None:
        assert p.grad is not None
        seen.append(p.grad.tolist())
        p.grad = None

    handle = w.data.register_post_accumulate_grad_hook(hook)
    (w * w).sum().backward(1.0)
    (w * 3.0).sum().backward(1.0)
    assert seen == [[2.0, 4.0], [3.0, 3.0]]
    assert w.data.grad is None
    handle.remove()
    (w * 3.0).sum().backward(1.0)
    assert len(seen) == 2


def test_tensors_that_are_no_parameters_get_a_gradient_when_asked_for() -> None:
    """On both sides of a rule, and beside a parameter that shares one of them."""
    w, frozen = tensor(1.0, 2.0), torch.ones(2)
    bias, inner = (torch.ones(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    loss = (squared_by_numpy(w * bias) * bias * inner).sum()
    loss.backward(2.0, tensors=[bias, inner, frozen, w.data])
    x, b, i = (t.detach().clone().requires_grad_() for t in (w.data, bias, inner))
    (((x * b) ** 2 * b * i).sum() * 2).backward()
    assert torch.equal(w.data.grad, x.grad)
    assert torch.equal(bias.grad, b.grad)
    assert torch.equal(inner.grad, i.grad)
    assert frozen.grad is None
    loss.backward(2.0)
    assert torch.equal(bias.grad, b.grad)
