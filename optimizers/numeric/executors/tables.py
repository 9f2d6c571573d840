"""Where tensors lie, as tables on the device that a kernel looks addresses up in."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from optimizers.numeric.executors.batch import Addresses, Batch

__all__ = ["BLOCK", "Launch", "sent"]

BLOCK = 1024
"""Elements that a program of the kernel works on."""

KEPT = 64
"""Launches that are kept for steps that count on the device."""


@triton.jit
def _point(table, at, last, a, b, c, d):
    """Write the addresses of four tensors into the table; a captured launch writes them again."""
    tl.store(table + at, a.to(tl.int64))
    tl.store(table + tl.minimum(at + 1, last), b.to(tl.int64))
    tl.store(table + tl.minimum(at + 2, last), c.to(tl.int64))
    tl.store(table + tl.minimum(at + 3, last), d.to(tl.int64))


def sent(values: list[Any], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Host numbers on `device`, without waiting for it."""
    held = torch.tensor(values, dtype=dtype, device="cpu", pin_memory=device.type == "cuda")
    return held.to(device, non_blocking=True)


@dataclass(slots=True)
class Launch(Addresses):
    """What a launch needs that stays from step to step, on the device."""

    grads: list[int]
    table: Tensor
    sizes: Tensor
    tensor_of: Tensor
    chunk_of: Tensor

    @classmethod
    def of(cls, batch: Batch) -> Launch:
        """The tables for `batch`."""
        device = batch.params[0].device
        columns = [
            [x.data_ptr() for x in column] for column in (batch.params, batch.grads, *batch.stored)
        ]
        sizes = [p.numel() for p in batch.params]
        numel = torch.tensor(sizes, device="cpu")
        chunks = -(-numel // BLOCK)
        tensor_of = torch.repeat_interleave(torch.arange(len(sizes), device="cpu"), chunks).to(
            torch.int32
        )
        starts = torch.repeat_interleave(chunks.cumsum(0) - chunks, chunks)
        chunk_of = (torch.arange(len(tensor_of), device="cpu") - starts).to(torch.int32)
        held = (
            x.to(device) for x in (torch.tensor(columns, device="cpu"), numel, tensor_of, chunk_of)
        )
        pointers = [x for column in columns[2:] for x in column]
        return cls(columns[0], sizes, pointers, columns[1], *held)

    @classmethod
    def follows(cls, batch: Batch) -> Launch:
        """The tables that the batch keeps from its last step, or new ones, for these gradients."""
        found = batch.addresses
        if isinstance(found, Launch):
            found.follow(batch.grads)
            return found
        batch.addresses = found = cls.of(batch)
        return found

    @classmethod
    def captured(cls, batch: Batch) -> Launch:
        """The tables for a step that may be captured: made before it, kept as long as its graph.

        Raises:
            RuntimeError: a graph captures a step on tensors that were not stepped before.
        """
        columns = [batch.params, *batch.stored]
        key = (*(x.data_ptr() for c in columns for x in c), *(p.numel() for p in batch.params))
        capturing = batch.params[0].is_cuda and torch.cuda.is_current_stream_capturing()
        if capturing and key not in _LAUNCHES:
            raise RuntimeError(
                "a CUDA graph captures a step on tensors that were not stepped before, for which "
                "there are no tables yet; call step() once or more before the capture"
            )
        found = _LAUNCHES.get(key) or cls.of(batch)
        _LAUNCHES[key] = found
        _LAUNCHES.move_to_end(key)
        if len(_LAUNCHES) > KEPT:
            _LAUNCHES.popitem(last=False)
        if capturing:
            _CAPTURED.append(found)
        found.point(batch.grads)
        return found

    def follow(self, grads: list[Tensor]) -> None:
        """Point at these gradients."""
        now = [g.data_ptr() for g in grads]
        if now != self.grads:
            self.table[1].copy_(sent(now, torch.int64, self.table.device))
            self.grads = now

    def point(self, grads: list[Tensor]) -> None:
        """Point at these gradients by launches, so that a graph that captures them repeats it."""
        row, last = self.table[1], len(grads) - 1
        for at in range(0, len(grads), 4):
            four = [grads[min(at + k, last)] for k in range(4)]
            _point[(1,)](row, at, last, *four)


_LAUNCHES: OrderedDict[tuple[int, ...], Launch] = OrderedDict()
"""What was made for steps that count on the device, by all addresses but those of gradients."""

_CAPTURED: list[Launch] = []
"""Tables that CUDA graphs refer to; a graph does not tell when it is gone."""
