"""Torch's own database of optimizer inputs and errors, applied to the optimizers that it knows."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
import torch

from optimizers.numeric.adam import Adam, AdamW, NadamW
from optimizers.numeric.sgd import SGD


class Operators(ModuleType):
    """Stands for torch's database of operators, which takes seconds to make, while that of its
    optimizers is made: of it that one takes a mark for torch's own tests, which nobody reads here.
    """

    class DecorateInfo:
        def __init__(self, *what: Any, **when: Any) -> None:
            """Keep nothing."""


@contextmanager
def without_operators() -> Iterator[None]:
    name = "torch.testing._internal.common_methods_invocations"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = Operators(name)
    try:
        yield
    finally:
        del sys.modules[name]


with warnings.catch_warnings(), without_operators():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_optimizers import OptimizerErrorEnum, optim_db


def _nadam(params: Any, **options: Any) -> NadamW:
    return NadamW(params, **{"decoupled_weight_decay": False, **options})


OURS: dict[type[torch.optim.Optimizer], Callable[..., torch.optim.Optimizer]] = {
    torch.optim.SGD: SGD,
    torch.optim.Adam: Adam,
    torch.optim.AdamW: AdamW,
    torch.optim.NAdam: _nadam,
}
INFOS = [info for info in optim_db if info.optim_cls in OURS]
CASES = [
    pytest.param(info.optim_cls, case.kwargs, id=f"{info.optim_cls.__name__}-{case.desc}")
    for info in INFOS
    for case in info.optim_inputs_func(device="cpu", dtype=torch.float32)
]
ERRORS = [
    pytest.param(info.optim_cls, case, id=f"{info.optim_cls.__name__}-{k}")
    for info in INFOS
    for k, case in enumerate(info.optim_error_inputs_func(device="cpu", dtype=torch.float32))
]


# what torch's foreach cannot do with tensors as hyperparameters, and ours can
LIMITS = (
    "doesn't work with foreach",
    "both floats or both Tensors",
    "not supported for capturable",
)


def options_for(
    cls: type[torch.optim.Optimizer], kwargs: dict[str, Any], *, ours: bool
) -> dict[str, Any]:
    """Torch itself refuses capturable=True on a CPU; ours takes it everywhere."""
    return {k: v for k, v in kwargs.items() if ours or k != "capturable"}


def train(
    make: Any,
    kwargs: dict[str, Any],
    *,
    state: Any = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> tuple[Any, torch.Tensor]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
    model = model.to(device, dtype)
    optimizer = make(model.parameters(), **kwargs)
    if state is not None:
        optimizer.load_state_dict(copy.deepcopy(state))
    x = torch.randn(16, 4, dtype=torch.float64).to(device, dtype)
    for t in range(7):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        if t == 3:
            model[0].bias.grad = None
        optimizer.step()
    return optimizer, torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@pytest.mark.parametrize(("cls", "kwargs"), CASES)
def test_inputs_of_the_database_train_as_torch_does(
    cls: type[torch.optim.Optimizer], kwargs: dict[str, Any]
) -> None:
    theirs, p = train(cls, options_for(cls, kwargs, ours=False))
    ours, q = train(OURS[cls], options_for(cls, kwargs, ours=True))
    assert torch.allclose(p, q, rtol=1e-7, atol=1e-8)
    # state dicts go both ways
    _, p = train(cls, options_for(cls, kwargs, ours=False), state=ours.state_dict())
    _, q = train(OURS[cls], options_for(cls, kwargs, ours=True), state=theirs.state_dict())
    assert torch.allclose(p, q, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(("cls", "case"), ERRORS)
def test_errors_of_the_database_are_raised(cls: type[torch.optim.Optimizer], case: Any) -> None:
    assert case.error_on == OptimizerErrorEnum.CONSTRUCTION_ERROR
    given = case.optimizer_error_input
    params = given.params or [torch.ones(1, requires_grad=True)]
    if any(limit in given.desc for limit in LIMITS):
        for p in params:
            p.grad = torch.ones_like(p)
        OURS[cls](params, **given.kwargs).step()
        return
    if issubclass(case.error_type, Warning):
        with pytest.warns(case.error_type, match=case.error_regex):
            OURS[cls](params, **given.kwargs)
    else:
        with pytest.raises(case.error_type, match=case.error_regex):
            OURS[cls](params, **given.kwargs)
