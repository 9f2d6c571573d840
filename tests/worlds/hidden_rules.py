"""A world with hidden rules: one word of every text decides its answer, and nobody says which.

The task model follows only the rules that stand in its prompt. The optimizer model is a bounded
learner: it finds facts (a text and its right answer) in the words of the request, keeps and mends
the rules of the present prompt, and adds a few. All words are made up by the seed, so that nothing
can be known beforehand: accuracy rises only if the facts reach the request, the reply is read right,
and what is worse is not kept. A share of the replies can be sabotaged.

What a world measures is the flow of information, robustness and economy, not how clever a model is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import tracegraph as tg
from optimizers import OptoPrime, fit
from optimizers.demo.learning import followed, induced, refuted, rules_of, written
from tests.worlds.facts import facts_in, variables_in
from tests.worlds.world import Case, World, case_of, task, words_of

__all__ = ["START", "HiddenRules"]

START = "Answer with one word."


class HiddenRules(World):
    """A task, a model that does it and one that improves its prompt; see the module.

    Args:
        seed: of every word and every case.
        rules: how many hidden rules there are.
        masked: the feedback says only that an answer is wrong.
        sabotage: the share of the optimizer model's replies that are malformed or harmful.
        bound: how many rules the optimizer model adds at a time.
        tells: the feedback repeats the text, so that the words alone are the whole fact.
    """

    def __init__(
        self,
        seed: int,
        *,
        rules: int = 20,
        fillers: int = 30,
        length: int = 5,
        masked: bool = False,
        sabotage: float = 0.0,
        bound: int = 2,
        sizes: tuple[int, int, int] = (40, 30, 200),
        tells: bool = False,
    ) -> None:
        super().__init__(seed, masked=masked, sabotage=sabotage)
        random = Random(f"hidden rules {seed}")
        words = words_of(random, 2 * rules + fillers)
        self.rules = dict(zip(words[:rules], words[rules : 2 * rules], strict=True))
        self._fillers = words[2 * rules :]
        self.bound, self.tells = bound, tells
        self.train, self.validation, self.test = (
            self._cases(random, size, length) for size in sizes
        )

    def _cases(self, random: Random, count: int, length: int) -> list[Case]:
        cues = list(self.rules)
        cases = []
        for number in range(count):
            cue = cues[number % len(cues)]
            cases.append(case_of(random, cue, self.rules[cue], self._fillers, length))
        random.shuffle(cases)
        return cases

    # The program that is improved, and who judges it

    def workflow(self, model: Any = None) -> tuple[Any, tg.Parameter[str]]:
        """A workflow of one prompt, and the prompt; `model` is asked, by default this world itself."""
        prompt = tg.node(START, trainable=True, name="prompt")
        ask = self.ask if model is None else model

        @tg.bundle
        def respond(prompt: str, text: str) -> str:
            """Ask a model for the answer to a text."""
            return task(ask, prompt, text)

        def run(case: Case) -> Any:
            return respond(prompt, case.text)

        run.prompt = prompt  # type: ignore[attr-defined]
        return run, prompt

    def guide(self, case: Case, output: str) -> tuple[float, str]:
        """Whether the answer is right, and what it should have been."""
        if output == case.answer:
            return 1.0, ""
        if self.masked:
            return 0.0, "The answer is wrong."
        told = f"For the text '{case.text}' the" if self.tells else "The"
        return 0.0, f'{told} answer is "{case.answer}", not "{output}".'

    def accuracy(self, prompt: str) -> float:
        """The share of the test cases that are answered right with a prompt."""
        right = [followed(prompt, case.text) == case.answer for case in self.test]
        return float(sum(right) / len(right))

    def learn(self, model: Any = None, task_model: Any = None) -> float:
        """Train the prompt with OptoPrime, by `model`, and say how accurate it has become."""
        run, prompt = self.workflow(task_model)
        fit(
            run, self.train, self.guide, validation=self.validation, budget=400, seed=self.seed,
            optimizer=OptoPrime([prompt], llm=model or self.ask, budget=1_250),
            validate_every=5, perfect=1.0, workers=1,
        )  # fmt: skip
        return self.accuracy(prompt.data)

    # The models

    def performed(self, messages: Sequence[Mapping[str, str]]) -> str:
        """What follows from the rules of the prompt."""
        return followed(messages[0]["content"], messages[-1]["content"])

    def improved(self, request: str, random: Random) -> dict[str, Any]:
        """Each prompt with the rules that the facts in the request support."""
        return {name: self._improved(old, request) for name, old in variables_in(request)}

    def _improved(self, prompt: str, request: str) -> str:
        facts = facts_in(request)
        rules = rules_of(prompt)
        kept = {word: label for word, label in rules.items() if not refuted(word, label, facts)}
        added = 0
        for word, label in induced(facts):
            if added == self.bound:
                break
            if kept.get(word) != label and label not in kept.values():
                kept[word] = label
                added += 1
        return written(START, kept)

    def harmful(self, request: str, good: Mapping[str, Any], random: Random) -> dict[str, Any]:
        """All rules dropped, or all answers turned."""
        if random.random() < 0.5:
            return dict.fromkeys(good, START)
        return {name: written(START, _turned(rules_of(old))) for name, old in variables_in(request)}

    def criticism(self, request: str) -> str:
        """What is wrong, fact by fact: what a reader of this alone could learn from it."""
        facts = facts_in(request)
        found = [f"For the text '{fact.text}' the answer is \"{fact.label}\"." for fact in facts]
        return "\n".join(found) or super().criticism(request)


def _turned(rules: Mapping[str, str]) -> dict[str, str]:
    """The same words, each with the next one's answer."""
    labels = list(rules.values())
    return dict(zip(rules, labels[1:] + labels[:1], strict=True))
