"""Write a kept run's numbers as scalars that TensorBoard draws, and its prompts as texts.

The package tensorboard is imported here and nowhere else, when something is exported.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tracegraph.errors import MissingExtra
from tracegraph.history.export import STEP_NUMBERS
from tracegraph.history.reading import KeptRun

__all__ = ["export_tensorboard"]

_TOTALS = ("cost", "calls")


def export_tensorboard(run: KeptRun, directory: str | Path) -> int:
    """Write an event file into `directory`, for ``tensorboard --logdir``; gives the scalars written.

    The same run is the same file: exported again, it takes the place of the one before.

    Each number of a step is a scalar of its name, and ``total/cost`` and ``total/calls`` their sums.
    Texts and code are there in each version, under ``parameters/``.

    Args:
        run: a run of a `History`.
        directory: made if there is none. A directory for each run shows them side by side.

    Raises:
        MissingExtra: tensorboard is not installed.
        OSError: the disk refuses.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError as error:
        raise MissingExtra(
            "TensorBoard needs an extra: pip install 'tracegraph[tensorboard]'"
        ) from error
    place = Path(directory)
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"events.out.tfevents.{int(run.created)}.tracegraph.{run.id}"
    written = 0
    totals = dict.fromkeys(_TOTALS, 0.0)
    times = {step.number: step.started for step in run.steps}
    with path.open("wb") as file:
        writer = RecordWriter(file)

        def put(event: Any) -> None:
            writer.write(event.SerializeToString())

        def put_value(step: int, when: float, value: Any) -> None:
            put(Event(wall_time=when, step=step, summary=Summary(value=[value])))

        put(Event(wall_time=run.created, file_version="brain.Event:2"))
        for step in run.steps:
            facts = {n: v for n in STEP_NUMBERS if (v := getattr(step, n)) is not None}
            for name in _TOTALS:
                if name in facts:
                    totals[name] += facts[name]
                    facts[f"total/{name}"] = totals[name]
            for name, value in facts.items():
                scalar = Summary.Value(tag=name, simple_value=float(value))
                put_value(step.number, step.started, scalar)
            written += len(facts)
        for name in run.parameters():
            for kept in run.versions(name):
                if isinstance(kept.value, str):
                    text = _text(Summary, f"parameters/{name}", kept.value)
                    put_value(kept.step, times.get(kept.step, run.created), text)
    return written


def _text(summary: Any, tag: str, text: str) -> Any:
    """A text as TensorBoard's plugin for texts reads it, shown as it is and not as Markdown."""
    shown = "\n".join(f"    {line}" for line in text.splitlines())
    value = summary.Value(tag=tag)
    value.metadata.plugin_data.plugin_name = "text"
    value.tensor.dtype = 7  # DT_STRING
    value.tensor.string_val.append(shown.encode("utf-8", "replace"))
    return value
