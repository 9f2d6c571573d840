"""AdamW on a low-rank projection of each matrix's gradient: what its kinds share."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.bases.matrix import MatrixAdam, MatrixOptions, as_matrix
from optimizers.numeric.hyperparameters import check_nonnegative
from optimizers.numeric.members import Group

__all__ = ["LowRank", "leading"]


def leading(g: Tensor, rank: int) -> Tensor:
    """The leading singular vectors of the shorter side of `g`, as columns."""
    u, _, vh = torch.linalg.svd(g, full_matrices=False)
    return u[:, :rank] if g.shape[0] <= g.shape[1] else vh[:rank].mT


def checked_rank(rank: int) -> int:
    """`rank`, where it is one."""
    if rank < 1:
        raise ValueError(f"rank={rank} must be 1 or more")
    return rank


def on_left(g: Tensor) -> bool:
    """Whether the rows are the shorter side of `g`, which is the side that is projected."""
    return g.shape[0] <= g.shape[1]


def within(g: Tensor, basis: Tensor) -> Tensor:
    """The coordinates of `g` in `basis`, an orthonormal basis on its shorter side."""
    return basis.mT @ g if on_left(g) else g @ basis


def back(inside: Tensor, basis: Tensor, g: Tensor) -> Tensor:
    """The matrix shaped as `g` that has the coordinates `inside`."""
    return basis @ inside if on_left(g) else inside @ basis.mT


class LowRank(MatrixAdam):
    """The base: moments of ``P^T G``, with `P` found anew every `refresh_interval` steps.

    A kind says how wide the subspace is (`width`), how it is found (`refresh`), how the inside is
    stepped (`inner`) and what is done with the rest (`outside`). Tensors of fewer than two
    dimensions, and matrices no wider than the subspace, are AdamW's.
    """

    shaped: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        refresh_interval: int,
        scale: float,
        more: dict[str, Any],
        **options: Unpack[MatrixOptions],
    ) -> None:
        check_nonnegative(scale=scale)
        if refresh_interval < 1:
            raise ValueError(f"refresh_interval={refresh_interval} must be 1 or more")
        more = {"refresh_interval": refresh_interval, "scale": scale, **more}
        super().__init__(params, lr, betas, eps, weight_decay, more, **options)

    @override
    def begin(self, state: dict[str, Any], p: Tensor, group: Group) -> None:
        if p.ndim < 2 or min(as_matrix(p).shape) <= self.width(p, group):
            self.moments(state, p)
            return
        rows, columns = as_matrix(p).shape
        rank = self.width(p, group)
        inside = (rank, columns) if rows <= columns else (rows, rank)
        self.moments(state, p.new_empty(inside))
        state["basis"] = state["exp_avg"].new_zeros(min(rows, columns), rank)

    @override
    def moved(self, p: Tensor, g: Tensor, state: dict[str, Any], group: Group, t: int) -> Tensor:
        lr = group["lr"]
        p = p - lr * group["weight_decay"] * p
        if "basis" not in state:
            return p - lr * self.adam(g, state, group, t)
        g = as_matrix(g)
        if (t - 1) % group["refresh_interval"] == 0:
            self.refresh(g, state, group, t)
        basis = state["basis"]
        inside = within(g, basis)
        step = self.inner(inside, state, group, t)
        whole = group["scale"] * back(step, basis, g) + self.outside(g, inside, step, state, group)
        return p - lr * whole.view_as(p)

    def width(self, p: Tensor, group: Group) -> int:
        """The dimension of the subspace for `p`."""
        return int(group["rank"])

    def refresh(self, g: Tensor, state: dict[str, Any], group: Group, t: int) -> None:
        """Find the subspace for the steps from `t` on."""
        state["basis"].copy_(leading(g, group["rank"]))

    def inner(self, inside: Tensor, state: dict[str, Any], group: Group, t: int) -> Tensor:
        """The step inside of the subspace."""
        return self.adam(inside, state, group, t)

    def outside(
        self, g: Tensor, inside: Tensor, step: Tensor, state: dict[str, Any], group: Group
    ) -> Tensor:
        """What is added to the step from outside of the subspace."""
        return torch.zeros_like(g)
