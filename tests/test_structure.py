"""One function through several containers of one structure."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracegraph import Map, Node, Seq, apply, node
from tracegraph import functions as ops

Pair = namedtuple("Pair", "a b")

STRUCTURES = st.recursive(
    st.integers(-9, 9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        | st.tuples(inner, inner)
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=12,
)


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [x for v in value.values() for x in leaves(v)]
    if isinstance(value, (list, tuple)):
        return [x for v in value for x in leaves(v)]
    return [value]


@given(STRUCTURES)
def test_places_meet_and_the_structure_stays(value: Any) -> None:
    nodes = apply(node, value)
    got = apply(lambda x, y, z: x + 10 * y + z, value, nodes, node(100))
    assert apply(type, got) == apply(lambda _: Node, value)
    assert [n.data for n in leaves(got)] == [11 * x + 100 for x in leaves(value)]
    assert all(n.parents for n in leaves(got))


@dataclass
class Point:
    x: Any
    y: list[Any]


def test_objects_and_containers_of_parameters() -> None:
    got = apply(ops.add, Point(1, [2, 3]), Point(node(10), [20, 30]))
    assert (got.x.data, [n.data for n in got.y]) == (11, [22, 33])
    got = apply(ops.multiply, Seq(1, [2]), Seq(3, [4]))
    assert isinstance(got, Seq)
    assert (got[0].data, got[1][0].data) == (3, 8)
    one = apply(ops.add, Seq([[1, 2]]), Seq([[3, 4]]))
    assert [n.data for n in one[0]] == [4, 6]
    assert apply(ops.add, Map({"a": 1}), Map({"a": 2}))["a"].data == 3


def test_a_node_stands_for_itself_at_every_place() -> None:
    n = node(5)
    for got in (apply(ops.add, [1, [2]], n), apply(ops.add, n, [1, [2]])):
        assert [x.data for x in leaves(got)] == [6, 7]
        assert all(any(p is n for p in x.parents) for x in leaves(got))


@pytest.mark.parametrize(
    ("one", "two", "where"),
    [
        ([1], [1, 2], "the top"),
        ({"a": [1]}, {"a": (1, 2)}, r"\['a'\]"),
        ({"a": 1}, {"b": 1}, "the top"),
        ([{"a": 1}], [5], r"\[0\]"),
        ([1], {"a": 1}, "the top"),
        ([Point(1, [2])], [5], r"\[0\]"),
    ],
)
def test_another_structure_is_an_error_that_says_where(one: Any, two: Any, where: str) -> None:
    with pytest.raises(ValueError, match=f"at {where}"):
        apply(ops.add, one, two)
