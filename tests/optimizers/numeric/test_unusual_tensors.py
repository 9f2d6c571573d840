"""Tensors and settings of torch that are seldom met: wrappers, fakes, a default device, changed dtypes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.testing._internal.two_tensor import TwoTensor

import tracegraph as tg
from optimizers import SGD
from optimizers.numeric.adam import AdamW, NadamW
from optimizers.numeric.bases.adafactor import Adafactor
from optimizers.numeric.bases.cosmos import COSMOS
from optimizers.numeric.bases.dct import DCTAdamW, Trion
from optimizers.numeric.bases.frugal import FRUGAL
from optimizers.numeric.bases.galore import Fira, GaLore
from optimizers.numeric.bases.muon import Muon
from optimizers.numeric.bases.natural_galore import NaturalGaLore
from optimizers.numeric.bases.shampoo import Shampoo
from optimizers.numeric.bases.soap import SOAP
from optimizers.numeric.bases.subspace import RandomSubspace
from optimizers.numeric.control.merging import merge_gradients
from optimizers.numeric.curvature import Sophia
from tests.optimizers.numeric.family import FAMILY, Row, named

MATRIX = [
    Adafactor, COSMOS, DCTAdamW, FRUGAL, Fira, GaLore, Muon, NaturalGaLore, SOAP, Shampoo, Trion,
]  # fmt: skip
MAKERS: list[Any] = [*FAMILY, Sophia, *MATRIX]
NARROW: list[Any] = [DCTAdamW, GaLore, Fira, NaturalGaLore, COSMOS]
MORE = [
    Row("AdamW-8bit-dynamic", AdamW, {"state": "8bit-dynamic"}),
    *(Row(f"{make.__name__}-2", make, {"rank": 2}) for make in NARROW),
]
SMALL = [(make, 4) for make in MAKERS]
LARGE = [(named(name), 130) for name in ("SGD-momentum", "AdamW", "StableSPAM")]
"""Those that a compiled kernel steps, which writes to memory."""


def label(value: Any) -> str:
    """A maker's name, or a number."""
    return getattr(value, "__name__", None) or str(value)


each = pytest.mark.parametrize("make", MAKERS, ids=label)


def gradient(like: torch.Tensor, step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64, device="cpu").to(like)


def trained(make: Any, p: torch.Tensor, steps: range, optimizer: Any = None) -> Any:
    optimizer = optimizer or make([p], lr=0.01)
    for step in steps:
        p.grad = gradient(p, step)
        optimizer.step()
    return optimizer


@pytest.mark.parametrize(("make", "size"), [*SMALL, *LARGE], ids=label)
def test_wrapped_tensors_step_as_those_that_they_wrap(make: Any, size: int) -> None:
    start = torch.eye(size) + 1
    plain = start.clone().requires_grad_()
    wrapped = torch.nn.Parameter(TwoTensor(start.clone(), start.clone()))
    one, two = make([plain], lr=0.01), make([wrapped], lr=0.01)
    for step in range(3):
        plain.grad = gradient(plain, step)
        wrapped.grad = TwoTensor(plain.grad.clone(), plain.grad.clone())
        one.step()
        two.step()
    held: Any = wrapped.data
    assert torch.equal(held.a, held.b)
    assert torch.allclose(held.a, plain, rtol=1e-4, atol=1e-5)
    assert not torch.equal(held.a, start)


@pytest.mark.parametrize("size", [4, 130])
def test_a_gradient_that_a_collective_wraps_is_read_through_its_wrapper(size: int) -> None:
    p, q = (torch.ones(size, size, requires_grad=True) for _ in range(2))
    one, two = AdamW([p]), AdamW([q])
    for step in range(5):
        p.grad = gradient(p, step)
        q.grad = AsyncCollectiveTensor(p.grad.clone()) if step in (2, 3) else p.grad.clone()
        one.step()
        two.step()
    assert torch.allclose(p, q, rtol=1e-6, atol=1e-6)


def size_of(optimizer: Any) -> int:
    (state,) = optimizer.state.values()
    return sum(x.numel() for x in state.values() if isinstance(x, torch.Tensor))


@pytest.mark.parametrize("where", ["fake", "meta"])
@pytest.mark.parametrize(("make", "size"), [*SMALL, *LARGE, *((row, 4) for row in MORE)], ids=label)
def test_memory_can_be_estimated_without_any(make: Any, size: int, where: str) -> None:
    """As with numbers; a step of those before and after is the same."""
    p, q = (torch.eye(size, requires_grad=True) for _ in range(2))
    real = trained(make, p, range(3))
    with FakeTensorMode() if where == "fake" else torch.device(where):
        r = torch.ones(size, size, requires_grad=True)
        optimizer = make([r], lr=0.01)
        for _ in range(3):
            r.grad = torch.ones(size, size)
            optimizer.step()
        kept = size_of(optimizer)
    assert kept == size_of(real) == size_of(trained(make, q, range(3)))
    assert torch.equal(p, q)


