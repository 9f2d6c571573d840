"""AdamP and SGDP: steps without the part that only grows a scale-invariant weight."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.hyperparameters import check_betas, check_nonnegative
from optimizers.numeric.members import Group, Member
from optimizers.numeric.rule_optimizer import Options, RuleOptimizer
from optimizers.numeric.rules import adam, momentum
from optimizers.numeric.rules.rule import Rule
from optimizers.numeric.sgd import check_momentum

__all__ = ["SGDP", "AdamP"]


def projected(
    p: Tensor, g: Tensor, u: Tensor, delta: float, wd_ratio: float
) -> tuple[Tensor, Tensor]:
    """The step `u` without its radial part where `p` looks scale-invariant, and the decay's ratio.

    Rows (channels) are tried first, then the whole tensor: where the largest cosine between
    gradient and weight is below ``delta / sqrt(row length)``, the projection is taken. Decided by
    tensor comparisons alone, so nothing waits for the device. Heo et al. 2021.
    """
    ratio = p.new_ones(())
    out, done = u, torch.zeros((), dtype=torch.bool, device=p.device)
    if p.ndim < 2 or not p.numel():
        return out, ratio
    for rows in (p.shape[0], 1):
        pv, gv, uv = (x.reshape(rows, -1) for x in (p, g, u))
        cosine = torch.nn.functional.cosine_similarity(gv, pv, dim=1, eps=1e-8).abs().amax()
        take = (cosine < delta / pv.shape[1] ** 0.5) & ~done
        unit = pv / pv.norm(dim=1, keepdim=True).clamp_min(1e-8)
        flat = (uv - unit * (unit * uv).sum(dim=1, keepdim=True)).view_as(u)
        out = torch.where(take, flat, out)
        ratio = torch.where(take, wd_ratio, ratio)
        done = done | take
    return out, ratio


class _Projected(RuleOptimizer):
    """A rule whose step is projected before it is applied."""

    whole: bool = True

    def update(self, group: Group, members: list[Member]) -> None:
        plain = {**group, "weight_decay": 0.0, "lr": 1.0}
        for m in members:
            p = m.p.to(torch.promote_types(m.p.dtype, torch.float32))
            g = m.g.to(p.dtype)
            step = Member(m.tensor, torch.zeros_like(p), g, m.state, m.t)
            super().update(plain, [step])
            g = -g if group["maximize"] else g
            u, ratio = projected(p, g, -step.p, group["delta"], group["wd_ratio"])
            p = p * (1 - group["lr"] * group["weight_decay"] * ratio) - group["lr"] * u
            m.p.copy_(p)


class AdamP(_Projected):
    """AdamW that does not grow the norm of scale-invariant weights (Heo et al. 2021).

    `delta` is the cosine below which a weight counts as scale-invariant, `wd_ratio` multiplies the
    decay there. State: 8 bytes per parameter.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        delta: float = 0.1,
        wd_ratio: float = 0.1,
        **options: Unpack[Options],
    ) -> None:
        check_betas(betas)
        check_nonnegative(epsilon=eps, weight_decay=weight_decay, delta=delta, wd_ratio=wd_ratio)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "delta": delta,
            "wd_ratio": wd_ratio,
        }
        super().__init__(params, defaults, **options)

    @override
    def rule(self, group: Group) -> Rule:
        return adam.ADAMW


class SGDP(_Projected):
    """SGD that does not grow the norm of scale-invariant weights (Heo et al. 2021).

    Decay is decoupled. State: 4 bytes per parameter.
    """

    counts: ClassVar[bool] = False

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-1,
        momentum: float = 0.9,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        delta: float = 0.1,
        wd_ratio: float = 0.1,
        **options: Unpack[Options],
    ) -> None:
        check_momentum(momentum, dampening, nesterov)
        check_nonnegative(weight_decay=weight_decay, delta=delta, wd_ratio=wd_ratio)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "delta": delta,
            "wd_ratio": wd_ratio,
        }
        super().__init__(params, defaults, **options)

    @override
    def rule(self, group: Group) -> Rule:
        return momentum.NESTEROV if group["nesterov"] else momentum.MOMENTUM
