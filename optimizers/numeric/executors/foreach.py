"""A rule run over lists of tensors by torch's multi-tensor operations, in place.

On a CPU the tensors are taken in portions that fit into its cache, a large one in pieces: every
operation but the first then finds its operands there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.codecs.codec import computing_dtype
from optimizers.numeric.executors.batch import Addresses, Batch, Executor
from optimizers.numeric.executors.plan import FRESH, Plan, planned

__all__ = ["Foreach"]

PORTION = 1 << 18
"""Elements that are taken at a time on a CPU."""

Column = list[Tensor]


def _rsub(a: Column, b: Any) -> None:
    torch._foreach_neg_(a)
    torch._foreach_add_(a, b)


def _rdiv(a: Column, b: Any) -> None:
    torch._foreach_reciprocal_(a)
    torch._foreach_mul_(a, b)


def _lerp_product(x: Column, y: Column, z: Column, a: float) -> None:
    torch._foreach_mul_(x, 1 - a)
    torch._foreach_addcmul_(x, y, z, value=a)


IN_PLACE: dict[str, Any] = {
    "add": torch._foreach_add_,
    "sub": torch._foreach_sub_,
    "mul": torch._foreach_mul_,
    "div": torch._foreach_div_,
    "rsub": _rsub,
    "rdiv": _rdiv,
    "neg": torch._foreach_neg_,
    "sqrt": torch._foreach_sqrt_,
    "absolute": torch._foreach_abs_,
    "sign": torch._foreach_sign_,
    "maximum": torch._foreach_clamp_min_,
    "minimum": torch._foreach_clamp_max_,
    "axpy": lambda x, y, a: torch._foreach_add_(x, y, alpha=a),
    "lerp": torch._foreach_lerp_,
    "lerp_product": _lerp_product,
    "addcmul": lambda x, y, z, a: torch._foreach_addcmul_(x, y, z, value=a),
    "addcdiv": lambda x, y, z, a: torch._foreach_addcdiv_(x, y, z, value=a),
}
"""What a call of a plan does to its first list."""


class Foreach(Executor):
    """All tensors of a batch at once, one torch call per operation."""

    name: ClassVar[str] = "foreach"

    @override
    def takes(self, batch: Batch) -> bool:
        if batch.rows is not None or any(parts[1:] for parts in batch.states):
            return False  # lists that torch writes to hold no tensor whose memory is its opposite
        return batch.addresses is not None or not any(map(Tensor.is_neg, batch.params))

    @override
    def run(self, batch: Batch) -> None:
        if not batch.params:
            return
        dtype = computing_dtype(batch.params[0].dtype)
        own = batch.scale != 1.0 or any(g.dtype != dtype for g in batch.grads)
        plan = planned(batch.rule, len(batch.scalars), own_gradient=own)
        known = batch.addresses if isinstance(batch.addresses, _Known) else _Known.of(batch, dtype)
        for columns, first in _portions(batch):
            known.scratch.begin(columns[0])
            _step(plan, batch, columns, known.scratch, own=own, first=first)
        if known.small:
            batch.addresses = known


def _step(
    plan: Plan,
    batch: Batch,
    columns: list[Column],
    scratch: _Scratch,
    *,
    own: bool,
    first: int,
) -> None:
    """Run the plan on one portion, whose first tensor is number `first` of the batch."""
    at = dict(enumerate(columns))
    for place, column in enumerate(columns):
        if (own and place == 1) or any(x.dtype != scratch.dtype for x in column):
            at[place] = scratch.like()
            torch._foreach_copy_(at[place], column)
    if batch.scale != 1.0:
        torch._foreach_mul_(at[1], batch.scale)
    at |= {place: scratch.like() for place in plan.scratch}
    for call in plan.calls:
        args = [at[x] if isinstance(x, int) else x.of(batch.scalars) for x in call.args]
        if call.op in FRESH:
            at[call.out] = _each(getattr(torch, call.op), args)
            continue
        if call.copied is not None:
            torch._foreach_copy_(at[call.out], at[call.copied])
        IN_PLACE[call.op](*args)
    for source, target in plan.moves:
        torch._foreach_copy_(at[target], at[source])
    for k in plan.changed:
        held, value = columns[2 + k], at[2 + k]
        if value is not held and batch.codec.name == "bf16-stochastic":
            for i, (x, part) in enumerate(zip(value, held, strict=True), first):
                batch.codec.encode(x, (part,), batch.rule.states[k], seed=batch.seed + i)
        elif value is not held:
            torch._foreach_copy_(held, value)
    if at[0] is not columns[0]:
        torch._foreach_copy_(columns[0], at[0])


def _each(op: Any, args: list[Any]) -> Column:
    count = next(len(x) for x in args if isinstance(x, list))
    rows = (x if isinstance(x, list) else [x] * count for x in args)
    return [op(*row) for row in zip(*rows, strict=True)]


class _Scratch:
    """Lists of tensors to write to, shaped as a portion's; the next portion uses the same memory."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._memory: list[Tensor] = []
        self._lists: list[Column] = []
        self._shapes: list[torch.Size] = []
        self._used = 0

    def begin(self, like: Column) -> None:
        """Take the shapes of `like`, and take back every list that was given."""
        self._used = 0
        shapes = [x.shape for x in like]
        if shapes != self._shapes:  # pieces of one tensor, or tensors of one size, share lists
            self._lists.clear()
            self._shapes = shapes
        self._sizes = [x.numel() for x in like]
        self._device = like[0].device

    def like(self) -> Column:
        """A list of tensors that hold anything."""
        self._used += 1
        if self._used <= len(self._lists):
            return self._lists[self._used - 1]
        if self._used > len(self._memory):
            self._memory.append(torch.empty(0, dtype=self.dtype, device=self._device))
        total, k = sum(self._sizes), self._used - 1
        if self._memory[k].numel() < total:
            self._memory[k] = torch.empty(total, dtype=self.dtype, device=self._device)
        pieces = torch.split(self._memory[k][:total], self._sizes)
        self._lists.append([x.view(s) for x, s in zip(pieces, self._shapes, strict=True)])
        return self._lists[k]


