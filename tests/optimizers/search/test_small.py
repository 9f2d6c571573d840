"""The smallest edits of code: every small mistake is one of them away from what is right."""

from __future__ import annotations

import ast
from random import Random
from typing import Any

import pytest

import tracegraph as tg
from optimizers import Evolve
from optimizers.candidate import Candidate, Trial
from optimizers.search.body import Body
from optimizers.search.lexicase import lexicase
from optimizers.search.small import options, small_edit
from tests.benchmarks.repairs import SUBJECTS

RIGHT = (
    ("middle", "found = x\n        elif x < z", "found = y\n        elif x < z"),
    ("middle", "x > z:\n            found = z", "x > z:\n            found = x"),
    ("grade", "points - 5", "points + 5"),
    ("leap", "400 == 0:\n        return False", "400 == 0:\n        return True"),
    ("leap", "== 1", "== 0"),
    ("digits", "total = 1", "total = 0"),
    ("digits", "n = n\n", "n = -n\n"),
    ("longest", "<", ">"),
    ("longest", "best = best", "best = word"),
    ("runs", "count + 2", "count + 1"),
    ("runs", "count = 0", "count = 1"),
)
TEXTS = {subject.name: subject.text for subject in SUBJECTS}


def edited(text: str, seed: int, line: int | None = None) -> str:
    """`text` after one of its smallest edits."""
    tree = ast.parse(text)
    function = tree.body[0]
    assert isinstance(function, ast.FunctionDef)
    assert small_edit(Body(function, [], line), Random(seed))
    return ast.unparse(ast.fix_missing_locations(tree))


def normal(text: str) -> str:
    return ast.unparse(ast.parse(text))


@pytest.mark.parametrize(("name", "wrong", "right"), RIGHT)
def test_every_small_mistake_is_one_edit_away(name: str, wrong: str, right: str) -> None:
    text = TEXTS[name]
    assert text.count(wrong) == 1
    place = text.index(wrong)
    differs = next(i for i, (a, b) in enumerate(zip(wrong, right, strict=False)) if a != b)
    line = text.count("\n", 0, place + differs) + 1
    wanted = normal(text.replace(wrong, right))
    assert wanted in {edited(text, seed, line) for seed in range(200)}


@pytest.mark.parametrize("name", TEXTS)
def test_what_was_edited_compiles_and_differs_on_the_line_alone(name: str) -> None:
    text = normal(TEXTS[name])
    before = text.splitlines()
    for line in range(2, len(before) + 1):
        for seed in range(8):
            try:
                made = edited(text, seed, line)
            except AssertionError:  # a line that has nothing to edit, as ``else:``
                assert before[line - 1].strip() in ("else:", "pass")
                continue
            compile(made, name, "exec")
            assert made != text
            after = made.splitlines()
            assert after[: line - 1] == before[: line - 1]


@pytest.mark.parametrize("now", [0, 7, 10**400, -3, 2.5, True, "a"])
def test_a_constant_becomes_another_of_its_type(now: Any) -> None:
    for seed in range(50):
        found = options(now, [now, 4, 1.0, False, "b", None], Random(seed))
        assert found
        assert all(type(value) is type(now) and value != now for value in found)


def test_of_equals_the_first_is_chosen_half_of_the_time() -> None:
    trials = [
        Trial(Candidate(str(n), {"x": n}, number=n), cases={"a": 1.0, "b": float(n < 0)})
        for n in range(20, -1, -1)
    ]
    first = sum(lexicase(trials, Random(seed)).candidate.number == 0 for seed in range(400))
    assert 160 <= first <= 260


@pytest.mark.parametrize("blamed", [True, False])
def test_the_first_code_is_varied_again_where_its_lines_are_blamed(blamed: bool) -> None:
    @tg.bundle(trainable=True)
    def f(x: int) -> int:
        y = x + 1
        return y * 2

    search = Evolve(f, seed=0)
    suspects = {"f": {2: 1.0}} if blamed else None
    (first,) = search.ask()
    search.tell(first, 0.0, suspects=suspects)
    children = 0
    for number in range(1, 150):
        (candidate,) = search.ask()
        children += candidate.parents == (first.id,)
        search.tell(candidate, float(number), suspects=suspects)  # each is better than the last
    assert (children > 15) is blamed
