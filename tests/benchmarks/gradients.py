"""What tracing costs beside plain torch: ``python -m tests.benchmarks.gradients``.

Prints microseconds for one small operation (what tracing adds counts), and the time of a training loop
of a small network, traced and plain, in turns; the median of the ratios counts. Both are times of the
processor on one thread, so that other programs on the machine count less.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

import tracegraph as tg

OPERATION_LIMIT = 10.0
"""Microseconds that tracing may add to one operation."""

LOOP_LIMIT = 1.03
"""How long the traced loop may take, plain torch being 1."""


def operation(count: int = 500, rounds: int = 40) -> dict[str, tuple[float, float]]:
    """Microseconds of one operation in plain torch and traced, by name; the best of many short runs.

    The two take turns, so that a machine that is slower for a while is so for both.
    """
    x, y = torch.randn(8, requires_grad=True), torch.randn(8)
    traced_x, traced_y = tg.node(x, trainable=True), tg.node(y)
    rate, once = (tg.node(0.5, trainable=True) for _ in range(2))
    held = rate + 1.0  # a forward that uses the number elsewhere, too: it is in torch already
    number = torch.tensor(0.5, requires_grad=True)
    pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "x * y": (lambda: x * y, lambda: traced_x * traced_y),
        "x * 2.0": (lambda: x * 2.0, lambda: traced_x * 2.0),
        "x.sin()": (lambda: x.sin(), lambda: traced_x.sin()),
        "torch.exp(x)": (lambda: torch.exp(x), lambda: torch.exp(traced_x)),  # type: ignore[arg-type]
        "y * number parameter": (lambda: y * number, lambda: traced_y * rate),
        "... for the first time": (
            lambda: y * torch.tensor(0.5, requires_grad=True),
            lambda: traced_y * once,
        ),
    }
    best = {name: (float("inf"), float("inf")) for name in pairs}
    for _ in range(rounds):
        for name, (plain, traced) in pairs.items():
            before = best[name]
            now = _microseconds(plain, count), _microseconds(traced, count)
            best[name] = min(before[0], now[0]), min(before[1], now[1])
    del held
    return best


def _microseconds(act: Callable[[], Any], count: int) -> float:
    start = time.process_time()
    for _ in range(count):
        act()
    return (time.process_time() - start) / count * 1e6


class Loop:
    """A network of two layers on a batch, trained by torch's AdamW, traced or not."""

    def __init__(self, *, traced: bool, width: int, batch: int) -> None:
        torch.manual_seed(0)
        self.traced = traced
        tensors = [torch.randn(width, width) / width**0.5 for _ in range(2)]
        tensors = [t.requires_grad_() for t in tensors]
        self.weights: list[Any] = (
            [tg.node(t, trainable=True) for t in tensors] if traced else tensors
        )
        self.optimizer = torch.optim.AdamW(tensors, lr=1e-3)
        self.x, self.target = torch.randn(batch, width), torch.randn(batch, width)

    def step(self) -> float:
        """One step; gives its seconds."""
        start = time.process_time()
        first, second = self.weights
        loss = (((self.x @ first).tanh() @ second - self.target) ** 2).mean()
        self.optimizer.zero_grad()
        if self.traced:
            for weight in self.weights:
                weight.zero_feedback()
            loss.backward(1.0)
        else:
            loss.backward()
        self.optimizer.step()
        return time.process_time() - start


def loop(*, width: int = 384, batch: int = 512, rounds: int = 60) -> tuple[float, float, float]:
    """Seconds of a plain step, of a traced one, and the median of their ratios."""
    plain = Loop(traced=False, width=width, batch=batch)
    traced = Loop(traced=True, width=width, batch=batch)
    for each in (plain, traced):
        for _ in range(3):
            each.step()
    pairs = []
    for k in range(rounds):  # taking turns to be first
        first, second = (plain, traced) if k % 2 else (traced, plain)
        took = {id(each): each.step() for each in (first, second)}
        pairs.append((took[id(plain)], took[id(traced)]))
    ratio = statistics.median(b / a for a, b in pairs)
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), ratio


def main() -> int:
    """Print the rows; 1 where one misses its limit."""
    torch.set_num_threads(1)
    missed = False
    print(f"{'us for one operation':28}{'torch':>10}{'traced':>10}{'added':>10}{'at most':>10}")
    for name, (plain, traced) in operation().items():
        missed = missed or traced - plain > OPERATION_LIMIT
        print(f"{name:28}{plain:10.2f}{traced:10.2f}{traced - plain:10.2f}{OPERATION_LIMIT:10.2f}")
    plain_s, traced_s, ratio = loop()
    missed = missed or ratio > LOOP_LIMIT
    print(
        f"\n{'ms for one training step':28}{'torch':>10}{'traced':>10}{'ratio':>10}{'at most':>10}"
    )
    print(
        f"{'2 layers of 384, batch 512':28}{plain_s * 1e3:10.3f}{traced_s * 1e3:10.3f}"
        f"{ratio:10.3f}{LOOP_LIMIT:10.3f}"
    )
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
