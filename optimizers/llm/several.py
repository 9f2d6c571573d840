"""Several: ask for several proposals and keep one: by a majority, by a judge, or by running them.

Sources: majority, Wang et al., "Self-Consistency Improves Chain of Thought Reasoning in Language Models",
2022 (arXiv 2203.11171); a judge that is asked in both orders, Zheng et al., "Judging LLM-as-a-Judge", 2023
(arXiv 2306.05685), section 3.4.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias, final

from optimizers.base import Optimizer, Proposal, Usage
from optimizers.candidate import identity
from optimizers.llm.asking import ModelOptimizer
from optimizers.llm.group import Group
from optimizers.llm.questions import Questions, usage_of
from optimizers.llm.turns import aside, at_once, in_turns
from optimizers.places import Place
from tracegraph.errors import BudgetExceeded, ModelError, OptimizerError, Rejected
from tracegraph.kinds import show
from tracegraph.llm import LanguageModelLike, Message, Reply
from tracegraph.llm.keeping import keeping, part
from tracegraph.lowering import unwrap
from tracegraph.overlay import Overlay
from tracegraph.recorder import stop_tracing

__all__ = ["Choice", "Select", "Several", "by_evaluation", "by_judge", "by_majority"]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of several proposals is taken, why, and what it cost to find out."""

    index: int
    note: str = ""
    usage: Usage = field(default_factory=Usage)


Select: TypeAlias = Callable[[Sequence[Proposal]], Choice]
"""``select(proposals)`` chooses among those that can be used; equal ones come as often as they were made."""


@final
class Several(Group):
    """Asks for several proposals at once and takes one of them.

    Only the model is asked side by side: what the optimizers read and remember comes in the same order every
    time, and so do the proposals. Members that are groups themselves, such as `Mix`, are asked beside the
    others if they share no optimizer with them; one that is asked twice is asked in turn.

    Proposals that were refused, that a parameter does not take, or that change nothing are left out; where
    none is left, the last one is given with its reasons. Which one is taken is decided by `select`. When the
    model fails, or a budget ends, those that were made already are used.

    Args:
        optimizers: one that is asked `n` times, or several that are asked in turn.
        n: how many proposals are made; by default 4 of one optimizer, and one of each of several.
        select: `by_majority`, ``by_judge(llm)``, ``by_evaluation(workflow, examples, guide)``, or a function
            of your own, see `Select`.
        temperatures: one for each proposal, in turn; by default the optimizers' own.
        workers: how many questions are under way at once, at least 1.

    >>> import tracegraph as tg
    >>> from optimizers import OptoPrime
    >>> from tracegraph.llm import Scripted
    >>> word = tg.node("a", trainable=True, name="word")
    >>> replies = [f'{{"suggestion": {{"word": "{w}"}}}}' for w in "bccd"]
    >>> several = Several(OptoPrime([word], llm=Scripted(replies)))
    >>> _ = several.backward(word + "!", "Not a.")
    >>> update = several.step()
    >>> word.data, update.usage.calls, update.note
    ('c', 4, '2 of 4 proposals agree')
    """

    def __init__(
        self,
        optimizers: Any,
        n: int | None = None,
        *,
        select: Select | None = None,
        temperatures: Iterable[float] = (),
        workers: int = 8,
    ) -> None:
        super().__init__(optimizers if isinstance(optimizers, list | tuple) else [optimizers])
        count = n if n is not None else (len(self.optimizers) if len(self.optimizers) > 1 else 4)
        if not isinstance(count, int) or count < 1:
            raise OptimizerError(f"n is how many proposals are made, at least 1, got {show(n, 40)}")
        if select is not None and not callable(select):
            raise OptimizerError(f"select is a function of proposals, got {show(select, 80)}")
        if not isinstance(workers, int) or workers < 1:
            raise OptimizerError(f"workers must be a whole number from 1, got {show(workers, 40)}")
        self.n, self.select, self.workers = count, select or by_majority, workers
        self.temperatures = tuple(temperatures)

    def propose(self, **options: Any) -> Proposal:
        """Ask `n` times, and select."""
        last, usable, failure = Proposal({}), [], None
        usage, made = self._made(options)
        for owner, proposal in made:
            if isinstance(proposal, Exception):
                failure = failure or proposal
                continue
            usage += proposal.usage
            if self._usable(proposal):
                usable.append((owner, proposal))
            else:
                last, self._owner = proposal, owner
        if failure is not None and (not usable or not isinstance(failure, _OF_THE_MODEL)):
            raise failure  # else what was paid for is used
        if not usable:
            return replace(last, usage=usage)
        proposals = [proposal for _, proposal in usable]
        choice = Choice(0) if len(set(map(_key, proposals))) == 1 else self.select(proposals)
        self._owner, chosen = usable[choice.index]
        alike = sum(_key(p) == _key(chosen) for p in proposals)
        note = choice.note or f"{alike} of {self.n} proposals agree"
        note = "; ".join(filter(None, (chosen.note, note)))
        return replace(chosen, usage=usage + choice.usage, note=note)

    def _made(
        self, options: Mapping[str, Any]
    ) -> tuple[Usage, list[tuple[Optimizer, Proposal | Exception]]]:
        """What each question came to, in their order, and what the questions before them cost."""
        owners = [self.optimizers[number % len(self.optimizers)] for number in range(self.n)]
        heat = self.temperatures
        given = [
            {**options, "temperature": heat[number % len(heat)]} if heat else dict(options)
            for number in range(self.n)
        ]
        usage = Usage()
        jobs: list[Callable[[], Proposal]] = []
        for owner, own in zip(owners, given, strict=True):
            if isinstance(owner, ModelOptimizer) and owner not in owners[: len(jobs)]:
                usage += owner.prepare(**own)
            jobs.append(partial(owner.propose, **own))
        beside = self.workers > 1 and _independent(owners)
        made = in_turns(jobs, workers=self.workers) if beside else _until_one_fails(jobs)
        return usage, list(zip(owners, made, strict=False))

    def _usable(self, proposal: Proposal) -> bool:
        if proposal.rejections:
            return False
        changes = False
        for parameter, value in proposal.values.items():
            try:
                parameter.check(value)
            except Rejected:
                return False
            changes = changes or identity({"": value}) != identity({"": parameter.data})
        return changes


