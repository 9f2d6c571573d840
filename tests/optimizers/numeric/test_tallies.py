"""Numbers that follow from the hyperparameters of all steps so far: `NadamW`, `ScheduleFreeAdamW`."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from optimizers.numeric.adam import Adam, NadamW
from optimizers.numeric.schedule_free import ScheduleFreeAdamW

WAYS: dict[str, dict[str, Any]] = {
    "eager": {"backend": "eager"},
    "foreach": {"backend": "foreach"},
    "native": {"backend": "native"},
    "capturable": {"capturable": True},
}
SHAPES = [(9, 4), (3,), (), (5, 2, 2)]


@pytest.fixture
def _torch_multiplies_in_float64() -> Iterator[None]:
    """As it does where that is the default dtype; elsewhere its product is rounded to float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def tensors(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for s in SHAPES
    ]


def schedule(optimizer: Any, t: int) -> None:
    """Every hyperparameter that the product depends on moves, in leaps and little by little."""
    for group in optimizer.param_groups:
        group["betas"] = ((0.9, 0.999), (0.5, 0.99), (0.95, 0.9))[t // 4 % 3]
        group["momentum_decay"] = (4e-3, 0.1, 0.0)[t // 6 % 3] + 1e-3 * t
        group["lr"] = 0.01 * (1 + t % 5)


def train(
    optimizers: Sequence[Any], first: int, last: int, *, missing: bool, scheduled: bool = True
) -> None:
    """The same steps of several optimizers; with `missing`, some tensors lack a gradient in some."""
    for t in range(first, last):
        generator = torch.Generator().manual_seed(t)
        given = [torch.randn(s, generator=generator, dtype=torch.float64) for s in SHAPES]
        for optimizer in optimizers:
            if scheduled:
                schedule(optimizer, t)
            for i, (p, g) in enumerate(zip(params(optimizer), given, strict=True)):
                p.grad = None if missing and (t + i) % 4 == 1 else g.to(p.dtype)
            optimizer.step()


def params(optimizer: Any) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def apart(one: Any, two: Any) -> float:
    return max((p - q).abs().max().item() for p, q in zip(params(one), params(two), strict=True))


@pytest.mark.usefixtures("_torch_multiplies_in_float64")
@pytest.mark.parametrize("missing", [False, True], ids=["all", "missing"])
@pytest.mark.parametrize("decoupled", [False, True], ids=["coupled", "decoupled"])
@pytest.mark.parametrize("way", WAYS)
def test_nadam_is_torchs_under_a_schedule_of_momenta(
    way: str, decoupled: bool, missing: bool
) -> None:
    options: dict[str, Any] = {"weight_decay": 0.1, "decoupled_weight_decay": decoupled}
    theirs = torch.optim.NAdam(tensors(), **options)
    ours = NadamW(tensors(), **options, **WAYS[way])
    train((theirs, ours), 0, 30, missing=missing)
    assert apart(theirs, ours) < 1e-12
    for p, q in zip(params(theirs), params(ours), strict=True):
        for name, held in theirs.state[p].items():
            assert torch.allclose(held, ours.state[q][name].to(held), rtol=1e-12), name


@pytest.mark.usefixtures("_torch_multiplies_in_float64")
@pytest.mark.parametrize("way", WAYS)
def test_nadam_goes_on_where_torch_stopped_and_torch_where_it_did(way: str) -> None:
    """In the middle of a schedule, so that the product cannot be found from the step."""
    theirs = torch.optim.NAdam(tensors(), decoupled_weight_decay=True)
    ours = NadamW(tensors(), **WAYS[way])
    gold = torch.optim.NAdam(tensors(), decoupled_weight_decay=True)
    train((theirs, ours, gold), 0, 7, missing=True)
    for first, (saved, loaded) in ((7, (theirs, ours)), (12, (ours, theirs)), (15, (theirs, ours))):
        state = copy.deepcopy(saved.state_dict())
        for group in state["param_groups"]:  # how a step runs is torch's own matter
            for key in ("capturable", "foreach"):
                group[key] = loaded.param_groups[0].get(key)
        loaded.load_state_dict(state)
        train((theirs, ours, gold), first, first + 4, missing=True)
    assert apart(gold, ours) < 1e-12
    assert apart(gold, theirs) < 1e-12


@pytest.mark.parametrize("way", WAYS)
def test_a_torch_schedule_that_cycles_momentum_moves_both_alike(way: str) -> None:
    theirs, ours = (
        torch.optim.NAdam(tensors()),
        NadamW(tensors(), decoupled_weight_decay=False, **WAYS[way]),
    )
    cycles = [
        torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=25)
        for optimizer in (theirs, ours)
    ]
    for t in range(24):
        train((theirs, ours), t, t + 1, missing=False, scheduled=False)
        for cycle in cycles:
            cycle.step()
    assert theirs.param_groups[0]["betas"] != (0.9, 0.999)
    assert apart(theirs, ours) < 1e-7  # torch's product is rounded to float32 here


@pytest.mark.usefixtures("_torch_multiplies_in_float64")
@pytest.mark.parametrize("which", [slice(None), slice(1, 2)], ids=["all", "one"])
@pytest.mark.parametrize("way", WAYS)
def test_a_product_that_somebody_else_writes_counts(way: str, which: slice) -> None:
    """Also where the tensors of a group step as they did last time, without a look at each."""
    theirs, ours = (
        torch.optim.NAdam(tensors(), decoupled_weight_decay=True),
        NadamW(tensors(), **WAYS[way]),
    )
    for first in (0, 5, 10):
        train((theirs, ours), first, first + 5, missing=False)
        for optimizer in (theirs, ours):
            for p in params(optimizer)[which]:
                optimizer.state[p]["mu_product"].fill_(0.7 + 0.01 * first)
    train((theirs, ours), 15, 17, missing=False)
    assert apart(theirs, ours) < 1e-12


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # torch's compiler warns about its own parts
def test_a_compiled_step_multiplies_its_schedule_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", False)
    one, two = NadamW(tensors()), NadamW(tensors())
    step = torch.compile(lambda: two.step(), fullgraph=True, backend="eager")
    for t in range(6):
        for optimizer in (one, two):
            optimizer.param_groups[0]["betas"] = (0.9, 0.999) if t < 3 else (0.6, 0.99)
        train((one,), t, t + 1, missing=False, scheduled=False)
        for p, q in zip(params(one), params(two), strict=True):
            q.grad = p.grad
        step()
    torch._dynamo.reset()
    assert apart(one, two) < 1e-12


def test_a_state_without_its_product_is_refused() -> None:
    """It cannot be found from the step; nothing is changed."""
    saved, optimizer = Adam(tensors()), NadamW(tensors())
    train((saved, optimizer), 0, 2, missing=False)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=r"lacks \['mu_product'\]"):
        optimizer.load_state_dict(saved.state_dict())
    wrong = copy.deepcopy(before)
    wrong["state"][1]["mu_product"] = torch.ones(2)
    with pytest.raises(ValueError, match=r"mu_product of parameter 1 .* \(2,\), and is one number"):
        optimizer.load_state_dict(wrong)
    for key, state in optimizer.state_dict()["state"].items():
        assert all(torch.equal(x, before["state"][key][name]) for name, x in state.items())


