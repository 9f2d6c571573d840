"""Steps as a GPU would have them: nothing is waited for, and nothing begins within a graph.

A fake device has no numbers: who asks it for one fails, and what is copied there from the host is seen.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typing_extensions import override

from optimizers.numeric import capturable
from optimizers.numeric.adam import AdamW
from optimizers.numeric.sgd import SGD
from tests.optimizers.numeric.family import Row, named
from tests.optimizers.numeric.test_captured import AVERAGED, QUICK

FAKE = "lazy"
"""A device that torch knows and no machine has, so that its fakes need no driver."""


class Watch(TorchDispatchMode):
    """Counts operations by name, and lists those between one device and another."""

    def __init__(self) -> None:
        super().__init__()
        self.done: Counter[str] = Counter()
        self.crossings: list[str] = []

    @property
    def read(self) -> int:
        """How many numbers the host has read."""
        return self.done["aten._local_scalar_dense.default"]

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        found = (x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor))
        if len({x.device.type for x in found}) > 1:
            self.crossings.append(str(func))
        self.done[str(func)] += 1
        return out


def test_a_copy_from_the_host_is_seen() -> None:
    with FakeTensorMode(), Watch() as watch:
        torch.tensor(1.0, device=FAKE)
        torch.full((), 1.0, device=FAKE)
    assert len(watch.crossings) == 1


@pytest.mark.parametrize("row", [*map(named, QUICK), named("Lion"), AVERAGED], ids=str)
def test_a_step_that_counts_on_the_device_waits_for_nothing(row: Row) -> None:
    """From the first on, with all that is decided there, at a rate that lies on another device."""
    with FakeTensorMode():
        ps = [torch.zeros(s, device=FAKE).bfloat16().requires_grad_() for s in ((7, 3), (), (0, 2))]
        careful = {"nonfinite": "skip", "rounding": "stochastic", "clip_norm": 1.0}
        optimizer = row(ps, capturable=True, **careful)
        optimizer.param_groups[0]["lr"] = torch.ones((), device=f"{FAKE}:1")
        for t in range(3):
            for i, p in enumerate(ps):
                p.grad = None if t == 1 and i == 1 else torch.zeros_like(p)
            with Watch() as watch:
                optimizer.step()
            assert not watch.crossings, t


def test_rounding_at_random_sends_no_number() -> None:
    """That a step draws from its number, which the host has, is no reason to wait for each tensor."""
    with FakeTensorMode():
        ps = [torch.zeros(4, device=FAKE).bfloat16().requires_grad_() for _ in range(3)]
        optimizer = SGD(ps, momentum=0.9, state="bf16-stochastic", rounding="stochastic")
        for p in ps:
            p.grad = torch.zeros_like(p)
        with Watch() as watch:
            optimizer.step()
    assert not watch.crossings


def second_step(count: int, **options: Any) -> Watch:
    """What was seen of the second step of `count` tensors."""
    ps = [torch.zeros(4, requires_grad=True) for _ in range(count)]
    optimizer = AdamW(ps, **options)
    for p in ps:
        p.grad = torch.ones(4)
    optimizer.step()
    with Watch() as watch:
        optimizer.step()
    return watch


@pytest.mark.parametrize("nonfinite", ["skip", "raise"])
def test_the_look_at_gradients_waits_once_for_any_number_of_tensors(nonfinite: str) -> None:
    few, many = (second_step(count, nonfinite=nonfinite, clip_norm=1.0) for count in (3, 30))
    assert few.read == many.read


def test_numbers_on_the_device_are_computed_for_all_tensors_at_once() -> None:
    """Each operation is a launch on a GPU, and a node of a graph that is replayed."""
    careful: Any = {"nonfinite": "skip", "clip_norm": 1.0, "backend": "native"}
    rate = torch.tensor(1e-3)
    few, many = (second_step(n, lr=rate, capturable=True, **careful) for n in (3, 30))
    assert few.done == many.done
    assert few.done["aten._foreach_add.ScalarList"] == 1  # hyperparameters, by one call


@pytest.mark.parametrize("missing", ["roundings", "param_rest"])
def test_what_a_loaded_state_lacks_is_not_made_within_a_graph(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph would make it anew in every replay. No processor captures graphs, so it is said to."""
    p = torch.zeros(2, dtype=torch.bfloat16, requires_grad=True)
    p.grad = torch.ones_like(p)
    way = "stochastic" if missing == "roundings" else "24bit"
    optimizer = AdamW([p], rounding=way, capturable=True)
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    del saved["state"][0][missing]
    optimizer.load_state_dict(saved)
    before = copy.deepcopy([p.detach(), *optimizer.state[p].values()])
    monkeypatch.setattr(capturable, "captures", lambda device: True)
    with pytest.raises(RuntimeError, match=r"call step\(\) once or more before the capture"):
        optimizer.step()
    assert all(map(torch.equal, before, [p.detach(), *optimizer.state[p].values()]))
    monkeypatch.undo()
    optimizer.step()
    assert missing in optimizer.state[p]
