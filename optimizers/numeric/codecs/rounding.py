"""How a bfloat16 parameter takes a step that is finer than it can hold.

bfloat16 keeps 8 bits, so rounded to nearest a step of less than half a unit in the last place is
lost, every time. Rounding at random keeps the mean right (Gupta et al. 2015). Keeping what rounding
took away in 8 or 16 more bits loses nothing that matters: parameter and rest together are a float of
24 bits, or float32 itself (the split is that of FlashOptim, Databricks 2026). The parameter is always
the value rounded to nearest, so a model computes as it would without.

Other dtypes hold their steps as they are; float16 has no room beside it and is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optimizers.numeric.codecs.plain import round_stochastically

__all__ = ["DRAWN", "NEAREST", "REST", "ROUNDINGS", "Rounding", "rounding_for", "rounding_named"]

REST = "param_rest"
"""The name of what was rounded away, in a state dict."""

DRAWN = "roundings"
"""The name of the count of roundings at random, in a state dict."""


@dataclass(frozen=True, slots=True)
class Rounding:
    """One way; `rest` is the dtype of what is kept beside the parameter, if anything is."""

    name: str
    rest: torch.dtype | None = None

    def widened(self, p: Tensor, rest: Tensor | None) -> Tensor:
        """The parameter with what was rounded away, in float32."""
        if rest is None:
            return p.float()
        low = rest.to(torch.int32)
        bits = (p.view(torch.int16).to(torch.int32) << 16) + (low << self._spare)
        return bits.view(torch.float32)

    @property
    def draws(self) -> bool:
        """Whether it rounds at random."""
        return self.name == "stochastic"

    def begin(self, p: Tensor, state: dict[str, Any]) -> None:
        """Make room in the state of `p` for its rest."""
        if self.rest is not None and REST not in state:
            state[REST] = torch.zeros_like(p, dtype=self.rest)

    def write(self, value: Tensor, p: Tensor, rest: Tensor | None, *, seed: int | Tensor) -> None:
        """Round `value` into `p`, and keep the rest; `seed` feeds what is random in it."""
        if rest is None:
            p.copy_(round_stochastically(value, seed) if self.draws else value)
            return
        quiet = torch.where(value.isnan(), torch.nan, value)  # one pattern, which no carry reaches
        units = quiet.contiguous().view(torch.int32).to(torch.int64)
        spare = self._spare
        units = (units + ((1 << spare) >> 1)) >> spare
        width = 16 - spare
        high = (units + ((1 << width) >> 1)) >> width
        rest.copy_(units - (high << width))
        p.copy_(high.to(torch.int16).view(torch.bfloat16))

    @property
    def _spare(self) -> int:
        """Low bits of float32 that are not kept."""
        return 8 if self.rest == torch.int8 else 0

    def converted(self, rest: Tensor) -> Tensor:
        """A rest that another way kept, as this one keeps it."""
        if rest.dtype == self.rest or self.rest is None:
            return rest
        if self.rest == torch.int16:
            return rest.to(torch.int16) << 8
        return ((rest.to(torch.int32) + 128) >> 8).clamp(-128, 127).to(torch.int8)


NEAREST = Rounding("nearest")

ROUNDINGS = {
    way.name: way
    for way in (
        NEAREST,
        Rounding("stochastic"),
        Rounding("24bit", torch.int8),
        Rounding("32bit", torch.int16),
    )
}


def rounding_for(name: str, p: Tensor) -> Rounding:
    """The way for one parameter: what is not bfloat16 holds its steps as it is.

    >>> rounding_for("24bit", torch.zeros(1)).name
    'nearest'
    """
    return rounding_named(name) if p.dtype == torch.bfloat16 else NEAREST


def rounding_named(name: str) -> Rounding:
    """The way of that name, or a ValueError that lists the names."""
    if name not in ROUNDINGS:
        raise ValueError(f"rounding={name!r} is unknown; use one of {sorted(ROUNDINGS)}")
    return ROUNDINGS[name]
