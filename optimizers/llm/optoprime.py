"""OptoPrime: show a model the trace as a small program, and ask for better values.

Source: Cheng, Nie and Swaminathan, "Trace is the Next AutoDiff", 2024 (arXiv 2406.16218), section 4:
the sub-graph between parameters and output is written as a pseudo-program with values, the feedback
below it, and one call gives new values for all parameters at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from optimizers.llm.asking import ModelOptimizer, Past
from tracegraph.llm import Message
from tracegraph.problem import Problem

__all__ = ["OptoPrime"]

_SYSTEM = """\
You improve a workflow by changing its variables. You are given a problem in sections:
#Instruction: what is wanted.
#Code: the operations that ran, in order; names on the left are values.
#Documentation: what the operations do.
#Variables: what you may change, with the kind of each and its present value.
#Constraints: what values a variable takes; any other value is refused.
#Inputs, #Others, #Outputs: the values that were given, computed and produced.
#Feedback: what was said of the outputs.
#Past: earlier values of the variables, and what was said then. #Rejected: what was refused, and why.

Find out which variables caused the feedback, and how to change them. Answer with one JSON object:
{"reasoning": "why, in a few sentences", "suggestion": {"variable name": new value, ...}}
Name only variables that shall change, exactly as they are named. A text is a JSON string, a number a
JSON number. Code is the whole new source as a JSON string and keeps its name and arguments. When
nothing should change, leave the suggestion empty."""


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
        """The system's words, and the problem with what was tried and rejected before."""
        own = {"past", "rejected"}
        hidden = {name.lstrip("#").casefold() for name in mask}
        parts = [problem.text([name for name in mask if name.lstrip("#").casefold() not in own])]
        now = {v.name: v.value for v in problem.variables}
        earlier = [past for past in self.memory if past.values != now]
        if earlier and "past" not in hidden:
            room = max(200, self.budget // len(earlier))
            parts.append("#Past\n" + "\n".join(_told(past, now, room) for past in earlier))
        if self.rejected and "rejected" not in hidden:
            parts.append("#Rejected\n" + "\n".join(f"{r.name}: {r.reason}" for r in self.rejected))
        return [Message("system", _SYSTEM), Message("user", "\n\n".join(parts))]


def _told(past: Past, now: Mapping[str, str], room: int) -> str:
    other = {name: value for name, value in past.values.items() if now.get(name) != value}
    values = ", ".join(f"{name} = {_cut(value, room)}" for name, value in other.items())
    said = " | ".join(past.feedback) or "nothing was said"
    return f"{values}\n  -> {_cut(said, room)}"


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[:room]} (+{len(text) - room:,} characters)"
