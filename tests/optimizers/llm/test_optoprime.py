"""OptoPrime: full steps with scripted models, and what bad replies, options and keys get."""

from __future__ import annotations

import enum
import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import pydantic
import pytest

import tracegraph as tg
from optimizers import OptoPrime, Rejection
from tracegraph import bundle, node
from tracegraph.errors import MissingKey, ModelFailed, OptimizerError, UnreadableReply
from tracegraph.llm import LiteLLM, Reply, Request, Scripted, Usage
from tracegraph.llm.tokens import count_tokens

PROMPTS = Path(__file__).parent / "prompts"


def suggestion(reasoning: str = "", **values: Any) -> str:
    return json.dumps({"reasoning": reasoning, "suggestion": values})


def asked(model: Scripted, turn: int = -1) -> str:
    return model.requests[turn].messages[-1].text


def prompt_of(text: str = "Say hello.", **options: Any) -> Any:
    return node(text, trainable=True, name="prompt", **options)


def rate_of(value: float = 0.5) -> Any:
    constraint = Annotated[float, pydantic.Field(ge=0, le=1)]
    return node(value, trainable=True, name="rate", constraint=constraint)


@bundle
def answer(prompt: str, rate: float) -> str:
    """Answer by the prompt, as freely as the rate says."""
    return f"{prompt} ({rate:g})"


# A step


def test_a_step_asks_once_and_changes_every_suggested_parameter() -> None:
    prompt, rate = prompt_of(), rate_of()
    model = Scripted([suggestion("be warmer", prompt="Greet warmly.", rate=0.9)])
    optimizer = OptoPrime([prompt, rate], llm=model)
    optimizer.backward(answer(prompt, rate), "Too cold.")
    update = optimizer.step()
    assert len(model.requests) == 1
    assert (prompt.data, rate.data) == ("Greet warmly.", 0.9)
    assert [(c.name, c.before, c.after, c.version) for c in update.changes] == [
        ("prompt", "Say hello.", "Greet warmly.", 1),
        ("rate", 0.5, 0.9, 1),
    ]
    assert update.reasoning == "be warmer"
    assert update.usage.calls == 1
    assert not prompt.feedback
    assert prompt.origin == "optimizer"


def test_a_callable_serves_as_the_model() -> None:
    def of_messages(messages: list[dict[str, Any]], **options: Any) -> Any:
        assert "#Feedback" in messages[-1]["content"]
        message = SimpleNamespace(content=suggestion(prompt="new"))
        return SimpleNamespace(choices=[SimpleNamespace(message=message)])

    for llm in (of_messages, lambda text: suggestion(prompt="new")):
        prompt = prompt_of()
        optimizer = OptoPrime([prompt], llm=llm)
        optimizer.backward(prompt.upper(), "no")
        assert optimizer.step()
        assert prompt.data == "new"


def test_an_empty_suggestion_changes_nothing() -> None:
    prompt = prompt_of()
    optimizer = OptoPrime([prompt], llm=Scripted([suggestion("all is well")]))
    optimizer.backward(prompt.upper(), "fine")
    update = optimizer.step()
    assert not update
    assert update.reasoning == "all is well"
    assert prompt.version == 0


def test_without_feedback_nothing_is_asked() -> None:
    model = Scripted([])
    update = OptoPrime([prompt_of()], llm=model).step()
    assert model.requests == []
    assert "no feedback has arrived" in str(update)


def test_bypassing_says_what_would_change_and_keeps_the_feedback() -> None:
    prompt = prompt_of()
    optimizer = OptoPrime([prompt], llm=Scripted([suggestion(prompt="new")] * 2))
    optimizer.backward(prompt.upper(), "no")
    assert optimizer.step(bypassing=True).changes[0].after == "new"
    assert prompt.data == "Say hello."
    assert prompt.feedback
    optimizer.step()
    assert prompt.data == "new"


def test_options_go_with_the_request() -> None:
    prompt, model = prompt_of(), Scripted([suggestion()] * 2)
    optimizer = OptoPrime([prompt], llm=model, max_tokens=99, temperature=0.0)
    optimizer.backward(prompt.upper(), "no")
    optimizer.step(temperature=1.0)
    assert dict(model.requests[0].options) == {"max_tokens": 99, "temperature": 1.0}


