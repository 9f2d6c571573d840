"""An optimizer shared out among processes (ZeRO stages 1 and 2, Rajbhandari et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from optimizers.numeric.control.reducing import Reducer, rank_in_world
from tracegraph.errors import OptimizerError

__all__ = ["ShardedState", "share_out"]


def share_out(sizes: Iterable[int], shares: int) -> list[int]:
    """The owner of each tensor: the largest first, each to whom has least.

    >>> share_out([5, 1, 4, 2], 2)
    [0, 0, 1, 1]
    """
    sizes = list(sizes)
    loads, owners = [0] * shares, [0] * len(sizes)
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        owners[i] = min(range(shares), key=loads.__getitem__)
        loads[owners[i]] += sizes[i]
    return owners


class ShardedState:
    """Wraps an optimizer of which each process keeps and steps only its own tensors.

    `make` is called with the param groups that hold this process's tensors. After the step every
    owner sends its tensors to the rest. With ``stage=1`` gradients must be equal in all processes,
    as DistributedDataParallel leaves them. With ``stage=2`` each process's gradients are its own:
    backward sends each to its tensor's owner, which gets the mean, and frees it elsewhere; every
    process must do as many backward passes as the others.

    Whole tensors are shared out, so that matrix optimizers are exact as well: the result is that of
    one process, bit for bit, where both name the same `backend` ("auto" goes by the number of
    elements, which is smaller here). State per process: that of its tensors, ``1/N`` where sizes
    allow.

    What looks at all tensors together would look at one share only: clip with `clip_grad_norm_` of
    this class before the step, and leave `nonfinite` at "allow".
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        make: Callable[[list[dict[str, Any]]], Optimizer],
        *,
        stage: int = 1,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        if stage not in (1, 2):
            raise ValueError(
                f"stage={stage!r} is unknown; use 1 (state is shared out) or 2 (gradients too). For "
                "stage 3 use FSDP, whose DTensors the optimizers step"
            )
        if not dist.is_initialized():
            raise OptimizerError(
                "ShardedState shares state among processes, and there is no process group; call "
                "torch.distributed.init_process_group first, or use the optimizer alone"
            )
        self.group = process_group
        self.rank, self.world = dist.get_rank(process_group), dist.get_world_size(process_group)
        given: list[Any] = list(params)
        groups = given if given and isinstance(given[0], dict) else [{"params": given}]
        groups = [{**g, "params": list(g["params"])} for g in groups]
        self.params: list[Tensor] = [p for g in groups for p in g["params"]]
        self.owners = share_out((p.numel() for p in self.params), self.world)
        mine = {id(p) for p, k in zip(self.params, self.owners, strict=True) if k == self.rank}
        for g in groups:
            g["params"] = [p for p in g["params"] if id(p) in mine]
        self.inner = make(groups)
        self._refuse_what_sees_a_share()
        self.stage = stage
        self._reducer = Reducer(self.params, self.owners, process_group) if stage == 2 else None

    def _refuse_what_sees_a_share(self) -> None:
        for name, harmless in (("nonfinite", "allow"), ("clip_norm", None)):
            value = getattr(self.inner, name, harmless)
            if value != harmless:
                raise ValueError(
                    f"{type(self.inner).__name__} has {name}={value!r}, which would be decided by "
                    "each process from its own tensors; check gradients, or clip them by "
                    "clip_grad_norm_ of ShardedState, before step()"
                )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of the wrapped optimizer: this process's tensors, and the hyperparameters."""
        return self.inner.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of all tensors, whoever owns them."""
        if self._reducer is not None:
            self._reducer.clear()
        for p in self.params:
            if set_to_none:
                p.grad = None
            elif p.grad is not None:
                p.grad.zero_()

    _reduced = False

    def _reduce(self) -> None:
        if self._reducer is not None and not self._reduced:
            self._reducer.finish()
            self._reduced = True

    @torch.no_grad()
    def clip_grad_norm_(self, max_norm: float) -> float:
        """Scale the gradients so that their l2 norm over all tensors is at most `max_norm`.

        Call it in every process, after backward. Returns the norm before, as
        `torch.nn.utils.clip_grad_norm_` does.
        """
        self._reduce()
        mine = [p for p, k in zip(self.params, self.owners, strict=True) if k == self.rank]
        grads = [p.grad for p in mine if p.grad is not None]
        squares = [torch.linalg.vector_norm(g).double().cpu() ** 2 for g in grads]
        total = torch.stack(squares or [torch.zeros((), dtype=torch.float64, device="cpu")]).sum()
        dist.all_reduce(total, group=self.group)
        norm = float(total.sqrt())
        for g in grads:
            g.mul_(min(1.0, max_norm / (norm + 1e-6)))
        return norm

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step the own tensors, and exchange; returns what `closure` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._reduce()
        self._reduced = False
        self.inner.step()
        sent = []
        for p, owner in zip(self.params, self.owners, strict=True):
            if not p.numel():
                continue
            buffer = p.detach().contiguous()
            source = rank_in_world(self.group, owner)
            work = dist.broadcast(buffer, source, group=self.group, async_op=True)
            sent.append((p, buffer, work))
        for p, buffer, work in sent:
            if work is not None:
                work.wait()
            if buffer.data_ptr() != p.data_ptr():
                p.copy_(buffer)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """This process's share; each process saves its own."""
        return {"rank": self.rank, "owners": list(self.owners), "inner": self.inner.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the share that the process of the same rank saved."""
        if state_dict["rank"] != self.rank or state_dict["owners"] != self.owners:
            raise ValueError(
                f"this is the share of process {state_dict['rank']} with owners "
                f"{state_dict['owners']}, and this is process {self.rank} of {self.world} with "
                f"owners {self.owners}; load with as many processes and the same tensors"
            )
        self.inner.load_state_dict(state_dict["inner"])
