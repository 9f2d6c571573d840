"""Every operation by name does what plain Python does, records, and changes nothing."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

from tracegraph import Node, node
from tracegraph import functions as ops

CASES: dict[str, tuple[tuple[Any, ...], Any]] = {
    "abs": ((-2,), 2), "add": ((2, 3), 5), "and_": ((6, 3), 2), "call": ((max, 2, 3), 3),
    "capitalize": (("ab",), "Ab"), "ceil": ((1.2,), 2), "chr_": ((97,), "a"),
    "clone": (([1],), [1]), "concat": (("a", "b"), "ab"), "cond": ((0, 1, 2), 2),
    "dict_pop": (({"a": 1, "b": 2}, "a"), {"b": 2}), "dict_popitem": (({"a": 1},), {}),
    "dict_update": (({"a": 1}, {"b": 2}), {"a": 1, "b": 2}), "divide": ((3, 2), 1.5),
    "divmod": ((7, 2), (3, 1)), "eq": ((1, 1.0), True), "floor": ((1.8,), 1),
    "floor_divide": ((7, 2), 3), "format": (("{}-{}", 1, 2), "1-2"), "ge": ((2, 2), True),
    "getitem": (([5, 6], 1), 6), "gt": ((2, 2), False), "identity": (([1],), [1]),
    "in_": ((1, [1]), True), "invert": ((5,), -6), "is_": ((None, None), True),
    "is_not": ((None, None), False), "join": (("-", "a", "b"), "a-b"), "keys": (({"a": 1},), ["a"]),
    "le": ((3, 2), False), "len_": (("abc",), 3), "list_append": (([1], 2), [1, 2]),
    "list_clear": (([1],), []), "list_extend": (([1], [2, 3]), [1, 2, 3]),
    "list_insert": (([1, 3], 1, 2), [1, 2, 3]), "list_pop": (([1, 2, 3], 0), [2, 3]),
    "list_remove": (([1, 2, 1], 1), [2, 1]), "list_reverse": (([1, 2],), [2, 1]),
    "list_sort": (([2, 1],), [1, 2]), "lower": (("AB",), "ab"), "lshift": ((1, 3), 8),
    "lt": ((1, 2), True), "make_list": ((1, 2), [1, 2]), "make_set": ((1, 1), {1}),
    "make_tuple": ((1, 2), (1, 2)), "matmul": None, "mod": ((7, 4), 3), "multiply": ((2, 3), 6),
    "ne": ((1, 2), True), "neg": ((2,), -2), "neq": ((1, 2), True), "node_divmod": ((7, 2), (3, 1)),
    "node_getattr": ((3, "real"), 3), "not_": ((0,), True), "not_in": ((1, [1]), False),
    "or_": ((6, 3), 7), "ord_": (("a",), 97), "pop": (([1, 2], 0), 1), "pos": ((2,), 2),
    "power": ((2, 3), 8), "replace": (("aba", "a", "c"), "cbc"), "round": ((math.pi, 2), 3.14),
    "rshift": ((8, 3), 1), "set_add": (({1}, 2), {1, 2}), "set_clear": (({1},), set()),
    "set_discard": (({1}, 2), {1}), "set_intersection_update": (({1, 2}, {2, 3}), {2}),
    "set_pop": (({1},), set()), "set_remove": (({1, 2}, 1), {2}),
    "set_symmetric_difference_update": (({1, 2}, {2, 3}), {1, 3}),
    "set_update": (({1}, {2}), {1, 2}), "setitem": (([1, 2], 0, 5), [5, 2]),
    "split": (("a,b", ","), ["a", "b"]), "strip": ((" a ",), "a"), "subtract": ((5, 3), 2),
    "swapcase": (("aB",), "Ab"), "title": (("a b",), "A B"), "to_dict": (([("a", 1)],), {"a": 1}),
    "to_list": (((1, 2),), [1, 2]), "to_set": (([1, 1],), {1}), "to_tuple": (([1, 2],), (1, 2)),
    "trunc": ((-1.8,), -1), "upper": (("ab",), "AB"), "values": (({"a": 1},), [1]),
    "xor": ((6, 3), 5), "make_dict": None,
}  # fmt: skip


def test_every_function_has_a_case() -> None:
    assert set(ops.__all__) == set(CASES)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case])
def test_it_does_what_python_does_and_records(name: str) -> None:
    args, expected = CASES[name]
    before = copy.deepcopy(args)
    nodes = [node(arg) for arg in args]
    function = getattr(ops, name)
    for got in (function(*args), function(*nodes)):
        assert isinstance(got, Node)
        assert got.data == expected
        assert type(got.data) is type(expected)
    assert args == before
    assert [n.data for n in nodes] == list(before)
    assert [parent.id for parent in got.parents] == [n.id for n in nodes]


def test_feedback_passes_through() -> None:
    x = node([1], trainable=True, name="x")
    y = node("k", trainable=True, name="y")
    received = ops.make_dict(a=ops.list_append(x, 2), b=y).backward("no")
    assert {p.label for p in received} == {"x", "y"}


def test_arguments_by_name() -> None:
    assert ops.subtract(x=node(5), y=3).data == 2
    assert ops.subtract(5, y=3).data == 2
    assert ops.list_sort([1, 3, 2], reverse=True).data == [3, 2, 1]
    with pytest.raises(TypeError):
        ops.subtract(5, z=3)


def test_a_failure_is_recorded() -> None:
    with pytest.raises(ValueError, match="not in list") as caught:
        ops.list_remove(node([1], name="x"), 2)
    assert [n.data for n in caught.value.exception_node.parents] == [[1], 2]  # type: ignore[attr-defined]


def test_an_unknown_name_has_a_nearest_one() -> None:
    with pytest.raises(AttributeError, match="did you mean 'subtract'"):
        ops.substract(1, 2)
    from tracegraph import operators

    with pytest.raises(AttributeError, match=r"tracegraph\.functions"):
        operators.add(1, 2)
