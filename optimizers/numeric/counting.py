"""Step numbers, which are counted by one addition while the tensors of a group step together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import is_, methodcaller
from typing import Any

import torch
from torch import Tensor

from optimizers.numeric.members import in_memory

__all__ = ["Cohort", "Column", "StepCounts", "in_a_row", "read", "row_of", "shared"]


@dataclass(slots=True)
class Cohort:
    """Tensors of a group whose step numbers are views of one tensor and equal."""

    params: list[Tensor]
    held: list[Tensor]
    steps: Tensor
    t: int

    def of(self, params: list[Tensor]) -> bool:
        """Whether these are its tensors, in order."""
        return len(params) == len(self.params) and all(map(is_, params, self.params))


@dataclass(slots=True)
class StepCounts:
    """Adds one to the ``step`` of states; remembers which of them are views of one tensor."""

    cohorts: dict[int, Cohort] = field(default_factory=dict)

    def advance(
        self, k: int, params: list[Tensor], states: list[dict[str, Any]], *, fresh: bool
    ) -> Sequence[int]:
        """Add one to the step numbers of tensors of group `k`, and return them.

        `fresh` says that none of them has stepped before.
        """
        if not in_memory([states[0]["step"]]):  # a fake counts nothing: every step is the first
            return [1] * len(params)
        base = states[0]["step"]._base
        if fresh and base is not None and base.numel() == len(params) and not base.any():
            self.cohorts[k] = Cohort(params, [state["step"] for state in states], base, 0)
        t = self.together(k, params, states)
        if t is not None:
            return [t] * len(params)
        for state in states:
            state["step"] += 1
        numbers = [int(state["step"]) for state in states]
        if len(set(numbers)) == 1 and all(state["step"].device.type == "cpu" for state in states):
            row, held = in_a_row(states, "step")  # loaded, or a gradient was missing for a while
            self.cohorts[k] = Cohort(params, held, row, numbers[0])
        return numbers

    def together(self, k: int, params: list[Tensor], states: list[dict[str, Any]]) -> int | None:
        """The next step number of tensors that are known to step together, None for others."""
        cohort = self.cohort(k, params)
        if cohort is not None and all(
            map(is_, map(methodcaller("get", "step"), states), cohort.held)
        ):
            return self.again(k)
        self.cohorts.pop(k, None)
        return None

    def cohort(self, k: int, params: list[Tensor]) -> Cohort | None:
        """Those that step together in group `k`, where they are `params`."""
        found = self.cohorts.get(k)
        return found if found is not None and found.of(params) else None

    def again(self, k: int) -> int | None:
        """The next step number of group `k`, None where others have written to its numbers.

        Its states must hold what they held.
        """
        cohort = self.cohorts[k]
        if bool((cohort.steps == cohort.t).all()):
            cohort.t += 1
            cohort.steps += 1
            return cohort.t
        del self.cohorts[k]
        return None

    def take_back(self, k: int) -> None:
        """Undo what `together` has counted for group `k`."""
        self.cohorts[k].t -= 1
        self.cohorts[k].steps -= 1

    def clear(self) -> None:
        """Forget who steps together; it is found again."""
        self.cohorts.clear()


def read(number: Tensor, otherwise: float) -> float:
    """The number in a tensor; `otherwise` where it has none, for it is a fake or on `meta`."""
    bare = number.is_meta or hasattr(number, "fake_mode")
    return otherwise if bare else number.item()


def in_a_row(states: Sequence[dict[str, Any]], name: str) -> tuple[Tensor, list[Tensor]]:
    """Make the numbers `name` of some states views of one tensor; returns it and them."""
    parts = [state[name] for state in states]
    base = row_of(parts)
    if base is None:
        base = torch.stack(parts)
        parts = list(base.unbind())
        for state, part in zip(states, parts, strict=True):
            state[name] = part
    return base, parts


def row_of(parts: Sequence[Tensor]) -> Tensor | None:
    """The tensor whose elements `parts` are, one after the other and none left out; None elsewhere."""
    base = parts[0]._base
    if base is None or base.numel() != len(parts):
        return None
    same = all(x._base is base and x.storage_offset() == i for i, x in enumerate(parts))
    return base if same else None


@dataclass(slots=True)
class Column:
    """A number of each of some tensors, on their device; the host reads none."""

    held: list[Tensor] = field(default_factory=list)
    row: Tensor | None = None
    """All of them, where they are the elements of one tensor: one call then changes all."""

    def all(self) -> Tensor:
        """The numbers as one tensor."""
        return torch.stack(self.held) if self.row is None else self.row

    def add(self, one: Any) -> None:
        """Add `one`, a whole number or a tensor of one, to each."""
        if self.row is not None:
            self.row.add_(one)
        elif isinstance(one, Tensor):
            # lists, which the host never reads; alike, so one call adds all
            torch._foreach_add_(self.held, [one.to(self.held[0])] * len(self.held))
        else:
            torch._foreach_add_(self.held, one)

    def take(self, numbers: Tensor) -> None:
        """Become `numbers`."""
        if self.row is not None:
            self.row.copy_(numbers)
        else:
            torch._foreach_copy_(self.held, list(numbers.unbind()))


def shared(row: Tensor) -> float | None:
    """The number that all elements of `row` are, None where they differ.

    >>> shared(torch.tensor([2.0, 2.0])), shared(torch.tensor([2.0, 3.0]))
    (2.0, None)
    """
    low, high = torch.aminmax(row)
    return low.item() if bool(low == high) else None
