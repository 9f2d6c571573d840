"""Learning rate schedules, as factors for `torch.optim.lr_scheduler.LambdaLR`.

Each is a value that is called with the number of steps done, and returns what to multiply the rate
by. `LambdaLR` keeps its fields in its own state dict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from typing_extensions import override

__all__ = [
    "REX",
    "CosineDecay",
    "LinearDecay",
    "RefinedDecay",
    "StepDecay",
    "WarmupStableDecay",
]


@dataclass(frozen=True)
class _Decay:
    """A decay over `total` steps; the first `warmup` of them climb to the full rate."""

    total: int
    warmup: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < self.total:
            raise ValueError(
                f"{type(self).__name__}: warmup={self.warmup} must be at least 0 and less than "
                f"total={self.total}"
            )

    def __call__(self, step: int) -> float:
        """The factor after `step` steps."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        return self.at(min(1.0, (step - self.warmup) / (self.total - self.warmup)))

    def at(self, z: float) -> float:
        """The factor when the share `z` of the decay is done."""
        raise NotImplementedError


@dataclass(frozen=True)
class LinearDecay(_Decay):
    """Down to zero in a straight line, which is optimal for worst-case gradients of equal norm.

    Defazio et al. 2023.

    >>> [LinearDecay(4)(t) for t in range(5)]
    [1.0, 0.75, 0.5, 0.25, 0.0]
    >>> LinearDecay(4, warmup=1)(0)
    0.5
    """

    @override
    def at(self, z: float) -> float:
        return 1.0 - z


@dataclass(frozen=True)
class CosineDecay(_Decay):
    """Down to `floor` along half a wave of the cosine (Loshchilov & Hutter 2017).

    >>> [round(CosineDecay(4)(t), 3) for t in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """

    floor: float = 0.0

    @override
    def at(self, z: float) -> float:
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * z))


@dataclass(frozen=True)
class REX(_Decay):
    """``(1-z) / (1/2 + (1-z)/2)``: late to fall (Chen et al. 2021, "Revisiting budgeted training").

    >>> [round(REX(100)(t), 3) for t in (0, 25, 50, 75, 90, 100)]
    [1.0, 0.857, 0.667, 0.4, 0.182, 0.0]
    """

    @override
    def at(self, z: float) -> float:
        return (1 - z) / (0.5 + 0.5 * (1 - z))


@dataclass(frozen=True)
class WarmupStableDecay(_Decay):
    """Full rate, and a line to zero over the last share `decay` of the steps (Hu et al. 2024).

    >>> [WarmupStableDecay(10, decay=0.5)(t) for t in (0, 5, 6, 10)]
    [1.0, 1.0, 0.8, 0.0]
    """

    decay: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay={self.decay} must be in (0, 1]")

    @override
    def at(self, z: float) -> float:
        return min(1.0, (1 - z) / self.decay)


@dataclass(frozen=True)
class StepDecay(_Decay):
    """Times `factor` at each of the `milestones`, which are shares of the steps.

    >>> [round(StepDecay(8)(t), 3) for t in (0, 3, 4, 6, 8)]
    [1.0, 1.0, 0.1, 0.01, 0.01]
    """

    milestones: tuple[float, ...] = (0.5, 0.75)
    factor: float = 0.1

    @override
    def at(self, z: float) -> float:
        return self.factor ** sum(z >= m for m in self.milestones)


@dataclass(frozen=True)
class RefinedDecay:
    """The schedule that the gradient norms of an earlier run ask for (Defazio et al. 2023).

    ``eta_t = w_t sum_{p > t} w_p``, scaled to a largest factor of 1. For gradients of constant
    norm it is linear; where they begin large, a warm-up appears of itself. Made by `of_norms`.
    """

    factors: tuple[float, ...]

    @classmethod
    def of_norms(
        cls, norms: Sequence[float], *, power: float = 2.0, smoothing: float = 0.1
    ) -> RefinedDecay:
        """From the gradient norm at each step.

        For SGD give l2 norms (weights ``norm**-2``), for Adam and its like l1 norms and
        ``power=1``. A median over the share `smoothing` of the steps is taken first.

        >>> RefinedDecay.of_norms([3.0] * 5).factors
        (1.0, 0.75, 0.5, 0.25, 0.0)
        """
        if len(norms) < 2 or not all(math.isfinite(n) and n >= 0 for n in norms):
            raise ValueError(
                f"a schedule needs the norms of two steps or more, finite and not negative; got "
                f"{len(norms)}: {list(norms[:5])}"
            )
        if not 0 <= smoothing <= 1:
            raise ValueError(f"smoothing={smoothing} must be in [0, 1]")
        reach = int(smoothing * len(norms)) // 2
        padded = [norms[0]] * reach + list(norms) + [norms[-1]] * reach
        smooth = [median(padded[t : t + 2 * reach + 1]) for t in range(len(norms))]
        if min(smooth) == 0:
            raise ValueError(
                f"the gradient norm is zero around step {smooth.index(0)}; leave out the steps "
                "after the run had converged"
            )
        scale = min(smooth)
        weights = [(scale / n) ** power for n in smooth]
        later, factors = 0.0, []
        for w in reversed(weights):
            factors.append(w * later)
            later += w
        top = max(factors)
        return cls(tuple(f / top for f in reversed(factors)))

    def __call__(self, step: int) -> float:
        """The factor after `step` steps; zero after the last."""
        return self.factors[step] if step < len(self.factors) else 0.0
