"""Verdicts as JSON-able data, so that nobody is asked twice to judge one output of one run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from optimizers.training.guide import Verdict
from tracegraph.errors import HistoryError, MissingExtra
from tracegraph.feedback import Feedback, Gradient, Preference, Ranking, Remark, Score
from tracegraph.history.tensors import tensor_bytes
from tracegraph.history.values import pack, unpack

__all__ = ["digest", "packed", "unpacked"]

_SAID: Final[dict[str, Any]] = {
    kind.__name__: kind for kind in (Remark, Score, Preference, Ranking)
}


def digest(output: Any) -> str | None:
    """Sixteen hexadecimal digits that equal outputs share; ``None`` for what is no plain data.

    >>> digest("a") == digest("a"), digest(object()) is None
    (True, True)
    """
    tensors: dict[str, Any] = {}
    try:
        text = json.dumps(pack(output, tensors))
        numbers = tensor_bytes(tensors) if tensors else b""
    except (HistoryError, MissingExtra, RecursionError):
        return None
    return hashlib.sha256(text.encode("utf-8", "surrogatepass") + numbers).hexdigest()[:16]


def packed(verdict: Verdict, tensors: dict[str, Any]) -> dict[str, Any] | None:
    """A verdict as data, with its tensors and arrays beside it.

    Returns:
        ``None`` where it has feedback that is of no known kind, or was on its way through a graph.
    """
    messages = []
    for message in verdict.messages:
        kind, entries = type(message), list(getattr(message, "entries", ()))
        if isinstance(message, Gradient) and kind is Gradient:
            try:
                messages.append([kind.__name__, pack(message.value, tensors)])
            except HistoryError:
                return None
            continue
        if _SAID.get(kind.__name__) is not kind or len(entries) != 1 or entries[0][:2] != (0, 1.0):
            return None
        messages.append([kind.__name__, entries[0][2]])
    return {
        "score": verdict.score, "text": verdict.text, "messages": messages,
        "objectives": dict(verdict.objectives), "violated": list(verdict.violated),
    }  # fmt: skip


def unpacked(data: Mapping[str, Any], tensors: Mapping[str, Any]) -> Verdict:
    """The verdict that `packed` wrote.

    >>> verdict = Verdict(0.5, "short", (Score(0.5), Remark("short")))
    >>> unpacked(packed(verdict, {}), {}) == verdict
    True
    """
    messages = tuple(_message(kind, said, tensors) for kind, said in data["messages"])
    return Verdict(
        data["score"], data["text"], messages, dict(data["objectives"]), tuple(data["violated"])
    )


def _message(kind: str, said: Any, tensors: Mapping[str, Any]) -> Feedback:
    if kind == Gradient.__name__:
        return Gradient(unpack(said, tensors))
    made: Feedback = object.__new__(_SAID[kind])
    made.entries = frozenset({(0, 1.0, said)})  # type: ignore[attr-defined]
    return made
