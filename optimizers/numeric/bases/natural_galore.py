"""Natural GaLore: GaLore on gradients that an empirical Fisher matrix has preconditioned."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.bases.low_rank import LowRank, checked_rank, on_left
from optimizers.numeric.bases.matrix import MatrixOptions
from optimizers.numeric.members import Group

__all__ = ["NaturalGaLore"]


def natural(history: Tensor, damping: float, last: int) -> Tensor:
    """``(damping I + H H^T)^-1 h`` where the rows of `history` are the columns of H, h the last.

    By the push-through identity it is ``H (damping I + H^T H)^-1 e``, which has no difference of
    large numbers as Woodbury's formula has.

    >>> natural(torch.tensor([[0.0, 2.0]]), 1.0, 0)
    tensor([0.0000, 0.4000])
    """
    gram = (history @ history.mT).double()
    values, vectors = torch.linalg.eigh(gram)
    inverse = 1.0 / (values.clamp(min=0.0) + damping)
    weights = vectors @ (inverse * vectors[last])
    return weights.to(history.dtype) @ history


class NaturalGaLore(LowRank):
    """GaLore with natural gradients inside of the subspace (Das 2024).

    The inside of the last `history` gradients makes an empirical Fisher matrix, damped by
    `damping`, whose inverse is applied before AdamW. When the subspace turns, they turn with it.
    ``history=0`` is GaLore. State: ``4 s r/m`` bytes per parameter more than GaLore's, for a history
    of s and an m x n matrix, m <= n.
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
        history: int = 20,
        damping: float = 1e-3,
        **options: Unpack[MatrixOptions],
    ) -> None:
        if history < 0 or damping <= 0:
            raise ValueError(f"history={history} must be 0 or more, damping={damping} above 0")
        more = {"rank": checked_rank(rank), "history": history, "damping": damping}
        super().__init__(
            params, lr, betas, eps, weight_decay, refresh_interval, scale, more, **options
        )

    @override
    def begin(self, state: dict[str, Any], p: Tensor, group: Group) -> None:
        super().begin(state, p, group)
        if "basis" in state and group["history"]:
            like = state["exp_avg"]
            state["history"] = like.new_zeros(group["history"], *like.shape)

    @override
    def refresh(self, g: Tensor, state: dict[str, Any], group: Group, t: int) -> None:
        before = state["basis"].clone()
        super().refresh(g, state, group, t)
        if "history" in state:
            turn = state["basis"].mT @ before
            held = state["history"]
            held.copy_(turn @ held if on_left(g) else held @ turn.mT)

    @override
    def inner(self, inside: Tensor, state: dict[str, Any], group: Group, t: int) -> Tensor:
        if "history" in state:
            last = (t - 1) % group["history"]
            state["history"][last] = inside
            rows = state["history"][:t].flatten(1)
            inside = natural(rows, group["damping"], last).view_as(inside)
        return super().inner(inside, state, group, t)
