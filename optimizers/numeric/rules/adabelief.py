"""AdaBelief: the step shrinks where the gradient departs from its own average.

Zhuang et al. 2020. `eps` is added to the stored second moment at every step, as in the authors'
code, so it accumulates there up to ``eps / (1 - b2)``, and once more to the denominator.
"""

from __future__ import annotations

from typing import Any

from optimizers.numeric.rules.adam import decoupled
from optimizers.numeric.rules.dialect import sqrt
from optimizers.numeric.rules.rule import Rule, State

__all__ = ["ADABELIEF"]


def adabelief(p: Any, g: Any, s: Any, h: Any) -> Any:
    m, v = s
    lr, decay, a1, a2, c2, eps = h
    p = p - decay * p
    m = m + a1 * (g - m)
    v = v + a2 * ((g - m) * (g - m) - v) + eps
    return p - lr * m / (sqrt(v) * c2 + eps), (m, v)


ADABELIEF = Rule(
    "adabelief", adabelief, decoupled, (State("exp_avg"), State("exp_avg_var", signed=False))
)
