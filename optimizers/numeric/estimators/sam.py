"""Sharpness-aware minimization: the gradient at a nearby point of higher loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from optimizers.numeric.optimizer import check_nonnegative

__all__ = ["SAM"]


class SAM:
    """Wraps an optimizer: gradients are taken at ``p + rho g / ||g||`` (Foret et al. 2021).

    The norm is over all parameters. `adaptive` scales by the parameter (ASAM, Kwon et al. 2021).
    `step` needs a closure that clears gradients, computes the loss, calls backward and returns the
    loss; it is called twice. Parameters are put back from copies, to the last bit.

    >>> from optimizers.numeric.sgd import SGD
    >>> w = torch.tensor([1.0], requires_grad=True)
    >>> optimizer = SAM(SGD([w], lr=0.1), rho=0.5)
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = (w * w).sum()
    ...     loss.backward()
    ...     return loss
    >>> optimizer.step(closure).item(), round(w.item(), 4)
    (1.0, 0.7)
    """

    def __init__(self, inner: Optimizer, *, rho: float = 0.05, adaptive: bool = False) -> None:
        check_nonnegative(rho=rho)
        self.inner, self.rho, self.adaptive = inner, rho, adaptive

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of the wrapped optimizer."""
        return self.inner.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients."""
        self.inner.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """That of the wrapped optimizer: nothing else is kept between steps."""
        return self.inner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the wrapped optimizer's state."""
        self.inner.load_state_dict(state_dict)

    def step(self, closure: Callable[[], Any]) -> Any:
        """Climb, take the gradient there, come back, and step; returns the first loss."""
        with torch.enable_grad():
            loss = closure()
        with torch.no_grad():
            kept = self._climb()
        try:
            with torch.enable_grad():
                closure()
        finally:
            with torch.no_grad():
                for p, value in kept:
                    p.copy_(value)
        self.inner.step()
        return loss

    def _climb(self) -> list[tuple[Tensor, Tensor]]:
        params = [p for g in self.param_groups for p in g["params"] if p.grad is not None]
        if not params:
            return []
        grads = [p.grad * p.abs() if self.adaptive else p.grad for p in params]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        kept = [(p, p.clone()) for p in params]
        for p, g in zip(params, grads, strict=True):
            climb = g * p.abs() if self.adaptive else g
            p.add_(torch.where(norm > 0, self.rho / norm.clamp(min=1e-30), 0.0) * climb)
        return kept