_OF_THE_MODEL = (BudgetExceeded, ModelError)


def _independent(owners: Sequence[Optimizer]) -> bool:
    """Whether none of them needs to know what another one came to: only one that is single may be twice."""
    single = {id(owner) for owner in owners if isinstance(owner, ModelOptimizer)}
    others = [owner for owner in owners if id(owner) not in single]
    inside = [id(member) for owner in others for member in _members(owner)]
    return len(set(inside)) == len(inside) and single.isdisjoint(inside)


def _members(owner: Optimizer) -> list[Optimizer]:
    """An optimizer, with all that are in it if it is a group."""
    held = owner.optimizers if isinstance(owner, Group) else []
    return [owner, *{id(m): m for inner in held for m in _members(inner)}.values()]


def _until_one_fails(jobs: Iterable[Callable[[], Proposal]]) -> list[Proposal | Exception]:
    made: list[Proposal | Exception] = []
    for job in jobs:
        try:
            made.append(job())
        except _OF_THE_MODEL as error:
            return [*made, error]
    return made


def by_majority(proposals: Sequence[Proposal]) -> Choice:
    """The proposal that was made most often; of equals the first. White space does not count in texts."""
    keys = [_key(proposal, squeezed=True) for proposal in proposals]
    best = max(keys, key=keys.count)
    return Choice(keys.index(best), f"{keys.count(best)} of {len(keys)} proposals agree")


