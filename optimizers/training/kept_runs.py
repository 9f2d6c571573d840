"""Runs whose graph is needed, kept as soon as they end, so that only what was under way runs again.

A run is kept as data in the receipts of a step, its tensors in a file beside it, and read back when the step
is done again. What cannot be read back runs again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import astuple, dataclass
from typing import Any, Final, final

from optimizers.base import Usage
from optimizers.places import Place
from optimizers.training.chance import Chance
from optimizers.training.guide import Verdict
from optimizers.training.kept_tensors import KeptTensors
from optimizers.training.verdicts import digest, packed, unpacked
from tracegraph.errors import HistoryError, MissingExtra
from tracegraph.forking import new_lock
from tracegraph.graph import Graph
from tracegraph.history.at_hand import AtHand
from tracegraph.history.recomputed import is_followed
from tracegraph.history.traces import trace_data, trace_of
from tracegraph.history.values import pack, unpack
from tracegraph.kinds import is_tensor
from tracegraph.llm import Reply, Request
from tracegraph.llm.keeping import keeping
from tracegraph.lowering import unwrap
from tracegraph.node import Node, leaf, next_id

__all__ = ["KeptRun", "KeptRuns"]

_MOST: Final = 64 << 20
"""The most characters of a run that is kept; of its tensors as many bytes, see `trace_data`."""


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
        tensors: keeps the tensors and arrays of runs; without it runs that have any are not kept.
    """

    def __init__(
        self,
        receipts: MutableMapping[str, Any],
        hand: AtHand,
        tensors: KeptTensors | None = None,
    ) -> None:
        self._receipts, self._hand, self._since = receipts, hand, 0
        self._tensors = tensors
        self._chance: Chance | None = None
        self._owners: dict[int, str] = {}
        self._told: set[str] = set()
        self._mixed: set[str] = set()
        self._lock = new_lock()

    def begin(self, *, draws: bool = False) -> None:
        """Begin a batch: what is recorded from now on belongs to its runs.

        Args:
            draws: whether it matters to what comes later which random numbers the runs draw.
        """
        self._since, self._owners = next_id(), {}
        self._told, self._mixed = set(), set()
        self._chance = Chance() if draws else None

    def keep(self, place: Place, example: Any, run: KeptRun, *, graph: bool = True) -> None:
        """Keep a run that ended, if it can be read back; it is on disk when this returns.

        What is told of a run first holds: one that was given up as late may end all the same.

        Args:
            place: where it asked its models.
            example: what it was given.
            run: what it came to.
            graph: whether feedback will go back through it; else the output's value is enough.
        """
        with self._lock:
            if place.name in self._told:
                return
            self._told.add(place.name)
        traced = isinstance(run.output, Node)
        output = run.output if traced and graph else leaf(_apart(unwrap(run.output)))
        tensors: dict[str, Any] = {}
        try:
            nodes = trace_data(
                output, self._hand, since=self._since, given=_given(example),
                tensors=None if self._tensors is None else tensors,
            )  # fmt: skip
            if not self._alone(place.name, output):
                return
        except (HistoryError, MissingExtra):
            return
        paid = list(astuple(place.usage))
        self._write(_name(place.name), [nodes, traced, run.evaluation, paid], tensors)
        if place.name in self._mixed:  # since another run ended
            self._receipts.pop(_name(place.name), None)

    def find(self, place: Place, example: Any) -> KeptRun | None:
        """The run that was kept here, paid as it was; ``None`` where it must be made, from now on."""
        found = self._found(place, example)
        if found is None and self._chance is not None:
            self._chance.begin()
        return found

    def _found(self, place: Place, example: Any) -> KeptRun | None:
        found = self._read(_name(place.name))
        if found is None:
            return None
        (nodes, traced, evaluation, paid), moved, tensors = found
        try:
            with self._drawing_nothing(), keeping(_Recalled(Place(place.name, self._receipts))):
                output = trace_of(nodes, self._hand, given=_given(example), tensors=tensors)
        except (HistoryError, MissingExtra):
            return None
        self._go_on(moved)
        place.recall(Usage(*paid))
        return KeptRun(output if traced else output.data, evaluation)

    def keep_verdict(self, place: Place, output: Any, verdict: Verdict) -> None:
        """Keep what was said of an output, if it can be read back.

        Of what torch follows nothing is kept: whoever judges may have let it go back through torch.
        """
        tensors: dict[str, Any] = {}
        data = None if is_followed(output) else packed(verdict, tensors)
        name = None if data is None else digest(output)
        if name is not None:
            paid = list(astuple(place.usage))
            self._write(f"{place.name}/{name}", [data, paid], tensors)

    def find_verdict(self, place: Place, output: Any) -> Verdict | None:
        """What was said of this very output before."""
        name = digest(output)
        found = None if name is None else self._read(f"{place.name}/{name}")
        if found is None:
            return None
        (data, paid), moved, tensors = found
        self._go_on(moved)
        place.recall(Usage(*paid))
        return unpacked(data, tensors)

    def _write(self, name: str, data: list[Any], tensors: dict[str, Any]) -> None:
        """Write what happened, and which random numbers were drawn meanwhile."""
        drawn = {} if self._chance is None else self._chance.moved()
        try:
            moved = pack(drawn, tensors)
            mark = "" if self._tensors is None else self._tensors.keep(name, tensors)
        except (HistoryError, MissingExtra):
            return
        told = json.dumps([data, moved, mark])
        if len(told) <= _MOST and (mark or not tensors):
            self._receipts[name] = {"told": told, "sum": _sum(told)}

    def _read(self, name: str) -> tuple[list[Any], dict[str, Any], dict[str, Any]] | None:
        """What was written, the random numbers, and the tensors."""
        kept = self._receipts.get(name)
        if kept is None or kept["sum"] != _sum(kept["told"]):  # a secret was taken out of it
            return None
        data, moved, mark = json.loads(kept["told"])
        try:
            tensors = {} if self._tensors is None else self._tensors.find(name, mark)
            return data, unpack(moved, tensors), tensors
        except (HistoryError, MissingExtra):
            return None

    def _drawing_nothing(self) -> AbstractContextManager[None]:
        """A block after which random numbers are as before; what is called again in it may draw some."""
        return nullcontext() if self._chance is None else self._chance.untouched()

    def _go_on(self, moved: dict[str, Any]) -> None:
        if self._chance is not None:
            self._chance.go_on(moved)

    def _alone(self, name: str, output: Node[Any]) -> bool:
        """Whether no other run of the batch has a node of this one; where one has, neither is kept."""
        ids = [n.id for n in Graph.of(output).nodes if n.parameter is None and n.id >= self._since]
        with self._lock:
            shared = {self._owners.setdefault(number, name) for number in ids} - {name}
            self._mixed |= shared
        for other in shared:
            self._receipts.pop(_name(other), None)
        return not shared


class _Recalled:
    """Gives what models replied to a run, and lets nobody be asked: what was kept is paid."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def find(self, request: Request, model: str) -> Reply:
        reply = self._place.find(request, model)
        if reply is None:
            raise HistoryError(f"{model} would be asked again")
        return reply

    def keep(self, request: Request, model: str, reply: Reply) -> None:
        """Nothing is new."""

    def part(self, name: str) -> _Recalled:
        return _Recalled(self._place.part(name))


def _apart(value: Any) -> Any:
    """A value without the record that torch has of its tensors."""
    kind = type(value)
    if is_tensor(value):
        return value.detach()
    if kind is dict:
        return {key: _apart(item) for key, item in value.items()}
    return kind(map(_apart, value)) if kind is list or kind is tuple else value


def _given(example: Any) -> dict[str, Any]:
    """The example and its parts, by name: they are there again."""
    parts = enumerate(example) if isinstance(example, (tuple, list)) else ()
    return {"example": example, **{f"example[{at}]": part for at, part in parts}}


def _name(place: str) -> str:
    return f"{place}/kept"


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
