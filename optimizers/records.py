"""What happened around one parameter: each operation that used it, and what was said of the outcome.

Credit goes by the identity of nodes: two operations of the same name and signature with two
parameters never share a record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tracegraph.feedback import Score
from tracegraph.graph import Graph
from tracegraph.kinds import show
from tracegraph.node import Node
from tracegraph.parameter import Parameter

__all__ = ["Record", "records_of", "said_of", "score_of"]


@dataclass(frozen=True, slots=True)
class Record:
    """One use of a parameter: the other inputs, what came out, and what was said of the end result.

    `example` is the same for two runs on the same example: a hash of all that was given to the run,
    parameters apart.
    """

    operation: str
    inputs: tuple[tuple[str, str], ...]
    output: str
    remarks: tuple[str, ...]
    score: float | None = None
    node: Node[Any] | None = None
    example: str = ""

    def __str__(self) -> str:
        given = "\n".join(f"{name} = {value}" for name, value in self.inputs)
        said = "\n".join(self.remarks) or f"score {self.score:g}"
        return f"{given}\n{self.operation} gave: {self.output}\nfeedback: {said}"


def records_of(parameter: Parameter[Any], room: int = 1_000) -> list[Record]:
    """The records of the feedback that has arrived at a parameter, output by output.

    Args:
        parameter: it has received feedback.
        room: how many characters each value may take.
    """
    arrived = parameter.feedback
    said = said_of(parameter)
    found = []
    for number, output in sorted(arrived.outputs.items()):
        if number not in said:
            continue
        remarks, score = said[number]
        graph = Graph.of(output)
        example = _example(graph)
        for node in graph.between([parameter]).nodes:
            if not any(source.parameter is parameter for source in node._inputs):
                continue
            inputs = tuple(
                (name, show(source._data, room))
                for name, source in zip(node._names, node._inputs, strict=True)
                if source.parameter is not parameter
            )
            made = node.failure.text() if node.failure is not None else show(node._data, room)
            found.append(Record(node.op or "", inputs, made, remarks, score, node, example))
    return found


def _example(graph: Graph) -> str:
    """A hash of the values that were given to a run."""
    given = [show(n._data, 2_000) for n in graph.nodes if n.is_leaf and n.parameter is None]
    return hashlib.sha256("\n".join(given).encode("utf-8", "replace")).hexdigest()[:16]


def score_of(parameters: Iterable[Parameter[Any]]) -> float | None:
    """The mean score that has arrived at some parameters, each output once; None without one."""
    whole: Score | None = None
    for parameter in parameters:
        score = parameter.feedback.get(Score)
        if score is not None:
            whole = score if whole is None else whole.merge(score)
    return None if whole is None else float(whole.mean)


def said_of(parameter: Parameter[Any]) -> dict[int, tuple[tuple[str, ...], float | None]]:
    """What was said in words of each output, by its id, and its score."""
    remarks: dict[int, dict[str, None]] = {}
    scores: dict[int, float] = {}
    for message in parameter.feedback.values():
        for output, said in getattr(message, "outputs", {}).items():
            for _, one in said:
                if isinstance(message, Score):
                    scores[output] = float(one)
                else:
                    remarks.setdefault(output, {})[str(one)] = None
    return {
        output: (tuple(remarks.get(output, ())), scores.get(output))
        for output in remarks.keys() | scores.keys()
    }
