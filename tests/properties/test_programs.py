"""Laws that hold for every program, checked on random ones."""

from __future__ import annotations

from collections import Counter
from typing import Any

import networkx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tracegraph as tg
from tests.properties.programs import Program, programs
from tracegraph import Graph, Node, Parameter

pytestmark = pytest.mark.filterwarnings("error")


def nodes_of(values: list[Any]) -> list[Node[Any]]:
    return [v for v in values if isinstance(v, Node)]


@given(programs())
def test_values_equal_plain_python(program: Program) -> None:
    assert [tg.unwrap(v) for v in program.recorded()] == program.plain()


@given(programs())
def test_without_tracing_values_are_the_same_and_nothing_is_kept(program: Program) -> None:
    with tg.stop_tracing():
        values = program.recorded()
    assert [tg.unwrap(v) for v in values] == program.plain()
    assert all(not v._inputs for v in nodes_of(values))


@given(programs())
def test_inside_a_bundle_the_program_gives_plain_values_and_one_node(program: Program) -> None:
    values = program.recorded()
    starts = values[: len(program.starts)]

    @tg.bundle
    def whole() -> Any:
        return program.run(list(starts))

    result = whole()
    assert result.data == program.plain()
    assert all(n.op is None for n in result.parents)


@given(programs())
def test_ids_order_the_graph(program: Program) -> None:
    graph = Graph.of(nodes_of(program.recorded()))
    ids = [n.id for n in graph]
    assert ids == sorted(set(ids))
    for n in graph:
        assert all(i.id < n.id for i in n.inputs.values())
        assert len(n.inputs) == len(n._inputs) == len(n._names)
        assert all(type(i) is Node for i in n.inputs.values())


def behind(n: Node[Any]) -> set[int]:
    """A naive recursive reference: the ids of everything behind `n`."""
    found = {n.id}
    for i in n.inputs.values():
        found |= behind(i)
    return found


@given(programs(longest=9))
def test_the_graph_is_what_a_naive_walk_finds(program: Program) -> None:
    for output in nodes_of(program.recorded())[-3:]:
        output = output._leaf()
        assert {n.id for n in Graph.of(output)} == behind(output)


@given(programs(longest=9), st.data())
def test_feedback_arrives_where_a_naive_walk_says(program: Program, data: st.DataObject) -> None:
    outputs = [n._leaf() for n in nodes_of(program.recorded())]
    given_at = data.draw(st.lists(st.sampled_from(outputs), min_size=1, max_size=3))
    expected: dict[Parameter[Any], set[tuple[int, str]]] = {}
    for number, output in enumerate(given_at):
        output = output._leaf()
        reached = behind(output)
        for n in Graph.of(output):
            if n.id in reached and n.parameter is not None:
                expected.setdefault(n.parameter, set()).add((output.id, f"said {number}"))
    received = tg.backward([(o, f"said {i}") for i, o in enumerate(given_at)])
    got = {
        p: {(at, said) for at, all_ in m[tg.Remark].outputs.items() for _, said in all_}
        for p, m in received.items()
    }
    assert got == expected
    assert {p: p.feedback[tg.Remark] for p in received} == {
        p: m[tg.Remark] for p, m in received.items()
    }


class Paths(tg.Feedback):
    """Counts the paths that it came along."""

    def __init__(self, count: int) -> None:
        self.count = count

    def merge(self, other: Paths) -> Paths:
        return Paths(self.count + other.count)


def paths(n: Node[Any]) -> Counter[Parameter[Any]]:
    """A naive recursive reference: how many paths lead from `n` to each parameter."""
    if n.parameter is not None:
        return Counter({n.parameter: 1})
    found: Counter[Parameter[Any]] = Counter()
    for i in n._inputs:
        found.update(paths(i))
    return found


@given(programs(longest=9))
def test_messages_merge_along_every_path(program: Program) -> None:
    output = nodes_of(program.recorded())[-1]._leaf()
    received = output.backward(Paths(1))
    assert {p: m[Paths].count for p, m in received.items()} == dict(paths(output))


@given(programs(), st.data())
def test_between_agrees_with_networkx(program: Program, data: st.DataObject) -> None:
    outputs = [n._leaf() for n in nodes_of(program.recorded())]
    graph = Graph.of(outputs)
    some = data.draw(st.lists(st.sampled_from(graph.parameters), max_size=3))
    ends = data.draw(st.lists(st.sampled_from(outputs), min_size=1, max_size=3))
    view = graph.to_networkx()
    assert set(view) == {n.id for n in graph}
    assert networkx.is_directed_acyclic_graph(view)
    assert list(networkx.lexicographical_topological_sort(view)) == [n.id for n in graph]
    leaves = [n.id for n in graph if any(n.parameter is p for p in some)]
    down = set(leaves).union(*(networkx.descendants(view, i) for i in leaves))
    up = {e.id for e in ends}.union(*(networkx.ancestors(view, e.id) for e in ends))
    cut = graph.between(some, ends)
    assert {n.id for n in cut} == down & up
    assert {n.id for n in cut.outputs} == {e.id for e in ends} & down
    for n in graph:
        assert {u.id for u in graph.users(n)} == set(view.successors(n.id))


def shape(values: list[Any]) -> list[Any]:
    """The structure of a trace, without ids."""
    graph = Graph.of(nodes_of(values))
    numbers = {n.id: i for i, n in enumerate(graph)}
    return [
        (n.op, n.label, n.data, n.captured, tuple(n._names), [numbers[i.id] for i in n._inputs])
        for n in graph
    ]


@given(programs())
def test_replay_gives_the_same_structure(program: Program) -> None:
    assert shape(program.recorded()) == shape(program.recorded())


@given(programs(longest=12))
@settings(max_examples=50)
def test_replay_gives_the_same_problem(program: Program) -> None:
    from tracegraph.problem import Problem

    said = []
    for _ in range(2):
        values = program.recorded()
        tg.backward([(o, f"said {i}") for i, o in enumerate(nodes_of(values))])
        parameters = {p.label: p for p in nodes_of(values) if isinstance(p, Parameter)}
        problem = Problem.of(parameters, instruction="improve")
        said.append((problem, problem.text()))
    assert said[0] == said[1]


@given(programs(), st.integers(1, 10))
def test_a_horizon_keeps_values_and_order(program: Program, length: int) -> None:
    with tg.recording(horizon=length):
        values = program.recorded()
    assert [tg.unwrap(v) for v in values] == program.plain()
    graph = Graph.of(nodes_of(values))
    assert len([n for n in graph if n.op]) <= length


@given(programs())
def test_observers_see_what_the_graph_holds(program: Program) -> None:
    seen: list[Node[Any]] = []
    with tg.recording(observers=[seen.append]):
        values = program.recorded()
    operations = {n.id for n in Graph.of(nodes_of(values)) if n.op}
    assert operations <= {n.id for n in seen}
    assert [n.id for n in seen] == sorted({n.id for n in seen})


@given(programs(), st.integers(0, 30))
def test_a_failure_in_the_middle_knows_what_led_to_it(program: Program, at: int) -> None:
    values = program.recorded()
    cause = nodes_of(values)[at % len(nodes_of(values))]
    with pytest.raises(ZeroDivisionError) as caught:
        cause / 0
    failed = tg.failed_node(caught.value)
    assert failed is not None
    assert cause._leaf().id in behind_fast(failed)
    assert set(failed.backward("no")) == set(Graph.of(cause).parameters)


def behind_fast(n: Node[Any]) -> set[int]:
    return {m.id for m in Graph.of(n)}
