"""SOAP: AdamW in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024)."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.bases.matrix import MatrixOptions, as_matrix
from optimizers.numeric.bases.preconditioned import Preconditioned
from optimizers.numeric.members import Group

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


class SOAP(Preconditioned):
    """AdamW in the slowly turning eigenbasis of the gradients' covariances (Vyas et al. 2024).

    The first step only finds the basis and leaves the parameter. The basis is refreshed every
    `precondition_frequency` steps by one step of QR; a side longer than `max_precondition_dim`
    keeps the coordinates it has, and tensors of fewer than two dimensions are AdamW's. State:
    ``8 + 8 (m^2 + n^2) / (mn)`` bytes per parameter of an m x n matrix.
    """

    made: ClassVar[str] = "basis"

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 3e-3,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        precondition_frequency: int = 10,
        max_precondition_dim: int = 10_000,
        **options: Unpack[MatrixOptions],
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            precondition_frequency,
            max_precondition_dim,
            {},
            **options,
        )

    @override
    def moved(self, p: Tensor, g: Tensor, state: dict[str, Any], group: Group, t: int) -> Tensor:
        lr, wd = group["lr"], group["weight_decay"]
        if p.ndim < 2:
            return p - lr * wd * p - lr * self.adam(g, state, group, t)
        g = as_matrix(g)
        left, right = state.get("left_basis"), state.get("right_basis")
        if t > 1:
            m, v = (as_matrix(state[name]) for name in ("exp_avg", "exp_avg_sq"))
            turned = {"exp_avg": m, "exp_avg_sq": v}
            step = self.adam(rotated(g, left, right), turned, group, t - 1)
            p = p - lr * wd * p - lr * restored(step, left, right).view_as(p)
        self.observe(g, state, group)
        if self.due(t, group):
            self._refresh(state, t)
        return p

    def _refresh(self, state: dict[str, Any], t: int) -> None:
        """Turn the bases towards the eigenvectors, and the moments with them."""
        m, v = (as_matrix(state[name]) for name in ("exp_avg", "exp_avg_sq"))
        left, right = state.get("left_basis"), state.get("right_basis")
        m.copy_(restored(m, left, right))
        for k, side in self.sides(state):
            basis = state[self.of(side)]
            if t == 1:
                basis.copy_(eigenbasis(state[side]))
                continue
            size = ((state[side] @ basis) * basis).sum(dim=0)
            order = size.argsort(descending=True)
            v.copy_(v.index_select(k, order))
            turned = state[side] @ basis[:, order]
            basis.copy_(torch.linalg.qr(turned)[0])
        m.copy_(rotated(m, left, right))
