"""Who judges an output: any callable ``guide(example, output)`` that gives a score, and words if it can.

A guide sees the output's plain value. It gives a number (larger is better), a number and a text, or
feedback messages of which one is a `Score`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from tracegraph.errors import OptimizerError
from tracegraph.feedback import Feedback, Remark, Score
from tracegraph.kinds import show

__all__ = ["BadVerdict", "Guide", "Verdict", "judge"]


class BadVerdict(OptimizerError, ValueError):
    """A guide raised, or gave what is no score."""


class Guide(Protocol):
    """Judges an output."""

    def __call__(self, example: Any, output: Any, /) -> Any:
        """A number, (number, text), or feedback with a `Score` in it; larger is better."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a guide said: a score, words, and the messages that go back through the graph."""

    score: float
    text: str = ""
    messages: tuple[Feedback, ...] = ()


def judge(guide: Guide, example: Any, output: Any) -> Verdict:
    """Ask a guide and read what it says.

    Raises:
        BadVerdict: it raised, or gave no score, or NaN; the message says for which example.

    >>> judge(lambda example, output: (0.5, "too long"), "question", "answer")
    Verdict(score=0.5, text='too long', messages=(Score('0.5'), Remark('too long')))
    """
    try:
        said = guide(example, output)
    except Exception as error:
        raise BadVerdict(
            f"the guide raised {type(error).__name__}: {error} for the example {show(example, 120)} "
            f"and the output {show(output, 120)}; a guide must give a score for every output"
        ) from error
    parts = list(said) if isinstance(said, (tuple, list)) else [said]
    messages = [made for made in map(_message, parts) if made is not None]
    scores = [message for message in messages if isinstance(message, Score)]
    if len(scores) != 1 or len(messages) < len([p for p in parts if p not in (None, "")]):
        raise BadVerdict(
            f"the guide gave {show(said, 120)} for the example {show(example, 120)}; it must give a "
            "number (not NaN), or (number, text), or feedback with one Score in it"
        )
    words = "\n".join(str(message) for message in messages if not isinstance(message, Score))
    return Verdict(scores[0].mean, words, tuple(messages))


def _message(part: Any) -> Feedback | None:
    if isinstance(part, Feedback):
        return part
    if isinstance(part, str):
        return Remark(part) if part else None
    try:
        number = float(part)
    except (TypeError, ValueError):
        return None
    return None if math.isnan(number) else Score(number)
