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
from optimizers.demo.learning import NOTHING, followed, induced, rules_of, written
from tests.worlds.facts import Fact, between_in, facts_in, variables_in
from tests.worlds.hidden_rules import START, Case, proposal, words_of

__all__ = ["TwoStages"]


class TwoStages:
    """A workflow of two prompts, a model that runs it and one that improves it; see the module.

    Args:
        seed: of every word, every case and who is to blame.
        rules: how many rules each stage has.
        bound: how many rules the optimizer model adds at a time.
    """

    def __init__(self, seed: int, *, rules: int = 8, bound: int = 3) -> None:
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

    def _case(self, random: Random, cue: str, fillers: list[str]) -> Case:
        text = [cue, *random.sample(fillers, 4)]
        random.shuffle(text)
        return Case(" ".join(text), self.stages[1][self.stages[0][cue]])

    def run(self, case: Case) -> Any:
        """The workflow."""
        return second(self.two, first(self.one, case.text))

    def guide(self, case: Case, output: str) -> tuple[float, str]:
        """Whether the answer is right, and what it should have been."""
        right = output == case.answer
        return float(right), "" if right else f'The answer is "{case.answer}", not "{output}".'

    @property
    def accuracy(self) -> float:
        """The share of the test cases that the present prompts answer right."""
        with tg.stop_tracing():
            right = [self.run(case).data == case.answer for case in self.test]
        return sum(right) / len(right)

    def ask(self, messages: Sequence[Mapping[str, str]]) -> str:
        """What the optimizer model proposes."""
        request = "\n\n".join(message["content"] for message in messages)
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
        return proposal({name: changed[name] for name in prompts})


@tg.bundle
def first(prompt: str, text: str) -> str:
    """Name what the text is about, by the prompt."""
    return followed(prompt, text)


@tg.bundle
def second(prompt: str, word: str) -> str:
    """Answer for the word, by the prompt."""
    return followed(prompt, word)
