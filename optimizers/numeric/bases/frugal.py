"""FRUGAL: AdamW in a subspace, and the sign of the gradient in the rest."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.bases.low_rank import LowRank, back, leading
from optimizers.numeric.bases.matrix import MatrixOptions, as_matrix
from optimizers.numeric.hyperparameters import check_nonnegative
from optimizers.numeric.members import Group

__all__ = ["FRUGAL"]

PROJECTIONS = ("coordinates", "random", "svd")


def coordinates(size: int, rank: int, generator: torch.Generator) -> Tensor:
    """`rank` unit vectors of `size`, at distinct random places, in order.

    >>> coordinates(3, 3, torch.Generator()).diagonal()
    tensor([1., 1., 1.])
    """
    chosen = torch.randperm(size, generator=generator, device="cpu")[:rank].sort().values
    units = torch.zeros(size, rank, device="cpu")
    units[chosen, torch.arange(rank, device="cpu")] = 1.0
    return units


def random_directions(size: int, rank: int, generator: torch.Generator) -> Tensor:
    """An orthonormal basis of a subspace that is uniformly random."""
    return torch.linalg.qr(torch.randn(size, rank, generator=generator, device="cpu"))[0]


class FRUGAL(LowRank):
    """AdamW in a subspace of each matrix, signSGD in the rest (Zmushko et al. 2024).

    The subspace has `density` of the dimensions of the shorter side and is drawn anew every
    `refresh_interval` steps: "coordinates" (rows or columns), "random" directions, or "svd", the
    gradient's leading ones. The moments begin anew with it. The rest of the gradient moves by
    `rest_scale` times its sign. ``density=1`` is AdamW, ``density=0`` signSGD; tensors of fewer
    than two dimensions are AdamW's. Draws follow from `seed` and the step number. State: ``8
    density`` bytes per parameter, and the basis.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        density: float = 0.25,
        refresh_interval: int = 200,
        rest_scale: float = 1.0,
        projection: str = "coordinates",
        seed: int = 0,
        **options: Unpack[MatrixOptions],
    ) -> None:
        check_nonnegative(rest_scale=rest_scale)
        if not 0.0 <= density <= 1.0:
            raise ValueError(f"Invalid density: {density}; it must be in [0, 1]")
        if projection not in PROJECTIONS:
            raise ValueError(f"projection={projection!r} is unknown; use one of {PROJECTIONS}")
        more = {
            "density": density,
            "rest_scale": rest_scale,
            "projection": projection,
            "seed": seed,
        }
        super().__init__(
            params, lr, betas, eps, weight_decay, refresh_interval, 1.0, more, **options
        )

    @override
    def width(self, p: Tensor, group: Group) -> int:
        return round(group["density"] * min(as_matrix(p).shape))

    @override
    def refresh(self, g: Tensor, state: dict[str, Any], group: Group, t: int) -> None:
        basis = state["basis"]
        size, rank = basis.shape
        generator = torch.Generator().manual_seed(group["seed"] + t)
        if group["projection"] == "svd":
            basis.copy_(leading(g, rank))
        elif group["projection"] == "random":
            basis.copy_(random_directions(size, rank, generator))
        else:
            basis.copy_(coordinates(size, rank, generator))
        state["exp_avg"].zero_()
        state["exp_avg_sq"].zero_()

    @override
    def inner(self, inside: Tensor, state: dict[str, Any], group: Group, t: int) -> Tensor:
        age = (t - 1) % group["refresh_interval"] + 1
        return super().inner(inside, state, group, age)

    @override
    def outside(
        self, g: Tensor, inside: Tensor, step: Tensor, state: dict[str, Any], group: Group
    ) -> Tensor:
        return group["rest_scale"] * (g - back(inside, state["basis"], g)).sign()
