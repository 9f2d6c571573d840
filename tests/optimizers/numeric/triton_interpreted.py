"""Checks of the Triton kernels in Triton's interpreter: run with TRITON_INTERPRET=1, says "agreed".

With ``--long`` the checks that take longest, else the others.

A process of its own, for the interpreter is chosen when Triton is imported.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

from optimizers.numeric.adam import AdamW
from optimizers.numeric.captured import rows_of
from optimizers.numeric.codecs.codec import Codec
from optimizers.numeric.codecs.dynamic import code_book
from optimizers.numeric.codecs.plain import FP32
from optimizers.numeric.codecs.table import CODECS
from optimizers.numeric.executors.batch import Batch
from optimizers.numeric.executors.eager import Eager
from optimizers.numeric.executors.newton_schulz import iterate
from optimizers.numeric.executors.stored import find
from optimizers.numeric.executors.triton import Triton, books
from optimizers.numeric.rules.adam import ADAMW
from optimizers.numeric.rules.rule import Rule, define
from tests.optimizers.numeric.family import FAMILY
from tests.optimizers.numeric.triton_patched import once_a_launch

HYPER = {"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}
ULP = 2.0**-7  # of bfloat16, relative; the interpreter cuts where a GPU rounds


def every_rule_is_its_definition() -> None:
    """Six steps of each rule beside float64."""
    rng = np.random.default_rng(0)
    for row in FAMILY:
        if not row.pure:
            continue
        starts = [rng.normal(size=n).astype(np.float32) for n in (5, 1500)]
        params = [torch.tensor(x) for x in starts]
        optimizer = row([torch.zeros(1)], weight_decay=0.1)
        hyper = dict(optimizer.defaults, backend="triton")
        rule = optimizer.rule(hyper)
        states = [[[torch.zeros_like(p) for p in params]] for _ in rule.states]
        gs, held = [], [tally.first for tally in rule.tallies]
        for t in range(1, 7):
            now = rule.tallied(hyper, held, t)
            held = [now[tally.name] for tally in rule.tallies]
            grads = [torch.tensor(rng.normal(size=p.shape).astype(np.float32)) for p in params]
            gs.append(grads)
            batch = Batch(rule, rule.scalars(now, t), FP32, params, grads, states)
            assert Triton().takes(batch)
            Triton().run(batch)
        for i, (p, x) in enumerate(zip(params, starts, strict=True)):
            gold, _ = define(rule, x.astype(np.float64), [g[i].double().numpy() for g in gs], hyper)
            off = np.abs(p.double().numpy() - gold) > 1e-5 * (1 + np.abs(gold))
            assert off.mean() <= (0.01 if row.name == "Lion" else 0), (row.name, off.mean())


def empty(codec: Codec, rule: Rule, params: list[torch.Tensor]) -> list[list[list[torch.Tensor]]]:
    return [
        [list(part) for part in zip(*(codec.empty(p, kind) for p in params), strict=True)]
        for kind in rule.states
    ]


def every_codec_stores_what_eager_stores() -> None:
    """Steps one by one from the same values: equal but for the interpreter's bfloat16."""
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        for codec in CODECS.values():
            ours = [torch.randn(n, generator=generator).to(dtype) for n in (5, 1024, 1500)]
            mine = empty(codec, ADAMW, ours)
            for t in range(1, 5):
                spread = [torch.exp(2 * torch.randn(p.shape, generator=generator)) for p in ours]
                grads = [
                    (torch.randn(p.shape, generator=generator) * s).to(dtype)
                    for p, s in zip(ours, spread, strict=True)
                ]
                theirs = [p.clone() for p in ours]
                other = [[[x.clone() for x in part] for part in state] for state in mine]
                scalars, seed = ADAMW.scalars(HYPER, t), t << 20
                for executor, params, states in ((Triton(), ours, mine), (Eager(), theirs, other)):
                    executor.run(Batch(ADAMW, scalars, codec, params, grads, states, seed=seed))
                where = (dtype, codec.name, t)
                for p, q in zip(ours, theirs, strict=True):
                    _near(p, q, where)
                for state, held in zip(mine, other, strict=True):
                    for part, kept in zip(state, held, strict=True):
                        for x, y in zip(part, kept, strict=True):
                            _near(x, y, where)


def _near(x: torch.Tensor, y: torch.Tensor, where: object) -> None:
    """Equal to the last bit but one of what is stored: numpy and torch may round a sum apart."""
    if x.dtype is torch.uint8:
        apart = (x.int() - y.int()).abs()
        assert apart.max() <= 1, where
        assert (apart > 0).double().mean() <= 0.01, where
    else:
        last = {torch.bfloat16: ULP, torch.float16: 2.0**-10}.get(x.dtype, 1e-5)
        assert torch.allclose(x.float(), y.float(), rtol=last, atol=1e-6), where


