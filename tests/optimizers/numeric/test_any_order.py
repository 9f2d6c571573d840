"""Whatever changes between steps, in any order: a step by a plan does what one without does.

Two optimizers on equal tensors of several dtypes; the second forgets its plans before every step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from optimizers.numeric import rule_optimizer
from optimizers.numeric.adam import AdamW, NadamW
from optimizers.numeric.rule_optimizer import RuleOptimizer
from optimizers.numeric.sgd import SGD

LIKE = [((6, 4), torch.float32), ((5,), torch.bfloat16), ((70, 64), torch.float32)]
LIKE += [((), torch.float64), ((0, 3), torch.bfloat16)]

MAKE: dict[str, Callable[[Any], RuleOptimizer]] = {
    "codes": lambda ps: AdamW(ps, lr=0.1, state="8bit", backend="native"),
    "drawn": lambda ps: SGD(ps, lr=0.1, momentum=0.9, state="bf16-stochastic", backend="native"),
    "clipped": lambda ps: NadamW(ps, lr=0.1, backend="foreach", clip_norm=2.0, nonfinite="skip"),
    "counted": lambda ps: NadamW(ps, lr=0.1, backend="native", capturable=True, nonfinite="skip"),
}


def restored(o: RuleOptimizer, p: Tensor) -> None:
    o.load_state_dict(copy.deepcopy(o.state_dict()))


def with_data(o: RuleOptimizer, p: Tensor) -> None:
    p.data = p.data.clone()


def with_gaps(o: RuleOptimizer, p: Tensor) -> None:
    p.grad = torch.ones(*p.shape, 2, dtype=p.dtype)[..., 0]


def odd(o: RuleOptimizer, p: Tensor) -> None:
    p.grad = torch.ones(p.numel() + 1, dtype=p.dtype)[1:].view(p.shape)


def without(o: RuleOptimizer, p: Tensor) -> None:
    p.grad = None


def with_nan(o: RuleOptimizer, p: Tensor) -> None:
    if o.nonfinite == "skip":
        p.grad = torch.full_like(p, torch.nan)


def with_other_state(o: RuleOptimizer, p: Tensor) -> None:
    o.state[p].update({k: copy.deepcopy(x) for k, x in o.state[p].items() if k != "step"})


def begun_anew(o: RuleOptimizer, p: Tensor) -> None:
    o.state[p].clear()


def slower(o: RuleOptimizer, p: Tensor) -> None:
    o.param_groups[0]["lr"] *= 0.5


CHANGES = (restored, with_data, with_gaps, odd, without, with_nan, with_other_state)
CHANGES += (begun_anew, slower)
NOTHING = ()


def pair(name: str) -> tuple[list[RuleOptimizer], list[list[Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    # on a processor only the host's counts make plans of several parts
    like = [(s, torch.float32) for s, _ in LIKE] if name == "counted" else LIKE
    ps = [torch.randn(s, generator=generator).to(d).requires_grad_() for s, d in like]
    both = [ps, [p.detach().clone().requires_grad_() for p in ps]]
    return [MAKE[name](column) for column in both], both


def step(optimizers: list[RuleOptimizer], both: list[list[Tensor]], t: int, change: Any) -> None:
    generator = torch.Generator().manual_seed(t)
    for row in zip(*both, strict=True):
        g = torch.randn(row[0].shape, generator=generator)
        for p in row:
            p.grad = g.to(p.dtype, copy=True)
    for o, ps in zip(optimizers, both, strict=True):
        for what, i in change:
            what(o, ps[i])
    optimizers[1].forget()
    for o in optimizers:
        o.step()
    one, two = optimizers
    for p, q in zip(*both, strict=True):
        assert torch.equal(p, q)
        for name, held in two.state[q].items():
            assert torch.equal(torch.as_tensor(one.state[p][name]), torch.as_tensor(held)), name


@pytest.mark.parametrize("name", MAKE)
@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(CHANGES), st.integers(0, len(LIKE) - 1)), max_size=2),
        max_size=6,
    )
)
def test_a_step_by_a_plan_is_one_without(name: str, changes: list[Any]) -> None:
    optimizers, both = pair(name)
    for t, change in enumerate([NOTHING, NOTHING, *changes, NOTHING]):
        step(optimizers, both, t, change)


@pytest.mark.parametrize("name", ["codes", "drawn", "clipped"])
def test_tensors_of_several_dtypes_go_by_one_plan(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part for each dtype and each way to store state; nothing is looked at tensor by tensor."""
    optimizers, both = pair(name)
    step(optimizers, both, 0, NOTHING)
    one = optimizers[0]
    (plan,) = one._plans.values()
    assert len(plan.parts) == (4 if name == "codes" else 3)

    def fails(*arguments: Any, **named: Any) -> Any:
        raise AssertionError("a batch was made anew")

    one.state[both[0][0]]["nothing"] = 1  # what others keep there is no matter
    for p in both[0]:
        p.grad = torch.ones_like(p)
    with monkeypatch.context() as patch:
        patch.setattr(rule_optimizer, "Batch", fails)
        one.step()
