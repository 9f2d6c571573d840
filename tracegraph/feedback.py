"""What travels back: each type says how two messages merge, and where a message goes by default.

A message carries ids of outputs, never graphs, so it costs the same at every node.

=============  =================  =========================================
type           merge              goes by default
=============  =================  =========================================
`Remark`       union              to every input, unchanged
`Score`        union, by output   to every input, unchanged
`Preference`   union, by output   to every input, unchanged
`Ranking`      union, by output   to every input, unchanged
`Gradient`     sum                through torch; elsewhere by a rule
=============  =================  =========================================
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from operator import index
from typing import Any, Self, final

from tracegraph.errors import FeedbackError
from tracegraph.failure import failed_node
from tracegraph.kinds import is_tensor, show
from tracegraph.lowering import unwrap
from tracegraph.node import Node

__all__ = [
    "Feedback",
    "Gradient",
    "Preference",
    "Ranking",
    "Remark",
    "Score",
    "UnknownFeedback",
    "as_feedback",
]


class UnknownFeedback(FeedbackError, TypeError):
    """A value that is no feedback of any known type."""


class Feedback(ABC):
    """A message that can merge with another of its type.

    Derive from it to add a type of feedback; `backward` needs nothing else.
    """

    __slots__ = ()

    @abstractmethod
    def merge(self, other: Self) -> Self:
        """The two messages as one; neither changes."""

    def given_at(self, node: Node[Any], weight: float) -> Self:
        """This message as it starts at an output; by default unchanged."""
        return self


class _Noted(Feedback):
    """Messages that say something of outputs: a set of (output id, weight, what is said)."""

    __slots__ = ("entries",)

    def __init__(self, said: Any, *, entries: frozenset[tuple[int, float, Any]] | None = None):
        self.entries = frozenset({(0, 1.0, said)}) if entries is None else entries

    def merge(self, other: Self) -> Self:
        if other is self or other.entries <= self.entries:
            return self
        return self._with(self.entries | other.entries)

    def given_at(self, node: Node[Any], weight: float) -> Self:
        return self._with(frozenset((node.id, weight * w, said) for _, w, said in self.entries))

    def _with(self, entries: frozenset[tuple[int, float, Any]]) -> Self:
        made = object.__new__(type(self))
        made.entries = entries
        return made

    @property
    def outputs(self) -> dict[int, list[tuple[float, Any]]]:
        """What is said, with its weight, by the id of the output; ids in order."""
        found: dict[int, list[tuple[float, Any]]] = {}
        for number, weight, said in sorted(self.entries, key=lambda e: (e[0], str(e[2]), e[1])):
            found.setdefault(number, []).append((weight, said))
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.entries == other.entries

    def __hash__(self) -> int:
        return hash((type(self), self.entries))

    def __str__(self) -> str:
        return "\n".join(str(said) for of in self.outputs.values() for _, said in of)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({show(str(self), 100)})"


@final
class Remark(_Noted):
    """Words about an output.

    >>> Remark("too long").merge(Remark("too rude"))
    Remark('too long\\ntoo rude')
    """

    __slots__ = ()

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise UnknownFeedback(f"a remark is text, got {show(text, 80)}")
        super().__init__(text)


@final
class Score(_Noted):
    """A number for an output; larger is better.

    Raises:
        UnknownFeedback: not a number, or NaN.
    """

    __slots__ = ()

    def __init__(self, value: float) -> None:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise UnknownFeedback(
                f"a score is a number that a float can hold, got {show(value, 80)}"
            ) from error
        if math.isnan(number):
            raise UnknownFeedback("a score cannot be NaN: it could not be compared with another")
        super().__init__(number)

    @property
    def mean(self) -> float:
        """The mean over the outputs, by weight."""
        total = sum(weight for _, weight, _ in self.entries)
        return sum(weight * said for _, weight, said in self.entries) / total if total else math.nan


@final
class Preference(_Noted):
    """An output was compared with another: ``better=True`` when it won.

    Args:
        other: what it was compared with.
        better: whether this output is the better one.
        reason: why, in words.
    """

    __slots__ = ()

    def __init__(self, other: Any, *, better: bool, reason: str = "") -> None:
        verdict = "better than" if better else "worse than"
        said = f"{verdict} {show(unwrap(other), 200)}"
        super().__init__(f"{said}: {reason}" if reason else said)


@final
class Ranking(_Noted):
    """An output's place among several, 1 for the best.

    Raises:
        UnknownFeedback: the place is not between 1 and `of`.
    """

    __slots__ = ()

    def __init__(self, place: int, *, of: int, reason: str = "") -> None:
        try:
            stands = 1 <= index(place) <= index(of)
        except TypeError:
            stands = False
        if not stands:
            raise UnknownFeedback(f"a place lies between 1 and {of}, got {place}")
        super().__init__(f"place {place} of {of}" + (f": {reason}" if reason else ""))


_NO_NUMBERS = (str, bytes, list, tuple, dict, set, type(None))


@final
class Gradient(Feedback):
    """The derivative of what shall become small with respect to a value.

    Args:
        value: a number, an array or a tensor of the value's shape.

    Raises:
        UnknownFeedback: a text or a container, which cannot be added up.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        if isinstance(value, _NO_NUMBERS):
            raise UnknownFeedback(
                f"a gradient is a number, an array or a tensor, got {show(value, 80)}"
            )
        self.value = value

    def merge(self, other: Self) -> Self:
        """The sum."""
        return type(self)(self.value + other.value)

    def given_at(self, node: Node[Any], weight: float) -> Self:
        """Itself times `weight`."""
        return self if weight == 1.0 else type(self)(self.value * weight)

    def __repr__(self) -> str:
        return f"Gradient({show(self.value, 100)})"


def as_feedback(value: Any, node: Node[Any]) -> list[Feedback]:
    """What a person gave as feedback at `node`, as messages.

    A text is a `Remark`, an exception a `Remark` with its marked line, a tensor a `Gradient`; a
    number is a `Gradient` where the output is a tensor and a `Score` elsewhere; a tuple or list
    holds several. No text at all at a loss, one number that torch follows, is the gradient 1.

    Raises:
        UnknownFeedback: a value of any other type.
    """
    if isinstance(value, Node):
        value = value.data
    if isinstance(value, Feedback):
        return [value]
    if isinstance(value, str):
        return [Gradient(1.0) if not value and _is_loss(node._data) else Remark(value)]
    if isinstance(value, BaseException):
        raised = failed_node(value)
        text = raised.create_feedback("full") if raised is not None else f"{value!r}"
        return [Remark(text)]
    if is_tensor(value):
        return [Gradient(value)]
    if isinstance(value, (bool, int, float)) or hasattr(value, "__float__"):
        return [Gradient(value) if is_tensor(node._data) else Score(value)]
    if isinstance(value, (tuple, list)) and value:
        return [message for part in _parts(value) for message in as_feedback(part, node)]
    raise UnknownFeedback(
        f"{show(value, 80)} ({type(value).__name__}) is no feedback: give a text, a number, a "
        "gradient, an exception, a Preference, a Ranking, or a tuple of these"
    )


def _is_loss(value: Any) -> bool:
    return is_tensor(value) and value.requires_grad and value.numel() == 1


def _parts(value: Iterable[Any]) -> list[Any]:
    return [part for part in value if part is not None]
