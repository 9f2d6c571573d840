"""Schedule-free AdamW: an average of the iterates in place of a falling rate.

Defazio et al. 2024, "The Road Less Scheduled". The parameter holds ``y = (1-b) z + b x``, where z
moves by Adam's step and x is the average of all z; this rule writes both y and z.
"""

from __future__ import annotations

import sys
from typing import Any

from optimizers.numeric.rules.dialect import sqrt
from optimizers.numeric.rules.rule import Hyper, Rule, State, Tally
from optimizers.numeric.rules.scalars import larger, smaller

__all__ = ["SCHEDULE_FREE"]


def schedule_free(p: Any, g: Any, s: Any, h: Any) -> Any:
    z, v = s
    lr, wd, a2, c2, eps, fresh, pull = h
    v = v + a2 * (g * g - v)
    u = g / (sqrt(v) * c2 + eps) + wd * p
    return p + fresh * (z - p) - pull * u, (z - lr * u, v)


def _rate(o: Hyper, t: Any) -> Any:
    warmup = o["warmup_steps"]
    return o["lr"] * smaller(t / warmup, 1.0) if warmup else o["lr"]


def _weights(o: Hyper, t: Any) -> tuple[Any, ...]:
    """The largest rate so far, whose square is the weight of a step, and the sum of the weights."""
    top = larger(o["lr_max"], _rate(o, t))
    return top, o["weight_sum"] + top**2


def _scalars(o: Hyper, t: Any) -> tuple[float, ...]:
    b1, b2 = o["betas"]
    lr = _rate(o, t)
    fresh = o["lr_max"] ** 2 / larger(o["weight_sum"], sys.float_info.min)  # 0 while rates are 0
    pull = lr * (1 - b1 * (1 - fresh))
    return lr, o["weight_decay"], 1 - b2, (1 - b2**t) ** -0.5, o["eps"], fresh, pull


SCHEDULE_FREE = Rule(
    "schedule_free",
    schedule_free,
    _scalars,
    (State("z"), State("exp_avg_sq", signed=False)),
    (Tally("lr_max"), Tally("weight_sum")),
    _weights,
)
