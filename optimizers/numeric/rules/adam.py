"""Adam, AdamW, their AMSGrad forms and NadamW.

Kingma & Ba 2015 (Adam), Loshchilov & Hutter 2019 (AdamW), Reddi et al. 2018 (AMSGrad), Dozat 2016
(Nadam). Conventions of torch: the decay comes before the step and is scaled by the rate, `eps` is
added after the bias correction.
"""

from __future__ import annotations

from typing import Any

from optimizers.numeric.rules.dialect import maximum, sqrt
from optimizers.numeric.rules.rule import Hyper, Rule, State, Tally

__all__ = ["ADAM", "ADAMW", "AMSGRAD", "AMSGRADW", "NADAM", "NADAMW"]


def adamw(p: Any, g: Any, s: Any, h: Any) -> Any:
    m, v = s
    lr, decay, a1, a2, c2, eps = h
    p = p - decay * p
    m = m + a1 * (g - m)
    v = v + a2 * (g * g - v)
    return p - lr * m / (sqrt(v) * c2 + eps), (m, v)


def adam(p: Any, g: Any, s: Any, h: Any) -> Any:
    m, v = s
    lr, wd, a1, a2, c2, eps = h
    g = g + wd * p
    m = m + a1 * (g - m)
    v = v + a2 * (g * g - v)
    return p - lr * m / (sqrt(v) * c2 + eps), (m, v)


def amsgradw(p: Any, g: Any, s: Any, h: Any) -> Any:
    m, v, top = s
    lr, decay, a1, a2, c2, eps = h
    p = p - decay * p
    m = m + a1 * (g - m)
    v = v + a2 * (g * g - v)
    top = maximum(top, v)
    return p - lr * m / (sqrt(top) * c2 + eps), (m, v, top)


def amsgrad(p: Any, g: Any, s: Any, h: Any) -> Any:
    m, v, top = s
    lr, wd, a1, a2, c2, eps = h
    g = g + wd * p
    m = m + a1 * (g - m)
    v = v + a2 * (g * g - v)
    top = maximum(top, v)
    return p - lr * m / (sqrt(top) * c2 + eps), (m, v, top)


def nadamw(p: Any, g: Any, s: Any, h: Any) -> Any:
    m, v = s
    of_m, of_g, decay, a1, a2, c2, eps = h
    p = p - decay * p
    m = m + a1 * (g - m)
    v = v + a2 * (g * g - v)
    return p - (of_m * m + of_g * g) / (sqrt(v) * c2 + eps), (m, v)


def nadam(p: Any, g: Any, s: Any, h: Any) -> Any:
    m, v = s
    of_m, of_g, wd, a1, a2, c2, eps = h
    g = g + wd * p
    m = m + a1 * (g - m)
    v = v + a2 * (g * g - v)
    return p - (of_m * m + of_g * g) / (sqrt(v) * c2 + eps), (m, v)


def _moments(o: Hyper, t: Any) -> tuple[Any, ...]:
    b1, b2 = o["betas"]
    return 1 / (1 - b1**t), 1 - b1, 1 - b2, (1 - b2**t) ** -0.5, o["eps"]


def decoupled(o: Hyper, t: Any) -> tuple[Any, ...]:
    """Scalars with weight decay applied to the parameter: ``lr c1, lr wd, 1-b1, 1-b2, c2, eps``."""
    c1, *rest = _moments(o, t)
    return o["lr"] * c1, o["lr"] * o["weight_decay"], *rest


def coupled(o: Hyper, t: Any) -> tuple[Any, ...]:
    """Scalars with weight decay added to the gradient: ``lr c1, wd, 1-b1, 1-b2, c2, eps``."""
    c1, *rest = _moments(o, t)
    return o["lr"] * c1, o["weight_decay"], *rest


def _mu(b1: Any, momentum_decay: float, t: Any) -> Any:
    return b1 * (1.0 - 0.5 * 0.96 ** (t * momentum_decay))


def _product(o: Hyper, t: Any) -> tuple[Any, ...]:
    """The product of the momentum schedule, over the schedule that each step had."""
    return (o["mu_product"] * _mu(o["betas"][0], o["momentum_decay"], t),)


def _nadam(o: Hyper, t: Any, decay: float) -> tuple[float, ...]:
    b1, psi = o["betas"][0], o["momentum_decay"]
    product, ahead = o["mu_product"], _mu(b1, psi, t + 1)
    of_g = o["lr"] * (1 - _mu(b1, psi, t)) / (1 - product)
    of_m = o["lr"] * ahead / (1 - product * ahead)
    return of_m, of_g, decay, *_moments(o, t)[1:]


def _nadam_decoupled(o: Hyper, t: Any) -> tuple[float, ...]:
    return _nadam(o, t, o["lr"] * o["weight_decay"])


def _nadam_coupled(o: Hyper, t: Any) -> tuple[float, ...]:
    return _nadam(o, t, o["weight_decay"])


_MOMENTS = (State("exp_avg"), State("exp_avg_sq", signed=False))
_WITH_TOP = (*_MOMENTS, State("max_exp_avg_sq", signed=False))

ADAMW = Rule("adamw", adamw, decoupled, _MOMENTS)
ADAM = Rule("adam", adam, coupled, _MOMENTS)
AMSGRADW = Rule("amsgradw", amsgradw, decoupled, _WITH_TOP)
AMSGRAD = Rule("amsgrad", amsgrad, coupled, _WITH_TOP)
_PRODUCT = (Tally("mu_product", 1.0),)
NADAMW = Rule("nadamw", nadamw, _nadam_decoupled, _MOMENTS, _PRODUCT, _product)
NADAM = Rule("nadam", nadam, _nadam_coupled, _MOMENTS, _PRODUCT, _product)
