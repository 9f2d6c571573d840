"""Where tensors lie, as tables on the device that a kernel looks addresses up in."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from optimizers.numeric.codecs.codec import Codec
from optimizers.numeric.executors.batch import Batch
from optimizers.numeric.executors.device import beyond_graphs, captures
from optimizers.numeric.executors.glance import Glanced

__all__ = ["Cut", "Launch", "cut", "sent"]


class Cut(NamedTuple):
    """How tensors are cut: `block` elements are a chunk, so many `chunks` are what a program works on."""

    block: int
    chunks: int
    warps: int
    registers: int | None = None
    """At most so many a thread, so that more threads run at once."""


def cut(codec: Codec) -> Cut:
    """The cut for what state is stored as: what was fastest on an H100.

    Codes are computed with for longer than they are moved. Small chunks leave registers for more
    warps; several of them share what a program does once.
    """
    return Cut(1024, 1, 4) if len(codec.suffixes) == 1 else Cut(256, 8, 1, 64)


KEPT = 64
"""Launches that are kept for steps that count on the device."""

SPARE = 16
"""Graphs that can be captured between two steps outside of graphs."""


def sent(values: Sequence[Any], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Host numbers on `device`, without waiting for it."""
    held = torch.tensor(values, dtype=dtype, device="cpu", pin_memory=device.type == "cuda")
    return held.to(device, non_blocking=True)


class Launch(Glanced):
    """What a launch needs that stays from step to step, on the device."""

    __slots__ = ("piece_of", "pointed", "sizes_there", "spare", "table", "tensor_of")

    def __init__(self, batch: Batch) -> None:
        super().__init__([batch.params, batch.grads, *batch.stored])
        device, count = batch.params[0].device, len(batch.params)
        numel = torch.tensor(self.sizes, device="cpu")
        how = cut(batch.codec)
        pieces = -(-numel // (how.block * how.chunks))
        tensor_of = torch.repeat_interleave(torch.arange(count, device="cpu"), pieces)
        starts = torch.repeat_interleave(pieces.cumsum(0) - pieces, pieces)
        piece_of = torch.arange(len(tensor_of), device="cpu") - starts
        self.table = torch.tensor(self.pointers, device="cpu").view(-1, count).to(device)
        self.pointed = self._gradients()
        self.sizes_there = numel.to(device)
        self.tensor_of, self.piece_of = (x.to(device, torch.int32) for x in (tensor_of, piece_of))
        self.spare: list[Tensor] = []
        """Memory of the host for addresses in graphs; none can be had while one is captured."""

    def _gradients(self) -> array[int]:
        return self.pointers[len(self.sizes) : 2 * len(self.sizes)]

    @classmethod
    def follows(cls, batch: Batch) -> Launch:
        """The tables that the batch keeps from its last step, or new ones, for these gradients."""
        found = batch.addresses
        if isinstance(found, Launch):  # it has looked at these gradients already
            found.follow()
            return found
        batch.addresses = found = cls(batch)
        return found

    @classmethod
    def captured(cls, batch: Batch) -> Launch:
        """The tables for a step that may be captured: made before it, kept as long as its graph.

        Raises:
            RuntimeError: a graph captures a step on tensors that were not stepped before.
        """
        capturing = captures(batch.params[0].device)
        found = batch.addresses
        if not isinstance(found, Launch):  # one that is there has looked at these gradients already
            batch.addresses = found = cls._kept(batch, capturing)
            found.pointers[len(batch.grads) : 2 * len(batch.grads)] = array(
                "q", map(Tensor.data_ptr, batch.grads)
            )
        if capturing:
            _CAPTURED.append((found, found.point()))
        else:
            found.follow(anew=True)
            if not found.spare:
                rows = torch.empty(SPARE, len(batch.grads), dtype=torch.int64, device="cpu")
                found.spare += (rows.pin_memory() if batch.params[0].is_cuda else rows).unbind()
        return found

    @classmethod
    def _kept(cls, batch: Batch, capturing: bool) -> Launch:
        """The tables that were made for these tensors, or new ones where nothing is captured."""
        columns = [batch.params, *batch.stored]
        key = (*(x.data_ptr() for c in columns for x in c), *(p.numel() for p in batch.params))
        if capturing and key not in _LAUNCHES:
            raise RuntimeError(
                "a CUDA graph captures a step on tensors that were not stepped before, for which "
                "there are no tables yet; call step() once or more before the capture"
            )
        found = _LAUNCHES.get(key) or beyond_graphs(lambda: cls(batch))
        _LAUNCHES[key] = found
        _LAUNCHES.move_to_end(key)
        if len(_LAUNCHES) > KEPT:
            _LAUNCHES.popitem(last=False)
        return found

    def aligned(self) -> bool:
        """Whether the gradients that it has looked at lie at multiples of 16 bytes."""
        return not (np.frombuffer(self._gradients(), dtype=np.int64) & 15).any()

    def follow(self, *, anew: bool = False) -> None:
        """Point at the gradients; `anew` where a graph may have pointed elsewhere since."""
        now = self._gradients()
        if anew or now != self.pointed:
            self.table[1].copy_(sent(now, torch.int64, self.table.device))
            self.pointed = now

    def point(self) -> Tensor:
        """Point at the gradients in the graph that is being captured.

        The graph reads the addresses on the host whenever it is replayed, from the memory that is
        returned: nobody else may write there.
        """
        if not self.spare:
            raise RuntimeError(
                f"{SPARE} CUDA graphs have captured steps of these tensors since the last step "
                "outside of a graph, which makes room for more; call step() once before the capture"
            )
        held = self.spare.pop()
        held.copy_(torch.tensor(self._gradients(), device="cpu"))
        self.table[1].copy_(held, non_blocking=True)
        return held


_LAUNCHES: OrderedDict[tuple[int, ...], Launch] = OrderedDict()
"""What was made for steps that count on the device, by all addresses but those of gradients."""

_CAPTURED: list[tuple[Launch, Tensor]] = []
"""Tables and addresses that CUDA graphs refer to; a graph does not tell when it is gone."""
