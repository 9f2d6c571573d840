"""Wrappers around a model: retries, fallbacks, rate limits, budgets; sync and async alike."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracegraph.errors import BudgetExceeded, MissingKey, ModelFailed, NotRecorded, WrongModel
from tracegraph.llm import (
    Ask,
    Budgeted,
    Cached,
    Fallback,
    FromCallable,
    LanguageModel,
    Pause,
    Price,
    RateLimited,
    Reply,
    Request,
    Retrying,
    Scripted,
    Usage,
    Wrapper,
    bound_tokens,
)


@dataclass
class Clock:
    """Time that passes only when somebody pauses."""

    now: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def play(self, wrapper: Wrapper, request: Request) -> tuple[float, Reply]:
        """Run a wrapper's steps; pauses move the clock. Returns when the model was asked."""
        steps = wrapper.steps(request)
        asked, result = self.now, None
        step = next(steps)
        while True:
            try:
                if isinstance(step, Pause):
                    self.pauses.append(step.seconds)
                    self.now += step.seconds
                    step = steps.send(None)
                    continue
                asked = self.now
                try:
                    result = step.run()
                except Exception as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
            except StopIteration as done:
                return asked, done.value


def failed(status: int | None, retry_after: float | None = None) -> ModelFailed:
    return ModelFailed(f"status {status}", status=status, retry_after=retry_after)


GO = Request.of("Go")


@pytest.mark.parametrize(
    "error",
    [failed(429), failed(500), failed(503), failed(408), TimeoutError(), ConnectionResetError()],
    ids=repr,
)
def test_a_passing_failure_is_retried(error: Exception) -> None:
    model = Scripted([error, error, "done"])
    assert Retrying(model, attempts=3, wait=0.0)("Go").text == "done"
    assert len(model.requests) == 3


@pytest.mark.parametrize(
    "error",
    [failed(400), failed(401), failed(404), failed(None), ValueError("429"), KeyError("timeout")],
    ids=repr,
)
def test_a_lasting_failure_is_not_retried(error: Exception) -> None:
    model = Scripted([error, "done"])
    with pytest.raises(type(error)) as caught:
        Retrying(model, wait=0.0)("Go")
    assert caught.value is error
    assert len(model.requests) == 1


def test_the_last_failure_is_raised_as_it_came() -> None:
    errors = [failed(429), failed(500), failed(503)]
    with pytest.raises(ModelFailed) as caught:
        Retrying(Scripted(errors), attempts=3, wait=0.0)("Go")
    assert caught.value is errors[-1]
    assert caught.value.__notes__ == ["asked 3 times"]


def test_the_pauses_double_within_their_bound_and_retry_after_wins() -> None:
    clock = Clock()
    errors = [failed(500), failed(500), failed(429, 7.5), failed(500), "done"]
    model = Retrying(Scripted(errors), wait=1.0, longest=8.0, seed=1)
    clock.play(model, GO)
    first, second, third, fourth = clock.pauses
    assert 0 <= first <= 1
    assert 0 <= second <= 2
    assert third == 7.5
    assert 0 <= fourth <= 8


@pytest.mark.parametrize("status", [503, 400])
def test_a_failure_that_nobody_keeps_is_gone_at_once(status: int) -> None:
    raised: list[weakref.ref[ModelFailed]] = []

    def known() -> ModelFailed:
        error = failed(status)
        raised.append(weakref.ref(error))
        return error

    def fail(prompt: str) -> str:
        raise known()  # a local name would hold it

    model = Retrying(FromCallable(fail), attempts=3, wait=0.0)
    gc.disable()
    try:
        with suppress(ModelFailed):
            model("Go")
        assert [error() for error in raised] == [None] * (3 if status == 503 else 1)
    finally:
        gc.enable()


@given(st.lists(st.sampled_from([400, 408, 429, 500, 503, 0, -1]), max_size=8), st.integers(1, 5))
def test_who_is_asked_how_often_is_the_rule_itself(said: list[int], attempts: int) -> None:
    """0 stands for a reply, -1 for a Retry-After that is too long."""
    errors = {-1: lambda: failed(429, 99.0)}
    script = [errors.get(s, lambda s=s: failed(s))() if s else "yes" for s in said] + ["yes"]
    stops = [i for i, s in enumerate([*said, 0]) if s in (0, 400, -1)]
    asked = min(stops[0] + 1, attempts)
    for call in (Clock().play, lambda model, request: (0, asyncio.run(awaited(model, request)))):
        inner = Scripted(list(script))
        model = Retrying(inner, attempts=attempts, wait=0.0, longest=10.0)
        outcome: object
        try:
            outcome = call(model, GO)[1].text
        except ModelFailed as error:
            outcome = error
        assert len(inner.requests) == asked
        assert outcome == script[asked - 1]


