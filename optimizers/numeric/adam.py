"""Adam, AdamW and NadamW."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor
from typing_extensions import override

from optimizers.numeric.hyperparameters import check_betas, check_nonnegative
from optimizers.numeric.members import Group
from optimizers.numeric.rule_optimizer import Options, RuleOptimizer
from optimizers.numeric.rules import adam as rules
from optimizers.numeric.rules.rule import Rule

__all__ = ["Adam", "AdamW", "NadamW"]

Betas = tuple[float | Tensor, float | Tensor]


class _Adam(RuleOptimizer):
    """What Adam and AdamW share."""

    decoupled = False

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        **options: Unpack[Options],
    ) -> None:
        check_betas(betas)
        check_nonnegative(epsilon=eps, weight_decay=weight_decay)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "decoupled_weight_decay": self.decoupled,
        }
        super().__init__(params, defaults, **options)

    def rule(self, group: Group) -> Rule:
        if group["amsgrad"]:
            return rules.AMSGRADW if self.decoupled else rules.AMSGRAD
        return rules.ADAMW if self.decoupled else rules.ADAM


class Adam(_Adam):
    """Adam (Kingma & Ba 2015), decay added to the gradient; drop-in for `torch.optim.Adam`.

    State: 8 bytes per parameter, 12 with `amsgrad`.
    """


class AdamW(_Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019); drop-in for torch's AdamW.

    State: 8 bytes per parameter, 12 with `amsgrad`; 2.1 with ``state="8bit"``.

    >>> import torch
    >>> w = torch.tensor([1.0], requires_grad=True)
    >>> optimizer = AdamW([w], lr=0.1, weight_decay=0.0)
    >>> (3 * w).backward()
    >>> _ = optimizer.step()
    >>> w
    tensor([0.9000], requires_grad=True)
    """

    decoupled = True

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, **options)


class NadamW(RuleOptimizer):
    """AdamW that looks ahead (Dozat 2016); as `torch.optim.NAdam` with decoupled decay.

    With ``decoupled_weight_decay=False`` it is `torch.optim.NAdam` with its defaults. State: 8
    bytes per parameter, and as in torch the product of the momentum schedule, so that a changed
    ``betas[0]`` or `momentum_decay` counts from then on.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 2e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = True,
        **options: Unpack[Options],
    ) -> None:
        check_betas(betas)
        check_nonnegative(epsilon=eps, weight_decay=weight_decay, momentum_decay=momentum_decay)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults, **options)

    @override
    def rule(self, group: Group) -> Rule:
        return rules.NADAMW if group["decoupled_weight_decay"] else rules.NADAM
