"""Kill trainings at random moments, go on, and compare: ``python -m tests.optimizers.training.killing 10``.

Each seed is trained once in one piece. Then it is trained again in processes that are killed at random
moments, each of which goes on from what the killed ones left. What models are asked is written to a
file outside. Every third seed trains a prompt and a vector in one loop. Prints what was repeated, and ends
with 1 if anything was wrong. Several numbers are the seeds themselves.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from optimizers import SGD, AdamW, OptoPrime, Partition, fit
from optimizers.training.budget import Budget
from optimizers.training.policies.beam import Beam
from optimizers.training.policies.islands import Islands
from optimizers.training.policies.pareto import Pareto
from optimizers.training.policies.ucb import UCB
from tests.worlds.hidden_rules import HiddenRules
from tests.worlds.mixed import Mixed
from tests.worlds.world import World
from tracegraph.history import State
from tracegraph.llm import Ask, Reply, Request, Scripted, Steps, Wrapper

warnings.simplefilter("ignore", DeprecationWarning)

SEARCHES = (None, Pareto, None, Beam, UCB, Islands)
BATCH, WORKERS = 10, 3
MOST_KILLS = 8


class Paper:
    """A file to which several processes append lines, one call each."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
        self.here = threading.local()

    def write(self, line: str) -> None:
        os.write(self._file, f"{line}\n".encode())


class Kept(Wrapper):
    """Notes of a reply that was just paid for that the training has it by now.

    It stands outside the door where replies are kept, as the library's own wrappers do.
    """

    __module__ = "tracegraph.llm.noted"

    def __init__(self, inner: Scripted, paper: Paper) -> None:
        super().__init__(inner)
        self._paper = paper

    def steps(self, request: Request) -> Steps:
        self._paper.here.paid = None
        reply: Reply = yield Ask(self._inner, request)
        if self._paper.here.paid is not None:
            self._paper.write(f"kept {self._paper.here.paid}")
        return reply


def model(world: World, kind: str, paper: Paper) -> Any:
    """A model that costs: every call is a line, and takes a moment."""

    def reply(request: Request) -> str | Reply:
        key = request.key(kind)
        paper.write(f"asked {kind} {key}")
        time.sleep(0.001)
        messages = [m.to_dict() for m in request.messages]
        text = "\n\n".join(str(m["content"]) for m in messages)
        digest = hashlib.sha256(text.encode()).hexdigest()
        world._asked[digest] = request.attempt  # the same attempt gets the same reply everywhere
        said = world.ask(messages=messages)
        paper.here.paid = f"{kind} {key}"
        return said

    return Kept(Scripted(reply, name=kind), paper)


def train(folder: Path, seed: int) -> dict[str, Any]:
    """One training, from its start or from where another one was killed."""
    paper = Paper(folder / "calls")
    paper.write("begun")
    result, values = (mixed if seed % 3 == 2 else hidden)(folder, seed, paper)
    spend = {**asdict(result.spend), "seconds": 0.0}
    return {
        "best": dict(result.best.values), "values": values, "score": result.score,
        "baseline": result.baseline, "front": [e.candidate.id for e in result.front],
        "history": [str(e) for e in result.history], "spend": spend, "stopped": result.stopped,
    }  # fmt: skip


def hidden(folder: Path, seed: int, paper: Paper) -> Any:
    """A prompt alone, by one of the searches, several examples at a time."""
    world = HiddenRules(seed, sabotage=0.3)
    run, prompt = world.workflow(model(world, "task", paper))
    search = SEARCHES[seed % len(SEARCHES)]
    result = fit(
        noted(run, paper), world.train, judged(world, paper), validation=world.validation, seed=seed,
        optimizer=OptoPrime([prompt], llm=model(world, "optimizer", paper), budget=1_250),
        search=None if search is None else search(), budget=Budget(steps=6, runs=400),
        batch_size=BATCH, workers=WORKERS, validate_every=2, tries=2, store=State("it", folder),
    )  # fmt: skip
    return result, prompt.data


