"""Verdicts as JSON-able data, so that nobody is asked twice to judge one output of one run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from optimizers.encoding import encoded
from optimizers.training.guide import Verdict
from tracegraph.errors import OptimizerError
from tracegraph.feedback import Feedback, Preference, Ranking, Remark, Score

__all__ = ["digest", "packed", "unpacked"]

_SAID: Final[dict[str, Any]] = {
    kind.__name__: kind for kind in (Remark, Score, Preference, Ranking)
}


def digest(output: Any) -> str | None:
    """Sixteen hexadecimal digits that equal outputs share; ``None`` for what is no plain data.

    >>> digest("a") == digest("a"), digest(object()) is None
    (True, True)
    """
    try:
        text = json.dumps(encoded(output))
    except (OptimizerError, RecursionError):
        return None
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def packed(verdict: Verdict) -> dict[str, Any] | None:
    """A verdict as data; ``None`` where it has feedback that is no text or number, such as a gradient."""
    messages = []
    for message in verdict.messages:
        kind, entries = type(message), list(getattr(message, "entries", ()))
        if _SAID.get(kind.__name__) is not kind or len(entries) != 1 or entries[0][:2] != (0, 1.0):
            return None
        messages.append([kind.__name__, entries[0][2]])
    return {
        "score": verdict.score, "text": verdict.text, "messages": messages,
        "objectives": dict(verdict.objectives), "violated": list(verdict.violated),
    }  # fmt: skip


def unpacked(data: Mapping[str, Any]) -> Verdict:
    """The verdict that `packed` wrote.

    >>> verdict = Verdict(0.5, "short", (Score(0.5), Remark("short")))
    >>> unpacked(packed(verdict)) == verdict
    True
    """
    messages = tuple(_message(kind, said) for kind, said in data["messages"])
    return Verdict(
        data["score"], data["text"], messages, dict(data["objectives"]), tuple(data["violated"])
    )


def _message(kind: str, said: Any) -> Feedback:
    made: Feedback = object.__new__(_SAID[kind])
    made.entries = frozenset({(0, 1.0, said)})  # type: ignore[attr-defined]
    return made
