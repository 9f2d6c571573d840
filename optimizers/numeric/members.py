"""What a step is given: tensors that have a gradient, as the numbers that this process steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import repeat
from operator import attrgetter, is_not
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "Group",
    "Member",
    "Work",
    "in_memory",
    "is_sharded",
    "local",
    "movable",
    "placed",
    "real",
    "rounds",
    "with_gradient",
]

Group = dict[str, Any]

Work = tuple[list[Tensor], list[Tensor]]
"""Tensors of a group, and their gradients."""


@dataclass(slots=True)
class Member:
    """One tensor in a step: real views of it and its gradient, its state, its step number.

    `tensor` is the parameter itself. `t` is 1 at the first step.
    """

    tensor: Tensor
    p: Tensor
    g: Tensor
    state: dict[str, Any]
    t: int


def real(x: Tensor) -> Tensor:
    """`x`, or its real view where it is complex; a copy where memory holds the conjugate."""
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


def local(x: Tensor) -> Tensor:
    """The part of a DTensor that this process holds, which an element-wise rule steps alone."""
    to_local = getattr(x, "to_local", None)
    return x if to_local is None else to_local()


def is_sharded(x: Tensor) -> bool:
    """Whether `x` is a DTensor."""
    return hasattr(x, "to_local")


def in_memory(*columns: Iterable[Tensor]) -> bool:
    """Whether all tensors are in memory themselves, where a kernel can write to them.

    One that is wrapped around others, or a fake without numbers, computes by `__torch_dispatch__`.
    """
    kinds: set[Any] = {kind for column in columns for kind in set(map(type, column))}
    return all(kind.__torch_dispatch__ is Tensor.__torch_dispatch__ for kind in kinds)


def placed(g: Tensor, p: Tensor) -> Tensor:
    """A gradient with the placements of its DTensor `p`, so that local parts belong together."""
    placements = getattr(p, "placements", None)
    if placements is None or getattr(g, "placements", None) == placements:
        return g
    sharded: Any = g
    return sharded.redistribute(placements=placements)


def with_gradient(params: Iterable[Tensor]) -> Work:
    """The tensors that have a gradient, and the gradients."""
    params = list(params)
    grads = list(map(attrgetter("grad"), params))
    if all(map(is_not, grads, repeat(None))):
        return params, grads
    pairs = [(p, g) for p, g in zip(params, grads, strict=True) if g is not None]
    return [p for p, _ in pairs], [g for _, g in pairs]


def movable(params: Iterable[Tensor]) -> list[Tensor]:
    """What a step that needs no gradients moves: all, or where some require gradients, these alone.

    >>> a, b = torch.zeros(1), torch.ones(1)
    >>> movable([a, b])
    [tensor([0.]), tensor([1.])]
    >>> movable([a, b.requires_grad_()])
    [tensor([1.], requires_grad=True)]
    """
    params = list(params)
    return [p for p in params if p.requires_grad] or params


def rounds(params: list[Tensor], grads: list[Tensor]) -> list[Work]:
    """The same without repetition: a tensor that is listed again steps again, as in torch, but later."""
    if len(set(map(id, params))) == len(params):
        return [(params, grads)]
    seen: Counter[int] = Counter()
    found: list[Work] = []
    for p, g in zip(params, grads, strict=True):
        if seen[id(p)] == len(found):
            found.append(([], []))
        for column, x in zip(found[seen[id(p)]], (p, g), strict=True):
            column.append(x)
        seen[id(p)] += 1
    return found