def test_verbose_logs_the_prompt_and_the_reply(caplog: pytest.LogCaptureFixture) -> None:
    prompt = prompt_of()
    optimizer = OptoPrime([prompt], llm=Scripted([suggestion("because")]))
    optimizer.backward(prompt.upper(), "no")
    with caplog.at_level(logging.INFO, "optimizers"):
        optimizer.step(verbose=True)
    assert "#Feedback" in caplog.text
    assert "because" in caplog.text
    assert optimizer.log[0].reply.text in caplog.text


# All or none


def test_one_bad_value_assigns_nothing_and_the_next_prompt_says_why() -> None:
    prompt, rate = prompt_of(), rate_of()
    model = Scripted([suggestion(prompt="new", rate=7), suggestion(prompt="newer", rate=0.7)])
    optimizer = OptoPrime([prompt, rate], llm=model)
    optimizer.backward(answer(prompt, rate), "no")
    update = optimizer.step()
    assert not update
    assert (prompt.data, rate.data, prompt.version, rate.version) == ("Say hello.", 0.5, 0, 0)
    (rejection,) = update.rejections
    assert rejection.name == "rate"
    assert "less than or equal to 1" in rejection.reason
    assert optimizer.step()  # the feedback stayed: the same problem is asked again
    assert "answer0: no" in asked(model)
    assert f"#Rejected\nrate = 7: {rejection.reason}" in asked(model)
    optimizer.backward(answer(prompt, rate), "again")
    with pytest.raises(tg.TracegraphError):
        optimizer.step()  # the script is over
    assert "#Rejected" not in asked(model)


@pytest.mark.parametrize("value", ["no", 2.9, None, [1], {"a": 1}, "0.5x", True, 1e400])
def test_values_are_never_converted_into_something_else(value: Any) -> None:
    flag = node(3, trainable=True, name="count")
    optimizer = OptoPrime([flag], llm=Scripted([suggestion(count=value)]))
    optimizer.backward(flag + 1, "no")
    assert not optimizer.step()
    assert flag.data == 3


def test_a_foreign_name_is_told_and_changes_nothing() -> None:
    prompt, other = prompt_of(), node("other", trainable=True, name="other")
    optimizer = OptoPrime([prompt], llm=Scripted([suggestion(other="stolen", prompt="new")]))
    optimizer.backward(answer(prompt, 1.0) + other, "no")
    update = optimizer.step()
    assert "'other' is no parameter here" in update.note
    assert (prompt.data, other.data) == ("new", "other")


def test_a_frozen_parameter_is_neither_shown_as_variable_nor_changed() -> None:
    prompt, rate = prompt_of(), rate_of()
    rate.freeze()
    model = Scripted([suggestion(prompt="new", rate=0.1)])
    optimizer = OptoPrime([prompt, rate], llm=model)
    optimizer.backward(answer(prompt, rate), "no")
    optimizer.step()
    assert rate.data == 0.5
    assert "(number) rate =" not in asked(model)


# Replies that cannot be read, and models that fail


@pytest.mark.parametrize("reply", ["I cannot help.", "", '{"suggestion": 3}', "{" * 2_000])
def test_an_unreadable_reply_changes_nothing_and_is_told(reply: str) -> None:
    prompt, model = prompt_of(), Scripted([reply, suggestion()])
    optimizer = OptoPrime([prompt], llm=model)
    optimizer.backward(prompt.upper(), "no")
    update = optimizer.step()
    assert not update
    assert prompt.version == 0
    assert update.usage.calls == 1
    if update.rejections:
        optimizer.backward(prompt.upper(), "no")
        optimizer.step()
        assert "#Rejected\nthe reply: " in asked(model)


def test_an_unreadable_reply_is_raised_where_that_was_asked_and_the_feedback_stays() -> None:
    prompt = prompt_of()
    optimizer = OptoPrime([prompt], llm=Scripted(["no"]), ignore_extraction_error=False)
    optimizer.backward(prompt.upper(), "no")
    with pytest.raises(UnreadableReply, match="no JSON object") as caught:
        optimizer.step()
    assert caught.value.reply == "no"
    assert prompt.feedback
    assert prompt.version == 0


