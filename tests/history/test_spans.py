"""A kept run as OpenTelemetry spans, read back from the real package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tracegraph as tg
from optimizers import OptoPrime
from tracegraph.llm import Scripted


def spans(run: Any, **options: Any) -> list[Any]:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from tracegraph.history.spans import export_spans

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    count = export_spans(run, provider, **options)
    found = list(exporter.get_finished_spans())
    provider.shutdown()
    assert count == len(found)
    return found


@pytest.fixture
def kept(tmp_path: Path) -> Any:
    prompt = tg.node("Say hello.", trainable=True, name="prompt")
    optimizer = OptoPrime([prompt], llm=Scripted(['{"suggestion": {"prompt": "Say hi."}}']))
    with tg.run("spans", store=tmp_path, config={"rate": 1}):
        answer = prompt.upper() + "!"
        optimizer.backward(answer, (0.25, "too long"))
        optimizer.step()
        optimizer.backward(prompt.upper(), "again")
        with pytest.raises(tg.TracegraphError):
            optimizer.step()
    return tg.History(tmp_path).run("spans")


def test_steps_lie_in_the_run_and_nodes_in_their_step(kept: Any) -> None:
    found = spans(kept)
    by_id = {s.context.span_id: s for s in found}
    (root,) = [s for s in found if s.parent is None]
    assert root.name == "spans"
    assert {s.context.trace_id for s in found} == {root.context.trace_id}
    steps = [s for s in found if s.parent and s.parent.span_id == root.context.span_id]
    assert [s.name for s in steps] == ["step 1 OptoPrime", "step 2 OptoPrime"]
    upper = next(s for s in found if s.name == "upper")
    assert by_id[upper.parent.span_id] is steps[0]
    for step, was in zip(steps, kept.steps, strict=True):
        assert step.start_time == pytest.approx(was.started * 1e9, abs=1e3)
        assert (step.end_time - step.start_time) / 1e9 == pytest.approx(was.seconds, abs=1e-5)


def test_what_a_node_used_are_links(kept: Any) -> None:
    found = spans(kept)
    nodes = {
        s.attributes["graph.node.id"]: s for s in reversed(found) if "graph.node.id" in s.attributes
    }
    graph = kept.graph(1)
    first = [s for s in found if "graph.node.id" in s.attributes][: len(graph)]
    names = {s.context.span_id: s.attributes["graph.node.id"] for s in first}
    for span, node in zip(first, graph.nodes, strict=True):
        assert [names[link.context.span_id] for link in span.links] == [
            str(source) for source, _, _ in node.inputs
        ]
        assert span.attributes["output.value"] == node.value
    assert nodes["0"].attributes["openinference.span.kind"] == "PROMPT"


def test_questions_scores_and_errors_are_there(kept: Any) -> None:
    found = {s.name: s for s in reversed(spans(kept))}
    ask = found["ask"]
    assert ask.attributes["openinference.span.kind"] == "LLM"
    assert "Say hi." in ask.attributes["llm.output_messages.0.message.content"]
    assert any("too long" in str(v) for k, v in ask.attributes.items() if "input_messages" in k)
    (event,) = found["step 1 OptoPrime"].events
    assert (event.name, event.attributes["gen_ai.evaluation.score.value"]) == (
        "gen_ai.evaluation.result", 0.25,
    )  # fmt: skip
    assert not found["step 2 OptoPrime"].status.is_ok


def test_without_graphs_there_are_no_nodes(kept: Any) -> None:
    assert {s.name.split()[0] for s in spans(kept, graphs=False)} == {"spans", "step", "ask"}
