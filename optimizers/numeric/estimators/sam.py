"""Sharpness-aware minimization: the gradient at a nearby point of higher loss.

`StaleSAM` and `LookSAM` do it for the price of one pass per step, or little more: they climb by a
gradient that is there already, or use what a climb found for several steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from optimizers.numeric.hyperparameters import check_nonnegative
from optimizers.numeric.members import real

__all__ = ["SAM", "LookSAM", "StaleSAM"]

Pairs = list[tuple[Tensor, Tensor]]
"""Parameters and a gradient of each."""

Closure = Callable[[], Any]


class _Wrapped:
    """An optimizer that is given the gradient of a nearby point."""

    def __init__(self, inner: Optimizer, *, rho: float) -> None:
        check_nonnegative(rho=rho)
        self.inner, self.rho = inner, rho

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of the wrapped optimizer."""
        return self.inner.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients."""
        self.inner.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """That of the wrapped optimizer."""
        return self.inner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the wrapped optimizer's state."""
        self.inner.load_state_dict(state_dict)

    def step(self, closure: Closure) -> Any:
        """Do one step; returns the loss of the first call of `closure`."""
        raise NotImplementedError

    @property
    def _params(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _gradients(self) -> Pairs:
        return [(p, p.grad) for p in self._params if p.grad is not None]


def _evaluate(closure: Closure) -> Any:
    with torch.enable_grad():
        return closure()


def _norm(tensors: list[Tensor]) -> Tensor:
    """The l2 norm of all of them together."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))


@contextmanager
def climbed(pairs: Pairs, rho: float, *, adaptive: bool = False) -> Iterator[None]:
    """Hold the parameters at ``p + rho g / ||g||``, and put them back from copies at the end."""
    kept: Pairs = []
    try:
        if pairs:
            with torch.no_grad():
                norm = _norm([g * p.abs() if adaptive else g for p, g in pairs])
                factor = torch.where(norm > 0, rho / norm.clamp(min=1e-30), 0.0)
                kept = [(p, p.clone()) for p, _ in pairs]
                for p, g in pairs:
                    p.add_(factor * (g * p.abs().square() if adaptive else g))
        yield
    finally:
        with torch.no_grad():
            for p, value in kept:
                p.copy_(value)


@final
class SAM(_Wrapped):
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
        super().__init__(inner, rho=rho)
        self.adaptive = adaptive

    @override
    def step(self, closure: Closure) -> Any:
        """Climb, take the gradient there, come back, and step; returns the first loss."""
        loss = _evaluate(closure)
        with climbed(self._gradients(), self.rho, adaptive=self.adaptive):
            _evaluate(closure)
        self.inner.step()
        return loss


@final
class StaleSAM(_Wrapped):
    """SAM that climbs by the gradient of the step before: one pass per step, as without SAM.

    ``p_t + rho g_{t-1} / ||g_{t-1}||``; the first step does not climb. The perturbation from older
    parameters is that of concurrent adversarial learning (Liu et al. 2021, arXiv 2106.00221). The
    closure of `step` is called once, as that of `SAM`, and its loss is that of the higher point.
    Kept: one gradient, 4 bytes per parameter.

    >>> from optimizers.numeric.sgd import SGD
    >>> w = torch.tensor([1.0], requires_grad=True)
    >>> optimizer = StaleSAM(SGD([w], lr=0.1), rho=0.5)
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = (w * w).sum()
    ...     loss.backward()
    ...     return loss
    >>> [round(optimizer.step(closure).item(), 4) for _ in range(2)]  # 1.0 ** 2, (0.8 + 0.5) ** 2
    [1.0, 1.69]
    """

    def __init__(self, inner: Optimizer, *, rho: float = 0.05) -> None:
        super().__init__(inner, rho=rho)
        self._last: dict[int, Tensor] = {}

    @override
    def step(self, closure: Closure) -> Any:
        """Climb by the last gradient, take the gradient there, come back, and step."""
        params = self._params
        pairs = [(p, self._last[i]) for i, p in enumerate(params) if i in self._last]
        with climbed(pairs, self.rho):
            loss = _evaluate(closure)
        self._last = {
            i: p.grad.detach().clone() for i, p in enumerate(params) if p.grad is not None
        }
        self.inner.step()
        return loss

    @override
    def state_dict(self) -> dict[str, Any]:
        """The last gradient by the parameter's number, and the wrapped optimizer's state."""
        last = {i: g.clone() for i, g in self._last.items()}
        return {"last": last, "inner": self.inner.state_dict()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state dict."""
        last = _fitting("StaleSAM", state_dict["last"], self._params)
        self.inner.load_state_dict(state_dict["inner"])
        self._last = last


@final
class LookSAM(_Wrapped):
    """SAM that climbs every `interval` steps only (Liu et al. 2022, arXiv 2203.02714).

    A climb's gradient has a part along the plain gradient g and a part v across it. v changes
    slowly, so the steps between use ``g + alpha ||g|| / ||v|| v``. Norms are over all parameters.
    The closure of `step` is that of `SAM`; it is called ``1 + 1 / interval`` times per step.
    Kept: v, 4 bytes per parameter.

    >>> from optimizers.numeric.sgd import SGD
    >>> w = torch.tensor([1.0, 1.0], requires_grad=True)
    >>> optimizer = LookSAM(SGD([w], lr=0.1), rho=0.5, interval=2)
    >>> calls = []
    >>> def closure():
    ...     calls.append(1)
    ...     optimizer.zero_grad()
    ...     loss = (w**4 * torch.tensor([1.0, 3.0])).sum()
    ...     loss.backward()
    ...     return loss
    >>> for _ in range(4):
    ...     loss = optimizer.step(closure)
    >>> len(calls)
    6
    """

    def __init__(
        self, inner: Optimizer, *, rho: float = 0.05, interval: int = 5, alpha: float = 0.7
    ) -> None:
        super().__init__(inner, rho=rho)
        check_nonnegative(alpha=alpha)
        if interval < 1:
            raise ValueError(f"interval={interval} must be 1 or more")
        self.interval, self.alpha, self.steps = interval, alpha, 0
        self._across: dict[int, Tensor] = {}

    @override
    def step(self, closure: Closure) -> Any:
        """Take the gradient, climb where it is time, and step; returns the first loss."""
        loss = _evaluate(closure)
        flat = {i: p.grad for i, p in enumerate(self._params) if p.grad is not None}
        if self.steps % self.interval == 0:
            flat = {i: g.detach().clone() for i, g in flat.items()}
            with climbed(self._gradients(), self.rho):
                _evaluate(closure)
            self._across = self._part_across(flat)
        elif flat:
            self._add_across(flat)
        self.steps += 1
        self.inner.step()
        return loss

    @torch.no_grad()
    def _part_across(self, flat: dict[int, Tensor]) -> dict[int, Tensor]:
        """What the gradients that are there now have across `flat`."""
        now = {i: p.grad for i, p in enumerate(self._params) if p.grad is not None and i in flat}
        if not now:
            return {}
        along = sum(torch.sum(real(g) * real(flat[i])) for i, g in now.items())
        share = along / _norm(list(flat.values())).square().clamp(min=1e-30)
        return {i: g - share * flat[i] for i, g in now.items()}

    @torch.no_grad()
    def _add_across(self, flat: dict[int, Tensor]) -> None:
        held = {i: v for i, v in self._across.items() if i in flat}
        if not held:
            return
        size = _norm(list(held.values()))
        factor = self.alpha * _norm(list(flat.values())) / size.clamp(min=1e-30)
        for i, v in held.items():
            flat[i].add_(torch.where(size > 0, factor, 0.0) * v)

    @override
    def state_dict(self) -> dict[str, Any]:
        """The number of steps, v by the parameter's number, and the wrapped optimizer's state."""
        across = {i: v.clone() for i, v in self._across.items()}
        return {"steps": self.steps, "across": across, "inner": self.inner.state_dict()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state dict."""
        across = _fitting("LookSAM", state_dict["across"], self._params)
        self.inner.load_state_dict(state_dict["inner"])
        self._across, self.steps = across, int(state_dict["steps"])


def _fitting(name: str, saved: dict[int, Tensor], params: Sequence[Tensor]) -> dict[int, Tensor]:
    """Copies of saved tensors, which must have the shapes of their parameters."""
    for i, x in saved.items():
        if i >= len(params) or x.shape != params[i].shape:
            here = tuple(params[i].shape) if i < len(params) else "missing"
            raise ValueError(
                f"{name} cannot load this state: tensor {i} has shape {tuple(x.shape)} in it, and "
                f"is {here} here; it was saved for other parameters"
            )
    return {i: x.detach().clone().to(params[i]) for i, x in saved.items()}