def test_a_reply_of_ten_megabytes_is_refused_by_its_size() -> None:
    prompt = prompt_of()
    text = suggestion(prompt="x" * 10_000_000)
    optimizer = OptoPrime([prompt], llm=Scripted([text]))
    optimizer.backward(prompt.upper(), "no")
    (rejection,) = optimizer.step().rejections
    assert "more than 1,000,000" in rejection.reason
    assert prompt.version == 0


def test_a_model_that_fails_loses_nothing() -> None:
    prompt = prompt_of()
    model = Scripted([ModelFailed("down", status=500), suggestion(prompt="new")])
    optimizer = OptoPrime([prompt], llm=model)
    optimizer.backward(prompt.upper(), "no")
    with pytest.raises(ModelFailed):
        optimizer.step()
    assert prompt.feedback
    assert optimizer.step()
    assert asked(model, 0) == asked(model, 1)


def test_without_a_key_the_error_names_the_variable_and_nothing_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    prompt = prompt_of()
    optimizer = OptoPrime([prompt], llm="gpt-4o-mini")
    optimizer.backward(prompt.upper(), "no")
    with pytest.raises(MissingKey, match="OPENAI_API_KEY"):
        optimizer.step()
    assert prompt.feedback
    assert prompt.version == 0
    assert len(optimizer.memory) == 0


def test_feedback_that_became_stale_is_discarded_with_a_warning() -> None:
    prompt, model = prompt_of(), Scripted([])
    optimizer = OptoPrime([prompt], llm=model)
    optimizer.backward(prompt.upper(), "no")
    prompt.assign("by hand")
    with pytest.warns(tg.StaleFeedbackWarning, match="version 0 of 'prompt'"):
        update = optimizer.step()
    assert not update
    assert model.requests == []


# Memory and masks


def test_the_memory_is_bounded_deduplicated_and_shows_what_was_said() -> None:
    prompt = prompt_of("v0")
    model = Scripted([suggestion(prompt=f"v{i + 1}") for i in range(7)])
    optimizer = OptoPrime([prompt], llm=model, memory_size=3)
    for number in (0, 1, 2, 3, 4, 4, 5):
        optimizer.backward(prompt + node("text " * 10, name="doc"), f"remark {number}")
        optimizer.step()
    assert len(optimizer.memory) == 3
    past = asked(model).split("#Past\n")[1].split("\n\n")[0]
    said = [line.rpartition("-> ")[2] for line in past.splitlines()]
    assert said == ["remark 2", "remark 3", "remark 4"]  # the latest is in the problem itself


def test_a_fact_holds_no_value_of_a_variable() -> None:
    prompt = prompt_of("old words")
    model = Scripted([suggestion(prompt="new"), suggestion()])
    optimizer = OptoPrime([prompt], llm=model)
    for question in ("Why?", "When?"):
        messages = [{"role": "system", "content": prompt}, {"content": node(question, name="q")}]
        optimizer.backward(bundle(lambda messages: str(messages))(messages), f"on {question}")
        optimizer.step()
    assert asked(model).split("#Past\n")[1].startswith("q='Why?' -> on Why?")
    assert "old words" not in asked(model)


def test_a_memory_of_zero_keeps_nothing() -> None:
    prompt = prompt_of()
    model = Scripted([suggestion(prompt="new"), suggestion()])
    optimizer = OptoPrime([prompt], llm=model, memory_size=0)
    for _ in range(2):
        optimizer.backward(prompt.upper(), "no")
        optimizer.step()
    assert "#Past" not in asked(model)


def test_masks_hide_any_section() -> None:
    prompt = prompt_of("v0")
    model = Scripted([suggestion(prompt="v1"), suggestion(prompt=3), *[suggestion()] * 9])
    optimizer = OptoPrime([prompt], llm=model, mask="#Outputs")
    for _ in range(2):
        optimizer.backward(prompt.upper(), "no")
        optimizer.step()
    for mask in ("Past", ["#Rejected"], ["#Code", "feedback"], "instruction"):
        optimizer._rejected = optimizer._rejected or (Rejection("x", 1, "y"),)
        optimizer.backward(prompt.upper(), "no")
        optimizer.step(mask=mask)
        for title in [mask] if isinstance(mask, str) else mask:
            assert f"#{title.lstrip('#').capitalize()}" not in asked(model)
        assert "#Outputs" not in asked(model)
        assert "#Variables" in asked(model)
    with pytest.raises(ValueError, match="no section 'Colour'"):
        optimizer.backward(prompt.upper(), "no") and optimizer.step(mask=["Colour"])


