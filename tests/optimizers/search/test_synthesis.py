"""Functions written from examples: right on what was kept back, and refused where none fits."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tracegraph as tg
from optimizers.search import examples_of, expression_for, synthesized
from optimizers.search.pool import Budget, Pool, key_of
from optimizers.search.vocabulary import OPERATIONS, REFUSALS, Operation
from tracegraph.errors import OptimizerError

HIDDEN: dict[str, tuple[Callable[..., Any], list[tuple[Any, ...]], list[tuple[Any, ...]]]] = {
    "distance": (lambda a, b: abs(a - b), [(1, 5), (7, 2), (3, 3)], [(0, 9), (-4, 4), (10, 1)]),
    "mean": (lambda xs: sum(xs) / len(xs), [([1, 2, 3],), ([4],), ([2, 9, 1, 0],)], [([5, 6],)]),
    "shout": (lambda s: s.strip().upper(), [(" abc",), ("xy ",), ("Q",)], [(" hello ",)]),
    "positive": (lambda x: max(x, 0), [(-3,), (4,), (0,), (7,)], [(-9,), (12,)]),
    "evens": (
        lambda xs: [x for x in xs if x % 2 == 0],
        [([1, 2, 3, 4],), ([5],), ([],), ([6, 8],)],
        [([0, 7, 10],)],
    ),
    "squares": (lambda n: [i * i for i in range(n)], [(0,), (1,), (4,)], [(7,)]),
    "grade": (
        lambda n: "low" if n < 10 else "high" if n > 20 else "middle",
        [(1,), (9,), (10,), (20,), (21,), (40,), (15,), (3,)],
        [(0,), (12,), (99,)],
    ),
    "first": (lambda xs: xs[0] if xs else 0, [([3, 1],), ([],), ([5],), ([8, 8, 8],)], [([4, 2],)]),
    "fee": (
        lambda n, member: n if member else n + 2,
        [(1, True), (1, False), (5, True), (9, False)],
        [(100, True), (100, False)],
    ),
}


LONG = ("grade", "evens")  # seconds each


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.campaign] if n in LONG else []) for n in HIDDEN],
)
def test_what_is_found_is_right_on_examples_that_were_kept_back(name: str) -> None:
    function, shown, kept_back = HIDDEN[name]
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    text = f'def {name}({", ".join(names)}):\n    """Keep me."""\n    return None\n'
    found = synthesized(
        text,
        [(dict(zip(names, args, strict=True)), function(*args)) for args in shown],
        constants=(10, 20) if name == "grade" else (),
    )
    assert found is not None
    scope: dict[str, Any] = {}
    exec(found, scope)
    assert scope[name].__doc__ == "Keep me."
    assert [scope[name](*args) for args in kept_back] == [function(*args) for args in kept_back]


@given(
    a=st.integers(-5, 5),
    b=st.integers(-5, 5),
    points=st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=5),
)
@settings(max_examples=30)
def test_what_is_found_fits_every_example(a: int, b: int, points: list[tuple[int, int]]) -> None:
    wanted = [({"x": x, "y": y}, a * x + b * y) for x, y in points]
    found = expression_for(wanted, constants=[a, b], most=2000)
    if found is not None:
        for arguments, value in wanted:
            assert eval(found, {"math": math}, arguments) == value


def test_nothing_is_found_where_examples_contradict_each_other() -> None:
    assert expression_for([({"x": 1}, 1), ({"x": 1}, 2)], most=500) is None


def test_no_text_is_run() -> None:
    text = "def f(x):\n    raise SystemExit\n"
    hostile = [({"x": 2}, 4), ({"x": 5}, 25)]
    assert ast.unparse(ast.parse(synthesized(text, hostile) or "")) == (
        "def f(x):\n    return x * x"
    )


@pytest.mark.parametrize(
    ("text", "examples", "said"),
    [
        ("x = 1", [({"x": 1}, 1)], "the text defines 0"),
        ("def f(x): return x", [], "there are none"),
        ("def f(x): return x", [({"y": 1}, 1)], "gives y, and the parameters of f are x"),
    ],
)
def test_bad_input_is_said(text: str, examples: list[Any], said: str) -> None:
    with pytest.raises(OptimizerError, match=said):
        synthesized(text, examples)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.form)
def test_an_operation_does_what_it_reads(operation: Operation) -> None:
    """Python itself, given the text, is the reference."""
    values = {
        bool: [True, False], int: [-3, 0, 2, 7], float: [0.5, -2.0], str: ["", "ab c", "12", "Aa"],
        list: [[], [3, 1, 2], ["b", "aa"], [[1], [2, 3]], [True]], tuple: [(), (4, 2)], type(None): [None],
    }  # fmt: skip
    tried = 0
    choices = [[v for kind in kinds for v in values[kind]] for kinds in operation.takes]
    for taken in product(*choices):
        names = [f"a{n}" for n in range(len(taken))]
        try:
            done = operation.run(*taken)
        except REFUSALS:
            continue  # it may refuse more than Python does
        scope = {"math": math, **dict(zip(names, taken, strict=True))}
        assert repr(done) == repr(eval(operation.form.format(*names), scope))
        tried += 1
    assert tried


def test_of_equal_values_only_the_first_is_kept() -> None:
    pool = Pool([("x", [1, 2, 3]), ("2", [2, 2, 2])], Budget(10_000), most=10_000)
    for size in range(2, 5):
        pool.grow(size)
    columns = [key_of(found.values) for found in pool.everything()]
    assert len(columns) == len(set(columns)) > 50


def test_true_one_and_one_point_zero_are_told_apart() -> None:
    keys = [key_of((value,)) for value in (True, 1, 1.0, [1], [True], [1.0], (1,), 0.0, -0.0)]
    assert len(set(keys)) == len(keys)


def test_the_budget_is_kept() -> None:
    budget = Budget(500)
    pool = Pool([("x", [1, 2]), ("y", [3, 5])], budget, most=10_000)
    for size in range(2, 9):
        pool.grow(size)
    assert pool.full
    assert budget.left == 0
    assert len(list(pool.everything())) <= 502


def test_examples_are_read_from_a_trace() -> None:
    @tg.bundle(trainable=True)
    def ratio(a: int, b: int) -> float:
        return a / b

    @tg.bundle
    def total(*parts: float) -> float:
        return sum(parts)

    output = total(ratio(1, 2), ratio(a=3, b=tg.node(4)), ratio(1, 2))
    with pytest.raises(ZeroDivisionError) as caught:
        total(ratio(1, 0))
    failed = tg.failed_node(caught.value)
    assert failed is not None
    wanted = [({"a": 1, "b": 2}, 0.5), ({"a": 3, "b": 4}, 0.75)]
    assert examples_of([output, failed], ratio) == wanted
    rate = tg.node(7)

    @tg.bundle
    def price(a: int) -> int:
        return a * rate if a > 1 else a  # type: ignore[no-any-return]

    assert examples_of([price(2), price(1)], price) == [({"a": 1}, 1)]
    assert synthesized("def ratio(a, b):\n    return 0", wanted) is not None
    with pytest.raises(OptimizerError, match="made by bundle"):
        examples_of([output], len)  # type: ignore[arg-type]
