"""Runs whose graph is needed, kept as soon as they end, so that only what was under way runs again.

A run is kept as data in the receipts of a step, and read back when the step is done again. What cannot be
read back runs again: above all graphs of tensors, whose gradients live in torch.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, MutableMapping
from dataclasses import astuple, dataclass
from typing import Any, final

from optimizers.base import Usage
from optimizers.places import Place
from tracegraph.errors import HistoryError
from tracegraph.graph import Graph
from tracegraph.history.at_hand import AtHand
from tracegraph.history.traces import trace_data, trace_of
from tracegraph.node import Node, leaf, next_id

__all__ = ["KeptRun", "KeptRuns"]


@dataclass(frozen=True, slots=True)
class KeptRun:
    """What a run came to: its output, and its evaluation where nobody judges it: it failed, or was late."""

    output: Any
    evaluation: Mapping[str, Any] | None = None


@final
class KeptRuns:
    """Keeps the runs of a batch, each under the place where it asked its models.

    Args:
        receipts: where they are kept; a dict on disk.
        hand: knows the objects of the program that cannot be written down.
    """

    def __init__(self, receipts: MutableMapping[str, Any], hand: AtHand) -> None:
        self._receipts, self._hand, self._since = receipts, hand, 0
        self._owners: dict[int, str] = {}
        self._told: set[str] = set()
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Begin a batch: what is recorded from now on belongs to its runs."""
        self._since, self._owners, self._told = next_id(), {}, set()

    def keep(self, place: Place, example: Any, run: KeptRun) -> None:
        """Keep a run that ended, if it can be read back; it is on disk when this returns.

        What is told of a run first holds: one that was given up as late may end all the same.
        """
        with self._lock:
            if place.name in self._told:
                return
            self._told.add(place.name)
        traced = isinstance(run.output, Node)
        output = run.output if traced else leaf(run.output)
        try:
            nodes = trace_data(output, self._hand, since=self._since, given=_given(example))
        except HistoryError:
            return
        if not self._alone(place.name, output):
            return
        told = json.dumps([nodes, traced, run.evaluation, list(astuple(place.usage))])
        self._receipts[_name(place.name)] = {"told": told, "sum": _sum(told)}

    def find(self, place: Place, example: Any) -> KeptRun | None:
        """The run that was kept here, paid as it was; ``None`` where it must be made."""
        kept = self._receipts.get(_name(place.name))
        if kept is None or kept["sum"] != _sum(kept["told"]):  # a secret was taken out of it
            return None
        nodes, traced, evaluation, paid = json.loads(kept["told"])
        try:
            output = trace_of(nodes, self._hand, given=_given(example))
        except HistoryError:
            return None
        place.recall(Usage(*paid))
        return KeptRun(output if traced else output.data, evaluation)

    def _alone(self, name: str, output: Node[Any]) -> bool:
        """Whether no other run of the batch has a node of this one; where one has, neither is kept."""
        ids = [n.id for n in Graph.of(output).nodes if n.parameter is None and n.id >= self._since]
        with self._lock:
            shared = {self._owners.setdefault(number, name) for number in ids} - {name}
        for other in shared:
            self._receipts.pop(_name(other), None)
        return not shared


def _given(example: Any) -> dict[str, Any]:
    """The example and its parts, by name: they are there again."""
    parts = enumerate(example) if isinstance(example, (tuple, list)) else ()
    return {"example": example, **{f"example[{at}]": part for at, part in parts}}


def _name(place: str) -> str:
    return f"{place}/kept"


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
