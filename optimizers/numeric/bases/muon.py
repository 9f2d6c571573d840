"""Muon: momentum, made orthogonal."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.bases.matrix import MatrixOptimizer, MatrixOptions, orthogonal
from optimizers.numeric.codecs.codec import computing_dtype
from optimizers.numeric.hyperparameters import check_nonnegative
from optimizers.numeric.members import Group

__all__ = ["Muon"]

RATIOS = {
    "original": lambda rows, columns: math.sqrt(max(1.0, rows / columns)),
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
}


class Muon(MatrixOptimizer):
    """Momentum with all singular values brought to one (Jordan et al. 2024); as `torch.optim.Muon`.

    For the matrices inside a network; give embeddings, heads and vectors to AdamW. State: 4 bytes
    per parameter.
    """

    counts: ClassVar[bool] = False

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        **options: Unpack[MatrixOptions],
    ) -> None:
        check_nonnegative(momentum=momentum, weight_decay=weight_decay)
        if adjust_lr_fn is not None and adjust_lr_fn not in RATIOS:
            raise ValueError(
                f"Adjust learning rate function {adjust_lr_fn} is not supported; use one of "
                f"{sorted(RATIOS)}"
            )
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        }
        super().__init__(params, defaults, **options)

    @override
    def check_params(self, params: list[Tensor]) -> None:
        super().check_params(params)
        for p in params:
            if p.ndim != 2:
                raise ValueError(
                    "Muon only supports 2D parameters whereas we found a parameter with size: "
                    f"{p.size()}; give it to AdamW"
                )

    @override
    def begun(self, state: dict[str, Any], group: Group) -> bool:
        return "momentum_buffer" in state

    @override
    def begin(self, state: dict[str, Any], p: Tensor, group: Group) -> None:
        state["momentum_buffer"] = torch.zeros_like(p, dtype=computing_dtype(p.dtype))

    @override
    def moved(self, p: Tensor, g: Tensor, state: dict[str, Any], group: Group, t: int) -> Tensor:
        lr, mu, held = group["lr"], group["momentum"], state["momentum_buffer"]
        held.lerp_(g, 1 - mu)
        step = orthogonal(
            g.lerp(held, mu) if group["nesterov"] else held,
            steps=group["ns_steps"],
            coefficients=group["ns_coefficients"],
            eps=group["eps"],
        )
        ratio = RATIOS[group["adjust_lr_fn"] or "original"](*p.shape)
        return p - lr * group["weight_decay"] * p - lr * ratio * step
