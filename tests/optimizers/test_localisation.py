"""Blame: the published coefficient, lines read from traces, and edits that begin where it points."""

from __future__ import annotations

import ast
import math
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tracegraph as tg
from optimizers import Evolve
from optimizers.localisation import lines_run
from optimizers.search import ochiai, suspects
from optimizers.search.code import varied_code
from tracegraph.graph import Graph

RUNS = st.lists(st.tuples(st.frozensets(st.integers(1, 6)), st.booleans()), max_size=12)


@given(RUNS)
def test_ochiai_is_the_cosine_of_executing_and_failing(
    runs: list[tuple[frozenset[int], bool]],
) -> None:
    """The coefficient is the cosine between two 0/1 vectors over the runs."""
    found = ochiai(runs)
    failing = [0 if good else 1 for _, good in runs]
    for line in range(1, 7):
        executing = [1 if line in lines else 0 for lines, _ in runs]
        dot = sum(a * b for a, b in zip(executing, failing, strict=True))
        length = math.sqrt(sum(executing) * sum(failing))
        assert found.get(line, 0.0) == pytest.approx(dot / length if dot else 0.0)


def clamp(x: int, low: int, high: int) -> int:
    """`x` within the bounds."""
    if x < low:
        return low
    if x > high:
        return low
    return x


CASES = [(0, 1), (5, 5), (12, 9)]  # x, and what is wanted between 1 and 9


@pytest.mark.parametrize("origin", ["person", "optimizer"])
def test_the_wrong_line_is_the_most_suspicious_in_place_and_apart(origin: str) -> None:
    function = tg.bundle(clamp, trainable=True, profile=True)
    if origin == "optimizer":  # not trusted, so it runs in the sandbox
        text = function.parameter.data.replace("< low", "< (low)")
        function.parameter.assign(text, origin="optimizer")
    runs = []
    for x, wanted in CASES:
        output = function(x, 1, 9)
        runs.append((output, output.data == wanted))
    (blamed,) = suspects(runs, {"clamp": function.parameter}).values()
    wrong = next(
        number
        for number, line in enumerate(function.parameter.data.splitlines(), 1)
        if "> high" in line
    )
    assert {line for line in blamed if blamed[line] == max(blamed.values())} == {wrong, wrong + 1}


def test_a_run_that_raises_is_blamed_up_to_its_last_line() -> None:
    def share(total: int, parts: int) -> float:
        if parts > 1:
            return total / parts
        return total / (parts - 1)

    function = tg.bundle(share, trainable=True, profile=True)
    with pytest.raises(ZeroDivisionError) as caught:
        function(3, 1)
    failed = tg.failed_node(caught.value)
    assert failed is not None
    first = function.parameter.data.splitlines().index("    return total / (parts - 1)") + 1
    assert lines_run(failed, function.parameter) == {first - 2, first}


def test_without_measuring_nothing_is_blamed() -> None:
    function = tg.bundle(clamp, trainable=True)
    assert suspects([(function(0, 1, 9), False)], {"clamp": function.parameter}) == {}


def test_the_graph_of_an_output_is_walked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    functions = {
        f"f{n}": tg.bundle(clamp, trainable=True, profile=True, name=f"f{n}") for n in range(5)
    }
    total = tg.node(0)
    for function in functions.values():
        total = total + function(0, 1, 9)
    walks: list[object] = []
    of = Graph.of

    def counted(*outputs: tg.Node[Any]) -> Graph:
        walks.append(outputs)
        return of(*outputs)

    monkeypatch.setattr(Graph, "of", counted)
    blamed = suspects([(total, False)] * 3, {n: f.parameter for n, f in functions.items()})
    assert set(blamed) == set(functions)
    assert len(walks) == 3


@tg.bundle(trainable=True, profile=True)
class Twins:
    """Two methods that read alike."""

    def first(self, x: int) -> int:
        return x + 1

    def second(self, x: int) -> int:
        return x + 1


def test_methods_that_read_alike_are_told_apart() -> None:
    text = Twins.parameter.data.splitlines()  # type: ignore[attr-defined]
    twins = Twins()
    for name in ("first", "second"):
        place = next(n for n, line in enumerate(text, 1) if f"def {name}" in line)
        ran = lines_run(getattr(twins, name)(1), Twins.parameter)  # type: ignore[attr-defined]
        assert ran == {place + 1}, name


TEXT = """def f(a, b):
    first = a + 1
    second = b * 2
    if first > second:
        return first
    return second
"""


def changed(text: str) -> set[int]:
    """The lines of TEXT, as the parser writes them, that are not in `text`."""
    before, after = ast.unparse(ast.parse(TEXT)).splitlines(), text.splitlines()
    return {number for number, line in enumerate(before, 1) if line not in after}


def test_edits_begin_at_suspicious_lines() -> None:
    there = anywhere = 0
    for seed in range(300):
        there += changed(varied_code(TEXT, Random(seed), suspects={3: 1.0, 99: 1.0})) == {3}
        anywhere += changed(varied_code(TEXT, Random(seed))) == {3}
    assert there > 3 * anywhere


def test_no_suspicion_changes_nothing_about_chance() -> None:
    for seed in range(30):
        assert varied_code(TEXT, Random(seed), suspects={}) == varied_code(TEXT, Random(seed))


def test_a_search_remembers_blame_and_goes_on_exactly() -> None:
    function = tg.bundle(clamp, trainable=True, profile=True)
    one, two = Evolve(function, seed=3), Evolve(function, seed=3)
    (first,) = one.ask()
    name = next(iter(one.named_parameters))
    one.tell(first, 0.5, suspects={name: {6: 1.0}})
    two.load_state_dict(one.state_dict())
    assert two.history[0].suspects == {name: {6: 1.0}}
    assert [c.values for c in one.ask(4)] == [c.values for c in two.ask(4)]


def test_a_step_blames_by_itself() -> None:
    function = tg.bundle(clamp, trainable=True, profile=True)
    optimizer = Evolve(function, seed=0)
    outputs = [(function(x, 1, 9), wanted) for x, wanted in CASES]
    optimizer.backward([(output, float(output.data == wanted)) for output, wanted in outputs])
    optimizer.step()
    (blamed,) = optimizer.history[0].suspects.values()
    assert {line for line in blamed if blamed[line] == max(blamed.values())} == {5, 6}
