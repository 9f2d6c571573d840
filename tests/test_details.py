from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import tracegraph as tg
from tracegraph.details import arrived, details
from tracegraph.details import given as given_at
from tracegraph.view import Entry, Histogram


def told(node: tg.Node[Any], **facts: Any) -> dict[str, Entry]:
    return {entry.heading: entry for entry in details(node, **facts)}


def leaf(parameter: tg.Parameter[Any]) -> tg.Node[Any]:
    """The node by which a parameter stands in a graph."""
    return next(n for n in tg.Graph.of(parameter + "").nodes if n.parameter is parameter)


@settings(deadline=None, max_examples=60)
@given(arrays.arrays(numpy.float64, arrays.array_shapes(max_dims=3, max_side=9)))
def test_the_statistics_are_those_of_numpy(array: numpy.ndarray[Any, Any]) -> None:
    said = told(tg.node(array))
    facts = said["Value"].content
    finite = array[numpy.isfinite(array)]
    assert facts["elements"] == f"{array.size:,}"
    assert ("not finite" in facts) == (finite.size < array.size)
    if finite.size:
        assert float(facts["largest"]) == pytest.approx(float(finite.max()), rel=1e-5)
    if "Value: histogram" in said:
        histogram = said["Value: histogram"].content
        assert isinstance(histogram, Histogram)
        assert sum(histogram.counts) == finite.size


def test_a_large_array_is_sampled_and_says_so() -> None:
    facts = told(tg.node(numpy.zeros(3_000_000, dtype=numpy.int8)))["Value"].content
    assert facts["elements"] == "3,000,000"
    assert facts["statistics of"] == "1,000,000 of them, evenly taken"


def test_an_array_of_words_has_no_statistics() -> None:
    facts = told(tg.node(numpy.array(["a", "b"])))["Value"].content
    assert facts["statistics"].startswith("none: ")


def test_a_tensor_is_read_as_it_is() -> None:
    torch = pytest.importorskip("torch")
    weight = tg.node(torch.ones(3, dtype=torch.bfloat16, requires_grad=True), name="weight")
    facts = told(weight)["Value"].content
    assert (facts["shape"], facts["dtype"], facts["mean"]) == ("3", "bfloat16", "1")
    assert facts["requires grad"] == "yes"
    nowhere = told(tg.node(torch.empty(3, device="meta")))["Value"].content
    assert nowhere["statistics"].startswith("none: ")


def test_feedback_is_told_where_it_arrived_and_where_it_was_given() -> None:
    prompt = tg.node("Answer.", trainable=True, name="prompt")
    answer = prompt + " Now."
    answer.backward("Too long.")
    assert told(leaf(prompt))["Feedback (Remark)"].content == "Too long."
    assert given_at([prompt]) == {answer.id: ["Too long."]}
    assert told(answer, said=["Too long."])["Feedback given here"].content == "Too long."


def test_a_gradient_is_told_by_its_norm() -> None:
    torch = pytest.importorskip("torch")
    weight = tg.node(torch.tensor([1.0, 2.0], requires_grad=True), trainable=True, name="weight")
    loss = (weight * torch.tensor([3.0, 4.0])).sum()
    loss.backward(1.0)
    entries = details(next(n for n in tg.Graph.of(loss).nodes if n.parameter is weight))
    found = next(entry for entry in entries if entry.heading == "Gradient")
    assert found.content == {"norm": "5"}


def test_a_list_that_changed_since_is_told_as_it_was() -> None:
    items = [1, 2]
    held = tg.node(items)
    items.append(3)
    assert told(held)["Value when recorded (it changed since)"].content == "[1, 2]"


def test_a_failure_is_told_with_its_line() -> None:
    @tg.bundle
    def broken(x: int) -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as raised:
        broken(1)
    node = tg.failed_node(raised.value)
    assert node is not None
    assert 'raise ValueError("no")  <--- (ValueError) no' in told(node)["Error"].content


