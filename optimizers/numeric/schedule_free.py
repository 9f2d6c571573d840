"""Schedule-free AdamW."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.hyperparameters import check_betas, check_nonnegative
from optimizers.numeric.members import Group, Member, real
from optimizers.numeric.rule_optimizer import Options, RuleOptimizer
from optimizers.numeric.rules.rule import Rule
from optimizers.numeric.rules.schedule_free import SCHEDULE_FREE

__all__ = ["ScheduleFreeAdamW"]


class ScheduleFreeAdamW(RuleOptimizer):
    """AdamW that needs no schedule (Defazio et al. 2024). State: 8 bytes per parameter.

    Between `train()` (the start) and `eval()` the parameters hold the point where gradients are
    taken; after `eval()` the average, which is the one to evaluate and save. A step needs
    `train()`. With `capturable=True` a graph is captured in that mode, and replayed in it. Each
    tensor counts its own steps: one that misses gradients is as if it were alone.
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
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        if not all(group["train_mode"] for group in self.param_groups):
            raise RuntimeError(
                "ScheduleFreeAdamW holds the average since eval(); call train() before a step"
            )
        return super().step(closure)

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict of this optimizer; one whose groups count for all their tensors too."""
        super().load_state_dict(_by_tensor(state_dict))

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


def _by_tensor(state_dict: dict[str, Any]) -> dict[str, Any]:
    """A state dict with what tensors keep in their states, where its groups keep it for all of theirs."""
    states, groups = dict(state_dict["state"]), []
    for group in state_dict["param_groups"]:
        held = {x.name: group[x.name] for x in SCHEDULE_FREE.tallies if x.name in group}
        for key in group["params"]:
            if key in states:
                states[key] = {**held, **states[key]}
        groups.append({k: x for k, x in group.items() if k not in held and k != "steps"})
    return {**state_dict, "state": states, "param_groups": groups}
