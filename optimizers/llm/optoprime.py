"""OptoPrime: show a model the trace as a small program, and ask for better values.

Source: Cheng, Nie and Swaminathan, "Trace is the Next AutoDiff", 2024 (arXiv 2406.16218), section 4:
the sub-graph between parameters and output is written as a pseudo-program with values, the feedback
below it, and one call gives new values for all parameters at once.
"""

from __future__ import annotations

from typing import final

from optimizers.base import Rejection
from optimizers.llm.asking import FORM, ModelOptimizer
from optimizers.llm.memory import facts_of
from tracegraph.kinds import show
from tracegraph.llm import Message
from tracegraph.llm.tokens import prefix
from tracegraph.problem import Problem

__all__ = ["OptoPrime"]

_MOST_REJECTED = 20
_SYSTEM = (
    """\
You improve a workflow by changing its variables. A problem has these sections:
#Code: the operations that ran, in order. #Documentation: what they do.
#Variables: what you may change. #Constraints: the values that are taken.
#Inputs, #Others, #Outputs: the values that were given, computed, produced.
#Feedback: what was said of the outputs. #Past: what was said before, of other inputs; still true.
#Rejected: what was tried last and refused, and why.
Find out which variables caused the feedback, and change them so that all of it is answered, without
losing what is right already. """
    + FORM
)


@final
class OptoPrime(ModelOptimizer):
    """Asks a model once per step, with the whole graph between parameters and outputs.

    >>> import tracegraph as tg
    >>> from tracegraph.llm import Scripted
    >>> greeting = tg.node("Hi", trainable=True, name="greeting")
    >>> llm = Scripted(['{"reasoning": "be polite", "suggestion": {"greeting": "Good day"}}'])
    >>> optimizer = OptoPrime([greeting], llm=llm)
    >>> optimizer.backward(greeting + "!", "Be more polite.")[greeting]
    {<class 'tracegraph.feedback.Remark'>: Remark('Be more polite.')}
    >>> print(optimizer.step())
    greeting: 'Hi' -> 'Good day'
    >>> greeting.data
    'Good day'
    """

    def messages(self, problem: Problem, mask: tuple[str, ...]) -> list[Message]:
        """The system's words, and the problem with past facts and with what was rejected."""
        own = {"past", "rejected"}
        hidden = {name.lstrip("#").casefold() for name in mask}
        parts = [problem.text([name for name in mask if name.lstrip("#").casefold() not in own])]
        if self.rejected and "rejected" not in hidden:
            room = self.budget // max(4, len(self.rejected))
            parts.append(
                "#Rejected\n" + "\n".join(_refusal(r, room) for r in self.rejected[:_MOST_REJECTED])
            )
        if "past" not in hidden:
            room = self.budget * 4 - len(_SYSTEM) - sum(map(len, parts)) - 20
            past = self.memory.lines(room=room, without=facts_of(problem))
            if past:
                parts.insert(1, "#Past\n" + "\n".join(past))
        return [Message("system", _SYSTEM), Message("user", "\n\n".join(parts))]


def _refusal(rejection: Rejection, room: int) -> str:
    value = "" if rejection.value is None else f" = {show(rejection.value, room)}"
    return prefix(f"{rejection.name}{value}: {rejection.reason}", max(room, 40))
