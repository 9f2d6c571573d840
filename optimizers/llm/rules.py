"""Rules: contrast a better and a worse run on the same example, and append what to do as a rule.

Source: the rule step of SIMBA ("stochastic introspective mini-batch ascent") and the induction of rules of
InferRules, both in DSPy (Khattab et al., arXiv 2310.03714): the examples whose runs differ most in their
scores come first, a model compares the best run with the worst and writes advice for one component, and the
advice is added to its text. Two runs of the same example differ because the parameters changed or the
workflow is left to chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from optimizers.base import Proposal, Rejection, Update
from optimizers.llm.asking import ModelOptimizer
from optimizers.llm.turns import OfThread
from optimizers.records import Record, records_of
from tracegraph.errors import OptimizerError
from tracegraph.kinds import show
from tracegraph.llm import Message
from tracegraph.llm.tokens import cut
from tracegraph.problem import Problem

__all__ = ["Rules"]

_MARK: Final = "- "
_SYSTEM = """\
You write advice for one component of a workflow. You see its text, and pairs of runs on the same example: one
that went better, one that went worse. Find out what made the difference, and write it as one rule that leads
to the better run, of the kind "When ..., do ..., because ...". The rule is added to the text; do not repeat
the text, nor a rule that stands in it. Answer with one JSON object:
{"reasoning": "in a few sentences", "suggestion": {"name of the component": "the rule"}}"""


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of an example, as far as a component saw it."""

    score: float
    told: str


