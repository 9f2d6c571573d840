"""What all worlds share: one model that performs tasks and proposes, in place or over HTTP, and counts.

A world's model is a deterministic reader: a task is done by what its prompt says, a proposal is made
from what its request says. A share of the proposals is spoiled: malformed, or well formed and harmful.
"""

from __future__ import annotations

import hashlib
import json
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

from optimizers.demo.learning import NOTHING
from tests.worlds.server import Answer, Server
from tracegraph.llm import LanguageModel, LiteLLM

__all__ = ["TASK", "Case", "World", "case_of", "proposal", "task", "words_of"]

TASK = "Text: "
"""How the last message of a task begins."""


@dataclass(frozen=True)
class Case:
    """One text and the answer that is wanted."""

    text: str
    answer: Any


class World(ABC):
    """A task, a model that does it and improves it, and how well it is done; see the module.

    Args:
        seed: of every word, every case, and of what is spoiled.
        masked: the feedback says only that something is wrong.
        sabotage: the share of the proposals that are spoiled.
    """

    def __init__(self, seed: int, *, masked: bool = False, sabotage: float = 0.0) -> None:
        self.seed, self.masked, self.sabotage = seed, masked, sabotage
        self.calls: Counter[str] = Counter()
        self.longest = 0
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()

    # What a world says of itself

    @abstractmethod
    def learn(self, model: Any = None, task_model: Any = None) -> float:
        """Improve the task with the library, and say how well it is done then, from 0 to 1.

        Args:
            model: what the optimizer asks; this world in place unless it is given.
            task_model: the same for what the workflow asks.
        """

    @abstractmethod
    def improved(self, request: str, random: Random) -> dict[str, Any]:
        """The values that a request supports, by the name of the variable."""

    @abstractmethod
    def harmful(self, request: str, good: Mapping[str, Any], random: Random) -> dict[str, Any]:
        """Values that can be read and do harm."""

    def performed(self, messages: Sequence[Mapping[str, str]]) -> str:
        """How the model does the task."""
        raise NotImplementedError

    def criticism(self, request: str) -> str:
        """What the model says where it is not asked for a proposal."""
        return "Nothing can be said of what is wrong."

    # The model

    def ask(self, messages: Sequence[Mapping[str, str]]) -> str:
        """What the model answers: the task, a proposal, or a critique."""
        text = "\n\n".join(message["content"] for message in messages)
        if messages[-1]["content"].startswith(TASK):
            self._count("task", 0)
            return self.performed(messages)
        self._count("optimizer", len(text))
        random = Random(f"{self.seed} {self._occurrence(text)} {text}")
        return self.proposed(text, random)

    def proposed(self, text: str, random: Random) -> str:
        """The answer to a request of an optimizer."""
        if '"suggestion"' not in text:
            said = self.criticism(text)
            spoiled = ["", said[: len(said) // 2], "All is well."]
            return random.choice(spoiled) if random.random() < self.sabotage else said
        if random.random() >= self.sabotage:
            return proposal(self.improved(text, random))
        good = self.improved(text, random)
        whole = proposal(good)
        return random.choice(
            [
                whole[: len(whole) * 2 // 3],
                "I am sorry, I cannot see what to change here.",
                "",
                proposal({name + "_x": value for name, value in good.items()}),
                proposal({name: [1, 2] for name in good}),
                "{'reasoning': 'because', 'suggestion': " + repr(good)[:-3],
                proposal(self.harmful(text, good, random)),
                proposal(self.harmful(text, good, random)),
            ]
        )

    def answer(self, request: Mapping[str, Any]) -> Answer:
        """The same for a `Server`."""
        return Answer(content=self.ask(request["messages"]))

    @contextmanager
    def served(self) -> Iterator[LanguageModel]:
        """This world's model over real HTTP, through litellm."""
        with Server(self.answer) as server:
            yield LiteLLM("openai/served", api_base=server.base, api_key="x", timeout=60)

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


def case_of(random: Random, cue: str, answer: str, fillers: Sequence[str], length: int = 5) -> Case:
    """A text of so many words in any order, of which one tells the answer."""
    text = [cue, *random.sample(fillers, length - 1)]
    random.shuffle(text)
    return Case(" ".join(text), answer)


def task(ask: Any, prompt: str, text: str) -> str:
    """What a model answers to a text by a prompt; `ask` is a library's model, or a world in place."""
    answer = ask([
        {"role": "system", "content": prompt}, {"role": "user", "content": TASK + text},
    ])  # fmt: skip
    return str(getattr(answer, "text", answer))


def proposal(values: Mapping[str, Any]) -> str:
    """The reply that suggests values."""
    return json.dumps({"reasoning": "by the facts", "suggestion": dict(values)})
