"""LiteLLM against a real server on the loopback interface, faults included."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from pydantic import BaseModel

from tracegraph.errors import BudgetExceeded, MissingExtra, MissingKey, ModelFailed, WrongModel
from tracegraph.llm import Budgeted, LiteLLM, Price, Reply, Request, Retrying, Usage, backend

SECRET = "sk-planted-secret-0123456789"

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Verdict(BaseModel):
    good: bool


@pytest.fixture
def model(server: Any) -> LiteLLM:
    return LiteLLM("openai/served", api_base=server.base, api_key=SECRET, timeout=20)


def test_one_request_gives_one_reply(server: Any, model: LiteLLM) -> None:
    reply = model([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], seed=3)
    assert reply == Reply("hello", None, Usage(7, 3), None, "openai/served", "stop")
    (sent,) = server.requests
    assert sent["messages"][1] == {"role": "user", "content": "u"}
    assert (sent["model"], sent["seed"]) == ("served", 3)
    assert server.keys == [f"Bearer {SECRET}"]


def test_async_gives_the_same(server: Any, model: LiteLLM) -> None:
    async def both() -> list[Reply]:
        return await asyncio.gather(model.acall("a"), model.acall("b"))

    assert [reply.text for reply in asyncio.run(both())] == ["hello", "hello"]
    assert len(server.requests) == 2


def test_a_second_event_loop_is_no_news(server: Any) -> None:
    code = (  # in a process of its own: what litellm keeps for each loop ends with it
        "import asyncio, logging\n"
        "from tracegraph.llm import LiteLLM\n"
        f"model = LiteLLM('openai/served', api_base={server.base!r}, api_key='none', timeout=60)\n"
        "said = [asyncio.run(model.acall('a')).text for _ in range(3)]\n"
        "logging.getLogger('LiteLLM').warning('a fault')\n"
        "print(said)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines()[-1:] == ["['hello', 'hello', 'hello']"], done.stderr
    told = done.stdout + done.stderr
    assert "a fault" in told
    assert "event loop" not in told


def test_a_known_model_has_a_cost_and_an_unknown_one_none(server: Any) -> None:
    known = LiteLLM("openai/gpt-4o-mini", api_base=server.base, api_key=SECRET)
    cost = known("Hi").cost
    price = known.price()
    assert cost is not None
    assert price is not None
    assert cost == pytest.approx(price.of(Usage(7, 3)))
    assert LiteLLM("openai/served", api_base=server.base).price() is None
    assert isinstance(price, Price)


@pytest.mark.parametrize("schema", [Verdict, {"type": "object", "title": "A verdict"}], ids=str)
def test_a_schema_is_sent_where_it_is_supported(
    server: Any, answer: Callable[..., Any], schema: Any
) -> None:
    server.answers = [answer(content='{"good": true}')]
    for name, sent in (("openai/gpt-4o-mini", True), ("openai/served", False)):
        reply = LiteLLM(name, api_base=server.base, api_key=SECRET)("Judge.", schema=schema)
        assert ("response_format" in server.requests[-1]) is sent
        assert reply.parsed == (Verdict(good=True) if schema is Verdict else {"good": True})


@pytest.mark.parametrize(("status", "asked"), [(429, 3), (500, 3), (503, 3), (400, 1), (401, 1)])
def test_a_refusal_has_its_status_and_only_a_passing_one_is_retried(
    server: Any, answer: Callable[..., Any], model: LiteLLM, status: int, asked: int
) -> None:
    server.answers = [answer(status=status)]
    with pytest.raises(ModelFailed) as caught:
        Retrying(model, attempts=3, wait=0.0)("Hi")
    assert caught.value.status == status
    assert len(server.requests) == asked


def test_retry_after_is_read(server: Any, answer: Callable[..., Any], model: LiteLLM) -> None:
    server.answers = [answer(status=429, headers={"Retry-After": "0.05"}), answer()]
    with pytest.raises(ModelFailed) as caught:
        model("Hi")
    assert caught.value.retry_after == 0.05
    server.requests.clear()
    assert Retrying(model, wait=99.0)("Hi").text == "hello"


def test_a_hang_ends_at_the_timeout(
    server: Any, answer: Callable[..., Any], model: LiteLLM
) -> None:
    server.answers = [answer(hang=30.0)]
    with pytest.raises(ModelFailed) as caught:
        model.ask(Request.of("Hi", timeout=0.3))
    assert caught.value.status == 408
    assert len(server.requests) == 1


def test_faults_in_the_body(server: Any, answer: Callable[..., Any], model: LiteLLM) -> None:
    server.answers = [answer(content=None), answer(content="cut", finish="length")]
    assert model("Hi").text == ""
    assert model("Hi").truncated
    server.answers = [answer(body='{"id": "1", "choices": [{"mess')]
    with pytest.raises(ModelFailed):
        model("Hi")


def test_a_secret_is_never_shown(
    server: Any,
    answer: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    ambient = "ambient-secret-9876543210"
    monkeypatch.setenv("SOME_API_KEY", ambient)
    base = server.base.replace("127.0.0.1", "user:password-in-url@127.0.0.1")
    model = LiteLLM("openai/served", api_base=base, api_key=SECRET, user_token="token-123456789")
    echo = f'{{"error": {{"message": "wrong key {SECRET} or {ambient} or token-123456789"}}}}'
    server.answers = [answer(status=401, body=echo)]
    with pytest.raises(ModelFailed) as caught:
        model("Hi")
    seen = "".join(traceback.format_exception(caught.value)) + repr(model) + model.name
    seen += repr(caught.value)
    logged = "".join(r.getMessage() for r in caplog.records if r.name.startswith("tracegraph"))
    for secret in (SECRET, ambient, "password-in-url", "token-123456789"):
        assert secret not in seen + logged + "".join(capfd.readouterr())
    assert "***" in str(caught.value)


@pytest.mark.parametrize("key", ["x", "none", "user"])
def test_a_key_that_is_a_short_word_does_not_spoil_the_message(
    key: str, server: Any, answer: Callable[..., Any]
) -> None:
    told = f"unexpected users: nonexistent, not {key}, and no Bearer {key}"
    model = LiteLLM("openai/served", api_base=server.base, api_key=key)
    server.answers = [answer(status=401, body=f'{{"error": {{"message": "{told}"}}}}')]
    with pytest.raises(ModelFailed) as caught:
        model("Hi")
    assert "unexpected users: nonexistent, not ***, and no Bearer ***" in str(caught.value)


def test_an_error_that_holds_no_secret_keeps_its_cause(
    server: Any, answer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "e")
    model = LiteLLM("openai/served", api_base=server.base, api_key="q")
    server.answers = [answer(status=401, body='{"error": {"message": "no"}}')]
    with pytest.raises(ModelFailed) as caught:
        model("Hi")
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("name", "variable"),
    [("gpt-4o-mini", "OPENAI_API_KEY"), ("anthropic/claude-3-haiku", "ANTHROPIC_API_KEY")],
)
def test_without_a_key_the_error_names_the_variable(name: str, variable: str) -> None:
    with pytest.raises(MissingKey, match=variable) as caught:
        LiteLLM(name)("Hi")
    for way in ("TRACEGRAPH_MODEL", "ollama", "api_base"):
        assert way in str(caught.value)


def test_a_server_of_ones_own_needs_no_key(server: Any) -> None:
    assert LiteLLM("openai/served", api_base=server.base)("Hi").text == "hello"


def test_a_local_model_needs_no_key(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = LiteLLM("ollama/llama3", api_base="http://127.0.0.1:9")
    with pytest.raises(ModelFailed):
        model("Hi")


def test_an_unknown_provider_is_named() -> None:
    with pytest.raises(WrongModel, match="'nonsense'"):
        LiteLLM("nonsense")("Hi")


@pytest.mark.parametrize("option", ["num_retries", "stream", "caching", "fallbacks"])
def test_options_that_are_wrappers_here_are_refused(option: str) -> None:
    with pytest.raises(WrongModel, match=option):
        LiteLLM("gpt-4o-mini", **{option: True})


@pytest.mark.parametrize("base", ["localhost:8000", "http://", "http://h:port/v1", 5, ""], ids=repr)
def test_an_address_that_is_none_is_refused(base: Any) -> None:
    with pytest.raises(WrongModel, match="api_base"):
        LiteLLM("openai/served", api_base=base)


def test_without_litellm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    backend._litellm.cache_clear()
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(MissingExtra, match=r"tracegraph\[llm\]"):
        LiteLLM("gpt-4o-mini")("Hi")


def test_importing_and_making_a_model_loads_nothing_heavy() -> None:
    code = (
        "import sys, tracegraph.llm as l, optimizers.llm.reply\n"
        "l.as_language_model('gpt-4o-mini')\n"
        "heavy = {'litellm', 'openai', 'torch', 'httpx', 'networkx'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_retry_after_may_be_a_date(server: Any, answer: Callable[..., Any], model: LiteLLM) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=40), usegmt=True)
    for written, least, most in ((soon, 20.0, 41.0), (past, 0.0, 0.0)):
        server.answers = [answer(status=429, headers={"Retry-After": written})]
        with pytest.raises(ModelFailed) as caught:
            model("Hi")
        assert caught.value.retry_after is not None
        assert least <= caught.value.retry_after <= most
    server.answers = [answer(status=429, headers={"Retry-After": "tomorrow"})]
    with pytest.raises(ModelFailed) as caught:
        model("Hi")
    assert caught.value.retry_after is None


def test_a_budget_holds_over_http_with_faults_and_loses_no_reply(
    server: Any, answer: Callable[..., Any], model: LiteLLM
) -> None:
    """32 callers, a budget of 40 requests, and every third one refused, failed or cut off."""
    lock, count = threading.Lock(), iter(range(10_000))
    good = []

    def respond(request: dict[str, Any]) -> Any:
        with lock:
            number = next(count)
        if number % 3 == 1:
            return answer(status=429, headers={"Retry-After": "0"})
        if number % 9 == 2:
            return answer(status=500)
        with lock:
            good.append(number)
        return answer(content=str(number))

    server.respond = respond
    budgeted = Budgeted(model, calls=40)
    retried = Retrying(budgeted, attempts=10, wait=0.0)

    def ask(number: int) -> str | None:
        try:
            return retried(f"question {number}").text
        except (BudgetExceeded, ModelFailed):
            return None

    with ThreadPoolExecutor(32) as pool:
        said = [text for text in pool.map(ask, range(60)) if text is not None]
    assert len(server.requests) == budgeted.spent.calls == 40
    assert sorted(map(int, said)) == sorted(good)
    assert budgeted.spent.tokens == 10 * len(good)
