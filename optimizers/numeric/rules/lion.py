"""Lion and the element-wise members of the Lion-K family.

Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms" (Lion); Chen et al. 2024, "Lion
Secretly Solves Constrained Optimization" (Lion-K: the sign is the subgradient of a convex K). With
decay ``w`` Lion keeps ``max |p| <= 1/w``.
"""

from __future__ import annotations

from typing import Any

from optimizers.numeric.rules.dialect import maximum, minimum, sign
from optimizers.numeric.rules.rule import Hyper, Rule, State

__all__ = ["LION", "LION_HUBER"]


def lion(p: Any, g: Any, s: Any, h: Any) -> Any:
    (m,) = s
    lr, decay, a1, a2 = h
    u = sign(m + a1 * (g - m))
    return p - decay * p - lr * u, (m + a2 * (g - m),)


def lion_huber(p: Any, g: Any, s: Any, h: Any) -> Any:
    (m,) = s
    lr, decay, a1, a2, steep, low, high = h
    u = minimum(maximum(steep * (m + a1 * (g - m)), low), high)
    return p - decay * p - lr * u, (m + a2 * (g - m),)


def _lion(o: Hyper, t: Any) -> tuple[float, ...]:
    b1, b2 = o["betas"]
    return o["lr"], o["lr"] * o["weight_decay"], 1 - b1, 1 - b2


def _huber(o: Hyper, t: Any) -> tuple[float, ...]:
    return *_lion(o, t), 1 / o["delta"], -1.0, 1.0


LION = Rule("lion", lion, _lion, (State("exp_avg"),))
LION_HUBER = Rule("lion_huber", lion_huber, _huber, (State("exp_avg"),))
