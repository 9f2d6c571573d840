"""The help desk of the demonstration: two prompts and one function, and what a good ticket is.

A ticket has a topic, a team and a number of hours. Which word tells the topic, who has which topic, and
how the hours follow from the length of a message is drawn by the seed; none of it stands in the
prompts or in the function at the start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from tracegraph import bundle, node
from tracegraph.parameter import Parameter

__all__ = ["ROUTE", "TRIAGE", "Desk", "Message"]

TRIAGE = "Name the topic of the message in one word."
ROUTE = "Name the team for the topic in one word."
_TOPICS = {
    "parcel": "delivery",
    "invoice": "billing",
    "password": "account",
    "refund": "returns",
    "screen": "repair",
    "voucher": "offers",
    "allergy": "food",
    "upload": "website",
    "branch": "shops",
}
_TEAMS = ("mira", "otto", "jana", "femi", "lars", "yuki", "nora", "ravi", "tess")
_LETTERS = (
    "hello the {} is not what it should be",
    "can you help me with the {} please",
    "again the {}",
    "my {} from last week and nobody answers",
    "i wrote two times about the {} and i am still waiting for a reply",
    "where do i find the {}",
    "the {} please",
    "thank you for the {} but it came too late for us",
)

Asked = Callable[[list[dict[str, str]]], str]


@dataclass(frozen=True, slots=True)
class Message:
    """What a customer wrote, and the ticket that it should become."""

    text: str
    topic: str
    team: str
    hours: int


class Desk:
    """A help desk drawn by a seed; `ask` is the model that its two prompts are for.

    >>> desk = Desk(0, lambda messages: "unknown")
    >>> desk.guide(desk.train[0], desk.run(desk.train[0]).data)[0]
    0.0
    """

    def __init__(self, seed: int, ask: Asked, *, topics: int = 6) -> None:
        random = Random(f"help desk {seed}")
        cues = random.sample(sorted(_TOPICS), topics)
        teams = dict(zip(cues, random.sample(_TEAMS, topics), strict=True))
        each, least = random.randint(2, 5), random.randint(3, 9)

        def drawn(count: int) -> list[Message]:
            made = []
            for number in range(count):
                cue = cues[number % topics]
                text = random.choice(_LETTERS).format(cue)
                hours = each * len(text.split()) + least
                made.append(Message(text, _TOPICS[cue], teams[cue], hours))
            random.shuffle(made)
            return made

        self.train, self.validation = drawn(24), drawn(12)
        self.triage = node(
            TRIAGE, trainable=True, name="triage", description="what the first model call is told"
        )
        self.route = node(
            ROUTE, trainable=True, name="route", description="what the second model call is told"
        )

        @bundle
        def topic_of(prompt: str, message: str) -> str:
            """Ask the model for the topic of a message."""
            return _word(ask(_chat(prompt, f"Message: {message}")))

        @bundle
        def team_for(prompt: str, topic: str) -> str:
            """Ask the model for the team that has a topic."""
            return _word(ask(_chat(prompt, f"Topic: {topic}")))

        @bundle(trainable=True)
        def hours_for(words: int) -> int:
            """The hours until an answer, from the number of words of the message."""
            return 0

        @bundle
        def ticket(topic: str, team: str, hours: int) -> dict[str, Any]:
            """What the desk files."""
            return {"topic": topic, "team": team, "hours": hours}

        def run(message: Message) -> Any:
            topic = topic_of(self.triage, message.text)
            team = team_for(self.route, topic)
            return ticket(topic, team, hours_for(len(message.text.split())))

        self.run = run
        self.code: Parameter[Any] = hours_for.parameters()[0]

    @property
    def parameters(self) -> dict[str, Parameter[Any]]:
        """The two prompts and the function."""
        return {"triage": self.triage, "route": self.route, "hours_for": self.code}

    @staticmethod
    def guide(message: Message, output: Any) -> tuple[float, str]:
        """The share of a ticket that is right, and what the rest should be."""
        wanted = {"topic": message.topic, "team": message.team, "hours": message.hours}
        wrong = [f'{name} should be "{w}"' for name, w in wanted.items() if output[name] != w]
        return 1 - len(wrong) / len(wanted), "; ".join(wrong)


def _chat(prompt: str, said: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": prompt}, {"role": "user", "content": said}]


def _word(answer: str) -> str:
    """The first word of an answer, small: a model may add a full stop, or a sentence."""
    words: Sequence[str] = re.findall(r"[a-z]+", answer.lower())
    return words[0] if words else ""