@pytest.mark.parametrize("way", WAYS)
def test_a_schedule_free_tensor_without_gradients_is_as_if_it_were_alone(way: str) -> None:
    """It counts its own steps: of warmup, of the largest rate, and of what it averages."""
    options: dict[str, Any] = {"warmup_steps": 6, "weight_decay": 0.1, **WAYS[way]}
    together = ScheduleFreeAdamW(tensors(), **options)
    alone = [ScheduleFreeAdamW([p], **options) for p in tensors()]
    for t in range(20):
        rate = 0.01 * (1 + t % 5)
        together.param_groups[0]["lr"] = rate
        train((together,), t, t + 1, missing=True, scheduled=False)
        for p, optimizer in zip(params(together), alone, strict=True):
            optimizer.param_groups[0]["lr"] = rate
            (q,) = params(optimizer)
            q.grad = p.grad
            if p.grad is not None:
                optimizer.step()
    for optimizer in (together, *alone):
        optimizer.eval()
    for p, optimizer in zip(params(together), alone, strict=True):
        assert torch.allclose(p, params(optimizer)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("capturable", [False, True])
def test_a_schedule_free_state_whose_groups_count_is_loaded(capturable: bool) -> None:
    """As it was saved while the three numbers stood in the param groups."""
    options: dict[str, Any] = {"lr": 0.01, "warmup_steps": 6, "capturable": capturable}
    one, two = ScheduleFreeAdamW(tensors(), **options), ScheduleFreeAdamW(tensors(), **options)
    train((one, two), 0, 9, missing=False, scheduled=False)
    saved = copy.deepcopy(one.state_dict())
    (group,) = saved["param_groups"]
    for state in saved["state"].values():
        group["steps"] = state["step"] if capturable else int(state["step"])
        for key in ("lr_max", "weight_sum"):
            number = state.pop(key)
            group[key] = number if capturable else number.item()
    two.load_state_dict(saved)
    train((one, two), 9, 14, missing=True, scheduled=False)
    assert apart(one, two) == 0.0
    assert not {"steps", "lr_max", "weight_sum"} & two.param_groups[0].keys()


def test_a_fake_tensor_counts_nothing() -> None:
    with FakeTensorMode():
        for make in (NadamW, ScheduleFreeAdamW):
            p = torch.ones(4, 3, requires_grad=True)
            optimizer = make([p])
            for _ in range(3):
                p.grad = torch.ones(4, 3)
                optimizer.step()


@pytest.mark.usefixtures("_torch_multiplies_in_float64")
@given(st.lists(st.sampled_from(["all", "some", "load", "one", "write"]), max_size=12))
def test_tensors_are_counted_as_one_again_whatever_came_between(events: list[str]) -> None:
    """Saved states, missing gradients and others' writing; equal to torch at every step."""
    theirs = torch.optim.NAdam(tensors(), decoupled_weight_decay=True)
    ours = NadamW(tensors(), backend="native")
    for t, event in enumerate([*events, "load", "all", "all"]):
        for optimizer in (theirs, ours):
            if event == "load":
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            for i, p in enumerate(params(optimizer)):
                if event == "write" and p in optimizer.state:
                    optimizer.state[p]["step"].fill_(7.0)
                absent = {"one": i > 0, "some": i % 2 == 1}.get(event, False)
                p.grad = None if absent else torch.full_like(p, (-1.0) ** t * (i + 1))
            schedule(optimizer, t)
            optimizer.step()
        assert apart(theirs, ours) < 1e-11
    if not {"some", "one"} & set(events):
        for name in ("step", "mu_product"):
            held = [ours.state[p][name] for p in params(ours)]
            assert all(x._base is held[0]._base is not None for x in held), name
