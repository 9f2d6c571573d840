"""A batch run whole: by an executor, and around it what that executor does not do itself.

Most executors know neither rounding nor steps that may be left out. They step wide copies of
bfloat16 parameters, which are rounded back; and copies of everything where only the device knows
whether to step.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from optimizers.numeric.codecs.rounding import NEAREST
from optimizers.numeric.executors.batch import Batch
from optimizers.numeric.executors.choice import choose

__all__ = ["run"]


def run(backend: str, batch: Batch) -> str:
    """Step `batch` by the executor that `backend` names or chooses; returns its name."""
    executor = choose(backend, batch)
    if executor.complete or (batch.rounding is NEAREST and not batch.guarded):
        executor.run(batch)
        return executor.name
    copy = _copy(batch)
    executor = choose(backend, copy)
    executor.run(copy)
    _take(batch, copy)
    return executor.name


def _copy(batch: Batch) -> Batch:
    """A batch for an executor that knows neither rounding nor guard, on memory of its own."""
    params = [_wide(batch, i) for i in range(len(batch.params))]
    states = batch.states
    if batch.guarded:
        states = [[[x.clone() for x in part] for part in state] for state in states]
    return replace(
        batch,
        params=params,
        states=states,
        rounding=NEAREST,
        rests=[],
        guarded=False,
        addresses=None,
    )


def _wide(batch: Batch, i: int) -> Tensor:
    p = batch.params[i]
    if batch.rounding is NEAREST:
        return p.clone()
    return batch.rounding.widened(p, batch.rests[i] if batch.rests else None)


def _take(batch: Batch, copy: Batch) -> None:
    """Write what was stepped back, of those tensors that are to step."""
    for i, (p, new) in enumerate(zip(batch.params, copy.params, strict=True)):
        go = batch.goes(i)
        if go is not None:
            new = torch.where(go, new, _wide(batch, i))
            for old, changed in zip(batch.states, copy.states, strict=True):
                for held, part in zip(old, changed, strict=True):
                    held[i].copy_(torch.where(go, part[i], held[i]))
        rest = batch.rests[i] if batch.rests else None
        batch.rounding.write(new, p, rest, seed=batch.draw_of(i))
