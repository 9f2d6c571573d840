"""A rule run over lists of tensors by torch's multi-tensor operations."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.codecs.codec import computing_dtype
from optimizers.numeric.executors.batch import Batch, Executor
from optimizers.numeric.rules.dialect import bound

__all__ = ["Foreach", "Many"]


class Many:
    """A list of tensors that computes element by element of the list."""

    __slots__ = ("of",)

    def __init__(self, of: Any) -> None:
        self.of: list[Tensor] = list(of)

    def _with(self, op: Any, other: Any) -> Many:
        return Many(op(self.of, other.of if isinstance(other, Many) else other))

    def _each(self, op: Any, other: Any) -> Many:
        others = other.of if isinstance(other, Many) else [other] * len(self.of)
        return Many(op(a, b) for a, b in zip(self.of, others, strict=True))

    def __add__(self, other: Any) -> Many:
        return self._with(torch._foreach_add, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Many:
        return self._with(torch._foreach_sub, other)

    def __rsub__(self, other: Any) -> Many:
        return Many(torch._foreach_neg(self.of))._with(torch._foreach_add, other)

    def __mul__(self, other: Any) -> Many:
        return self._with(torch._foreach_mul, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Many:
        return self._with(torch._foreach_div, other)

    def __rtruediv__(self, other: Any) -> Many:
        return Many(torch._foreach_reciprocal(self.of))._with(torch._foreach_mul, other)

    def __neg__(self) -> Many:
        return Many(torch._foreach_neg(self.of))

    def __gt__(self, other: Any) -> Many:
        return self._each(torch.gt, other)

    def __lt__(self, other: Any) -> Many:
        return self._each(torch.lt, other)

    def __ge__(self, other: Any) -> Many:
        return self._each(torch.ge, other)

    def __le__(self, other: Any) -> Many:
        return self._each(torch.le, other)


def _where(condition: Many, a: Many, b: Many) -> Many:
    return Many(torch.where(c, x, y) for c, x, y in zip(condition.of, a.of, b.of, strict=True))


MANY = {
    "sqrt": lambda x: Many(torch._foreach_sqrt(x.of)),
    "absolute": lambda x: Many(torch._foreach_abs(x.of)),
    "sign": lambda x: Many(torch._foreach_sign(x.of)),
    "where": _where,
    "maximum": lambda a, b: a._with(torch._foreach_clamp_min, b),
    "minimum": lambda a, b: a._with(torch._foreach_clamp_max, b),
}


class Foreach(Executor):
    """All tensors of a batch at once, one torch call per operation."""

    name: ClassVar[str] = "foreach"

    @override
    def takes(self, batch: Batch) -> bool:
        return all(not codec_part[1:] for codec_part in batch.states)

    @override
    def run(self, batch: Batch) -> None:
        if not batch.params:
            return
        body, codec, kinds = bound(batch.rule.body, MANY), batch.codec, batch.rule.states
        dtype = computing_dtype(batch.params[0].dtype)
        old = tuple(
            Many(codec.decode((x,), kind, dtype) for x in state[0])
            for state, kind in zip(batch.states, kinds, strict=True)
        )
        p, g = (Many(x.to(dtype) for x in xs) for xs in (batch.params, batch.grads))
        new_p, new = body(p, g if batch.scale == 1.0 else g * batch.scale, old, batch.scalars)
        for value, before, state, kind in zip(new, old, batch.states, kinds, strict=True):
            if value is before:
                continue
            if codec.name == "bf16-stochastic":
                for i, (x, held) in enumerate(zip(value.of, state[0], strict=True)):
                    codec.encode(x, (held,), kind, seed=batch.seed + i)
            else:
                torch._foreach_copy_(state[0], value.of)
        torch._foreach_copy_(batch.params, new_p.of)
