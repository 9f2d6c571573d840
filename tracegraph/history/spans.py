"""A kept run as the spans of OpenTelemetry, as plain data; and those handed to OpenTelemetry.

A run is a span, each step a span in it, each node and each question to a model a span in its step.
A graph is no tree, so what a node used are span links. Attributes have the names of OpenInference
(``openinference.span.kind``, ``input.value``, ``llm.token_count.prompt``) and, for questions and
scores, of the GenAI conventions (``gen_ai.usage.input_tokens``, ``gen_ai.evaluation.result``); what
neither has a name for begins with ``tracegraph.``.

Steps and the calls of bundles have their own times. What is no call, an input or the work of an
operator, stands where the last of what it used ended; a question of an optimizer has the times of
its step. A step's span begins with the first call of its graph that the step before it did not see.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tracegraph.errors import MissingExtra
from tracegraph.history.kept_graph import KeptNode
from tracegraph.history.reading import KeptRun, KeptStep

__all__ = ["KeptSpan", "export_spans", "nanoseconds", "spans_of"]


@dataclass(frozen=True, slots=True)
class KeptSpan:
    """A span: its number, that of its parent, and those that it used by argument; times in seconds."""

    number: int
    parent: int | None
    name: str
    kind: str
    began: float
    ended: float
    attributes: dict[str, Any] = field(default_factory=dict)
    links: tuple[tuple[int, str], ...] = ()
    events: tuple[tuple[str, dict[str, Any]], ...] = ()
    error: str | None = None


def spans_of(run: KeptRun, *, graphs: bool = True) -> Iterator[KeptSpan]:
    """The spans of a run, each one behind its parent and behind those that it used.

    Args:
        run: a run of a `History`.
        graphs: whether each node is a span.
    """
    numbers = count()
    about, steps = run.about, run.steps
    last = max((s.started + (s.seconds or 0) for s in steps), default=run.created)
    root = _span(next(numbers), None, run.name, "CHAIN", run.created, run.ended or last, {
        "tracegraph.run": run.id, "tracegraph.status": run.status,
        "tracegraph.commit": about.get("commit"), "metadata": json.dumps(about.get("config", {})),
    }, error=run.error)  # fmt: skip
    yield root
    before = run.created
    for step in steps:
        yield from _step_spans(run, step, root.number, numbers, graphs, before)
        before = step.started + (step.seconds or 0)


def _step_spans(
    run: KeptRun, step: KeptStep, root: int, numbers: Iterator[int], graphs: bool, before: float
) -> Iterator[KeptSpan]:
    said = run.details(step.number)
    feedback = "\n".join(f["text"] for f in said.get("feedback", []))
    times = (step.started, step.started + (step.seconds or 0))
    nodes = run.graph(step.number).nodes if graphs and step.nodes else ()
    calls = [n.began for n in nodes if n.began is not None and n.began >= before]
    scored = () if step.score is None else (("gen_ai.evaluation.result", _known({
        "gen_ai.evaluation.name": "score", "gen_ai.evaluation.score.value": step.score,
        "gen_ai.evaluation.explanation": feedback or None,
    })),)  # fmt: skip
    name = f"step {step.number}" + (f" {step.optimizer}" if step.optimizer else "")
    began = min([step.started, *calls])
    own = _span(next(numbers), root, name, "CHAIN", began, times[1], {
        "input.value": feedback, "output.value": step.note, "tracegraph.step": step.number,
        "tracegraph.changes": step.changes, "tracegraph.rejections": step.rejections,
        "tracegraph.cost": step.cost,
    }, events=scored, error=said.get("error"))  # fmt: skip
    yield own
    for exchange in said.get("exchanges", []):
        facts = _exchange_facts(exchange)
        yield _span(next(numbers), own.number, "ask", "LLM", *times, facts)
    made: dict[int, int] = {}
    ends: dict[int, float] = {}
    for node in nodes:
        made[node.number] = next(numbers)
        links = tuple((made[source], argument) for source, argument, _ in node.inputs)
        kind = "PROMPT" if node.kind == "text" else "LLM" if node.tokens_in else "CHAIN"
        at = node.began
        if at is None:
            at = max((ends[source] for source, _, _ in node.inputs), default=began)
        ends[node.number] = at + (node.seconds or 0)
        yield _span(
            made[node.number], own.number, node.label, kind, at, ends[node.number],
            _node_facts(node, nodes), links=links, error=node.failure,
        )  # fmt: skip


def _node_facts(node: KeptNode, nodes: tuple[KeptNode, ...]) -> dict[str, Any]:
    inputs = {argument: nodes[source].value for source, argument, _ in node.inputs}
    return {
        "graph.node.id": str(node.number), "graph.node.name": node.label,
        "graph.node.parent_id": str(node.inputs[0][0]) if node.inputs else None,
        "input.value": json.dumps(inputs) if inputs else None,
        "input.mime_type": "application/json" if inputs else None, "output.value": node.value,
        "tracegraph.operation": node.op, "tracegraph.kind": node.kind,
        "tracegraph.timed": None if node.op is None else node.seconds is not None,
        "tracegraph.version": node.version, "llm.token_count.prompt": node.tokens_in,
        "llm.token_count.completion": node.tokens_out, "llm.cost.total": node.cost,
    }  # fmt: skip


def _exchange_facts(exchange: dict[str, Any]) -> dict[str, Any]:
    model, reply = exchange.get("model") or None, exchange["reply"]
    tokens = exchange.get("usage") or (None, None)
    facts = {
        "llm.model_name": model, "llm.token_count.prompt": tokens[0],
        "llm.token_count.completion": tokens[1], "llm.cost.total": exchange.get("cost"),
        "output.value": reply, "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": reply,
        "gen_ai.operation.name": "chat", "gen_ai.request.model": model,
        "gen_ai.provider.name": model.partition("/")[0] if model and "/" in model else None,
        "gen_ai.usage.input_tokens": tokens[0], "gen_ai.usage.output_tokens": tokens[1],
        "gen_ai.input.messages": json.dumps([_turn(role, text) for role, text in exchange["prompt"]]),
        "gen_ai.output.messages": json.dumps([_turn("assistant", reply)]),
    }  # fmt: skip
    for number, (role, text) in enumerate(exchange["prompt"]):
        facts[f"llm.input_messages.{number}.message.role"] = role
        facts[f"llm.input_messages.{number}.message.content"] = text
    return facts


def _turn(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}


def _span(
    number: int, parent: int | None, name: str, kind: str, began: float, ended: float,
    facts: dict[str, Any], **more: Any,
) -> KeptSpan:  # fmt: skip
    facts = {"openinference.span.kind": kind, **_known(facts)}
    return KeptSpan(number, parent, name, kind, began, ended, facts, **more)


def _known(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}


def export_spans(run: KeptRun, provider: Any = None, *, graphs: bool = True) -> int:
    """Hand the run to OpenTelemetry; gives the number of spans.

    Args:
        run: a run of a `History`.
        provider: a ``TracerProvider`` with the exporter of your choice; by default the global one.
        graphs: whether each node is a span.

    Raises:
        MissingExtra: opentelemetry is not installed.
    """
    try:
        from opentelemetry import trace
    except ImportError as error:
        raise MissingExtra(
            "spans need the package opentelemetry: pip install 'tracegraph[otel]'"
        ) from error
    tracer = (provider or trace.get_tracer_provider()).get_tracer("tracegraph")
    made: list[Any] = []
    open_spans: list[KeptSpan] = []

    def end() -> None:
        last = open_spans.pop()
        made[last.number].end(nanoseconds(last.ended))

    for kept in spans_of(run, graphs=graphs):
        while open_spans and open_spans[-1].number != kept.parent:
            end()
        above = None if kept.parent is None else trace.set_span_in_context(made[kept.parent])
        links = [
            trace.Link(made[source].get_span_context(), {"tracegraph.argument": argument})
            for source, argument in kept.links
        ]
        span = tracer.start_span(
            kept.name, context=above, attributes=kept.attributes, links=links,
            start_time=nanoseconds(kept.began),
        )  # fmt: skip
        for name, facts in kept.events:
            span.add_event(name, facts, nanoseconds(kept.ended))
        if kept.error is not None:
            span.set_status(trace.StatusCode.ERROR, kept.error)
        made.append(span)
        open_spans.append(kept)
    while open_spans:
        end()
    return len(made)


def nanoseconds(seconds: float) -> int:
    """A time as OpenTelemetry counts it."""
    return int(seconds * 1e9)
