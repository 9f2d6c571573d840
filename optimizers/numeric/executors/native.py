"""A rule run on the CPU by a C++ kernel written from its body, over a table of pointers.

One pass over memory whatever the rule, one call for all tensors, no copies and no flat buffer: the
user's tensors stay where they are. The kernel is compiled once per rule and dtype (about a second)
and kept in the user's cache folder. Needs a C++ compiler: `c++`, or what `CXX` names.
"""

from __future__ import annotations

import ctypes
from array import array
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.executors.batch import Batch, Executor
from optimizers.numeric.executors.compiler import available, built
from optimizers.numeric.executors.cpp import CTYPE, source
from optimizers.numeric.executors.glance import Glanced, address
from optimizers.numeric.rules.rule import Rule

__all__ = ["Native", "available"]

SMALL = 1 << 16  # elements that are not worth a second thread
_ANYWHERE = ("fp32", "bf16")  # codecs that do not go by where an element stands


@lru_cache(maxsize=256)
def _kernel(
    rule: Rule, scalars: int, p: torch.dtype, states: tuple[torch.dtype, ...], codec: str
) -> Any:
    """The compiled function of a rule."""
    step = ctypes.CDLL(str(built(source(rule, scalars, p, states, codec)))).step
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    step.argtypes = [pointer, pointer, number, pointer, ctypes.c_uint64, number]
    step.restype = None
    return step


class Table(Glanced):
    """Addresses as a kernel reads them: a column per tensor, rows of parameters, gradients, states."""

    __slots__ = ("step",)

    def __init__(self, step: Any, columns: list[list[Tensor]]) -> None:
        super().__init__(columns)
        self.step = step

    def run(self, scalars: tuple[float, ...], scale: float, seed: int) -> None:
        """Do the step for all tensors."""
        h = array("d", (*scalars, scale))
        threads = 1 if self.elements <= SMALL else torch.get_num_threads()
        pointers, sizes = address(self.pointers), address(self.sizes)
        self.step(pointers, sizes, len(self.sizes), address(h), seed, threads)


def _dense(x: Tensor) -> bool:
    return x.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense(x)


class Native(Executor):
    """One compiled pass for all tensors, on the processor."""

    name: ClassVar[str] = "native"

    def takes(self, batch: Batch) -> bool:
        """CPU tensors of float32, float64 or bfloat16 that fill their memory.

        Codecs that go by an element's place want them contiguous.
        """
        if not batch.params or isinstance(batch.addresses, Table):
            return True
        p = batch.params[0]
        if p.device.type != "cpu" or p.dtype not in CTYPE:
            return False
        if batch.codec.name in _ANYWHERE:
            return all(map(_dense, batch.params))
        parts = (part for state in batch.states for part in state)
        return all(x.is_contiguous() for column in (batch.params, *parts) for x in column)

    @override
    def run(self, batch: Batch) -> None:
        params = batch.params
        if not params:
            return
        if isinstance(batch.addresses, Table):  # it has looked at these gradients already
            batch.addresses.run(batch.scalars, batch.scale, batch.seed)
            return
        copies: list[tuple[Tensor, Tensor]] = []
        placed = batch.codec.name not in _ANYWHERE
        columns = [params, _laid_like(params, batch.grads, params[0].dtype)]
        for state in batch.states:
            for part in state:
                laid = part if placed else _laid_like(params, part, part[0].dtype)
                copies += [(a, b) for a, b in zip(part, laid, strict=True) if a is not b]
                columns.append(laid)
        dtypes = tuple(state[0][0].dtype for state in batch.states)
        step = _kernel(batch.rule, len(batch.scalars), params[0].dtype, dtypes, batch.codec.name)
        table = Table(step, columns)
        table.run(batch.scalars, batch.scale, batch.seed)
        if not copies:
            batch.addresses = table
        for held, laid_out in copies:
            held.copy_(laid_out)


def _laid_like(params: list[Tensor], column: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """`column` with every tensor laid out in memory as its parameter is, in `dtype`."""
    alike = {x.dtype for x in column} == {dtype} and not any(map(Tensor.is_neg, column))
    if alike and all(map(Tensor.is_contiguous, [*column, *params])):
        return column
    return [
        x
        if x.stride() == p.stride() and x.dtype == dtype and not x.is_neg()
        else torch.empty_strided(p.shape, p.stride(), dtype=dtype).copy_(x)
        for p, x in zip(params, column, strict=True)
    ]
