"""OPRO: show a model the values that were tried, from the worst to the best, and ask for better ones.

Source: Yang, Wang, Lu, Liu, Le, Zhou and Chen, "Large Language Models as Optimizers", 2023 (arXiv
2309.03409), sections 2 and 4: the meta-prompt holds the best solutions so far with their scores in
ascending order, and a few exemplars of the task. No graph is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from optimizers.base import Proposal
from optimizers.llm.asking import FORM, ModelOptimizer
from optimizers.llm.memory import facts_of
from tracegraph.errors import OptimizerError
from tracegraph.kinds import show
from tracegraph.llm import Message
from tracegraph.problem import Problem

__all__ = ["OPRO"]

_SYSTEM = (
    """\
You search for values of variables that score as high as possible. You are shown values that were tried
with their scores, the best one last, and examples of the task. Propose values that differ from all of
these and score higher.
"""
    + FORM
)


@final
class OPRO(ModelOptimizer):
    """Asks for values that score higher than the best ones so far; needs scores.

    Args:
        history_size: how many of the best values are shown, 20 as in the paper.
        exemplars: how many examples of the task are shown: facts from the feedback.
        parameters: see `ModelOptimizer`, as for the other options.

    >>> import tracegraph as tg
    >>> from tracegraph.llm import Scripted
    >>> rate = tg.node(3, trainable=True, name="rate")
    >>> opro = OPRO([rate], llm=Scripted(['{"suggestion": {"rate": 4}}']))
    >>> _ = opro.backward(rate * 2, 0.5)
    >>> _ = opro.step()
    >>> rate.data
    4
    """

    default_objective = "Make the score as high as possible."

    def __init__(
        self,
        parameters: Any,
        *args: Any,
        history_size: int = 20,
        exemplars: int = 3,
        **options: Any,
    ) -> None:
        super().__init__(parameters, *args, **options)
        if history_size < 1 or exemplars < 0:
            raise OptimizerError(
                f"history_size must be at least 1 and exemplars at least 0, got {history_size!r} and "
                f"{exemplars!r}"
            )
        self.history_size, self.exemplars = history_size, exemplars
        self.history: dict[str, float] = {}

    def messages(self, problem: Problem, mask: tuple[str, ...]) -> list[Message]:
        """The instruction, exemplars, and the history in ascending order of scores."""
        if problem.score is not None:
            self._keep(_told({v.name: (v.kind, v.value) for v in problem.variables}), problem.score)
        parts = [problem.instruction]
        constraints = [f"{v.name}: {v.constraint}" for v in problem.variables if v.constraint]
        if constraints:
            parts.append("#Constraints\n" + "\n".join(constraints))
        facts = [*facts_of(problem), *self.memory.lines(room=self.budget)][: self.exemplars]
        if facts:
            parts.append("#Examples of the task\n" + "\n".join(facts))
        room = self.budget * 4 - len(_SYSTEM) - sum(map(len, parts)) - 50
        tried: list[str] = []
        for values, score in reversed(self._best()):
            entry = f"score {score:.3g}:\n{values}"
            room -= len(entry) + 2
            if tried and room < 0:
                break
            tried.insert(0, entry)
        parts.append("#Tried, from the worst to the best\n\n" + "\n\n".join(tried))
        return [Message("system", _SYSTEM), Message("user", "\n\n".join(parts))]

    def refuse(self, proposal: Proposal, reason: str, *, score: float | None = None) -> None:
        """Keep the score of values that were tried and not kept."""
        super().refuse(proposal, reason, score=score)
        if score is not None:
            values = {
                name: (p.kind.name, _text(proposal.values.get(p, p.data)))
                for name, p in self.named_parameters.items()
            }
            self._keep(_told(values), score)

    def state_dict(self) -> dict[str, Any]:
        """As for every optimizer that asks, and the history."""
        return {**super().state_dict(), "history": dict(self.history)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember what `state_dict` gave."""
        history = {str(k): float(v) for k, v in dict(state.get("history", {})).items()}
        super().load_state_dict(state)
        self.history = history

    def _keep(self, values: str, score: float) -> None:
        self.history[values] = score
        self.history = dict(self._best())

    def _best(self) -> list[tuple[str, float]]:
        """The best values, best last; of equals the latest last."""
        ranked = sorted(self.history.items(), key=lambda item: item[1])
        return ranked[-self.history_size :]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else show(value, 1_000)


def _told(values: Mapping[str, tuple[str, str]]) -> str:
    return "\n".join(
        f"({kind}) {name} ={chr(10) if chr(10) in text else ' '}{text}"
        for name, (kind, text) in values.items()
    )
