"""Rules that read a diagonal of the Hessian: Sophia and AdaHessian.

Liu et al. 2023 (Sophia), Yao et al. 2021 (AdaHessian). An estimator writes the curvature state;
these rules only read it.
"""

from __future__ import annotations

from typing import Any

from optimizers.numeric.rules.adam import decoupled
from optimizers.numeric.rules.dialect import maximum, minimum, sqrt
from optimizers.numeric.rules.rule import Hyper, Rule, State

__all__ = ["ADAHESSIAN", "SOPHIA"]


def sophia(p: Any, g: Any, s: Any, h: Any) -> Any:
    m, hessian = s
    lr, decay, a1, scale, floor, low, high = h
    p = p - decay * p
    m = m + a1 * (g - m)
    u = m / maximum(scale * hessian, floor)
    return p - lr * minimum(maximum(u, low), high), (m, hessian)


def adahessian(p: Any, g: Any, s: Any, h: Any) -> Any:
    m, v, d = s
    lr, decay, a1, a2, c2, eps = h
    p = p - decay * p
    m = m + a1 * (g - m)
    v = v + a2 * (d * d - v)
    return p - lr * m / (sqrt(v) * c2 + eps), (m, v, d)


def _sophia(o: Hyper, t: Any) -> tuple[float, ...]:
    scale = o["rho"] * o["batch_size"]
    return o["lr"], o["lr"] * o["weight_decay"], 1 - o["betas"][0], scale, 1e-15, -1.0, 1.0


SOPHIA = Rule("sophia", sophia, _sophia, (State("exp_avg"), State("hessian", given=True)))
ADAHESSIAN = Rule(
    "adahessian",
    adahessian,
    decoupled,
    (
        State("exp_avg"),
        State("exp_hessian_diag_sq", signed=False),
        State("hessian_diag", given=True),
    ),
)
