"""A world left to chance: where no rule applies the task model guesses, and now and then is right.

Nobody says what is right: the guide gives scores and no words. Two runs of one text differ by chance, and
only who sets the better beside the worse can read from them which answer to write a rule for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from optimizers import Budget, Rules, fit
from optimizers.demo.learning import NOTHING, followed, rules_of
from tests.worlds.facts import variables_in
from tests.worlds.hidden_rules import HiddenRules
from tests.worlds.world import TASK, Case

__all__ = ["Chance"]

_BETTER = re.compile(r"Better, score [^\n]*\n.*?text = '([a-z ]+)'\nrespond gave: '([a-z]+)'", re.S)


class Chance(HiddenRules):
    """Hidden rules, guesses and scores, for `Rules`; see the module.

    Args:
        seed: of every word, case and guess.
        options: as for `HiddenRules`; masked, every answer scores the same.
    """

    def __init__(self, seed: int, **options: Any) -> None:
        super().__init__(seed, **{"rules": 6, "length": 3, "sizes": (24, 1, 120), **options})
        self._runs: Counter[str] = Counter()

    def performed(self, messages: Sequence[Mapping[str, str]]) -> str:
        """What follows from the rules of the prompt, else a guess."""
        prompt, text = messages[0]["content"], messages[-1]["content"].removeprefix(TASK)
        said = followed(prompt, text)
        self._runs[text] += 1
        guess = Random(f"{self.seed} {text} {self._runs[text]}").choice(list(self.rules.values()))
        return guess if said == NOTHING else said

    def guide(self, case: Case, output: str) -> Any:
        """Whether the answer is right, and not a word."""
        return 0.0 if self.masked else float(output == case.answer)

    def learn(self, model: Any = None, task_model: Any = None) -> float:
        """Train the prompt with `Rules`."""
        run, prompt = self.workflow(task_model)
        fit(
            run, self.train, self.guide, budget=Budget(steps=60), seed=self.seed, workers=1,
            optimizer=Rules([prompt], llm=model or self.ask, budget=1_250), batch_size=12,
        )  # fmt: skip
        return self.accuracy(prompt.data)

    def improved(self, request: str, random: Random) -> dict[str, Any]:
        """One rule for a text that went well once: by which of its words is a guess."""
        found = {}
        for name, prompt in variables_in(request):
            known = rules_of(prompt)
            facts = [
                (text.split(), label)
                for text, label in _BETTER.findall(request)
                if followed(prompt, text) != label
            ]
            if facts:
                words, label = random.choice(facts)
                possible = [word for word in words if word not in known]
                found[name] = f'"{random.choice(possible or words)}" means "{label}"'
        return found

    def harmful(self, request: str, good: Mapping[str, Any], random: Random) -> dict[str, Any]:
        """A rule with an answer that is another's."""
        labels = list(self.rules.values())
        return {
            name: f'{str(rule).rpartition(" ")[0]} "{random.choice(labels)}"'
            for name, rule in good.items()
        }