async def awaited(model: LanguageModel, request: Request) -> Reply:
    return await model.aask(request)


def test_a_provider_that_asks_for_too_long_a_wait_is_not_asked_again() -> None:
    model = Scripted([failed(429, 3600.0), "done"])
    with pytest.raises(ModelFailed):
        Retrying(model, longest=60.0)("Go")
    assert len(model.requests) == 1


def test_a_fallback_answers_for_a_model_that_fails() -> None:
    first = Scripted([failed(500), MissingKey("no key")], name="first")
    model = Fallback(first, Scripted(["a", "b"], name="second"))
    assert [model("Go").model, model("Go").text] == ["second", "b"]


def test_a_fallback_keeps_every_reason_and_hides_no_mistake() -> None:
    model = Fallback(Scripted([failed(500)], name="one"), Scripted([failed(429)], name="two"))
    with pytest.raises(ModelFailed, match="status 429") as caught:
        model("Go")
    assert caught.value.__notes__ == ["before, one failed: status 500"]
    with pytest.raises(ZeroDivisionError):
        Fallback(Scripted([ZeroDivisionError()]), Scripted(["x"]))("Go")
    spent = Budgeted(Scripted(["x"]), calls=0)
    with pytest.raises(BudgetExceeded):
        Fallback(spent, Scripted(["x"]))("Go")


@given(
    st.lists(st.floats(0, 30), min_size=1, max_size=30),
    st.integers(1, 5),
    st.integers(600, 3000),
)
def test_no_window_of_a_minute_has_more_requests_or_tokens_than_allowed(
    gaps: list[float], requests: int, tokens: int
) -> None:
    clock = Clock()
    used = Usage(500, 20)
    inner = Scripted(lambda request: Reply("x", usage=used))
    model = RateLimited(
        inner, requests_per_minute=requests, tokens_per_minute=tokens, clock=clock, reply_tokens=519
    )
    starts: list[float] = []
    for gap in gaps:
        clock.now += gap
        starts.append(clock.play(model, GO)[0])
    for start in starts:
        window = [s for s in starts if start <= s < start + 60 - 1e-6]
        assert len(window) <= requests
        assert len(window) * used.total <= tokens


def test_a_request_that_can_never_start_is_refused() -> None:
    with pytest.raises(WrongModel, match="tokens per minute"):
        RateLimited(Scripted(["x"]), tokens_per_minute=100, reply_tokens=200)("Go")


@dataclass
class Paid:
    """A model that counts what it was paid, and how many are under way at once."""

    usage: Usage
    calls: int = 0
    tokens: int = 0
    most: int = 0
    now: int = 0
    name: str = "paid"
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, request: Request) -> Reply:
        with self.lock:
            self.calls += 1
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.002)
        with self.lock:
            self.now -= 1
            self.tokens += self.usage.total
        return Reply("x", usage=self.usage)

    async def aask(self, request: Request) -> Reply:
        self.calls += 1
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.002)
        self.now -= 1
        self.tokens += self.usage.total
        return Reply("x", usage=self.usage)


LIMITS = [
    ({"calls": 40}, 40),
    ({"tokens": 2_000}, 49),
    ({"dollars": 2.0, "price": Price(0.001, 0.001)}, 49),
]


@pytest.mark.parametrize(("limit", "calls"), LIMITS, ids=str)
def test_a_budget_holds_under_32_threads(limit: dict[str, object], calls: int) -> None:
    inner = Paid(Usage(30, 10))
    model = Budgeted(inner, reply_tokens=10, **limit)  # type: ignore[arg-type]

    def ask(_: int) -> bool:
        try:
            return model("Go").text == "x"
        except BudgetExceeded:
            return False

    with ThreadPoolExecutor(32) as pool:
        answered = sum(pool.map(ask, range(100)))
    assert answered == inner.calls == model.spent.calls
    assert inner.calls == pytest.approx(calls, abs=1 if "calls" not in limit else 0)
    assert inner.tokens <= 2_000
    assert inner.most > 1


