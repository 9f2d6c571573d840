"""One of two processes: steps sharded optimizers and compares them with ones that are whole."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from optimizers.numeric.adam import AdamW
from optimizers.numeric.bases.soap import SOAP
from optimizers.numeric.control.sharding import ShardedState
from optimizers.numeric.lion import Lion

SHAPES = [(7, 5), (4,), (0, 3), (3, 6), (40,), ()]


def start() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    params = [torch.randn(s, generator=generator) for s in SHAPES]
    params[3] = params[3].t().contiguous().t()
    return [p.requires_grad_() for p in params]


def feed(params: list[torch.Tensor], t: int) -> None:
    generator = torch.Generator().manual_seed(100 + t)
    for i, p in enumerate(params):
        g = torch.randn(p.shape, generator=generator)
        p.grad = None if (t, i) == (2, 1) else g


def zero(cls: Any, options: dict[str, Any]) -> None:
    whole, shared = start(), start()
    one = cls(groups(whole), **options)
    two = ShardedState(groups(shared), lambda gs: cls(gs, **options))
    for t in range(4):
        feed(whole, t)
        feed(shared, t)
        one.step()
        two.step()
        assert all(torch.equal(p, q) for p, q in zip(whole, shared, strict=True)), (cls, t)
    held = sum(p.numel() for p in two.inner.state)
    assert held < 0.6 * sum(p.numel() for p in whole)
    again = start()
    for p, q in zip(again, shared, strict=True):
        p.data.copy_(q.data)
    three = ShardedState(groups(again), lambda gs: cls(gs, **options))
    three.load_state_dict(two.state_dict())
    for optimizer, params in ((one, whole), (three, again)):
        feed(params, 9)
        optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(whole, again, strict=True)), cls


def groups(params: list[torch.Tensor]) -> list[dict[str, Any]]:
    return [{"params": params[:3]}, {"params": params[3:], "weight_decay": 0.3}]


def dtensors() -> None:
    mesh = init_device_mesh("cpu", (2,))
    for cls in (AdamW, Lion):
        for backend in ("eager", "foreach", "native", "auto"):
            whole = torch.randn(21, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
            shared = distribute_tensor(whole.detach().clone(), mesh, [Shard(0)]).requires_grad_()
            one, two = (
                cls([p], lr=0.1, weight_decay=0.1, backend=backend) for p in (whole, shared)
            )
            for t in range(4):
                g = torch.randn(21, 3, generator=torch.Generator().manual_seed(t))
                whole.grad = g
                shared.grad = distribute_tensor(g, mesh, [Shard(0)])
                one.step()
                two.step()
            assert torch.equal(shared.full_tensor(), whole), (cls, backend)
            assert isinstance(two.state[shared]["exp_avg"], DTensor)


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=sys.argv[1], rank=int(sys.argv[2]), world_size=2)
    zero(AdamW, {"lr": 0.1, "weight_decay": 0.1, "backend": "native"})
    zero(Lion, {"lr": 0.1, "backend": "foreach"})
    zero(SOAP, {"lr": 0.1, "precondition_frequency": 2})
    with pytest.raises(ValueError, match=r"has clip_norm=1\.0"):
        ShardedState(start(), lambda gs: AdamW(gs, clip_norm=1.0))
    dtensors()
    dist.destroy_process_group()
