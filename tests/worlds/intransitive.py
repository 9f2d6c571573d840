"""A world whose judge is intransitive: of equally right answers it prefers styles in a circle.

There are no right answers to see, only duels, and the requirements in words. The judge lets the right
answer win. Where both are right, or both wrong, it prefers red to blue, blue to green and green to red,
and of one style always the first one shown. Who follows such a judge can go round for ever; what must not
happen is that right answers are lost on the way, or that a place on the screen decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import tracegraph as tg
from optimizers import SPO, Budget, Paired, fit
from optimizers.demo.learning import followed, induced, rules_of, written
from optimizers.training.result import Event
from tests.worlds.facts import facts_in, variables_in
from tests.worlds.hidden_rules import START
from tests.worlds.world import Case, World, case_of, task, words_of

__all__ = ["STYLES", "Intransitive"]

STYLES = ("red", "green", "blue")
"""Each loses to the one behind it, the last to the first."""


class Intransitive(World):
    """Hidden rules and styles, judged in pairs; see the module.

    Args:
        seed: of every word and every case.
        masked: the requirements do not say what is right.
        sabotage: the share of the proposals that are spoiled.
        rounds: how often `SPO` may improve.
        trained: by `fit`, with `SPO.guide`, in place of `SPO.improve`.
        workers: how many examples `fit` runs at once.
    """

    def __init__(
        self,
        seed: int,
        *,
        masked: bool = False,
        sabotage: float = 0.0,
        rounds: int = 30,
        rules: int = 6,
        trained: bool = False,
        workers: int = 1,
    ) -> None:
        super().__init__(seed, masked=masked, sabotage=sabotage)
        self.rounds, self.trained, self.workers = rounds, trained, workers
        random = Random(f"intransitive {seed}")
        words = words_of(random, 2 * rules + 20)
        self.rules = dict(zip(words[:rules], words[rules : 2 * rules], strict=True))
        self.known, self.examples, self.test = (
            self._cases(random, size, words[2 * rules :]) for size in (18, 9, 60)
        )
        self.prompt = tg.node(f"{START}\nStyle: red", trainable=True, name="prompt")
        self.kept: list[tuple[str, float]] = []

    def _cases(self, random: Random, count: int, fillers: Sequence[str]) -> list[Case]:
        cues = list(self.rules)
        made = []
        for number in range(count):
            cue = cues[number % len(cues)]
            made.append(case_of(random, cue, self.rules[cue], fillers))
        return made

    @property
    def accuracy(self) -> float:
        """The share of the test cases that the present prompt gets right, whatever the style."""
        right = [followed(self.prompt.data, case.text) == case.answer for case in self.test]
        return float(sum(right) / len(right))

    def judge(self, case: Case, first: str, second: str) -> float:
        """Above 0 where the first answer is preferred, below 0 where the second is."""
        (one, style), (two, other) = (answer.split(" in ") for answer in (first, second))
        right = (one == case.answer) - (two == case.answer)
        if right and not self.masked:
            return float(right)
        turn = (STYLES.index(style) - STYLES.index(other)) % 3
        return {0: 0.5, 1: 1.0, 2: -1.0}[turn]

    def learn(self, model: Any = None, task_model: Any = None) -> float:
        """Improve with SPO; `kept` says after each accepted proposal its style and accuracy."""
        ask, prompt = task_model or self.ask, self.prompt

        @tg.bundle
        def respond(prompt: str, text: str) -> str:
            """Ask a model for the answer to a text."""
            return task(ask, prompt, text)

        spo = SPO(
            [prompt],
            llm=model or self.ask,
            requirements=self._requirements(),
            judge=self.judge,
            budget=1_250,
        )

        def run(case: Case) -> Any:
            return respond(prompt, case.text)

        if self.trained:
            fit(
                run, self.examples, spo.guide, optimizer=spo, budget=Budget(steps=self.rounds),
                tries=1, acceptance=Paired(alpha=1), on=[self._note], workers=self.workers,
                seed=self.seed,
            )  # fmt: skip
            return self.accuracy
        for _ in range(self.rounds):
            update, duel = spo.improve(run, self.examples)
            if duel is not None and update.changes:
                self._note_kept()
        return self.accuracy

    def _note(self, event: Event) -> None:
        if event.kind == "accepted":
            self._note_kept()

    def _note_kept(self) -> None:
        self.kept.append((_style(self.prompt.data), self.accuracy))

    def _requirements(self) -> str:
        if self.masked:
            return "The answers shall be right."
        facts = [f"For the text '{c.text}' the answer is \"{c.answer}\"." for c in self.known]
        return "\n".join(["The answers shall be right.", *facts])

    def performed(self, messages: Sequence[Mapping[str, str]]) -> str:
        """What follows from the rules of the prompt, in its style."""
        prompt = messages[0]["content"]
        return f"{followed(prompt, messages[-1]['content'])} in {_style(prompt)}"

    def improved(self, request: str, random: Random) -> dict[str, Any]:
        """One rule more by what the requirements say, in the style that beats the present one."""
        facts = facts_in(request)
        found = {}
        for name, old in variables_in(request):
            rules = rules_of(old)
            new = [rule for rule in induced(facts) if rule[1] not in rules.values()]
            style = STYLES[(STYLES.index(_style(old)) + 1) % 3]
            found[name] = written(f"{START}\nStyle: {style}", {**rules, **dict(new[:1])})
        return found

    def harmful(self, request: str, good: Mapping[str, Any], random: Random) -> dict[str, Any]:
        """The style that is liked now, and no rule."""
        return {name: f"{START}\nStyle: {_style(str(value))}" for name, value in good.items()}


def _style(prompt: str) -> str:
    return next((style for style in STYLES if f"Style: {style}" in prompt), STYLES[0])
