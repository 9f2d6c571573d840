"""Show a training to a person: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from typing import Any, TextIO, final

from optimizers.training.result import Event

__all__ = ["Progress"]


@final
class Progress:
    """A listener that writes what happens; on a terminal into one line that changes.

    Args:
        stream: where to; the standard error by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self._live: Any = None
        self._best: float | None = None

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if event.kind == "validated" and event.score is not None:
            self._best = event.score if self._best is None else max(self._best, event.score)
        if self.stream.isatty():
            self._show(event)
        elif event.kind not in ("proposed", "skipped"):
            self.stream.write(f"{event}\n")
            self.stream.flush()

    def _show(self, event: Event) -> None:
        if self._live is None:
            from rich.console import Console
            from rich.status import Status

            self._live = Status("training", console=Console(file=self.stream))
            self._live.start()
        best = "" if self._best is None else f"best {self._best:.3f} | "
        self._live.update(f"{best}{event} | {event.spend}".replace("[", "\\["))
        if event.kind in ("accepted", "validated", "finished"):
            self._live.console.print(str(event), markup=False, highlight=False)
        if event.kind == "finished":
            self._live.stop()
            self._live = None
