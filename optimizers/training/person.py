"""A person as judge, asked at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final, TextIO, TypeVar, final

from tracegraph.errors import OptimizerError
from tracegraph.forking import new_lock
from tracegraph.kinds import show

__all__ = ["NobodyAnswers", "Person", "PersonCompares"]

T = TypeVar("T")
_SHOWN: Final = 2_000


class NobodyAnswers(OptimizerError, EOFError):
    """A person was to be asked, and there is no terminal, or it was closed."""


class _Terminal:
    """Asks one question at a time, and again while the answer cannot be read."""

    def __init__(self, source: TextIO | None, sink: TextIO | None) -> None:
        self._given = source
        self.source, self.sink = source or sys.stdin, sink or sys.stderr
        self._lock = new_lock()

    def ask(self, text: str, read: Callable[[str], T | None], hint: str) -> T:
        if self._given is None and not self.source.isatty():
            raise NobodyAnswers(
                "a person shall judge, but the standard input is no terminal; run it in one, or "
                "give source= and sink="
            )
        with self._lock:
            self._say(text)
            while True:
                self._say(f"{hint}: ", end="")
                line = self.source.readline()
                if not line:
                    raise NobodyAnswers("a person shall judge, but the input has ended")
                found = read(line.strip())
                if found is not None:
                    return found

    def _say(self, text: str, end: str = "\n") -> None:
        self.sink.write(_visible(text) + end)
        self.sink.flush()


@final
class Person:
    """A guide that shows a person the example and the output, and reads a score and a remark.

    Questions come one at a time, whatever `workers` is. ``7 too long`` gives the score 7 and the
    remark; what cannot be read is asked again.

    Args:
        scale: the worst and the best score that the person may give.
        source: where answers come from; the standard input by default.
        sink: where questions go; the standard error by default.

    The score comes out between 0 and 1.

    >>> import io
    >>> person = Person(source=io.StringIO("what?\\n7 too long\\n"), sink=io.StringIO())
    >>> person("Greet Ann.", "A very good day to you, Ann!")
    (0.7, 'too long')
    """

    def __init__(
        self,
        *,
        scale: tuple[float, float] = (0, 10),
        source: TextIO | None = None,
        sink: TextIO | None = None,
    ) -> None:
        self.low, self.high = scale
        if not self.low < self.high:
            raise OptimizerError(f"scale is (worst, best), two numbers, got {scale!r}")
        self._terminal = _Terminal(source, sink)

    def __call__(self, example: Any, output: Any) -> tuple[float, str]:
        """The score, from 0 to 1, and the remark.

        Raises:
            NobodyAnswers: there is no terminal, or it was closed.
        """
        text = f"\nexample: {_shown(example)}\noutput:  {_shown(output)}"
        hint = f"score from {self.low:g} to {self.high:g}, and a remark if you like"
        return self._terminal.ask(text, self._read, hint)

    def _read(self, line: str) -> tuple[float, str] | None:
        first, _, rest = line.partition(" ")
        try:
            score = float(first.replace(",", "."))
        except ValueError:
            return None
        if not self.low <= score <= self.high:
            return None
        return (score - self.low) / (self.high - self.low), rest.strip()


@final
class PersonCompares:
    """Asks a person which of two outputs is better, for `Pairwise`.

    >>> import io
    >>> compares = PersonCompares(source=io.StringIO("2\\n"), sink=io.StringIO())
    >>> compares("Greet Ann.", "Hey!", "Good day, Ann!")
    -1.0
    """

    def __init__(self, *, source: TextIO | None = None, sink: TextIO | None = None) -> None:
        self._terminal = _Terminal(source, sink)

    def __call__(self, example: Any, first: Any, second: Any) -> float:
        """1 if the first is better, -1 if the second is, 0 for neither."""
        text = f"\nexample: {_shown(example)}\n1: {_shown(first)}\n2: {_shown(second)}"
        choices = {"1": 1.0, "2": -1.0, "0": 0.0}
        return self._terminal.ask(text, choices.get, "better: 1 or 2, or 0 for neither")


def _shown(value: Any) -> str:
    return value[:_SHOWN] if isinstance(value, str) else show(value, _SHOWN)


def _visible(text: str) -> str:
    """The text without what could control a terminal."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
