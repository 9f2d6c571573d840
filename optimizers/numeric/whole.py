"""Whole tensors of sharded ones: for optimizers that cannot step a part alone.

A matrix, or a norm over a tensor, needs all of a DTensor. Its shards are gathered, one process that
owns it computes the step and keeps the state, and sends the result to the others. Tensors are
shared out in turns, so state and work are spread. Meshes of more than one dimension, and values that
are still to be added up, are refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

__all__ = ["Gathered", "check_sharding", "gathered"]


def check_sharding(p: DTensor, optimizer: str, name: str) -> None:
    """Refuse a DTensor whose shards this module does not gather."""
    if p.device_mesh.ndim != 1 or any(x.is_partial() for x in p.placements):
        raise ValueError(
            f"{optimizer} looks at whole tensors, and {name} is a DTensor with placements "
            f"{p.placements} over a mesh of {p.device_mesh.ndim} dimensions; it takes shards over a "
            "mesh of one dimension. Use an element-wise optimizer such as AdamW for it, or a "
            "one-dimensional mesh"
        )


@dataclass(slots=True)
class Gathered:
    """One tensor made whole in every process: the value, its gradient, and who owns it."""

    p: Tensor
    g: Tensor
    owner: int
    like: DTensor

    @property
    def mine(self) -> bool:
        """Whether this process steps it."""
        return self.owner == self.like.device_mesh.get_local_rank()

    def spread(self, local: Tensor) -> None:
        """Send the owner's value to all, and write this process's shard of it into `local`."""
        mesh = self.like.device_mesh
        group = mesh.get_group()
        self.p = self.p.contiguous()
        dist.broadcast(self.p, dist.get_global_rank(group, self.owner), group=group)
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
    owner = turn % like.device_mesh.size()
    return Gathered(whole.clone(), gradient, owner, like)
