"""Steps that count on the device, and steps that `torch.compile` takes whole."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

import tracegraph as tg
from optimizers.numeric.adam import AdamW
from optimizers.numeric.bases.muon import Muon
from optimizers.numeric.captured import rows_of
from optimizers.numeric.codecs.rounding import ROUNDINGS
from optimizers.numeric.codecs.table import CODECS
from optimizers.numeric.executors.batch import Batch
from optimizers.numeric.executors.running import run
from optimizers.numeric.registration import step_
from optimizers.numeric.rules.adam import ADAMW
from optimizers.numeric.rules.rule import Rule
from optimizers.numeric.rules.table import RULES
from optimizers.numeric.schedule_free import ScheduleFreeAdamW
from optimizers.numeric.sgd import SGD
from tests.optimizers.numeric.family import FAMILY, Row, named
from tests.optimizers.numeric.test_plan import HYPER
from tracegraph.errors import NonFinite

PLAIN = [row for row in FAMILY if row.pure]
WHOLE = [row for row in FAMILY if not row.pure]
QUICK = ("SGD-dampened", "AdamW", "NadamW", "SPAM")
"""Rows that are compiled in the ordinary suite: a first step of its own, and every kind of scalar."""

AVERAGED = Row("ScheduleFreeAdamW", ScheduleFreeAdamW, {"warmup_steps": 3})

SHAPES = [(70, 64), (3,), (), (0, 2)]


# torch's compiler warns about its own parts
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),
]


@pytest.fixture(autouse=True)
def _compile_quietly_and_forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", False)
    yield
    torch._dynamo.reset()


def parameters(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=generator).to(dtype).requires_grad_() for s in SHAPES]


def parameters_of(optimizer: Any) -> list[torch.Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def together(
    one: Any,
    two: Any,
    first: Callable[[], Any],
    second: Callable[[], Any],
    count: int,
    *,
    skip: bool = False,
) -> float:
    """The largest difference between two optimizers' parameters after `count` equal steps."""
    ps, qs = parameters_of(one), parameters_of(two)
    generator = torch.Generator().manual_seed(1)
    for t in range(count):
        for i, (p, q) in enumerate(zip(ps, qs, strict=True)):
            p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
            q.grad = p.grad.clone()
            if skip and t % 3 == 1 and i == 1:
                p.grad = q.grad = None
        first()
        second()
    return max((p - q).abs().max().item() for p, q in zip(ps, qs, strict=True) if p.numel())


