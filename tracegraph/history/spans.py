"""A kept run as OpenTelemetry spans, so that tools which read them show its steps and graphs.

A run is a span, each step a span in it, each node and each question to a model a span in its step.
A graph is no tree, so what a node used are span links. Attributes have the names of OpenInference
(``openinference.span.kind``, ``input.value``, ``llm.token_count.prompt``), and a score is an event
``gen_ai.evaluation.result``. Steps keep their times; a node has those of its step, for its own were
not kept.
"""

from __future__ import annotations

import json
from typing import Any

from tracegraph.errors import MissingExtra
from tracegraph.history.reading import KeptRun, KeptStep

__all__ = ["export_spans"]

_KIND = "openinference.span.kind"


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
    return _Export(run, trace, tracer, graphs).run_spans()


class _Export:
    def __init__(self, run: KeptRun, trace: Any, tracer: Any, graphs: bool) -> None:
        self.run, self.trace, self.tracer, self.graphs = run, trace, tracer, graphs
        self.count = 0

    def run_spans(self) -> int:
        about = self.run.about
        steps = self.run.steps
        last = max((s.started + (s.seconds or 0) for s in steps), default=self.run.created)
        span = self.span(self.run.name, None, self.run.created, _kind("CHAIN", {
            "tracegraph.run": self.run.id, "tracegraph.status": self.run.status,
            "tracegraph.commit": about.get("commit") or "",
            "metadata": json.dumps(about.get("config", {})),
        }))  # fmt: skip
        for step in steps:
            self.step_spans(span, step)
        if self.run.error:
            span.set_status(self.trace.StatusCode.ERROR, self.run.error)
        span.end(_nanoseconds(self.run.ended or last))
        return self.count

    def step_spans(self, parent: Any, step: KeptStep) -> None:
        details = self.run.details(step.number)
        end = step.started + (step.seconds or 0)
        name = f"step {step.number}" + (f" {step.optimizer}" if step.optimizer else "")
        span = self.span(name, parent, step.started, _kind("CHAIN", {
            "input.value": "\n".join(f["text"] for f in details.get("feedback", [])),
            "output.value": step.note, "tracegraph.changes": step.changes,
            "tracegraph.rejections": step.rejections,
            "llm.token_count.prompt": step.tokens_in, "llm.token_count.completion": step.tokens_out,
            "llm.cost.total": step.cost,
        }))  # fmt: skip
        if step.score is not None:
            span.add_event(
                "gen_ai.evaluation.result",
                {"gen_ai.evaluation.name": "score", "gen_ai.evaluation.score.value": step.score},
                _nanoseconds(end),
            )
        for exchange in details.get("exchanges", []):
            self.exchange_span(span, step, exchange)
        if self.graphs and step.nodes:
            self.node_spans(span, step)
        if "error" in details:
            span.set_status(self.trace.StatusCode.ERROR, details["error"])
        span.end(_nanoseconds(end))

    def exchange_span(self, parent: Any, step: KeptStep, exchange: dict[str, Any]) -> None:
        facts = {"llm.model_name": exchange.get("model") or "", "output.value": exchange["reply"],
                 "llm.output_messages.0.message.role": "assistant",
                 "llm.output_messages.0.message.content": exchange["reply"]}  # fmt: skip
        for number, (role, text) in enumerate(exchange["prompt"]):
            facts[f"llm.input_messages.{number}.message.role"] = role
            facts[f"llm.input_messages.{number}.message.content"] = text
        span = self.span("ask", parent, step.started, _kind("LLM", facts))
        span.end(_nanoseconds(step.started + (step.seconds or 0)))

    def node_spans(self, parent: Any, step: KeptStep) -> None:
        made: dict[int, Any] = {}
        end = _nanoseconds(step.started + (step.seconds or 0))
        for node in self.run.graph(step.number).nodes:
            links = [
                self.trace.Link(made[source].get_span_context(), {"tracegraph.argument": name})
                for source, name, _ in node.inputs
            ]
            kind = "PROMPT" if node.kind == "text" else "CHAIN"
            facts = {
                "graph.node.id": str(node.number), "graph.node.name": node.label,
                "output.value": node.value, "tracegraph.operation": node.op,
                "tracegraph.kind": node.kind, "tracegraph.version": node.version,
                "graph.node.parent_id": str(node.inputs[0][0]) if node.inputs else None,
            }  # fmt: skip
            span = self.span(node.label, parent, step.started, _kind(kind, facts), links)
            if node.failure:
                span.set_status(self.trace.StatusCode.ERROR, node.failure)
            span.end(end)
            made[node.number] = span

    def span(
        self, name: str, parent: Any, began: float, facts: dict[str, Any], links: Any = ()
    ) -> Any:
        self.count += 1
        context = None if parent is None else self.trace.set_span_in_context(parent)
        return self.tracer.start_span(
            name, context=context, attributes=facts, links=links, start_time=_nanoseconds(began)
        )


def _kind(kind: str, facts: dict[str, Any]) -> dict[str, Any]:
    return {_KIND: kind, **{name: value for name, value in facts.items() if value is not None}}


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
