"""COSMOS: SOAP in the leading subspace of a matrix, Muon in the rest."""

from __future__ import annotations

import math
from typing import Any, Unpack

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.bases.matrix import MatrixAdam, MatrixOptions, as_matrix, orthogonal, zeros
from optimizers.numeric.hyperparameters import check_nonnegative
from optimizers.numeric.members import Group
from optimizers.numeric.rule_optimizer import direction
from optimizers.numeric.rules.curvature import ADAHESSIAN

__all__ = ["COSMOS"]


class COSMOS(MatrixAdam):
    """AdamW in the leading `rank` directions of ``G^T G``, Newton-Schulz outside (Liu et al. 2025).

    The subspace follows by one step of QR each time. Both parts are added, the second times
    `gamma`, and the sum is brought to ``ratio sqrt(mn)`` in norm. ``rank=0`` is Muon with that norm.
    Tensors of fewer than two dimensions are AdamW's. State: ``4 + 4 (nr + r^2 + mr)/(mn)`` bytes
    per parameter of an m x n matrix.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        rank: int = 64,
        gamma: float = 0.2,
        ratio: float = 0.1,
        **options: Unpack[MatrixOptions],
    ) -> None:
        check_nonnegative(rank=rank, gamma=gamma, ratio=ratio)
        more = {
            "rank": rank,
            "gamma": gamma,
            "ratio": ratio,
        }
        super().__init__(params, lr, betas, eps, weight_decay, more, **options)

    @override
    def begin(self, state: dict[str, Any], p: Tensor, group: Group) -> None:
        if p.ndim < 2 or not p.numel():
            self.moments(state, p)
            return
        rows, columns = as_matrix(p).shape
        rank = min(group["rank"], rows, columns)
        state["momentum_buffer"] = zeros(p)
        like = state["momentum_buffer"]
        state["basis"] = like.new_zeros(columns, rank)
        state["covariance"] = like.new_zeros(rank, rank)
        state["inside_sq"] = like.new_zeros(rows, rank)

    @override
    def moved(self, p: Tensor, g: Tensor, state: dict[str, Any], group: Group, t: int) -> Tensor:
        lr = group["lr"]
        p = p - lr * group["weight_decay"] * p
        if "basis" not in state:
            return p - lr * self.adam(g, state, group, t)
        g = as_matrix(g)
        b1 = group["betas"][0]
        held = as_matrix(state["momentum_buffer"])
        held.mul_(b1).add_(g)
        ahead = (g + b1 * held) / (1 + b1 * (1 - b1**t) / (1 - b1))
        self._turn(g, state, group, t)
        basis = state["basis"]
        inside = ahead @ basis
        step = self._inner(inside, g @ basis, state, group, t) @ basis.mT
        size = math.sqrt(g.numel())
        if basis.shape[1] < g.shape[1]:
            rest = ahead - inside @ basis.mT
            # of a gradient that lies inside only rounding is left, which is no direction
            noise = 100 * torch.finfo(g.dtype).eps * ahead.norm()
            flat = orthogonal(torch.where(rest.norm() > noise, rest, 0.0))
            step = step + group["gamma"] * _sized(flat, size)
        return p - lr * group["ratio"] * _sized(step, size).view_as(p)

    @staticmethod
    def _turn(g: Tensor, state: dict[str, Any], group: Group, t: int) -> None:
        """Follow the leading eigenvectors of the average of ``G^T G``."""
        b2 = group["betas"][1]
        basis, covariance = state["basis"], state["covariance"]
        if t == 1:
            new = torch.linalg.svd(g, full_matrices=False)[2][: basis.shape[1]].mT
        else:
            average = b2 * (basis @ covariance) + (1 - b2) * (g.mT @ (g @ basis))
            new = torch.linalg.qr(average)[0]
        turn, inside = basis.mT @ new, g @ new
        fresh = (1 - b2) * (inside.mT @ inside)
        covariance.copy_(b2 * (turn.mT @ covariance @ turn) + fresh)
        basis.copy_(new)

    @staticmethod
    def _inner(m: Tensor, g: Tensor, state: dict[str, Any], group: Group, t: int) -> Tensor:
        """AdamW's direction of a momentum `m` that is ready, over the average of the squares of `g`.

        AdaHessian's rule with another estimate for the denominator, and no average of its own.
        """
        hyper = {**group, "betas": (0.0, group["betas"][1])}
        return direction(ADAHESSIAN, m, [torch.zeros_like(m), state["inside_sq"], g], hyper, t)


def _sized(x: Tensor, size: float) -> Tensor:
    norm = x.norm()
    return torch.where(norm > 0, x * (size / norm), 0.0)
