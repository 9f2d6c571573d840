"""A graph of tensors that was read back carries gradients as the one that was written, to the last bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tracegraph as tg
from tracegraph.errors import HistoryError
from tracegraph.history import traces
from tracegraph.history.at_hand import AtHand
from tracegraph.history.recomputed import laid_out, layouts_of
from tracegraph.history.traces import trace_data, trace_of
from tracegraph.node import next_id

weight = tg.node(torch.tensor([0.3, -1.7, 2.9]), trainable=True, name="weight")
rate = tg.node(0.7, trainable=True, name="rate")
seen = torch.tensor([1.0, 0.25, 2.0])
array = np.array([0.5, 2.0, 4.0])
calls: list[str] = []


@tg.bundle
def told(seen: Any, vector: Any) -> Any:
    calls.append("told")
    return torch.cat([seen, (seen @ vector).reshape(1)])


@tg.bundle
def scaled(array: Any, vector: Any) -> Any:
    return torch.as_tensor(array, dtype=torch.float32) * vector


@tg.bundle
def reading(seen: Any) -> Any:
    return seen * weight.data


@tg.bundle
def parts(*vectors: Any, scale: float = 1.0) -> Any:
    return {"sum": sum(vectors) * scale, "name": "parts", "first": vectors[0]}


@tg.bundle(rules={tg.Gradient: lambda node, given: {"x": given.value * 2}})
def rounded(x: Any) -> Any:
    return torch.round(x)


@tg.bundle(traceable=True)
def inner(a: Any, b: Any) -> Any:
    return (a * b).sum() / rate


class Model:
    def __init__(self) -> None:
        self.matrix = torch.arange(9.0).reshape(3, 3).T

    @tg.bundle
    def predict(self, vector: Any) -> Any:
        return self.matrix @ vector


model = Model()
EVERYTHING = {"all": [weight, rate, told, scaled, reading, parts, rounded, inner], "model": model}

PROGRAMS: dict[str, Callable[[], Any]] = {
    "bundle": lambda: told(seen, weight),
    "by keyword": lambda: told(vector=weight, seen=seen),
    "twice": lambda: told(weight, weight),
    "several": lambda: parts(weight, weight * 2, scale=3.0)["sum"],
    "read": lambda: reading(seen) * rate,
    "method": lambda: model.predict(weight),
    "rule": lambda: rounded(weight * rate) + weight,
    "inner graph": lambda: inner(weight, seen),
    "operators": lambda: (1 - weight * 2)[0:2].sum() * torch.rand(()),
    "ellipsis": lambda: weight[..., 1],
    "in place": lambda: (weight**2).add_(1).mean(dim=0, keepdim=True),
    "functions": lambda: torch.cat([weight * 2, weight]).relu(),
    "softmax": lambda: torch.nn.functional.softmax(weight / rate, dim=0),
    "array": lambda: scaled(tg.node(array) * 2, weight),
}


def there_and_back(program: Callable[[], Any], *more: Any) -> tuple[Any, Any, dict[str, Any]]:
    hand, first, tensors = AtHand({**EVERYTHING, "more": more}), next_id(), {}
    output = program()
    data = json.loads(json.dumps(trace_data(output, hand, since=first, tensors=tensors)))
    return output, trace_of(data, hand, tensors=tensors), tensors


def gradients(output: Any) -> dict[str, Any]:
    start = torch.linspace(-1, 1, output.data.numel()).reshape(output.data.shape)
    found = output.backward(tg.Gradient(start))
    return {p.label: torch.as_tensor(got[tg.Gradient].value) for p, got in found.items()}


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients_go_back_as_before(name: str) -> None:
    output, again, _ = there_and_back(PROGRAMS[name])
    expected, found = gradients(output), gradients(again)
    assert expected
    assert torch.equal(output.data, again.data)
    assert expected.keys() == found.keys()
    for label, gradient in expected.items():
        assert torch.equal(gradient, found[label]), label
    steps, same = (
        sorted(str([n.op, *n.inputs]) for n in tg.Graph.of(o).nodes) for o in (output, again)
    )
    assert steps == same


def test_only_what_torch_follows_is_called_again() -> None:
    @tg.bundle
    def numbers(text: str) -> Any:
        calls.append("numbers")
        return torch.tensor([float(len(text)), 1.0, 2.0])

    calls.clear()
    word = tg.node("word", trainable=True, name="word")
    _, again, tensors = there_and_back(lambda: told(numbers(word), weight), word, numbers)
    assert calls == ["numbers", "told", "told"]
    assert [t.tolist() for t in tensors.values()] == [[4.0, 1.0, 2.0]]
    assert sorted(p.label for p in again.backward("It is wrong.")) == ["weight", "word"]


def test_what_comes_to_something_else_now_is_refused() -> None:
    @tg.bundle
    def dropped(vector: Any) -> Any:
        return vector * torch.rand(3)

    with pytest.raises(HistoryError, match="dropped does not make the same again: it comes to"):
        there_and_back(lambda: dropped(weight), dropped)


def test_a_tensor_at_hand_that_was_changed_is_refused() -> None:
    features = torch.ones(3)
    hand, first = AtHand({**EVERYTHING, "more": [features]}), next_id()
    data = trace_data(told(features, weight), hand, since=first, tensors={})
    assert trace_of(data, hand).inputs["seen"].data is features
    features[0] = 2
    with pytest.raises(HistoryError, match="has other numbers now"):
        trace_of(data, hand)


def test_a_method_of_one_of_several_objects_is_refused() -> None:
    with pytest.raises(HistoryError, match="of which object is not known"):
        there_and_back(PROGRAMS["method"], Model())


def test_a_tensor_that_torch_follows_and_no_operation_made_is_refused() -> None:
    with pytest.raises(HistoryError, match="no plain data"):
        there_and_back(lambda: tg.node(weight.data * 2) + 1)


def test_more_tensors_than_there_is_room_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "_MOST", 1_000)
    with pytest.raises(HistoryError, match="more than 1,000 bytes"):
        there_and_back(lambda: told(torch.ones(300), tg.node(torch.ones(300))))


@given(st.data())
def test_a_copy_lies_in_memory_as_its_original(data: st.DataObject) -> None:
    """However it was cut, turned and expanded."""
    tensor = torch.arange(120.0).reshape(4, 5, 6)
    for _ in range(data.draw(st.integers(0, 3))):
        dim = data.draw(st.integers(0, tensor.dim() - 1))
        start = data.draw(st.integers(0, tensor.shape[dim] - 1))
        step = data.draw(st.integers(1, 3))
        index: list[Any] = [slice(None)] * tensor.dim()
        index[dim] = slice(start, None, step)
        tensor = tensor[tuple(index)].transpose(0, -1)
    if data.draw(st.booleans()):
        tensor = tensor[None].expand(2, *tensor.shape)
    (layout,) = layouts_of(tensor)
    made = laid_out(tensor.clone().contiguous(), layout)
    assert torch.equal(made, tensor)
    assert made.data_ptr() % 64 == tensor.data_ptr() % 64
    assert layout is None or made.stride() == tensor.stride()
