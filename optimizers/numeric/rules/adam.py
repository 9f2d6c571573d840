"""Adam, AdamW, their AMSGrad forms and NadamW.

Kingma & Ba 2015 (Adam), Loshchilov & Hutter 2019 (AdamW), Reddi et al. 2018 (AMSGrad), Dozat 2016
(Nadam). Conventions of torch: the decay comes before the step and is scaled by the rate, `eps` is
added after the bias correction.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from optimizers.numeric.rules.dialect import maximum, sqrt
from optimizers.numeric.rules.rule import Hyper, Rule, State
from optimizers.numeric.rules.scalars import either

__all__ = ["ADAM", "ADAMW", "AMSGRAD", "AMSGRADW", "NADAM", "NADAMW", "momentum_product"]


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


@lru_cache(maxsize=64)
def _products(b1: float, momentum_decay: float) -> list[float]:
    return [1.0]


def momentum_product(b1: float, momentum_decay: float, t: Any) -> Any:
    """Nadam's product of the momentum schedule over the steps 1 to `t`.

    >>> momentum_product(0.9, 0.0, 2)
    0.2025
    """
    if not isinstance(t, int):
        return _product_on_device(b1, momentum_decay, t)
    products = _products(b1, momentum_decay)
    while len(products) <= t:
        products.append(products[-1] * _mu(b1, momentum_decay, len(products)))
    return products[t]


def _product_on_device(b1: float, momentum_decay: float, t: Any) -> Any:
    """The product for a tensor of steps, over as many factors as change ``1 - product``.

    No factor exceeds `b1`, so that the others are together less than float64 holds beside 1.
    """
    count = 1 + math.ceil(-37 / math.log(b1)) if b1 > 0 else 1
    k = t.new_ones(count).cumsum(0)
    return either(k <= t[:, None], _mu(b1, momentum_decay, k), 1.0).prod(1)


def _nadam(o: Hyper, t: Any, decay: float) -> tuple[float, ...]:
    b1, psi = o["betas"][0], o["momentum_decay"]
    product, ahead = momentum_product(b1, psi, t), momentum_product(b1, psi, t + 1)
    of_g = o["lr"] * (1 - _mu(b1, psi, t)) / (1 - product)
    of_m = o["lr"] * _mu(b1, psi, t + 1) / (1 - ahead)
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
NADAMW = Rule("nadamw", nadamw, _nadam_decoupled, _MOMENTS)
NADAM = Rule("nadam", nadam, _nadam_coupled, _MOMENTS)
