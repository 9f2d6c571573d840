"""One of two processes that train a traced program, beside one that has the data of both."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import tracegraph as tg
from optimizers.numeric.adam import AdamW
from optimizers.numeric.control.sharding import ShardedState
from tracegraph.feedback import Gradient

NEAR = 1e-12


class Model(torch.nn.Module):
    """Two layers, a scale, and a bias that is used now and then only; in float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Linear(4, 6), torch.nn.Linear(6, 2)
        self.scale = torch.nn.Parameter(torch.tensor([2.0]))
        self.seldom = torch.nn.Parameter(torch.zeros(2))
        self.double()

    def forward(self, x: Tensor, all_of_it: bool = True) -> Tensor:
        y = self.second(torch.tanh(self.first(x))) * self.scale
        return y + self.seldom if all_of_it else y


def data(t: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(t)
    return tuple(torch.randn(8, n, generator=generator, dtype=torch.float64) for n in (4, 2))  # type: ignore[return-value]


def part(x: Tensor, rank: int) -> Tensor:
    return x[4 * rank : 4 * rank + 4]


@tg.bundle(rules={Gradient: lambda made, g: {"x": 2 * made.inputs["x"].data * g.value}})
def squared(x: Tensor) -> Tensor:
    """What torch does not see: the record is cut here."""
    return torch.from_numpy(x.detach().numpy() ** 2)


def whole_loss(model: torch.nn.Module, t: int, *more: Any) -> Tensor:
    x, y = data(t)
    return ((model(x, *more) - y) ** 2).mean()


def apart(one: torch.nn.Module, two: torch.nn.Module) -> float:
    pairs = zip(one.parameters(), two.parameters(), strict=True)
    return max((whole(p) - whole(q)).abs().max().item() for p, q in pairs)


def whole(p: Any) -> Tensor:
    return p.full_tensor() if hasattr(p, "full_tensor") else p


def data_parallel(rank: int) -> None:
    """DistributedDataParallel in all its ways; a traced parameter is one of the module's."""
    for options, cut in (
        ({}, False),
        ({}, True),
        ({"find_unused_parameters": True}, False),
        ({"static_graph": True}, False),
        ({"gradient_as_bucket_view": True, "bucket_cap_mb": 0.0001}, False),
    ):
        model, one = Model(), Model()
        shared = DistributedDataParallel(model, **options)  # type: ignore[arg-type]
        scale = tg.node(model.scale, trainable=True, name="scale")
        others = [p for p in model.parameters() if p is not model.scale]
        optimizer, plain = AdamW([scale, *others], lr=0.01), AdamW(one.parameters(), lr=0.01)

        @tg.bundle
        def predict(x: Tensor, scale: Tensor, all_of_it: bool, shared: Any = shared) -> Tensor:
            return shared(x, all_of_it)

        passes = 1 if "static_graph" in options else 2  # gradients add up, and go out with the last
        for t in range(6):
            all_of_it = t % 2 == 0 or "find_unused_parameters" not in options
            optimizer.zero_grad()
            plain.zero_grad()
            for k in range(passes):
                x, y = (part(z, rank) for z in data(10 * t + k))
                with nullcontext() if k == passes - 1 else shared.no_sync():
                    off = predict(x, scale, all_of_it) - y
                    loss = (squared(off) if cut else off**2).mean()
                    received = optimizer.backward(loss)
                whole_loss(one, 10 * t + k, all_of_it).backward()
            optimizer.step()
            plain.step()
            assert apart(model, one) < NEAR, (options, cut, t)
        if passes == 1:  # a message is of this process, `.grad` the mean over both
            mean = received[scale][Gradient].value / 2
            dist.all_reduce(mean)
            assert torch.allclose(mean, model.scale.grad, rtol=NEAR)  # type: ignore[arg-type]


def fully_sharded(rank: int) -> None:
    """FSDP2, whose gathered tensors no optimizer knows; a traced parameter beside it."""
    mesh = init_device_mesh("cpu", (2,))
    model, one = Model(), Model()
    for module in (model.first, model.second, model):
        fully_shard(module, mesh=mesh)
    lift, other = (torch.tensor(1.5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    traced = tg.node(lift, trainable=True, name="lift")

    @tg.bundle
    def predict(x: Tensor, lift: Tensor) -> Tensor:
        return model(x) * lift

    optimizer = AdamW([traced, *model.parameters()], lr=0.01)
    plain = AdamW([other, *one.parameters()], lr=0.01)
    for t in range(4):
        x, y = data(t)
        optimizer.zero_grad()
        plain.zero_grad()
        optimizer.backward(((predict(part(x, rank), traced) - part(y, rank)) ** 2).mean())
        dist.all_reduce(lift.grad)  # nobody does it for a tensor beside the module
        lift.grad /= 2  # type: ignore[operator]
        ((one(x) * other - y) ** 2).mean().backward()
        optimizer.step()
        plain.step()
        assert max(apart(model, one), (lift - other).abs().item()) < NEAR, t

    unheard = r"none of the 6 sharded tensors .* inside a @bundle"
    optimizer.zero_grad()
    with pytest.warns(
        UserWarning, match=unheard
    ):  # nobody exchanges what is to be differentiated again
        optimizer.backward(predict(x, traced).sum(), create_graph=True)
    model = Model()
    fully_shard(model, mesh=mesh)
    optimizer = AdamW([traced, *model.parameters()], lr=0.01)
    with pytest.warns(UserWarning, match=unheard):
        optimizer.backward((model(tg.node(part(x, rank))) * traced).sum())  # on a node: unheard


def shared_out(rank: int) -> None:
    """Both stages of ZeRO: the second takes gradients from the pass as they come."""
    for stage in (1, 2):
        model, one = Model(), Model()
        scale = tg.node(model.scale, trainable=True, name="scale")
        optimizer = ShardedState(
            model.parameters(), lambda groups: AdamW(groups, lr=0.01), stage=stage
        )
        plain = AdamW(one.parameters(), lr=0.01)

        @tg.bundle
        def predict(x: Tensor, scale: Tensor, model: Any = model) -> Tensor:
            return model(x)

        for t in range(4):
            x, y = data(t)
            optimizer.zero_grad()
            plain.zero_grad()
            loss = ((predict(part(x, rank), scale) - part(y, rank)) ** 2).mean()
            loss.backward(1.0)
            if stage == 1:
                for p in model.parameters():
                    dist.all_reduce(p.grad)
                    p.grad /= 2  # type: ignore[operator]
            else:
                assert all(p.grad is None for p in model.parameters())
            whole_loss(one, t).backward()
            optimizer.step()
            plain.step()
            scale.zero_feedback()
            assert apart(model, one) < NEAR, (stage, t)


def both(rank: int) -> None:
    data_parallel(rank)
    fully_sharded(rank)
    shared_out(rank)


def alone(rank: int) -> None:
    """The laws of gradients hold for torch's own pass as well, in a group of one process."""
    files = ["tests/test_gradients.py", "tests/test_propagate.py"]
    beside = [  # they count calls of `torch.autograd.grad`; the third is about what differs
        "a_rule_between_two_islands_of_torch",
        "one_engine_call_where_no_rule_stands_between",
        "tensors_that_are_no_parameters_get_a_gradient_when_asked_for",
    ]
    deselected = [f"--deselect={files[0]}::test_{name}" for name in beside]
    folder = Path(url2pathname(urlsplit(sys.argv[1]).path)).parent / "alone"
    options = ["-q", "-p", "no:cacheprovider", f"--basetemp={folder}"]
    assert pytest.main([*options, *files, *deselected]) == 0


PARTS: dict[str, Callable[[int], None]] = {"both": both, "alone": alone}


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank, world = int(sys.argv[2]), int(sys.argv[4])
    dist.init_process_group("gloo", init_method=sys.argv[1], rank=rank, world_size=world)
    PARTS[sys.argv[3]](rank)
    dist.destroy_process_group()
