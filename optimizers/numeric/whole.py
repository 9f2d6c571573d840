"""Whole tensors of sharded ones: for optimizers that cannot step a part alone.

A matrix, or a norm over a tensor, needs all of a DTensor. Its shards are gathered, one process of its
mesh that owns it computes the step and keeps the state, and sends the result to the others. Tensors
are shared out in turns, so state and work are spread. Meshes may have several dimensions (FSDP beside
tensor parallelism); values that are still to be added up, and shards of shards along one side, are
refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

__all__ = ["Gathered", "check_sharding", "gathered"]


def check_sharding(p: DTensor, optimizer: str, name: str, *, whole: bool) -> None:
    """Refuse a DTensor that is a sum to come or, for an optimizer of `whole` ones, not gathered here."""
    if any(x.is_partial() for x in p.placements):
        raise ValueError(
            f"{optimizer} cannot step {name}, a DTensor with placements {p.placements}: its value is "
            "the sum of what the processes hold. Call redistribute on it first"
        )
    if whole and any(type(x) not in (Shard, Replicate) for x in p.placements):
        raise ValueError(
            f"{optimizer} looks at whole tensors, and {name} is a DTensor with placements "
            f"{p.placements}; it takes Shard and Replicate. Use an element-wise optimizer such as "
            "AdamW for it, or shard each side of it along one dimension of the mesh only"
        )


@dataclass(slots=True)
class Gathered:
    """One tensor made whole in every process: the value, its gradient, and who owns it.

    `owner` is the owner's coordinate in the mesh.
    """

    p: Tensor
    g: Tensor
    owner: tuple[int, ...]
    like: DTensor

    @property
    def here(self) -> tuple[int, ...]:
        """This process's coordinate."""
        return tuple(self.like.device_mesh.get_coordinate() or ())

    @property
    def mine(self) -> bool:
        """Whether this process steps it."""
        return self.owner == self.here

    def spread(self, local: Tensor) -> None:
        """Send the owner's value to all, and write this process's shard of it into `local`."""
        mesh = self.like.device_mesh
        self.p = self.p.contiguous()
        for side in reversed(range(mesh.ndim)):  # along the last side first, then from each to more
            if self.here[:side] == self.owner[:side]:
                group = mesh.get_group(side)
                source = dist.get_global_rank(group, self.owner[side])
                dist.broadcast(self.p, source, group=group)
        shard = distribute_tensor(self.p, mesh, self.like.placements, src_data_rank=None)
        local.copy_(shard.to_local())


def gathered(like: DTensor, local: Tensor, g: Tensor, turn: int) -> Gathered:
    """The whole of `like`, whose shard here is `local`, with its gradient `g`; every process calls.

    Owners are the processes of the mesh in turn.
    """
    whole = DTensor.from_local(
        local.detach(),
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    ).full_tensor()
    gradient = g.full_tensor() if isinstance(g, DTensor) else g
    owner, rest = [], turn % like.device_mesh.size()
    for size in reversed(like.device_mesh.shape):
        owner.append(rest % size)
        rest //= size
    return Gathered(whole.clone(), gradient, tuple(reversed(owner)), like)