def mixed(folder: Path, seed: int, paper: Paper) -> Any:
    """A prompt and a vector, which an optimizer with a memory of its own moves."""
    world = Mixed(seed, sabotage=0.3)
    mover = (
        AdamW([world.vector], lr=0.1) if seed % 2 else SGD([world.vector], lr=0.05, momentum=0.9)
    )
    optimizer = Partition(mover, OptoPrime([world.prompt], llm=model(world, "optimizer", paper)))
    run = noted(world.workflow(model(world, "task", paper)), paper)

    def shaken(case: Any) -> Any:
        return run(case) * (1 + 0.01 * torch.rand(()))  # chance that only torch's own state gives

    world.guide = judged(world, paper)  # type: ignore[method-assign]
    result = world.train_with(optimizer, shaken, budget=Budget(steps=12), store=State("it", folder))
    return result, [world.prompt.data, [n.hex() for n in world.vector.data.tolist()]]


def noted(run: Any, paper: Paper) -> Any:
    """A workflow that says that it runs."""

    def workflow(case: Any) -> Any:
        paper.write("run")
        return run(case)

    return workflow


def judged(world: Any, paper: Paper) -> Any:
    """A world's guide, which says that it is asked."""
    guide = world.guide

    def said(case: Any, output: Any) -> Any:
        paper.write("judged")
        return guide(case, output)

    return said


def forked(folder: Path, seed: int) -> int:
    """Train in another process; what comes out is written to a file, whole or not at all."""
    pid = os.fork()
    if pid:
        return pid
    try:
        torch.manual_seed(seed)
        told = json.dumps(train(folder, seed))
        (folder / "part").write_text(told)
        (folder / "part").rename(folder / "result")
        os._exit(0)
    finally:
        os._exit(1)


def one(folder: Path, seed: int, chance: random.Random) -> Counter[str]:
    """Train a seed with and without kills, and compare; counts the kills and what they cost."""
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
    return compare(whole, cut, seed, kills)


def compare(whole: Path, cut: Path, seed: int, kills: int) -> Counter[str]:
    """The same came out, and nothing was paid for twice but what was under way at a kill."""
    expected, found = (json.loads((f / "result").read_text()) for f in (whole, cut))
    different = {
        name: (expected[name], found[name]) for name in expected if expected[name] != found[name]
    }
    assert not different, f"seed {seed}: {different}"
    once, again = (Counter((f / "calls").read_text().splitlines()) for f in (whole, cut))
    asked = {line: count for line, count in once.items() if line.startswith("asked ")}
    more = {line for line in again if line.startswith("asked ")} - asked.keys()
    assert not more, f"seed {seed}: other questions were asked"
    under_way = repeated = 0
    for line, count in asked.items():
        lost = again[line] - again[line.replace("asked", "kept", 1)]
        assert again[line] >= count, f"seed {seed}: a question was not asked"
        under_way += again[line] - count
        repeated += max(0, again[line] - count - lost)
    assert not repeated, f"seed {seed}: {repeated} calls whose replies were kept were repeated"
    workers = 1 if seed % 3 == 2 else WORKERS
    assert under_way <= kills * workers, f"seed {seed}: {under_way} calls too many in {kills} kills"
    runs, verdicts = (again[what] - once[what] for what in ("run", "judged"))
    assert runs <= kills * (BATCH + workers), f"seed {seed}: {runs} runs too many"
    if seed % 3 != 2:  # a verdict with a gradient is not kept
        assert verdicts <= kills * workers, f"seed {seed}: {verdicts} verdicts too many"
    return Counter({
        "kills": kills, "model calls that were complete": repeated,
        "model calls under way": under_way, "workflow calls": runs, "verdicts": verdicts,
    })  # fmt: skip


def main(seeds: Sequence[int]) -> str:
    """Train some seeds; says how many kills there were, and what was repeated."""
    chance = random.Random(0)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            counts.update(one(Path(folder), seed, chance))
    told = ", ".join(f"{counts[name]} {name}" for name in counts if name != "kills")
    return f"{len(seeds)} seeds, {counts['kills']} kills, nothing differs; repeated: {told}\n"


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    sys.stdout.write(main(numbers if len(numbers) > 1 else range(numbers[0])))
