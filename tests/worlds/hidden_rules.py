"""A world with hidden rules: one word of every text decides its answer, and nobody says which.

The task model follows only the rules that stand in its prompt. The optimizer model is a bounded
learner: it finds facts (a text and its right answer) in the words of the request, keeps and mends
the rules of the present prompt, and adds a few. All words are made up by the seed, so that nothing
can be known beforehand: accuracy rises only if the facts reach the request, the reply is read right,
and what is worse is not kept. A share of the replies can be sabotaged.

What a world measures is the flow of information, robustness and economy, not how clever a model is.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import tracegraph as tg
from optimizers.demo.learning import NOTHING, followed, induced, refuted, rules_of, written
from tests.worlds.facts import facts_in, variables_in
from tests.worlds.server import Answer

__all__ = ["START", "Case", "HiddenRules", "proposal", "words_of"]

START = "Answer with one word."


@dataclass(frozen=True)
class Case:
    """One text and the answer that is wanted."""

    text: str
    answer: str


class HiddenRules:
    """A task, a model that does it and one that improves its prompt; see the module.

    Args:
        seed: of every word and every case.
        rules: how many hidden rules there are.
        masked: the feedback says only that an answer is wrong.
        sabotage: the share of the optimizer model's replies that are malformed or harmful.
        bound: how many rules the optimizer model adds at a time.
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
    ) -> None:
        random = Random(f"hidden rules {seed}")
        words = words_of(random, 2 * rules + fillers)
        self.seed = seed
        self.rules = dict(zip(words[:rules], words[rules : 2 * rules], strict=True))
        self._fillers = words[2 * rules :]
        self.masked, self.sabotage, self.bound = masked, sabotage, bound
        self.train, self.validation, self.test = (
            self._cases(random, size, length) for size in sizes
        )
        self.calls: Counter[str] = Counter()
        self.longest = 0
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()

    def _cases(self, random: Random, count: int, length: int) -> list[Case]:
        cues = list(self.rules)
        cases = []
        for number in range(count):
            cue = cues[number % len(cues)]
            text = [cue, *random.sample(self._fillers, length - 1)]
            random.shuffle(text)
            cases.append(Case(" ".join(text), self.rules[cue]))
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
            messages = [
                {"role": "system", "content": prompt},
                {"role": "user", "content": f"Text: {text}"},
            ]
            return str(ask(messages=messages))

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
        return 0.0, f'The answer is "{case.answer}", not "{output}".'

    def accuracy(self, prompt: str) -> float:
        """The share of the test cases that are answered right with a prompt."""
        right = [followed(prompt, case.text) == case.answer for case in self.test]
        return sum(right) / len(right)

    # The models

    def ask(self, messages: Sequence[Mapping[str, str]]) -> str:
        """What the model answers: the task, a proposal, or a critique."""
        text = "\n\n".join(message["content"] for message in messages)
        if messages[-1]["content"].startswith("Text: "):
            self._count("task", 0)
            return followed(messages[0]["content"], messages[-1]["content"])
        self._count("optimizer", len(text))
        random = Random(f"{self.seed} {self._occurrence(text)} {text}")
        if '"suggestion"' not in text:
            reply = self._criticism(text)
            return _spoiled_words(reply, random) if random.random() < self.sabotage else reply
        if random.random() < self.sabotage:
            return self._sabotaged(text, random)
        return proposal({name: self._improved(old, text) for name, old in variables_in(text)})

    def answer(self, request: dict[str, Any]) -> Answer:
        """The same for a `Server`."""
        return Answer(content=self.ask(request["messages"]))

    def _count(self, kind: str, characters: int) -> None:
        with self._lock:
            self.calls[kind] += 1
            self.longest = max(self.longest, characters)

    def _occurrence(self, text: str) -> int:
        """How often the same was asked before: a model's second answer may be another one."""
        digest = hashlib.sha256(text.encode()).hexdigest()
        with self._lock:
            self._asked[digest] += 1
            return self._asked[digest]

    def _improved(self, prompt: str, request: str) -> str:
        """A prompt with the rules that the facts in a request support."""
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

    def _criticism(self, request: str) -> str:
        """What is wrong, fact by fact: what a reader of this alone could learn from it."""
        facts = facts_in(request)
        said = [f"For the text '{fact.text}' the answer is \"{fact.label}\"." for fact in facts]
        return "\n".join(said) or "Nothing can be said of what is wrong."

    def _sabotaged(self, request: str, random: Random) -> str:
        """A reply that is malformed, or reads well and does harm."""
        named = variables_in(request)
        good = {name: self._improved(old, request) for name, old in named}
        whole = proposal(good)
        rules = {name: rules_of(old) for name, old in named}
        turned = {
            name: written(
                START, dict(zip(old, [*old.values()][1:] + [*old.values()][:1], strict=True))
            )
            for name, old in rules.items()
        }
        return random.choice(
            [
                whole[: len(whole) * 2 // 3],
                "I am sorry, I cannot see what to change here.",
                "",
                proposal(dict.fromkeys(good, START)),
                proposal(turned),
                proposal({name + "_x": text for name, text in good.items()}),
                proposal({name: [1, 2] for name in good}),
                "{'reasoning': 'because', 'suggestion': " + repr(good)[:-3],
            ]
        )


def words_of(random: Random, count: int) -> list[str]:
    """So many words that nobody has seen before."""
    found: dict[str, None] = {}
    while len(found) < count:
        syllables = (
            random.choice("bdfgklmnprstvz") + random.choice("aeiou")
            for _ in range(random.choice((2, 3)))
        )
        word = "".join(syllables) + random.choice(("", "k", "n", "r", "s"))
        if word != NOTHING:
            found[word] = None
    return list(found)


def proposal(values: Mapping[str, Any]) -> str:
    """The reply that suggests values."""
    return json.dumps({"reasoning": "by the facts", "suggestion": dict(values)})


def _spoiled_words(text: str, random: Random) -> str:
    return random.choice(["", text[: len(text) // 2], "All is well."])
