"""Checks of how the Triton kernel rounds parameters: run with TRITON_INTERPRET=1, says "agreed"."""

from __future__ import annotations

import copy
from typing import Any
from unittest import mock

import numpy as np
import torch

from optimizers.numeric.captured import rows_of
from optimizers.numeric.codecs.codec import Codec
from optimizers.numeric.codecs.plain import FP32
from optimizers.numeric.codecs.rounding import NEAREST, REST, ROUNDINGS
from optimizers.numeric.codecs.table import CODECS
from optimizers.numeric.executors.batch import Batch, seed_of
from optimizers.numeric.executors.running import run
from optimizers.numeric.executors.triton import Triton
from optimizers.numeric.rules.adam import ADAMW
from optimizers.numeric.rules.lion import LION
from optimizers.numeric.rules.momentum import MOMENTUM, SGD
from optimizers.numeric.rules.rule import Rule, define
from optimizers.numeric.sgd import SGD as Momentum
from tests.optimizers.numeric.triton_interpreted import HYPER, empty
from tests.optimizers.numeric.triton_patched import once_a_launch

HEAVY = HYPER | {"momentum": 0.9, "dampening": 0.0}
Work = tuple[Any, Any, Any, Any]  # params, gradients, states, rests
WAYS = [way for way in ROUNDINGS.values() if way is not NEAREST]  # the interpreter cuts there


def _rounded_batch(rule: Rule, name: str, codec: Codec, hyper: Any, t: int, work: Work) -> Batch:
    params, grads, states, rests = work
    seed, draw = seed_of(t), seed_of(3 * t)
    return Batch(
        rule,
        rule.scalars(hyper, t),
        codec,
        params,
        grads,
        states,
        seed=seed,
        rounding=ROUNDINGS[name],
        rests=rests,
        draw=draw,
    )


def every_rounding_is_that_of_its_definition() -> None:
    """Bit by bit what rounding as torch operations leaves, whatever the state is stored as.

    Every operation of these rules is rounded alike by numpy and by torch, as a square root is not,
    which the kernel reads and writes companded state by.
    """
    generator = torch.Generator().manual_seed(0)
    for way in WAYS:
        for rule, codec in (
            (MOMENTUM, "fp32"),
            (MOMENTUM, "8bit-dynamic"),
            (LION, "bf16-stochastic"),
        ):
            ours = [torch.randn(n, generator=generator).bfloat16() for n in (5, 1324)]
            mine = empty(CODECS[codec], rule, ours)
            rests = [torch.zeros_like(p, dtype=way.rest) for p in ours] if way.rest else []
            for t in range(1, 4):
                grads = [torch.randn(p.shape, generator=generator).bfloat16() for p in ours]
                if t == 2:
                    grads[1][1022:1024] = torch.tensor([torch.inf, torch.nan])
                    if codec == "fp32":  # a NaN that a carry would turn into a number
                        mine[0][0][1].view(torch.int32)[1021] = 0x7FFFFFFF
                copied = copy.deepcopy((ours, grads, mine, rests))
                batch = _rounded_batch(
                    rule, way.name, CODECS[codec], HEAVY, t, (ours, grads, mine, rests)
                )
                assert Triton().takes(batch)
                Triton().run(batch)
                again = _rounded_batch(rule, way.name, CODECS[codec], HEAVY, t, copied)
                assert run("eager", again) == "eager"
                for p, q in zip([*ours, *rests], [*copied[0], *copied[3]], strict=True):
                    assert torch.equal(bits(p), bits(q)), (way, rule, codec, t)


def bits(x: torch.Tensor) -> torch.Tensor:
    """What is stored, every NaN as one."""
    if x.dtype == torch.bfloat16:
        return torch.where(x.isnan(), torch.nan, x).view(torch.int16)
    return x


def roundings_stay_near_the_definition() -> None:
    """Six steps beside float64: each rounds by a part in 2^16 at most, and at random by one in 2^7."""
    rng = np.random.default_rng(0)
    allowed = {"stochastic": 2.0**-7, "24bit": 2.0**-16, "32bit": 0.0}  # of 1 to 2, per step
    hyper = HYPER | {"lr": 1e-4}
    for name, step in allowed.items():
        way = ROUNDINGS[name]
        p = torch.tensor(1.05 + 0.9 * rng.random(1500)).bfloat16()
        x = p.double().numpy()
        work: Work = (
            [p],
            [],
            [[[torch.zeros(1500)]] for _ in ADAMW.states],
            [torch.zeros_like(p, dtype=way.rest)] if way.rest else [],
        )
        gs = []
        for t in range(1, 7):
            work[1][:] = [torch.tensor(rng.normal(size=1500)).bfloat16()]
            gs.append(work[1][0].double().numpy())
            Triton().run(_rounded_batch(ADAMW, name, FP32, hyper, t, work))
        gold, _ = define(ADAMW, x, gs, hyper)
        held = way.widened(p, work[3][0] if way.rest else None).double().numpy()
        assert np.abs(held - gold).max() <= 6 * step + 1e-6, name


