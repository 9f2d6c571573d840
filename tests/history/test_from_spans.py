"""The trace of an agent that knows nothing of tracegraph becomes a graph that can be optimized."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tracegraph as tg
from optimizers import OptoPrime
from tracegraph.errors import HistoryError
from tracegraph.history.from_spans import import_spans
from tracegraph.history.otlp import otlp_text
from tracegraph.history.read_spans import read_spans

SYSTEM = "Answer the customer."


class Recorder:
    """OpenTelemetry's SDK, whose spans are kept in memory."""

    def __init__(self) -> None:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("agent")

    def spans(self) -> list[Any]:
        self.provider.shutdown()
        return list(self.exporter.get_finished_spans())


def turn(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}


def genai(span: Any, system: str, question: str, answer: str) -> None:
    """What an instrumentation with the GenAI conventions writes on a span."""
    span.set_attributes({
        "gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.system_instructions": json.dumps([{"type": "text", "content": system}]),
        "gen_ai.input.messages": json.dumps([turn("user", question)]),
        "gen_ai.output.messages": json.dumps([turn("assistant", answer)]),
    })  # fmt: skip


def openinference(span: Any, system: str, question: str, answer: str) -> None:
    """The same with the names of OpenInference."""
    span.set_attributes({
        "openinference.span.kind": "LLM", "llm.model_name": "gpt-4o-mini",
        "llm.input_messages.0.message.role": "system",
        "llm.input_messages.0.message.content": system,
        "llm.input_messages.1.message.role": "user",
        "llm.input_messages.1.message.content": question,
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": answer,
    })  # fmt: skip


def agent(write: Any) -> list[Any]:
    """An agent that plans, looks something up, and answers."""
    recorder = Recorder()
    with recorder.tracer.start_as_current_span("support") as root:
        root.set_attributes({"input.value": "Where is my parcel?", "output.value": "In Bern."})
        with recorder.tracer.start_as_current_span("plan") as span:
            write(span, "Choose a tool.", "Where is my parcel?", "look up 17")
        with recorder.tracer.start_as_current_span("execute_tool look up") as span:
            span.set_attributes({
                "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "look_up",
                "gen_ai.tool.description": "Find a parcel by its number.",
                "gen_ai.tool.call.arguments": '{"number": 17}', "gen_ai.tool.call.result": "Bern",
            })  # fmt: skip
        with recorder.tracer.start_as_current_span("answer") as span:
            write(span, SYSTEM, "Where is my parcel? It is in Bern.", "In Bern.")
    return recorder.spans()


@pytest.mark.parametrize("write", [genai, openinference])
def test_an_agent_becomes_a_graph(write: Any) -> None:
    trace = import_spans(agent(write), prompts=["answer"])
    (output,) = trace.outputs
    assert output.data == "In Bern."
    (plan,), (tool,), (answer,) = map(trace.named, ("plan", "execute_tool look up", "answer"))
    assert plan.inputs["given"].data == "Where is my parcel?"
    assert plan.inputs["given"] is output.inputs["given"]
    assert not plan.inputs["prompt"].trainable
    assert tool.data == "Bern"
    assert tool.inputs["given"].data == {"number": 17}
    assert tool.inputs["plan"] is plan
    assert answer.inputs["execute_tool_look_up"] is tool
    assert {"plan", "execute_tool_look_up", "answer"} <= output.inputs.keys()
    assert trace.parameters == {"answer_prompt": answer.inputs["prompt"].parameter}
    assert trace.parameters["answer_prompt"].data == SYSTEM
    assert tool.operation is not None
    assert tool.operation.doc == "Find a parcel by its number."


