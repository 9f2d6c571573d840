"""The table of the family on a GPU: every rule, dtype and way to store state, beside eager torch.

Needs a CUDA GPU and Triton; without them every test is skipped and says so.
"""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import pytest
import torch

from optimizers.numeric.bases.matrix import orthogonal
from optimizers.numeric.codecs.rounding import REST, ROUNDINGS
from optimizers.numeric.codecs.table import CODECS
from optimizers.numeric.rule_optimizer import RuleOptimizer
from optimizers.numeric.sgd import SGD
from tests.gpu.waiting import without_waiting
from tests.optimizers.numeric.family import FAMILY, Row, named

pytest.importorskip("triton", reason="Triton is not installed: pip install 'tracegraph[gpu]'")
pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here"),
    # what torch itself says: of a capture that is given up, of its own watch, as it compiles
    pytest.mark.filterwarnings("ignore:The CUDA Graph is empty:UserWarning"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning"),
]

SHAPES = [(), (0,), (5,), (1024,), (70, 64), (3, 1025), (300_001,)]
FAR = {torch.float32: 2e-5, torch.bfloat16: 2.0**-7}


def pair(
    row: Row, dtype: torch.dtype, state: str = "fp32", rounding: str = "nearest"
) -> tuple[RuleOptimizer, RuleOptimizer, list[torch.Tensor], list[torch.Tensor]]:
    """Two optimizers over equal parameters: by Triton, and tensor by tensor with torch."""
    generator = torch.Generator(device="cuda").manual_seed(0)
    make = {"device": "cuda", "generator": generator}
    ours = [torch.randn(s, **make).to(dtype).requires_grad_() for s in SHAPES]  # type: ignore[call-overload]
    theirs = [p.detach().clone().requires_grad_() for p in ours]
    options = {"weight_decay": 0.1, "state": state, "rounding": rounding}
    return (
        row(ours, backend="triton", **options),
        row(theirs, backend="eager", **options),
        ours,
        theirs,
    )


def steps(
    one: RuleOptimizer,
    two: RuleOptimizer,
    ours: list[torch.Tensor],
    theirs: list[torch.Tensor],
    count: int,
) -> None:
    """The same gradients for both, at new addresses each time."""
    generator = torch.Generator(device="cuda").manual_seed(1)
    for _ in range(count):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, device="cuda", generator=generator).to(p.dtype)
            q.grad = p.grad.clone()
        one.step()
        two.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("row", [row for row in FAMILY if row.pure], ids=str)
