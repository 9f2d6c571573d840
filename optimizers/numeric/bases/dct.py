"""DCT-AdamW and Trion: low-rank steps in columns of the discrete cosine transform.

Modoranu et al. 2025. The transform is one fixed matrix for each size, so that a subspace is a list
of column numbers, found without a singular value decomposition.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.bases.matrix import (
    MatrixAdam,
    MatrixOptimizer,
    MatrixOptions,
    as_matrix,
    orthogonal,
    zeros,
)
from optimizers.numeric.bases.muon import RATIOS as MUON_RATIOS
from optimizers.numeric.constants import constant
from optimizers.numeric.hyperparameters import check_nonnegative
from optimizers.numeric.members import Group

__all__ = ["DCTAdamW", "Trion", "cosines", "strongest"]

RATIOS: dict[str, Callable[[int, int], float]] = {
    **MUON_RATIOS,
    "dion": lambda rows, columns: math.sqrt(rows / columns),
}


@constant
def cosines(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The orthonormal discrete cosine transform (type II) of `size`, frequencies as columns.

    >>> d = cosines(4, torch.float64, torch.device("cpu"))
    >>> torch.allclose(d.mT @ d, torch.eye(4, dtype=torch.float64))
    True
    """
    frequency = torch.arange(size, dtype=torch.float64, device="cpu")
    place = frequency + 0.5
    d = torch.cos(torch.outer(place, frequency) * (math.pi / size)) * math.sqrt(2.0 / size)
    d[:, 0] /= math.sqrt(2.0)
    return d.to(dtype=dtype, device=device)


def strongest(x: Tensor, rank: int, norm: int) -> Tensor:
    """The numbers of the `rank` columns of `x` that have the largest norm, in order.

    With ``norm=2`` what is left out has at most ``1 - rank/n`` of the square of the norm of `x`.

    >>> strongest(torch.tensor([[1.0, 5.0, -3.0]]), 2, 1)
    tensor([1, 2])
    """
    size = torch.linalg.vector_norm(x, ord=norm, dim=0)
    return size.topk(rank).indices.sort().values


def _upright(x: Tensor) -> Tensor:
    """A tensor as a matrix that has no more columns than rows."""
    x = as_matrix(x)
    return x if x.shape[0] >= x.shape[1] else x.mT


def _lying(x: Tensor, p: Tensor) -> Tensor:
    """An upright matrix in the shape of `p`."""
    rows, columns = as_matrix(p).shape
    return (x if rows >= columns else x.mT).reshape(p.shape)


def _transform(g: Tensor) -> Tensor:
    return cosines(g.shape[1], g.dtype, g.device)


def check_rank(rank: int, norm: int) -> None:
    """Refuse a number of columns, or a norm to choose them by, that there is not."""
    if rank < 1:
        raise ValueError(f"rank={rank} must be 1 or more")
    if norm not in (1, 2):
        raise ValueError(f"norm={norm} is unknown; use 1 or 2")


