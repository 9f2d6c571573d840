"""One of several processes: steps sharded optimizers and compares them with ones that are whole."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from optimizers.numeric.adam import AdamW
from optimizers.numeric.bases.cosmos import COSMOS
from optimizers.numeric.bases.dct import DCTAdamW, Trion
from optimizers.numeric.bases.galore import Fira, GaLore
from optimizers.numeric.bases.muon import Muon
from optimizers.numeric.bases.shampoo import Shampoo
from optimizers.numeric.bases.soap import SOAP
from optimizers.numeric.codecs.rounding import REST
from optimizers.numeric.control.sharding import ShardedState
from optimizers.numeric.lion import Lion, LionK
from optimizers.numeric.projection import AdamP
from optimizers.numeric.sgd import SGD
from optimizers.numeric.spam import StableSPAM

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


def losses(params: list[torch.Tensor], t: int, rank: int) -> list[torch.Tensor]:
    """The losses of two passes; some tensors are left out, in one process or in both."""
    generator = torch.Generator().manual_seed(1000 * t + rank)
    found = []
    for part in range(2):
        used = [
            i
            for i in range(len(params))
            if i != 1 and (i, rank, part) not in ((0, 1, 0), (4, 0, 1))
        ]
        terms = [(params[i] * torch.randn(SHAPES[i], generator=generator)).sum() for i in used]
        found.append(torch.stack(terms).sum() ** 2 / 100)
    return found


def added(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    return b if a is None else a if b is None else a + b


def second_stage(cls: Any, options: dict[str, Any], rank: int, *, clip: bool = False) -> None:
    """Each process has half of the data; one that has all of it, with mean gradients, is equal."""
    whole, shared = start(), start()
    one = cls(groups(whole), **options)
    two = ShardedState(groups(shared), lambda gs: cls(gs, **options), stage=2)
    for t in range(4):
        passes = []
        for part in range(2):
            halves = []
            for other in range(2):
                one.zero_grad()
                losses(whole, t, other)[part].backward()
                halves.append([p.grad for p in whole])
            passes.append([added(a, b) for a, b in zip(*halves, strict=True)])
        for p, a, b in zip(whole, *passes, strict=True):
            total = added(a, b)
            p.grad = None if total is None else total / 2
        two.zero_grad()
        for loss in losses(shared, t, rank):
            loss.backward()
            assert all(p.grad is None for p in shared)
        if clip:
            norm = float(torch.nn.utils.clip_grad_norm_(whole, 0.5))
            assert abs(two.clip_grad_norm_(0.5) - norm) < 1e-4 * norm
        one.step()
        two.step()
        held = sum(p.grad.numel() for p in shared if p.grad is not None)
        assert held < 0.6 * sum(p.numel() for p in whole)
        if clip:  # norms are added up in another order
            assert all(torch.allclose(p, q, atol=1e-6) for p, q in zip(whole, shared, strict=True))
        else:
            assert all(torch.equal(p, q) for p, q in zip(whole, shared, strict=True)), (cls, t)


WHOLE: list[tuple[Any, dict[str, Any]]] = [
    (SOAP, {"precondition_frequency": 2}),
    (Shampoo, {"precondition_frequency": 2}),
    (Muon, {}),
    (GaLore, {"rank": 2, "refresh_interval": 2}),
    (Fira, {"rank": 2, "refresh_interval": 2}),
    (DCTAdamW, {"rank": 2}),
    (Trion, {"rank": 2}),
    (COSMOS, {"rank": 2}),
    (AdamP, {}),
    (StableSPAM, {}),
    (LionK, {"kappa": "l2"}),
]


def matrices(rank: int) -> None:
    """Optimizers that see whole tensors, on shards: equal, and each state with one process."""
    mesh = init_device_mesh("cpu", (2,))
    shapes = [(7, 6), (6, 5), (3, 8)]
    for cls, options in WHOLE:
        kinds = [(torch.float32, "nearest"), (torch.bfloat16, "24bit")]
        for dtype, rounding in kinds if cls in (SOAP, AdamP) else kinds[:1]:
            generator = torch.Generator().manual_seed(1)
            whole = [torch.randn(s, generator=generator).to(dtype).requires_grad_() for s in shapes]
            sides = [Shard(0), Shard(1), Shard(0)]
            shared = [
                distribute_tensor(p.detach().clone(), mesh, [side]).requires_grad_()
                for p, side in zip(whole, sides, strict=True)
            ]
            more = {"lr": 0.05, "weight_decay": 0.1, "rounding": rounding, **options}
            one, two = cls(whole, **more), cls(shared, **more)
            for t in range(5):
                if t == 3:
                    again = cls(shared, **more)
                    again.load_state_dict(copy.deepcopy(two.state_dict()))
                    two = again
                for i, (p, q, side) in enumerate(zip(whole, shared, sides, strict=True)):
                    g = torch.randn(p.shape, generator=generator).to(dtype)
                    p.grad = None if (i, t) == (2, 1) else g
                    q.grad = None if p.grad is None else distribute_tensor(g, mesh, [side])
                one.step()
                two.step()
                for p, q in zip(whole, shared, strict=True):
                    assert torch.equal(q.full_tensor(), p), (cls, dtype, t)
            large = [i for i, q in enumerate(shared) if len(two.state[q].keys() - {"step", REST})]
            assert large == [i for i in range(3) if i % 2 == rank], (cls, large)


def mesh_of_two_sides(rank: int) -> None:
    """FSDP beside tensor parallelism on 2 x 2 processes: every kind of optimizer, equal to one."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    sides = [
        [Shard(0), Shard(1)],
        [Shard(1), Shard(0)],
        [Replicate(), Shard(0)],
        [Shard(1), Replicate()],
        [Shard(0), Shard(0)],
    ]
    shapes = [(7, 6), (6, 5), (3, 8), (5, 9), (8, 4)]  # alike ones would be stepped as a batch
    makes: list[tuple[Any, dict[str, Any]]] = [
        *((AdamW, {"backend": b}) for b in ("eager", "foreach", "native")),
        (SGD, {"momentum": 0.9, "backend": "native"}),
        (Lion, {"backend": "native"}),
        (SOAP, {"precondition_frequency": 2}),
        (Muon, {}),
        (AdamP, {}),
    ]
    for cls, options in makes:
        generator = torch.Generator().manual_seed(1)
        whole = [torch.randn(s, generator=generator).requires_grad_() for s in shapes]
        shared = [
            distribute_tensor(p.detach().clone(), mesh, side).requires_grad_()
            for p, side in zip(whole, sides, strict=True)
        ]
        one, two = (cls(ps, lr=0.05, weight_decay=0.1, **options) for ps in (whole, shared))
        for t in range(4):
            for p, q, side in zip(whole, shared, sides, strict=True):
                p.grad = torch.randn(p.shape, generator=generator)
                q.grad = distribute_tensor(p.grad, mesh, side)
                if t == 2:  # as backward may leave it
                    q.grad = q.grad.redistribute(placements=[Replicate(), Replicate()])
            one.step()
            two.step()
            for p, q, side in zip(whole, shared, sides, strict=True):
                assert torch.equal(q.full_tensor(), p), (cls, options, side, t)
    owners = [i for i, q in enumerate(shared) if len(two.state[q].keys() - {"step"})]
    assert owners == [i for i in range(len(sides)) if i % 4 == rank], owners

    sums = DTensor.from_local(torch.ones(4, 4), mesh, [Partial(), Replicate()])
    with pytest.raises(ValueError, match="its value is the sum of what the processes hold"):
        AdamW([sums.requires_grad_()])
    q = distribute_tensor(torch.ones(4, 4), mesh, sides[0]).requires_grad_()
    optimizer = SGD([q], lr=1.0)
    q.grad = torch.ones(4, 4)
    with pytest.raises(ValueError, match="one is a DTensor and the other is not"):
        optimizer.step()
    assert torch.equal(q.full_tensor(), torch.ones(4, 4))


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


