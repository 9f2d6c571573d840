"""LangChain runnables as traced workflows, with the real package and models without network."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import pytest

import tracegraph as tg
from optimizers import Budget, OptoPrime, fit
from optimizers.records import records_of
from tracegraph.adapters import from_langchain
from tracegraph.errors import MissingExtra, Rejected
from tracegraph.llm import Scripted

pytest.importorskip("langchain_core", reason="langchain-core is optional: tracegraph[langchain]")
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import RunnableBranch, RunnableLambda, RunnablePassthrough

QUESTION = {"mood": "kind", "question": "When?"}


def asking() -> ChatPromptTemplate:
    return ChatPromptTemplate([("system", "Be {mood}."), ("human", "{question}")])


def echo(prompt: Any) -> AIMessage:
    """A model that says what it was told."""
    return AIMessage(" | ".join(message.content for message in prompt.to_messages()))


def echoing() -> Any:
    return asking() | RunnableLambda(echo).with_config(run_name="model") | StrOutputParser()


def ops(output: Any) -> list[str]:
    return [n.op for n in tg.Graph.of(output).nodes if n.op is not None]


def test_each_step_of_a_sequence_is_a_node() -> None:
    given = asking() | FakeListChatModel(responses=["at nine"]) | StrOutputParser()
    output = from_langchain(given)(QUESTION)
    assert output.data == given.invoke(QUESTION) == "at nine"
    assert ops(output) == ["ChatPromptTemplate", "FakeListChatModel", "StrOutputParser"]
    (prompt,) = (n for n in tg.Graph.of(output).nodes if n.op == "ChatPromptTemplate")
    assert {name: n.data for name, n in prompt.inputs.items()} == {
        "given": QUESTION,
        "system": "Be {mood}.",
    }


def test_a_template_is_a_parameter_and_the_given_chain_stays() -> None:
    given = echoing()
    chain = from_langchain(given, name="shop")
    assert list(chain.named_parameters()) == ["shop.system"]
    (system,) = chain.parameters()
    with tg.Overlay({system: "Be very {mood}."}):
        assert chain(QUESTION).data == "Be very kind. | When?"
    assert chain(QUESTION).data == "Be kind. | When?"
    system.assign("{mood}!")
    assert chain(QUESTION).data == chain.to_langchain().invoke(QUESTION) == "kind! | When?"
    assert given.invoke(QUESTION) == "Be kind. | When?"


def branching() -> Any:
    return (
        RunnablePassthrough.assign(first=echoing(), second=echoing())
        | {
            "joined": PromptTemplate.from_template("Join {first} and {second}"),
            "kept": RunnablePassthrough(),
        }
        | RunnableLambda(lambda both: both["joined"].text + "/" + both["kept"]["mood"])
    )


def test_awaiting_gives_and_records_the_same() -> None:
    for given in (echoing(), branching()):
        chain = from_langchain(given)
        plain, awaited = chain(QUESTION), asyncio.run(chain.ainvoke(QUESTION))
        assert plain.data == awaited.data == given.invoke(QUESTION)
        assert sorted(ops(awaited)) == sorted(ops(plain))
        assert chain.to_langchain().invoke(QUESTION) == plain.data


def test_two_prompts_of_one_form_never_share_credit() -> None:
    chain = from_langchain(branching())
    assert list(chain.named_parameters()) == ["system", "system_2", "prompt"]
    first, second, prompt = chain.parameters()
    first.assign("One {mood}.")
    second.assign("Two {mood}.")
    output = chain(QUESTION)
    output.backward("too long")
    (one,), (two,), (joined,) = records_of(first), records_of(second), records_of(prompt)
    assert "One kind." in one.output
    assert "Two" not in one.output
    assert "Two kind." in two.output
    assert one.node is not two.node
    assert "Join One kind. | When? and Two kind. | When?" in joined.output


def test_a_prompt_that_stands_twice_is_one_parameter() -> None:
    prompt = PromptTemplate.from_template("Say {text}")
    text = RunnableLambda(lambda made: {"text": made.text})
    chain = from_langchain(prompt | text | prompt)
    assert list(chain.named_parameters()) == ["prompt"]
    output = chain({"text": "hi"})
    assert output.data.text == "Say Say hi"
    output.backward("good")
    assert len(records_of(chain.parameters()[0])) == 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Be.", r"the fields that it had \(mood\), this has none"),
        ("Be {mood} and {secret}.", "this has mood, secret"),
        ("Be {mood.__class__}.", "no template"),
        ("Be {mood} {", "no template"),
    ],
)
def test_a_template_keeps_its_fields(text: str, why: str) -> None:
    (system,) = from_langchain(echoing()).parameters()
    with pytest.raises(Rejected, match=why):
        system.assign(text)
    system.assign("Be {mood}, and write {{braces}}.")


def test_a_message_without_fields_may_say_anything() -> None:
    chain = from_langchain(
        ChatPromptTemplate([SystemMessage("Use {braces}."), ("human", "{question}")])
        | RunnableLambda(echo)
    )
    chain.parameters()[0].assign("Use {none")
    assert chain(QUESTION).data.content == "Use {none | When?"


def test_what_is_a_program_or_only_a_field_is_no_parameter() -> None:
    jinja = PromptTemplate.from_template("Say {{ text }} twice", template_format="jinja2")
    field = PromptTemplate.from_template(" {text} ")
    for prompt in (jinja, field):
        chain = from_langchain(prompt)
        assert chain.parameters() == []
        assert chain({"text": "hi"}).data == prompt.invoke({"text": "hi"})


def test_mustache_templates_keep_their_fields_too() -> None:
    chain = from_langchain(PromptTemplate.from_template("Say {{text}}", template_format="mustache"))
    (prompt,) = chain.parameters()
    prompt.assign("Shout {{text}} and {text}")
    assert chain({"text": "hi"}).data.text == "Shout hi and {text}"
    with pytest.raises(Rejected, match="this has none"):
        prompt.assign("Shout {text}")


def test_an_optimizer_improves_a_chain() -> None:
    chain = from_langchain(echoing())
    reply = '{"suggestion": {"system": "Be {mood} and brief."}}'
    result = fit(
        chain, [QUESTION, {**QUESTION, "question": "Where?"}],
        lambda question, said: (float("brief" in said), "say that it is brief"),
        optimizer=OptoPrime(chain.parameters(), llm=Scripted([reply])), budget=Budget(steps=1),
    )  # fmt: skip
    assert (result.baseline, result.score) == (0.0, 1.0)
    assert chain.to_langchain().invoke(QUESTION) == "Be kind and brief. | When?"


@pytest.mark.parametrize("awaiting", [False, True])
def test_a_step_that_fails_is_an_instance_of_its_type_and_leads_to_the_prompt(
    awaiting: bool,
) -> None:
    def down(prompt: Any) -> Any:
        raise ConnectionError("the model is down")

    chain = from_langchain(asking() | RunnableLambda(down))
    with pytest.raises(ConnectionError, match="the model is down") as caught:
        asyncio.run(chain.ainvoke(QUESTION)) if awaiting else chain(QUESTION)
    failed = tg.failed_node(caught.value)
    assert failed is not None
    failed.backward("the model is down")
    assert chain.parameters()[0].feedback


def test_inside_a_call_that_records_nothing_the_parameters_are_read_by_that_call() -> None:
    chain = from_langchain(branching())

    @tg.bundle
    def shout(question: dict[str, str]) -> str:
        return str(chain(question).upper())

    output = shout(QUESTION)
    assert output.data == branching().invoke(QUESTION).upper()
    output.backward("quieter")
    assert all(parameter.feedback for parameter in chain.parameters())


def test_what_is_no_runnable_is_refused() -> None:
    with pytest.raises(TypeError, match=r"takes a Runnable.*RunnableLambda"):
        from_langchain(len)


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain_core.runnables", None)
    with pytest.raises(MissingExtra, match=r"tracegraph\[langchain\]"):
        from_langchain(None)


def saying(text: str) -> Any:
    """A chain with a template of its own, and a model that says what it was told."""
    return PromptTemplate.from_template(text + " {question}") | RunnableLambda(lambda p: p.text)


def routed() -> Any:
    asked = saying("Is it short?") | RunnableLambda(lambda text: len(text) < 20).with_config(
        run_name="is_short"
    )
    return RunnableBranch(
        (lambda given: given["question"] == "Never", saying("Never")), (asked, saying("Short:")),
        saying("Long:"),
    )  # fmt: skip


@pytest.mark.parametrize("question", ["Never", "When?", "When do you open on Sundays?"])
@pytest.mark.parametrize("awaiting", [False, True])
def test_a_branch_records_the_conditions_that_were_asked_and_the_way_that_was_taken(
    question: str, awaiting: bool
) -> None:
    given, chain = routed(), from_langchain(routed())
    asked = {"question": question}
    output = asyncio.run(chain.ainvoke(asked)) if awaiting else chain(asked)
    assert output.data == given.invoke(asked)
    never, is_short, short, long = chain.parameters()
    output.backward("wrong")
    heard = [bool(parameter.feedback) for parameter in (never, is_short, short, long)]
    assert heard == {
        "Never": [True, False, False, False],
        "When?": [False, True, True, False],
    }.get(question, [False, True, False, True])
    assert ops(output)[-1] == "RunnableBranch"


def test_a_candidate_of_a_condition_takes_another_way_and_the_branch_comes_back_whole() -> None:
    chain = from_langchain(routed())
    asked = {"question": "When?"}
    is_short = chain.parameters()[1]
    with tg.Overlay({is_short: "Is it very, very short? {question}"}):
        assert chain(asked).data == "Long: When?"
    assert chain(asked).data == "Short: When?"
    is_short.assign("Is it very, very short? {question}")
    assert chain.to_langchain().invoke(asked) == "Long: When?"


def failing(error: Exception) -> Any:
    def fail(text: str) -> str:
        raise error

    return saying("First") | RunnableLambda(fail)


@pytest.mark.parametrize("awaiting", [False, True])
def test_who_failed_before_a_fallback_hears_of_it_too(awaiting: bool) -> None:
    given = failing(ConnectionError("down")).with_fallbacks([saying("Second"), saying("Third")])
    chain = from_langchain(given)
    asked = {"question": "When?"}
    output = asyncio.run(chain.ainvoke(asked)) if awaiting else chain(asked)
    assert output.data == given.invoke(asked) == "Second When?"
    output.backward("slow")
    assert [bool(parameter.feedback) for parameter in chain.parameters()] == [True, True, False]
    chain.parameters()[1].assign("2nd {question}")
    assert chain.to_langchain().invoke(asked) == "2nd When?"


def test_a_fallback_is_told_the_error_if_wanted_and_only_for_what_is_handled() -> None:
    told = RunnableLambda(lambda given: f"{given['question']} {given['error']}")
    given = failing(ConnectionError("down")).with_fallbacks(
        [told], exceptions_to_handle=(ConnectionError,), exception_key="error"
    )
    chain, asked = from_langchain(given), {"question": "When?"}
    assert "down" in chain(asked).data
    assert asked == {"question": "When?"}  # LangChain itself would write the error into it
    with pytest.raises(ValueError, match="must be a dict"):
        chain("When?")
    other = failing(KeyError("x")).with_fallbacks([told], exceptions_to_handle=(ConnectionError,))
    with pytest.raises(KeyError):
        from_langchain(other)(asked)
    all_down = failing(KeyError("one")).with_fallbacks([failing(KeyError("two"))])
    with pytest.raises(KeyError, match="one"):
        from_langchain(all_down)(asked)


def test_a_batch_is_each_input_in_its_order_and_side_by_side() -> None:
    barrier = threading.Barrier(3, timeout=30)

    def together(text: str) -> str:
        barrier.wait()
        return text

    given = saying("Say") | RunnableLambda(together)
    chain = from_langchain(given)
    asked = [{"question": word} for word in ("a", "b", "c")]
    with tg.Overlay({chain.parameters()[0]: "Shout {question}"}):
        outputs = chain.batch(asked, workers=3)
    assert [output.data for output in outputs] == ["Shout a", "Shout b", "Shout c"]
    ids = [[n.id for n in tg.Graph.of(output).nodes if not n.is_leaf] for output in outputs]
    assert max(ids[0]) < min(ids[1]) <= max(ids[1]) < min(ids[2])
    awaited = asyncio.run(from_langchain(saying("Say")).abatch(asked, workers=2))
    assert [output.data for output in awaited] == ["Say a", "Say b", "Say c"]


@pytest.mark.parametrize("awaiting", [False, True])
def test_an_error_in_a_batch_is_raised_or_stands_in_its_place(awaiting: bool) -> None:
    def strict(text: str) -> str:
        if "b" in text:
            raise ValueError("no b")
        return text

    chain = from_langchain(saying("Say") | RunnableLambda(strict))
    asked = [{"question": word} for word in ("a", "b", "c")]

    def run(**options: Any) -> list[Any]:
        if awaiting:
            return asyncio.run(chain.abatch(asked, **options))
        return chain.batch(asked, **options)

    with pytest.raises(ValueError, match="no b"):
        run()
    first, error, last = run(return_exceptions=True)
    assert (first.data, last.data) == ("Say a", "Say c")
    assert isinstance(error, ValueError)
    assert tg.failed_node(error) is not None


def test_a_stream_is_refused_with_what_to_do_instead() -> None:
    chain = from_langchain(echoing())
    for stream in (chain.stream, chain.astream, chain.astream_events):
        with pytest.raises(TypeError, match=r"to_langchain\(\)\.stream"):
            stream(QUESTION)
