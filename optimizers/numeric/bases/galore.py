"""GaLore and Fira: AdamW in a low-rank subspace of the gradient.

Zhao et al. 2024 (GaLore): the moments live in the span of the leading singular vectors. Chen et al.
2024 (Fira): what lies outside is applied too, scaled as AdamW scaled what lies inside.
"""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.bases.low_rank import LowRank, back, checked_rank, on_left
from optimizers.numeric.bases.matrix import MatrixOptions
from optimizers.numeric.members import Group

__all__ = ["Fira", "GaLore"]


class GaLore(LowRank):
    """AdamW on the projection of each matrix's gradient to `rank` dimensions (Zhao et al. 2024).

    The subspace is found anew every `refresh_interval` steps by a singular value decomposition; the
    step is multiplied by `scale`. Tensors of fewer than two dimensions, and matrices no wider than
    `rank`, are AdamW's. State: ``8 r/m + 4 r/n`` bytes per parameter of an m x n matrix, m <= n.
    """

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
        **options: Unpack[MatrixOptions],
    ) -> None:
        more = {"rank": checked_rank(rank)}
        super().__init__(
            params, lr, betas, eps, weight_decay, refresh_interval, scale, more, **options
        )


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
    def outside(
        self, g: Tensor, inside: Tensor, step: Tensor, state: dict[str, Any], group: Group
    ) -> Tensor:
        across = 0 if on_left(g) else 1
        factor = step.norm(dim=across, keepdim=True) / (
            inside.norm(dim=across, keepdim=True) + 1e-8
        )
        rest = factor * (g - back(inside, state["basis"], g))
        before, now = state["rest_norm"], rest.norm()
        growth = torch.where(before > 0, now / (before + 1e-8), 1.0).clamp(min=1.01) / 1.01
        rest = rest / growth
        before.copy_(rest.norm())
        return rest