class DCTAdamW(MatrixAdam):
    """AdamW on the `rank` strongest cosine columns of each matrix's gradient (Modoranu et al. 2025).

    Every `refresh_interval` steps the columns are chosen anew by their l1 or l2 `norm`; a column
    that stays keeps its moments. `error_feedback` adds what was left out to the next gradient (4
    bytes per parameter). Tensors of fewer than two dimensions, and matrices no wider than `rank`,
    are AdamW's. State: ``8 r/n`` bytes per parameter of an m x n matrix, n <= m.
    """

    shaped: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        rank: int = 128,
        refresh_interval: int = 1,
        norm: int = 1,
        *,
        error_feedback: bool = False,
        **options: Unpack[MatrixOptions],
    ) -> None:
        check_rank(rank, norm)
        if refresh_interval < 1:
            raise ValueError(f"refresh_interval={refresh_interval} must be 1 or more")
        more = {
            "rank": rank,
            "refresh_interval": refresh_interval,
            "norm": norm,
            "error_feedback": error_feedback,
        }
        super().__init__(params, lr, betas, eps, weight_decay, more, **options)

    @override
    def begin(self, state: dict[str, Any], p: Tensor, group: Group) -> None:
        if p.ndim < 2 or min(as_matrix(p).shape) <= group["rank"]:
            self.moments(state, p)
            return
        rows, _ = _upright(p).shape
        self.moments(state, p.new_empty(rows, group["rank"]))
        state["columns"] = torch.arange(group["rank"], device=p.device)
        if group["error_feedback"]:
            state["left_out"] = zeros(_upright(p))

    @override
    def moved(self, p: Tensor, g: Tensor, state: dict[str, Any], group: Group, t: int) -> Tensor:
        lr = group["lr"]
        p = p - lr * group["weight_decay"] * p
        if "columns" not in state:
            return p - lr * self.adam(g, state, group, t)
        g = _upright(g)
        if "left_out" in state:
            g = g + state["left_out"]
        d = _transform(g)
        if (t - 1) % group["refresh_interval"] == 0:
            self._choose(g @ d, state, group)
        chosen = d[:, state["columns"]]
        inside = g @ chosen
        if "left_out" in state:
            state["left_out"].copy_(g - inside @ chosen.mT)
        step = self.adam(inside, state, group, t)
        return p - lr * _lying(step @ chosen.mT, p)

    @staticmethod
    def _choose(spectrum: Tensor, state: dict[str, Any], group: Group) -> None:
        """Choose columns; between orthonormal columns a rotation keeps some and drops the rest."""
        new = strongest(spectrum, group["rank"], group["norm"])
        for name in ("exp_avg", "exp_avg_sq"):
            full = torch.zeros_like(spectrum)
            full[:, state["columns"]] = state[name]
            state[name].copy_(full[:, new])
        state["columns"].copy_(new)


class Trion(MatrixOptimizer):
    """Muon on the `rank` strongest cosine columns of the momentum (Modoranu et al. 2025).

    Only what was applied decays from the momentum, by `momentum`; the rest waits its turn. At full
    rank it is Muon without Nesterov's term. For matrices; state: 4 bytes per parameter.
    """

    counts: ClassVar[bool] = False

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        rank: int = 128,
        norm: int = 1,
        adjust_lr_fn: str = "original",
        **options: Unpack[MatrixOptions],
    ) -> None:
        check_nonnegative(momentum=momentum, weight_decay=weight_decay)
        check_rank(rank, norm)
        if adjust_lr_fn not in RATIOS:
            raise ValueError(
                f"adjust_lr_fn={adjust_lr_fn!r} is unknown; use one of {sorted(RATIOS)}"
            )
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "rank": rank,
            "norm": norm,
            "adjust_lr_fn": adjust_lr_fn,
        }
        super().__init__(params, defaults, **options)

    @override
    def check_params(self, params: list[Tensor]) -> None:
        super().check_params(params)
        for p in params:
            if p.ndim < 2:
                raise ValueError(
                    f"Trion steps tensors of two or more dimensions, and got one of shape "
                    f"{tuple(p.shape)}; give it to AdamW"
                )

    @override
    def begun(self, state: dict[str, Any], group: Group) -> bool:
        return "momentum_buffer" in state

    @override
    def begin(self, state: dict[str, Any], p: Tensor, group: Group) -> None:
        state["momentum_buffer"] = zeros(p)

    @override
    def moved(self, p: Tensor, g: Tensor, state: dict[str, Any], group: Group, t: int) -> Tensor:
        lr = group["lr"]
        held = _upright(state["momentum_buffer"] + g)
        d = _transform(held)
        spectrum = held @ d
        columns = strongest(spectrum, min(group["rank"], held.shape[1]), group["norm"])
        inside, chosen = spectrum[:, columns], d[:, columns]
        held = held - (1 - group["momentum"]) * (inside @ chosen.mT)
        state["momentum_buffer"].copy_(_lying(held, p))
        step = _lying(orthogonal(inside) @ chosen.mT, p)
        ratio = RATIOS[group["adjust_lr_fn"]](*as_matrix(p).shape)
        return p - lr * group["weight_decay"] * p - lr * ratio * step