def by_judge(llm: LanguageModelLike = None, *, objective: str = "", **options: Any) -> Select:
    """A model says which proposal is best. It is asked twice, in both orders, so that no place is favoured.

    Args:
        llm: see `ModelOptimizer`.
        objective: what is wanted, in words.
        options: sent with every request.

    >>> import tracegraph as tg
    >>> from tracegraph.llm import Scripted
    >>> word = tg.node("a", trainable=True, name="word")
    >>> select = by_judge(Scripted(["2", "1"]), objective="The last letter.")
    >>> select([Proposal({word: "b"}), Proposal({word: "z"})]).index
    1
    """
    questions = Questions(llm, max_tokens=16, options=options)

    def select(proposals: Sequence[Proposal]) -> Choice:
        distinct = list({_key(p): i for i, p in reversed(list(enumerate(proposals)))}.values())[
            ::-1
        ]
        votes = dict.fromkeys(distinct, 0)
        usage = Usage()
        orders = (distinct, distinct[::-1])

        def ask(order: list[int]) -> Reply:
            shown = "\n\n".join(
                f"Candidate {place}:\n{_told(proposals[index])}"
                for place, index in enumerate(order, 1)
            )
            wanted = f"What is wanted: {objective}\n\n" if objective else ""
            return questions.exchange([Message("system", _JUDGE), Message("user", wanted + shown)])

        replies = in_turns([partial(ask, order) for order in orders], workers=2)
        for order, reply in zip(orders, replies, strict=True):
            if isinstance(reply, Exception):
                if not isinstance(reply, _OF_THE_MODEL) or all(
                    isinstance(r, Exception) for r in replies
                ):
                    raise reply
                continue  # the other order was paid for, and counts
            usage += usage_of(reply)
            said = re.search(r"\d+", reply.text)
            if said and 1 <= int(said[0]) <= len(order):
                votes[order[int(said[0]) - 1]] += 1
        best = max(votes, key=votes.__getitem__)
        return Choice(best, f"a judge preferred it in {votes[best]} of 2 orders", usage)

    return select


_JUDGE = """\
Choose the best of several candidates: new values for variables of a workflow. Answer with the number of the
candidate alone."""


def by_evaluation(
    workflow: Callable[[Any], Any],
    examples: Sequence[Any],
    guide: Callable[[Any, Any], Any],
    *,
    workers: int = 8,
) -> Select:
    """The proposal that scores best when the workflow is run on examples; equal ones are run once.

    Runs go side by side, in threads; which one is ready first changes nothing.

    Args:
        workflow: called with each example, with the proposed values in the parameters.
        examples: at least one.
        guide: ``guide(example, output)`` gives a score or (score, text); larger is better. A run that fails
            counts less than every score. What its models cost counts; of the workflow's the money.
        workers: how many runs are under way at once, at least 1.
    """
    if not examples:
        raise OptimizerError("examples is empty: there is nothing to run the proposals on")

    if not isinstance(workers, int) or workers < 1:
        raise OptimizerError(f"workers must be a whole number from 1, got {show(workers, 40)}")

    def score(values: Overlay, example: Any, runs: Place, judged: Place) -> float | None:
        """The score of one run; ``None`` where it failed."""
        with values, stop_tracing():
            try:
                with keeping(runs):
                    output = unwrap(workflow(example))
            except Exception:  # whatever the workflow does with these values
                return None
            with keeping(judged):
                verdict = guide(example, output)
        found = verdict[0] if isinstance(verdict, tuple) else verdict
        if isinstance(found, bool | int | float) and found == found:
            return float(found)
        raise OptimizerError(f"the guide gave no score: {show(verdict, 80)}")

    def select(proposals: Sequence[Proposal]) -> Choice:
        runs, judged = Place("runs"), Place("judged")
        distinct = {_key(proposal): Overlay(dict(proposal.values)) for proposal in proposals}

        def job(number: int, values: Overlay, at: int) -> float | None:
            with part(f"{number}/{at}"):
                name = f"{number}/{at}"
                return score(values, examples[at], runs.part(name), judged.part(name))

        jobs = [
            partial(job, number, values, at)
            for number, values in enumerate(distinct.values())
            for at in range(len(examples))
        ]
        with aside():  # other proposals need not wait for these runs
            done = at_once(jobs, workers=workers)
        known: dict[str, tuple[int, float]] = {}
        for number, key in enumerate(distinct):
            found = done[number * len(examples) : (number + 1) * len(examples)]
            total = sum(one for one in found if one is not None)
            known[key] = -found.count(None), total / len(examples)
        best = max(range(len(proposals)), key=lambda i: known[_key(proposals[i])])
        note = f"it scored {known[_key(proposals[best])][1]:.3g}, best of {len(known)}"
        return Choice(best, note, judged.usage + Usage(cost=runs.usage.cost))

    return select


def _key(proposal: Proposal, *, squeezed: bool = False) -> str:
    def plain(value: Any) -> Any:
        return " ".join(value.split()) if squeezed and isinstance(value, str) else value

    named: Mapping[str, Any] = {
        f"{p.label}:{p.id}": plain(value) for p, value in proposal.values.items()
    }
    return identity(named)


def _told(proposal: Proposal) -> str:
    return "\n".join(f"{p.label} = {show(value, 2_000)}" for p, value in proposal.values.items())