# -- numbers on the device ------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES.values(), ids=str)
def test_scalars_of_a_tensor_of_steps_are_those_of_each_step(rule: Rule) -> None:
    steps = range(1, 200)
    for log_factor in (True, False):
        hyper = {**HYPER, "log_factor": log_factor, "dampening": 0.3}
        t = torch.tensor(steps, dtype=torch.float64)
        mine = rows_of(rule.scalars(hyper, t), t)
        gold = torch.tensor([rule.scalars(hyper, k) for k in steps], dtype=torch.float64).t()
        assert torch.allclose(mine, gold, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("row", PLAIN, ids=str)
def test_a_capturable_optimizer_steps_as_a_plain_one(row: Row) -> None:
    one = row(parameters(), weight_decay=0.1)
    two = row(parameters(), weight_decay=0.1, capturable=True)
    assert together(one, two, one.step, two.step, 50, skip=True) <= 2e-6
    states = [state for state in two.state.values() if "step" in state]
    assert [int(s["step"]) for s in states] in ([], [50, 33, 50, 50])


@pytest.mark.parametrize(
    ("rounding", "state", "count"),
    [("stochastic", "fp32", 50), ("24bit", "fp32", 50), ("32bit", "8bit", 6)],
)
def test_a_capturable_optimizer_rounds_as_a_plain_one(
    rounding: str, state: str, count: int
) -> None:
    """Bit by bit, tensors of other dtypes beside them and gradients that are missing."""

    def make(**options: Any) -> AdamW:
        ps = [*parameters(torch.bfloat16), *parameters()[:2]]
        return AdamW(ps, lr=1e-3, rounding=rounding, state=state, **options)

    one, two = make(), make(capturable=True)
    assert together(one, two, one.step, two.step, count, skip=True) == 0.0
    for p, q in zip(parameters_of(one), parameters_of(two), strict=True):
        for name, held in one.state[p].items():
            assert torch.equal(torch.as_tensor(held), two.state[q][name]), name


def nan_now_and_then(optimizers: Sequence[Any], t: int) -> None:
    """In two steps of five something is not finite, once in one tensor and once in another."""
    for optimizer in optimizers:
        params = [p for p in parameters_of(optimizer) if p.grad is not None and p.numel()]
        if t % 5 in (1, 3):
            params[-(t % 2)].grad.view(-1)[-1] = (torch.inf, torch.nan)[t % 5 == 3]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("row", "options"),
    [(row, {}) for row in PLAIN if row.name in QUICK]
    + [
        (named("AdamW"), {"state": "8bit", "clip_norm": 0.5}),
        (named("AdamW"), {"dtype": torch.bfloat16, "rounding": "stochastic"}),
        (named("SGD-momentum"), {"dtype": torch.bfloat16, "rounding": "24bit", "state": "bf16"}),
    ],
    ids=str,
)
def test_a_step_is_skipped_on_the_device_as_by_the_host(row: Row, options: Any) -> None:
    """Parameters, states, counts of steps and of draws stay; all groups of the optimizer stay."""
    options = dict(options)
    dtype = options.pop("dtype", torch.float32)

    def make(**more: Any) -> Any:
        ps = parameters(dtype)
        groups = [{"params": ps[:2]}, {"params": ps[2:], "weight_decay": 0.3}]
        return row(groups, nonfinite="skip", **options, **more)

    one, two = make(), make(capturable=True)
    count = iter(range(100))

    def both() -> None:
        nan_now_and_then((one, two), next(count))
        one.step()
        two.step()

    assert together(one, two, both, lambda: None, 50) <= 2e-6
    assert one.skipped == two.skipped == 20
    for p, q in zip(parameters_of(one), parameters_of(two), strict=True):
        for name, held in one.state[p].items():
            other = two.state[q][name]
            if name == "step":
                assert held == other == 30
            assert torch.allclose(
                torch.as_tensor(held).double(), other.double(), rtol=1e-5, atol=2e-6
            ), name


