"""Every optimizer on a GPU does what it does on the processor, and what torch does there.

Needs a CUDA GPU; without one every test is skipped and says so.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

import tracegraph as tg
from optimizers.numeric.adam import AdamW
from optimizers.numeric.bases.subspace import RandomSubspace
from optimizers.numeric.curvature import AdaHessian, Sophia
from optimizers.numeric.estimators.mezo import MeZO
from optimizers.numeric.estimators.sam import SAM
from optimizers.numeric.schedule_free import ScheduleFreeAdamW
from optimizers.numeric.sgd import SGD
from tests.optimizers.numeric import test_bases, test_torch_database
from tests.optimizers.numeric.family import FAMILY
from tests.optimizers.numeric.test_torch_database import OURS, options_for, train

DEVICE = "cuda"
pytestmark = [
    pytest.mark.skipif(
        DEVICE == "cuda" and not torch.cuda.is_available(), reason="there is no CUDA GPU here"
    ),
    # what torch itself says as it compiles
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning"),
]

Make = Callable[..., torch.optim.Optimizer]
SHAPES = [(), (7,), (16, 12), (12, 16), (130, 70)]
MATRICES = [(16, 12), (12, 16), (130, 70)]

SQUARES = [(7,), (16, 16), (40, 40)]

# these draw on the device, or turn with a basis whose signs a library chooses
OWN_WAY = {"GaLore", "Fira", "NaturalGaLore", "FRUGAL", "COSMOS"}
WHOLE = {"SOAP", "Shampoo"}  # of gradients without full rank, whose basis is any, they tell nothing


def based(name: str) -> Make:
    return lambda p, **options: test_bases.make(name, p, **options)


EVERY: dict[str, Make] = {
    **{row.name: row for row in FAMILY},
    **{name: based(name) for name in test_bases.NAMES},
    "ScheduleFreeAdamW": lambda p, **options: ScheduleFreeAdamW(p, lr=0.01, **options),
}


def stepped(make: Make, shapes: list[tuple[int, ...]], device: str, dtype: torch.dtype) -> Any:
    generator = torch.Generator().manual_seed(3)

    def drawn(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)

    ps = [drawn(s).requires_grad_() for s in shapes]
    optimizer = make(ps)
    for _ in range(7):
        for p in ps:
            p.grad = drawn(tuple(p.shape))
        optimizer.step()
    return optimizer, ps


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", EVERY)
def test_every_optimizer_steps_as_on_the_processor(name: str, dtype: torch.dtype) -> None:
    shapes = MATRICES if name in ("Muon", "Trion") else SQUARES if name in WHOLE else SHAPES
    optimizer, ours = stepped(EVERY[name], shapes, DEVICE, dtype)
    _, theirs = stepped(EVERY[name], shapes, "cpu", dtype)
    for p, q in zip(ours, theirs, strict=True):
        assert p.device.type == DEVICE
        assert p.dtype == dtype
        assert bool(p.isfinite().all())
        for key, x in optimizer.state[p].items():
            if isinstance(x, torch.Tensor) and key != "step" and x.dim():
                assert x.device == p.device, key
        if name in OWN_WAY and p.dim() > 1:
            continue
        # Muon and Trion compute in bfloat16 on a GPU; Lion's sign may turn where a sum is near 0
        near = 1e-9 if dtype == torch.float64 else 1e-2 if name in WHOLE else 2e-4
        far = 0.05 if name in ("Muon", "Trion") else near
        assert (p.cpu() - q).norm() <= far * (1 + q.norm()), name


@pytest.mark.parametrize(
    "name", ["SOAP", "Shampoo", "Muon", "GaLore", "FRUGAL", "DCTAdamW", "COSMOS"]
)
def test_a_restored_optimizer_continues_bit_by_bit(name: str) -> None:
    optimizer, ps = stepped(EVERY[name], MATRICES, DEVICE, torch.float32)
    qs = [p.detach().clone().requires_grad_() for p in ps]
    other = EVERY[name](qs)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(5):
        for p, q in zip(ps, qs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        optimizer.step()
        other.step()
    for p, q in zip(ps, qs, strict=True):
        assert torch.equal(p, q)


def model_and_data(device: str) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    x = torch.randn(64, 8)
    return model.to(device), x.to(device), (x @ torch.randn(8, 1)).to(device)


CLOSURES: dict[str, Make] = {
    "MeZO": lambda p: MeZO(p, lr=1e-2, eps=1e-3),
    "SAM": lambda p: SAM(SGD(p, lr=0.05), rho=0.05),
}


@pytest.mark.parametrize("name", CLOSURES)
def test_what_evaluates_the_loss_itself_descends(name: str) -> None:
    model, x, y = model_and_data(DEVICE)
    optimizer = CLOSURES[name](model.parameters())

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        if torch.is_grad_enabled():
            loss.backward()
        return loss

    first = float(closure().detach())
    for _ in range(60):
        optimizer.step(closure)
    assert float(closure().detach()) < 0.9 * first
    assert all(p.device.type == DEVICE for p in model.parameters())


@pytest.mark.parametrize("make", [AdaHessian, Sophia], ids=["AdaHessian", "Sophia"])
def test_curvature_is_estimated_there(make: Any) -> None:
    model, x, y = model_and_data(DEVICE)
    optimizer = make(model.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        if make is AdaHessian:
            optimizer.estimate(loss)
        else:
            optimizer.update_hessian(loss)
            loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


CASES = [
    pytest.param(info.optim_cls, case.kwargs, id=f"{info.optim_cls.__name__}-{case.desc}")
    for info in test_torch_database.INFOS
    for case in info.optim_inputs_func(device=DEVICE, dtype=torch.float32)
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("cls", "kwargs"), CASES)
def test_inputs_of_torchs_database_train_as_torch_does(
    cls: Any, kwargs: dict[str, Any], dtype: torch.dtype
) -> None:
    how: dict[str, Any] = {"device": DEVICE, "dtype": dtype}
    near = {"rtol": 2e-4, "atol": 2e-5}
    if dtype == torch.float64 and not kwargs.get("capturable"):  # torch's then count in float32
        near = {"rtol": 1e-7, "atol": 1e-8}
    options = options_for(cls, kwargs, ours=DEVICE == "cuda")
    theirs, p = train(cls, options, **how)
    ours, q = train(OURS[cls], kwargs, **how)
    assert torch.allclose(p, q, **near)
    _, p = train(cls, options, state=ours.state_dict(), **how)
    _, q = train(OURS[cls], kwargs, state=theirs.state_dict(), **how)
    assert torch.allclose(p, q, **near)


@pytest.mark.parametrize("capturable", [False, True])
def test_a_scaler_of_mixed_precision_steps_as_torchs_fused_adamw(capturable: bool) -> None:
    found = []
    for make in (AdamW, torch.optim.AdamW):
        model, x, y = model_and_data(DEVICE)
        options = {"capturable": capturable} if make is AdamW else {"fused": True}
        optimizer = make(model.parameters(), lr=1e-2, **options)
        scaler = torch.amp.GradScaler(DEVICE, init_scale=2.0**20, growth_interval=3)
        for t in range(12):
            optimizer.zero_grad()
            with torch.autocast(DEVICE, dtype=torch.float16):
                loss = (model(x) - y).square().mean() * (1e6 if t == 4 else 1)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        found.append(
            (scaler.get_scale(), torch.cat([p.detach().flatten() for p in model.parameters()]))
        )
    (s, p), (z, q) = found
    assert s == z
    assert torch.allclose(p, q, rtol=1e-3, atol=1e-4)


def test_gradients_of_the_graph_are_torchs() -> None:
    torch.manual_seed(1)
    data = [torch.randn(5, 4, device=DEVICE), torch.randn(4, 3, device=DEVICE)]
    w, v = (tg.node(x.clone(), trainable=True) for x in data)
    rate = tg.node(0.3, trainable=True, name="rate")
    loss = ((w @ v).sin() * rate + (w * w).sum()).mean()
    optimizer = AdamW([w, v, rate], lr=0.01)
    optimizer.backward(loss, 1.0)
    a, b = (x.clone().requires_grad_() for x in data)
    c = torch.tensor(0.3, device=DEVICE, dtype=torch.float64, requires_grad=True)
    ((a @ b).sin() * c + (a * a).sum()).mean().backward()
    theirs = torch.optim.AdamW([a, b, c], lr=0.01)
    theirs.step()
    optimizer.step()
    assert w.data.device.type == DEVICE
    assert torch.allclose(w.data, a, rtol=1e-5, atol=1e-6)
    assert torch.allclose(v.data, b, rtol=1e-5, atol=1e-6)
    assert rate.data == pytest.approx(float(c.detach()), rel=1e-5)


def test_a_gradient_elsewhere_is_refused_and_changes_nothing() -> None:
    p = torch.ones(4, device=DEVICE, requires_grad=True)
    q = torch.ones(4, device=DEVICE, requires_grad=True)
    p.grad = torch.ones(4, device=DEVICE)
    with pytest.raises(RuntimeError):
        q.grad = torch.ones(4)  # torch itself
    q.grad = torch.ones(4, device=DEVICE)
    q.data = torch.ones(4)  # moved behind the optimizer's back, without its gradient
    optimizer = AdamW([p, q], lr=0.1)
    with pytest.raises(Exception, match=r"device|cpu"):
        optimizer.step()
    assert bool((p == 1).all())


@pytest.mark.parametrize(
    ("state", "of_one"), [("8bit", 2.135), ("8bit-dynamic", 2.042), ("fp32", 8.01)]
)
def test_what_a_state_takes_of_the_memory(state: str, of_one: float) -> None:
    """Codes, their scales, and a table of eight bytes for a thousand elements."""
    count = 1 << 24
    p = torch.zeros(count, device=DEVICE, requires_grad=True)
    p.grad = torch.ones_like(p)
    before = torch.cuda.memory_allocated()
    optimizer = AdamW([p], state=state)
    optimizer.step()
    assert (torch.cuda.memory_allocated() - before) / count <= of_one


def test_a_model_compiled_with_its_step_trains_as_eagerly() -> None:
    found = []
    for compiled in (True, False):
        model, x, y = model_and_data(DEVICE)
        optimizer = AdamW(model.parameters(), lr=1e-2, capturable=True)

        def loss(model: Any = model, x: Any = x, y: Any = y) -> Any:
            return (model(x) - y).square().mean()

        def step(optimizer: Any = optimizer) -> None:
            optimizer.step()

        if compiled:
            loss, step = torch.compile(loss), torch.compile(step, fullgraph=True)
        for _ in range(8):
            optimizer.zero_grad()
            loss().backward()
            step()
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.allclose(*found, rtol=1e-3, atol=1e-4)


def test_a_random_subspace_is_trained_there() -> None:
    model, x, y = model_and_data(DEVICE)
    optimizer = RandomSubspace(model.parameters(), 40, lambda z: AdamW(z, lr=0.05))
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
