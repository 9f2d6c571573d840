"""A view of a trace, cut on demand."""

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


def test_between_leaves_out_what_is_beyond_the_outputs():
    a, _, left, _, out = diamond()
    after = out + 1
    cut = Graph.of(after).between([a], [left])
    assert cut.nodes == (a._leaf(), left)


def test_what_is_no_node_is_refused():
    for wrong in (5, "text", [1], [node(1), "x"], None):
        with pytest.raises(TypeError):
            Graph.of(wrong)


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
