"""Values that a body is run on once to be read: every operator and word is said, not computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from optimizers.numeric.rules.dialect import WORDS

__all__ = ["SAID", "Symbol"]


class Symbol:
    """What stands for a tensor, or a host's scalar; `say` writes down what is done to it."""

    __slots__ = ()

    def say(self, op: str, *operands: Any) -> Self:
        """The value of `op` for symbols and numbers, `self` among them."""
        raise NotImplementedError

    def __add__(self, other: Any) -> Self:
        return self.say("add", self, other)

    def __radd__(self, other: Any) -> Self:
        return self.say("add", other, self)

    def __sub__(self, other: Any) -> Self:
        return self.say("sub", self, other)

    def __rsub__(self, other: Any) -> Self:
        return self.say("sub", other, self)

    def __mul__(self, other: Any) -> Self:
        return self.say("mul", self, other)

    def __rmul__(self, other: Any) -> Self:
        return self.say("mul", other, self)

    def __truediv__(self, other: Any) -> Self:
        return self.say("div", self, other)

    def __rtruediv__(self, other: Any) -> Self:
        return self.say("div", other, self)

    def __neg__(self) -> Self:
        return self.say("neg", self)

    def __gt__(self, other: Any) -> Self:
        return self.say("gt", self, other)

    def __lt__(self, other: Any) -> Self:
        return self.say("lt", self, other)

    def __ge__(self, other: Any) -> Self:
        return self.say("ge", self, other)

    def __le__(self, other: Any) -> Self:
        return self.say("le", self, other)


def _word(op: str) -> Callable[..., Any]:
    return lambda first, *others: first.say(op, first, *others)


SAID = {word: _word(word) for word in WORDS}
"""The dialect's words, for :func:`bound`: each is said of its first operand."""
