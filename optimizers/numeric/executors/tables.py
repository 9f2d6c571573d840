"""Where tensors lie, as tables on the device that a kernel looks addresses up in."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from optimizers.numeric.codecs.codec import Codec
from optimizers.numeric.executors.batch import Batch
from optimizers.numeric.executors.device import beyond_graphs, captures, lent
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
"""Launches that are kept for tensors that are stepped again."""

SPARE = 16
"""Graphs that can be captured between two steps outside of graphs."""


def sent(held: Tensor, device: torch.device) -> Tensor:
    """Numbers of the host on `device`, without waiting for it."""
    pinned = held.pin_memory() if device.type == "cuda" else held
    return pinned.to(device, non_blocking=True)


def _tensor(numbers: array[int]) -> Tensor:
    """A tensor on the memory of `numbers`, which nobody reads one by one."""
    return torch.frombuffer(numbers, dtype=torch.int64)


class Launch(Glanced):
    """What a launch needs that stays from step to step, on the device."""

    __slots__ = (
        "aligned",
        "captured",
        "loaded",
        "piece_of",
        "pointed",
        "sizes_there",
        "spare",
        "table",
        "tensor_of",
    )

    def __init__(self, batch: Batch) -> None:
        super().__init__([batch.params, batch.grads, *batch.stored])
        device, count = batch.params[0].device, len(batch.params)
        numel = _tensor(self.sizes)
        how = cut(batch.codec)
        pieces = -(-numel // (how.block * how.chunks))
        tensor_of = torch.repeat_interleave(torch.arange(count, device="cpu"), pieces)
        starts = torch.repeat_interleave(pieces.cumsum(0) - pieces, pieces)
        piece_of = torch.arange(len(tensor_of), device="cpu") - starts
        columns = array("q", range(count) if batch.columns is None else batch.columns)
        self.table = sent(_tensor(self.pointers + columns), device).view(-1, count)
        self.pointed = self._gradients()
        self.sizes_there = sent(numel, device)
        self.tensor_of, self.piece_of = (sent(x.int(), device) for x in (tensor_of, piece_of))
        self.captured = self.aligned = False
        self.loaded: set[bool] = set()
        """Which kernels have run, by `aligned`: none can be loaded while a graph is captured."""
        self.spare: list[Tensor] = []
        """Memory of the host for addresses in graphs; none can be had while one is captured."""

    def _gradients(self) -> array[int]:
        return self.pointers[len(self.sizes) : 2 * len(self.sizes)]

    @classmethod
    def of(cls, batch: Batch) -> Launch:
        """The tables of the batch, which point at its gradients: its own, or those that were made
        for the same tensors before, or new ones.

        A step that a graph captures has them from before, and they are kept as long as the graph.

        Raises:
            RuntimeError: a graph captures a step on tensors that were not stepped before.
        """
        device = batch.params[0].device
        capturing = captures(device)
        found = batch.addresses
        if not isinstance(found, Launch):  # one that is there has looked at these gradients already
            batch.addresses = found = cls._kept(batch, capturing)
            found.pointers[len(batch.grads) : 2 * len(batch.grads)] = array(
                "q", map(Tensor.data_ptr, batch.grads)
            )
        found.aligned = found.lies_at_16()
        if capturing:
            if found.aligned not in found.loaded:  # what takes any address takes these as well
                found.aligned = False
            if found.aligned not in found.loaded:
                raise RuntimeError(
                    "a CUDA graph captures a step on gradients that lie at other than multiples of "
                    "16 bytes, and those of the steps before did not, so their kernel is not loaded; "
                    "call step() once with gradients as they lie now before the capture"
                )
            _CAPTURED.append((found, found.point()))
            return found
        found.loaded.add(found.aligned)
        found.follow()
        lent((found.table, found.sizes_there, found.tensor_of, found.piece_of), device)
        if batch.rows is not None and not found.spare:
            rows = torch.empty(SPARE, len(batch.grads), dtype=torch.int64, device="cpu")
            found.spare += (rows.pin_memory() if device.type == "cuda" else rows).unbind()
        return found

    @classmethod
    def _kept(cls, batch: Batch, capturing: bool) -> Launch:
        """The tables that were made for these tensors, or new ones where nothing is captured."""
        columns = [batch.params, *batch.stored]
        key = (
            batch.params[0].dtype,
            cut(batch.codec),
            tuple(batch.columns or ()),
            *(x.data_ptr() for column in columns for x in column),
            *map(Tensor.numel, batch.params),
        )
        found = _LAUNCHES.pop(key, None)
        if found is None and capturing:
            raise RuntimeError(
                "a CUDA graph captures a step on tensors that were not stepped before, for which "
                "there are no tables yet; call step() once or more before the capture"
            )
        found = found or beyond_graphs(lambda: cls(batch), batch.params[0].device)
        _LAUNCHES[key] = found  # behind all others
        if len(_LAUNCHES) > KEPT:
            _LAUNCHES.popitem(last=False)
        return found

    def lies_at_16(self) -> bool:
        """Whether all that it points at lies at multiples of 16 bytes."""
        return not np.bitwise_or.reduce(np.frombuffer(self.pointers, dtype=np.int64)) & 15

    def follow(self) -> None:
        """Point at the gradients, unless the table does, which a graph may have made point elsewhere."""
        now = self._gradients()
        if self.captured or now != self.pointed:
            self.table[1].copy_(sent(_tensor(now), self.table.device))
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
        held.copy_(_tensor(self._gradients()))
        self.table[1].copy_(held, non_blocking=True)
        self.captured = True
        return held


_LAUNCHES: OrderedDict[tuple[Any, ...], Launch] = OrderedDict()
"""What was made for tensors of late, by all of their addresses but those of gradients."""

_CAPTURED: list[tuple[Launch, Tensor]] = []
"""Tables and addresses that CUDA graphs refer to; a graph does not tell when it is gone."""
