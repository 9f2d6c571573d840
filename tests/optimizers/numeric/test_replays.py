"""A group that steps as last time goes by a plan; whatever has changed since must be seen.

Each test lets one optimizer make its plan, then changes one thing behind its back. A second optimizer,
whose plan is dropped before every step, must do the same to the last bit.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from optimizers.numeric.adam import AdamW, NadamW
from optimizers.numeric.executors import compiler, glance
from optimizers.numeric.lion import Lion
from optimizers.numeric.rule_optimizer import RuleOptimizer
from optimizers.numeric.sgd import SGD

SHAPES = [(6, 4), (5,), (), (1, 1), (0, 3), (40, 30)]

MAKE: dict[str, Callable[[Any], RuleOptimizer]] = {
    "AdamW": lambda ps: AdamW(ps, lr=0.1, backend="native"),
    "Lion": lambda ps: Lion(ps, lr=0.1, weight_decay=0.1, backend="native"),
    "SGD": lambda ps: SGD(ps, lr=0.1, momentum=0.9, dampening=0.3, backend="native"),
    "plain SGD": lambda ps: SGD(ps, lr=0.1, backend="native"),
    "AdamW by foreach": lambda ps: AdamW(ps, lr=0.1, backend="foreach"),
    "AdamW, counted": lambda ps: AdamW(ps, lr=0.1, backend="native", capturable=True),
    "NadamW, counted": lambda ps: NadamW(ps, lr=0.1, backend="foreach", capturable=True),
}


@pytest.fixture(params=["dlpack", "python"], autouse=True)
def asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether tensors are read by DLPack's interface or by Python."""
    if request.param == "python":
        monkeypatch.setattr(glance, "_looks", lambda: None)
    elif glance.reader() is None:
        pytest.skip("this torch has no __dlpack_c_exchange_api__")
    return str(request.param)


@pytest.mark.parametrize(
    "script", ["exit 1", "case $1 in --version | -march=native) ;; *) exit 1 ;; esac"]
)
def test_a_compiler_that_does_not_work_leaves_the_asking_to_python(
    script: str, monkeypatch: pytest.MonkeyPatch, asked: str, tmp_path: Path
) -> None:
    if asked == "python":
        pytest.skip("Python asks anyway")
    broken = tmp_path / "c++"
    broken.write_text(f"#!/bin/sh\n{script}\n")
    broken.chmod(0o700)
    monkeypatch.setattr(compiler, "compiler", lambda: str(broken))
    glance._looks.cache_clear()
    try:
        p = torch.ones(4, requires_grad=True)
        p.grad = torch.ones(4)
        held = glance.Glanced([[p], [p.grad]])
        assert glance._looks() is None
        assert held.hold([p], [p.grad])
        assert not held.hold([torch.ones(4)], [p.grad])
    finally:
        glance._looks.cache_clear()


class Pair:
    """Two equal sets of tensors; the first optimizer keeps its plan, the second never has one."""

    def __init__(self, name: str) -> None:
        self.generator = torch.Generator().manual_seed(0)
        start = [torch.randn(s, generator=self.generator) for s in SHAPES]
        self.both = [[x.clone().requires_grad_() for x in start] for _ in range(2)]
        self.one, self.two = (MAKE[name](ps) for ps in self.both)
        for _ in range(3):
            self.step()
        assert self.one._plans, "no plan was kept"

    def feed(self) -> None:
        for p, q in zip(*self.both, strict=True):
            p.grad = torch.randn(p.shape, generator=self.generator)
            q.grad = p.grad.clone()

    def each(self, change: Callable[[list[Tensor]], object]) -> None:
        for ps in self.both:
            change(ps)

    def step(self, change: Callable[[list[Tensor]], object] = lambda ps: None) -> None:
        self.feed()
        self.each(change)
        self.two.forget()
        self.one.step()
        self.two.step()
        self.agree()

    def agree(self) -> None:
        for p, q in zip(*self.both, strict=True):
            assert torch.equal(p, q)
            for name, held in self.two.state[q].items():
                assert torch.equal(self.one.state[p][name], held), name


def with_data(i: int, make: Callable[[Tensor], Tensor]) -> Callable[[list[Tensor]], None]:
    def change(ps: list[Tensor]) -> None:
        ps[i].data = make(ps[i].data)

    return change


