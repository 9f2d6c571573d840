"""Reflect: improve one component at a time by reflecting on what happened around it.

Source: Agrawal et al., "GEPA: Reflective Prompt Evolution Can Outperform Reinforcement Learning", 2025
(arXiv 2507.19457), section 3, the reflective mutation: the text of one component, chosen in turn,
with the inputs, outputs and feedback of the runs that used it, and one call for its new text. What
is kept is decided by the training, on the same minibatch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, final

from optimizers.base import Proposal
from optimizers.llm.asking import FORM, ModelOptimizer
from optimizers.llm.turns import OfThread
from optimizers.records import records_of
from tracegraph.llm import Message
from tracegraph.llm.tokens import cut
from tracegraph.problem import Problem

__all__ = ["Reflect"]

_SYSTEM = (
    """\
You improve one component of a workflow. You are given its present value and what happened in runs that
used it: its inputs, what came out, and the feedback on the result. Find out what the feedback teaches
about the task, such as facts and ways that work, and write it into a new value, because the component
sees nothing else. Keep what is right already.
"""
    + FORM
)


@final
class Reflect(ModelOptimizer):
    """Asks for a new value of one parameter per step, by the runs that used it.

    >>> import tracegraph as tg
    >>> from tracegraph.llm import Scripted
    >>> one, two = (tg.node(w, trainable=True, name=w) for w in ("one", "two"))
    >>> reflect = Reflect([one, two], llm=Scripted(['{"suggestion": {"one": "1", "two": "2"}}']))
    >>> _ = reflect.backward(one + two, "Use digits.")
    >>> print(reflect.step())
    one: 'one' -> '1'
    """

    _chosen = OfThread("")

    def __init__(self, parameters: Any, *args: Any, **options: Any) -> None:
        super().__init__(parameters, *args, **options)
        self.turn = 0

    def propose(
        self, *, mask: Iterable[str] = (), verbose: bool = False, **options: Any
    ) -> Proposal:
        """Choose the next component that has feedback, and reflect on it."""
        names = [n for n, p in self.named_parameters.items() if p.trainable and p.feedback]
        self._chosen = names[self.turn % len(names)] if names else ""
        self.turn += 1
        proposal = super().propose(mask=mask, verbose=verbose, **options)
        chosen = self.named_parameters.get(self._chosen)
        values = {p: value for p, value in proposal.values.items() if p is chosen}
        return Proposal(
            values, proposal.reasoning, proposal.rejections, proposal.usage, proposal.note
        )

    def messages(self, problem: Problem, mask: tuple[str, ...]) -> list[Message]:
        """The component's value, and as many records as fit."""
        variable = next(v for v in problem.variables if v.name == self._chosen)
        mark = "\n" if "\n" in variable.value else " "
        value = cut(variable.value, self.budget * 2)
        parts = [f"#Component\n({variable.kind}) {variable.name} ={mark}{value}"]
        if variable.description:
            parts.append(f"#What it is\n{variable.description}")
        if variable.constraint:
            parts.append(f"#Constraint\n{variable.constraint}")
        if self.rejected:
            parts.append("#Refused\n" + "\n".join(f"{r.name}: {r.reason}" for r in self.rejected))
        room = self.budget * 4 - len(_SYSTEM) - sum(map(len, parts))
        parts.append("#Runs")
        for record in records_of(self.named_parameters[self._chosen]):
            if not record.remarks:
                continue
            text = str(record)
            if len(text) > room and parts[-1] != "#Runs":
                parts.append("(further runs are left out)")
                break
            parts.append(cut(text, room))
            room -= len(parts[-1]) + 2
        return [Message("system", _SYSTEM), Message("user", "\n\n".join(parts))]

    def state_dict(self) -> dict[str, Any]:
        """As for every optimizer that asks, and whose turn it is."""
        return {**super().state_dict(), "turn": self.turn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember what `state_dict` gave."""
        super().load_state_dict(state)
        self.turn = int(state.get("turn", 0))
