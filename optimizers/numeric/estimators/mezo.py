"""MeZO: gradient descent by two losses along a random direction, in the memory of inference."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.estimators.directions import direction_like
from optimizers.numeric.hyperparameters import check_nonnegative
from optimizers.numeric.members import Member, movable, real
from optimizers.numeric.optimizer import NumericOptimizer
from tracegraph.errors import NonFinite

__all__ = ["MeZO"]


class MeZO(NumericOptimizer):
    """Zeroth-order SGD (Malladi et al. 2023): ``p -= lr (d z + wd p)``, z drawn again from its seed.

    ``d = (L(p + eps z) - L(p - eps z)) / (2 eps)``, clipped to ``[-clip, clip]``; `samples`
    directions are averaged. `step` needs a closure that returns the loss, and calls it twice per
    sample without gradients. Nothing is kept but numbers. Without `keep` parameters are put back by
    arithmetic, which moves them by up to four roundings per sample; with it they are put back from
    copies to the last bit. By default copies are made of bfloat16 and float16 alone, where the
    roundings would be larger than the steps. On the scales of quantized weights, with `clip`, it is
    QZO (Shang et al. 2025). A loss that is not finite is skipped, or raised. Where some tensors require
    gradients, those that do not are frozen. `rounding` is that of NumericOptimizer.

    >>> w = torch.tensor([1.0, -1.0])
    >>> optimizer = MeZO([w], lr=0.1)
    >>> for _ in range(100):
    ...     loss = optimizer.step(lambda: w.square().sum())
    >>> bool(loss < 1e-3)
    True
    """

    counts = False

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-6,
        eps: float = 1e-3,
        weight_decay: float = 0.0,
        *,
        clip: float = math.inf,
        samples: int = 1,
        seed: int = 0,
        keep: bool | None = None,
        nonfinite: str = "skip",
        rounding: str = "nearest",
        maximize: bool = False,
    ) -> None:
        check_nonnegative(weight_decay=weight_decay, clip=clip)
        if not eps > 0 or samples < 1 or seed < 0:
            raise ValueError(
                f"eps={eps} must be more than 0, samples={samples} 1 or more, seed={seed} 0 or more"
            )
        if nonfinite not in ("skip", "raise"):
            raise ValueError(f"nonfinite={nonfinite!r} is unknown; use 'skip' or 'raise'")
        if keep is False and rounding != "nearest":
            raise ValueError(
                f"keep=False puts parameters back by arithmetic, which rounding={rounding!r} does not "
                "know of; leave one of them out"
            )
        self.eps, self.clip, self.samples, self.keep = eps, clip, samples, keep
        defaults = {"lr": lr, "weight_decay": weight_decay, "seed": seed, "step": 0}
        super().__init__(
            params, defaults, maximize=maximize, nonfinite=nonfinite, rounding=rounding
        )

    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one step; returns the mean of the losses that were computed."""
        if closure is None:
            raise ValueError("MeZO needs a closure that computes the loss: step(closure)")
        self._follow()
        params = movable(p for group in self.param_groups for p in group["params"])
        slopes, losses = [], []
        for k in range(self.samples):
            up, down = self._losses(params, k, closure)
            slopes.append((up - down) / (2 * self.eps))
            losses += [up, down]
        loss = sum(losses) / len(losses)
        if all(math.isfinite(d) for d in slopes):
            self._move(params, [max(-self.clip, min(self.clip, d)) for d in slopes])
            self._tell([(params, [])])
        elif self.nonfinite == "raise":
            raise NonFinite(
                f"MeZO: the losses along a direction were {losses}; nothing was changed. Lower the "
                "rate or eps, or pass nonfinite='skip'"
            )
        else:
            self.skips += 1
        for group in self.param_groups:
            group["step"] += 1
        return loss

    def _losses(
        self, params: list[Tensor], k: int, closure: Callable[[], Any]
    ) -> tuple[float, float]:
        with self._restored(params, k) as shift:
            shift(self.eps)
            up = float(closure())
            shift(-self.eps)
            down = float(closure())
        return up, down

    @contextmanager
    def _restored(self, params: list[Tensor], k: int) -> Iterator[Callable[[float], None]]:
        """Gives a function that moves the parameters along direction `k`; puts them back."""
        low = (torch.bfloat16, torch.float16)
        kept = {
            i: p.clone()
            for i, p in enumerate(params)
            if self.keep or (self.keep is None and p.dtype in low)
        }
        at = 0.0

        def shift(to: float) -> None:
            nonlocal at
            for i, p in enumerate(params):
                if i in kept:
                    p.copy_(kept[i])
                by = to - (0.0 if i in kept else at)
                if by:
                    self._along(p, k, i, by)
            at = to

        try:
            yield shift
        finally:
            shift(0.0)

    def _along(self, p: Tensor, k: int, i: int, by: float) -> None:
        group = self.param_groups[0]
        p = real(p)
        z = direction_like(p, group["seed"], group["step"], k, i)
        p.copy_(z.mul_(by).add_(p))

    def _move(self, params: list[Tensor], slopes: list[float]) -> None:
        places = {id(p): i for i, p in enumerate(params)}
        for group in self.param_groups:
            lr, wd = float(group["lr"]), float(group["weight_decay"])
            sign = -1.0 if group["maximize"] else 1.0
            moved = []
            for p in group["params"]:
                if id(p) not in places:
                    continue
                wide = p
                if self.rounding != "nearest":
                    self._prepare_rounding(p, self.state[p], group)
                    wide = self._wide(p, self.state[p])
                    moved.append(Member(p, wide, wide, self.state[p], 0))
                if wd:
                    wide.mul_(1 - lr * wd)
                for k, d in enumerate(slopes):
                    self._along(wide, k, places[id(p)], -sign * lr * d / len(slopes))
            self._round(moved)
