"""Checks of steps that count where the tensors are, and of their plans: run with TRITON_INTERPRET=1.

What a GPU would be given is given to the interpreter: no number is read by the host. Codes, which take it
long, are in with ``--long``. Says "agreed".
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from optimizers.numeric import capturable, captured
from optimizers.numeric.adam import AdamW, NadamW
from optimizers.numeric.executors import tables
from optimizers.numeric.rule_optimizer import RuleOptimizer
from optimizers.numeric.schedule_free import ScheduleFreeAdamW
from tests.optimizers.numeric.triton_patched import once_a_launch

Make = Callable[..., RuleOptimizer]

SIZES = [(40,), (7,), (30, 3), (), (0, 2)]
HALF = (1, 2)
"""Which of the tensors are bfloat16 where dtypes are mixed."""


def tensors(*, mixed: bool, large: bool = False) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [*SIZES, (4096,)] if large else SIZES  # what 8 bits store
    made = [torch.randn(s, generator=generator) for s in sizes]
    return [
        (x.bfloat16() if mixed and i in HALF else x).requires_grad_() for i, x in enumerate(made)
    ]


def feed(columns: Sequence[Sequence[Tensor]], t: int, *, bad: bool = False) -> None:
    """Equal gradients, in memory of their own at each step."""
    generator = torch.Generator().manual_seed(t)
    for row in zip(*columns, strict=True):
        g = torch.randn(row[0].shape, generator=generator)
        if bad and g.dim() == 2 and g.numel():
            g[-1, -1] = torch.nan
        for p in row:
            p.grad = g.to(p.dtype, copy=True)


def alike(one: RuleOptimizer, two: RuleOptimizer) -> None:
    for p, q in zip(*(o.param_groups[0]["params"] for o in (one, two)), strict=True):
        assert torch.equal(p, q)
        for name, held in two.state[q].items():
            assert torch.equal(one.state[p][name], held), name


MAKE: dict[str, tuple[bool, Make]] = {
    "two ways to store": (False, lambda ps, **o: AdamW(ps, state="8bit", **o)),
    "rounding": (True, lambda ps, **o: AdamW(ps, rounding="stochastic", **o)),
    "a rest": (True, lambda ps, **o: NadamW(ps, rounding="24bit", **o)),
    "all that is decided": (
        True,
        lambda ps, **o: ScheduleFreeAdamW(ps, nonfinite="skip", clip_norm=3.0, **o),
    ),
}


def a_plan_steps_as_without() -> None:
    """Bit by bit, through gradients that are missing or not finite, and a rate that is halved."""
    for name, (mixed, make) in MAKE.items():
        if "store" in name and "--long" not in sys.argv:
            continue
        rate = torch.tensor(0.05, dtype=torch.float64)
        ours, theirs = (tensors(mixed=mixed, large="store" in name) for _ in range(2))
        one, two = (make(ps, lr=rate, capturable=True, backend="triton") for ps in (ours, theirs))
        for t in range(3 if "store" in name else 7):  # codes take the interpreter long
            feed((ours, theirs), t, bad=one.nonfinite == "skip" and t in (2, 6))
            if t == 3:
                ours[0].grad = theirs[0].grad = None
            if t == 5:
                rate.mul_(0.5)
            if t in (0, 3, 4):  # the first step, other tensors, these again
                one.step()
            else:
                with mock.patch.object(capturable, "run", _never):
                    one.step()
            two.forget()
            two.step()
            alike(one, two)
        assert one.ran == ("triton",), one.ran
        assert int(one.skipped) == (2 if one.nonfinite == "skip" else 0), name


def _never(*arguments: Any) -> Any:
    raise AssertionError("each tensor was looked at, and there was a plan")


def a_plan_sees_what_has_changed() -> None:
    """Numbers, states and memory that others have put there; gradients that the kernel cannot read."""
    changes: tuple[Callable[[RuleOptimizer, Tensor], Any], ...] = (
        lambda o, p: o.state[p].update(step=torch.tensor(40.0)),
        lambda o, p: o.state[p]["step"].fill_(7.0),
        lambda o, p: o.state[p].update(exp_avg=torch.ones_like(p)),
        lambda o, p: o.state[p].clear(),
        lambda o, p: setattr(p, "data", p.data + 1),
        lambda o, p: setattr(p, "grad", torch.ones(41)[1:]),
        lambda o, p: setattr(p, "grad", torch.full((41,), torch.nan)[1:]),
        lambda o, p: setattr(p, "grad", torch.ones(40, 2)[:, 0]),
        lambda o, p: o.load_state_dict(copy.deepcopy(o.state_dict())),
        lambda o, p: o.param_groups[0].update(amsgrad=False, decoupled_weight_decay=False),
    )
    ours, theirs = tensors(mixed=True), tensors(mixed=True)
    options: Any = {"capturable": True, "backend": "triton", "nonfinite": "skip"}
    one, two = (AdamW(ps, lr=0.05, **options) for ps in (ours, theirs))
    for t, change in enumerate(changes):
        for again in range(2):
            feed((ours, theirs), 2 * t + again)
            if again:
                assert one._plans, "no plan was kept"
                change(one, ours[0])
                change(two, theirs[0])
            two.forget()
            one.step()
            two.step()
            alike(one, two)


def a_plan_keeps_its_tables_when_others_are_made() -> None:
    """Tables for other tensors push these out of what is kept for all; the plan has them still."""
    ours, theirs = tensors(mixed=False), tensors(mixed=False)
    one, two = (AdamW(ps, lr=0.05, capturable=True, backend="triton") for ps in (ours, theirs))
    for t in range(3):
        feed((ours, theirs), t)
        one.step()
        two.step()
        two.forget()
        tables._LAUNCHES.clear()
    alike(one, two)


def a_graph_loads_no_kernel() -> None:
    """One for gradients at any address must have run before; no processor captures, so it is said to."""
    p = torch.ones(40)
    optimizer = AdamW([p], lr=0.05, capturable=True, backend="triton")
    aligned, anywhere = torch.ones(40), torch.ones(44)[1:41]
    p.grad = aligned
    optimizer.step()
    before = p.clone()
    with mock.patch.object(tables, "captures", return_value=True):
        p.grad = anywhere
        with pytest.raises(RuntimeError, match="multiples of 16 bytes"):
            optimizer.step()
    assert torch.equal(p, before)
    optimizer.step()
    with mock.patch.object(tables, "captures", return_value=True):
        optimizer.step()
        p.grad = aligned
        optimizer.step()
    assert optimizer.ran == ("triton",)


def parts_read_the_numbers_of_their_tensors() -> None:
    """Two dtypes in turns, each tensor at a step of its own, beside torch."""
    ours, theirs = tensors(mixed=True), tensors(mixed=True)
    one, two = (
        AdamW(ps, lr=0.5, capturable=True, backend=backend)
        for ps, backend in ((ours, "triton"), (theirs, "eager"))
    )
    for t in range(3):
        feed((ours, theirs), t)
        one.step()
        two.step()
        for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            # the interpreter cuts bfloat16 where torch rounds; another's step is off by far more
            near = {"rtol": 0.02, "atol": 0.02} if i in HALF else {"rtol": 1e-5, "atol": 1e-6}
            assert torch.allclose(p, q, **near), (t, i)
            for optimizer, x in ((one, p), (two, q)):
                optimizer.state[x]["step"].fill_(4.0**i)
    assert one._plans


if __name__ == "__main__":
    once_a_launch()
    with mock.patch.object(captured, "_is_read", return_value=False):
        a_plan_steps_as_without()
        a_plan_sees_what_has_changed()
        a_plan_keeps_its_tables_when_others_are_made()
        a_graph_loads_no_kernel()
        parts_read_the_numbers_of_their_tensors()
    print("agreed")  # noqa: T201