@each
def test_the_default_device_is_not_where_the_host_counts(make: Any) -> None:
    """On `meta` any number that is read raises; on a GPU each would be waited for."""
    p, q = (torch.eye(4, dtype=torch.float64).requires_grad_() for _ in range(2))
    trained(make, p, range(4))
    with torch.device("meta"):
        optimizer = trained(make, q, range(2))
        saved = copy.deepcopy(optimizer.state_dict())
        optimizer.load_state_dict(saved)
        trained(make, q, range(2, 4), optimizer)
    assert torch.equal(p, q)
    for held in optimizer.state[q].values():
        assert not isinstance(held, torch.Tensor) or held.device.type == "cpu"


def test_numbers_of_the_trace_and_what_uses_them_stay_off_the_default_device() -> None:
    w = tg.node(torch.ones(2), trainable=True, name="w")
    rate = tg.node(0.5, trainable=True, name="rate")
    optimizer = SGD([w, rate], lr=0.1)
    with torch.device("meta"):
        optimizer.backward((w * rate).sum() + rate)
        optimizer.step()
        x = torch.ones(2, device="cpu", requires_grad=True)
        weights = merge_gradients([x.sum(), (x * x).sum()], [x])
        space = RandomSubspace([x], 2, lambda p: SGD(p, lr=0.1))
    assert w.data.tolist() == pytest.approx([0.95, 0.95])
    assert rate.data == pytest.approx(0.5 - 0.1 * 3)
    assert weights.sum() == 1.0
    assert space.coordinates.device.type == "cpu"


@each
def test_a_parameter_that_becomes_float64_goes_on(make: Any) -> None:
    """``model.double()`` changes the parameters of an optimizer in place; a new one loads the state."""
    p = torch.eye(4).requires_grad_()
    optimizer = trained(make, p, range(3))
    wide = p.detach().double().requires_grad_()
    later = make([wide], lr=0.01)
    later.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    p.data = p.data.double()
    trained(make, p, range(3, 5), optimizer)
    trained(make, wide, range(3, 5), later)
    assert torch.allclose(p, wide, rtol=1e-6, atol=1e-6)
    p.data = p.data.bfloat16()
    before = p.detach().clone()
    trained(make, p, range(5, 7), optimizer)
    assert p.isfinite().all()
    assert not torch.equal(p, before)


def test_whole_numbers_are_not_stepped() -> None:
    p, q = torch.ones(2, dtype=torch.int64), torch.ones(2, requires_grad=True)
    optimizer = AdamW([q, p], lr=1.0)
    q.grad = torch.ones(2)
    optimizer.step()  # one without a gradient is passed over, as everywhere
    p.grad = torch.ones_like(p)
    before = q.detach().clone()
    with pytest.raises(ValueError, match=r"parameter 1 of group 0 is torch\.int64"):
        optimizer.step()
    assert torch.equal(q, before)


def test_a_refused_group_leaves_nothing_behind() -> None:
    p = torch.ones(2, requires_grad=True)
    weight = tg.node(torch.zeros(2), trainable=True, name="weight")
    optimizer: Any = AdamW([p])
    with pytest.raises(TypeError, match="optimizer can only optimize Tensors"):
        optimizer.add_param_group({"params": [weight, "bias"]})
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": [weight, p]})
    assert len(optimizer.param_groups) == 1
    assert optimizer.parameters == [p]
    assert not optimizer._bindings
    optimizer.add_param_group({"params": [weight]})
    assert optimizer.parameters == [p, weight]
    with pytest.raises(ValueError, match="Muon only supports 2D"):
        Muon([torch.eye(2, requires_grad=True)]).add_param_group({"params": [weight]})


def test_a_tensor_that_is_listed_twice_steps_twice_as_in_torch() -> None:
    ps, qs = ([torch.eye(2, dtype=torch.float64).requires_grad_() for _ in range(2)] for _ in "ab")
    with pytest.warns(UserWarning, match="duplicate parameters"):
        one = torch.optim.AdamW([*ps, ps[0], ps[0]], lr=0.1, foreach=False)
    with pytest.warns(UserWarning, match="duplicate parameters"):
        two = AdamW([*qs, qs[0], qs[0]], lr=0.1)
    for step in range(4):
        for p, q in zip(ps, qs, strict=True):
            p.grad, q.grad = gradient(p, step), gradient(q, step)
        one.step()
        two.step()
    assert two.state[qs[0]]["step"] == 12
    for p, q in zip(ps, qs, strict=True):
        assert torch.allclose(p, q, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("betas", [(0.9,), (0.9, 0.99, 0.999)])
@pytest.mark.parametrize("make", [AdamW, NadamW, SOAP, Sophia])
def test_two_moments_have_two_decay_rates(make: Any, betas: Any) -> None:
    with pytest.raises(ValueError, match=r"Invalid decay rates: .*there must be 2"):
        make([torch.ones(2, 2, requires_grad=True)], betas=betas)
