"""Any callable serves as a model; whatever a user gives becomes one."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tracegraph.errors import NotRecorded, WrongModel
from tracegraph.llm import FromCallable, Reply, Scripted, Usage, as_language_model

TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Go"}]


def openai_form(text: str) -> Any:
    message = SimpleNamespace(content=text)
    return SimpleNamespace(
        choices=[SimpleNamespace(message=message, finish_reason="length")],
        usage=SimpleNamespace(prompt_tokens=1, completion_tokens=2),
    )


def of_a_prompt(prompt: str) -> str:
    return prompt


def of_messages(messages: list[dict[str, str]]) -> str:
    return "|".join(m["content"] for m in messages)


class LikeTrace:
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        assert not args
        return openai_form(of_messages(kwargs["messages"]))


async def awaited(prompt: str, temperature: float = 0.0) -> str:
    return f"{prompt} at {temperature}"


def as_dict(messages: Any, **options: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": f"{sorted(options)}"}}]}


CASES = [
    (of_a_prompt, "Be brief.\n\nGo"),
    (of_messages, "Be brief.|Go"),
    (LikeTrace(), "Be brief.|Go"),
    (awaited, "Be brief.\n\nGo at 0.5"),
    (as_dict, "['temperature']"),
]


@pytest.mark.parametrize(("function", "text"), CASES, ids=lambda c: getattr(c, "__name__", ""))
def test_a_callable_answers(function: Any, text: str) -> None:
    model = as_language_model(function)
    assert isinstance(model, FromCallable)
    assert model(TURNS, temperature=0.5).text == text
    assert asyncio.run(model.acall(TURNS, temperature=0.5)).text == text


def test_what_openai_reports_is_kept() -> None:
    reply = FromCallable(LikeTrace())("Go")
    assert (reply.usage, reply.truncated) == (Usage(1, 2), True)


@pytest.mark.parametrize(
    "said",
    [None, 5, [], {"choices": []}, openai_form(None)],
    ids=lambda value: type(value).__name__,
)  # type: ignore[arg-type]
def test_an_answer_that_is_none_is_refused(said: Any) -> None:
    with pytest.raises(WrongModel, match=r"choices\[0\]"):
        FromCallable(lambda prompt: said)("Go")


def test_a_callables_own_error_passes_through() -> None:
    def broken(prompt: str) -> str:
        raise KeyError(prompt)

    with pytest.raises(KeyError, match="Go"):
        as_language_model(broken)("Go")  # type: ignore[operator]


def test_a_model_stays_itself_and_a_name_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted = Scripted([])
    assert as_language_model(scripted) is scripted
    names = ["gpt-4o-mini"]
    for variable in ("DEFAULT_LITELLM_MODEL", "TRACE_LITELLM_MODEL", "TRACEGRAPH_MODEL"):
        assert as_language_model().name == names[-1]
        names.append(f"ollama/{variable}")
        monkeypatch.setenv(variable, names[-1])
    assert as_language_model().name == "ollama/TRACEGRAPH_MODEL"
    assert as_language_model("anthropic/x").name == "anthropic/x"


@pytest.mark.parametrize(
    "wrong", [5, "", [], object(), Scripted], ids=lambda value: type(value).__name__
)
def test_what_cannot_be_a_model_is_refused(wrong: Any) -> None:
    with pytest.raises(WrongModel):
        as_language_model(wrong)


@pytest.mark.parametrize("wrong", [5, [], [5], [{"role": "user"}], [{"role": "u", "content": 5}]])
def test_what_cannot_be_asked_is_refused_and_nobody_is_asked(wrong: Any) -> None:
    model = Scripted(["x"])
    with pytest.raises(WrongModel):
        model(wrong)
    assert model.requests == []


def test_a_script_that_ran_out_says_so() -> None:
    model = Scripted(["one"])
    model("a")
    with pytest.raises(NotRecorded, match="asked 2 times and its script has 1"):
        model("b")
    assert [request.messages[0].text for request in model.requests] == ["a", "b"]
    with pytest.raises(WrongModel):
        Scripted("one")
    assert Scripted([Reply("r", cost=1.0)])("a").cost == 1.0
