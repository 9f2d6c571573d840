from __future__ import annotations

import ast
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tracegraph as tg
from optimizers.search import Variation
from optimizers.search.code import varied_code
from optimizers.search.mutate import mutated

HUNT = '''
import math

def near(board, square, *, reach: int = 1) -> list:
    """What lies around."""
    row, column = square
    return [board[row + i] for i in range(-reach, reach + 1) if row + i >= 0]

def choose(board, square, bonus=2):
    """How promising a shot is."""
    row, column = square
    seen = near(board, square)
    best = 0
    for other in seen:
        if other == "hit" and row > 2:
            best = best + bonus
        else:
            continue
    label = f"{row}:{column}"
    if best is None:
        return math.inf
    return -(row * 8 + column) + sum(x for x in seen if x) + len(label)
'''
COUNT = '''
def count(n):
    """Count."""
    for i in range(n):
        yield i + 1
'''
WAIT = """
async def wait(x):
    value = await x
    return value + 1
"""


@pytest.mark.parametrize("text", [HUNT, COUNT, WAIT], ids=["function", "generator", "coroutine"])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=40)
def test_variations_compile_and_keep_what_callers_rely_on(text: str, seed: int) -> None:
    varied = varied_code(text, Random(seed))
    assert varied != text
    before, after = ast.parse(text), ast.parse(varied)
    defined = [item for item in before.body if hasattr(item, "args")]
    still = [item for item in after.body if hasattr(item, "args")]
    assert [item.name for item in still] == [item.name for item in defined]  # type: ignore[attr-defined]
    for old, new in zip(defined, still, strict=True):
        assert ast.dump(new.args) == ast.dump(old.args)  # type: ignore[attr-defined]
        assert ast.get_docstring(new) == ast.get_docstring(old)  # type: ignore[arg-type]
    scopes: tuple[dict[str, object], dict[str, object]] = ({}, {})
    exec(compile(text, "before", "exec"), scopes[0])
    exec(compile(varied, "after", "exec"), scopes[1])
    for item in defined:
        flags = [scope[item.name].__code__.co_flags & 0x2A0 for scope in scopes]  # type: ignore[attr-defined]
        assert flags[0] == flags[1]


@given(seed=st.integers(0, 10**6))
@settings(max_examples=60)
def test_names_of_a_comprehension_do_not_leave_it(seed: int) -> None:
    varied = ast.parse(
        varied_code("def f(n):\n    k = [x for x in n if x > 2]\n    return k", Random(seed))
    )
    inside = {
        id(name)
        for scope in ast.walk(varied)
        if isinstance(scope, ast.ListComp)
        for name in ast.walk(scope)
    }
    outside = [n for n in ast.walk(varied) if isinstance(n, ast.Name) and id(n) not in inside]
    assert all(name.id != "x" for name in outside)


def test_the_same_chance_gives_the_same_variation() -> None:
    assert [varied_code(HUNT, Random(i)) for i in range(30)] == [
        varied_code(HUNT, Random(i)) for i in range(30)
    ]


def test_every_sort_of_edit_happens() -> None:
    found = "\n".join(varied_code(HUNT, Random(i)) for i in range(800))
    for piece in ("or row > 2", "not ", "<= 2", "row + 8", " if ", "is not None", "pass"):
        assert piece in found, piece


def test_given_expressions_come_in() -> None:
    found = [
        varied_code("def f(x):\n    return x + 1", Random(i), ["x * x", "x > 3"])
        for i in range(200)
    ]
    assert any("x * x" in text for text in found)
    assert any("if x > 3" in text for text in found)
    with pytest.raises(ValueError, match="takes Python expressions"):
        varied_code("def f(x):\n    return x", Random(0), ["x +"])


def test_growth_has_a_limit() -> None:
    text, random = "def f(x):\n    return x + 1 - x", Random(0)
    for _ in range(300):
        text = varied_code(text, random, limit=60)
    assert sum(1 for _ in ast.walk(ast.parse(text))) <= 60


def test_a_text_that_cannot_vary_stays() -> None:
    assert varied_code("import math", Random(0)) == "import math"


@tg.bundle(trainable=True, trust=True)
def twice(x: int) -> int:
    """Two times x."""
    return x + 2


def test_a_bundle_runs_its_variations() -> None:
    parameter = twice.parameters()[0]
    results = set()
    for i in range(60):
        parameter.assign(mutated(parameter, parameter.initial, Variation(Random(i))))
        try:
            results.add(twice(5).data)
        except tg.ExecutionError:
            continue
    parameter.assign(parameter.initial)
    assert 10 in results
    assert len(results) > 4
