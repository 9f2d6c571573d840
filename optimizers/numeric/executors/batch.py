"""What an executor is given: tensors that take the same step by the same rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import is_, methodcaller
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from optimizers.numeric.codecs.codec import Codec
from optimizers.numeric.codecs.rounding import NEAREST, Rounding
from optimizers.numeric.rules.rule import Rule

__all__ = ["SHIFT", "Addresses", "Batch", "Executor", "Numbers", "seed_of"]

SHIFT = 20
"""Bits of a seed that tell the tensors of a group apart; the count of steps lies above them."""

Numbers = tuple[tuple[Any, ...], Any, Any]


@dataclass(slots=True)
class Addresses:
    """Where a batch's parameters and states lie in memory, kept for the next step."""

    params: list[int]
    numel: list[int]
    states: list[int]
    elements: int = field(init=False)
    """How many numbers the parameters hold together."""

    def __post_init__(self) -> None:
        self.elements = sum(self.numel)

    def hold(self, params: list[Tensor], grads: list[Tensor]) -> bool:
        """Whether `params` still lie there, and `grads` are contiguous tensors like them."""
        return (
            list(map(Tensor.data_ptr, params)) == self.params
            and list(map(Tensor.numel, params)) == self.numel
            and {g.layout for g in grads} == {torch.strided}
            and {(g.dtype, g.device) for g in grads} == {(p.dtype, p.device) for p in params[:1]}
            and [g.shape for g in grads] == [p.shape for p in params]
            and all(map(Tensor.is_contiguous, grads))
            and all(map(Tensor.is_contiguous, params))
        )

    def watch(
        self, dicts: list[dict[str, Any]], names: list[str], columns: list[list[Tensor]]
    ) -> Callable[[], bool]:
        """A question: whether `dicts` still hold, under each of `names`, the tensors of its column,
        and these lie where they lay.
        """
        lies = [list(map(Tensor.data_ptr, column)) for column in columns]
        return lambda: all(
            all(map(is_, map(methodcaller("get", name), dicts), column))
            and list(map(Tensor.data_ptr, column)) == places
            for name, column, places in zip(names, columns, lies, strict=True)
        )


@dataclass(slots=True)
class Batch:
    """Real tensors of one device and dtype, at the same step of the same param group.

    `states[k][part][i]` is the part of state `k` of tensor `i`. `scale` multiplies every gradient
    (-1 to maximize). `seed` feeds codecs that round at random. `rounding` says how parameters are
    rounded, which are bfloat16 then: `rests` is what was rounded away of each, `draw` feeds rounding
    at random.

    Where the host does not know these numbers, `rows` has them: float64, on the device, a row for
    each scalar, for the factor, for whether to step at all (1 or 0; always 1 unless `guarded`), for
    the step and for the count of roundings; a column for each tensor of the group, of which `columns`
    are those of these, None where it is all. `place` is then that of the first tensor among those of
    the group, which tensors' seeds differ by.
    """

    rule: Rule
    scalars: tuple[float, ...]
    codec: Codec
    params: list[Tensor]
    grads: list[Tensor]
    states: list[list[list[Tensor]]]
    scale: float = 1.0
    seed: int = 0
    rows: Tensor | None = None
    columns: Sequence[int] | None = None
    addresses: Addresses | None = None
    rounding: Rounding = NEAREST
    rests: list[Tensor] = field(default_factory=list)
    draw: int = 0
    guarded: bool = False
    place: int = 0

    @property
    def elements(self) -> int:
        """How many numbers the batch updates."""
        held = self.addresses
        return sum(map(Tensor.numel, self.params)) if held is None else held.elements

    @property
    def stored(self) -> list[list[Tensor]]:
        """What lies beside the parameters, in columns: the parts of states, then the rests."""
        parts = [part for state in self.states for part in state]
        return [*parts, self.rests] if self.rests else parts

    def numbers(self, i: int, dtype: torch.dtype) -> Numbers:
        """The scalars, the factor of the gradient and the seed of tensor `i`."""
        if self.rows is None:
            return self.scalars, self.scale, self.seed + i
        *scalars, scale, _, step, _ = self._of(i)
        seed = seed_of(step, self.place + i)
        return tuple(x.to(dtype) for x in scalars), scale.to(dtype), seed

    def draw_of(self, i: int) -> Any:
        """What feeds the rounding of parameter `i` at random: no seed that a codec uses."""
        draw = self.draw if self.rows is None else seed_of(self._of(i)[-1], self.place)
        return ~(draw + i)

    def goes(self, i: int) -> Tensor | None:
        """Whether tensor `i` is to step, where only the device knows."""
        return self._of(i)[-3] != 0 if self.guarded and self.rows is not None else None

    def _of(self, i: int) -> tuple[Tensor, ...]:
        """The numbers of tensor `i` on the device."""
        assert self.rows is not None
        return self.rows[:, i if self.columns is None else self.columns[i]].unbind()


def seed_of(count: Any, place: int = 0) -> Any:
    """What feeds random rounding at a step, a number or a tensor, of the tensor at `place`."""
    return ((count if isinstance(count, int) else count.to(torch.int64)) << SHIFT) + place


class Executor(Protocol):
    """Runs batches in place."""

    name: ClassVar[str]
    complete: ClassVar[bool] = False
    """Whether it rounds parameters and leaves tensors alone itself, as a batch says."""

    def takes(self, batch: Batch) -> bool:
        """Whether this executor can run the batch."""
        ...

    def run(self, batch: Batch) -> None:
        """Do the step."""
        ...
