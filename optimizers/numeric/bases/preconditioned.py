"""Optimizers that learn the covariances of a matrix's rows and columns: what SOAP and Shampoo share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.bases.matrix import MatrixAdam, MatrixOptions, as_matrix
from optimizers.numeric.members import Group

__all__ = ["Preconditioned"]

SIDES = ("left", "right")


class Preconditioned(MatrixAdam):
    """The base: moments, a running covariance per side, and what is made of it now and then.

    A kind says how what it makes of a covariance is called (`made`). A side longer than
    `max_precondition_dim` has no covariance.
    """

    made: ClassVar[str]

    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        precondition_frequency: int,
        max_precondition_dim: int,
        more: dict[str, Any],
        **options: Unpack[MatrixOptions],
    ) -> None:
        if precondition_frequency < 1:
            raise ValueError(f"precondition_frequency={precondition_frequency} must be 1 or more")
        more = {
            "precondition_frequency": precondition_frequency,
            "max_precondition_dim": max_precondition_dim,
            **more,
        }
        super().__init__(params, lr, betas, eps, weight_decay, more, **options)

    @override
    def begin(self, state: dict[str, Any], p: Tensor, group: Group) -> None:
        self.moments(state, p)
        if p.ndim < 2 or not p.numel():
            return
        like = state["exp_avg"]
        for side, size in zip(SIDES, as_matrix(p).shape, strict=True):
            if size <= group["max_precondition_dim"]:
                state[side] = torch.zeros(size, size, dtype=like.dtype, device=like.device)
                state[self.of(side)] = torch.eye(size, dtype=like.dtype, device=like.device)

    def of(self, side: str) -> str:
        """The name in a state of what is made of a side's covariance."""
        return f"{side}_{self.made}"

    def sides(self, state: dict[str, Any]) -> Iterator[tuple[int, str]]:
        """The sides that have a covariance, with their dimension."""
        return ((k, side) for k, side in enumerate(SIDES) if side in state)

    def observe(self, g: Tensor, state: dict[str, Any], group: Group) -> None:
        """Average a gradient's covariances in."""
        for _, side in self.sides(state):
            product = g @ g.mT if side == "left" else g.mT @ g
            state[side].lerp_(product, 1 - group["betas"][1])

    @staticmethod
    def due(t: int, group: Group) -> bool:
        """Whether step `t` makes them anew."""
        return bool(t == 1 or t % group["precondition_frequency"] == 0)
