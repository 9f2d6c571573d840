"""A kept run in the tools where people look at runs, read back by those tools themselves."""

from __future__ import annotations

import http.server
import json
import threading
from pathlib import Path
from typing import Any

import pytest

import tracegraph as tg
from optimizers import OptoPrime
from tracegraph.errors import HistoryError
from tracegraph.history.otlp import otlp_text, send_spans
from tracegraph.history.spans import spans_of
from tracegraph.history.to_tensorboard import export_tensorboard
from tracegraph.llm import Reply, Scripted, Usage

SECRET = "correct-horse-battery-staple-4711"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two steps, the second of which failed; a secret was planted in what the model said."""
    monkeypatch.setenv("CORP_API_KEY", SECRET)
    prompt = tg.node("Say hello.", trainable=True, name="prompt")
    said = json.dumps({"reasoning": SECRET, "suggestion": {"prompt": "Say hi."}})
    reply = Reply(said, usage=Usage(100, 20), cost=0.25, model="openai/gpt-4o-mini")
    optimizer = OptoPrime([prompt], llm=Scripted([reply]))
    with tg.run("exported", store=tmp_path, config={"rate": 0.5, "deep": {"a": "b"}}, seed=3):
        answer = prompt.upper() + "!"
        optimizer.backward(answer, (0.25, "too long"))
        optimizer.step()
        optimizer.backward(prompt.upper(), "again")
        with pytest.raises(tg.TracegraphError):
            optimizer.step()
    return tg.History(tmp_path).run("exported")


def test_tensorboard_reads_the_numbers_and_the_prompts(kept: Any, tmp_path: Path) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard"
    )
    count = export_tensorboard(kept, tmp_path / "board")
    read = reader.EventAccumulator(str(tmp_path / "board"))
    read.Reload()
    scalars = {
        tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]
    }
    assert sum(map(len, scalars.values())) == count
    assert scalars["score"] == [(1, 0.25)]
    assert scalars["cost"] == scalars["total/cost"] == [(1, 0.25)]
    assert scalars["tokens_in"] == [(1, 100.0)]
    (tag,) = read.Tags()["tensors"]
    assert tag == "parameters/prompt"
    texts = [(e.step, e.tensor_proto.string_val[0].decode().strip()) for e in read.Tensors(tag)]
    assert texts == [(0, "Say hello."), (1, "Say hi.")]
    assert SECRET.encode() not in b"".join(p.read_bytes() for p in (tmp_path / "board").iterdir())


@pytest.mark.campaign  # its database takes ten seconds to make
@pytest.mark.filterwarnings("default")  # MLflow's own
def test_mlflow_reads_run_metrics_parameters_and_traces(kept: Any, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow: pip install 'tracegraph[mlflow]'")
    from tracegraph.history.to_mlflow import export_mlflow

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    before = mlflow.get_tracking_uri()
    client = mlflow.MlflowClient(tracking_uri=uri)
    client.create_experiment("tracegraph", artifact_location=(tmp_path / "files").as_uri())
    own = export_mlflow(kept, uri)
    assert mlflow.get_tracking_uri() == before
    run = client.get_run(own)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "exported"
    assert run.info.start_time == int(kept.created * 1_000)
    assert run.data.params["rate"] == "0.5"
    assert run.data.params["deep.a"] == "b"
    assert run.data.params["seeds.seed"] == "3"
    (score,) = client.get_metric_history(own, "score")
    assert (score.step, score.value) == (1, 0.25)
    mlflow.set_tracking_uri(uri)
    try:
        traces = client.search_traces(locations=[run.info.experiment_id], run_id=own)
    finally:
        mlflow.set_tracking_uri(before)
    by_name = {trace.data.spans[0].name: trace for trace in traces}
    assert sorted(by_name) == ["step 1 OptoPrime", "step 2 OptoPrime"]
    assert by_name["step 2 OptoPrime"].info.state.value == "ERROR"
    spans = {span.name: span for span in by_name["step 1 OptoPrime"].data.spans}
    assert spans["ask"].span_type == "LLM"
    linked = {link.span_id for link in spans["add"].links}
    assert spans["upper"].span_id in linked
    files = b"".join(p.read_bytes() for p in (tmp_path / "files").rglob("*") if p.is_file())
    assert b"Say hi." in files
    assert SECRET.encode() not in files + (tmp_path / "mlflow.db").read_bytes()


def test_a_collector_is_sent_the_spans(kept: Any) -> None:
    trace_pb = pytest.importorskip(
        "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="needs tracegraph[otel]"
    )
    received: list[bytes] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        count = send_spans(kept, f"http://127.0.0.1:{server.server_port}/v1/traces")
        server.shutdown()
        thread.join()
    request = trace_pb.ExportTraceServiceRequest.FromString(b"".join(received))
    spans = [s for r in request.resource_spans for c in r.scope_spans for s in c.spans]
    assert len(spans) == count
    assert {s.name for s in spans} >= {"exported", "step 1 OptoPrime", "ask", "upper"}


def test_a_collector_that_is_not_there_is_said(kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs tracegraph[otel]")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "1")
    with pytest.raises(HistoryError, match="is a collector listening"):
        send_spans(kept, "http://127.0.0.1:9/v1/traces")


def test_the_file_of_otlp_is_what_its_schema_says(kept: Any) -> None:
    trace_pb = pytest.importorskip(
        "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="needs tracegraph[otel]"
    )
    from google.protobuf import json_format

    whole = json.loads(otlp_text(kept))
    wanted = list(spans_of(kept))
    written = whole["resourceSpans"][0]["scopeSpans"][0]["spans"]
    for span in written:  # OTLP writes ids as hexadecimal, protobuf's JSON as base64
        for holder in (span, *span["links"]):
            for name in ("traceId", "spanId", "parentSpanId"):
                if name in holder:
                    holder[name] = _base64(holder[name])
    read = json_format.ParseDict(whole, trace_pb.ExportTraceServiceRequest())
    spans = list(read.resource_spans[0].scope_spans[0].spans)
    assert [s.name for s in spans] == [s.name for s in wanted]
    ids = [s.span_id for s in spans]
    assert len(set(ids)) == len(ids)
    for span, want in zip(spans, wanted, strict=True):
        assert [ids.index(link.span_id) for link in span.links] == [n for n, _ in want.links]
        assert span.parent_span_id == (b"" if want.parent is None else ids[want.parent])
        assert len(span.attributes) == len(want.attributes)
        assert span.status.message == (want.error or "")
    assert SECRET not in otlp_text(kept)
    assert otlp_text(kept) == otlp_text(kept)


def _base64(hexadecimal: str) -> str:
    import base64

    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()


def test_the_names_are_those_of_the_published_conventions(kept: Any) -> None:
    trace = pytest.importorskip("openinference.semconv.trace", reason="needs openinference")
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

    published = {v for v in vars(gen_ai_attributes).values() if isinstance(v, str)}
    for group in (trace.SpanAttributes, trace.MessageAttributes):
        published |= {v for v in vars(group).values() if isinstance(v, str)}
    kinds = {kind.value for kind in trace.OpenInferenceSpanKindValues}
    seen: set[str] = set()
    for span in spans_of(kept):
        assert span.attributes["openinference.span.kind"] in kinds
        for name in [*span.attributes, *(n for _, facts in span.events for n in facts)]:
            seen.add(name)
            head, _, rest = name.partition(".0." if ".0." in name else ".1.")
            parts = (head, rest) if rest else (name,)
            assert name.startswith("tracegraph.") or published.issuperset(parts), name
    assert {"gen_ai.usage.input_tokens", "llm.cost.total", "gen_ai.provider.name"} <= seen
