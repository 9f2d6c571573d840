"""A world of two objectives: answers shall be right, and the prompt short, because every line costs.

Some texts are common and some rare, so that a rule for a rare one costs more than it brings. For every
number of lines the best accuracy that can be had is known (the shares of the most common rules), so
that what an optimizer comes to can be compared with the front itself. The optimizer model adds the
rule that is asked for most, or drops the one that is needed least; what is kept, the loop decides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import tracegraph as tg
from optimizers import OptoPrime, fit
from optimizers.demo.learning import followed, induced, rules_of, written
from tests.worlds.facts import facts_in, variables_in
from tests.worlds.hidden_rules import START
from tests.worlds.world import Case, World, case_of, task, words_of

__all__ = ["TwoObjectives"]

_NEEDED = re.compile(r'"([a-z]+)" was right')


class TwoObjectives(World):
    """Hidden rules of unequal use, and a price for every line of the prompt; see the module.

    Args:
        seed: of every word and every case.
        price: what one line costs in every run; a right answer is worth 1.
        masked: the feedback says only that it could be better.
        sabotage: the share of the proposals that are spoiled.
    """

    def __init__(
        self,
        seed: int,
        *,
        price: float = 0.1,
        masked: bool = False,
        sabotage: float = 0.0,
        rules: int = 8,
    ) -> None:
        super().__init__(seed, masked=masked, sabotage=sabotage)
        self.price = price
        random = Random(f"two objectives {seed}")
        words = words_of(random, 2 * rules + 20)
        self.rules = dict(zip(words[:rules], words[rules : 2 * rules], strict=True))
        harmonic = sum(1 / n for n in range(1, rules + 1))
        self.shares = [1 / n / harmonic for n in range(1, rules + 1)]
        self.train, self.validation = (
            self._cases(random, size, words[2 * rules :]) for size in (60, 40)
        )
        self.prompt = tg.node(START, trainable=True, name="prompt")

    def _cases(self, random: Random, count: int, fillers: Sequence[str]) -> list[Case]:
        cues = random.choices(list(self.rules), self.shares, k=count)
        return [case_of(random, cue, self.rules[cue], fillers) for cue in cues]

    @property
    def lines(self) -> int:
        """How many rules the present prompt has."""
        return len(rules_of(self.prompt.data))

    @property
    def right(self) -> float:
        """The share of all texts that the present prompt gets right, exactly."""
        rules = rules_of(self.prompt.data)
        pairs = zip(self.rules.items(), self.shares, strict=True)
        return sum(share for (word, label), share in pairs if rules.get(word) == label)

    @property
    def worth(self) -> float:
        """What the present prompt is worth at this price."""
        return self.right - self.price * self.lines

    @property
    def best(self) -> float:
        """What the best prompt would be worth."""
        return sum(max(0.0, share - self.price) for share in self.shares)

    def learn(self, model: Any = None, task_model: Any = None) -> float:
        """Train with OptoPrime; what the prompt is worth, as a share of what the best one is."""
        ask, prompt = task_model or self.ask, self.prompt

        @tg.bundle
        def respond(prompt: str, text: str) -> dict[str, Any]:
            """Ask a model for the answer to a text; every line of the prompt is paid for."""
            return {"answer": task(ask, prompt, text), "lines": prompt.count("\n")}

        fit(
            lambda case: respond(prompt, case.text), self.train, self.guide, seed=self.seed,
            validation=self.validation, budget=900, workers=1, failure_score=-2.0,
            optimizer=OptoPrime([prompt], llm=model or self.ask, budget=1_250),
            batch_size=15, validate_every=2,
        )  # fmt: skip
        return self.worth / self.best

    def guide(self, case: Case, output: Mapping[str, Any]) -> tuple[float, str]:
        """The worth of one answer, and what is to be said of both objectives."""
        right = output["answer"] == case.answer
        score = right - self.price * output["lines"]
        if self.masked:
            return score, "It could be better."
        told = (
            f'"{case.answer}" was right' if right else f'The answer is "{case.answer}"'
        )  # what was right is a reason to keep its rule
        return score, f"{told}. The prompt has {output['lines']} lines; every line costs."

    def performed(self, messages: Sequence[Mapping[str, str]]) -> str:
        """What follows from the rules of the prompt."""
        return followed(messages[0]["content"], messages[-1]["content"])

    def improved(self, request: str, random: Random) -> dict[str, Any]:
        """One rule more, or one less."""
        facts = facts_in(request)
        asked = Counter(fact.label for fact in facts)
        needed = Counter(_NEEDED.findall(request))
        found = {}
        for name, old in variables_in(request):
            rules = rules_of(old)
            new = [(w, a) for w, a in induced(facts) if a not in rules.values()]
            if new and (not rules or random.random() < 0.5):
                word, label = max(new, key=lambda rule: asked[rule[1]])
                rules[word] = label
            elif rules and facts:
                del rules[min(rules, key=lambda word: needed[rules[word]])]
            found[name] = written(START, rules)
        return found

    def harmful(self, request: str, good: Mapping[str, Any], random: Random) -> dict[str, Any]:
        """One objective at the whole cost of the other: no rule, or rules that nobody needs."""
        idle = {f"{word}{word}": word for word in words_of(random, 6)}
        return {
            name: random.choice([START, written(START, {**rules_of(old), **idle})])
            for name, old in variables_in(request)
        }
