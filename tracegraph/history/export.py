"""A kept run as lines of JSON, as CSV, or as a table of pandas."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any, Final

from tracegraph.errors import MissingExtra
from tracegraph.history.reading import KeptRun, KeptStep, KeptValue
from tracegraph.kinds import show

__all__ = ["STEP_NUMBERS", "csv_text", "json_lines", "run_facts", "steps_frame", "value_facts"]


STEP_NUMBERS: Final = (
    "score", "seconds", "changes", "rejections", "calls", "tokens_in", "tokens_out", "cost",
)  # fmt: skip
"""The numbers of a `KeptStep` that tools draw as curves."""


def run_facts(run: KeptRun) -> dict[str, Any]:
    """A run as JSON-able data: name, times, status, totals, what it ran with."""
    return {
        "id": run.id, "name": run.name, "created": run.created, "ended": run.ended,
        "status": run.status, "error": run.error, **run.summary, **run.about,
    }  # fmt: skip


def value_facts(value: KeptValue) -> dict[str, Any]:
    """A parameter's value as JSON-able data; what JSON has no word for as text."""
    return {**asdict(value), "value": _jsonable(value.value)}


def json_lines(run: KeptRun, *, graphs: bool = False) -> Iterator[str]:
    """The run as lines of JSON, each with a ``type``: run, parameter, step, reply, candidate,
    event.

    Args:
        run: a run of a `History`.
        graphs: whether each step has its trace graph.
    """
    yield _line("run", run_facts(run))
    for name in run.parameters():
        for value in run.versions(name):
            yield _line("parameter", value_facts(value))
    for step in run.steps:
        facts = {**asdict(step), **run.details(step.number)}
        if graphs and step.nodes:
            facts["graph"] = asdict(run.graph(step.number))
        yield _line("step", facts)
    for reply in run.replies:
        yield _line("reply", asdict(reply))
    for candidate in run.candidates:
        yield _line("candidate", asdict(candidate))
    for event in run.events:
        yield _line("event", asdict(event))


def csv_text(run: KeptRun) -> str:
    """The steps as CSV: one line each, with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(KeptStep)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(step) for step in run.steps)
    return text.getvalue()


def steps_frame(run: KeptRun) -> Any:
    """The steps as a `pandas.DataFrame`, by their number.

    Raises:
        MissingExtra: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingExtra(
            "a table of steps needs the package pandas: pip install pandas"
        ) from error
    frame = pandas.DataFrame([asdict(step) for step in run.steps], columns=_columns())
    return frame.set_index("number")


def _columns() -> list[str]:
    return [field.name for field in fields(KeptStep)]


def _line(kind: str, facts: dict[str, Any]) -> str:
    return json.dumps({"type": kind, **facts}, default=show)


def _jsonable(value: Any) -> Any:
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return show(value, 10_000)