def test_a_prompt_stays_bounded_with_many_variables_memory_and_rejections() -> None:
    parameters = [node("word " * 200, trainable=True, name=f"p{i}") for i in range(100)]
    end = bundle(lambda *words: " ".join(words))

    def answered(request: Request) -> str:
        return suggestion(**{f"p{i}": "other " * 200 for i in range(3)}, p4=3)

    model = Scripted(answered)
    optimizer = OptoPrime(parameters, llm=model, budget=3_000)
    for number in range(5):
        optimizer.backward(end(*parameters), f"remark {number} " * 100)
        optimizer.step()
        parameters[number].assign(f"assigned {number} " * 100)
    assert count_tokens(asked(model)) <= 1.6 * 3_000
    assert "#Past" in asked(model)
    assert "#Rejected" in asked(model)


# What the model is told


class Tone(enum.Enum):
    CALM = "calm"
    LOUD = "loud"


class Inner(pydantic.BaseModel):
    word: str


class Plan(pydantic.BaseModel):
    steps: list[Inner]
    depth: Annotated[int, pydantic.Field(ge=1)] = 1


def workflow() -> tuple[list[Any], Any]:
    prompt = prompt_of("Answer the customer.\nBe brief.", description="what the agent is told")
    parameters = [
        prompt,
        rate_of(),
        node("fast", trainable=True, name="mode", constraint=Literal["fast", "slow"]),
        node(Tone.CALM, trainable=True, name="tone"),
        node(True, trainable=True, name="polite"),
        node(Plan(steps=[Inner(word="look")]), trainable=True, name="plan", constraint=Plan),
    ]

    @bundle(trainable=True)
    def clean(text: str) -> str:
        """Make a text tidy."""
        return text.strip()

    @bundle
    def reply(messages: list[dict[str, Any]], options: dict[str, Any]) -> str:
        """Answer a conversation."""
        return f"{len(messages)} messages, {len(options)} options"

    document = node("The shop opens at nine. " * 10, name="document", description="a leaflet")
    messages = [{"role": "system", "content": prompt}, {"role": "user", "content": document}]
    out = clean(reply(messages, dict(zip("abcde", parameters[1:], strict=True))))
    return [*parameters, clean], out


def test_the_prompt_is_the_one_that_was_reviewed() -> None:
    parameters, out = workflow()
    model = Scripted([suggestion(rate=7, prompt="New."), suggestion(rate=0.7), suggestion()])
    optimizer = OptoPrime(parameters, llm=model, objective="Please the customers.")
    optimizer.backward(out, ("Too long.", 0.25))
    optimizer.step()
    optimizer.step()
    optimizer.backward(answer(parameters[0], parameters[1]), "Better.")
    optimizer.step()
    said = "\n\n".join(
        f"===== {message.role}\n{message.text}"
        for request in model.requests[1:]
        for message in request.messages
        if message.role == "user" or request is model.requests[1]
    )
    reviewed = PROMPTS / "customer.txt"
    if not reviewed.exists():
        reviewed.write_text(said + "\n", encoding="utf-8")
        pytest.fail(f"{reviewed} was missing and is written: review it")
    assert said + "\n" == reviewed.read_text(encoding="utf-8")


def test_the_schema_that_is_sent_takes_what_the_parameters_take() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    parameters, out = workflow()
    model = Scripted([suggestion()])
    optimizer = OptoPrime(parameters, llm=model)
    optimizer.backward(out, "no")
    optimizer.step()
    schema = model.requests[0].json_schema()
    assert schema is not None
    jsonschema.Draft202012Validator.check_schema(schema)
    good = {
        "prompt": "x", "rate": 0.5, "mode": "slow", "tone": "loud", "polite": False,
        "plan": {"steps": [{"word": "a"}], "depth": 2}, "clean": "def clean(text): ...",
    }  # fmt: skip
    jsonschema.validate({"reasoning": "", "suggestion": good}, schema)
    bad = {
        "prompt": 1, "rate": 2, "mode": "medium", "tone": "wild", "polite": "no",
        "plan": {"steps": [{"word": 1}]}, "clean": 3, "unknown": 1,
    }  # fmt: skip
    for name, value in bad.items():
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"reasoning": "", "suggestion": {name: value}}, schema)
    for name, value in good.items():
        if name != "clean":
            optimizer.named_parameters[name].read(value)


