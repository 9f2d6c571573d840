"""Adafactor: a second moment kept as the product of its row and column means."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.bases.matrix import MatrixOptimizer, MatrixOptions
from optimizers.numeric.codecs.codec import computing_dtype
from optimizers.numeric.hyperparameters import check_nonnegative
from optimizers.numeric.members import Group

__all__ = ["Adafactor"]


def _root_mean_square(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x) / x.numel() ** 0.5


class Adafactor(MatrixOptimizer):
    """Adafactor (Shazeer & Stern 2018), with the conventions of `torch.optim.Adafactor`.

    The step is relative to the size of the parameter, and its root mean square is at most `d`.
    State: 4 bytes per row and per column of a matrix; 4 bytes per element of a vector.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        **options: Unpack[MatrixOptions],
    ) -> None:
        check_nonnegative(weight_decay=weight_decay)
        if beta2_decay > 0:
            raise ValueError(f"beta2_decay should be <= 0 but is: {beta2_decay}")
        if d < 1.0:
            raise ValueError(f"Clipping threshold d should be >= 1 but is: {d}")
        if (eps[0] is not None and eps[0] < 0) or eps[1] < 0:
            raise ValueError(f"Invalid epsilon value: {eps}; both must be 0 or more")
        defaults = {
            "lr": lr,
            "beta2_decay": beta2_decay,
            "eps": eps,
            "d": d,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults, **options)

    @override
    def begin(self, state: dict[str, Any], p: Tensor, group: Group) -> None:
        dtype = computing_dtype(p.dtype)
        if p.ndim > 1:
            state["row_var"] = p.new_zeros((*p.shape[:-1], 1), dtype=dtype)
            state["col_var"] = p.new_zeros((*p.shape[:-2], 1, p.shape[-1]), dtype=dtype)
        else:
            state["variance"] = torch.zeros_like(p, dtype=dtype)

    @override
    def moved(self, p: Tensor, g: Tensor, state: dict[str, Any], group: Group, t: int) -> Tensor:
        eps1, eps2 = group["eps"]
        eps1 = torch.finfo(p.dtype).eps if eps1 is None else eps1
        fresh = t ** group["beta2_decay"]
        rate = min(group["lr"], 1 / t**0.5)
        rate = rate * _root_mean_square(p).clamp(min=eps2)
        if p.ndim > 1:
            row, column = state["row_var"], state["col_var"]
            row.lerp_(g.square().mean(dim=-1, keepdim=True), fresh)
            column.lerp_(g.square().mean(dim=-2, keepdim=True), fresh)
            variance = row @ column / row.mean(dim=-2, keepdim=True).clamp(min=eps1)
        else:
            variance = state["variance"].lerp_(g.square(), fresh)
        u = g * variance.clamp(min=eps1 * eps1).rsqrt()
        u = u / (_root_mean_square(u) / group["d"]).clamp(min=1.0)
        return p - group["lr"] * group["weight_decay"] * p - rate * u