@pytest.mark.parametrize(("limit", "calls"), LIMITS, ids=str)
def test_a_budget_holds_under_100_tasks(limit: dict[str, object], calls: int) -> None:
    inner = Paid(Usage(30, 10))
    model = Budgeted(inner, reply_tokens=10, **limit)  # type: ignore[arg-type]

    async def main() -> list[object]:
        tasks = [model.acall("Go") for _ in range(100)]
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    replies = asyncio.run(main())
    assert sum(isinstance(r, Reply) for r in replies) == inner.calls
    assert inner.calls == pytest.approx(calls, abs=1 if "calls" not in limit else 0)
    assert inner.tokens <= 2_000


def test_what_was_paid_for_is_returned_even_when_it_cost_more_than_it_should() -> None:
    model = Budgeted(Paid(Usage(900, 900)), tokens=1_000, reply_tokens=10)
    assert model("Go").text == "x"
    assert model.spent.tokens == 1_800
    with pytest.raises(BudgetExceeded, match="tokens"):
        model("Go")


def test_a_refused_call_costs_no_tokens_and_a_timeout_costs_the_most() -> None:
    most = bound_tokens(GO) + 10
    model = Budgeted(Scripted([failed(400), failed(408)]), tokens=10_000, reply_tokens=10)
    for tokens in (0, most):
        with pytest.raises(ModelFailed):
            model.ask(GO)
        assert model.spent.tokens == tokens
    assert model.spent.calls == 2


def test_nothing_is_spent_before_a_request_is_made() -> None:
    model = Budgeted(Scripted([]), calls=1)
    with pytest.raises(NotRecorded):
        model("Go")
    assert model.spent.calls == 0


def test_seconds_end_a_budget_and_bound_the_timeout() -> None:
    clock = Clock()
    inner = Scripted(["a", "b"])
    model = Budgeted(inner, seconds=10, clock=clock)
    model("Go")
    clock.now = 9.0
    model("Go")
    assert [request.timeout for request in inner.requests] == [10.0, 1.0]
    clock.now = 10.0
    with pytest.raises(BudgetExceeded, match="seconds"):
        model("Go")


def test_a_budget_of_zero_asks_nobody() -> None:
    inner = Scripted(["x"])
    for limit in ({"calls": 0}, {"tokens": 0}, {"seconds": 0.0}):
        with pytest.raises(BudgetExceeded):
            Budgeted(inner, **limit)("Go")  # type: ignore[arg-type]
    assert inner.requests == []


def test_a_budget_in_dollars_needs_a_price() -> None:
    with pytest.raises(WrongModel, match="price"):
        Budgeted(Scripted(["x"]), dollars=1.0)("Go")
    with pytest.raises(WrongModel, match="calls"):
        Budgeted(Scripted(["x"]), calls=-1)
    with pytest.raises(WrongModel, match="dollars"):
        Budgeted(Scripted(["x"]), dollars=float("nan"))


def test_a_cancelled_task_gives_its_place_back() -> None:
    class Slow:
        name = "slow"

        def ask(self, request: Request) -> Reply:
            raise NotImplementedError

        async def aask(self, request: Request) -> Reply:
            await asyncio.sleep(30)
            raise NotImplementedError

    model = Budgeted(Slow(), calls=5)

    async def main() -> None:
        task = asyncio.create_task(model.acall("Go"))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert model.spent.calls == 1
    assert model._reserved.calls == 0


def test_wrappers_compose() -> None:
    inner = Scripted([failed(503), "first", "second"])
    model: LanguageModel = Budgeted(Cached(Retrying(inner, wait=0.0)), calls=3)
    assert isinstance(model, Wrapper)
    texts = [model("Go").text, model("Go").text, model("Go", attempt=1).text]
    assert texts == ["first", "first", "second"]
    assert repr(model) == "Budgeted(Cached(Retrying(Scripted('scripted'))))"
    with pytest.raises(WrongModel, match="as_language_model"):
        Retrying("gpt-4o-mini")  # type: ignore[arg-type]


def test_sync_and_async_take_the_same_steps() -> None:
    def script() -> Scripted:
        return Scripted([failed(500), "a", failed(429, 0.0), "b"])

    blocking, awaiting = script(), script()
    for make, call in ((blocking, False), (awaiting, True)):
        model = Retrying(make, wait=0.0)
        texts = [asyncio.run(model.acall("Go")).text if call else model("Go").text for _ in "ab"]
        assert texts == ["a", "b"]
    assert blocking.requests == awaiting.requests
    assert isinstance(next(Retrying(script()).steps(GO)), Ask)
