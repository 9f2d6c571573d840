"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from torch import Tensor
from typing_extensions import override

from optimizers.numeric.hyperparameters import check_nonnegative
from optimizers.numeric.members import Group
from optimizers.numeric.rule_optimizer import Options, RuleOptimizer
from optimizers.numeric.rules import momentum as rules
from optimizers.numeric.rules.rule import Rule

__all__ = ["SGD", "check_momentum"]


def check_momentum(momentum: float, dampening: float, nesterov: bool) -> None:
    """Refuse momentum settings that torch refuses, in its words."""
    check_nonnegative(momentum=momentum)
    if nesterov and (momentum <= 0 or dampening != 0):
        raise ValueError("Nesterov momentum requires a momentum and zero dampening")


class SGD(RuleOptimizer):
    """Gradient descent, with momentum (Polyak 1964) or Nesterov's; drop-in for `torch.optim.SGD`.

    State: 4 bytes per parameter with momentum, none without.

    >>> import torch
    >>> w = torch.tensor([1.0], requires_grad=True)
    >>> optimizer = SGD([w], lr=0.1, momentum=0.9)
    >>> (3 * w).backward()
    >>> _ = optimizer.step()
    >>> w
    tensor([0.7000], requires_grad=True)
    """

    counts: ClassVar[bool] = False

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        **options: Unpack[Options],
    ) -> None:
        check_momentum(momentum, dampening, nesterov)
        check_nonnegative(weight_decay=weight_decay)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults, **options)

    @override
    def rule(self, group: Group) -> Rule:
        if group["momentum"] == 0:
            return rules.SGD
        return rules.NESTEROV if group["nesterov"] else rules.MOMENTUM
