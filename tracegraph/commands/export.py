"""``tracegraph export``: a run as lines of JSON or CSV, or handed to a tool that people use."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

import typer

from tracegraph.commands.options import AsJson, RunName, Store, history
from tracegraph.commands.printing import as_json, write, write_file
from tracegraph.commands.waiting import waiting
from tracegraph.history import KeptRun
from tracegraph.view.plain import one_line

__all__ = ["export"]


def export(
    run: RunName,
    form: Annotated[
        str,
        typer.Option("--format", help="jsonl, csv, mlflow, tensorboard, otlp, or otel."),
    ] = "jsonl",
    graphs: Annotated[bool, typer.Option("--graphs", help="With trace graphs (jsonl).")] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="A file; for mlflow its URI, for tensorboard a directory, for otel an endpoint.",
        ),
    ] = None,
    store: Store = None,
    in_json: AsJson = False,
) -> None:
    """Write a run as JSON lines or CSV, or give it to MLflow, TensorBoard or OpenTelemetry.

    otlp writes a file that collectors of OpenTelemetry read; otel sends the spans to one.
    """
    if form not in _TEXTS and form not in _TOOLS:
        known = ", ".join((*_TEXTS, *_TOOLS))
        raise typer.BadParameter(f"{form!r} is no format; use one of {known}")
    kept = history(store).run(run)
    with waiting(f"exporting run {kept.id}"):
        if form in _TEXTS:
            text = _TEXTS[form](kept, graphs)
            if in_json and output is not None:
                write_file(text, output)
                as_json({"run": kept.id, "format": form, "output": output})
                return
            write(text, output)
            return
        done = _TOOLS[form](kept, output)
    if in_json:
        as_json({"run": kept.id, "format": form, **done})
    else:
        typer.echo(", ".join(f"{name} {one_line(str(value))}" for name, value in done.items()))


def _json_lines(run: KeptRun, graphs: bool) -> str:
    from tracegraph.history.export import json_lines

    return "\n".join(json_lines(run, graphs=graphs)) + "\n"


def _csv(run: KeptRun, graphs: bool) -> str:
    from tracegraph.history.export import csv_text

    return csv_text(run)


def _otlp(run: KeptRun, graphs: bool) -> str:
    from tracegraph.history.otlp import otlp_text

    return otlp_text(run)


def _mlflow(run: KeptRun, output: str | None) -> dict[str, Any]:
    from tracegraph.history.to_mlflow import export_mlflow

    return {"run": export_mlflow(run, output), "output": output or "where MLflow is set to"}


def _tensorboard(run: KeptRun, output: str | None) -> dict[str, Any]:
    from tracegraph.history.to_tensorboard import export_tensorboard

    place = output or f"runs/{run.id}-{re.sub(r'[^A-Za-z0-9_-]+', '-', run.name)[:60]}"
    return {"scalars": export_tensorboard(run, place), "output": place}


def _otel(run: KeptRun, output: str | None) -> dict[str, Any]:
    from tracegraph.history.otlp import send_spans

    return {"spans": send_spans(run, output), "output": output or "where OpenTelemetry is set to"}


_TEXTS: dict[str, Callable[[KeptRun, bool], str]] = {
    "jsonl": _json_lines, "csv": _csv, "otlp": _otlp,
}  # fmt: skip
_TOOLS: dict[str, Callable[[KeptRun, str | None], dict[str, Any]]] = {
    "mlflow": _mlflow, "tensorboard": _tensorboard, "otel": _otel,
}  # fmt: skip