def test_every_rule_agrees_with_torch(row: Row, dtype: torch.dtype) -> None:
    one, two, ours, theirs = pair(row, dtype)
    steps(one, two, ours, theirs, 8)
    assert "triton" in one.ran
    for p, q in zip(ours, theirs, strict=True):
        off = (p - q).abs() > FAR[dtype] * (1 + q.abs())
        assert off.double().mean().nan_to_num() <= (0.01 if row.name == "Lion" else 1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("state", CODECS)
def test_every_way_to_store_state_agrees_with_torch(state: str, dtype: torch.dtype) -> None:
    one, two, ours, theirs = pair(named("AdamW"), dtype, state)
    steps(one, two, ours, theirs, 4)
    for p, q in zip(ours, theirs, strict=True):
        off = (p - q).abs() > 2 * FAR[dtype] * (1 + q.abs())
        assert off.double().mean().nan_to_num() <= 0.01


@pytest.mark.parametrize("state", ["fp32", "bf16-stochastic", "8bit"])
@pytest.mark.parametrize("rounding", [name for name in ROUNDINGS if name != "nearest"])
@pytest.mark.parametrize("row", [named("SGD-momentum"), named("AdamW"), named("Lion")], ids=str)
def test_every_rounding_of_parameters_agrees_with_torch(
    row: Row, rounding: str, state: str
) -> None:
    """One step from equal values: the draws are the same, so few differ, by one last place."""
    one, two, ours, theirs = pair(row, torch.bfloat16, state, rounding)
    steps(one, two, ours, theirs, 1)
    assert "triton" in one.ran
    way = ROUNDINGS[rounding]
    for p, q in zip(ours, theirs, strict=True):
        wide = [
            way.widened(x.detach(), o.state[x][REST] if way.rest else None)
            for o, x in ((one, p), (two, q))
        ]
        off = (wide[0] - wide[1]).abs() > (2.0**-7 if way.draws else 2e-5) * (1 + wide[1].abs())
        assert off.double().mean().nan_to_num() <= 0.01
        assert (p != q).double().mean().nan_to_num() <= 0.01
    with mock.patch.object(type(way), "widened", side_effect=AssertionError("a wide copy")):
        steps(one, one, ours, ours, 3)


def test_parameters_rounded_at_random_are_right_on_average() -> None:
    """Twenty steps of a tenth of a unit in the last place are two units."""
    p = torch.full((1 << 20,), 1.203125, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    start = p.detach().double().clone()
    optimizer = SGD([p], lr=2.0**-7 / 10, rounding="stochastic", backend="triton")
    for _ in range(20):
        p.grad = torch.ones_like(p)
        optimizer.step()
    moved = (start - p.detach().double()) * 2**7
    assert abs(moved.mean().item() - 2.0) < 5 * (20 * 0.09 / (1 << 20)) ** 0.5
    assert moved.std() > 0.5


def test_stochastic_rounding_is_right_on_average() -> None:
    p = torch.zeros(1 << 20, device="cuda", requires_grad=True)
    optimizer = named("AdamW")([p], lr=0.0, state="bf16-stochastic", backend="triton")
    p.grad = torch.full_like(p, 1.001)
    optimizer.step()
    held = optimizer.state[p]["exp_avg"].float()
    assert held.unique().numel() == 2
    assert abs(held.mean().item() - 0.1001) < 1e-6


def captured(step: Callable[[], object], follow: Callable[..., None]) -> torch.cuda.CUDAGraph:
    """A graph of `step`, after three steps beside the main stream that `follow` feeds, as torch wants."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            follow(step)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


@pytest.mark.parametrize("state", ["fp32", "bf16-stochastic", "8bit"])
@pytest.mark.parametrize("row", [row for row in FAMILY if row.pure], ids=str)
def test_a_captured_step_is_replayed_as_it_would_be_done(row: Row, state: str) -> None:
    """Rates and steps go on in a replay; an uncaptured step between replays disturbs nothing."""
    if not row.make.__name__.startswith(("Adam", "Lion")) and state != "fp32":
        pytest.skip("one rule with one state and one with two stand for all ways to store state")
    generator = torch.Generator(device="cuda").manual_seed(0)
    ours = [torch.randn(s, device="cuda", generator=generator).requires_grad_() for s in SHAPES]
    theirs = [p.detach().clone().requires_grad_() for p in ours]
    rate = torch.tensor(0.01, device="cuda", dtype=torch.float64)
    options = {"weight_decay": 0.1, "state": state, "backend": "triton"}
    one = row(ours, lr=rate, capturable=True, **options)
    two = row(theirs, lr=0.01, **options)
    held = [torch.zeros_like(p) for p in ours]
    for p, g in zip(ours, held, strict=True):
        p.grad = g

    def follow(act: Callable[[], object]) -> None:
        for g, p, q in zip(held, ours, theirs, strict=True):
            g.copy_(torch.randn(g.shape, device="cuda", generator=generator))
            p.grad, q.grad = g, g.clone()
        act()
        two.step()

    graph = captured(one.step, follow)
    for t in range(12):
        if t == 6:
            rate.mul_(0.5)
            two.param_groups[0]["lr"] = 0.005
        follow(one.step if t == 8 else graph.replay)
    for p, q in zip(ours, theirs, strict=True):
        off = (p - q).abs() > 2e-5 * (1 + q.abs())
        assert off.double().mean().nan_to_num() <= (0.01 if "Lion" in row.name else 1e-3)


@pytest.mark.parametrize("rounding", ["stochastic", "24bit"])
def test_a_replay_draws_anew_and_leaves_out_what_is_not_finite(rounding: str) -> None:
    """Beside the same steps done one by one: equal draws, and the same steps skipped."""
    ours = [torch.randn(s, device="cuda").bfloat16().requires_grad_() for s in SHAPES]
    theirs = [p.detach().clone().requires_grad_() for p in ours]
    options = {"rounding": rounding, "nonfinite": "skip", "backend": "triton"}
    one = named("AdamW")(ours, lr=1e-3, capturable=True, **options)
    two = named("AdamW")(theirs, lr=1e-3, **options)
    held = [torch.zeros_like(p) for p in ours]

    def follow(act: Callable[[], object], *, bad: bool = False) -> None:
        for g, p, q in zip(held, ours, theirs, strict=True):
            g.copy_(torch.randn(g.shape, device="cuda"))
            p.grad, q.grad = g, g.clone()
        if bad:
            held[-1][-1] = torch.nan
            theirs[-1].grad = held[-1].clone()
        act()
        two.step()

    graph = captured(one.step, follow)
    for t in range(10):
        follow(graph.replay, bad=t in (2, 7))
    assert one.skipped == two.skipped == 2
    assert int(one.state[ours[-1]]["step"]) == 11
    for p, q in zip(ours, theirs, strict=True):
        off = (p - q).abs() > 2.0**-6 * (1 + q.abs())
        assert off.double().mean().nan_to_num() <= 1e-3


def test_a_capturable_step_waits_for_nothing() -> None:
    """Torch raises where the host would wait for the device."""
    ps = [torch.randn(s, device="cuda").bfloat16().requires_grad_() for s in SHAPES]
    options = {"rounding": "stochastic", "nonfinite": "skip", "clip_norm": 1.0}
    optimizer = named("AdamW")(ps, lr=torch.tensor(1e-3, device="cuda"), capturable=True, **options)
    for t in range(4):
        for p in ps:
            p.grad = torch.randn_like(p)
        with without_waiting(allowed=t == 0):  # the first makes what is kept
            optimizer.step()
    assert optimizer.skipped == 0


def test_a_step_that_cannot_be_captured_is_refused() -> None:
    p = torch.zeros(8, device="cuda", requires_grad=True)
    p.grad = torch.ones_like(p)
    for optimizer in (named("AdamW")([p]), named("AdamW")([p], capturable=True)):
        with (
            pytest.raises(RuntimeError, match="CUDA graph"),
            torch.cuda.graph(torch.cuda.CUDAGraph()),
        ):
            optimizer.step()
    assert not p.detach().any()


def test_torchs_compiler_with_cuda_graphs_takes_a_step_whole() -> None:
    one, two, ours, theirs = pair(named("AdamW"), torch.float32)
    compiled = torch.compile(lambda: one.step(), fullgraph=True, mode="reduce-overhead")
    generator = torch.Generator(device="cuda").manual_seed(1)
    for _ in range(6):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, device="cuda", generator=generator)
            q.grad = p.grad.clone()
        compiled()
        two.step()
    for p, q in zip(ours, theirs, strict=True):
        assert torch.allclose(p, q, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("shape", [(64, 64), (3, 100, 300), (2, 1024, 700), (4096, 1024)], ids=str)
def test_newton_schulz_agrees_with_torch(shape: tuple[int, ...]) -> None:
    g = torch.randn(shape, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    x = orthogonal(g, dtype=torch.float32)
    gold = orthogonal(g.cpu().double(), dtype=torch.float64)
    assert (x.cpu() - gold).norm() <= 1e-4 * gold.norm()
    coarse = orthogonal(g)
    assert (coarse.cpu() - gold).norm() <= 0.05 * gold.norm()


def test_more_elements_than_32_bits_count() -> None:
    count = (1 << 31) + 4096
    if torch.cuda.mem_get_info()[0] < 16 * count:
        pytest.skip("the GPU has not the memory for 2^31 elements in bfloat16 thrice")
    p = torch.zeros(count, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    p.grad = torch.ones_like(p)
    named("Lion")([p], lr=1.0, state="bf16", backend="triton").step()
    assert bool((p[-4096:] == -1).all())
    assert bool((p[:4096] == -1).all())