@pytest.mark.parametrize("nonfinite", ["allow", "skip"])
@pytest.mark.parametrize("warmup", [0, 20])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "32bit"])
def test_what_schedule_free_counts_is_on_the_device_too(
    rounding: str, warmup: int, nonfinite: str
) -> None:
    """Rates that rise, fall and begin at nothing; the average now and then; steps that are skipped."""
    dtype = torch.float32 if rounding == "nearest" else torch.bfloat16
    rate = torch.tensor(0.0)

    def make(lr: Any, **options: Any) -> ScheduleFreeAdamW:
        options |= {"warmup_steps": warmup, "rounding": rounding, "nonfinite": nonfinite}
        return ScheduleFreeAdamW(parameters(dtype), lr=lr, weight_decay=0.1, **options)

    one, two = make(0.0), make(rate, capturable=True)
    count = iter(range(100))

    def both() -> None:
        t = next(count)
        rate.fill_((0.0, 0.125, 0.25, 0.0625)[t // 10 % 4])
        one.param_groups[0]["lr"] = rate.item()
        if t % 12 == 11:
            for optimizer in (one, two):
                optimizer.eval()
                optimizer.train()
        if nonfinite == "skip":
            nan_now_and_then((one, two), t)
        one.step()
        two.step()

    last = 2.0**-6 if rounding == "stochastic" else 2.0**-8 if rounding == "32bit" else 1e-5
    assert together(one, two, both, lambda: None, 50) <= last
    for p, q in zip(parameters_of(one), parameters_of(two), strict=True):
        for key in ("step", "lr_max", "weight_sum"):
            assert torch.allclose(one.state[p][key], two.state[q][key], rtol=1e-12, atol=0)
    three = make(0.125)
    saved = copy.deepcopy(two.state_dict())
    saved["param_groups"][0].update(capturable=False, lr=0.125)
    three.load_state_dict(saved)
    with torch.no_grad():
        for p, q in zip(parameters_of(three), parameters_of(two), strict=True):
            p.copy_(q)
    rate.fill_(0.125)
    assert together(three, two, three.step, two.step, 2) <= last


@pytest.mark.parametrize("state", ["fp32", "8bit", "8bit-dynamic"])
def test_executors_that_read_no_number_leave_skipped_tensors_to_the_bit(state: str) -> None:
    """As on a GPU without Triton: numbers stay in `rows`, which no executor but Triton's heeds."""
    ps = [torch.randn(5000).bfloat16(), torch.randn(4100).bfloat16()]
    codec, way = CODECS[state], ROUNDINGS["24bit"]
    t = torch.tensor([3.0, 3.0], dtype=torch.float64)
    go = torch.tensor([0.0, 1.0], dtype=torch.float64)
    rows = rows_of([*ADAMW.scalars(HYPER, t), 1.0, go, t, t], t)
    states = [
        [list(part) for part in zip(*(codec.empty(p, kind) for p in ps), strict=True)]
        for kind in ADAMW.states
    ]
    rests = [torch.randint(-128, 128, p.shape).to(torch.int8) for p in ps]
    grads = [torch.full_like(ps[0], torch.nan), torch.ones_like(ps[1])]
    batch = Batch(ADAMW, (), codec, ps, grads, states, rows=rows, rounding=way, rests=rests)
    batch.guarded = True
    columns = [ps, rests, *(part for held in states for part in held)]
    before = copy.deepcopy(columns)
    run("auto", batch)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(before, columns, strict=True))
    assert not any(torch.equal(a[1], b[1]) for a, b in zip(before, columns, strict=True))


@pytest.mark.parametrize("state", CODECS)
def test_a_capturable_optimizer_stores_state_as_a_plain_one(state: str) -> None:
    options: dict[str, Any] = {"state": state, "clip_norm": 0.5, "maximize": True}
    for row in (named("AdamW"), named("SGD-momentum")):
        one = row(parameters(), **options)
        two = row(parameters(), capturable=True, **options)
        assert together(one, two, one.step, two.step, 6) <= 1e-6
        for p, q in zip(parameters_of(one), parameters_of(two), strict=True):
            for name, held in one.state[p].items():
                assert torch.equal(torch.as_tensor(held), two.state[q][name]), name


def test_rates_that_are_tensors_are_read_at_each_step_and_never_by_the_host() -> None:
    """Tensors on the meta device have no numbers: whoever asks for one, fails."""
    rate = torch.tensor(0.1)
    one, two = AdamW(parameters(), lr=0.1), AdamW(parameters(), lr=rate, capturable=True)

    def halve() -> None:
        one.param_groups[0]["lr"] /= 2
        rate.div_(2)

    assert together(one, two, one.step, lambda: (two.step(), halve()), 5) <= 1e-6
    for row in (*PLAIN, AVERAGED):
        ps = [torch.zeros(s, device="meta").bfloat16().requires_grad_() for s in SHAPES]
        careful = {"nonfinite": "skip", "rounding": "stochastic", "clip_norm": 1.0}
        optimizer = row(ps, capturable=True, backend="eager", **careful)
        optimizer.param_groups[0]["lr"] = torch.ones((), device="meta")
        for p in ps:
            p.grad = torch.zeros_like(p)
        optimizer.step()
        optimizer.step()


def test_state_moves_between_capturable_plain_and_torchs_optimizers() -> None:
    theirs = torch.optim.AdamW(parameters(torch.float64), capturable=False)
    ours = AdamW(parameters(torch.float64), capturable=True)
    assert together(theirs, ours, theirs.step, ours.step, 3) <= 1e-12
    for saved, loaded in ((theirs, ours), (ours, theirs)):
        state = copy.deepcopy(saved.state_dict())
        for group in state["param_groups"]:
            group["capturable"] = loaded.param_groups[0]["capturable"]  # a saved flag wins
        loaded.load_state_dict(state)
        assert together(theirs, ours, theirs.step, ours.step, 3) <= 1e-12
    assert [int(s["step"]) for s in ours.state.values()] == [9] * 4
    careful = AdamW(parameters(torch.float64), nonfinite="raise")
    careful.load_state_dict(copy.deepcopy(ours.state_dict()))
    assert together(theirs, careful, lambda: None, careful.step, 1) < 10
    assert careful.param_groups[0]["capturable"]
    steady = named("StableSPAM")(parameters(torch.float64))
    saved = copy.deepcopy(steady.state_dict())
    saved["param_groups"][0]["capturable"] = True
    steady.load_state_dict(saved)
    assert "capturable" not in steady.param_groups[0]


def test_draws_go_on_where_a_state_moves_to_a_capturable_optimizer_and_back() -> None:
    def make(capturable: bool) -> SGD:
        options: dict[str, Any] = {"state": "bf16-stochastic", "rounding": "stochastic"}
        ps = parameters(torch.bfloat16)
        return SGD(ps, lr=0.01, momentum=0.9, capturable=capturable, **options)

    one, two = make(False), make(False)
    assert together(one, two, one.step, two.step, 3) == 0.0
    for capturable in (True, False):
        saved, values = copy.deepcopy(two.state_dict()), parameters_of(two)
        two = make(capturable)
        saved["param_groups"][0]["capturable"] = capturable
        two.load_state_dict(saved)
        with torch.no_grad():
            torch._foreach_copy_(parameters_of(two), values)
        assert together(one, two, one.step, two.step, 3) == 0.0


def test_what_cannot_be_captured_is_refused() -> None:
    p = torch.zeros(2, requires_grad=True)
    for row in WHOLE:
        with pytest.raises(ValueError, match="capturable=True: its step decides on the host"):
            row([p], capturable=True)
    average = ScheduleFreeAdamW([p.detach().clone().requires_grad_()], capturable=True)
    average.eval()
    (q,) = average.param_groups[0]["params"]
    q.grad = torch.ones(2)
    with pytest.raises(RuntimeError, match=r"holds the average since eval\(\)"):
        average.step()
    assert torch.equal(q, p)
    assert not average.state
    q = torch.zeros(2, device="meta", requires_grad=True)
    optimizer = AdamW([p, q], capturable=True)
    p.grad, q.grad = torch.ones(2), torch.ones(2, device="meta")
    with pytest.raises(ValueError, match=r"one device, and this one is on .*'cpu', 'meta'"):
        optimizer.step()
    assert torch.equal(p, torch.zeros(2))
    assert not optimizer.state


# -- compiled -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=[] if row.name in QUICK else [pytest.mark.campaign], id=row.name)
        for row in PLAIN
    ],
)
def test_torchs_compiler_takes_a_step_whole(row: Row) -> None:
    """One graph, no break in it, and what the first, second and later steps do without it."""
    one, two = (row(parameters(), weight_decay=0.1) for _ in range(2))
    counters.clear()
    step = torch.compile(lambda: two.step(), fullgraph=True, backend="eager")
    assert together(one, two, one.step, step, 5) <= 2e-6
    assert counters["stats"]["unique_graphs"] == 1
    assert {s["step"].item() for s in two.state.values() if "step" in s} in (set(), {5.0})


