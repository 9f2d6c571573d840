"""SPAM and Stable-SPAM: Adam for gradients with spikes."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.codecs.codec import computing_dtype
from optimizers.numeric.hyperparameters import check_betas, check_nonnegative
from optimizers.numeric.members import Group, Member
from optimizers.numeric.rule_optimizer import Options, RuleOptimizer
from optimizers.numeric.rules.adam import ADAMW
from optimizers.numeric.rules.rule import Rule
from optimizers.numeric.rules.spam import SPAM as SPAM_RULE
from optimizers.numeric.rules.spam import is_reset, since_reset

__all__ = ["SPAM", "StableSPAM"]


class SPAM(RuleOptimizer):
    """AdamW that clips spikes and empties its moments now and then (Huang et al. 2025).

    An element whose square exceeds `threshold` times its second moment is clipped to that, except
    in the `grace_steps` steps after a reset. Every `reset_interval` steps (0: never) the moments
    start anew and the rate warms up over `warmup_steps`. State: 8 bytes per parameter.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        threshold: float = 5000.0,
        reset_interval: int = 500,
        warmup_steps: int = 150,
        grace_steps: int = 20,
        **options: Unpack[Options],
    ) -> None:
        check_betas(betas)
        check_nonnegative(
            epsilon=eps,
            weight_decay=weight_decay,
            threshold=threshold,
            reset_interval=reset_interval,
            warmup_steps=warmup_steps,
            grace_steps=grace_steps,
        )
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "threshold": threshold,
            "reset_interval": reset_interval,
            "warmup_steps": warmup_steps,
            "grace_steps": grace_steps,
        }
        super().__init__(params, defaults, **options)

    @override
    def rule(self, group: Group) -> Rule:
        return SPAM_RULE


def steadied(g: Tensor, state: dict[str, Any], gammas: tuple[float, ...], t: int) -> Tensor:
    """The gradient clipped to its usual largest element and scaled to its usual norm.

    The three averages of `state` are changed; all are corrected by their own age `t`, which no
    reset touches. Nothing waits for the device.
    """
    g1, g2, g3 = gammas
    top_avg, norm_avg, norm_sq_avg = (state[key] for key in ("m_max_t", "m_norm_t", "v_norm_t"))
    if not g.numel():
        return g
    top = g.abs().amax()
    top_avg.lerp_(top, 1 - g3)
    limit = top_avg / (1 - g3**t)
    tiny = torch.finfo(g.dtype).tiny
    g = torch.where(g.abs() > limit, g / top.clamp_min(tiny) * limit, g)
    norm = torch.linalg.vector_norm(g)
    norm_avg.lerp_(norm, 1 - g1)
    norm_sq_avg.lerp_(norm * norm, 1 - g2)
    usual = (norm_avg / (1 - g1**t)) / ((norm_sq_avg / (1 - g2**t)).sqrt() + 1e-6)
    return torch.where(norm > 0, g / norm.clamp_min(tiny) * usual, g)


class StableSPAM(RuleOptimizer):
    """AdamW on steadied gradients (Huang et al. 2025, "Stable-SPAM").

    Elements are clipped at the running average of the tensor's largest one, the norm follows its
    own running averages, and the moments start anew every `reset_interval` steps (0: never).
    `gammas` are the decay rates of the average norm, its square, and the largest element. State: 8
    bytes per parameter and three numbers per tensor.

    The averages keep their own age: the authors' code corrects them by the step count that a reset
    sets back, which lets spikes through just after one.
    """

    whole: bool = True

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        gammas: tuple[float, float, float] = (0.7, 0.9, 0.999),
        reset_interval: int = 1000,
        **options: Unpack[Options],
    ) -> None:
        check_betas(betas)
        check_betas(gammas, count=3)
        check_nonnegative(epsilon=eps, weight_decay=weight_decay, reset_interval=reset_interval)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "gammas": gammas,
            "reset_interval": reset_interval,
        }
        super().__init__(params, defaults, **options)

    @override
    def rule(self, group: Group) -> Rule:
        return ADAMW

    @override
    def begin(self, state: dict[str, Any], p: Tensor, group: Group) -> None:
        super().begin(state, p, group)
        dtype = computing_dtype(p.dtype)
        for key in ("m_max_t", "m_norm_t", "v_norm_t"):
            state.setdefault(key, p.new_zeros((), dtype=dtype))

    @override
    def update(self, group: Group, members: list[Member]) -> None:
        interval = int(group["reset_interval"])
        steady = []
        for m in members:
            if is_reset(m.t, interval):
                super().begin(_emptied(m.state, self.rule(group)), m.tensor, group)
            age = m.t if not interval or m.t < interval else since_reset(m.t, interval) + 1
            g = m.g.to(computing_dtype(m.p.dtype))
            g = steadied(g, m.state, group["gammas"], m.t)
            steady.append(Member(m.tensor, m.p, g, m.state, age))
        super().update(group, steady)


def _emptied(state: dict[str, Any], rule: Rule) -> dict[str, Any]:
    """`state` without the rule's moments, which `begin` then makes anew."""
    names = [kind.name for kind in rule.states]
    for key in [key for key in state if key.startswith(tuple(names)) and key != "step"]:
        del state[key]
    return state
