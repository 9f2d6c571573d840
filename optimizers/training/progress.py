"""Show a training to a person: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from typing import Any, TextIO, final

from optimizers.training.budget import Budget
from optimizers.training.result import Event

__all__ = ["Progress"]


@final
class Progress:
    """A listener that writes what happens; on a terminal into one bar that changes.

    The bar shows how much of the budget is spent, the best score, the number of candidates and
    the spend.

    Args:
        stream: where to; the standard error by default.
        budget: what the bar is full at.
    """

    def __init__(self, stream: TextIO | None = None, *, budget: Budget | None = None) -> None:
        self.stream = stream or sys.stderr
        self.budget = budget or Budget()
        self._live: Any = None
        self._best: float | None = None
        self._candidates: set[str] = set()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if event.candidate:
            self._candidates.add(event.candidate)
        if event.kind in ("validated", "accepted") and event.score is not None:
            self._best = event.score if self._best is None else max(self._best, event.score)
        if self.stream.isatty():
            self._show(event)
        elif event.kind not in ("proposed", "skipped"):
            self.stream.write(f"{event}\n")
            self.stream.flush()

    def _show(self, event: Event) -> None:
        live = self._live = self._live or self._begun()
        best = "-" if self._best is None else f"{self._best:.3f}"
        live.update(
            live.task_ids[0], completed=self.budget.share(event.spend), best=best,
            candidates=len(self._candidates), spend=str(event.spend),
        )  # fmt: skip
        if event.kind in ("accepted", "validated", "finished"):
            live.console.print(str(event), markup=False, highlight=False)
        if event.kind == "finished":
            self.close()

    def close(self) -> None:
        """Leave the terminal as it was; a training that failed has not said that it finished."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _begun(self) -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn
        from rich.progress import Progress as Bar

        bar = Bar(
            TextColumn("training"), BarColumn(bar_width=20), TaskProgressColumn(),
            TextColumn("best {task.fields[best]} | {task.fields[candidates]} candidates"),
            TextColumn("{task.fields[spend]}"), console=Console(file=self.stream),
        )  # fmt: skip
        bar.add_task("", total=1.0, best="-", candidates=0, spend="")
        bar.start()
        return bar