@final
class Rules(ModelOptimizer):
    """Adds rules to texts, learned from runs of one example that scored differently; needs scores.

    While no example was run both better and worse, nothing is asked. Runs are remembered: the best and the
    worst of each example.

    Args:
        pairs: how many pairs of runs the model is shown at a time.
        most: how many rules a text may have; the oldest one gives way.
        longest: how many characters a rule may have.
        parameters: texts; see `ModelOptimizer`, as for the other options. ``memory_size`` counts examples.

    >>> import tracegraph as tg
    >>> from tracegraph.llm import Scripted
    >>> @tg.bundle
    ... def answer(prompt, question):
    ...     return next(replies)
    >>> replies = iter(["4", "four"])
    >>> prompt = tg.node("Answer.", trainable=True, name="prompt")
    >>> rules = Rules([prompt], llm=Scripted(['{"suggestion": {"prompt": "Write digits."}}']))
    >>> good, bad = answer(prompt, "2 + 2?"), answer(prompt, "2 + 2?")
    >>> _ = rules.backward([(good, 1.0), (bad, 0.0)])
    >>> print(rules.step())
    prompt: 'Answer.' -> 'Answer.\\n- Write digits.'
    """

    _chosen = OfThread("")
    default_objective = "Find a rule that makes the worse run like the better one."

    def __init__(
        self,
        parameters: Any,
        *args: Any,
        pairs: int = 3,
        most: int = 10,
        longest: int = 400,
        **options: Any,
    ) -> None:
        super().__init__(parameters, *args, **options)
        for name, number in (("pairs", pairs), ("most", most), ("longest", longest)):
            if not isinstance(number, int) or number < 1:
                raise OptimizerError(f"{name} must be a whole number from 1, got {number!r}")
        for name, parameter in self.named_parameters.items():
            if parameter.kind.name != "text":
                raise OptimizerError(
                    f"Rules adds sentences to texts, and {name!r} is {parameter.kind.name}"
                )
        self.pairs, self.most, self.longest = pairs, most, longest
        self.rules: dict[str, list[str]] = {name: [] for name in self.named_parameters}
        self.runs: dict[str, dict[str, tuple[_Run, _Run]]] = {n: {} for n in self.named_parameters}
        self._shown: dict[tuple[str, str], int] = {}

    def propose(
        self, *, mask: Iterable[str] = (), verbose: bool = False, **options: Any
    ) -> Proposal:
        """Take in the runs that arrived, and ask for a rule where two of them differ."""
        for name, parameter in self.named_parameters.items():
            if parameter.trainable:
                self._take_in(name, records_of(parameter))
        self._chosen = self._most_telling()
        if not self._chosen:
            return Proposal(
                {}, note="no example was run both better and worse yet; nothing was asked"
            )
        proposal = super().propose(mask=mask, verbose=verbose, **options)
        for _, example in self._ranked(self._chosen)[: self.pairs]:
            key = (self._chosen, example)
            self._shown[key] = self._shown.get(key, 0) + 1
        parameter = self.named_parameters[self._chosen]
        advice = proposal.values.get(parameter)
        if advice is None:
            return Proposal(
                {}, proposal.reasoning, proposal.rejections, proposal.usage, proposal.note
            )
        rule = " ".join(str(advice).split()).removeprefix(_MARK.strip()).strip()
        reason = self._wrong(rule, parameter.data)
        if reason:
            rejected = (*proposal.rejections, Rejection(self._chosen, advice, reason))
            return Proposal({}, proposal.reasoning, rejected, proposal.usage, proposal.note)
        value = self._with(self._chosen, parameter.data, rule)
        return Proposal(
            {parameter: value},
            proposal.reasoning,
            proposal.rejections,
            proposal.usage,
            proposal.note,
        )

    def settle(self, proposal: Proposal, *, bypassing: bool = False) -> Update:
        """Assign, and count the rule as one of the text's."""
        update = super().settle(proposal, bypassing=bypassing)
        if not bypassing:
            for change in update.changes:
                kept = [r for r in self.rules[change.name] if f"{_MARK}{r}" in str(change.after)]
                new = str(change.after).rpartition("\n")[2].removeprefix(_MARK)
                self.rules[change.name] = [*kept, new]
        return update

    def messages(self, problem: Problem, mask: tuple[str, ...]) -> list[Message]:
        """The component and the pairs that differ most."""
        name = self._chosen
        parameter = self.named_parameters[name]
        value = cut(parameter.data, self.budget * 2)
        parts = [f"#Objective\n{self.objective}", f"#Component\n(text) {name} =\n{value}"]
        if parameter.description:
            parts.append(f"#What it is\n{parameter.description}")
        if self.rejected:
            parts.append("#Refused\n" + "\n".join(f"{r.name}: {r.reason}" for r in self.rejected))
        room = self.budget * 4 - len(_SYSTEM) - sum(map(len, parts)) - 20
        for number, (_, example) in enumerate(self._ranked(name)[: self.pairs]):
            best, worst = self.runs[name][example]
            share = max(100, room // 2 - 60)  # the first pair is shown, and cut where it must be
            text = (
                f"#Pair {number + 1}\nBetter, score {best.score:g}:\n{cut(best.told, share)}\n\n"
                f"Worse, score {worst.score:g}:\n{cut(worst.told, share)}"
            )
            if number and len(best.told) + len(worst.told) + 80 > room:
                parts.append("(further pairs are left out)")
                break
            parts.append(text)
            room -= len(text) + 2
        return [Message("system", _SYSTEM), Message("user", "\n\n".join(parts))]

    def learn(self, problem: Problem) -> None:
        """Facts are not kept here: runs are."""

    def state_dict(self) -> dict[str, Any]:
        """As for every optimizer that asks, and the runs and the rules."""
        runs = {
            name: {e: [[r.score, r.told] for r in pair] for e, pair in found.items()}
            for name, found in self.runs.items()
        }
        shown = [[name, example, times] for (name, example), times in self._shown.items()]
        return {**super().state_dict(), "runs": runs, "rules": self.rules, "shown": shown}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember what `state_dict` gave."""
        try:
            runs = {
                name: {
                    e: (_Run(float(b[0]), str(b[1])), _Run(float(w[0]), str(w[1])))
                    for e, (b, w) in state["runs"][name].items()
                }
                for name in self.named_parameters
            }
            rules = {name: list(map(str, state["rules"][name])) for name in self.named_parameters}
            shown = {(str(n), str(e)): int(times) for n, e, times in state["shown"]}
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise OptimizerError(f"this is no state of Rules: {show(state, 80)}") from error
        super().load_state_dict(state)
        self.runs, self.rules, self._shown = runs, rules, shown

    def _take_in(self, name: str, records: Iterable[Record]) -> None:
        """Keep the best and the worst run of each example; the latest examples stay."""
        known = self.runs[name]
        for record in records:
            if record.score is None:
                continue
            run = _Run(record.score, cut(str(record), self.budget * 4))
            best, worst = known.pop(record.example, (run, run))
            known[record.example] = (
                run if run.score > best.score else best,
                run if run.score < worst.score else worst,
            )
        while len(known) > max(self.memory.size, 1):
            del known[next(iter(known))]

    def _ranked(self, name: str) -> list[tuple[float, str]]:
        """The examples with two different scores: those shown least first, then by their gap."""
        found = [
            (self._shown.get((name, e), 0), worst.score - best.score, e)
            for e, (best, worst) in self.runs[name].items()
            if best.score > worst.score
        ]
        return [(-gap, example) for _, gap, example in sorted(found)]

    def _most_telling(self) -> str:
        """The component whose first pair was shown least and differs most; empty where there is none."""
        best = [
            (self._shown.get((name, ranked[0][1]), 0), -ranked[0][0], name)
            for name in self.named_parameters
            if self.named_parameters[name].trainable and (ranked := self._ranked(name))
        ]
        return min(best)[2] if best else ""

    def _wrong(self, advice: str, text: str) -> str:
        if not advice:
            return "the rule is empty"
        if len(advice) > self.longest:
            return f"a rule may have {self.longest} characters, this one has {len(advice)}"
        if advice in text:
            return "this rule stands in the text already; write another one, or leave the suggestion empty"
        return ""

    def _with(self, name: str, text: str, advice: str) -> str:
        """The text with one more rule, without the oldest where there would be too many."""
        lines = text.rstrip().split("\n")
        own = [r for r in self.rules[name] if f"{_MARK}{r}" in lines]
        for rule in own[: max(0, len(own) + 1 - self.most)]:
            lines.remove(f"{_MARK}{rule}")
        return "\n".join([*lines, f"{_MARK}{advice}"])
