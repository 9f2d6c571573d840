"""Gradient descent, with heavy-ball and Nesterov momentum.

Momentum: Polyak 1964; Nesterov's form as in Sutskever et al. 2013. As in `torch.optim.SGD`, weight
decay is added to the gradient, and the first step takes the gradient undamped.
"""

from __future__ import annotations

from typing import Any

from optimizers.numeric.rules.rule import Hyper, Rule, State
from optimizers.numeric.rules.scalars import either

__all__ = ["MOMENTUM", "NESTEROV", "SGD"]


def sgd(p: Any, g: Any, s: Any, h: Any) -> Any:
    lr, wd = h
    return p - lr * (g + wd * p), s


def momentum(p: Any, g: Any, s: Any, h: Any) -> Any:
    (m,) = s
    lr, wd, mu, fresh = h
    m = mu * m + fresh * (g + wd * p)
    return p - lr * m, (m,)


def nesterov(p: Any, g: Any, s: Any, h: Any) -> Any:
    (m,) = s
    lr, wd, mu, fresh = h
    g = g + wd * p
    m = mu * m + fresh * g
    return p - lr * (g + mu * m), (m,)


def _plain(o: Hyper, t: Any) -> tuple[float, ...]:
    return o["lr"], o["weight_decay"]


def _momentum(o: Hyper, t: Any) -> tuple[float, ...]:
    damping = o["dampening"]
    fresh = either(t == 1, 1.0, 1.0 - damping) if damping else 1.0
    return o["lr"], o["weight_decay"], o["momentum"], fresh


_BUFFER = (State("momentum_buffer"),)

SGD = Rule("sgd", sgd, _plain)
MOMENTUM = Rule("momentum", momentum, _momentum, _BUFFER)
NESTEROV = Rule("nesterov", nesterov, _momentum, _BUFFER)
