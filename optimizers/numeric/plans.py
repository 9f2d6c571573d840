"""What a step of a group found out about its tensors, kept for the next one.

Python's own time counts for many small tensors: a group that steps as it did last time, on the same
memory, is stepped without looking at each tensor in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import is_
from typing import Any, NamedTuple

from torch import Tensor

from optimizers.numeric.codecs.rounding import REST
from optimizers.numeric.executors.batch import Batch
from optimizers.numeric.members import local, real

__all__ = ["Done", "Part", "Plan", "parts_of", "place_of"]

PLANNED = ("auto", "foreach", "native", "triton")
"""The values of `backend=` whose executors keep addresses from step to step."""


class Done(NamedTuple):
    """A batch that was stepped: the places of its tensors in the group, and the executor's name."""

    batch: Batch
    places: list[int]
    executor: str


@dataclass(slots=True)
class Part:
    """Tensors of a group that one batch steps; `places` are theirs in the group, None where it is all."""

    batch: Batch
    kept: Callable[[], bool]
    """Whether the states hold what they held, where it lay."""
    places: list[int] | None = None

    def of(self, column: list[Tensor]) -> list[Tensor]:
        """What belongs to these tensors, of a list for all of the group."""
        return column if self.places is None else [column[i] for i in self.places]

    def holds(self, params: list[Tensor], grads: list[Tensor]) -> bool:
        """Whether states and memory are the same, and the gradients alike."""
        known = self.batch.addresses
        return known is not None and self.kept() and known.hold(self.of(params), self.of(grads))


@dataclass(slots=True)
class Plan:
    """The tensors of a group that stepped together, and the batches that stepped them."""

    params: list[Tensor]
    states: list[dict[str, Any]]
    parts: list[Part]
    first: int | None
    """Which of the optimizer's states is the first of these, where these are one behind the other."""

    def fits(
        self, params: list[Tensor], grads: list[Tensor], state: Mapping[Tensor, Any], backend: str
    ) -> bool:
        """Whether tensors, states and memory are the same, and the gradients alike."""
        if backend not in PLANNED or len(params) != len(self.params):
            return False
        return (
            all(map(is_, params, self.params))
            and all(map(is_, self._found(params, state), self.states))
            and all(part.holds(params, grads) for part in self.parts)
        )

    def _found(self, params: list[Tensor], state: Mapping[Tensor, Any]) -> Iterable[Any]:
        """The states of the tensors now; by their place, for a tensor's hash is a call of Python."""
        if self.first is None or len(state) < self.first + len(params):
            return map(state.__getitem__, params)
        return islice(state.values(), self.first, None)


def parts_of(
    done: Sequence[Done],
    params: Sequence[Tensor],
    states: Sequence[dict[str, Any]],
    numbers: Mapping[str, Sequence[Tensor]],
) -> list[Part]:
    """What can be kept of the batches that stepped `params`; their states hold `numbers` as well.

    Empty where it cannot be had of all.
    """
    parts: list[Part] = []
    for batch, places, _ in done:
        columns = {name: [column[i] for i in places] for name, column in numbers.items()}
        found = _part([params[i] for i in places], [states[i] for i in places], columns, batch)
        if found is None:
            return []
        if len(done) > 1:
            found.places = places
        parts.append(found)
    return parts


def _part(
    params: Sequence[Tensor],
    states: Sequence[dict[str, Any]],
    numbers: Mapping[str, Sequence[Tensor]],
    batch: Batch,
) -> Part | None:
    """What can be kept of a batch; None where its tensors are views of those that its optimizer has,
    or its executor has kept no addresses.
    """
    if batch.addresses is None:
        return None
    if not all(real(p) is p and local(p) is p and p.is_contiguous() for p in params):
        return None
    batch.grads, batch.rows = [], None  # theirs who own them; a plan must not keep them
    suffixes = batch.codec.suffixes
    names = [kind.name + suffix for kind in batch.rule.states for suffix in suffixes]
    if batch.rests:
        names.append(REST)
    columns = [*batch.stored, *map(list, numbers.values())]
    kept = batch.addresses.watch(list(states), [*names, *numbers], columns)
    return Part(batch, kept)


def place_of(states: Sequence[dict[str, Any]], among: Iterable[dict[str, Any]]) -> int | None:
    """The place of the first of some states, None where they do not follow it in order."""
    held = list(among)
    first = next(i for i, state in enumerate(held) if state is states[0])
    same = all(map(is_, held[first : first + len(states)], states))
    return first if same and first + len(states) <= len(held) else None
