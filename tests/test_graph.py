"""A view of a trace, cut on demand."""

from typing import Any

import pytest

import tracegraph as tg
from tracegraph import Graph, node


def diamond():
    a = node(1, trainable=True, name="a")
    b = node(2, trainable=True, name="b")
    left, right = a + 1, a * b
    return a, b, left, right, left - right


def test_of_one_and_several_outputs():
    a, b, left, right, out = diamond()
    graph = Graph.of(out)
    assert [n.id for n in graph] == sorted(n.id for n in graph)
    assert graph.nodes[-1] is out
    assert len(graph) == 6
    assert set(graph.parameters) == {a, b}
    assert len(Graph.of([left, right])) == 5
    assert Graph.of([]).nodes == ()
    assert graph.outputs == (out,)
    assert Graph.of(a).nodes == (a._leaf(),)
    assert "6 nodes" in repr(graph)


def test_membership_users_and_leaves():
    a, _, left, right, out = diamond()
    graph = Graph.of(out)
    assert out in graph
    assert a in graph
    assert node(1) not in graph
    assert "text" not in graph
    assert graph.users(a) == [left, right]
    assert graph.users(out) == []
    assert {n.label for n in graph.leaves} == {"a", "b", "int"}


def test_between():
    a, b, left, right, out = diamond()
    graph = Graph.of([left, right, out])
    assert [n.op or n.label for n in graph.between([b], [out])] == ["b", "multiply", "subtract"]
    assert graph.between([b], [left]).nodes == ()
    assert graph.between([], [out]).nodes == ()
    assert len(graph.between([a, b])) == 5
    other = node(0, trainable=True)
    assert graph.between([other], [out]).outputs == ()


def test_between_takes_one_node_for_several():
    word = node("word", trainable=True, name="word")
    plain = node("plain")
    out = (word.upper() + plain) + "!"
    graph = Graph.of(out)
    assert graph.between(word, out).nodes == graph.between([word], [out]).nodes
    assert len(graph.between(word, out).nodes) == 4
    assert [n.op for n in graph.between(plain, out)] == [None, "add", "add"]
    assert graph.between(out.inputs["x"], out).nodes == (out.inputs["x"], out)
    assert graph.nearest(1, out).nodes == (out,)


def test_between_leaves_out_what_is_beyond_the_outputs():
    a, _, left, _, out = diamond()
    after = out + 1
    cut = Graph.of(after).between([a], [left])
    assert cut.nodes == (a._leaf(), left)


def test_what_is_no_node_is_refused():
    for wrong in (5, "text", [1], [node(1), "x"], None):
        for cut in (Graph.of, Graph.of(node(1)).between):
            with pytest.raises(TypeError, match="a graph is cut at nodes, got"):
                cut(wrong)


def test_to_networkx():
    a, b, _, _, out = diamond()

    @tg.bundle
    def call(x, y):
        return x + y + b.data

    last = call(out, out)
    graph = Graph.of(last).to_networkx()
    assert set(graph.nodes) == {n.id for n in Graph.of(last)}
    assert sorted(d["name"] for _, _, d in graph.in_edges(last.id, data=True)) == ["b", "x", "y"]
    assert graph.number_of_edges(out.id, last.id) == 2
    assert [d["captured"] for _, _, d in graph.in_edges(last.id, data=True)].count(True) == 1
    assert graph.nodes[a._leaf().id]["kind"] == "number"
    assert graph.nodes[last.id]["op"] == "call"
    assert graph.nodes[last.id]["node"] is last


def test_a_long_chain_is_no_problem():
    x = a = node(0, trainable=True)
    for _ in range(50_000):
        x = x + 1
    graph = Graph.of(x)
    assert len(graph) == 100_001
    assert len(graph.between([a], [x])) == 50_001


def test_a_graph_changes_nothing_and_is_not_kept_by_its_nodes():
    import weakref

    x = node(1) + 1
    graph = Graph.of(x)
    ref = weakref.ref(x)
    del x
    assert ref() is not None
    del graph
    assert ref() is None


def test_the_nearest_nodes_are_few_arrows_away() -> None:
    start = tg.node(0, name="start")
    value: Any = start
    for _ in range(50):
        value = -value
    side = start + 5  # made last, and two arrows from the start
    graph = Graph.of([value, side])
    near = graph.nearest(7)
    assert len(near) == 7
    assert {value.id, side.id, start.id} <= {n.id for n in near}
    assert [n.op for n in graph.nearest(3, [value])] == ["neg"] * 3
    assert len(graph.nearest(10_000)) == len(graph)


def test_of_a_graph_that_is_too_large_a_page_tells_a_summary(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tracegraph.graph._WHOLE", 100)
    monkeypatch.setattr("tracegraph.graph._PART", 40)
    value: Any = tg.node(0, trainable=True, name="start")
    for number in range(300):
        value = -value if number % 3 else value + number
    graph = Graph.of(value)
    (frame,) = graph.page().frames
    assert sum(box.inside is None for p in frame.picture.whole() for box in p.boxes) <= 41
    assert frame.facts["nodes"] == f"{len(graph):,}"
    assert frame.facts["calls of neg"] == "200"
    assert "graph.between(" in frame.note


def test_a_page_folds_a_loop_and_tells_of_every_node() -> None:
    value: Any = tg.node("", name="start")
    for number in range(80):
        value = (value + tg.node(str(number), name="item")).upper()
    graph = Graph.of(value)
    (frame,) = graph.page().frames
    assert len(frame.picture.boxes) < 10
    assert set(frame.details) == {n.id for n in graph.nodes}
