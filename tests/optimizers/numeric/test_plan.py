"""Plans that write over their operands give what the body gives."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizers.numeric.codecs.plain import FP32
from optimizers.numeric.codecs.table import CODECS
from optimizers.numeric.executors import foreach
from optimizers.numeric.executors.batch import Batch
from optimizers.numeric.executors.eager import Eager
from optimizers.numeric.executors.foreach import Foreach
from optimizers.numeric.executors.plan import G, planned
from optimizers.numeric.rules import dialect
from optimizers.numeric.rules.adam import ADAMW
from optimizers.numeric.rules.momentum import MOMENTUM
from optimizers.numeric.rules.rule import Rule, State
from optimizers.numeric.rules.table import RULES

SCALARS = (0.25, -0.5, 1.0)
FORMS = (
    *("{a} + {b}", "{a} - {b}", "{a} * {b}", "-{a}", "{h} - {a}", "{h} * {a} + {b}"),
    *("{a} - {h} * {b}", "{a} + {h} * ({b} - {a})", "{a} - {h} * {b} * {c}", "absolute({a})"),
    *("maximum({a}, {b})", "minimum({a}, {h})", "sign({a})", "where({a} > {b}, {b}, {c})"),
    *("where({h} >= {a}, {a}, {b})", "{a} + {h} * ({a} * {b} - {a})"),
)
INEXACT = (
    *("{a} / (absolute({b}) + 1.0)", "sqrt(absolute({a}))", "2.0 / (1.0 + absolute({a}))"),
    *("{a} - {h} * {b} / (absolute({c}) + 1.0)", "{a} + {b} / (absolute({c}) + 1.0)"),
)
"""Forms after which nothing is compared any more: a rounding may decide a comparison."""


@st.composite
def bodies(draw: st.DrawFn) -> FunctionType:
    """A body in the dialect: some exact lines, then some that round, then any three values."""
    names, lines = ["p", "g", "s0", "s1"], []
    exact = draw(st.integers(0, 6))
    for k in range(exact + draw(st.integers(0, 4))):
        forms = FORMS if k < exact else (*FORMS[:9], *INEXACT)
        pick = st.sampled_from(names)
        form = draw(st.sampled_from(forms))
        h = f"h{draw(st.integers(0, 2))}"
        lines.append(f"x{k} = " + form.format(a=draw(pick), b=draw(pick), c=draw(pick), h=h))
        names.append(f"x{k}")
    out = [draw(st.sampled_from(names)) for _ in range(3)]
    head = "def body(p, g, s, h):\n s0, s1 = s\n h0, h1, h2 = h\n "
    text = head + "\n ".join([*lines, f"return {out[0]}, ({out[1]}, {out[2]})"])
    space: dict[str, Any] = {word: getattr(dialect, word) for word in dialect.WORDS}
    exec(text, space)  # a body has to be a plain function
    space["body"].__doc__ = text
    body = space["body"]
    assert isinstance(body, FunctionType)
    return body


@settings(max_examples=150, deadline=None)
@given(bodies(), st.sampled_from([1.0, -1.0]), st.sampled_from([(7,), (3, 4, 2), (20, 1, 2)]))
def test_any_body_gives_what_it_gives_in_numpy(
    body: FunctionType, scale: float, sizes: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    rule = Rule("any", body, lambda o, t: SCALARS, (State("a"), State("b")))
    start = [[rng.integers(-3, 4, size=n).astype(float) for n in sizes] for _ in range(4)]
    p, g, a, b = ([torch.tensor(x) for x in column] for column in start)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foreach, "PORTION", 6)  # so that some are cut and some taken together
        Foreach().run(Batch(rule, SCALARS, FP32, p, g, [[a], [b]], scale=scale))
    for i in range(len(sizes)):
        gold_p, gold = body(start[0][i], scale * start[1][i], (start[2][i], start[3][i]), SCALARS)
        for mine, wanted in zip((p[i], a[i], b[i]), (gold_p, *gold), strict=True):
            assert np.allclose(mine.numpy(), wanted, rtol=1e-12, atol=1e-12), body.__doc__
        assert np.array_equal(g[i].numpy(), start[1][i])


def test_random_rounding_goes_by_the_tensors_of_a_batch_however_they_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Several portions, and a tensor that is larger than one, store what each by itself stores."""
    monkeypatch.setattr(foreach, "PORTION", 6)
    generator = torch.Generator().manual_seed(0)
    start = [[torch.randn(n, generator=generator) for n in (4, 20, 1, 5, 40)] for _ in range(2)]
    stored = []
    for executor in (Foreach(), Eager()):
        p, g = ([x.clone() for x in column] for column in start)
        m = [torch.zeros(x.shape, dtype=torch.bfloat16) for x in p]
        batch = Batch(MOMENTUM, (0.5, 0.0, 0.9, 1.0), CODECS["bf16-stochastic"], p, g, [[m]])
        batch.seed = 3 << 20
        executor.run(batch)
        stored.append(m)
    for mine, wanted in zip(*stored, strict=True):
        assert torch.equal(mine, wanted)


def test_the_gradient_is_written_over_only_where_it_is_the_executors_own() -> None:
    for rule in RULES.values():
        count = len(rule.scalars(HYPER, 3))
        plan = planned(rule, count, own_gradient=False)
        assert G not in {call.out for call in plan.calls} | {to for _, to in plan.moves}
        spared = planned(rule, count, own_gradient=True)
        assert len(spared.scratch) <= len(plan.scratch)


def test_adamw_takes_seven_operations_and_one_list_of_scratch() -> None:
    plan = planned(ADAMW, 6, own_gradient=False)
    ops = [call.op for call in plan.calls]
    assert ops == ["axpy", "lerp", "lerp_product", "sqrt", "mul", "add", "addcdiv"]
    assert (len(plan.scratch), plan.moves) == (1, ())


def test_arithmetic_on_two_scalars_is_refused() -> None:
    def body(p: Any, g: Any, s: Any, h: Any) -> Any:
        return p - h[0] * h[1] * g, s

    rule = Rule("wrong", body, lambda o, t: (1.0, 2.0))
    with pytest.raises(TypeError, match="computes on two scalars; do it in its `scalars`"):
        planned(rule, 2, own_gradient=False)


HYPER: dict[str, Any] = {
    "lr": 0.1,
    "weight_decay": 0.1,
    "momentum": 0.9,
    "dampening": 0.0,
    "betas": (0.9, 0.99),
    "eps": 1e-8,
    "momentum_decay": 4e-3,
    "delta": 1.0,
    "log_factor": True,
    "rho": 0.04,
    "batch_size": 1.0,
    "reset_interval": 10,
    "warmup_steps": 4,
    "grace_steps": 2,
    "threshold": 5.0,
    "mu_product": 0.2,
    "lr_max": 0.1,
    "weight_sum": 0.02,
}
