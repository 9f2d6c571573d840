"""OTLP, the form in which OpenTelemetry's tools exchange spans: written as a file, or sent.

The file is one line of OTLP JSON, as the collector's file receiver reads it; no package is needed.
Sending needs the exporter of OpenTelemetry.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tracegraph.errors import HistoryError, MissingExtra
from tracegraph.history.reading import KeptRun
from tracegraph.history.spans import KeptSpan, export_spans, nanoseconds, spans_of

__all__ = ["otlp_text", "send_spans"]


def otlp_text(run: KeptRun, *, graphs: bool = True) -> str:
    """The run as one line of OTLP JSON (``ExportTraceServiceRequest``).

    Ids come from what the run is, so the same run gives the same text.
    """
    trace = _id(f"{run.name}/{run.created}", 16)
    spans = [_span(trace, span) for span in spans_of(run, graphs=graphs)]
    scope = {"scope": {"name": "tracegraph"}, "spans": spans}
    resource = {"attributes": _attributes({"service.name": "tracegraph"})}
    whole = {"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]}
    return json.dumps(whole, separators=(",", ":")) + "\n"


def send_spans(run: KeptRun, endpoint: str | None = None, *, graphs: bool = True) -> int:
    """Send the run's spans by OTLP over HTTP; gives their number.

    Args:
        run: a run of a `History`.
        endpoint: an address such as ``http://localhost:6006/v1/traces``; by default what the
            variable ``OTEL_EXPORTER_OTLP_ENDPOINT`` says.
        graphs: whether each node is a span.

    Raises:
        MissingExtra: OpenTelemetry's exporter is not installed.
        HistoryError: the other side did not take them.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    except ImportError as error:
        raise MissingExtra(
            "sending spans needs an extra: pip install 'tracegraph[otel]'"
        ) from error
    kept = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource.create({"service.name": "tracegraph"}))
    provider.add_span_processor(SimpleSpanProcessor(kept))
    sent = OTLPSpanExporter(endpoint=endpoint)
    try:
        count = export_spans(run, provider, graphs=graphs)
        if sent.export(kept.get_finished_spans()) is not SpanExportResult.SUCCESS:
            raise HistoryError(
                f"{endpoint or 'the endpoint that OpenTelemetry is set to'} did not take the "
                f"{count} spans of run {run.id}: is a collector listening there?"
            )
    finally:
        sent.shutdown()
        provider.shutdown()
    return count


def _span(trace: str, span: KeptSpan) -> dict[str, Any]:
    made: dict[str, Any] = {
        "traceId": trace, "spanId": _span_id(trace, span.number), "name": span.name, "kind": 1,
        "startTimeUnixNano": str(nanoseconds(span.began)),
        "endTimeUnixNano": str(nanoseconds(span.ended)),
        "attributes": _attributes(span.attributes),
        "links": [
            {"traceId": trace, "spanId": _span_id(trace, source),
             "attributes": _attributes({"tracegraph.argument": argument})}
            for source, argument in span.links
        ],
        "events": [
            {"name": name, "timeUnixNano": str(nanoseconds(span.ended)),
             "attributes": _attributes(facts)}
            for name, facts in span.events
        ],
        "status": {} if span.error is None else {"code": 2, "message": span.error},
    }  # fmt: skip
    if span.parent is not None:
        made["parentSpanId"] = _span_id(trace, span.parent)
    return made


def _attributes(facts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _value(value)} for name, value in facts.items()]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}  # 64 bits are texts in the JSON of protocol buffers
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": str(value)}


def _span_id(trace: str, number: int) -> str:
    return _id(f"{trace}/{number}", 8)


def _id(text: str, size: int) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[: 2 * size]
