"""Steps whose numbers are computed where the tensors are, for CUDA graphs and `torch.compile`.

A captured step is replayed without Python: a rate or a step count that the host had put into it would
stay as it was. Here the step counts, the rule's scalars, and the factor of gradients are tensors on the
device, by the same formulas, and one call steps all tensors of a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from optimizers.numeric.codecs.rounding import rounding_for
from optimizers.numeric.codecs.table import codec_for, codec_named
from optimizers.numeric.executors.batch import Batch, seed_of
from optimizers.numeric.executors.running import run as run_batch
from optimizers.numeric.members import local, real
from optimizers.numeric.plans import Done, Part
from optimizers.numeric.rules.rule import Rule

__all__ = ["again", "rows_of", "run", "wide"]


def wide(value: Any, device: torch.device) -> Any:
    """A hyperparameter that scalars are computed from: float64 on `device` where it is a tensor there.

    One that the host holds is a number: a graph repeats it as it is.
    """
    if isinstance(value, Tensor):
        if value.device.type == "cpu" != device.type and not torch.compiler.is_compiling():
            return value.item()
        return value.to(device, torch.float64)
    if isinstance(value, tuple | list):
        return tuple(wide(x, device) for x in value)
    return value


def rows_of(values: Sequence[Any], like: Tensor) -> Tensor:
    """Numbers and tensors as the rows of a matrix, each as long as `like` and on its device.

    >>> rows_of([0.5, torch.tensor([1.0, 2.0])], torch.zeros(2, dtype=torch.float64))
    tensor([[0.5000, 0.5000],
            [1.0000, 2.0000]], dtype=torch.float64)
    """
    zero = torch.zeros_like(like)
    if (
        torch.compiler.is_compiling()
    ):  # it makes one kernel of all; a list of rates would compile anew
        return torch.stack([zero + (x.to(zero) if isinstance(x, Tensor) else x) for x in values])
    numbers = [float(x) for x in values if not isinstance(x, Tensor)]
    filled = iter(torch._foreach_add([zero] * len(numbers), numbers) if numbers else ())
    return torch.stack(
        [x.to(zero).expand_as(zero) if isinstance(x, Tensor) else next(filled) for x in values]
    )


def run(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    states: Sequence[Tensor],
    rows: Tensor,
    rule: Rule,
    state: str,
    backend: str,
    rounding: str,
    guarded: bool,
) -> list[Done]:
    """Step `params` in place by the numbers in `rows`; returns the batches that were stepped.

    `rows` are those of a `Batch`. `states` lists the parts of each state of the first tensor and its
    rest, then of the second. On a CPU the numbers are read, and tensors at the same step go together.
    """
    parts = iter(states)
    known = rows.t().tolist() if _is_read(rows) else None
    buckets: dict[Any, list[tuple[int, list[list[Tensor]], list[Tensor]]]] = {}
    for i, p in enumerate(params):
        codec, way = codec_for(state, p), rounding_for(rounding, p)
        held = [[local(real(next(parts))) for _ in codec.suffixes] for _ in rule.states]
        rest = [local(next(parts))] if way.rest else []
        numbers = tuple(known[i]) if known is not None else ()
        buckets.setdefault((p.dtype, codec.name, numbers), []).append((i, held, rest))
    done, place = [], 0
    for (_, name, numbers), bucket in buckets.items():
        places = [i for i, _, _ in bucket]
        batch = Batch(
            rule,
            (),
            codec_named(name),
            [local(real(params[i])) for i in places],
            [local(real(grads[i])) for i in places],
            [
                [list(column) for column in zip(*(held[k] for _, held, _ in bucket), strict=True)]
                for k in range(len(rule.states))
            ],
            rounding=rounding_for(rounding, params[places[0]]),
            rests=[x for _, _, rest in bucket for x in rest],
            guarded=guarded and known is None,
            place=place,
        )
        if known is None:
            batch.rows, batch.columns = rows, None if len(places) == len(params) else places
        elif not _given(batch, numbers):
            continue
        done.append(Done(batch, places, run_batch(backend, batch)))
        place += len(bucket)
    return done


def again(
    parts: Sequence[Part], grads: list[Tensor], rows: Tensor, backend: str, guarded: bool
) -> set[str] | None:
    """Step the `parts` of a group, whose gradients were looked at; returns the executors' names.

    None, and nothing is done, where the numbers are read and differ among the tensors.
    """
    read = _is_read(rows)
    if read and not bool((rows == rows[:, :1]).all()):
        return None
    ran = set()
    for part in parts:
        batch = part.batch
        if read and not _given(batch, rows[:, 0].tolist()):
            continue
        if not read:
            batch.rows, batch.guarded = rows, guarded
        batch.grads = part.of(grads)
        ran.add(run_batch(backend, batch))
        batch.grads, batch.rows = [], None  # theirs who own them
    return ran


def _is_read(rows: Tensor) -> bool:
    """Whether the host may read these numbers, for it waits for nobody."""
    return rows.device.type == "cpu"


def _given(batch: Batch, numbers: Sequence[float]) -> bool:
    """Give `batch` the numbers of its tensors, a column of `rows`; returns whether it is to step."""
    *scalars, batch.scale, go, count, drawn = numbers
    batch.scalars = tuple(scalars)
    batch.seed, batch.draw = (seed_of(int(x), batch.place) for x in (count, drawn))
    return bool(go)