def rounding_at_random_is_right_on_average() -> None:
    """A step of a tenth of a unit: one in ten moves, by one unit, and others in the next step."""
    count, unit = 1 << 14, 2.0**-7
    tenth = {"lr": unit / 10, "weight_decay": 0.0}
    p = torch.full((count,), 1.203125).bfloat16()
    seen = []
    for t in (1, 2):
        start = p.clone()
        g = torch.ones_like(p)
        batch = _rounded_batch(SGD, "stochastic", FP32, tenth, t, ([p], [g], [], []))
        Triton().run(batch)
        moved = (start.double() - p.double()) / unit
        assert set(moved.unique().tolist()) == {0.0, 1.0}
        assert abs(moved.mean() - 0.1) < 5 * (0.09 / count) ** 0.5
        seen.append(moved.bool())
    both = (seen[0] & seen[1]).double().mean()
    assert abs(both - 0.01) < 5 * (0.01 / count) ** 0.5


def a_tensor_that_is_not_to_step_stays_to_the_bit() -> None:
    """Of two steps' numbers on the device one says no: rests, codes and scales stay as well."""
    generator = torch.Generator().manual_seed(0)
    for codec in ("fp32", "8bit", "8bit-dynamic"):
        ours = [torch.randn(n, generator=generator).bfloat16() for n in (1500, 3000)]
        rests = [torch.ones_like(p, dtype=torch.int8) for p in ours]
        states = empty(CODECS[codec], ADAMW, ours)
        before = copy.deepcopy((ours, rests, states))
        t = torch.tensor([3.0, 3.0], dtype=torch.float64)
        go = torch.tensor([0.0, 1.0], dtype=torch.float64)
        rows = rows_of([*ADAMW.scalars(HYPER, t), 1.0, go, t, t], t)
        grads = [torch.full_like(p, torch.nan) for p in ours[:1]] + [torch.ones_like(ours[1])]
        more = {"rounding": ROUNDINGS["24bit"], "rests": rests, "guarded": True}
        batch = Batch(ADAMW, (), CODECS[codec], ours, grads, states, rows=rows, **more)
        Triton().run(batch)
        now = (ours, rests, states)
        kept, moved = ([_column(x, i) for x in (before, now)] for i in (0, 1))
        assert all(torch.equal(a, b) for a, b in zip(*kept, strict=True)), codec
        assert not any(torch.equal(a, b) for a, b in zip(*moved, strict=True)), codec


def _column(held: Any, i: int) -> list[torch.Tensor]:
    """All that is stored of tensor `i`."""
    params, rests, states = held
    return [params[i], rests[i], *(part[i] for state in states for part in state)]


def an_optimizer_rounds_inside_the_kernel() -> None:
    """No wide copy is made, and steps by the plan of the first round on, as eagerly."""
    generator = torch.Generator().manual_seed(0)
    for way in WAYS:
        ps = [torch.randn(n, generator=generator).bfloat16().requires_grad_() for n in (7, 1024)]
        qs = [p.detach().clone().requires_grad_() for p in ps]
        one = Momentum(ps, lr=0.01, momentum=0.9, rounding=way.name, backend="triton")
        two = Momentum(qs, lr=0.01, momentum=0.9, rounding=way.name, backend="eager")
        for _ in range(3):
            for p, q in zip(ps, qs, strict=True):
                p.grad = torch.randn(p.shape, generator=generator).bfloat16()
                q.grad = p.grad.clone()
            with mock.patch.object(type(way), "widened", _never):
                one.step()
            two.step()
        assert one.ran == ("triton",), one.ran
        assert one._plans, "no plan was kept"
        for p, q in zip(ps, qs, strict=True):
            assert torch.equal(p, q), way
            rest = [o.state[x].get(REST) for o, x in ((one, p), (two, q))]
            assert rest[0] is rest[1] or torch.equal(*rest), way


def _never(*arguments: Any) -> Any:
    raise AssertionError("a wide copy was made")


def gradients_of_another_dtype_are_not_taken() -> None:
    """The kernel would read the bits of one dtype as those of the other."""
    p, g = torch.zeros(8), torch.ones(8, dtype=torch.bfloat16)
    assert not Triton().takes(Batch(SGD, (0.1, 0.0), FP32, [p], [g], []))


if __name__ == "__main__":
    once_a_launch()
    every_rounding_is_that_of_its_definition()
    roundings_stay_near_the_definition()
    rounding_at_random_is_right_on_average()
    a_tensor_that_is_not_to_step_stays_to_the_bit()
    an_optimizer_rounds_inside_the_kernel()
    gradients_of_another_dtype_are_not_taken()
    print("agreed")  # noqa: T201
