"""Functions that come near to examples: the least loss, nothing run, and bad input refused."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizers.search import nearest, synthesized
from tracegraph.errors import OptimizerError

LINE = "def f(x):\n    return 0"


def apart(gave: float, wanted: float) -> float:
    return abs(gave - wanted)


def compiled(text: str, name: str = "f") -> Any:
    scope: dict[str, Any] = {}
    exec(text, scope)
    return scope[name]


@given(
    st.lists(st.tuples(st.integers(-9, 9), st.integers(-20, 20)), min_size=1, max_size=6),
    st.integers(1, 8),
)
@settings(max_examples=40)
def test_each_loss_is_what_the_text_gives_and_they_are_in_order(
    points: list[tuple[int, int]], count: int
) -> None:
    """Python itself, given the text, is the reference."""
    found = nearest(LINE, [({"x": x}, y) for x, y in points], loss=apart, count=count, most=800)
    assert 0 < len(found) <= count
    assert all(one[0] <= other[0] for one, other in pairwise(found))
    for loss, text in found:
        function = compiled(text)
        assert loss == pytest.approx(sum(apart(function(x), y) for x, y in points) / len(points))


def test_what_fits_all_examples_has_no_loss() -> None:
    known = [({"x": x}, x * x + 1) for x in range(4)]
    loss, text = nearest(LINE, known, loss=apart, count=1)[0]
    assert loss == 0
    assert compiled(text)(9) == 82


def test_noise_does_not_hide_the_line_behind_it() -> None:
    """Twenty points of x + x, each off by less than a half: no other small function is as near."""
    chance = random.Random(0)
    points = [({"x": x}, 2 * x + chance.uniform(-0.4, 0.4)) for x in range(20)]
    loss, text = nearest(LINE, points, loss=apart, count=1, most=2_000)[0]
    assert synthesized(LINE, points, most=2_000) is None
    assert loss < 0.4
    assert [compiled(text)(x) for x in range(20, 30)] == [2 * x for x in range(20, 30)]


def test_long_lists_of_tuples_are_gone_through_by_the_names_of_their_parts() -> None:
    """The names are the function's own."""
    chance, length = random.Random(0), 120
    text = "def totals(orders):\n    return [n for n, price, late in orders]"
    known = []
    for _ in range(3):
        orders = [
            (chance.randrange(5), chance.randrange(9), chance.randrange(3)) for _ in range(length)
        ]
        known.append(({"orders": orders}, [n * price for n, price, _ in orders]))
    ((loss, found),) = nearest(text, known, loss=lambda a, b: float(a != b), count=1, most=3_000)
    assert loss == 0
    assert "[n * price for n, price, late in orders]" in found


def test_names_that_written_code_may_need_are_not_taken_from_the_function() -> None:
    """``abs`` of the text below would hide the function of this name."""
    text = "def f(pairs):\n    return [abs for abs, other in pairs]"
    many = [[(1, 7), (5, 2)], [(3, 4), (9, 9), (8, 0)]]
    known = [({"pairs": one}, [abs(x - y) for x, y in one]) for one in many]
    found = synthesized(text, known)
    assert found is not None
    assert compiled(found)([(2, 8), (6, 1)]) == [6, 5]


def test_a_filter_over_pairs_keeps_pairs() -> None:
    many = [[(1, 2), (5, 4), (3, 9)], [(7, 5), (1, 2)], [(3, 3), (3, 4)]]
    known = [({"many": pairs}, [(x, y) for x, y in pairs if x < y]) for pairs in many]
    found = synthesized("def f(many):\n    return []", known)
    assert found is not None
    assert compiled(found)([(8, 2), (2, 8)]) == [(2, 8)]


def test_no_text_is_run_and_results_of_another_kind_are_passed_over() -> None:
    """A loss of numbers raises TypeError for the texts that are tried first."""
    hostile = "def f(x):\n    raise SystemExit\n"
    ((loss, text),) = nearest(hostile, [({"x": "ab"}, 3)], loss=apart, count=1, most=2_000)
    assert loss == 0
    assert compiled(text)("ab") == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"count": 0}, "count must be a whole number from 1"),
        ({"examples": []}, "there are none"),
        ({"loss": lambda gave, wanted: -1.0}, "a number from 0 up, got -1.0"),
        ({"loss": lambda gave, wanted: float("nan")}, "a number from 0 up, got nan"),
        ({"loss": lambda gave, wanted: "near"}, "a number from 0 up, got 'near'"),
        ({"text": "x = 1"}, "the text defines 0"),
        ({"examples": [({"y": 1}, 1)]}, "the parameters of f are x"),
    ],
)
def test_bad_input_is_said(change: dict[str, Any], said: str) -> None:
    options: dict[str, Any] = {"text": LINE, "examples": [({"x": 1}, 1)], "loss": apart} | change
    with pytest.raises(OptimizerError, match=said):
        nearest(
            options["text"],
            options["examples"],
            loss=options["loss"],
            count=options.get("count", 1),
        )
