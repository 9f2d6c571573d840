"""Schedule-free AdamW: an average of the iterates in place of a falling rate.

Defazio et al. 2024, "The Road Less Scheduled". The parameter holds ``y = (1-b) z + b x``, where z
moves by Adam's step and x is the average of all z; this rule writes both y and z.
"""

from __future__ import annotations

from typing import Any

from optimizers.numeric.rules.dialect import sqrt
from optimizers.numeric.rules.rule import Hyper, Rule, State

__all__ = ["SCHEDULE_FREE"]


def schedule_free(p: Any, g: Any, s: Any, h: Any) -> Any:
    z, v = s
    lr, wd, a2, c2, eps, fresh, pull = h
    v = v + a2 * (g * g - v)
    u = g / (sqrt(v) * c2 + eps) + wd * p
    return p + fresh * (z - p) - pull * u, (z - lr * u, v)


def _scalars(o: Hyper, t: Any) -> tuple[float, ...]:
    b1, b2 = o["betas"]
    lr, fresh = o["lr"], o["fresh"]
    pull = lr * (1 - b1 * (1 - fresh))
    return lr, o["weight_decay"], 1 - b2, (1 - b2**t) ** -0.5, o["eps"], fresh, pull


SCHEDULE_FREE = Rule(
    "schedule_free", schedule_free, _scalars, (State("z"), State("exp_avg_sq", signed=False))
)
