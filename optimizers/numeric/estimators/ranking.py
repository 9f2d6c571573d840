"""Gradients from rankings alone (Tang et al. 2024, "Zeroth-order optimization meets human feedback")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from optimizers.numeric.estimators.directions import direction_like
from optimizers.numeric.hyperparameters import check_nonnegative
from optimizers.numeric.members import movable, real

__all__ = ["RankDescent", "ranking_weights"]


def ranking_weights(candidates: int, ranked: int) -> list[float]:
    """How much each candidate, best first, counts when the best `ranked` are in order.

    The mean over all known pairs of (better - worse): ``m-1-2r`` for rank r (from 0), ``-k`` for
    the rest, over the number of pairs. Their sum is zero.

    >>> ranking_weights(3, 1)
    [1.0, -0.5, -0.5]
    """
    m, k = candidates, ranked
    if not 1 <= k <= m or m < 2:
        raise ValueError(
            f"{k} of {m} candidates are ranked; there must be two or more candidates, and between "
            "one and all of them ranked"
        )
    pairs = k * (k - 1) // 2 + k * (m - k)
    return [(m - 1 - 2 * r if r < k else -k) / pairs for r in range(m)]


class RankDescent:
    """Wraps an optimizer that is told only which outputs are better than which.

    `candidates` moves the parameters to each of `samples` nearby points in turn, and back at the
    end, to the last bit; compute an output at each. Then `step(order)`, with the numbers of the
    candidates, the best first; the first few are enough. Whoever ranks may be a person. Where some
    tensors require gradients, those that do not are frozen.

    >>> from optimizers.numeric.sgd import SGD
    >>> w = torch.tensor([3.0, -2.0])
    >>> optimizer = RankDescent(SGD([w], lr=0.5), samples=8, radius=0.1)
    >>> for _ in range(60):
    ...     losses = [float(w.square().sum()) for _ in optimizer.candidates()]
    ...     optimizer.step(sorted(range(8), key=losses.__getitem__)[:3])
    >>> bool(w.norm() < 1.5)
    True
    """

    def __init__(
        self, inner: Optimizer, *, samples: int = 8, radius: float = 1e-2, seed: int = 0
    ) -> None:
        check_nonnegative(radius=radius, seed=seed)
        if samples < 2:
            raise ValueError(f"samples={samples} must be 2 or more: a ranking compares")
        self.inner, self.samples, self.radius, self.seed = inner, samples, radius, seed
        self.steps = 0

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of the wrapped optimizer."""
        return self.inner.param_groups

    @property
    def _params(self) -> list[Tensor]:
        return movable(p for group in self.param_groups for p in group["params"])

    def candidates(self) -> Iterator[int]:
        """The numbers of the candidates; while one is given, the parameters are there."""
        params = self._params
        kept = [p.detach().clone() for p in params]
        try:
            for k in range(self.samples):
                with torch.no_grad():
                    for i, (p, value) in enumerate(zip(params, kept, strict=True)):
                        p.copy_(value)
                        z = direction_like(real(p), self.seed, self.steps, k, i)
                        real(p).copy_(z.mul_(self.radius).add_(real(p)))
                yield k
        finally:
            with torch.no_grad():
                for p, value in zip(params, kept, strict=True):
                    p.copy_(value)

    @torch.no_grad()
    def step(self, order: Sequence[int]) -> None:
        """Step by a ranking: numbers of candidates, the best first; the rest are worse, unranked."""
        order = [int(k) for k in order]
        if len(set(order)) != len(order) or not set(order) <= set(range(self.samples)):
            raise ValueError(
                f"order {order} must hold different numbers from 0 to {self.samples - 1}"
            )
        weights = ranking_weights(self.samples, len(order))
        order += [k for k in range(self.samples) if k not in order]
        for p in (p for group in self.param_groups for p in group["params"]):
            p.grad = None  # one that is frozen by now has that of an older ranking
        for i, p in enumerate(self._params):
            g = torch.zeros_like(p)
            for weight, k in zip(weights, order, strict=True):
                z = direction_like(real(p), self.seed, self.steps, k, i)
                real(g).sub_(z.to(real(g).dtype), alpha=weight)
            p.grad = g
        self.steps += 1
        self.inner.step()

    def state_dict(self) -> dict[str, Any]:
        """The seed, the number of steps, and the wrapped optimizer's state."""
        return {"seed": self.seed, "steps": self.steps, "inner": self.inner.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state dict."""
        self.inner.load_state_dict(state_dict["inner"])
        self.seed, self.steps = int(state_dict["seed"]), int(state_dict["steps"])
