"""A world of words and numbers: a prompt names a thing, a trained vector says what it is worth.

The model names the thing that a text is about, by the rules in its prompt. Each thing has features, and
its worth is their product with a vector that nobody knows. Rules come by remarks, through the model;
the vector comes by gradients, through torch; both go back in one walk. Either alone is worth nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Literal

import torch

import tracegraph as tg
from optimizers import SGD, OptoPrime, Partition, fit
from optimizers.demo.learning import NOTHING, followed, induced, refuted, rules_of, written
from optimizers.training.acceptance import Paired
from optimizers.training.result import Result
from tests.worlds.facts import facts_in, variables_in
from tests.worlds.world import Case, World, case_of, task, words_of

__all__ = ["Mixed"]

_START = "Name the thing."
_NEAR = 0.25


class Mixed(World):
    """A prompt and a vector that are trained together; see the module.

    Args:
        seed: of all words, features and worths.
        masked: which feedback is withheld: the words, the gradients, or none.
        sabotage: the share of the proposals that are spoiled.
    """

    def __init__(
        self,
        seed: int,
        *,
        masked: Literal["words", "gradients"] | None = None,
        sabotage: float = 0.0,
        rules: int = 6,
    ) -> None:
        super().__init__(seed, masked=masked is not None, sabotage=sabotage)
        self.withheld = masked
        random = Random(f"mixed {seed}")
        words = words_of(random, 2 * rules + 12)
        self.rules = dict(zip(words[:rules], words[rules : 2 * rules], strict=True))
        generator = torch.Generator().manual_seed(seed)
        directions = torch.linalg.qr(torch.randn(rules, rules, generator=generator))[0]
        self.features = dict(zip(self.rules.values(), directions, strict=True))
        self.features[NOTHING] = torch.zeros(rules)
        worths = [random.choice((-1, 1)) * random.uniform(1, 3) for _ in range(rules)]
        truth = directions.T @ torch.tensor(worths)
        self.worth = {thing: float(row @ truth) for thing, row in self.features.items()}
        self.train, self.test = (self._cases(random, size, words[2 * rules :]) for size in (24, 60))
        self.prompt = tg.node(_START, trainable=True, name="prompt")
        self.vector = tg.node(torch.zeros(rules), trainable=True, name="vector")

    def _cases(self, random: Random, count: int, fillers: Sequence[str]) -> list[Case]:
        cues = list(self.rules)
        made = []
        for number in range(count):
            cue = cues[number % len(cues)]
            made.append(case_of(random, cue, self.rules[cue], fillers))
        return made

    def learn(self, model: Any = None, task_model: Any = None) -> float:
        """Train the prompt by a model and the vector by gradient descent, in one loop."""
        run = self.workflow(task_model)
        mover = SGD([self.vector], lr=0.1)
        self.train_with(Partition(mover, OptoPrime([self.prompt], llm=model or self.ask)), run)
        with tg.stop_tracing(), torch.no_grad():
            near = [abs(self._off(c, run(c).data)) < _NEAR for c in self.test]
        return sum(near) / len(near)

    def train_with(self, optimizer: Any, run: Any, **options: Any) -> Result:
        """Train by an optimizer of the prompt and the vector."""
        given = {
            "budget": 600, "batch_size": 8, "workers": 1, "acceptance": Paired(alpha=1.0), "tries": 1,
            "seed": self.seed, "failure_score": -100.0, **options,
        }  # fmt: skip
        return fit(run, self.train, self.guide, optimizer=optimizer, **given)

    def workflow(self, task_model: Any = None) -> Any:
        """What names the thing of a case and says its worth."""
        ask = task_model or self.ask
        prompt, vector, features = self.prompt, self.vector, self.features

        @tg.bundle
        def thing(prompt: str, text: str) -> str:
            """Ask a model what a text is about."""
            return task(ask, prompt, text)

        @tg.bundle
        def seen(thing: str) -> Any:
            """The features of a thing."""
            return features.get(thing, features[NOTHING])

        @tg.bundle
        def told(seen: Any, vector: Any) -> Any:
            """The features, and behind them the worth."""
            return torch.cat([seen, (seen @ vector).reshape(1)])

        def run(case: Case) -> Any:
            return told(seen(thing(prompt, case.text)), vector)

        return run

    def _off(self, case: Case, output: Any) -> float:
        return float(output[-1]) - self.worth[case.answer]

    def guide(self, case: Case, output: Any) -> list[tg.Feedback]:
        """How far off the thing and its worth are, the gradient by the worth, and which thing it was."""
        output = output.detach()
        off = self._off(case, output)
        beside = float((output[:-1] - self.features[case.answer]).square().sum())
        found: list[tg.Feedback] = [tg.Score(-beside - off**2)]
        if self.withheld != "gradients":
            gradient = torch.zeros_like(output)
            gradient[-1] = 2 * off
            found.append(tg.Gradient(gradient))
        if beside > 0:
            masked = self.withheld == "words"
            found.append(tg.Remark("It is wrong." if masked else f'The answer is "{case.answer}".'))
        return found

    def performed(self, messages: Sequence[Mapping[str, str]]) -> str:
        """What follows from the rules of the prompt."""
        return followed(messages[0]["content"], messages[-1]["content"])

    def improved(self, request: str, random: Random) -> dict[str, Any]:
        """The prompt with two more rules that the facts support."""
        facts = facts_in(request)
        found = {}
        for name, old in variables_in(request):
            rules = {w: a for w, a in rules_of(old).items() if not refuted(w, a, facts)}
            new = [(w, a) for w, a in induced(facts) if a not in rules.values()]
            found[name] = written(_START, {**rules, **dict(new[:2])})
        return found

    def harmful(self, request: str, good: Mapping[str, Any], random: Random) -> dict[str, Any]:
        """All rules dropped."""
        return dict.fromkeys(good, _START)
