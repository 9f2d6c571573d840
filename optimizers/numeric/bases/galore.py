"""GaLore and Fira: AdamW in a low-rank subspace of the gradient.

Zhao et al. 2024 (GaLore): the moments live in the span of the leading singular vectors. Chen et al.
2024 (Fira): what lies outside is applied too, scaled as AdamW scaled what lies inside.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.bases.matrix import MatrixOptimizer, as_matrix
from optimizers.numeric.optimizer import Group, check_betas, check_nonnegative

__all__ = ["Fira", "GaLore"]


def leading(g: Tensor, rank: int) -> Tensor:
    """The leading singular vectors of the shorter side of `g`, as columns."""
    u, _, vh = torch.linalg.svd(g, full_matrices=False)
    return u[:, :rank] if g.shape[0] <= g.shape[1] else vh[:rank].mT


class GaLore(MatrixOptimizer):
    """AdamW on the projection of each matrix's gradient to `rank` dimensions (Zhao et al. 2024).

    The subspace is found anew every `refresh_interval` steps by a singular value decomposition; the
    step is multiplied by `scale`. Tensors of fewer than two dimensions, and matrices no wider than
    `rank`, are AdamW's. State: ``8 r/m + 4 r/n`` bytes per parameter of an m x n matrix, m <= n.
    """

    shaped: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        rank: int = 128,
        refresh_interval: int = 200,
        scale: float = 0.25,
        *,
        maximize: bool = False,
        nonfinite: str = "allow",
    ) -> None:
        check_betas(betas)
        check_nonnegative(epsilon=eps, weight_decay=weight_decay, scale=scale)
        if rank < 1 or refresh_interval < 1:
            raise ValueError(
                f"rank={rank} and refresh_interval={refresh_interval} must be 1 or more"
            )
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "rank": rank,
            "refresh_interval": refresh_interval,
            "scale": scale,
        }
        super().__init__(params, defaults, maximize=maximize, nonfinite=nonfinite)

    @override
    def begin(self, state: dict[str, Any], p: Tensor, group: Group) -> None:
        if p.ndim < 2 or min(as_matrix(p).shape) <= group["rank"]:
            self.moments(state, p)
            return
        rows, columns = as_matrix(p).shape
        rank = group["rank"]
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
        basis = state["basis"]
        if (t - 1) % group["refresh_interval"] == 0:
            basis.copy_(leading(g, group["rank"]))
        on_left = g.shape[0] <= g.shape[1]
        inside = basis.mT @ g if on_left else g @ basis
        step = self.adam(inside, state, group, t)
        back = basis @ step if on_left else step @ basis.mT
        back = group["scale"] * back + self.outside(g, inside, step, state)
        return p - lr * back.view_as(p)

    def outside(self, g: Tensor, inside: Tensor, step: Tensor, state: dict[str, Any]) -> Tensor:
        """What is added to the step from outside of the subspace."""
        return torch.zeros_like(g)


class Fira(GaLore):
    """GaLore that also applies the gradient outside of the subspace (Chen et al. 2024).

    The rest ``G - P P^T G`` is scaled column by column as AdamW scaled the inside, and its norm
    grows by at most 1 % per step. One number more per matrix than GaLore.
    """

    @override
    def begin(self, state: dict[str, Any], p: Tensor, group: Group) -> None:
        super().begin(state, p, group)
        if "basis" in state:
            state["rest_norm"] = state["basis"].new_zeros(())

    @override
    def outside(self, g: Tensor, inside: Tensor, step: Tensor, state: dict[str, Any]) -> Tensor:
        basis = state["basis"]
        on_left = g.shape[0] <= g.shape[1]
        across = 0 if on_left else 1
        factor = step.norm(dim=across, keepdim=True) / (
            inside.norm(dim=across, keepdim=True) + 1e-8
        )
        rest = factor * (g - (basis @ inside if on_left else inside @ basis.mT))
        before, now = state["rest_norm"], rest.norm()
        growth = torch.where(before > 0, now / (before + 1e-8), 1.0).clamp(min=1.01) / 1.01
        rest = rest / growth
        before.copy_(rest.norm())
        return rest
