"""Lion and Lion-K."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.counting import read
from optimizers.numeric.hyperparameters import check_betas, check_nonnegative
from optimizers.numeric.members import Group, Member
from optimizers.numeric.rule_optimizer import Options, RuleOptimizer
from optimizers.numeric.rules import lion as rules
from optimizers.numeric.rules.rule import Rule

__all__ = ["Lion", "LionK"]


class Lion(RuleOptimizer):
    """Lion (Chen et al. 2023): the sign of an interpolated momentum. State: 4 bytes per parameter.

    Use a rate 3 to 10 times smaller than AdamW's and a decay as much larger. With decay ``w`` it
    minimises under ``max |p| <= 1/w``.

    >>> w = torch.tensor([1.0, -1.0, 1.0], requires_grad=True)
    >>> optimizer = Lion([w], lr=0.5)
    >>> (w * torch.tensor([1e-9, 5.0, 0.0])).sum().backward()
    >>> _ = optimizer.step()
    >>> w
    tensor([ 0.5000, -1.5000,  1.0000], requires_grad=True)
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        check_betas(betas)
        check_nonnegative(weight_decay=weight_decay)
        super().__init__(
            params, {"lr": lr, "betas": betas, "weight_decay": weight_decay}, **options
        )

    @override
    def rule(self, group: Group) -> Rule:
        return rules.LION


class LionK(RuleOptimizer):
    """Lion with another convex function than the l1 norm (Chen et al. 2024, "Lion-K").

    It minimises ``f(p) + K*(w p) / w`` for decay ``w``. `kappa` is "l1" (Lion: a box), "huber" (a
    sign that is linear within `delta` of zero) or "l2" (each tensor in a ball:
    ``||p|| <= 1/w``).
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        kappa: str = "l1",
        delta: float = 1e-3,
        **options: Unpack[Options],
    ) -> None:
        check_betas(betas)
        check_nonnegative(weight_decay=weight_decay)
        if kappa not in ("l1", "l2", "huber"):
            raise ValueError(f"kappa={kappa!r} is unknown; use 'l1', 'l2' or 'huber'")
        if not delta > 0:
            raise ValueError(f"delta={delta} must be more than 0")
        defaults = {
            "lr": lr,
            "betas": betas,
            "weight_decay": weight_decay,
            "kappa": kappa,
            "delta": delta,
        }
        self.whole = kappa == "l2"
        super().__init__(params, defaults, **options)

    @override
    def elementwise(self) -> bool:
        return not self.whole

    @override
    def rule(self, group: Group) -> Rule:
        return rules.LION if group["kappa"] == "l1" else rules.LION_HUBER

    @override
    def update(self, group: Group, members: list[Member]) -> None:
        if group["kappa"] != "l2":
            super().update(group, members)
            return
        # the Huber rule with a width that nothing exceeds divides by that width: made the norm,
        # it is the gradient of the l2 norm
        b1 = group["betas"][0]
        for m in members:
            g = -m.g if group["maximize"] else m.g
            held = self.decoded(m, "exp_avg", group)
            norm = read(torch.linalg.vector_norm(torch.lerp(held, g.to(held.dtype), 1 - b1)), 1.0)
            delta = norm if norm > 0 else 1.0
            super().update({**group, "delta": delta}, [m])