@pytest.mark.parametrize(
    ("state", "dtype"), [("bf16-stochastic", torch.bfloat16), ("8bit", torch.float32)], ids=str
)
def test_a_compiled_step_stores_state_as_any_other(state: str, dtype: torch.dtype) -> None:
    """By torch's functional form, where the operator steps copies that are written back."""
    options: dict[str, Any] = {"state": state, "clip_norm": 0.5, "maximize": True}
    one, two = (AdamW(parameters(dtype), lr=0.1, **options) for _ in range(2))
    step = torch.compile(lambda: two.step(), fullgraph=True, backend="aot_eager")
    assert together(one, two, one.step, step, 4) <= 1e-6


def test_a_compiled_step_rounds_skips_and_counts_as_any_other() -> None:
    """Within the graph: draws, and the look at gradients."""
    careful: dict[str, Any] = {"rounding": "stochastic", "nonfinite": "skip", "capturable": True}
    for make in (AdamW, ScheduleFreeAdamW):
        torch._dynamo.reset()
        one, two = (make(parameters(torch.bfloat16), lr=0.1, **careful) for _ in range(2))
        counters.clear()
        step = torch.compile(lambda two=two: two.step(), fullgraph=True, backend="aot_eager")
        count = iter(range(100))

        def both(one: Any = one, two: Any = two, step: Any = step, count: Any = count) -> None:
            t = next(count)
            nan_now_and_then((one, two), t)
            one.step()
            step()

        assert together(one, two, both, lambda: None, 7) == 0.0
        assert counters["stats"]["unique_graphs"] == 1
        assert one.skipped == two.skipped == 3


