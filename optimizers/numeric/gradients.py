"""Gradients that a step refuses or passes over, looked at before anything changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from optimizers.numeric.members import Work, in_memory, is_sharded

__all__ = ["all_finite", "check_gradients", "not_finite"]


def check_gradients(
    optimizer: str, name_of: Callable[[Tensor], str], params: list[Tensor], grads: list[Tensor]
) -> None:
    """Refuse tensors that cannot be written to element by element, and gradients that are sparse, of
    whole numbers, or not shaped and placed as their tensor.
    """
    for p, g in zip(params, grads, strict=True):
        reason = _unwritable(p)
        if reason is not None:
            raise RuntimeError(
                f"{optimizer} cannot step {name_of(p)}, {reason}; nothing was changed"
            )
        if g.layout is not torch.strided:
            raise RuntimeError(
                f"{optimizer} does not support sparse gradients, and {name_of(p)} has one; use "
                "torch.optim.SparseAdam for it, or sparse=False in its Embedding"
            )
        if not (p.is_floating_point() or p.is_complex()):
            raise ValueError(
                f"{optimizer}: {name_of(p)} is {p.dtype}, in which steps would be cut to whole numbers, "
                "and it has a gradient; nothing was changed. Make it a floating-point tensor"
            )
        if g.shape != p.shape or g.device != p.device:
            raise ValueError(
                f"{optimizer}: {name_of(p)} is {tuple(p.shape)} on {p.device} and its gradient "
                f"{tuple(g.shape)} on {g.device}; nothing was changed. Call zero_grad() after "
                "changing a parameter, and run backward again"
            )
        if is_sharded(p) != is_sharded(g):
            raise ValueError(
                f"{optimizer}: of {name_of(p)} and its gradient one is a DTensor and the other is "
                "not; nothing was changed. Distribute both over the same mesh"
            )


def _unwritable(p: Tensor) -> str | None:
    """Why a step cannot write to `p`, and what to do; None where it can."""
    if p.is_inference() and not torch.is_inference_mode_enabled():
        return "which was made in torch.inference_mode(): step it there, or a clone() of it"
    if p.is_conj():
        return "whose memory holds the conjugate of it: make the optimizer for its resolve_conj()"
    if p.layout is torch.strided and not p.is_contiguous() and p.numel() > 0:
        sides = zip(p.shape, p.stride(), strict=True)
        if any(size > 1 and stride == 0 for size, stride in sides):
            return (
                "which is expanded, so that several elements are one number in memory: make the "
                "optimizer for what it was expanded from, or for a clone() of it"
            )
    return None


def not_finite(work: Iterable[Work]) -> list[Tensor]:
    """The tensors whose gradient holds NaN or infinity."""
    pairs = [(p, g) for ps, gs in work for p, g in zip(ps, gs, strict=True) if g.numel() > 0]
    if in_memory(g for _, g in pairs):  # one number to wait for
        fine = all_finite(g for _, g in pairs)
        if fine is None or bool(fine):
            return []
    tops = torch._foreach_norm([g for _, g in pairs], float("inf"))
    return [p for (p, _), top in zip(pairs, tops, strict=True) if not bool(top.isfinite())]


def all_finite(grads: Iterable[Tensor]) -> Tensor | None:
    """Whether no gradient holds NaN or infinity, as a tensor that nothing waits for.

    None where there is no number at all.

    >>> all_finite([torch.ones(2), torch.tensor(float("nan"))])
    tensor(False)
    """
    grads = [g for g in grads if g.numel() > 0]
    if not grads:
        return None
    tops = list(torch._foreach_norm(grads, float("inf")))
    device = tops[0].device
    if len({(top.device, top.dtype) for top in tops}) > 1:
        tops = [top.to(device, torch.float64) for top in tops]
    return torch.stack(tops).isfinite().all()
