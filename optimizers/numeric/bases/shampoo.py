"""Shampoo: a gradient multiplied by inverse roots of its covariances."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.bases.matrix import MatrixOptimizer, as_matrix
from optimizers.numeric.optimizer import Group, check_betas, check_nonnegative

__all__ = ["Shampoo"]


def inverse_root(a: Tensor, root: int, eps: float) -> Tensor:
    """``(a + eps I) ** (-1 / root)`` of a symmetric matrix that is not negative.

    >>> inverse_root(torch.diag(torch.tensor([16.0, 81.0])), 4, 0.0).diagonal()
    tensor([0.5000, 0.3333])
    """
    values, vectors = torch.linalg.eigh(a.double())
    values = (values.clamp(min=0.0) + eps).pow(-1.0 / root)
    return ((vectors * values) @ vectors.mT).to(a.dtype)


class Shampoo(MatrixOptimizer):
    """Shampoo (Gupta et al. 2018) with averaged covariances and the step size of Adam.

    ``L^(-1/4) G R^(-1/4)`` of the averaged gradient, rescaled to the norm of AdamW's step
    (grafting, as in Anil et al. 2020). Roots are refreshed every `precondition_frequency` steps; a
    side longer than `max_precondition_dim` is left out and the other takes the whole root; tensors
    of fewer than two dimensions are AdamW's. State: ``8 + 8 (m^2 + n^2) / (mn)`` bytes per
    parameter of an m x n matrix.
    """

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
        *,
        maximize: bool = False,
        nonfinite: str = "allow",
    ) -> None:
        check_betas(betas)
        check_nonnegative(epsilon=eps, weight_decay=weight_decay, ridge=ridge)
        if precondition_frequency < 1:
            raise ValueError(f"precondition_frequency={precondition_frequency} must be 1 or more")
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "precondition_frequency": precondition_frequency,
            "max_precondition_dim": max_precondition_dim,
            "ridge": ridge,
        }
        super().__init__(params, defaults, maximize=maximize, nonfinite=nonfinite)

    @override
    def begin(self, state: dict[str, Any], p: Tensor, group: Group) -> None:
        self.moments(state, p)
        if p.ndim < 2 or not p.numel():
            return
        like = state["exp_avg"]
        for side, size in zip(("left", "right"), as_matrix(p).shape, strict=True):
            if size <= group["max_precondition_dim"]:
                state[side] = torch.zeros(size, size, dtype=like.dtype, device=like.device)
                state[f"{side}_root"] = torch.eye(size, dtype=like.dtype, device=like.device)

    @override
    def moved(self, p: Tensor, g: Tensor, state: dict[str, Any], group: Group, t: int) -> Tensor:
        lr, b2 = group["lr"], group["betas"][1]
        grafted = self.adam(g, state, group, t)
        p = p - lr * group["weight_decay"] * p
        sides = [side for side in ("left", "right") if side in state]
        if not sides:
            return p - lr * grafted
        flat = as_matrix(g)
        step = as_matrix(state["exp_avg"])
        for side in sides:
            product = flat @ flat.mT if side == "left" else flat.mT @ flat
            state[side].lerp_(product, 1 - b2)
            if t == 1 or t % group["precondition_frequency"] == 0:
                fair = state[side] / (1 - b2**t)
                ridge = group["ridge"] * max(float(fair.trace()), 1e-30)
                state[f"{side}_root"].copy_(inverse_root(fair, 2 * len(sides), ridge))
            root = state[f"{side}_root"]
            step = root @ step if side == "left" else step @ root
        tiny = torch.finfo(step.dtype).tiny
        step = step * (grafted.norm() / step.norm().clamp(min=tiny))
        return p - lr * step.view_as(p)
