"""What a numeric optimizer accepts and refuses as parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import tracegraph as tg
from optimizers.numeric.adam import AdamW
from optimizers.numeric.executors import choice, compiler
from optimizers.numeric.sgd import SGD
from tracegraph.errors import MissingExtra, Rejected


class Cell:
    """What a tracegraph parameter looks like from outside."""

    def __init__(self, name: str, data: Any, kind: str = "tensor") -> None:
        self.name, self.data, self.kind, self.version = name, data, kind, 0

    def bump(self) -> None:
        self.version += 1


def stepped(params: Any, tensors: list[torch.Tensor]) -> SGD:
    optimizer = SGD(params, lr=0.5)
    for x in tensors:
        x.grad = torch.ones_like(x)
    optimizer.step()
    return optimizer


def test_modules_names_groups_and_cells() -> None:
    module = torch.nn.Linear(2, 1)
    before = [p.detach().clone() for p in module.parameters()]
    stepped(module, list(module.parameters()))
    assert all(torch.equal(p, q - 0.5) for p, q in zip(module.parameters(), before, strict=True))
    stepped(module.named_parameters(), list(module.parameters()))
    cell, x = Cell("weight", torch.zeros(2, requires_grad=True)), torch.zeros(1, requires_grad=True)
    optimizer = stepped([{"params": [cell], "lr": 0.25}, {"params": [x]}], [cell.data, x])
    assert cell.data.tolist() == [-0.25, -0.25]
    assert x.item() == -0.5
    assert cell.version == 1
    cell.data.grad = None
    optimizer.step()
    assert cell.version == 1  # no gradient, no new version
    alone = Cell("alone", torch.zeros(1, requires_grad=True))
    stepped(alone, [alone.data])
    assert alone.version == 1


def test_a_text_parameter_is_refused_by_name() -> None:
    with pytest.raises(
        Rejected, match=r"'prompt' holds a str \(kind text\); AdamW updates tensors"
    ):
        AdamW([Cell("prompt", "Answer.", "text")])


def test_a_replaced_tensor_is_followed_and_a_reshaped_one_refused() -> None:
    cell = Cell("weight", torch.zeros(2, requires_grad=True))
    optimizer = AdamW([cell], lr=0.1, weight_decay=0.0)
    cell.data.grad = torch.ones(2)
    optimizer.step()
    cell.data = torch.ones(2, requires_grad=True)
    cell.data.grad = torch.ones(2)
    optimizer.step()
    assert torch.allclose(cell.data, torch.full((2,), 0.9))
    assert optimizer.state[cell.data]["step"] == 2
    cell.data = torch.ones(3, requires_grad=True)
    with pytest.raises(Rejected, match=r"'weight' was \(2,\) .* and is \(3,\)"):
        optimizer.step()


def test_a_shape_that_changed_is_refused() -> None:
    p = torch.zeros(2, requires_grad=True)
    optimizer = AdamW([p])
    p.grad = torch.ones(2)
    optimizer.step()
    p.grad = None
    p.data = torch.zeros(3)
    p.grad = torch.ones(3)
    with pytest.raises(ValueError, match="a parameter keeps its shape"):
        optimizer.step()
    assert torch.equal(p, torch.zeros(3))


def test_the_state_of_another_optimizer_is_refused_and_nothing_changes() -> None:
    p = torch.zeros(2, requires_grad=True)
    p.grad = torch.ones(2)
    other = torch.optim.SGD([p], momentum=0.9)
    other.step()
    optimizer = AdamW([p], lr=0.3)
    optimizer.step()
    with pytest.raises(ValueError, match=r"AdamW cannot load this state: .* lacks \['exp_avg'"):
        optimizer.load_state_dict(other.state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.3
    assert optimizer.state[p]["step"] == 1
    q = torch.zeros(3, requires_grad=True)
    with pytest.raises(ValueError, match=r"exp_avg of .* has shape \(2,\), the parameter \(3,\)"):
        AdamW([q]).load_state_dict(optimizer.state_dict())


def test_unsupported_flags_say_so() -> None:
    p = torch.zeros(1, requires_grad=True)
    with pytest.raises(ValueError, match=r"does not support differentiable=True: .* torch\.optim"):
        AdamW([p], differentiable=True)
    with pytest.raises(RuntimeError, match="cannot be `True` together"):
        AdamW([p], foreach=True, fused=True)


def test_memory_that_moved_between_steps_is_noticed() -> None:
    ps = [torch.ones(1 << 14, requires_grad=True) for _ in range(3)]
    twins = [p.detach().clone().requires_grad_() for p in ps]
    fast, slow = AdamW(ps, backend="native"), AdamW(twins, backend="eager")
    generator = torch.Generator().manual_seed(0)
    for t in range(8):
        for p, q in zip(ps, twins, strict=True):
            p.grad = torch.randn(1 << 14, generator=generator)
            q.grad = p.grad.clone()
        if t == 3:
            ps[1].data = ps[1].data.clone()
        if t == 5:
            for optimizer, p in ((fast, ps[0]), (slow, twins[0])):
                optimizer.state[p]["exp_avg"] = torch.zeros(1 << 14)
        if t == 6:
            ps[2].grad = twins[2].grad = None
        fast.step()
        slow.step()
    for p, q in zip(ps, twins, strict=True):
        assert torch.allclose(p, q, rtol=1e-6, atol=1e-6)


def test_a_text_and_a_tensor_that_moved_to_another_device_change_nothing() -> None:
    weight = tg.node(torch.zeros(2), trainable=True, name="weight")
    other = tg.node(torch.zeros(2), trainable=True, name="other")
    prompt = tg.node("Answer.", trainable=True, name="prompt")
    with pytest.raises(Rejected, match=r"'prompt.*' holds a str \(kind text\).*Partition"):
        AdamW([weight, prompt])
    optimizer = AdamW([other, weight], lr=0.1)
    for parameter in (other, weight):
        parameter.data.grad = torch.ones(2)
    weight.assign(torch.zeros(2, device="meta", requires_grad=True))
    with pytest.raises(Rejected, match=r"'weight.*' was \(2,\) .* on cpu and is .* on meta"):
        optimizer.step()
    assert torch.equal(other.data, torch.zeros(2))
    assert not optimizer.state


def test_what_is_missing_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    p = torch.zeros(1, requires_grad=True)
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    with pytest.raises(
        MissingExtra, match=r"pip install 'tracegraph\[gpu\]', or use backend='auto'"
    ):
        AdamW([p], backend="triton")
    monkeypatch.setattr(compiler, "compiler", lambda: None)
    with pytest.raises(MissingExtra, match="apt install g"):
        AdamW([p], backend="native")
    p.grad = torch.ones(1)
    AdamW([p]).step()  # "auto" goes on without
    assert p.item() < 0
