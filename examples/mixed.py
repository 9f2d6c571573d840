"""Improve a text, a number, a function and a tensor of one workflow, with one step for all.

    python examples/mixed.py

A desk answers support tickets. A **text** is the template of the answers: it should say what customers
need to know, shortly. A **function** measures how urgent a ticket sounds, and a **number** is the threshold
from which a person takes over. A **tensor** is the weight of a linear layer that tells the topic of a
ticket from its words. The weight follows its gradient (AdamW); the others have none, and are improved
by what the answers score (Evolve). `Partition` steps both as one. No key and no network is needed.
"""

from __future__ import annotations

import argparse
from typing import Annotated, Any

import torch
from pydantic import Field
from rich.console import Console

import tracegraph as tg
from optimizers import AdamW, Evolve, Partition

# ticket, topic, whether a person should take over
TICKETS = [
    ("My invoice is wrong, please refund me NOW!!", 0, True),
    ("Could you send the invoice again?", 0, False),
    ("You charged my card twice! Unacceptable!!", 0, True),
    ("Which card do you accept for payment?", 0, False),
    ("The app is broken and we LOSE ORDERS!!", 1, True),
    ("The app shows an error when I log in.", 1, False),
    ("Error again! Fix this crash, I am waiting!", 1, True),
    ("Does the app crash on old phones?", 1, False),
    ("My parcel never arrived!! WHERE IS IT?", 2, True),
    ("When will my parcel arrive?", 2, False),
    ("Third wrong delivery! This is a JOKE!", 2, True),
    ("Can the delivery go to my office?", 2, False),
]
TOPICS = ("billing", "software", "delivery")
FACTS = ("{topic}", "24 hours", "ticket number")
PHRASES = [
    "It is about {topic}.",
    "We answer within 24 hours.",
    "Please keep your ticket number.",
    "We are a team of experts with many years of experience.",
    "Have a look at our other products.",
]
WORDS = sorted({word.strip("!?.,").lower() for text, _, _ in TICKETS for word in text.split()})


@tg.bundle
def classify(text: str, weight: torch.Tensor) -> torch.Tensor:
    """One number for each topic, from the words of a ticket."""
    said = {word.strip("!?.,").lower() for word in text.split()}
    return weight @ torch.tensor([float(word in said) for word in WORDS])


@tg.bundle
def topic_loss(logits: list[torch.Tensor], topics: list[int]) -> torch.Tensor:
    """How far the topics are from the true ones (cross entropy)."""
    return torch.nn.functional.cross_entropy(torch.stack(logits), torch.tensor(topics))


@tg.bundle(trainable=True, trust=True)  # its variations are made of its own expressions
def urgency(length: int, capitals: int, exclamations: int) -> float:
    """How urgent a ticket sounds, from its words, its words in capitals, and its exclamation marks."""
    return length / 10


@tg.bundle
def features(text: str) -> tuple[int, int, int]:
    """Words, words in capitals, exclamation marks."""
    words = text.split()
    capitals = sum(len(word) > 1 and word.strip("!?.,").isupper() for word in words)
    return len(words), capitals, text.count("!")


@tg.bundle
def respond(template: str, logits: torch.Tensor, urgent: float, threshold: float) -> dict[str, Any]:
    """The answer to one ticket: its text, and whether a person takes over."""
    topic = TOPICS[int(logits.argmax())]
    return {"text": template.replace("{topic}", topic), "person": bool(urgent > threshold)}


def judged(answers: list[dict[str, Any]], template: str) -> tuple[float, str]:
    """A score from 0 to 2 for all answers, and why: what is said, and who takes over."""
    told = sum(fact in template for fact in FACTS) / len(FACTS)
    wordy = max(0, len(template) - 100) / 200 + template.count("{topic}") / 100
    right = sum(a["person"] is person for a, (_, _, person) in zip(answers, TICKETS, strict=True))
    share = right / len(TICKETS)
    said = f"{told:.0%} of the facts are said, {share:.0%} of the tickets go to the right hands"
    return told - wordy + share, said


@tg.bundle
def desk(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All answers of the day."""
    return answers


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run the example; gives the last score, share of right hands, facts, and loss."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=150, help="how many (default 150)")
    parser.add_argument("--seed", type=int, default=0, help="of the search")
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    options = parser.parse_args(arguments)
    steps = min(options.steps, 75) if options.quick else options.steps
    console = Console()

    urgency.parameters()[0].assign(urgency.parameters()[0].initial)
    template = tg.node("Thank you for your message. Bye.", trainable=True, name="template")
    threshold = tg.node(
        0.1, trainable=True, name="threshold", constraint=Annotated[float, Field(ge=0, le=2)]
    )
    weight = tg.node(
        torch.zeros(len(TOPICS), len(WORDS), requires_grad=True), trainable=True, name="weight"
    )
    search = Evolve([template, threshold, urgency], phrases=PHRASES, seed=options.seed)
    optimizer = Partition(AdamW([weight], lr=0.05), search)

    def run() -> tuple[Any, Any]:
        logits, answers = [], []
        for text, _, _ in TICKETS:
            found = classify(text, weight)
            length, capitals, exclamations = features(text)
            urgent = urgency(length, capitals, exclamations)
            logits.append(found)
            answers.append(respond(template, found, urgent, threshold))
        return topic_loss(logits, [topic for _, topic, _ in TICKETS]), desk(answers)

    def show(label: str) -> dict[str, float]:
        loss, answers = run()
        score, said = judged(answers.data, template.data)
        console.print(
            f"{label}: score {score:.2f} ({said}), topic loss {loss.data.item():.3f}",
            highlight=False,
            soft_wrap=True,
        )
        return {"score": score, "loss": loss.data.item()}

    show("start")
    for step in range(1, steps + 1):
        optimizer.zero_feedback()
        try:
            loss, answers = run()
        except Exception as error:  # changed code may do anything; its failure is the feedback
            search.backward(tg.failed_node(error), error)
        else:
            score, said = judged(answers.data, template.data)
            optimizer.backward([(loss, 1.0), (answers, (score, said))])
        optimizer.step()
        if step % 25 == 0:
            console.print(
                f"step {step}: best score {search.best_score:.2f}", highlight=False, soft_wrap=True
            )
    search.finish()
    result = show("end")
    console.print(f"template:  {template.data}", highlight=False, soft_wrap=True)
    console.print(f"threshold: {threshold.data:.3f}", highlight=False, soft_wrap=True)
    console.print(
        f"urgency:   {urgency.parameters()[0].data.split('return')[-1].strip()}", highlight=False
    )
    return result


if __name__ == "__main__":
    main()
