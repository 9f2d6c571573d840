"""What somebody who comes from `torch.optim` tries first, beside `torch.optim` itself."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from optimizers.numeric.adam import AdamW
from optimizers.numeric.sgd import SGD
from tests.optimizers.numeric.family import FAMILY, Row

PAIRS: list[tuple[Any, Any, dict[str, Any]]] = [
    (torch.optim.AdamW, AdamW, {"lr": 0.05}),
    (torch.optim.SGD, SGD, {"lr": 0.05, "momentum": 0.9}),
]
CLOSE = 1e-12


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
    return layers.double()


def train(
    module: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int, **clear: bool
) -> None:
    x = torch.randn(16, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        optimizer.zero_grad(**clear)
        module(x).square().mean().backward()
        optimizer.step()


def apart(a: torch.nn.Module, b: torch.nn.Module) -> float:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return max((p - q).abs().max().item() for p, q in pairs)


@pytest.mark.parametrize(("theirs", "ours", "options"), PAIRS)
@pytest.mark.parametrize("set_to_none", [True, False])
def test_groups_added_midway_and_cleared_gradients(
    theirs: Any, ours: Any, options: dict[str, Any], set_to_none: bool
) -> None:
    modules = model(), model()
    for module, make in zip(modules, (theirs, ours), strict=True):
        optimizer = make(module[0].parameters(), **options)  # type: ignore[index]
        train(module, optimizer, 3, set_to_none=set_to_none)
        later = list(module[2].parameters())  # type: ignore[index]
        for p in later:
            p.grad = None
        optimizer.add_param_group({"params": later, "lr": 0.01, "weight_decay": 0.2})
        train(module, optimizer, 4, set_to_none=set_to_none)
        bias = later[1].grad
        assert bias is not None
        optimizer.zero_grad(set_to_none=set_to_none)
        assert later[1].grad is (None if set_to_none else bias)
        with pytest.raises(ValueError, match="more than one parameter group"):
            optimizer.add_param_group({"params": later})
    assert apart(*modules) <= CLOSE


SCHEDULES = {
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 5),
    "one-cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(
        o, 0.1, total_steps=20, cycle_momentum=False
    ),
    "plateau": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=0),
}


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_change_a_rate_that_is_a_tensor_in_place(name: str, capturable: bool) -> None:
    modules = model(), model()
    for module, make in zip(modules, (torch.optim.AdamW, AdamW), strict=True):
        more = {"capturable": capturable} if make is AdamW else {"foreach": False}
        rate = torch.tensor(0.05, dtype=torch.float64)
        optimizer = make(module.parameters(), lr=rate, **more)  # type: ignore[operator]
        schedule = SCHEDULES[name](optimizer)
        for _ in range(6):
            train(module, optimizer, 1)
            schedule.step(*([1.0] if name == "plateau" else []))
        assert optimizer.param_groups[0]["lr"] is rate
        assert rate != 0.05
    assert apart(*modules) <= CLOSE


def test_every_hook_of_torchs_is_called() -> None:
    p = torch.ones(2, requires_grad=True)
    p.grad = torch.ones(2)
    optimizer, seen = AdamW([p]), []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    handle = optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    optimizer.register_state_dict_post_hook(lambda o, state: {**state, "more": 1})
    optimizer.register_load_state_dict_pre_hook(
        lambda o, state: {k: x for k, x in state.items() if k != "more"}
    )
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append("loaded"))
    optimizer.step()
    handle.remove()
    optimizer.step()
    state = optimizer.state_dict()
    assert state["more"] == 1
    optimizer.load_state_dict(state)
    assert seen == ["before", "after", "before", "loaded"]
    assert optimizer.state[p]["step"] == 2


def test_a_step_in_the_backward_pass_is_that_after_it() -> None:
    """A hook for each tensor, with an optimizer for each, frees gradients at once."""
    one, two = model(), model()
    after = AdamW(one.parameters(), lr=0.05)
    each = {p: AdamW([p], lr=0.05) for p in two.parameters()}

    def step(p: torch.Tensor) -> None:
        each[p].step()
        each[p].zero_grad()

    for p in two.parameters():
        p.register_post_accumulate_grad_hook(step)
    x = torch.randn(16, 4, dtype=torch.float64)
    for _ in range(4):
        after.zero_grad()
        one(x).square().mean().backward()
        after.step()
        two(x).square().mean().backward()
    assert apart(one, two) <= CLOSE
    assert all(p.grad is None for p in two.parameters())


@pytest.mark.parametrize("fast", [{"foreach": True}, {"fused": True}, {"capturable": True}, {}])
def test_flags_and_the_state_of_torchs_optimizer_in_all_its_forms(fast: dict[str, Any]) -> None:
    """Torch keeps steps on the device for `fused` and `capturable`; ours loads them all."""
    one, two = model(), model()
    theirs = torch.optim.AdamW(one.parameters(), lr=0.05, fused=True)
    train(one, theirs, 3)
    two.load_state_dict(one.state_dict())
    ours = AdamW(two.parameters(), lr=0.3, **fast)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    assert ours.param_groups[0]["lr"] == 0.05
    train(one, theirs, 3)
    train(two, ours, 3)
    assert apart(one, two) <= 1e-9
    again = torch.optim.AdamW(one.parameters(), **{**fast, "capturable": False})
    again.load_state_dict(copy.deepcopy(ours.state_dict()))
    train(two, ours, 2)
    train(one, again, 2)
    assert apart(one, two) <= 1e-9


def test_flags_that_contradict_each_other_or_cannot_be_are_refused() -> None:
    p = torch.zeros(1, requires_grad=True)
    with pytest.raises(RuntimeError, match="`fused` and `foreach` cannot be `True` together"):
        AdamW([p], foreach=True, fused=True)
    with pytest.raises(ValueError, match=r"differentiable=True: it steps in place.*torch\.optim"):
        AdamW([p], differentiable=True)
    with pytest.raises(TypeError, match="unexpected keyword argument 'capturabel'"):
        AdamW([p], capturabel=True)  # type: ignore[call-arg]


@pytest.mark.parametrize("row", FAMILY, ids=str)
def test_a_rate_that_is_no_number_is_refused_by_name(row: Row) -> None:
    p = torch.zeros(1, requires_grad=True)
    for rate in ("0.1", None, [0.1]):
        with pytest.raises(TypeError, match="lr must be a number, got"):
            row([p], lr=rate)


def test_other_numbers_that_are_none_are_refused_by_name() -> None:
    p = torch.zeros(1, requires_grad=True)
    for options, name in (
        ({"betas": (0.9, "0.99")}, r"betas\[1\]"),
        ({"weight_decay": "0.1"}, "weight_decay"),
    ):
        with pytest.raises(TypeError, match=f"{name} must be a number, got '0"):
            AdamW([p], **options)  # type: ignore[arg-type]