@pytest.mark.parametrize("write", [genai, openinference])
def test_feedback_on_the_answer_improves_the_prompts(write: Any) -> None:
    trace = import_spans(agent(write), prompts=True)
    asked: list[str] = []

    def model(prompt: str) -> str:
        asked.append(prompt)
        return '{"suggestion": {"answer_prompt": "Answer the customer, and say when it arrives."}}'

    optimizer = OptoPrime(trace.parameters, llm=model)
    optimizer.backward(trace.outputs[0], "It does not say when the parcel arrives.")
    update = optimizer.step()
    assert update.rejections == ()
    assert [change.name for change in update.changes] == ["answer_prompt"]
    assert trace.parameters["answer_prompt"].data.endswith("say when it arrives.")
    (problem,) = asked
    for said in (SYSTEM, "Choose a tool.", "Find a parcel by its number.", "look up 17",
                 "answer(prompt=answer_prompt", "does not say when"):  # fmt: skip
        assert said in problem


def test_one_prompt_in_several_spans_is_one_parameter() -> None:
    recorder = Recorder()
    for question in ("a", "b"):
        with recorder.tracer.start_as_current_span("ask") as span:
            genai(span, SYSTEM, question, question.upper())
    trace = import_spans(recorder.spans(), prompts=True)
    assert [node.data for node in trace.outputs] == ["A", "B"]
    (prompt,) = trace.parameters.values()
    assert all(node.inputs["prompt"].parameter is prompt for node in trace.outputs)
    assert trace.outputs[1].inputs["ask"] is trace.outputs[0]


def test_spans_that_ran_beside_each_other_did_not_use_each_other() -> None:
    recorder = Recorder()
    start = recorder.tracer.start_span
    first = start("first", start_time=10)
    second = start("second", start_time=15)
    first.end(20)
    second.end(30)
    start("third", start_time=40).end(50)
    start("fourth", start_time=60).end(70)
    trace = import_spans(recorder.spans())
    inputs = {span.name: [*trace.nodes[i].inputs] for i, span in trace.spans.items()}
    assert inputs == {"first": [], "second": [], "third": ["first", "second"], "fourth": ["third"]}


def test_links_say_what_was_used_and_time_does_not() -> None:
    from opentelemetry.trace import Link

    recorder = Recorder()
    one = recorder.tracer.start_span("one", start_time=10)
    one.end(11)
    two = recorder.tracer.start_span("two", start_time=20)
    two.end(21)
    link = Link(one.get_span_context(), {"tracegraph.argument": "question"})
    recorder.tracer.start_span("three", links=[link], start_time=30).end(31)
    trace = import_spans(recorder.spans())
    (three,), (first,) = trace.named("three"), trace.named("one")
    assert dict(three.inputs) == {"question": first}


def test_what_came_before_a_span_came_before_those_inside_it() -> None:
    recorder = Recorder()
    with recorder.tracer.start_as_current_span("retrieve") as span:
        span.set_attribute("retrieval.documents.0.document.content", "a fact")
    with (
        recorder.tracer.start_as_current_span("chain"),
        recorder.tracer.start_as_current_span("ask") as span,
    ):
        genai(span, SYSTEM, "q", "a")
    trace = import_spans(recorder.spans())
    (ask,), (chain,) = trace.named("ask"), trace.named("chain")
    assert ask.inputs["retrieve"].data == ["a fact"]
    assert chain.data == "a"  # it does not say what it gave


def test_a_span_that_failed_is_a_failed_node() -> None:
    recorder = Recorder()
    with (
        pytest.raises(ZeroDivisionError),
        recorder.tracer.start_as_current_span("divide"),
    ):
        raise ZeroDivisionError("by zero")
    (node,) = import_spans(recorder.spans()).outputs
    assert node.failure is not None
    assert (node.failure.type, node.failure.message) == ("ZeroDivisionError", "by zero")