def with_grad(i: int, make: Callable[[Tensor], Any]) -> Callable[[list[Tensor]], None]:
    def change(ps: list[Tensor]) -> None:
        ps[i].grad = make(ps[i])

    return change


def grad_data(i: int, make: Callable[[Tensor], Tensor]) -> Callable[[list[Tensor]], None]:
    def change(ps: list[Tensor]) -> None:
        grad = ps[i].grad
        assert grad is not None
        grad.data = make(grad.data)

    return change


def negative(x: Tensor) -> Tensor:
    """A tensor whose memory holds the opposite, with a flag that says so."""
    z = torch.complex(torch.zeros(x.shape), torch.arange(float(x.numel())).reshape(x.shape) - 1)
    found = z.conj().imag
    assert found.is_neg()
    return found


CHANGES: dict[str, Callable[[list[Tensor]], None]] = {
    "other memory": with_data(0, lambda x: x + 1),
    "the same memory, transposed": with_data(0, lambda x: x.view(4, 6).t()),
    "a gradient with gaps": with_grad(0, lambda p: torch.ones(6, 8)[:, ::2]),
    "a transposed gradient": with_grad(0, lambda p: torch.arange(24.0).view(4, 6).t()),
    "an expanded gradient": with_grad(0, lambda p: torch.ones(1, 4).expand(6, 4)),
    "no gradient": with_grad(1, lambda p: None),
    "the opposite of what the memory holds": with_grad(3, negative),
    "the same with gaps": with_grad(0, negative),
    "a gradient of another dtype": grad_data(0, lambda g: g.double()),
    "whole numbers for a gradient": grad_data(0, lambda g: torch.ones(6, 4, dtype=torch.int32)),
    "an empty gradient with strides": with_grad(4, lambda p: torch.ones(3, 0).t()),
}


@pytest.mark.parametrize("optimizer", MAKE)
def test_a_changed_tensor_or_gradient_is_seen(optimizer: str) -> None:
    """Each by itself, for a tensor that missed a step leaves no plan; then one after the other."""
    for change in CHANGES.values():
        Pair(optimizer).step(change)
    pair = Pair(optimizer)
    for change in CHANGES.values():
        pair.step(change)
        pair.step()
        pair.step()


@pytest.mark.parametrize("beside", [(), (6, 4)], ids=["numbers", "with a matrix"])
def test_a_gradient_whose_memory_holds_its_opposite_is_read_as_it_is(beside: Any) -> None:
    """A matrix of that kind has gaps; tensors of one number look contiguous."""
    ps = [torch.zeros(()), torch.zeros(1, 1), torch.zeros(beside)]
    for p in ps:
        p.requires_grad_().grad = negative(p)
    MAKE["plain SGD"](ps).step()
    for p in ps:
        assert p.grad is not None
        assert torch.allclose(p, -0.1 * p.grad.resolve_neg())


@pytest.mark.parametrize(
    "optimizer", ["AdamW", "SGD", "AdamW by foreach", "AdamW, counted", "NadamW, counted"]
)
def test_a_changed_state_is_seen(optimizer: str) -> None:
    pair = Pair(optimizer)
    name = "momentum_buffer" if optimizer == "SGD" else "exp_avg"
    for o, ps in zip((pair.one, pair.two), pair.both, strict=True):
        o.state[ps[0]][name] = torch.ones_like(ps[0])
    pair.step()
    for o, ps in zip((pair.one, pair.two), pair.both, strict=True):
        o.state[ps[5]] = {key: value.clone() for key, value in o.state[ps[5]].items()}
    pair.step()
    for o, ps in zip((pair.one, pair.two), pair.both, strict=True):
        o.state[ps[1]].clear()  # begins anew
    pair.step()
    pair.step()


@pytest.mark.parametrize(
    "optimizer", ["AdamW", "SGD", "AdamW by foreach", "AdamW, counted", "NadamW, counted"]
)
def test_states_that_changed_places_are_seen(optimizer: str) -> None:
    """Plans find states by their place among all; a tensor that starts late has one of its own."""

    def swapped(state: Any, ps: list[Tensor]) -> None:
        state[ps[0]], state[ps[3]] = state[ps[3]], state[ps[0]]
        state[ps[0]], state[ps[3]] = (
            {k: x.clone() for k, x in state[p].items()} for p in ps[3::-3]
        )

    changes: list[Callable[[Any, list[Tensor]], None]] = [
        swapped,
        lambda state, ps: state.pop(ps[0]),  # begins anew, behind all others
        lambda state, ps: state.update({ps[1]: state.pop(ps[1])}),
        lambda state, ps: state.pop(ps[5]),
        lambda state, ps: state.clear(),
    ]
    pair = Pair(optimizer)
    for change in changes:
        for o, ps in zip((pair.one, pair.two), pair.both, strict=True):
            change(o.state, ps)
        for _ in range(3):
            pair.step()


