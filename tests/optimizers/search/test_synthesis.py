"""Functions written from examples: right on what was kept back, and refused where none fits."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizers.search import expression_for, synthesized
from tracegraph.errors import OptimizerError

HIDDEN: dict[str, tuple[Callable[..., Any], list[tuple[Any, ...]], list[tuple[Any, ...]]]] = {
    "distance": (lambda a, b: abs(a - b), [(1, 5), (7, 2), (3, 3)], [(0, 9), (-4, 4), (10, 1)]),
    "mean": (lambda xs: sum(xs) / len(xs), [([1, 2, 3],), ([4],), ([2, 9, 1, 0],)], [([5, 6],)]),
    "shout": (lambda s: s.strip().upper(), [(" abc",), ("xy ",), ("Q",)], [(" hello ",)]),
    "positive": (lambda x: max(x, 0), [(-3,), (4,), (0,), (7,)], [(-9,), (12,)]),
    "fee": (
        lambda n, member: n if member else n + 2,
        [(1, True), (1, False), (5, True), (9, False)],
        [(100, True), (100, False)],
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_is_found_is_right_on_examples_that_were_kept_back(name: str) -> None:
    function, shown, kept_back = HIDDEN[name]
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    text = f'def {name}({", ".join(names)}):\n    """Keep me."""\n    return None\n'
    found = synthesized(
        text, [(dict(zip(names, args, strict=True)), function(*args)) for args in shown]
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
            assert eval(found, {}, arguments) == value


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
