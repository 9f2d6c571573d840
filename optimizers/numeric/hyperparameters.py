"""Hyperparameters of a param group: what is refused, and their values as Python's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

from torch import Tensor

from tracegraph.kinds import show

__all__ = ["check_betas", "check_flags", "check_nonnegative", "check_rate", "plain"]


def check_rate(lr: float | Tensor) -> None:
    """Refuse a learning rate that is negative or a tensor of several numbers."""
    _check_number("lr", lr)
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    if not lr >= 0.0:
        raise ValueError(f"Invalid learning rate: {lr}; it must be 0 or more")


def check_nonnegative(**values: float) -> None:
    """Refuse a negative hyperparameter, by name."""
    for name, value in values.items():
        _check_number(name, value)
        if not value >= 0.0:
            raise ValueError(f"Invalid {name} value: {value}; it must be 0 or more")


def check_betas(betas: Sequence[float | Tensor], *, count: int = 2) -> None:
    """Refuse decay rates of averages that are not `count`, or outside [0, 1)."""
    if len(betas) != count:
        raise ValueError(f"Invalid decay rates: {tuple(betas)}; there must be {count}")
    for k, beta in enumerate(betas):
        _check_number(f"betas[{k}]", beta)
        if isinstance(beta, Tensor) and beta.numel() != 1:
            raise ValueError(f"Tensor betas[{k}] must be 1-element")
        if not 0.0 <= beta < 1.0:
            raise ValueError(
                f"Invalid beta parameter at index {k}: {float(beta)}; it must be in [0, 1)"
            )


def check_flags(
    optimizer: str, *, foreach: bool | None, fused: bool | None, differentiable: bool
) -> None:
    """Refuse flags of torch that contradict each other, or that no optimizer here has."""
    if differentiable:
        raise ValueError(
            f"{optimizer} does not support differentiable=True: it steps in place, outside of "
            "autograd; use an optimizer of torch.optim for that, or leave differentiable out"
        )
    if foreach and fused:
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")


def _check_number(name: str, value: Any) -> None:
    if not isinstance(value, Real | Tensor):
        raise TypeError(f"{name} must be a number, got {show(value, 80)}")


def plain(value: Any) -> Any:
    """A hyperparameter as Python's own number."""
    if isinstance(value, Tensor):
        return value.item()
    if isinstance(value, tuple | list):
        return tuple(plain(x) for x in value)
    return value
