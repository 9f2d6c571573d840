"""What the demonstration shows: a live picture on a terminal, plain lines elsewhere.

Whoever looks at it is told first who answers, so that nobody takes the stand-in for a language model.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

from optimizers.training.result import Event

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Lines", "Picture", "changed", "sparkline"]

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 30


def sparkline(scores: Sequence[float]) -> str:
    """Scores from 0 to 1 as a row of bars.

    >>> sparkline([0.0, 0.5, 1.0])
    '▁▅█'
    """
    return "".join(_BARS[min(int(score * len(_BARS)), len(_BARS) - 1)] for score in scores)


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """The lines that went and came, with + and -, under the name of each text that changed.

    >>> changed({"one": "a", "two": "x"}, {"one": "a\\nb", "two": "x"})
    ['one:', '+ b']
    """
    found: list[str] = []
    for name, text in after.items():
        if before[name] == text:
            continue
        found.append(f"{name}:")
        lines = difflib.ndiff(before[name].splitlines(), text.splitlines())
        found += [line for line in lines if line.startswith(("+ ", "- "))]
    return found


@final
class Lines:
    """Writes a line for what matters, and the changed lines of what was accepted.

    Args:
        write: takes one line.
        values: gives the present texts by name.
        spent: says what was spent so far.
    """

    def __init__(
        self,
        write: Callable[[str], Any],
        values: Callable[[], Mapping[str, str]],
        spent: Callable[[], str],
    ) -> None:
        self._write, self._values, self._spent = write, values, spent
        self._before = values()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if event.kind == "accepted":
            self._write(f"step {event.step}: better on the same messages{_scores(event)}, kept")
            after = self._values()
            for line in changed(self._before, after):
                self._write(f"    {line}")
            self._before = after
        elif event.kind == "validated":
            self._write(f"score {event.score:.2f} on messages kept aside; {self._spent()}")
        elif event.kind == "rejected":
            self._write(f"step {event.step}: refused, {event.note.splitlines()[0]}{_scores(event)}")


@final
class Picture:
    """Draws the score, what was spent, the last change, and what was refused, again and again.

    A context manager; the picture stays when it ends.

    Args:
        console: where to draw.
        title: who answers, in words.
        values: gives the present texts by name.
        spent: says what was spent so far.
    """

    def __init__(
        self,
        console: Console,
        title: str,
        values: Callable[[], Mapping[str, str]],
        spent: Callable[[], str],
    ) -> None:
        from rich.live import Live

        self._title, self._values, self._spent = title, values, spent
        self._before = values()
        self._scores: list[float] = []
        self._change: list[str] = []
        self._note = "running the desk as it is"
        self._live = Live(console=console, get_renderable=self._drawn, refresh_per_second=8)

    def __enter__(self) -> Picture:
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._live.__exit__(*error)

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if event.kind == "validated" and event.score is not None:
            self._scores.append(event.score)
        if event.kind == "accepted":
            after = self._values()
            self._change, self._before = changed(self._before, after), after
            self._note = f"step {event.step}: kept{_scores(event)}"
        elif event.kind == "rejected":
            self._note = f"step {event.step}: refused, {event.note.splitlines()[0]}"
        elif event.kind == "finished":
            self._note = event.note
        self._live.refresh()

    def _drawn(self) -> Any:
        from rich.console import Group
        from rich.panel import Panel
        from rich.text import Text

        score = self._scores[-1] if self._scores else 0.0
        full = round(score * _WIDTH)
        head = Text.assemble(
            ("score  ", "bold"), ("█" * full, "green"), ("░" * (_WIDTH - full), "dim"),
            f" {score:.2f}  {sparkline(self._scores)}\n",
            ("spent  ", "bold"), f"{self._spent()}\n", ("now    ", "bold"), self._note,
        )  # fmt: skip
        styles = {"+": "green", "-": "red"}
        change = Text("\n").join(
            Text(line, style=styles.get(line[0], "bold")) for line in self._change
        )
        body = Group(head, Text("\nlast change", style="bold"), change)
        return Panel(body, title=Text(self._title), title_align="left", width=100)


def _scores(event: Event) -> str:
    if event.score is None or event.before is None:
        return ""
    return f" ({event.before:.2f} -> {event.score:.2f})"