@pytest.mark.parametrize(
    "optimizer", ["AdamW", "Lion", "AdamW by foreach", "AdamW, counted", "NadamW, counted"]
)
@pytest.mark.parametrize("tensor", [0, 5])
def test_a_state_that_was_given_other_memory_is_seen(optimizer: str, tensor: int) -> None:
    pair = Pair(optimizer)

    def moved(optimizer: RuleOptimizer, p: Tensor) -> Tensor:
        state: Tensor = optimizer.state[p]["exp_avg"]
        old = state.data
        state.data = old * 2
        return old

    old = moved(pair.one, pair.both[0][tensor])
    moved(pair.two, pair.both[1][tensor])
    before = old.clone()
    pair.step()
    assert torch.equal(old, before)


@pytest.mark.parametrize(
    "optimizer", ["AdamW", "Lion", "AdamW by foreach", "AdamW, counted", "NadamW, counted"]
)
def test_a_changed_step_number_is_seen(optimizer: str) -> None:
    """Each change by itself, for tensors at different steps leave no plan; then one after the other."""
    changes: list[Callable[[dict[str, Any]], object]] = [
        lambda state: state.update(step=torch.tensor(40.0)),
        lambda state: state["step"].fill_(7.0),
        lambda state: state.update(step=state["step"].clone()),
        lambda state: state.pop("step"),  # begins anew
    ]
    pair = Pair(optimizer)
    for change in changes:
        for changed in (Pair(optimizer), pair):
            for o, ps in zip((changed.one, changed.two), changed.both, strict=True):
                change(o.state[ps[3]])
            changed.step()
            changed.step()


@pytest.mark.parametrize("optimizer", MAKE)
@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda g: g.view(4, 6), "is \\(6, 4\\) on cpu and its gradient \\(4, 6\\)"),
        (lambda g: g[:3], "and its gradient \\(3, 4\\)"),
        (lambda g: g.to_sparse(), "does not support sparse gradients"),
    ],
    ids=["shape", "part", "sparse"],
)
def test_a_gradient_that_does_not_fit_is_refused_and_nothing_changes(
    optimizer: str, make: Callable[[Tensor], Tensor], error: str
) -> None:
    pair = Pair(optimizer)
    pair.feed()
    p = pair.both[0][0]
    before = [x.detach().clone() for x in pair.both[0]]
    wrong = make(torch.ones(6, 4))
    if wrong.layout is torch.strided:
        assert p.grad is not None
        p.grad.data = wrong
    else:
        p.grad = wrong
    with pytest.raises((ValueError, RuntimeError), match=error):
        pair.one.step()
    assert all(torch.equal(x, y) for x, y in zip(before, pair.both[0], strict=True))
    pair.step()


def test_a_tensor_that_grew_or_shrank_under_its_plan_is_refused() -> None:
    pair = Pair("AdamW")
    p = pair.both[0][5]
    p.data = p.data[:20]
    p.grad = torch.ones(20, 30)
    with pytest.raises(ValueError, match="a parameter keeps its shape"):
        pair.one.step()


@pytest.mark.parametrize("optimizer", MAKE)
def test_a_plan_keeps_no_gradient_alive(optimizer: str) -> None:
    """Gradients that are set to None give their memory back before the next ones are made."""
    pair = Pair(optimizer)
    for _ in range(2):
        pair.step()
        grads = [weakref.ref(p.grad) for p in pair.both[0] if p.grad is not None]
        assert len(grads) == len(SHAPES)
        pair.one.zero_grad()
        assert all(grad() is None for grad in grads)


@pytest.mark.parametrize("optimizer", ["AdamW", "AdamW by foreach", "AdamW, counted"])
def test_a_plan_of_one_executor_is_not_taken_for_anothers(optimizer: str) -> None:
    pair = Pair(optimizer)
    for backend in ("foreach", "native", "eager", "auto", "native", "foreach"):
        pair.one.backend = pair.two.backend = backend
        pair.step()
        pair.step()
        assert pair.one.ran == pair.two.ran
