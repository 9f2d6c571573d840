"""EXAdam: Adam with debiasing terms that mix both moments, in its two published forms.

Adly 2024, "EXAdam: The Power of Adaptive Cross-Moments". The first release scales the rate by
``ln(sqrt(2) sqrt(t + 1))``; the later one does not. Under a constant gradient the steps are several
times the rate (16, 4.3, 3.8 and 2.7 times at steps 1, 10, 100 and 1000), where Adam's are one.
"""

from __future__ import annotations

from typing import Any

from optimizers.numeric.rules.dialect import sqrt
from optimizers.numeric.rules.rule import Hyper, Rule, State
from optimizers.numeric.rules.scalars import logarithm

__all__ = ["EXADAM"]


def exadam(p: Any, g: Any, s: Any, h: Any) -> Any:
    m, v = s
    lr, decay, a1, a2, eps, c1, c2, fade1, fade2 = h
    p = p - decay * p
    m = m + a1 * (g - m)
    v = v + a2 * (g * g - v)
    d1 = 1.0 + fade2 * (v / (v + eps))
    d2 = 1.0 + fade1 * (m * m / (m * m + eps))
    u = c1 * (m + g) * d1
    return p - lr * u / (sqrt(c2 * v * d2) + eps), (m, v)


def _exadam(o: Hyper, t: Any) -> tuple[float, ...]:
    b1, b2 = o["betas"]
    lr = o["lr"]
    if o["log_factor"]:
        lr = lr * 0.5 * logarithm(2 * (t + 1))
    fade1, fade2 = b1**t, b2**t
    return (
        *(lr, o["lr"] * o["weight_decay"], 1 - b1, 1 - b2, o["eps"]),
        *(1 / (1 - fade1), 1 / (1 - fade2), fade1, fade2),
    )


EXADAM = Rule("exadam", exadam, _exadam, (State("exp_avg"), State("exp_avg_sq", signed=False)))
