"""Kill trainings at random moments, go on, and compare: ``python -m tests.optimizers.training.killing 10``.

Each seed is trained once in one piece. Then it is trained again in processes that are killed at random
moments, each of which goes on from what the killed ones left. What models are asked is written to a
file outside. Prints what was wrong, and ends with 1 if anything was.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from optimizers import OptoPrime, fit
from optimizers.training.budget import Budget
from optimizers.training.policies.beam import Beam
from optimizers.training.policies.islands import Islands
from optimizers.training.policies.pareto import Pareto
from optimizers.training.policies.ucb import UCB
from tests.worlds.hidden_rules import HiddenRules
from tracegraph.history import Facts, State
from tracegraph.llm import Cached, Reply, Request, Scripted, Tape

warnings.simplefilter("ignore", DeprecationWarning)

SEARCHES = (None, Pareto, None, Beam, UCB, Islands)
BATCH, WORKERS = 10, 3
MOST_KILLS = 8


class Paper:
    """A file to which several processes append lines, one call each."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY)

    def write(self, line: str) -> None:
        os.write(self._file, f"{line}\n".encode())


def model(world: HiddenRules, kind: str, paper: Paper) -> Scripted:
    """A model that costs: every call is a line, and takes a moment."""

    def reply(request: Request) -> str | Reply:
        key = request.key(kind)
        paper.write(f"asked {kind} {key}")
        time.sleep(0.001)
        messages = [m.to_dict() for m in request.messages]
        text = "\n\n".join(str(m["content"]) for m in messages)
        digest = hashlib.sha256(text.encode()).hexdigest()
        world._asked[digest] = request.attempt  # the same attempt gets the same reply everywhere
        return world.ask(messages=messages)

    return Scripted(reply, name=kind)


def train(folder: Path, seed: int) -> dict[str, Any]:
    """One training, from its start or from where another one was killed."""
    world = HiddenRules(seed, sabotage=0.3)
    paper = Paper(folder / "calls")
    paper.write("begun")
    task = Cached(model(world, "task", paper), Tape(Facts("task replies", folder)))

    def ask(messages: Any) -> str:
        request = Request.of(messages)
        text = task.ask(request).text
        paper.write(f"kept {request.key('task')}")
        return text

    run, prompt = world.workflow(ask)

    def workflow(case: Any) -> Any:
        paper.write("run")
        return run(case)

    search = SEARCHES[seed % len(SEARCHES)]
    result = fit(
        workflow, world.train, world.guide, validation=world.validation, seed=seed,
        optimizer=OptoPrime([prompt], llm=model(world, "optimizer", paper), budget=1_250),
        search=None if search is None else search(), budget=Budget(steps=6, runs=400),
        batch_size=BATCH, workers=WORKERS, validate_every=2, tries=2, store=State("it", folder),
        on=[lambda event: paper.write("told")],
    )  # fmt: skip
    spend = {**asdict(result.spend), "seconds": 0.0}
    return {
        "best": dict(result.best.values), "prompt": prompt.data, "score": result.score,
        "baseline": result.baseline, "front": [e.candidate.id for e in result.front],
        "history": [str(e) for e in result.history], "spend": spend, "stopped": result.stopped,
    }  # fmt: skip


def forked(folder: Path, seed: int) -> int:
    """Train in another process; what comes out is written to a file, whole or not at all."""
    pid = os.fork()
    if pid:
        return pid
    try:
        told = json.dumps(train(folder, seed))
        (folder / "part").write_text(told)
        (folder / "part").rename(folder / "result")
        os._exit(0)
    finally:
        os._exit(1)


def one(folder: Path, seed: int, chance: random.Random) -> int:
    """Train a seed with and without kills, and compare; gives how often it was killed."""
    whole, cut = folder / f"whole {seed}", folder / f"cut {seed}"
    whole.mkdir()
    cut.mkdir()
    began = time.monotonic()
    _, status = os.waitpid(forked(whole, seed), 0)
    lasted = time.monotonic() - began
    assert status == 0, f"seed {seed}: the training failed"
    kills = 0
    while not (cut / "result").exists():
        pid = forked(cut, seed)
        if kills < MOST_KILLS:
            time.sleep(chance.random() * lasted * 0.4)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        kills += os.WIFSIGNALED(status)
        assert os.WIFSIGNALED(status) or status == 0, f"seed {seed}: could not go on"
    compare(whole, cut, seed, kills)
    return kills


def compare(whole: Path, cut: Path, seed: int, kills: int) -> None:
    """The same came out, and nothing was paid for twice but what was under way at a kill."""
    expected, found = (json.loads((f / "result").read_text()) for f in (whole, cut))
    different = {
        name: (expected[name], found[name]) for name in expected if expected[name] != found[name]
    }
    assert not different, f"seed {seed}: {different}"
    lines = (cut / "calls").read_text().splitlines()
    asked = [line for line in lines if line.startswith("asked")]
    needed = {
        line for line in (whole / "calls").read_text().splitlines() if line.startswith("asked")
    }
    assert set(asked) == needed, f"seed {seed}: other questions were asked"
    twice = sum(count - 1 for count in Counter(asked).values())
    assert twice <= kills * WORKERS, f"seed {seed}: {twice} calls were repeated in {kills} kills"
    kept: set[str] = set()
    waiting: list[str] = []
    for line in lines:
        kind, *words = line.split()
        if kind == "kept":
            kept.add(words[0])
        elif kind == "begun":  # what was under way when the last process was killed is lost
            waiting.clear()
        elif kind == "told":  # whatever the optimizer's model said before is kept by now
            kept.update(waiting)
        elif kind == "asked":
            assert words[1] not in kept, f"seed {seed}: a reply that was kept was asked for again"
            if words[0] == "optimizer":
                waiting.append(words[1])
    runs = lines.count("run") - (whole / "calls").read_text().splitlines().count("run")
    assert runs <= kills * (BATCH + WORKERS), f"seed {seed}: {runs} runs too many"


def main(seeds: int) -> int:
    """Train so many seeds; gives how many kills there were."""
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        return sum(one(Path(folder), seed, chance) for seed in range(seeds))


if __name__ == "__main__":
    kills = main(int(sys.argv[1]))
    sys.stdout.write(f"{sys.argv[1]} seeds, {kills} kills, nothing differs\n")