def test_usage_and_cost_are_reported() -> None:
    reply = Reply(suggestion(), usage=Usage(100, 20), cost=0.5)
    prompt = prompt_of()
    optimizer = OptoPrime([prompt], llm=Scripted([reply]))
    optimizer.backward(prompt.upper(), "no")
    usage = optimizer.step().usage
    assert (usage.calls, usage.tokens_in, usage.tokens_out, usage.cost) == (1, 100, 20, 0.5)


# Options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"propagator": object()}, "rules belong to operations"),
        ({"prompt_symbols": {}}, "override messages"),
        ({"json_keys": {}}, "the reply's form is fixed"),
        ({"highlight_variables": True}, "variables have a section of their own"),
        ({"memorysize": 3}, "did you mean 'memory_size'"),
        ({"temprature": 0}, "did you mean 'temperature'"),
        ({"objetive": "x"}, "did you mean 'objective'"),
    ],
)
def test_options_that_are_not_ours_are_explained(options: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        OptoPrime([prompt_of()], llm=Scripted([]), **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"objective": 3}, "objective= is a text, got 3"),
        ({"max_tokens": "many"}, "max_tokens must be a whole number from 1, got 'many'"),
        ({"max_tokens": 0}, "max_tokens must be a whole number from 1, got 0"),
    ],
)
def test_options_of_another_type_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptimizerError, match=said):
        OptoPrime([prompt_of()], llm=Scripted([]), **options)


def test_options_of_microsoft_trace_that_mean_the_same_are_taken() -> None:
    optimizer = OptoPrime(
        [prompt_of()], Scripted([]), objective="Improve.", memory_size=2, max_tokens=10, log=True,
        ignore_extraction_error=False, include_example=False, use_json_object_format=True,
    )  # fmt: skip
    assert (optimizer.objective, optimizer.memory.size, optimizer.options) == ("Improve.", 2, {})


@pytest.mark.parametrize("llm", [3, "", ["gpt-4o"], {"model": "x"}])
def test_what_is_no_model_is_refused(llm: Any) -> None:
    with pytest.raises(ValueError, match="model"):
        OptoPrime([prompt_of()], llm=llm)


def test_a_model_of_ones_own_server_is_taken_as_it_is() -> None:
    llm = LiteLLM("openai/local", api_base="http://127.0.0.1:9/v1")
    assert OptoPrime([prompt_of()], llm=llm).llm is llm


# Code


def test_code_of_a_model_runs_only_with_trust() -> None:
    @bundle(trainable=True, trust=True)
    def double(x: int) -> int:
        """Twice."""
        return x

    code = "def double(x: int) -> int:\n    return 2 * x\n"
    optimizer = OptoPrime(double, llm=Scripted([suggestion(double=code)]))
    optimizer.backward(double(3), "It should be 6.")
    assert optimizer.step()
    assert double(3) == 6
    assert double.parameter is not None
    assert double.parameter.origin == "optimizer"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def double(x, y):\n    return x\n", r"double"),
        ("def triple(x):\n    return x\n", r"double"),
        ("def double(x: int) -> int:\n    return (\n", r"[Ss]yntax|never closed"),
        ("print('hello')", r"double"),
        (3, r"source text"),
    ],
)
def test_code_that_does_not_fit_is_rejected_with_the_reason(code: Any, said: str) -> None:
    @bundle(trainable=True, trust=True)
    def double(x: int) -> int:
        return x

    model = Scripted([suggestion(double=code), suggestion()])
    optimizer = OptoPrime(double, llm=model)
    optimizer.backward(double(3), "It should be 6.")
    (rejection,) = optimizer.step().rejections
    assert re.search(said, rejection.reason)
    assert double(3) == 3
    optimizer.backward(double(3), "It should be 6.")
    optimizer.step()
    assert re.search(r"#Rejected\ndouble = .*: ", asked(model), re.DOTALL)
