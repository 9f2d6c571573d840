"""SPO: improve by comparing outputs in pairs, without any right answers.

Source: Xiang et al., "Self-Supervised Prompt Optimization", 2025 (arXiv 2502.06855): a model writes a new
prompt by the present one and its outputs, both are run on a few examples, and a judge compares the outputs.
Each comparison is made in both orders, so that a judge that prefers a place counts for nothing, and the
new values are kept only if THEY win the majority.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, final

from optimizers.base import Proposal, Update
from optimizers.duels import Duels, Judge, preferred
from optimizers.llm.asking import FORM, ModelOptimizer
from optimizers.places import Place
from tracegraph.errors import OptimizerError
from tracegraph.kinds import show
from tracegraph.llm import Message
from tracegraph.llm.keeping import keeping
from tracegraph.lowering import unwrap
from tracegraph.overlay import Overlay
from tracegraph.problem import Problem
from tracegraph.recorder import stop_tracing

__all__ = ["SPO", "Duel"]

_SYSTEM = (
    """\
You improve variables of a workflow so that its outputs meet the requirements better. You see the present
values and outputs that they gave; nobody knows right answers. Change what keeps the outputs from being
better.
"""
    + FORM
)

_JUDGE = """\
Compare two outputs for the same input by the requirements. Answer with one letter: A if the first is better,
B if the second is better, T if neither is."""


@dataclass(frozen=True, slots=True)
class Duel:
    """How proposed values did against the present ones: comparisons won, lost and drawn."""

    won: int
    lost: int
    drawn: int

    @property
    def better(self) -> bool:
        """Whether the proposed values won more comparisons than they lost."""
        return self.won > self.lost


@final
class SPO(ModelOptimizer):
    """Proposes values and keeps them if their outputs win against the present ones.

    `improve` makes one round. In a training `guide` compares: ``fit(workflow, examples, spo.guide,
    optimizer=spo)``, with ``acceptance=Paired(alpha=1)`` for the source's plain majority. With
    ``validation=`` the best is who beats the best until then on examples that nobody learned from.

    Attributes:
        guide: compares each output with the present values' one for the same example, see `Duels`.

    Args:
        requirements: what good outputs are, in words; for the proposals and for the judge.
        judge: ``judge(example, first, second)`` gives a number, above 0 if the first is better, below 0 if
            the second is, 0 for a draw. By default the model judges.
        reference: ``reference(example)`` gives an output to compare with in place of the present values'
            one, such as what the values at the start gave. So any number of candidates have an order, as
            ``fit(..., search=...)`` needs.
        parameters: see `ModelOptimizer`, as for the other options.

    >>> import tracegraph as tg
    >>> from tracegraph.llm import Scripted
    >>> word = tg.node("hi", trainable=True, name="word")
    >>> spo = SPO([word], llm=Scripted(['{"suggestion": {"word": "hello"}}']), requirements="long",
    ...           judge=lambda example, first, second: len(first) - len(second))
    >>> update, duel = spo.improve(lambda name: word + name, ["Ann", "Bob", "Cem"])
    >>> word.data, duel
    ('hello', Duel(won=3, lost=0, drawn=0))
    """

    def __init__(
        self,
        parameters: Any,
        *args: Any,
        requirements: str,
        judge: Judge | None = None,
        reference: Callable[[Any], Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(parameters, *args, **options)
        if not isinstance(requirements, str) or not requirements.strip():
            raise OptimizerError(
                "requirements say what good outputs are; without them nothing can be compared"
            )
        self.requirements = requirements
        self.judge = judge or self._judged
        if reference is not None and not callable(reference):
            raise OptimizerError(
                f"reference gives the output to compare with, of an example; got {show(reference, 80)}"
            )
        self.guide = Duels(self.named_parameters, lambda *duel: self.judge(*duel), reference)
        self._shown: list[tuple[Any, Any]] = []

    def improve(self, workflow: Any, examples: Sequence[Any]) -> tuple[Update, Duel | None]:
        """One round: propose, run both on the examples, compare, and keep what wins.

        Raises:
            OptimizerError: there is no example.
        """
        if not examples:
            raise OptimizerError("examples is empty: there is nothing to compare outputs on")
        present = {p: p.data for p in self.parameters}
        before = self._outputs(workflow, examples, present)
        self._shown = list(zip(examples, before, strict=True))
        proposal = self.propose()
        if proposal.rejections or all(present[p] == v for p, v in proposal.values.items()):
            return self.settle(proposal), None
        after = self._outputs(workflow, examples, {**present, **proposal.values})
        judged = Place("duel")
        with keeping(judged):
            duel = self._compared(examples, before, after)
        usage = proposal.usage + judged.usage
        proposal = Proposal(proposal.values, proposal.reasoning, usage=usage, note=str(duel))
        if duel.better:
            return self.settle(proposal), duel
        self.refuse(proposal, f"its outputs won {duel.won} comparisons and lost {duel.lost}")
        return Update(reasoning=proposal.reasoning, usage=usage, note=str(duel)), duel

    def propose(
        self, *, mask: Iterable[str] = (), verbose: bool = False, **options: Any
    ) -> Proposal:
        """Ask for values by the outputs that were recorded last."""
        self._shown = self.guide.take() or self._shown
        return super().propose(mask=mask, verbose=verbose, **options)

    def messages(self, problem: Problem, mask: tuple[str, ...]) -> list[Message]:
        """The requirements, the present values, and the outputs that they gave."""
        hidden = ["Instruction", "Code", "Documentation", "Inputs", "Others", "Outputs", "Feedback"]
        parts = [f"#Requirements\n{self.requirements}", problem.text(hidden)]
        if self.rejected:
            parts.append("#Refused\n" + "\n".join(f"{r.name}: {r.reason}" for r in self.rejected))
        left = self.budget * 4 - len(_SYSTEM) - sum(map(len, parts)) - 80
        room = max(100, left // max(2 * len(self._shown), 1) - 40)
        runs = [f"input: {show(e, room)}\noutput: {show(o, room)}" for e, o in self._shown]
        fitting = sum(end <= left for end in accumulate(len(run) + 2 for run in runs))
        parts += ["#Runs", *runs[: max(1, fitting)]]
        if 0 < fitting < len(runs):
            parts.append(f"({len(runs) - fitting} further runs are left out)")
        return [Message("system", _SYSTEM), Message("user", "\n\n".join(parts))]

    def _outputs(self, workflow: Any, examples: Sequence[Any], values: Any) -> list[Any]:
        with Overlay(values), stop_tracing():
            return [unwrap(workflow(example)) for example in examples]

    def _compared(self, examples: Sequence[Any], before: list[Any], after: list[Any]) -> Duel:
        won = lost = drawn = 0
        for example, old, new in zip(examples, before, after, strict=True):
            verdict = preferred(self.judge, example, new, old)
            won, lost, drawn = won + (verdict > 0), lost + (verdict < 0), drawn + (verdict == 0)
        return Duel(won, lost, drawn)

    def _judged(self, example: Any, first: Any, second: Any) -> float:
        text = (
            f"Requirements: {self.requirements}\n\nInput: {show(example, 1_000)}\n\nA: "
            f"{show(first, 2_000)}\n\nB: {show(second, 2_000)}"
        )
        reply = self.exchange([Message("system", _JUDGE), Message("user", text)])
        return {"A": 1.0, "B": -1.0}.get(reply.text.strip(" .*:\n")[:1].upper(), 0.0)