def test_a_file_of_otlp_gives_the_same_as_the_spans_themselves(tmp_path: Path) -> None:
    spans = agent(genai)
    encoder = pytest.importorskip(
        "opentelemetry.exporter.otlp.proto.common.trace_encoder", reason="needs tracegraph[otel]"
    )
    from google.protobuf import json_format

    whole = json_format.MessageToDict(encoder.encode_spans(spans))
    for group in whole["resourceSpans"][0]["scopeSpans"]:
        for span in group["spans"]:
            for name in ("traceId", "spanId", "parentSpanId"):
                if name in span:
                    span[name] = _hexadecimal(span[name])
    one, many = tmp_path / "one.json", tmp_path / "many.jsonl"
    one.write_text(json.dumps(whole, indent=1), encoding="utf-8")
    lines = [
        {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
        for span in whole["resourceSpans"][0]["scopeSpans"][0]["spans"]
    ]
    many.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    want = read_spans(spans)
    assert read_spans(one) == want
    assert read_spans(many) == want
    assert read_spans(str(many)) == want


def _hexadecimal(text: str) -> str:
    import base64

    return base64.b64decode(text).hex()


def test_what_was_exported_comes_back_as_it_was(tmp_path: Path) -> None:
    prompt = tg.node("Say hello.", trainable=True, name="prompt")
    with tg.run("there and back", store=tmp_path) as run:
        run.step((prompt.upper() + "!") * 2, score=0.5)
    kept = tg.History(tmp_path).run()
    trace = import_spans(json.loads(otlp_text(kept)))
    by_number = {
        int(span.attributes["graph.node.id"]): trace.nodes[span.id]
        for span in trace.spans.values()
        if "graph.node.id" in span.attributes
    }
    for node in kept.graph(1).nodes:
        imported = by_number[node.number]
        assert imported.data == node.value
        sources = [(argument, by_number[source]) for source, argument, _ in node.inputs]
        inputs = [item for item in imported.inputs.items() if item[0] != "given"]
        assert inputs == sources


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 25))
def test_any_spans_become_a_graph_without_a_circle(seed: int, size: int) -> None:
    chance = random.Random(seed)
    spans = []
    for number in range(size):
        began = chance.randrange(20)
        inside = (
            {"parentSpanId": f"{chance.randrange(number):x}"}
            if number and chance.random() < 0.6
            else {}
        )
        spans.append({
            "traceId": "t", "spanId": f"{number:x}", "name": f"s{chance.randrange(4)}", **inside,
            "startTimeUnixNano": str(began), "endTimeUnixNano": str(began + chance.randrange(4)),
            "links": [{"spanId": f"{chance.randrange(size + 2):x}"} for _ in range(chance.randrange(3))],
        })  # fmt: skip
    trace = import_spans({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})
    assert len(trace.nodes) == size
    known = {node.id for node in trace.nodes.values()}
    for identity, node in trace.nodes.items():
        assert all(source.id < node.id for source in node.inputs.values())
        inside = {i for i, s in trace.spans.items() if s.parent == identity}
        assert {trace.nodes[i].id for i in inside} <= {n.id for n in node.inputs.values()}
    reached = {n.id for n in tg.Graph.of(list(trace.outputs)).nodes}
    assert known <= reached


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"resourceSpans": []}, "no spans"),
        ({"spans": []}, "no OTLP JSON"),
        (17, "spans come from"),
        ([object()], "no span of OpenTelemetry"),
        ("nowhere.json", "cannot be read"),
        ({"resourceSpans": [{"scopeSpans": [{"spans": [{"spanId": "a"}, {"spanId": "a"}]}]}]}, "two spans"),
        ({"resourceSpans": [{"scopeSpans": [{"spans": [
            {"spanId": "a", "parentSpanId": "b"}, {"spanId": "b", "parentSpanId": "a"}]}]}]}, "each other"),
        ({"resourceSpans": [{"scopeSpans": [{"spans": [{"spanId": "a", "attributes": [1]}]}]}]}, "damaged"),
    ],
)  # fmt: skip
def test_what_is_no_trace_is_refused(source: Any, said: str) -> None:
    with pytest.raises(HistoryError, match=said):
        import_spans(source)


def test_a_name_that_is_not_there_is_refused(tmp_path: Path) -> None:
    spans = agent(genai)
    with pytest.raises(HistoryError, match=r"'answr'.*'answer', 'plan'"):
        import_spans(spans, prompts=["answr"])
    with pytest.raises(HistoryError, match="did you mean answer"):
        import_spans(spans).named("answr")
    (tmp_path / "torn.jsonl").write_text('{"resourceSpans": []}\n{"resour', encoding="utf-8")
    with pytest.raises(HistoryError, match="line 2"):
        import_spans(tmp_path / "torn.jsonl")
