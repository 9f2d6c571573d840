"""SPAM: AdamW that clips spikes element by element and forgets its moments now and then.

Huang et al. 2025, "SPAM: Spike-Aware Adam with Momentum Reset". Where ``g^2 > theta v`` (v before
this step) the gradient becomes ``sign(g) sqrt(theta v)``, except in the first steps after a reset;
every `reset_interval` steps both moments start anew while the step count of the bias correction
goes on, and the rate warms up by a cosine.
"""

from __future__ import annotations

import math
from typing import Any

from optimizers.numeric.rules.adam import decoupled
from optimizers.numeric.rules.dialect import sign, sqrt, where
from optimizers.numeric.rules.rule import Hyper, Rule, State
from optimizers.numeric.rules.scalars import cosine, either

__all__ = ["SPAM", "is_reset", "since_reset"]


def spam(p: Any, g: Any, s: Any, h: Any) -> Any:
    m, v = s
    lr, decay, a1, a2, c2, eps, keep, armed, theta = h
    m = keep * m
    v = keep * v
    g = where(armed * (g * g) > theta * v, sign(g) * sqrt(theta * v), g)
    p = p - decay * p
    m = m + a1 * (g - m)
    v = v + a2 * (g * g - v)
    return p - lr * m / (sqrt(v) * c2 + eps), (m, v)


def since_reset(t: Any, interval: int) -> Any:
    """Steps since the last reset, 0 at the step that resets; counted from 1 before the first.

    >>> [since_reset(t, 3) for t in (1, 2, 3, 4, 6)]
    [1, 2, 0, 1, 0]
    """
    return t % interval if interval else t


def is_reset(t: Any, interval: int) -> Any:
    """Whether step `t` starts with empty moments."""
    return interval > 0 and t % interval == 0


def warmup(t: Any, interval: int, steps: int) -> Any:
    """The factor of the rate after a reset: a cosine from .01 to 1 over `steps`.

    >>> warmup(7, interval=500, steps=150)
    1.0
    >>> round(warmup(500, interval=500, steps=150), 4)
    0.01
    """
    if not interval or not steps:
        return 1.0
    k = since_reset(t, interval)
    rising = 1 - 0.99 * 0.5 * (1 + cosine(math.pi * k / steps))
    return either((t < interval) | (k >= steps), 1.0, rising)


def _spam(o: Hyper, t: Any) -> tuple[float, ...]:
    interval = o["reset_interval"]
    rate = {**o, "lr": o["lr"] * warmup(t, interval, o["warmup_steps"])}
    keep = either(is_reset(t, interval), 0.0, 1.0)
    armed = either(since_reset(t, interval) >= o["grace_steps"], 1.0, 0.0)
    return *decoupled(rate, t), keep, armed, o["threshold"]


SPAM = Rule("spam", spam, _spam, (State("exp_avg"), State("exp_avg_sq", signed=False)))
