"""Crossover: a model crosses and mutates the best values so far.

Source: Guo et al., "Connecting Large Language Models with Evolutionary Algorithms Yields Powerful Prompt
Optimizers" (EvoPrompt), 2023 (arXiv 2309.08532). GA: two parents chosen by the roulette wheel
are crossed, then the child is mutated, in one request. DE: the differences of two members are
mutated, combined with the best member, and crossed with the present one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Literal, final

from optimizers.base import Proposal, Rejection
from optimizers.candidate import identity
from optimizers.encoding import encoded
from optimizers.llm.asking import FORM, ModelOptimizer
from optimizers.llm.turns import OfThread
from optimizers.records import score_of
from tracegraph.errors import OptimizerError
from tracegraph.kinds import show
from tracegraph.llm import Message
from tracegraph.llm.tokens import cut
from tracegraph.problem import Problem

__all__ = ["Crossover"]

_GA = """\
You breed values of variables. You see two parents with their scores. Cross them: take from each what may have
made it score. Then mutate the child a little: say something better, or leave out what does not help.
"""
_DE = """\
You breed values of variables. You see members of a population with their scores. Find in what A and B differ
and change these differences a little; combine the changed differences with the best member; cross the result
with the present member, so that what both share is kept.
"""
_ONE = """\
You breed values of variables. You see one member of a population. Write a variation of it that keeps its
meaning and may score higher.
"""
_MOST_TRIED: Final = 1_000


@dataclass(frozen=True, slots=True)
class Member:
    """Values that were tried, by name, and their score."""

    values: Mapping[str, Any]
    score: float


@final
class Crossover(ModelOptimizer):
    """Asks for a child of values that scored well; needs scores, and shows no graph.

    Args:
        scheme: ``"GA"`` crosses two parents, ``"DE"`` mutates differences; with fewer than four members
            it crosses two, with one it varies that one.
        population: how many of the best values are kept, 10 as in the paper.
        seed: of the choice of parents.
        parameters: see `ModelOptimizer`, as for the other options.

    >>> import tracegraph as tg
    >>> from tracegraph.llm import Scripted
    >>> prompt = tg.node("Be brief.", trainable=True, name="prompt")
    >>> llm = Scripted(['{"suggestion": {"prompt": "Be kind."}}', '{"suggestion": {"prompt": "Be both."}}'])
    >>> crossover = Crossover([prompt], llm=llm)
    >>> for score in (0.4, 0.5):
    ...     _ = crossover.backward(prompt + "", score)
    ...     _ = crossover.step()
    >>> prompt.data, sorted(m.score for m in crossover.population)
    ('Be both.', [0.4, 0.5])
    """

    _parents: OfThread[Sequence[tuple[str, Member]]] = OfThread(())
    default_objective = "Make the score as high as possible."

    def __init__(
        self,
        parameters: Any,
        *args: Any,
        scheme: Literal["GA", "DE"] = "GA",
        population: int = 10,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(parameters, *args, **options)
        if scheme not in ("GA", "DE"):
            raise OptimizerError(f"scheme is 'GA' or 'DE', got {scheme!r}")
        if not isinstance(population, int) or population < 2:
            raise OptimizerError(f"population must be a whole number from 2, got {population!r}")
        self.scheme, self.size, self.seed = scheme, population, seed
        self.population: list[Member] = []
        self._tried: dict[str, None] = {}
        self._turn = 0

    def propose(
        self, *, mask: Iterable[str] = (), verbose: bool = False, **options: Any
    ) -> Proposal:
        """Take in the score of the present values, choose parents, and ask for their child."""
        present = {name: p.data for name, p in self.named_parameters.items()}
        score = score_of(self.parameters)
        if score is None and not self.population:
            raise OptimizerError(
                "Crossover needs a score (a number, larger is better) for each run, and none "
                "arrived; give one by backward(output, 0.7)"
            )
        if score is not None:
            self._keep(present, score)
        self._parents = self._chosen(identity(present))
        proposal = super().propose(mask=mask, verbose=verbose, **options)
        child = {n: proposal.values.get(p, p.data) for n, p in self.named_parameters.items()}
        if proposal.values and not proposal.rejections and identity(child) in self._tried:
            names = ", ".join(n for n, p in self.named_parameters.items() if p in proposal.values)
            twice = Rejection(names, None, "these values were tried before; write others")
            return Proposal({}, proposal.reasoning, (twice,), proposal.usage, proposal.note)
        return proposal

    def messages(self, problem: Problem, mask: tuple[str, ...]) -> list[Message]:
        """The objective, the constraints, and the parents with their scores."""
        parts = [f"#Objective\n{self.objective}"]
        constraints = [f"{v.name}: {v.constraint}" for v in problem.variables if v.constraint]
        if constraints:
            parts.append("#Constraints\n" + "\n".join(constraints))
        if self.rejected:
            parts.append("#Refused\n" + "\n".join(f"{r.name}: {r.reason}" for r in self.rejected))
        room = max(200, (self.budget * 4 - sum(map(len, parts)) - 500) // len(self._parents))
        for title, member in self._parents:
            parts.append(f"#{title}, score {member.score:.4g}\n{self._told(member, room)}")
        how = {1: _ONE, 2: _GA}.get(len(self._parents), _DE)
        return [Message("system", how + FORM), Message("user", "\n\n".join(parts))]

    def learn(self, problem: Problem) -> None:
        """Facts are not kept here: values with their scores are."""

    def refuse(self, proposal: Proposal, reason: str, *, score: float | None = None) -> None:
        """Keep the score of values that were tried and not kept: they may be parents."""
        super().refuse(proposal, reason, score=score)
        values = {n: proposal.values.get(p, p.data) for n, p in self.named_parameters.items()}
        self._note_tried(values)
        if score is not None:
            self._keep(values, score)

    def state_dict(self) -> dict[str, Any]:
        """As for every optimizer that asks, and the population."""
        members = [[{n: encoded(v) for n, v in m.values.items()}, m.score] for m in self.population]
        own = {"population": members, "tried": list(self._tried), "turn": self._turn}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember what `state_dict` gave."""
        try:
            members = [
                Member(
                    {n: self._restored(n, values[n]) for n in self.named_parameters}, float(score)
                )
                for values, score in state["population"]
            ]
            tried, turn = dict.fromkeys(map(str, state["tried"])), int(state["turn"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise OptimizerError(f"this is no state of Crossover: {show(state, 80)}") from error
        super().load_state_dict(state)
        self.population, self._tried, self._turn = members, tried, turn

    def _keep(self, values: Mapping[str, Any], score: float) -> None:
        self._note_tried(values)
        own = identity(values)
        others = [m for m in self.population if identity(m.values) != own]
        ranked = sorted([*others, Member(dict(values), score)], key=lambda m: m.score, reverse=True)
        self.population = ranked[: self.size]

    def _note_tried(self, values: Mapping[str, Any]) -> None:
        self._tried[identity(values)] = None
        while len(self._tried) > _MOST_TRIED:
            del self._tried[next(iter(self._tried))]

    def _chosen(self, present: str) -> list[tuple[str, Member]]:
        """The parents and what they are, for the scheme."""
        random = Random(f"{self.seed}/{self._turn}")
        self._turn += 1
        best = self.population[0]
        if len(self.population) == 1:
            return [("Member", best)]
        if self.scheme == "DE" and len(self.population) >= 4:
            found = [m for m in self.population if identity(m.values) == present]
            base = found[0] if found else self.population[-1]
            rest = [m for m in self.population if m is not base and m is not best]
            first, second = random.sample(rest, 2)
            return [("A", first), ("B", second), ("Best member", best), ("Present member", base)]
        first = _wheel(self.population, random)
        second = _wheel([m for m in self.population if m is not first], random)
        return [("Parent 1", first), ("Parent 2", second)]

    def _told(self, member: Member, room: int) -> str:
        lines = []
        free = [(name, p) for name, p in self.named_parameters.items() if p.trainable]
        heads = sum(len(name) + len(p.kind.name) + 8 for name, p in free)
        room = max(20, (room - heads) // max(1, len(free)) - 24)
        for name, parameter in free:
            value = member.values[name]
            text = cut(value if isinstance(value, str) else show(value, room), room)
            mark = "\n" if "\n" in text else " "
            lines.append(f"({parameter.kind.name}) {name} ={mark}{text}")
        return "\n".join(lines)


def _wheel(members: list[Member], random: Random) -> Member:
    """One member, the likelier the higher its score (roulette wheel)."""
    least = min(m.score for m in members)
    spread = max(m.score for m in members) - least
    weights = [m.score - least + 0.1 * spread + 1e-9 for m in members]
    return random.choices(members, weights)[0]