def test_groups_dtypes_and_missing_gradients_in_a_compiled_step() -> None:
    def make() -> AdamW:
        ps = [*parameters()[:2], *parameters(torch.bfloat16)[:1], *parameters(torch.float64)[1:2]]
        more = {"params": ps[2:], "weight_decay": 0.5, "amsgrad": True}
        return AdamW([{"params": ps[:2], "lr": 0.2}, more], lr=0.1)

    one, two = make(), make()
    counters.clear()
    step = torch.compile(lambda: two.step(), fullgraph=True, backend="aot_eager")
    assert together(one, two, one.step, step, 7, skip=True) <= 1e-6
    assert counters["stats"]["unique_graphs"] == 2  # with the gradient that is missing, and without
    assert together(one, two, one.step, two.step, 2) <= 1e-6  # and on without the compiler
    assert together(one, two, one.step, step, 2) <= 1e-6


def test_a_schedule_compiles_a_second_time_at_most() -> None:
    one, two = AdamW(parameters(), lr=0.1), AdamW(parameters(), lr=0.1)
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda t: 1 / (t + 1)) for o in (one, two)]
    counters.clear()
    step = torch.compile(lambda: two.step(), backend="eager")

    def both() -> None:
        step()
        for schedule in schedules:
            schedule.step()

    assert together(one, two, one.step, both, 8) <= 1e-6
    assert counters["stats"]["unique_graphs"] <= 2


def test_a_compiled_training_step_trains_as_without() -> None:
    """Forward, backward and step in one function, as torch's own pages have it."""
    x, y = torch.randn(16, 4), torch.randn(16, 1)

    def train(compiled: bool) -> torch.Tensor:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
        optimizer = AdamW(model.parameters(), lr=0.1)

        def step() -> torch.Tensor:
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        run = torch.compile(step, backend="aot_eager") if compiled else step
        return torch.stack([run().detach() for _ in range(6)])

    assert torch.allclose(train(True), train(False), rtol=1e-6, atol=1e-7)


def test_what_decides_on_the_host_runs_as_it_is_beside_compiled_code() -> None:
    cases = [
        named("StableSPAM"),
        lambda p: AdamW(p, nonfinite="skip"),
        lambda p: AdamW(p, nonfinite="raise", capturable=True),
        lambda p: Muon(p),
    ]
    for make in cases:
        torch._dynamo.reset()
        one, two = make(parameters()[:1]), make(parameters()[:1])
        step = torch.compile(lambda two=two: two.step(), backend="eager")
        assert together(one, two, one.step, step, 3) <= 1e-6
        if two.nonfinite == "raise":
            (p,) = parameters_of(two)
            p.grad = torch.full_like(p, torch.nan)
            with pytest.raises(NonFinite):
                step()
    weight = tg.node(torch.ones(2), trainable=True, name="weight")
    optimizer = SGD([weight], lr=0.5)
    weight.data.grad = torch.ones(2)
    torch.compile(lambda: optimizer.step(), backend="eager")()
    assert weight.data.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("state", ["fp32", "8bit"])
def test_the_operator_keeps_torchs_rules_for_operators(state: str) -> None:
    optimizer = AdamW(parameters()[:2], state=state)
    for p in parameters_of(optimizer):
        p.grad = torch.ones_like(p)
    optimizer.step()
    params, states = parameters_of(optimizer), []
    for p in params:
        states += [x for name, x in optimizer.state[p].items() if name != "step"]
    rows = torch.full((10, 2), 0.5, dtype=torch.float64)
    grads = [torch.ones_like(p) for p in params]
    detached = [p.detach() for p in params]
    torch.library.opcheck(
        step_, (detached, grads, states, rows, "adamw", state, "auto", "nearest", False)
    )


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.parametrize("row", [named("AdamW"), named("NadamW"), named("SPAM"), AVERAGED], ids=str)
def test_inductor_takes_a_step_whole(row: Row) -> None:
    one, two = (row(parameters(), weight_decay=0.1) for _ in range(2))
    step = torch.compile(lambda: two.step(), fullgraph=True)
    assert together(one, two, one.step, step, 6) <= 2e-6
