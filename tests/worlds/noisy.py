"""The hidden-rule world with a noisy metric: the same answer, judged twice, gets two scores.

What the guide says in words stays true; only the score is shaken, by a normal law with the given
deviation, anew each time. Whoever keeps what scored higher once keeps luck.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Any

from optimizers import OptoPrime, fit
from optimizers.demo.learning import rules_of, written
from optimizers.training.acceptance import Paired
from tests.worlds.facts import variables_in
from tests.worlds.hidden_rules import START, HiddenRules
from tests.worlds.world import Case, words_of

__all__ = ["Noisy"]


class Noisy(HiddenRules):
    """`HiddenRules` whose scores are shaken; see the module.

    Args:
        noise: the standard deviation of what is added to a score of 0 or 1.
        alpha: how sure `Paired` has to be; 1 believes every larger sum.
        options: as for `HiddenRules`.
    """

    def __init__(
        self, seed: int, *, noise: float = 0.3, alpha: float = 0.25, **options: Any
    ) -> None:
        super().__init__(seed, **{"rules": 10, **options})
        self.noise, self.alpha = noise, alpha
        self._judged: Counter[tuple[str, str]] = Counter()
        self.accepted: list[tuple[float, float]] = []

    def guide(self, case: Case, output: str) -> tuple[float, str]:
        """The score with noise, and true words."""
        score, words = super().guide(case, output)
        self._judged[case.text, output] += 1
        drawn = Random(f"{self.seed} {case.text} {output} {self._judged[case.text, output]}")
        return score + drawn.gauss(0.0, self.noise), words

    def harmful(self, request: str, good: Mapping[str, Any], random: Random) -> dict[str, Any]:
        """Half of it as elsewhere; else a rule for a word that no text has: in truth no change."""
        if random.random() < 0.5:
            return super().harmful(request, good, random)
        idle = dict([words_of(random, 2)])
        return {n: written(START, {**rules_of(old), **idle}) for n, old in variables_in(request)}

    def learn(self, model: Any = None, task_model: Any = None) -> float:
        """Train with OptoPrime; `accepted` says for each accepted prompt how accurate it was before
        and after, without noise.
        """
        run, prompt = self.workflow(task_model)
        before = [self.accuracy(prompt.data)]

        def watch(event: Any) -> None:
            if event.kind == "accepted":
                self.accepted.append((before[0], self.accuracy(prompt.data)))
                before[0] = self.accuracy(prompt.data)

        fit(
            run, self.train, self.guide, validation=self.validation, budget=600, seed=self.seed,
            optimizer=OptoPrime([prompt], llm=model or self.ask, budget=1_250),
            acceptance=Paired(alpha=self.alpha), validate_every=5, workers=1, on=[watch],
        )  # fmt: skip
        return self.accuracy(prompt.data)
