"""The published update formulas in numpy float64, written apart from the optimizers.

Each takes ``(p, gradients, lr, wd)`` and returns the parameter after all of them. Defaults of the
remaining hyperparameters are those of the classes under test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

A = NDArray[np.float64]
Formula = Callable[[A, Sequence[A], float, float], A]


def sgd_momentum(p: A, gs: Sequence[A], lr: float, wd: float) -> A:
    buf = None
    for g in gs:
        d = g + wd * p
        buf = d if buf is None else 0.9 * buf + d
        p = p - lr * buf
    return p


def adamw(p: A, gs: Sequence[A], lr: float, wd: float) -> A:
    m = v = np.zeros_like(p)
    for t, g in enumerate(gs, 1):
        p = p * (1 - lr * wd)
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        p = p - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return p


def lion(p: A, gs: Sequence[A], lr: float, wd: float) -> A:
    m = np.zeros_like(p)
    for g in gs:
        p = p * (1 - lr * wd) - lr * np.sign(0.9 * m + 0.1 * g)
        m = 0.99 * m + 0.01 * g
    return p


def lion_ball(p: A, gs: Sequence[A], lr: float, wd: float) -> A:
    m = np.zeros_like(p)
    for g in gs:
        c = 0.9 * m + 0.1 * g
        p = p * (1 - lr * wd) - lr * c / np.linalg.norm(c)
        m = 0.99 * m + 0.01 * g
    return p


def adabelief(p: A, gs: Sequence[A], lr: float, wd: float) -> A:
    m = s = np.zeros_like(p)
    for t, g in enumerate(gs, 1):
        p = p * (1 - lr * wd)
        m = 0.9 * m + 0.1 * g
        s = 0.999 * s + 0.001 * (g - m) ** 2 + 1e-16
        p = p - lr * m / (1 - 0.9**t) / (np.sqrt(s / (1 - 0.999**t)) + 1e-16)
    return p


def exadam(p: A, gs: Sequence[A], lr: float, wd: float, *, log_factor: bool = False) -> A:
    m = v = np.zeros_like(p)
    b1, b2, eps = 0.9, 0.999, 1e-8
    for t, g in enumerate(gs, 1):
        p = p * (1 - lr * wd)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        d1 = 1 + v / (v + eps) * b2**t
        d2 = 1 + m**2 / (m**2 + eps) * b1**t
        m_, v_, g_ = m / (1 - b1**t) * d1, v / (1 - b2**t) * d2, g / (1 - b1**t) * d1
        rate = lr * np.log(np.sqrt(2) * np.sqrt(t + 1)) if log_factor else lr
        p = p - rate * (m_ + g_) / (np.sqrt(v_) + eps)
    return p


def exadam_first(p: A, gs: Sequence[A], lr: float, wd: float) -> A:
    return exadam(p, gs, lr, wd, log_factor=True)


def spam(p: A, gs: Sequence[A], lr: float, wd: float) -> A:
    """Resets every 10 steps, warm-up 4, grace 3, threshold 50."""
    m = v = np.zeros_like(p)
    for t, g in enumerate(gs, 1):
        k = t % 10
        if k == 0:
            m = v = np.zeros_like(p)
        if k >= 3:
            g = np.where(g**2 > 50 * v, np.sign(g) * np.sqrt(50 * v), g)
        rate = lr
        if t >= 10 and k < 4:
            rate = lr * (1 - 0.99 * 0.5 * (1 + np.cos(np.pi * k / 4)))
        p = p * (1 - rate * wd)
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        p = p - rate * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6)
    return p


def stable_spam(p: A, gs: Sequence[A], lr: float, wd: float) -> A:
    """Resets every 12 steps."""
    m = v = np.zeros_like(p)
    top = n1 = n2 = 0.0
    age = 0
    for t, g in enumerate(gs, 1):
        if t % 12 == 0:
            m = v = np.zeros_like(p)
            age = 0
        age += 1
        high = np.abs(g).max()
        top = 0.999 * top + 0.001 * high
        limit = top / (1 - 0.999**t)
        g = np.where(np.abs(g) > limit, g / high * limit, g)
        n = np.sqrt((g**2).sum())
        n1 = 0.7 * n1 + 0.3 * n
        n2 = 0.9 * n2 + 0.1 * n**2
        g = g / n * (n1 / (1 - 0.7**t)) / (np.sqrt(n2 / (1 - 0.9**t)) + 1e-6)
        p = p * (1 - lr * wd)
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        p = p - lr * m / (1 - 0.9**age) / (np.sqrt(v / (1 - 0.999**age)) + 1e-8)
    return p


def adamp(p: A, gs: Sequence[A], lr: float, wd: float) -> A:
    m = v = np.zeros_like(p)
    for t, g in enumerate(gs, 1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        u = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        u, ratio = radial(p, g, u)
        p = p * (1 - lr * wd * ratio) - lr * u
    return p


def sgdp(p: A, gs: Sequence[A], lr: float, wd: float) -> A:
    buf = None
    for g in gs:
        buf = g if buf is None else 0.9 * buf + g
        u, ratio = radial(p, g, buf)
        p = p * (1 - lr * wd * ratio) - lr * u
    return p


def radial(p: A, g: A, u: A) -> tuple[A, float]:
    if p.ndim < 2:
        return u, 1.0
    for rows in (p.shape[0], 1):
        ps, gs, us = (x.reshape(rows, -1) for x in (p, g, u))
        cos = [
            abs(a @ b) / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-300)
            for a, b in zip(ps, gs, strict=True)
        ]
        if max(cos) < 0.1 / np.sqrt(ps.shape[1]):
            flat = [b - a * (a @ b) / (a @ a) for a, b in zip(ps, us, strict=True)]
            return np.stack(flat).reshape(u.shape), 0.1
    return u, 1.0