@dataclass(slots=True)
class _Known(Addresses):
    """What few elements on a CPU keep for the next step: where they lie, and the scratch."""

    scratch: _Scratch
    small: bool

    @classmethod
    def of(cls, batch: Batch, dtype: torch.dtype) -> _Known:
        sizes = [p.numel() for p in batch.params]
        small = batch.params[0].device.type == "cpu" and sum(sizes) <= PORTION
        places = [p.data_ptr() for p in batch.params] if small else []
        return cls(places, sizes, [], _Scratch(dtype), small)


def _portions(batch: Batch) -> Iterator[tuple[list[Column], int]]:
    """The parameters, gradients and states in portions, and the number of the first tensor."""
    columns = [batch.params, batch.grads, *(state[0] for state in batch.states)]
    if batch.params[0].device.type != "cpu" or batch.elements <= PORTION:
        yield columns, 0
        return
    start, size = 0, 0
    for i, p in enumerate(batch.params):
        whole = batch.codec.name == "bf16-stochastic"  # its bits go by the place in a tensor
        row = [column[i] for column in columns]
        if p.numel() > PORTION and not whole and all(map(Tensor.is_contiguous, row)):
            if i > start:
                yield [column[start:i] for column in columns], start
            for pieces in zip(*(torch.split(x.view(-1), PORTION) for x in row), strict=True):
                yield [[x] for x in pieces], i
            start, size = i + 1, 0
            continue
        size += p.numel()
        if size > PORTION:
            yield [column[start : i + 1] for column in columns], start
            start, size = i + 1, 0
    if start < len(batch.params):
        yield [column[start:] for column in columns], start
