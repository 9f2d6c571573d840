"""Saved states of one tensor: whether they fit it, and copies of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from optimizers.numeric.codecs.codec import computing_dtype
from optimizers.numeric.codecs.rounding import DRAWN, REST

__all__ = ["BOOKKEEPING", "check_saved", "check_shapes", "copied", "follow_dtype"]

BOOKKEEPING = frozenset({"step", DRAWN, REST})
"""What a state holds beside what an optimizer's own step needs."""

_COMPUTED = (torch.float32, torch.float64)
"""The dtypes that steps are computed in."""


def check_shapes(
    optimizer: str,
    name_of: Callable[[Tensor], str],
    state: Mapping[str, Any],
    p: Tensor,
    shaped: Iterable[str],
) -> None:
    """Refuse a parameter whose shape is no longer that of its states named in `shaped`."""
    for key, shape in _unlike(state, p.shape, shaped):
        raise ValueError(
            f"{optimizer}: {name_of(p)} has shape {tuple(p.shape)} and its {key} "
            f"{shape}; a parameter keeps its shape. Make a new {optimizer} for it"
        )


def check_saved(
    optimizer: str,
    name_of: Callable[[Tensor], str],
    state: Mapping[str, Any],
    p: Tensor,
    needed: Iterable[str],
    numbers: Iterable[str] = (),
) -> None:
    """Refuse a saved state that lacks what is `needed`, or has it in another shape than `p`.

    The same for `numbers`, which have no shape.
    """
    needed, numbers = tuple(needed), tuple(numbers)
    held = {key for key, value in state.items() if value is not None}
    missing = [key for key in (*needed, *numbers) if key not in held]
    if held - BOOKKEEPING and missing:
        raise ValueError(
            f"{optimizer} cannot load this state: for {name_of(p)} it has {sorted(held)} and lacks "
            f"{missing}; it was saved by another optimizer or with other options"
        )
    for key, shape in _unlike(state, p.shape, needed):
        raise ValueError(
            f"{optimizer} cannot load this state: {key} of {name_of(p)} has shape "
            f"{shape}, the parameter {tuple(p.shape)}"
        )
    for key, shape in _unlike(state, torch.Size(), numbers):
        raise ValueError(
            f"{optimizer} cannot load this state: {key} of {name_of(p)} has shape {shape}, and is "
            "one number"
        )


def _unlike(
    state: Mapping[str, Any], wanted: torch.Size, names: Iterable[str]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Those of the states `names` that have another shape than `wanted`, and the shape."""
    for key in names:
        value = state.get(key)
        if isinstance(value, Tensor) and value.shape != wanted:
            yield key, tuple(value.shape)


def copied(key: str, value: Any, p: Tensor) -> Any:
    """A saved value as a state of `p` keeps it: beside the tensor, but for the step number."""
    if not isinstance(value, Tensor):
        return value
    if key == "step":
        return value.detach().to(dtype=torch.float32, device="cpu", copy=True)
    return value.detach().to(device=p.device, copy=True)


def follow_dtype(state: dict[str, Any], p: Tensor) -> None:
    """Bring the states of a parameter that has become float64, or is it no more, to its dtype."""
    wanted = computing_dtype(p.dtype)
    for key, value in state.items():
        if isinstance(value, Tensor) and key != "step" and value.dtype in _COMPUTED:
            state[key] = value.to(wanted)
