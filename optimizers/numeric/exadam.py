"""EXAdam."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor
from typing_extensions import override

from optimizers.numeric.hyperparameters import check_betas, check_nonnegative
from optimizers.numeric.members import Group
from optimizers.numeric.rule_optimizer import Options, RuleOptimizer
from optimizers.numeric.rules.exadam import EXADAM
from optimizers.numeric.rules.rule import Rule

__all__ = ["EXAdam"]


class EXAdam(RuleOptimizer):
    """EXAdam (Adly 2024): Adam whose debiasing mixes both moments. State: 8 bytes per parameter.

    Its effective rate is three to sixteen times `lr` under a constant gradient: compare it with
    AdamW at rates tuned for each. `log_factor` is the first published form, whose rate grows with
    the logarithm of the step.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        log_factor: bool = False,
        **options: Unpack[Options],
    ) -> None:
        check_betas(betas)
        check_nonnegative(weight_decay=weight_decay)
        if not eps > 0:
            raise ValueError(f"Invalid epsilon value: {eps}; it must be more than 0")
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "log_factor": log_factor,
        }
        super().__init__(params, defaults, **options)

    @override
    def rule(self, group: Group) -> Rule:
        return EXADAM
