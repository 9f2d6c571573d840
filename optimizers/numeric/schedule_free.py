"""Schedule-free AdamW."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Unpack

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.capturable import on_device
from optimizers.numeric.hyperparameters import check_betas, check_nonnegative
from optimizers.numeric.members import Group, Member, real
from optimizers.numeric.optimizer import NumericOptimizer
from optimizers.numeric.rule_optimizer import Options, RuleOptimizer
from optimizers.numeric.rules.rule import Rule
from optimizers.numeric.rules.scalars import larger, smaller
from optimizers.numeric.rules.schedule_free import SCHEDULE_FREE

__all__ = ["ScheduleFreeAdamW"]

COUNTED = ("steps", "lr_max", "weight_sum")
"""What a param group counts."""


class ScheduleFreeAdamW(RuleOptimizer):
    """AdamW that needs no schedule (Defazio et al. 2024). State: 8 bytes per parameter.

    Between `train()` (the start) and `eval()` the parameters hold the point where gradients are
    taken; after `eval()` the average, which is the one to evaluate and save. A step needs
    `train()`. With `capturable=True` a graph is captured in that mode, and replayed in it.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 2.5e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        **options: Unpack[Options],
    ) -> None:
        check_betas(betas)
        check_nonnegative(epsilon=eps, weight_decay=weight_decay, warmup_steps=warmup_steps)
        if not betas[0] > 0:
            raise ValueError(f"betas[0]={betas[0]} must be more than 0: it mixes in the average")
        if options.get("state", "fp32") != "fp32":
            raise ValueError("ScheduleFreeAdamW keeps a copy of the parameter; use state='fp32'")
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "warmup_steps": warmup_steps,
            "steps": 0,
            "lr_max": 0.0,
            "weight_sum": 0.0,
            "train_mode": True,
        }
        super().__init__(params, defaults, **options)

    @override
    def rule(self, group: Group) -> Rule:
        return SCHEDULE_FREE

    @override
    def begin(self, state: dict[str, Any], p: Tensor, group: Group) -> None:
        super().begin(state, p, group)
        state["z"].copy_(p)

    @override
    def counted(self, group: Group, hyper: Group, go: Tensor | None = None) -> Group:
        if not group["train_mode"]:
            raise RuntimeError(
                "ScheduleFreeAdamW holds the average since eval(); call train() before a step"
            )
        steps, lr, warmup = hyper["steps"] + 1, hyper["lr"], hyper["warmup_steps"]
        if warmup:
            lr = lr * smaller(steps / warmup, 1.0)
        top = larger(hyper["lr_max"], lr)
        total = hyper["weight_sum"] + top**2
        for key, value in zip(COUNTED, (steps, top, total), strict=True):
            if group.get("capturable"):
                group[key].copy_(value if go is None else torch.where(go, value, group[key]))
            else:
                group[key] = value
        fresh = top**2 / larger(total, sys.float_info.min)  # 0 while all rates were 0
        return {**hyper, "lr": lr, "fresh": fresh}

    @override
    def compiled(self, closure: Callable[[], Any] | None) -> Any:
        # torch's compiler reads a group before `_init_group` makes tensors of what it counts, and refuses
        # that; where they are tensors already, its graphs write to copies of them
        return NumericOptimizer.compiled(self, closure)

    @override
    def _init_group(self, group: Group, params: list[Tensor], *lists: list[Tensor]) -> None:
        super()._init_group(group, params, *lists)
        for key in COUNTED if params else ():
            on_device(group, key, 0.0, torch.float64, params[0])

    @torch.no_grad()
    def _lean(self, weight: float, group: Group) -> None:
        moved = []
        for p in group["params"]:
            state = self.state.get(p, {})
            if "z" in state:
                self._prepare_rounding(p, state, group)
                wide = self._wide(p, state)
                wide.lerp_(real(state["z"]).to(wide.dtype), weight)
                moved.append(Member(p, wide, wide, state, 0))
        self._round(moved)

    def eval(self) -> None:
        """Put the average into the parameters; does nothing when it is there."""
        for group in self.param_groups:
            if group["train_mode"]:
                self._lean(1 - 1 / group["betas"][0], group)
                group["train_mode"] = False

    def train(self) -> None:
        """Put back the point where gradients are taken; does nothing when it is there."""
        for group in self.param_groups:
            if not group["train_mode"]:
                self._lean(1 - group["betas"][0], group)
                group["train_mode"] = True
