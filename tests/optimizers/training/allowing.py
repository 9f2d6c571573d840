"""Kill a training whose models have an allowance: ``python -m tests.optimizers.training.allowing FOLDER 25``.

The training is killed ten times, each time a few calls later, and goes on. Every call that reaches a model is
a line in a file, written before it is answered. Prints what came out, and the calls of each model.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import tracegraph as tg
from optimizers import Budget, OptoPrime, fit
from tests.optimizers.training.killing import forked
from tracegraph.llm import Budgeted, Request, Scripted

KILLS, WORKERS, CASES = 10, 3, [str(n) * n for n in range(1, 7)]


def model(name: str, say: Any, folder: Path) -> Scripted:
    """A model whose calls are lines, and take a moment."""
    paper = os.open(folder / "calls", os.O_APPEND | os.O_CREAT | os.O_WRONLY)

    def reply(request: Request) -> str:
        os.write(paper, f"{name}\n".encode())
        time.sleep(0.004)
        return str(say(request.messages[-1].text))

    return Scripted(reply, name=name)


def train(folder: Path, calls: int) -> list[Any]:
    """One training, from its start or from where another one was killed."""
    word = tg.node("a", trainable=True, name="word")
    task = Budgeted(model("task", str.upper, folder), calls=calls)
    asked = Budgeted(model("optimizer", lambda text: suggestion(len(text)), folder), calls=calls)

    @tg.bundle
    def answer(word: str, case: str) -> str:
        """Ask a model."""
        return task(word + case).text

    result = fit(
        lambda case: answer(word, case), CASES, lambda case, said: (len(said) % 9 / 9, f"not {said}"),
        optimizer=OptoPrime([word], llm=asked), budget=Budget(steps=8), workers=WORKERS, tries=1,
        batch_size=3, store=folder,
    )  # fmt: skip
    return [word.data, result.score, str(result.error), result.spend.steps, result.spend.calls]


def suggestion(number: int) -> str:
    return json.dumps({"suggestion": {"word": "w" * (number % 13)}})


def main(folder: Path, calls: int, kills: int) -> dict[str, Any]:
    """Train with so many kills; gives what came out, how many kills there were, and the calls by model."""
    folder.mkdir()
    chance, killed = random.Random(calls), 0
    while not (folder / "result").exists():
        pid = forked(folder, partial(train, folder, calls))
        if killed < kills:
            after(folder, chance.randint(1, 4))
            time.sleep(0.01 * chance.random())
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        killed += os.WIFSIGNALED(status)
        assert os.WIFSIGNALED(status) or status == 0, "it could not go on"
    result = json.loads((folder / "result").read_text())
    return {"result": result, "killed": killed, "calls": Counter(lines(folder))}


def lines(folder: Path) -> list[str]:
    paper = folder / "calls"
    return paper.read_text().split() if paper.exists() else []


def after(folder: Path, calls: int) -> None:
    """Wait until there were so many more calls, or the training has ended."""
    most = len(lines(folder)) + calls
    while len(lines(folder)) < most and not (folder / "result").exists():
        time.sleep(0.001)


if __name__ == "__main__":
    place, most = Path(sys.argv[1]), int(sys.argv[2])
    both = main(place / "whole", most, 0), main(place / "cut", most, KILLS)
    sys.stdout.write(json.dumps(both))
