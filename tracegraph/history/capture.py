"""A trace graph and the feedback on it as plain, bounded data, taken while they are true.

What stays the same from step to step (operations, names, arrows) is apart from what changes
(values, failures) and from what never comes again (times), so that a loop's graph is kept once.
Nodes are numbered within the graph.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tracegraph.feedback import Gradient, Score
from tracegraph.kinds import is_array, is_tensor, show
from tracegraph.node import Node
from tracegraph.parameter import Parameter

__all__ = ["Captured", "Spent", "capture", "cut", "feedback_on", "mean_score", "text_of"]

LARGEST = 5_000
"""How many nodes of one graph are kept; of a larger one, those nearest to the outputs."""

_VALUE = 200
_TEXT = 4_000
_DOC = 400


class Spent(NamedTuple):
    """What a call took; `began` is by `time.perf_counter`, or in seconds from when it was kept."""

    began: float | None
    seconds: float | None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class Captured:
    """A graph as data: `structure` is the same for every run of the same program."""

    structure: dict[str, Any]
    shown: dict[str, Any]
    spent: dict[int, Spent]
    """What the calls among the nodes took, by their numbers."""
    numbers: Mapping[int, int]
    """A node's number within the graph, by its id."""
    parameters: Mapping[str, Parameter[Any]]


def capture(outputs: Iterable[Node[Any]], *, limit: int = LARGEST) -> Captured:
    """The graph behind `outputs`, of at most `limit` nodes."""
    ends = [node._leaf() for node in outputs]
    nodes, more = _behind(ends, limit)
    numbers = {node.id: number for number, node in enumerate(nodes)}
    structure: list[list[Any]] = []
    values: list[str] = []
    shown: dict[str, Any] = {"values": values}
    documentation: dict[str, str] = {}
    spent: dict[int, Spent] = {}
    parameters: dict[str, Parameter[Any]] = {}
    for number, node in enumerate(nodes):
        extra = node._extra or {}
        operation = node._operation
        owner = extra.get("parameter")
        captured = extra.get("captured", ())
        structure.append([
            node.label,
            None if operation is None else operation.name,
            None if owner is None else owner.kind.name,
            [
                [numbers[source.id], name, 1] if name in captured else [numbers[source.id], name]
                for name, source in zip(node._names, node._inputs, strict=True)
                if source.id in numbers
            ],
        ])  # fmt: skip
        values.append(extra.get("preview") or show(node._data, _VALUE))
        if owner is not None:
            shown.setdefault("versions", {})[number] = extra.get("version")
            parameters[owner.label] = owner
        failure = extra.get("failure")
        if failure is not None:
            shown.setdefault("failures", {})[number] = cut(failure.text(), _TEXT)
        usage = extra.get("usage")
        if "seconds" in extra or usage is not None:
            spent[number] = _spent(extra, usage)
        if operation is not None and operation.doc and operation.name not in documentation:
            documentation[operation.name] = cut(operation.doc, _DOC)
    return Captured(
        {
            "nodes": structure,
            "outputs": [numbers[end.id] for end in ends if end.id in numbers],
            "documentation": documentation,
            "cut": more,
        },
        shown,
        spent,
        numbers,
        parameters,
    )


def _spent(extra: Mapping[str, Any], usage: Any) -> Spent:
    """What a node remembers of its call; of its questions to models, read by their attributes."""
    asked = [getattr(usage, name, None) for name in ("tokens_in", "tokens_out", "cost")]
    numbers = (extra.get("began"), extra.get("seconds"), *asked)
    return Spent(*(n if isinstance(n, (int, float)) else None for n in numbers))  # type: ignore[arg-type]


def _behind(ends: list[Node[Any]], limit: int) -> tuple[list[Node[Any]], bool]:
    """The nodes behind `ends`, in order, and whether there are more than `limit`."""
    known = {end.id: end for end in ends}
    heap = [-number for number in known]
    heapq.heapify(heap)
    taken: list[Node[Any]] = []
    while heap and len(taken) < limit:
        node = known[-heapq.heappop(heap)]
        taken.append(node)
        for source in node._inputs:
            if source.id not in known:
                known[source.id] = source
                heapq.heappush(heap, -source.id)
    taken.reverse()
    return taken, bool(heap)


def feedback_on(
    parameters: Mapping[str, Parameter[Any]], numbers: Mapping[int, int]
) -> list[dict[str, Any]]:
    """What arrived at `parameters`: each message once, with the number of its output."""
    entries: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, parameter in parameters.items():
        for kind, message in parameter.feedback.items():
            said = getattr(message, "outputs", None)
            if said is None:
                entry = {"kind": kind.__name__, "parameter": name, "text": text_of(message)}
                entries[name, kind] = entry
                continue
            for output, remarks in said.items():
                for weight, what in remarks:
                    text = f"{what:g}" if isinstance(message, Score) else text_of(what)
                    entries[output, kind, text] = {
                        "kind": kind.__name__,
                        "output": numbers.get(output),
                        "weight": weight,
                        "text": text,
                    }
    return list(entries.values())


def mean_score(parameters: Iterable[Parameter[Any]]) -> float | None:
    """The mean of the scores that arrived at `parameters`, or ``None``."""
    found = [p.feedback.get(Score) for p in parameters]
    scores = [score for score in found if score is not None]
    if not scores:
        return None
    merged = scores[0]
    for other in scores[1:]:
        merged = merged.merge(other)
    return float(merged.mean)


def text_of(what: Any) -> str:
    """Feedback as a text of bounded length; a gradient by its norm."""
    if isinstance(what, Gradient):
        what = what.value
    if is_tensor(what) or is_array(what):
        norm = float((what * what).sum()) ** 0.5
        return f"{show(what, 100)}, norm {norm:.6g}"
    return cut(what if isinstance(what, str) else str(what), 100_000)


def cut(text: str, limit: int) -> str:
    """`text`, at most about `limit` characters of it; says how many more there were."""
    return text if len(text) <= limit else f"{text[:limit]} (+{len(text) - limit:,} characters)"
