"""A world of two stages of which only one is to blame, and only the value between them tells which.

The first stage turns a text into a word, the second turns that word into the answer, each by the rules
in its own prompt. One of the two prompts is complete, the other has no rules; the feedback names the
right answer and neither stage. The optimizer model sees who failed from the word in between: where
there is none the first stage has failed, else the second. Without that word it cannot tell, and it
then changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import tracegraph as tg
from optimizers import OptoPrime, fit
from optimizers.demo.learning import NOTHING, followed, induced, rules_of, written
from tests.worlds.facts import Fact, between_in, facts_in, variables_in
from tests.worlds.hidden_rules import START
from tests.worlds.world import Case, World, case_of, task, words_of

__all__ = ["TwoStages"]


class TwoStages(World):
    """A workflow of two prompts, a model that runs it and one that improves it; see the module.

    Args:
        seed: of every word, every case and who is to blame.
        masked: the feedback says only that an answer is wrong.
        sabotage: the share of the proposals that are spoiled.
        rules: how many rules each stage has.
        bound: how many rules the optimizer model adds at a time.
    """

    def __init__(
        self,
        seed: int,
        *,
        masked: bool = False,
        sabotage: float = 0.0,
        rules: int = 8,
        bound: int = 3,
    ) -> None:
        super().__init__(seed, masked=masked, sabotage=sabotage)
        random = Random(f"two stages {seed}")
        words = words_of(random, 3 * rules + 8)
        cues, between, answers = (words[n * rules : (n + 1) * rules] for n in range(3))
        self.stages = (
            dict(zip(cues, between, strict=True)),
            dict(zip(between, answers, strict=True)),
        )
        self.blamed = random.randrange(2)
        self.bound = bound
        fillers = words[3 * rules :]
        self.train, self.test = (
            [self._case(random, cues[n % rules], fillers) for n in range(size)] for size in (16, 40)
        )
        prompts = [written(START, self.stages[0]), written(START, self.stages[1])]
        prompts[self.blamed] = START
        self.one, self.two = (
            tg.node(prompt, trainable=True, name=name)
            for prompt, name in zip(prompts, ("one", "two"), strict=True)
        )
        self._performer: Any = self.ask

    def _case(self, random: Random, cue: str, fillers: list[str]) -> Case:
        return case_of(random, cue, self.stages[1][self.stages[0][cue]], fillers)

    def run(self, case: Case) -> Any:
        """The workflow."""
        ask = self._performer

        @tg.bundle
        def first(prompt: str, text: str) -> str:
            """Name what the text is about, by the prompt."""
            return task(ask, prompt, text)

        @tg.bundle
        def second(prompt: str, word: str) -> str:
            """Answer for the word, by the prompt."""
            return task(ask, prompt, word)

        return second(self.two, first(self.one, case.text))

    def guide(self, case: Case, output: str) -> tuple[float, str]:
        """Whether the answer is right, and what it should have been."""
        if output == case.answer:
            return 1.0, ""
        return 0.0, "Wrong." if self.masked else f'The answer is "{case.answer}", not "{output}".'

    @property
    def accuracy(self) -> float:
        """The share of the test cases that the present prompts answer right."""
        with tg.stop_tracing():
            right = [self.run(case).data == case.answer for case in self.test]
        return float(sum(right) / len(right))

    def learn(self, model: Any = None, task_model: Any = None, *, optimizer: Any = None) -> float:
        """Train both prompts, with OptoPrime unless another optimizer is given."""
        self._performer = task_model or self.ask
        optimizer = optimizer or OptoPrime([self.one, self.two], llm=model or self.ask)
        fit(
            self.run, self.train, self.guide, optimizer=optimizer, budget=200, batch_size=8,
            workers=1,
        )  # fmt: skip
        return self.accuracy

    def performed(self, messages: Sequence[Mapping[str, str]]) -> str:
        """What follows from the rules of the prompt."""
        return followed(messages[0]["content"], messages[-1]["content"])

    def improved(self, request: str, random: Random) -> dict[str, Any]:
        """The prompt of the stage that the words in between blame, with a few rules more."""
        prompts = dict(variables_in(request))
        one, two = (rules_of(prompts.get(name, "")) for name in ("one", "two"))
        word_for = {label: word for word, label in two.items()}
        between = between_in(request)
        for_one, for_two = [], []
        for fact in facts_in(request):
            word = between.get(fact.text)
            if word == NOTHING and fact.label in word_for:
                for_one.append(Fact(fact.text, word_for[fact.label]))
            elif word not in (None, NOTHING):
                for_two.append((str(word), fact.label))
        found = [rule for rule in induced(for_one) if rule[1] not in one.values()]
        changed = {
            "one": written(START, {**one, **dict(found[: self.bound])}),
            "two": written(START, {**two, **dict(for_two[: self.bound])}),
        }
        return {name: changed[name] for name in prompts}

    def harmful(self, request: str, good: Mapping[str, Any], random: Random) -> dict[str, Any]:
        """All rules dropped in one stage."""
        return {random.choice(sorted(good)): START} if good else {}
