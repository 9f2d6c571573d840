"""A view of a trace, cut on demand: the nodes behind some outputs, in order.

A graph holds nodes and changes nothing. Cut it with `Graph.between`, hand it to networkx, or draw
it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self

from tracegraph.kinds import show
from tracegraph.node import Node
from tracegraph.parameter import Parameter

__all__ = ["Graph"]


class Graph:
    """Nodes of a trace, sorted so that inputs come before their users.

    >>> import tracegraph as tg
    >>> x = tg.node(1, trainable=True, name="x")
    >>> y = (x + 1) * (x + 2)
    >>> graph = tg.Graph.of(y)
    >>> [n.op or n.label for n in graph.nodes]
    ['x', 'int', 'add', 'int', 'add', 'multiply']
    >>> len(graph.between([x], [y]))
    4
    """

    __slots__ = ("nodes", "outputs")

    def __init__(self, nodes: Iterable[Node[Any]], outputs: Iterable[Node[Any]]) -> None:
        self.nodes = tuple(sorted(nodes, key=_by_id))
        self.outputs = tuple(outputs)

    @classmethod
    def of(cls, outputs: Node[Any] | Iterable[Node[Any]]) -> Self:
        """Everything behind one or several outputs.

        Raises:
            TypeError: something that is no node.
        """
        ends = [_node(o) for o in ([outputs] if isinstance(outputs, Node) else outputs)]
        found: dict[int, Node[Any]] = {}
        todo = list(ends)
        while todo:
            visited = todo.pop()
            if visited.id not in found:
                found[visited.id] = visited
                todo.extend(n for n in visited._inputs if n.id not in found)
        return cls(found.values(), ends)

    def __len__(self) -> int:
        return len(self.nodes)

    def __iter__(self) -> Iterator[Node[Any]]:
        return iter(self.nodes)

    def __contains__(self, item: object) -> bool:
        return isinstance(item, Node) and any(n is item._leaf() for n in self.nodes)

    def __repr__(self) -> str:
        return (
            f"<Graph of {len(self.nodes):,} nodes, {len(self.parameters)} parameters, "
            f"{len(self.outputs)} outputs>"
        )

    @property
    def parameters(self) -> list[Parameter[Any]]:
        """The parameters that are read in this graph, in order."""
        found = {id(n.parameter): n.parameter for n in self.nodes if n.parameter is not None}
        return list(found.values())

    @property
    def leaves(self) -> list[Node[Any]]:
        """The nodes that no operation made."""
        return [n for n in self.nodes if n.is_leaf]

    def users(self, node: Node[Any]) -> list[Node[Any]]:
        """The nodes of this graph that have `node` among their inputs."""
        wanted = node._leaf()
        return [n for n in self.nodes if any(i is wanted for i in n._inputs)]

    def between(
        self, parameters: Iterable[Parameter[Any]], outputs: Iterable[Node[Any]] | None = None
    ) -> Graph:
        """The part of the graph through which `parameters` reach `outputs`.

        >>> import tracegraph as tg
        >>> x, y = tg.node(1, trainable=True), tg.node(2, trainable=True)
        >>> z = (x + 1) + (y + 1)
        >>> [n.op for n in tg.Graph.of(z).between([y], [z])]
        [None, 'add', 'add']
        """
        wanted = {id(p) for p in parameters}
        ends = self.outputs if outputs is None else tuple(_node(o) for o in outputs)
        behind = Graph.of(ends).nodes if outputs is not None else self.nodes
        reached: dict[int, Node[Any]] = {}
        for node in behind:
            owner = node.parameter
            if (owner is not None and id(owner) in wanted) or any(
                i.id in reached for i in node._inputs
            ):
                reached[node.id] = node
        return Graph(reached.values(), [e for e in ends if e.id in reached])

    def to_networkx(self) -> Any:
        """The graph as a `networkx.MultiDiGraph`, from inputs to users.

        Nodes are ids, with ``node``, ``name``, ``op``, ``kind`` and ``value``; edges have the
        argument's ``name`` and whether it was ``captured``.
        """
        import networkx

        graph = networkx.MultiDiGraph()
        known = {n.id for n in self.nodes}
        for node in self.nodes:
            owner = node.parameter
            graph.add_node(
                node.id, node=node, name=node.name, op=node.op, value=node.preview,
                kind=None if owner is None else owner.kind.name, failed=node.failure is not None,
            )  # fmt: skip
        for node in self.nodes:
            captured = set(node.captured)
            for name, source in zip(node._names, node._inputs, strict=True):
                if source.id in known:
                    graph.add_edge(source.id, node.id, name=name, captured=name in captured)
        return graph


def _node(value: Any) -> Node[Any]:
    if not isinstance(value, Node):
        raise TypeError(
            f"a graph is cut at nodes, got {show(value, 80)}; pass what a recorded call returned, "
            "not its .data"
        )
    return value._leaf()


def _by_id(node: Node[Any]) -> int:
    return node.id
