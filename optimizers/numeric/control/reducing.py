"""Gradients that stay with one process each (ZeRO stage 2, Rajbhandari et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakMethod

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Reducer", "rank_in_world"]


def rank_in_world(group: dist.ProcessGroup | None, rank: int) -> int:
    """A rank of `group` as `torch.distributed` counts it over all processes."""
    return rank if group is None else dist.get_global_rank(group, rank)


class Reducer:
    """Sends every gradient to its owner as soon as backward has it, and drops it elsewhere.

    Processes send in one order, the last tensor first, whatever order their passes have, so they
    never wait for different ones; at the end of a pass zeros are sent for tensors that it left out.
    Every process must do as many backward passes as the others. `finish` gives the owner the mean
    over processes, summed over passes, in `.grad`; a tensor that no process has a gradient of gets
    none.
    """

    def __init__(
        self, params: Sequence[Tensor], owners: Sequence[int], group: dist.ProcessGroup | None
    ) -> None:
        self.params, self.owners, self.group = list(params), list(owners), group
        self.rank, self.world = dist.get_rank(group), dist.get_world_size(group)
        self._order = list(reversed(range(len(self.params))))
        self._sums: dict[int, Tensor] = {}
        self._seen = torch.zeros(len(self.params), dtype=torch.int32, device="cpu")
        self._sent = 0
        self._works: list[tuple[int, Tensor, Any]] = []
        self._passing = False
        hook = _weak(self._arrived)
        for p in self.params:
            if p.requires_grad:
                p.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]

    def _arrived(self, p: Tensor) -> None:
        if not self._passing:
            self._passing = True
            engine: Any = torch.autograd.Variable._execution_engine
            engine.queue_callback(self._end_pass)
        ready = self._sent
        while ready < len(self._order) and self.params[self._order[ready]].grad is not None:
            ready += 1
        self._send(ready)

    def _end_pass(self) -> None:
        self._passing = False
        self._send(len(self._order))

    @torch.no_grad()
    def _send(self, until: int) -> None:
        """Send the tensors up to place `until` of the order; at its end the next pass begins."""
        for i in self._order[self._sent : until]:
            p = self.params[i]
            g, p.grad = p.grad, None
            if g is not None:
                self._seen[i] = 1
            if not p.numel():
                continue
            buffer = torch.zeros_like(p) if g is None else g.detach()
            buffer = buffer.contiguous()
            to = rank_in_world(self.group, self.owners[i])
            work = dist.reduce(buffer, to, group=self.group, async_op=True)
            self._works.append((i, buffer, work))
        self._sent = until % len(self._order) if self._order else 0
        self._collect(wait=False)

    def _collect(self, *, wait: bool) -> None:
        """Take what has arrived; with `wait`, all of it."""
        while self._works and (wait or self._works[0][2].is_completed()):
            i, buffer, work = self._works.pop(0)
            work.wait()
            if self.owners[i] == self.rank:
                held = self._sums.get(i)
                self._sums[i] = buffer if held is None else held.add_(buffer)

    @torch.no_grad()
    def finish(self) -> None:
        """Give owners their gradients, and nobody else; gradients set by hand are sent before."""
        if any(p.grad is not None for p in self.params):
            self._send(len(self._order))
        self._collect(wait=True)
        seen = self._seen.clone()
        dist.all_reduce(seen, dist.ReduceOp.MAX, group=self.group)
        for i, total in self._sums.items():
            if seen[i]:
                self.params[i].grad = total.div_(self.world)
        self._reset()

    def clear(self) -> None:
        """Forget what has arrived."""
        self._collect(wait=True)
        self._reset()

    def _reset(self) -> None:
        self._sums.clear()
        self._seen.zero_()


def _weak(method: Callable[[Tensor], None]) -> Callable[[Tensor], None]:
    """A hook that does not keep its reducer alive, for tensors keep their hooks."""
    held = WeakMethod(method)

    def hook(p: Tensor) -> None:
        found = held()
        if found is not None:
            found(p)

    return hook
