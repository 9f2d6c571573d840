"""Shampoo: a gradient multiplied by inverse roots of its covariances."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.bases.matrix import MatrixOptions, as_matrix
from optimizers.numeric.bases.preconditioned import Preconditioned
from optimizers.numeric.hyperparameters import check_nonnegative
from optimizers.numeric.members import Group

__all__ = ["Shampoo"]


def inverse_root(a: Tensor, root: int, eps: float | Tensor) -> Tensor:
    """``(a + eps I) ** (-1 / root)`` of a symmetric matrix that is not negative.

    >>> inverse_root(torch.diag(torch.tensor([16.0, 81.0])), 4, 0.0).diagonal()
    tensor([0.5000, 0.3333])
    """
    values, vectors = torch.linalg.eigh(a.double())
    values = (values.clamp(min=0.0) + eps).pow(-1.0 / root)
    return ((vectors * values) @ vectors.mT).to(a.dtype)


class Shampoo(Preconditioned):
    """Shampoo (Gupta et al. 2018) with averaged covariances and the step size of Adam.

    ``L^(-1/4) G R^(-1/4)`` of the averaged gradient, rescaled to the norm of AdamW's step
    (grafting, as in Anil et al. 2020). Roots are refreshed every `precondition_frequency` steps; a
    side longer than `max_precondition_dim` is left out and the other takes the whole root; tensors
    of fewer than two dimensions are AdamW's. State: ``8 + 8 (m^2 + n^2) / (mn)`` bytes per
    parameter of an m x n matrix.
    """

    made: ClassVar[str] = "root"

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        precondition_frequency: int = 10,
        max_precondition_dim: int = 1024,
        ridge: float = 1e-10,
        **options: Unpack[MatrixOptions],
    ) -> None:
        check_nonnegative(ridge=ridge)
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            precondition_frequency,
            max_precondition_dim,
            {"ridge": ridge},
            **options,
        )

    @override
    def moved(self, p: Tensor, g: Tensor, state: dict[str, Any], group: Group, t: int) -> Tensor:
        lr, b2 = group["lr"], group["betas"][1]
        grafted = self.adam(g, state, group, t)
        p = p - lr * group["weight_decay"] * p
        sides = [side for _, side in self.sides(state)]
        if not sides:
            return p - lr * grafted
        self.observe(as_matrix(g), state, group)
        step = as_matrix(state["exp_avg"])
        for side in sides:
            root = state[self.of(side)]
            if self.due(t, group):
                fair = state[side] / (1 - b2**t)
                ridge = group["ridge"] * fair.trace().double().clamp(min=1e-30)
                root.copy_(inverse_root(fair, 2 * len(sides), ridge))
            step = root @ step if side == "left" else step @ root
        tiny = torch.finfo(step.dtype).tiny
        step = step * (grafted.norm() / step.norm().clamp(min=tiny))
        return p - lr * step.view_as(p)