def shares(rank: int) -> None:
    """Both stages of ZeRO, and element-wise optimizers on shards."""
    zero(AdamW, {"lr": 0.1, "weight_decay": 0.1, "backend": "native"})
    zero(Lion, {"lr": 0.1, "backend": "foreach"})
    zero(SOAP, {"lr": 0.1, "precondition_frequency": 2})
    with pytest.raises(ValueError, match=r"has clip_norm=1\.0"):
        ShardedState(start(), lambda gs: AdamW(gs, clip_norm=1.0))
    second_stage(AdamW, {"lr": 0.1, "weight_decay": 0.1, "backend": "native"}, rank)
    second_stage(SOAP, {"lr": 0.1, "precondition_frequency": 2}, rank)
    second_stage(AdamW, {"lr": 0.1, "backend": "foreach"}, rank, clip=True)
    with pytest.raises(ValueError, match="stage=3 is unknown"):
        ShardedState(start(), lambda gs: AdamW(gs), stage=3)
    dtensors()


PARTS = {"shares": shares, "matrices": matrices, "sides": mesh_of_two_sides}


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank = int(sys.argv[2])
    world = int(sys.argv[4])
    dist.init_process_group("gloo", init_method=sys.argv[1], rank=rank, world_size=world)
    PARTS[sys.argv[3]](rank)
    dist.destroy_process_group()
