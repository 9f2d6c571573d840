"""A view of a trace, cut on demand: the nodes behind some outputs, in order.

A graph holds nodes and changes nothing. Cut it with `Graph.between`, hand it to networkx, or draw
it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Self

from tracegraph.errors import PictureError
from tracegraph.kinds import ATOMS, show
from tracegraph.node import Node, next_id
from tracegraph.parameter import Parameter

if TYPE_CHECKING:
    from pathlib import Path

    from tracegraph import view

__all__ = ["Graph", "is_constant", "renumber"]

_WHOLE = 20_000  # nodes of the largest graph that a page draws as a whole
_PART = 2_000  # and what it draws of a larger one
_LINES = 200  # nodes of such a one that a terminal is given
_SHOWN = 2_000  # nodes that a notebook draws by itself: more would weigh too much in its file


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
        ends = _nodes(outputs)
        found: dict[int, Node[Any]] = {}
        todo = list(ends)
        while todo:
            visited = todo.pop()
            if visited.id not in found:
                found[visited.id] = visited
                todo += visited._inputs
        return cls(found.values(), ends)

    def __len__(self) -> int:
        return len(self.nodes)

    def __iter__(self) -> Iterator[Node[Any]]:
        return iter(self.nodes)

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, Node):
            return False
        wanted = item._leaf()
        at = bisect_left(self.nodes, wanted.id, key=_by_id)
        return at < len(self.nodes) and self.nodes[at] is wanted

    def __repr__(self) -> str:
        return (
            f"<Graph of {_counted(len(self.nodes), 'node')}, "
            f"{_counted(len(self.parameters), 'parameter')}, {_counted(len(self.outputs), 'output')}>"
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
        self,
        parameters: Node[Any] | Iterable[Node[Any]],
        outputs: Node[Any] | Iterable[Node[Any]] | None = None,
    ) -> Graph:
        """The part of the graph through which `parameters`, or other nodes, reach `outputs`.

        Raises:
            TypeError: something that is no node.

        >>> import tracegraph as tg
        >>> x, y = tg.node(1, trainable=True), tg.node(2, trainable=True)
        >>> z = (x + 1) + (y + 1)
        >>> [n.op for n in tg.Graph.of(z).between([y], [z])]
        [None, 'add', 'add']
        """
        starts = _nodes(parameters)
        wanted = {id(n.parameter) for n in starts if n.parameter is not None}
        begun = {n.id for n in starts}
        ends = self.outputs if outputs is None else tuple(_nodes(outputs))
        behind = Graph.of(ends).nodes if outputs is not None else self.nodes
        reached: dict[int, Node[Any]] = {}
        for node in behind:
            for source in node._inputs:
                if source.id in reached:
                    reached[node.id] = node
                    break
            else:
                known = node._extra is not None and id(node._extra.get("parameter")) in wanted
                if known or node.id in begun:
                    reached[node.id] = node
        return Graph(reached.values(), [e for e in ends if e.id in reached])

    def nearest(self, count: int, outputs: Node[Any] | Iterable[Node[Any]] | None = None) -> Graph:
        """At most `count` nodes: `outputs` (by default those of the graph) and what is nearest to them.

        Near means few arrows away; what was made last comes first among equals.

        >>> import tracegraph as tg
        >>> x = tg.node(1, name="x")
        >>> [n.label for n in tg.Graph.of(-(-(-x))).nearest(2)]
        ['neg', 'neg']
        """
        ends = self.outputs if outputs is None else tuple(_nodes(outputs))
        level = {n.id: n for n in ends if n in self}
        found: dict[int, Node[Any]] = {}
        while level and len(found) < count:
            for node in sorted(level.values(), key=_by_id, reverse=True)[: count - len(found)]:
                found[node.id] = node
            behind = (i for n in level.values() if n.id in found for i in n._inputs)
            level = {i.id: i for i in behind if i.id not in found and i in self}
        return Graph(found.values(), [e for e in ends if e.id in found])

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

    # Looking at it

    def picture(self, title: str = "") -> view.Picture:
        """The graph as boxes and arrows; what feedback passed through is marked.

        The path of feedback is the part between the parameters that have received some and the
        outputs that it was given at. Plain constants that nobody named are written into the box
        of the operation that uses them.
        """
        from tracegraph import view  # drawing is loaded when something is drawn

        ends = {n.id for n in self.outputs}
        given: dict[int, Node[Any]] = {}
        for parameter in self.parameters:
            given |= parameter.feedback.outputs
        reached = [p for p in self.parameters if p.feedback]
        path = {n.id for n in self.between(reached)} if given else set()
        hidden = self._written_in_place()
        return view.Picture(
            tuple(_box(n, ends, path, hidden) for n in self.nodes if n.id not in hidden),
            tuple(
                view.Arrow(
                    tail=source.id,
                    head=n.id,
                    label=name,
                    on_path=source.id in path and n.id in path,
                    captured=name in n.captured,
                )
                for n in self.nodes
                for name, source in zip(n._names, n._inputs, strict=True)
                if source.id not in hidden and source in self
            ),
            title,
        )

    def to_dot(self) -> str:
        """The graph in the DOT language, by the `graphviz` package.

        Raises:
            PictureError: it has more than 20,000 nodes; says how to cut it.
        """
        from tracegraph import view  # drawing is loaded when something is drawn

        return view.dot(self._whole_picture())

    def to_svg(self) -> str:
        """The graph as one self-contained SVG, laid out here: no program is needed.

        Raises:
            PictureError: it has more than 20,000 nodes; says how to cut it.
        """
        from tracegraph import view  # drawing is loaded when something is drawn

        return view.svg(self._whole_picture())

    def to_text(self, *, width: int = 80) -> str:
        """The graph as a tree of lines for a terminal.

        Of more than 20,000 nodes those that are nearest to the outputs, below a line that says so.
        """
        from tracegraph import view  # drawing is loaded when something is drawn

        shown = self.__rich__()
        note = [shown.note] if shown.note else []
        return "\n".join([*note, view.text(shown.picture, width=width)])

    def render(self, path: str | Path) -> Path:
        """Write a picture; the ending says which: ``.svg``, ``.png`` or ``.pdf``.

        Uses the program ``dot`` where it is installed. Without it, SVG is laid out here and the
        other formats are an error that says how to get it.

        Raises:
            PictureError: it has more than 20,000 nodes; says how to cut it.
        """
        from tracegraph import view  # drawing is loaded when something is drawn

        return view.render(self._whole_picture(), path)

    def _whole_picture(self) -> view.Picture:
        """The picture of a graph that is small enough for one."""
        if len(self) > _WHOLE:
            raise PictureError(
                f"a picture of {len(self):,} nodes would be too large to look at (at most "
                f"{_WHOLE:,}): cut the graph, graph.nearest(2000) or graph.between(parameters, outputs), "
                "or write a page, graph.to_html(path), which shows a summary"
            )
        return self.picture()

    def page(self, title: str = "") -> view.Page:
        """The graph as a page of one step: its picture, and what there is to say of each node.

        Long chains and loops are one box each, which opens. Of more than 20,000 nodes the page shows
        a summary, and the part that is nearest to the outputs.
        """
        from tracegraph import view  # drawing is loaded when something is drawn

        if len(self) > _WHOLE:
            part = self.nearest(_PART)
            (frame,) = part.page(title).frames
            return view.Page(title or "trace graph", (replace(frame, **self._summary(part)),))
        with view.paused_collector():
            return view.Page(title or "trace graph", (self._frame(title),))

    def _frame(self, title: str) -> view.Frame:
        """The whole graph as the one step of a page."""
        from tracegraph import view
        from tracegraph.details import details, given

        said = given(self.parameters)
        hidden = self._written_in_place()
        picture = view.fold(self.picture(title))
        drawn = {box.key for inner in picture.whole() for box in inner.boxes}
        told = {
            n.id: details(n, said.get(n.id, ()), _constants(n, hidden, 200))
            for n in self.nodes
            if n.id in drawn
        }
        return view.Frame(picture=picture, details=told)

    def _summary(self, part: Graph) -> dict[str, Any]:
        """What a page says of a graph that is too large to be drawn, beside `part` of it."""
        operations = Counter(n.op for n in self.nodes if n.op is not None)
        failed = [n.label for n in self.nodes if n.failure is not None]
        facts = {
            "nodes": f"{len(self):,}",
            "drawn": f"{len(part):,}, nearest to the outputs",
            "parameters": f"{len(self.parameters):,}",
            "outputs": f"{len(self.outputs):,}",
            "failures": ", ".join([f"{len(failed):,}", *failed[:5]]),
        }
        facts |= {f"calls of {op}": f"{times:,}" for op, times in operations.most_common(20)}
        return {"title": "summary", "note": self._note(part), "facts": facts}

    def _note(self, part: Graph) -> str:
        return (
            f"This graph has {len(self):,} nodes; the {len(part):,} nearest to its outputs are drawn. "
            "Cut another part: graph.between(parameters, outputs), or graph.nearest(count, nodes)."
        )

    def to_html(self, path: str | Path | None = None, *, title: str = "") -> str | Path:
        """The graph as one self-contained HTML page to pan, zoom, search and open nodes in.

        Args:
            path: a file ending in ``.html`` to write, whole or not at all; without it the text is
                given back.
            title: what stands above.

        Returns:
            The path, or the text of the page.

        >>> import tracegraph as tg
        >>> text = tg.Graph.of(tg.node(1, trainable=True, name="x") + 1).to_html()
        >>> text.startswith("<!DOCTYPE html>")
        True
        """
        from tracegraph import view  # drawing is loaded when something is drawn

        page = self.page(title)
        return view.html(page) if path is None else view.write_html(page, path)

    def _written_in_place(self) -> set[int]:
        """The ids of plain constants that are written into the boxes of their users."""
        ends = {n.id for n in self.outputs}
        return {n.id for n in self.nodes if is_constant(n) and n.id not in ends}

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """The graph for a notebook: text, a picture, and the page in a frame of its own."""
        told = {"text/plain": repr(self)}
        if len(self) <= _SHOWN:
            from tracegraph import view

            told["image/svg+xml"] = self.to_svg()
            told["text/html"] = view.framed(str(self.to_html()), title=repr(self))
        return told

    def _repr_svg_(self) -> str | None:
        return self.to_svg() if len(self) <= _SHOWN else None

    def __rich__(self) -> view.Text:
        from tracegraph import view  # drawing is loaded when something is drawn

        if len(self) <= _WHOLE:
            return view.Text(self.picture())
        part = self.nearest(_LINES)
        return view.Text(part.picture(), self._note(part))


def renumber(outputs: Iterable[Node[Any]], first: int) -> None:
    """Give the nodes behind some outputs new ids, output by output, as if they were made in turn.

    Ids of nodes that threads made side by side are mixed by chance, and the order of a problem's
    lines goes by ids. Only ids from `first` on change; an input's id stays smaller than its user's.
    """
    moved: set[int] = set()
    for output in outputs:
        fresh = [n for n in Graph.of(output).nodes if n.id >= first and id(n) not in moved]
        for node in fresh:
            node.id = next_id()
            moved.add(id(node))


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + "s" * (count != 1)


def is_constant(node: Node[Any]) -> bool:
    """Whether a node is a plain constant that nobody named: short enough to be written in place."""
    if not node.is_leaf or node.given_name is not None or node.parameter is not None:
        return False
    value = node._data
    if type(value) is int and abs(value) >= 10**40:  # Python writes no int of 4,300 digits
        return False
    return type(value) in ATOMS and len(str(value)[:60]) <= 40


def _box(node: Node[Any], ends: set[int], path: set[int], hidden: set[int]) -> view.Box:
    from tracegraph import view
    from tracegraph.details import arrived

    owner = node.parameter
    role: view.Role = "operation"
    if node.failure is not None:
        role = "failure"
    elif owner is not None:
        role = "parameter"
    elif node.id in ends:
        role = "output"
    elif node.is_leaf:
        role = "input"
    constants = [f"{name} = {said}" for name, said in _constants(node, hidden, 40).items()]
    value = node.failure.text() if node.failure is not None else node.preview
    said = () if owner is None or owner.kind.name != "code" else _provenance(node)
    apart = () if node.info.get("ran") is None else ("ran isolated",)
    return view.Box(
        key=node.id,
        title=node.label,
        lines=(
            *constants,
            str(node.failure) if node.failure is not None else value,
            *said,
            *apart,
        ),
        role=role,
        kind="" if owner is None else owner.kind.name,
        feedback="" if owner is None else arrived(owner),
        on_path=node.id in path,
        tooltip="\n".join(filter(None, (node.name, node.description, value))),
    )


def _provenance(node: Node[Any]) -> tuple[str, ...]:
    """Who wrote the code of this version and how it runs, where it was no person."""
    if node.info.get("origin", "person") == "person":
        return ()
    return (f"by an optimizer, {'trusted' if node.info.get('trusted') else 'isolated'}",)


def _constants(node: Node[Any], hidden: set[int], limit: int) -> dict[str, str]:
    """The inputs that are written into the box of `node`, by argument."""
    return {
        name: show(source._data, limit)
        for name, source in zip(node._names, node._inputs, strict=True)
        if source.id in hidden
    }


def _nodes(given: Any) -> list[Node[Any]]:
    """The nodes of a graph that one node or several stand for."""
    several = isinstance(given, Iterable) and not isinstance(given, (Node, str))
    found = list(given) if several else [given]
    for value in found:
        if not isinstance(value, Node):
            raise TypeError(
                f"a graph is cut at nodes, got {show(value, 80)}; pass what a recorded call returned, "
                "not its .data"
            )
    return [value._leaf() for value in found]


_by_id = attrgetter("id")
