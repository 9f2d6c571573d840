"""AdaBelief."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor
from typing_extensions import override

from optimizers.numeric.hyperparameters import check_betas, check_nonnegative
from optimizers.numeric.members import Group
from optimizers.numeric.rule_optimizer import Options, RuleOptimizer
from optimizers.numeric.rules.adabelief import ADABELIEF
from optimizers.numeric.rules.rule import Rule

__all__ = ["AdaBelief"]


class AdaBelief(RuleOptimizer):
    """AdaBelief (Zhuang et al. 2020) with decoupled decay. State: 8 bytes per parameter.

    `eps` is part of the stored second moment and accumulates there up to ``eps / (1 - b2)``; the
    default is the authors' 1e-16. Without rectification (``rectify=False`` in their package).
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-16,
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        check_betas(betas)
        check_nonnegative(epsilon=eps, weight_decay=weight_decay)
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults, **options)

    @override
    def rule(self, group: Group) -> Rule:
        return ADABELIEF