@triton.jit
def _found(x, out, books, SIGNED: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out + at, find(tl.load(x + at), books, SIGNED))


def the_dynamic_map_gives_the_nearest_value() -> None:
    """Its values, the edges between them, numbers just beside these, and many others."""
    generator = torch.Generator().manual_seed(0)
    for signed in (True, False):
        values = torch.tensor(code_book(signed))
        edges = (values[1:] + values[:-1]) / 2
        beside = [torch.nextafter(edges, torch.tensor(to)) for to in (9.0, -9.0)]
        ends = torch.tensor([0.0, 1.0, 1 + 1e-7, 2.0**-23, 2.0**-24, 1e-30])
        spread = torch.exp(-18 * torch.rand(1 << 14, generator=generator))
        x = torch.cat([values, edges[edges > 0], *beside, ends, spread[:7000], -spread])
        x = x[: 1 << 14] if signed else x[: 1 << 14].abs()
        out = torch.zeros(len(x), dtype=torch.int32)
        _found[(1,)](x, out, books(x.device), signed, len(x))
        gold = torch.bucketize(x, edges)
        if not signed:
            gold = torch.where((x > 0) & (gold < 1), 1, gold)
        assert torch.equal(out, gold.int()), signed


def an_optimizer_keeps_its_tables() -> None:
    """Later steps go by the plan of the first, with gradients that move; small tensors have no codes."""
    generator = torch.Generator().manual_seed(0)
    ps = [torch.randn(n, generator=generator).requires_grad_() for n in (5000, 7)]
    qs = [p.detach().clone().requires_grad_() for p in ps]
    one = AdamW(ps, lr=0.01, state="8bit", backend="triton")
    two = AdamW(qs, lr=0.01, state="8bit", backend="eager")
    for _ in range(3):
        for p, q in zip(ps, qs, strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        one.step()
        two.step()
    assert one.ran == ("triton",), one.ran
    assert [len(part.batch.params) for part in one._plans[0].parts] == [1, 1]
    for p, q in zip(ps, qs, strict=True):
        assert torch.allclose(p, q, rtol=1e-5, atol=1e-6)


def tensors_lie_anywhere() -> None:
    """Views at odd places, as gradients in the buckets of DistributedDataParallel are."""
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(2000, generator=generator)
    for dtype in (torch.float32, torch.bfloat16):
        ps = [flat.to(dtype)[a:b] for a, b in ((1, 1101), (1101, 1900), (1903, 1910))]
        qs = [p.clone() for p in ps]
        one = AdamW(ps, lr=0.01, backend="triton", rounding="24bit")
        two = AdamW(qs, lr=0.01, backend="eager", rounding="24bit")
        for t in range(3):
            bucket, at = torch.randn(2400, generator=generator).to(dtype), t
            for p, q in zip(ps, qs, strict=True):
                p.grad = bucket[at : at + p.numel()]
                q.grad, at = p.grad.clone(), at + p.numel()
            one.step()
            two.step()
            assert one.ran == ("triton",), one.ran
        for p, q in zip(ps, qs, strict=True):
            assert torch.allclose(p, q, rtol=ULP if dtype == torch.bfloat16 else 1e-5, atol=1e-6)


def what_memory_holds_in_one_order_is_stepped_and_else_left_to_others() -> None:
    """Convolutions in torch's channels_last; opposites, other dtypes and other orders are not taken."""

    def last(x: torch.Tensor) -> torch.Tensor:
        return x.contiguous(memory_format=torch.channels_last)

    def step(p: torch.Tensor, grads: list[torch.Tensor], **options: Any) -> tuple[str, ...]:
        q = p.clone(memory_format=torch.contiguous_format)
        one = AdamW([p], lr=0.1, backend="triton", **options)
        two = AdamW([q], lr=0.1, backend="eager", **options)
        for g in grads:
            p.grad, q.grad = g, g.clone(memory_format=torch.contiguous_format)
            one.step()
            two.step()
        assert torch.allclose(p, q, rtol=1e-5, atol=1e-6), options
        return one.ran

    generator = torch.Generator().manual_seed(0)
    x, *grads = (torch.randn(6, 5, 3, 3, generator=generator) for _ in range(3))
    assert step(last(x), [last(g) for g in grads]) == ("triton",)
    assert step(last(x), grads) == ("eager",)
    assert step(x.clone(), [last(g) for g in grads]) == ("eager",)
    big, g = (last(torch.randn(8, 64, 3, 3, generator=generator)) for _ in range(2))
    assert step(big, [g], state="8bit") == ("eager",)
    opposite = torch.complex(torch.zeros(()), torch.ones(())).conj().imag
    assert opposite.is_neg()
    assert step(torch.zeros(()), [opposite]) == ("eager",)
    p = torch.zeros(4, dtype=torch.float64)
    wider = AdamW([p], lr=0.1, weight_decay=0.0, backend="triton")
    for _ in range(2):
        p.grad = torch.ones_like(p)
        wider.step()
        p.data = p.data.float()
    assert torch.allclose(p, torch.full_like(p, -0.2), atol=1e-5)


def numbers_on_the_device_step_as_those_of_the_host() -> None:
    """Each tensor at a step of its own: one launch is what a launch for each is."""
    generator = torch.Generator().manual_seed(0)
    for row in FAMILY:
        if not row.pure:
            continue
        optimizer = row([torch.zeros(1)], weight_decay=0.1)
        hyper = dict(optimizer.defaults)
        rule, codec = optimizer.rule(hyper), CODECS["bf16-stochastic"]
        held = [tally.first for tally in rule.tallies]
        ours = [torch.randn(n, generator=generator) for n in (5, 1024, 1500, 3, 40)]
        theirs = [p.clone() for p in ours]
        mine, other = (empty(codec, rule, params) for params in (ours, theirs))
        t = torch.tensor([1.0, 4.0, 10.0, 4.0, 11.0], dtype=torch.float64)
        for _ in range(2):
            grads = [torch.randn(p.shape, generator=generator) for p in ours]
            rows = rows_of([*rule.scalars(rule.tallied(hyper, held, t), t), -1.0, 1.0, t, t], t)
            Triton().run(Batch(rule, (), codec, ours, grads, mine, rows=rows))
            for i, p in enumerate(theirs):
                state = [[[part[i]] for part in kind] for kind in other]
                step = int(t[i])
                numbers = rule.scalars(rule.tallied(hyper, held, step), step)
                batch = Batch(rule, numbers, codec, [p], [grads[i]], state)
                batch.scale, batch.seed = -1.0, (step << 20) + i
                Triton().run(batch)
            t += 1
        for p, q in zip(ours, theirs, strict=True):
            off = (p - q).abs() > 1e-5 * (1 + q.abs())
            assert off.double().mean() <= (0.01 if row.name == "Lion" else 0), row.name


def a_seed_of_the_host_has_its_place_already() -> None:
    """The place among a group's tensors is in the seed; with numbers on the device it is not yet."""
    generator = torch.Generator().manual_seed(0)
    start, g = (torch.randn(64, generator=generator) for _ in range(2))
    codec, scalars = CODECS["bf16-stochastic"], ADAMW.scalars(HYPER, 1)
    found = []
    for place in (0, 7):
        p = start.clone()
        state = empty(codec, ADAMW, [p])
        Triton().run(Batch(ADAMW, scalars, codec, [p], [g], state, seed=12345, place=place))
        found.append(state[0][0][0])
    assert torch.equal(*found)


def newton_schulz_is_its_formula() -> None:
    """Batches of odd sizes, over several blocks, beside float64."""
    generator = torch.Generator().manual_seed(0)
    a, b, c = coefficients = (3.4445, -4.775, 2.0315)
    for shape in ((2, 5, 9), (1, 64, 64), (2, 70, 130), (1, 1, 7)):
        x = torch.randn(shape, generator=generator)
        x = x / torch.linalg.matrix_norm(x, keepdim=True)
        gold = x.double()
        for _ in range(5):
            gram = gold @ gold.mT
            gold = a * gold + (b * gram + c * (gram @ gram)) @ gold
        assert (iterate(x, 5, coefficients) - gold).abs().max() < 1e-5, shape


QUICK = (
    every_rule_is_its_definition,
    an_optimizer_keeps_its_tables,
    tensors_lie_anywhere,
    what_memory_holds_in_one_order_is_stepped_and_else_left_to_others,
    newton_schulz_is_its_formula,
    the_dynamic_map_gives_the_nearest_value,
    a_seed_of_the_host_has_its_place_already,
)
LONG = (every_codec_stores_what_eager_stores, numbers_on_the_device_step_as_those_of_the_host)

if __name__ == "__main__":
    once_a_launch()
    for check in LONG if "--long" in sys.argv else QUICK:
        check()
    print("agreed")  # noqa: T201
