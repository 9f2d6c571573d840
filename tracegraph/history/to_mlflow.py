"""Hand a kept run to MLflow: a run with parameters, metrics and files, and a trace for each step.

MLflow is imported here and nowhere else, when something is exported.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from tracegraph.errors import HistoryError, MissingExtra
from tracegraph.history.export import STEP_NUMBERS, json_lines
from tracegraph.history.reading import KeptRun
from tracegraph.history.spans import KeptSpan, nanoseconds, spans_of

__all__ = ["export_mlflow"]

_STATUS = {"done": "FINISHED", "running": "RUNNING"}
_LONGEST = 6_000  # characters of a parameter's value, as MLflow has it
_BATCH = 100  # parameters in one call, as MLflow has it; of metrics it takes more


def export_mlflow(
    run: KeptRun,
    uri: str | None = None,
    *,
    experiment: str = "tracegraph",
    traces: bool = True,
) -> str:
    """Write the run to MLflow; gives the id of the run there.

    Settings and seeds become its parameters, the numbers of each step its metrics, the steps with
    their graphs its traces, and the whole run a file ``run.jsonl``.

    Args:
        run: a run of a `History`.
        uri: where MLflow keeps runs: a server, or a file as in ``sqlite:///mlflow.db``; by default
            what MLflow is set to.
        experiment: made if there is none of that name.
        traces: whether each step is a trace.

    Raises:
        MissingExtra: mlflow is not installed.
        HistoryError: MLflow refused; says why.
    """
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise MissingExtra("MLflow needs an extra: pip install 'tracegraph[mlflow]'") from error
    before = mlflow.get_tracking_uri()
    if uri is not None:
        mlflow.set_tracking_uri(uri)  # traces go where this says, and nowhere else
    try:
        return _exported(mlflow, run, experiment, traces)
    except MlflowException as error:
        raise HistoryError(
            f"MLflow at {mlflow.get_tracking_uri()} refused run {run.id}: {error}"
        ) from error
    finally:
        mlflow.set_tracking_uri(before)


def _exported(mlflow: Any, run: KeptRun, experiment: str, traces: bool) -> str:
    client = mlflow.MlflowClient()
    known = client.get_experiment_by_name(experiment)
    place = client.create_experiment(experiment) if known is None else known.experiment_id
    about = run.about
    began = _milliseconds(run.created)
    tags = {"tracegraph.run": str(run.id), "tracegraph.status": run.status}
    if about.get("commit"):
        tags["mlflow.source.git.commit"] = about["commit"]
    own: str = client.create_run(place, began, tags, run.name).info.run_id
    params = [
        mlflow.entities.Param(_key(name), str(value)[:_LONGEST]) for name, value in _settings(about)
    ]
    for start in range(0, len(params), _BATCH):
        client.log_batch(own, params=params[start : start + _BATCH])
    steps = run.steps
    metrics = [
        mlflow.entities.Metric(name, float(value), _milliseconds(step.started), step.number)
        for step in steps
        for name in STEP_NUMBERS
        if (value := getattr(step, name)) is not None
    ]
    for start in range(0, len(metrics), _BATCH):
        client.log_batch(own, metrics=metrics[start : start + _BATCH])
    client.log_text(own, "\n".join(json_lines(run)) + "\n", "run.jsonl")
    if traces:
        made = list(_traces(mlflow, run, place))
        mlflow.flush_trace_async_logging()
        for start in range(0, len(made), _BATCH):
            client.link_traces_to_run(made[start : start + _BATCH], own)
    if run.status != "running":
        last = max((s.started + (s.seconds or 0) for s in steps), default=run.created)
        ended = _milliseconds(run.ended or last)
        client.set_terminated(own, _STATUS.get(run.status, "FAILED"), ended)
    return own


def _traces(mlflow: Any, run: KeptRun, experiment: str) -> Iterator[str]:
    """A trace for each step, with its nodes and questions inside; gives their ids."""
    own = [span for span in spans_of(run) if span.parent is not None]
    root = 0  # the run is a run there, and no span
    for _, spans in groupby(own, lambda s: s.number if s.parent == root else s.parent):
        made: dict[int, Any] = {}
        kept = list(spans)
        for span in kept:
            above = None if span.parent is None else made.get(span.parent)
            live = mlflow.start_span_no_context(
                span.name, span_type=span.kind, parent_span=above, inputs=_input(span),
                attributes=span.attributes, experiment_id=None if above else experiment,
                start_time_ns=nanoseconds(span.began),
                links=[_link(mlflow, made[source], argument) for source, argument in span.links],
            )  # fmt: skip
            live.set_outputs(span.attributes.get("output.value"))
            for name, facts in span.events:
                live.add_event(mlflow.entities.SpanEvent(name, nanoseconds(span.ended), facts))
            made[span.number] = live
        for span in reversed(kept):
            made[span.number].end(
                status=_status(mlflow, span.error), end_time_ns=nanoseconds(span.ended)
            )
        yield made[kept[0].number].trace_id


def _link(mlflow: Any, source: Any, argument: str) -> Any:
    return mlflow.entities.Link(
        trace_id=source.trace_id, span_id=source.span_id,
        attributes={"tracegraph.argument": argument},
    )  # fmt: skip


def _status(mlflow: Any, error: str | None) -> Any:
    codes = mlflow.entities.SpanStatusCode
    return mlflow.entities.SpanStatus(codes.OK if error is None else codes.ERROR, error or "")


def _input(span: KeptSpan) -> Any:
    given = span.attributes.get("input.value")
    messages = span.attributes.get("gen_ai.input.messages")
    return json.loads(messages) if messages else given


def _settings(about: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in about.get("config", {}).items():
        yield from _flat(name, value)
    for group in ("seeds", "versions"):
        for name, value in (about.get(group) or {}).items():
            yield f"{group}.{name}", value


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for inner, item in value.items():
            yield from _flat(f"{name}.{inner}", item)
    else:
        yield name, value


def _key(name: str) -> str:
    """A name as MLflow takes it."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250] or "_"


def _milliseconds(seconds: float) -> int:
    return math.floor(seconds * 1_000)