def test_code_from_an_optimizer_says_that_it_is_not_trusted() -> None:
    @tg.bundle(trainable=True)
    def double(x: str) -> str:
        return x * 2

    code = double.parameters()[0]
    assert told(leaf(code))["About"].content["may run in place"] == "yes"
    code.assign(code.data.replace("2", "3"), origin="optimizer")
    about = told(leaf(code))["About"].content
    assert about["may run in place"] == "no, not trusted"
    assert about["written by"] == "an optimizer"


def test_what_isolated_code_printed_is_told() -> None:
    @tg.bundle(trainable=True)
    def speak(x: str) -> str:
        return x * 2

    (code,) = speak.parameters()
    code.assign(code.data.replace("return", "print('aloud'); return"), origin="optimizer")
    said = told(speak("a"))
    assert said["Printed (stdout)"].content == "aloud\n"
    assert said["About"].content["ran isolated"].endswith(" s")


def test_a_dataclass_shows_its_parts() -> None:
    @dataclass
    class Point:
        x: int
        y: list[int]

    assert told(tg.node(Point(1, [2])))["Parts"].content["m"] == [
        ["x", 1],
        ["y", {"l": [2], "n": 1}],
    ]


class Silent:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "value",
    [Silent(), [Silent()], {Silent: 1}, 10**5000, [10**5000], b"\xff", {1, 2}],
    ids=lambda value: type(value).__name__,
)
def test_whatever_cannot_be_shown_stops_nothing(value: object) -> None:
    held = tg.node(value, name="held")
    assert "held" in str(tg.Graph.of(held).to_html())


@settings(deadline=None, max_examples=25)
@given(st.text(max_size=40))
def test_constants_are_told_with_their_user(word: str) -> None:
    total = tg.node("x", name="x") + word
    (entries,) = [
        entries
        for key, entries in tg.Graph.of(total).page().frames[0].details.items()
        if key == total.id
    ]
    assert "Constants" in {entry.heading for entry in entries}


def test_a_huge_number_in_place_stops_nothing() -> None:
    assert "bits" in str(tg.Graph.of(tg.node(1, name="x") + 10**5000).to_html())


@pytest.mark.parametrize(
    "shape", [(12, 9), (12, 9, 1), (12, 9, 3), (12, 9, 4), (3, 12, 9), (1, 12, 9)]
)
def test_an_array_that_is_a_picture_is_shown_as_one(shape: tuple[int, ...]) -> None:
    array = numpy.arange(numpy.prod(shape), dtype=numpy.uint8).reshape(shape)
    shown = {e.heading: e.content for e in details(tg.node(array))}["Value: picture"]
    width, height = struct.unpack(">II", shown[16:24])
    assert (width, height) == (9, 12)
    channels = {0: 1, 2: 3, 6: 4}[shown[25]]
    size = struct.unpack(">I", shown[33:37])[0]
    rows = zlib.decompress(shown[41 : 41 + size])
    pixels = numpy.frombuffer(rows, numpy.uint8).reshape(12, 1 + 9 * channels)[:, 1:]
    wanted = array.transpose(1, 2, 0) if shape[0] in (1, 3) else array
    assert (pixels == wanted.reshape(12, -1)).all()


@pytest.mark.parametrize(
    "value",
    [
        numpy.zeros((3, 3)), numpy.zeros(100), numpy.zeros((2, 20, 20, 3)), numpy.zeros((9, 20, 20)),
        numpy.full((20, 20), numpy.nan), numpy.zeros((20, 20), complex), numpy.full((9, 9), "a"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_not_shown_as_one(value: Any) -> None:
    assert all(e.form != "image" for e in details(tg.node(value)))


def test_a_large_picture_is_made_small() -> None:
    array = numpy.linspace(0, 1, 2_000 * 900).reshape(2_000, 900)
    shown = {e.heading: e.content for e in details(tg.node(array))}["Value: picture"]
    assert max(struct.unpack(">II", shown[16:24])) <= 160


def test_how_much_came_back_is_told_on_one_line() -> None:
    torch = pytest.importorskip("torch")
    weight = tg.node(torch.tensor([3.0, 4.0]), trainable=True, name="weight")
    (weight * weight).sum().backward(1.0)
    assert arrived(weight) == "gradient norm 10"
