"""Write a kept run's numbers as scalars that TensorBoard draws, and its prompts as texts.

The package tensorboard is imported here and nowhere else, when something is exported.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tracegraph.errors import MissingExtra
from tracegraph.history.reading import KeptRun

__all__ = ["export_tensorboard"]

_SCALARS = ("score", "seconds", "changes", "rejections", "calls", "tokens_in", "tokens_out", "cost")
_TOTALS = ("cost", "calls")


def export_tensorboard(run: KeptRun, directory: str | Path) -> int:
    """Write an event file into `directory`, for ``tensorboard --logdir``; gives the scalars written.

    Each number of a step is a scalar of its name, and ``total/cost`` and ``total/calls`` their sums.
    Texts and code are there in each version, under ``parameters/``.

    Args:
        run: a run of a `History`.
        directory: made if there is none. A directory for each run shows them side by side.

    Raises:
        MissingExtra: tensorboard is not installed.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError as error:
        raise MissingExtra(
            "TensorBoard needs an extra: pip install 'tracegraph[tensorboard]'"
        ) from error
    Path(directory).mkdir(parents=True, exist_ok=True)
    writer = EventFileWriter(str(directory))
    written = 0

    def put(step: int, when: float, value: Any) -> None:
        summary = Summary(value=[value])
        writer.add_event(Event(wall_time=when, step=step, summary=summary))

    try:
        totals = dict.fromkeys(_TOTALS, 0.0)
        for step in run.steps:
            facts = {n: v for n in _SCALARS if (v := getattr(step, n)) is not None}
            for name in _TOTALS:
                if name in facts:
                    totals[name] += facts[name]
                    facts[f"total/{name}"] = totals[name]
            for name, value in facts.items():
                put(step.number, step.started, Summary.Value(tag=name, simple_value=float(value)))
            written += len(facts)
        times = {step.number: step.started for step in run.steps}
        for name in run.parameters():
            for kept in run.versions(name):
                if isinstance(kept.value, str):
                    text = _text(Summary, f"parameters/{name}", kept.value)
                    put(kept.step, times.get(kept.step, run.created), text)
    finally:
        writer.close()
    return written


def _text(summary: Any, tag: str, text: str) -> Any:
    """A text as TensorBoard's plugin for texts reads it, shown as it is and not as Markdown."""
    shown = "\n".join(f"    {line}" for line in text.splitlines())
    value = summary.Value(tag=tag)
    value.metadata.plugin_data.plugin_name = "text"
    value.tensor.dtype = 7  # DT_STRING
    value.tensor.string_val.append(shown.encode("utf-8", "replace"))
    return value
