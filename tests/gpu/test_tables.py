"""What a step keeps on a GPU to find its tensors by: whatever lies anywhere, moves, or goes too early.

Needs a CUDA GPU and Triton; without them every test is skipped and says so.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from optimizers.numeric.adam import AdamW
from optimizers.numeric.rule_optimizer import RuleOptimizer
from tests.gpu.waiting import without_waiting

pytest.importorskip("triton", reason="Triton is not installed: pip install 'tracegraph[gpu]'")

DEVICE = "cuda"
pytestmark = [
    pytest.mark.skipif(
        DEVICE == "cuda" and not torch.cuda.is_available(), reason="there is no CUDA GPU here"
    ),
    # what torch itself says: of its own watch, of a capture that is given up
    pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning"),
    pytest.mark.filterwarnings("ignore:The CUDA Graph is empty:UserWarning"),
]

SIZES = [(70, 64), (5,), (), (0, 2), (5000,)]
"""Some so small that they keep float32 beside 8-bit state."""


def tensors() -> tuple[list[Tensor], list[Tensor]]:
    """Equal tensors twice, float32 and bfloat16 in turns."""
    generator = torch.Generator().manual_seed(0)
    ps = [torch.randn(s, generator=generator).to(DEVICE) for s in SIZES]
    ps = [p.bfloat16() if i % 2 else p for i, p in enumerate(ps)]
    return [p.requires_grad_() for p in ps], [p.detach().clone().requires_grad_() for p in ps]


def feed(ours: list[Tensor], theirs: list[Tensor], t: int) -> None:
    """Equal gradients: parts of buckets, at any address, as those of DistributedDataParallel."""
    generator = torch.Generator().manual_seed(t)
    for p, q in zip(ours, theirs, strict=True):
        bucket = torch.randn(p.numel() + t, generator=generator).to(DEVICE, p.dtype)
        p.grad = bucket[t:].view(p.shape)
        q.grad = p.grad.clone()


def near(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    def close(p: Tensor, q: Tensor) -> bool:
        last = 2.0**-6 if p.dtype == torch.bfloat16 else 4e-5
        off = (p - q).abs() > last * (1 + q.abs())
        return bool(off.double().mean().nan_to_num() <= 1e-2)

    return all(map(close, ours, theirs))


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("state", ["fp32", "8bit"])
def test_gradients_may_lie_anywhere(state: str, capturable: bool) -> None:
    ours, theirs = tensors()
    one = AdamW(ours, lr=0.01, state=state, capturable=capturable, backend="triton")
    two = AdamW(theirs, lr=0.01, state=state, backend="eager")
    for t in range(4):
        feed(ours, theirs, t)
        one.step()
        two.step()
        assert one.ran == ("triton",)
    assert near(ours, theirs)


@pytest.mark.parametrize("capturable", [False, True])
def test_convolutions_in_channels_last_are_stepped_as_they_lie(capturable: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (8, 6, 3, 3)
    p = torch.randn(shape, generator=generator).to(DEVICE, memory_format=torch.channels_last)
    q = p.detach().clone(memory_format=torch.contiguous_format)
    one = AdamW([p], lr=0.01, capturable=capturable, backend="triton")
    two = AdamW([q], lr=0.01, backend="eager")
    for _ in range(3):
        q.grad = torch.randn(shape, generator=generator).to(DEVICE)
        p.grad = q.grad.contiguous(memory_format=torch.channels_last)
        one.step()
        two.step()
        assert one.ran == ("triton",)
    assert near([p], [q])


@pytest.mark.parametrize("capturable", [False, True])
def test_tables_are_made_without_waiting(capturable: bool) -> None:
    """For several dtypes and ways to store state, also where a gradient is missing for once."""
    ours, theirs = tensors()
    optimizer = AdamW(ours, lr=0.01, state="8bit", capturable=capturable, backend="triton")
    for t in range(6):
        feed(ours, theirs, t)
        if t == 3:
            ours[1].grad = None
        with without_waiting(allowed=t == 0):  # the first makes what is kept
            optimizer.step()


def captured(one: RuleOptimizer) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        one.step()
    return graph


def test_parts_of_a_graph_read_the_numbers_of_their_tensors() -> None:
    """Two dtypes in turns, each tensor at a step of its own; steps outside of the graph between."""
    ours, theirs = tensors()
    one = AdamW(ours, lr=0.01, capturable=True, backend="triton")
    two = AdamW(theirs, lr=0.01, backend="eager")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        feed(ours, theirs, 0)
        for optimizer in (one, two):
            optimizer.step()
            for i, p in enumerate(optimizer.param_groups[0]["params"]):
                optimizer.state[p]["step"].fill_(4.0**i)
        feed(ours, theirs, 1)
        one.step()
        two.step()
    torch.cuda.current_stream().wait_stream(side)
    held = [p.grad for p in ours]
    graph = captured(one)
    for t in range(2, 8):
        feed(ours, theirs, t)
        if t == 5:
            one.step()
        else:
            for g, q in zip(held, theirs, strict=True):
                assert g is not None
                assert q.grad is not None
                g.copy_(q.grad)
            graph.replay()
        two.step()
    assert near(ours, theirs)


def test_tables_that_go_while_they_are_read_are_not_written_over() -> None:
    """A step on a stream of its own that is behind; all that was kept for it goes, and what the main
    stream makes next would take its memory.
    """
    from optimizers.numeric.executors import tables

    ours, theirs = tensors()
    one = AdamW(ours, lr=0.01, backend="triton")
    two = AdamW(theirs, lr=0.01, backend="eager")
    side = torch.cuda.Stream()
    for t in range(3):
        feed(ours, theirs, t)
        torch.cuda.synchronize()
        with torch.cuda.stream(side):
            torch.cuda._sleep(50_000_000)
            one.step()
        one.forget()
        tables._LAUNCHES.clear()
        rubbish = [torch.full((n,), 7, device=DEVICE) for n in (1, 8, 16, 64, 128, 512) * 20]
        torch.cuda.synchronize()
        del rubbish
        two.step()
    assert near(ours, theirs)


@pytest.mark.parametrize("capturable", [False, True])
def test_a_gradient_that_was_moved_is_refused_though_its_address_was_looked_at(
    capturable: bool,
) -> None:
    ours, theirs = tensors()
    optimizer = AdamW(ours, lr=0.01, capturable=capturable, backend="triton")
    for t in range(2):
        feed(ours, theirs, t)
        optimizer.step()
    feed(ours, theirs, 2)
    before = [p.detach().clone() for p in ours]
    grad = ours[0].grad
    assert grad is not None
    grad.data = grad.data.cpu()
    with pytest.raises(ValueError, match=r"gradient .* on cpu"):
        optimizer.step()
    assert all(map(torch.equal, before, ours))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two CUDA GPUs here")
def test_a_graph_on_another_gpu_than_the_current_is_seen() -> None:
    options: Any = {"lr": 0.01, "capturable": True, "backend": "triton"}
    p = torch.zeros(8, device="cuda:1", requires_grad=True)
    p.grad = torch.ones_like(p)
    optimizer = AdamW([p], **options)
    stream = torch.cuda.Stream(device="cuda:1")
    graph = torch.cuda.CUDAGraph()
    with (
        pytest.raises(RuntimeError, match=r"call step\(\) once or more before the capture"),
        torch.cuda.graph(graph, stream=stream),
        torch.cuda.device(0),
    ):
        optimizer.step()
    assert not optimizer.state[p]
