"""SOAP: AdamW in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.bases.matrix import MatrixOptimizer, as_matrix
from optimizers.numeric.optimizer import Group, check_betas, check_nonnegative

__all__ = ["SOAP"]


def eigenbasis(a: Tensor) -> Tensor:
    """Eigenvectors of a symmetric matrix, the largest eigenvalue's first."""
    return torch.linalg.eigh(a.double())[1].flip(-1).to(a.dtype)


def rotated(x: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    """`x` in the given bases; None leaves a side as it is."""
    x = x if left is None else left.mT @ x
    return x if right is None else x @ right


def restored(x: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    """The inverse of `rotated`."""
    x = x if left is None else left @ x
    return x if right is None else x @ right.mT


class SOAP(MatrixOptimizer):
    """AdamW in the slowly turning eigenbasis of the gradients' covariances (Vyas et al. 2024).

    The first step only finds the basis and leaves the parameter. The basis is refreshed every
    `precondition_frequency` steps by one step of QR; a side longer than `max_precondition_dim`
    keeps the coordinates it has, and tensors of fewer than two dimensions are AdamW's. State:
    ``8 + 8 (m^2 + n^2) / (mn)`` bytes per parameter of an m x n matrix.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 3e-3,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        precondition_frequency: int = 10,
        max_precondition_dim: int = 10_000,
        *,
        maximize: bool = False,
        nonfinite: str = "allow",
    ) -> None:
        check_betas(betas)
        check_nonnegative(epsilon=eps, weight_decay=weight_decay)
        if precondition_frequency < 1:
            raise ValueError(f"precondition_frequency={precondition_frequency} must be 1 or more")
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "precondition_frequency": precondition_frequency,
            "max_precondition_dim": max_precondition_dim,
        }
        super().__init__(params, defaults, maximize=maximize, nonfinite=nonfinite)

    @override
    def begin(self, state: dict[str, Any], p: Tensor, group: Group) -> None:
        self.moments(state, p)
        if p.ndim < 2 or not p.numel():
            return
        rows, columns = as_matrix(p).shape
        for side, size in (("left", rows), ("right", columns)):
            if size <= group["max_precondition_dim"]:
                like = state["exp_avg"]
                state[side] = torch.zeros(size, size, dtype=like.dtype, device=like.device)
                state[f"{side}_basis"] = torch.eye(size, dtype=like.dtype, device=like.device)

    @override
    def moved(self, p: Tensor, g: Tensor, state: dict[str, Any], group: Group, t: int) -> Tensor:
        lr, wd = group["lr"], group["weight_decay"]
        if p.ndim < 2:
            return p - lr * wd * p - lr * self.adam(g, state, group, t)
        g = as_matrix(g)
        b2 = group["betas"][1]
        left, right = state.get("left_basis"), state.get("right_basis")
        if t > 1:
            m, v = (as_matrix(state[name]) for name in ("exp_avg", "exp_avg_sq"))
            turned = {"exp_avg": m, "exp_avg_sq": v}
            step = self.adam(rotated(g, left, right), turned, group, t - 1)
            p = p - lr * wd * p - lr * restored(step, left, right).view_as(p)
        for side, product in (("left", g @ g.mT), ("right", g.mT @ g)):
            if side in state:
                state[side].lerp_(product, 1 - b2)
        if t == 1 or t % group["precondition_frequency"] == 0:
            self._refresh(state, t)
        return p

    @staticmethod
    def _refresh(state: dict[str, Any], t: int) -> None:
        """Turn the bases towards the eigenvectors, and the moments with them."""
        m, v = (as_matrix(state[name]) for name in ("exp_avg", "exp_avg_sq"))
        left, right = state.get("left_basis"), state.get("right_basis")
        m.copy_(restored(m, left, right))
        for k, side in enumerate(("left", "right")):
            if side not in state:
                continue
            basis = state[f"{side}_basis"]
            if t == 1:
                basis.copy_(eigenbasis(state[side]))
                continue
            size = ((state[side] @ basis) * basis).sum(dim=0)
            order = size.argsort(descending=True)
            v.copy_(v.index_select(k, order))
            turned = state[side] @ basis[:, order]
            basis.copy_(torch.linalg.qr(turned)[0])
        m.copy_(rotated(m, left, right))
