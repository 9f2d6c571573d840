"""What travels back, and how it merges."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tracegraph as tg
from tracegraph import Gradient, Preference, Ranking, Remark, Score, node
from tracegraph.feedback import UnknownFeedback

TEXTS = st.text(max_size=5)
REMARKS = st.builds(
    lambda text, at, weight: Remark(text).given_at(at, weight),
    TEXTS, st.sampled_from([node(i) for i in range(3)]), st.sampled_from([0.5, 1.0, 2.0]),
)  # fmt: skip


@given(REMARKS, REMARKS, REMARKS)
def test_merging_remarks_is_a_union(a, b, c):
    assert a.merge(a) == a
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert hash(a.merge(b)) == hash(b.merge(a))
    assert str(a.merge(b)) == str(b.merge(a))


@given(st.lists(st.integers(-100, 100), min_size=1))
def test_merging_gradients_sums(values):
    merged = Gradient(values[0])
    for value in values[1:]:
        merged = merged.merge(Gradient(value))
    assert merged.value == sum(values)


def test_merging_changes_neither():
    a, b = Remark("a"), Remark("b")
    a.merge(b)
    assert str(a) == "a"
    assert str(b) == "b"


def test_scores():
    first, second = node(1), node(2)
    merged = Score(1).given_at(first, 1.0).merge(Score(0).given_at(second, 3.0))
    assert merged.mean == 0.25
    assert Score("2").mean == 2.0
    assert Score(math.inf).mean == math.inf
    for wrong in (math.nan, "many", None, [1]):
        with pytest.raises(UnknownFeedback):
            Score(wrong)


def test_a_score_and_a_weight_are_numbers_that_a_float_can_hold():
    with pytest.raises(UnknownFeedback, match="got <int of"):
        Score(10**400)
    word = tg.node("a", trainable=True)
    with pytest.raises(ValueError, match="a weight is a finite number, got <int of"):
        (word + "b").backward("short", weight=10**400)
    assert not word.feedback


@pytest.mark.parametrize("value", ["1", b"1", None, [1.0], {}], ids=repr)
def test_a_gradient_is_numbers(value):
    with pytest.raises(UnknownFeedback, match="a gradient is a number, an array or a tensor"):
        Gradient(value)


def test_the_same_score_at_two_outputs_counts_twice():
    first, second = node(1), node(2)
    merged = Score(1).given_at(first, 1).merge(Score(1).given_at(second, 1)).merge(
        Score(0).given_at(first, 1)
    )  # fmt: skip
    assert merged.mean == pytest.approx(2 / 3)


def test_a_mean_without_weight_is_nan():
    assert math.isnan(Score(1).given_at(node(1), 0.0).mean)


def test_rankings_and_preferences():
    assert str(Ranking(1, of=3)) == "place 1 of 3"
    assert str(Ranking(2, of=3, reason="dull")) == "place 2 of 3: dull"
    for place, of in ((0, 3), (4, 3), (-1, 1)):
        with pytest.raises(UnknownFeedback):
            Ranking(place, of=of)
    assert "better than 'x'" in str(Preference("x", better=True))
    assert "worse than 5: slow" in str(Preference(node(5), better=False, reason="slow"))
    assert Ranking(1, of=2) != Preference("x", better=True)


@pytest.mark.parametrize(("place", "of"), [(0, 3), (4, 3), (1.5, 3), (1, "3"), (None, 3)])
def test_a_place_is_one_of_several(place, of):
    with pytest.raises(UnknownFeedback, match=f"a place lies between 1 and {of}, got {place}"):
        Ranking(place, of=of)
    assert str(Ranking(np.int64(2), of=3)) == "place 2 of 3"


def test_remarks_are_text():
    with pytest.raises(UnknownFeedback):
        Remark(5)
    assert "Remark" in repr(Remark("x" * 10_000))
    assert len(repr(Remark("x" * 10_000))) < 300


def test_messages_carry_ids_not_graphs():
    x = node("a", trainable=True) + "b"
    message = Remark("said").given_at(x, 1.0)
    assert list(message.outputs) == [x.id]
    assert not any(isinstance(part, tg.Node) for entry in message.entries for part in entry)


def test_an_exception_that_was_not_recorded_is_feedback_too():
    prompt = node("a", trainable=True)
    (prompt + "b").backward(ValueError("plain"))
    assert "plain" in str(prompt.feedback[Remark])


def test_a_number_for_a_number_is_a_score_and_for_a_tensor_a_gradient():
    import numpy as np
    import torch

    prompt = node("a", trainable=True)
    (prompt + "b").backward(np.float64(0.5))
    assert prompt.feedback[Score].mean == 0.5
    w = node(torch.ones(1, requires_grad=True), trainable=True)
    w.sum().backward(2)
    assert w.feedback[Gradient].value.tolist() == [2.0]
