"""Kill trainings at random moments, go on, and compare: ``python -m tests.optimizers.training.killing 10``.

Each seed is trained once in one piece. Then it is trained again in processes that are killed at random
moments, each of which goes on from what the killed ones left. What models are asked and which examples run
is written to a file outside, and so is that the store has a reply or a run. Every third seed trains a prompt
and a vector in one loop. Prints what was repeated, and ends with 1 if anything was wrong. Several numbers
are the seeds themselves.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import asdict
from functools import partial
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


class Watched:
    """A store that notes of a run that the training has it by now: its graph, or its evaluation."""

    def __init__(self, state: State, paper: Paper) -> None:
        self._state, self._paper = state, paper
        self.under_way: set[tuple[str, str]] = set()  # examples that run, by split and number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)

    def journal(self, about: str) -> Any:
        return WatchedFacts(self._state.journal(about), self.kept)

    def began(self, split: str, number: str) -> None:
        self.under_way.add((split, number))
        self._paper.write(f"run {split} {number}")

    def kept(self, key: str) -> None:
        """Something was kept: perhaps a run (``split/candidate/number``, with the way to it around)."""
        for split, number in list(self.under_way):
            if re.search(rf"(^|/traced/){split}( \d+)?/\w+/{number}($|/run/kept$)", key):
                self.under_way.discard((split, number))
                self._paper.write(f"kept run {split} {number}")


class WatchedFacts(MutableMapping[str, Any]):
    """A journal of `Watched`."""

    def __init__(self, facts: Any, kept: Callable[[str], None]) -> None:
        self._facts, self._kept = facts, kept

    def __setitem__(self, key: str, value: Any) -> None:
        self._facts[key] = value
        self._kept(key)

    def __getitem__(self, key: str) -> Any:
        return self._facts[key]

    def __delitem__(self, key: str) -> None:
        del self._facts[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)

    def clear(self) -> None:
        self._facts.clear()


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
    torch.manual_seed(seed)
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
    store = Watched(State("it", folder), paper)
    splits = {"train": world.train, "validation": world.validation}
    names = {id(case): (s, str(n)) for s, cases in splits.items() for n, case in enumerate(cases)}

    def noted(case: Any) -> Any:
        store.began(*names[id(case)])
        return run(case)

    result = fit(
        noted, world.train, judged(world, paper), validation=world.validation, seed=seed,
        optimizer=OptoPrime([prompt], llm=model(world, "optimizer", paper), budget=1_250),
        search=None if search is None else search(), budget=Budget(steps=6, runs=400),
        batch_size=BATCH, workers=WORKERS, validate_every=2, tries=2, store=store,
    )  # fmt: skip
    return result, prompt.data


def mixed(folder: Path, seed: int, paper: Paper) -> Any:
    """A prompt and a vector, which an optimizer with a memory of its own moves."""
    world = Mixed(seed, sabotage=0.3)
    mover = (
        AdamW([world.vector], lr=0.1) if seed % 2 else SGD([world.vector], lr=0.05, momentum=0.9)
    )
    optimizer = Partition(mover, OptoPrime([world.prompt], llm=model(world, "optimizer", paper)))
    run = world.workflow(model(world, "task", paper))
    store = Watched(State("it", folder), paper)
    names = {id(case): str(number) for number, case in enumerate(world.train)}

    def shaken(case: Any) -> Any:
        store.began("train", names[id(case)])
        return run(case) * (1 + 0.01 * torch.rand(()))  # chance that only torch's own state gives

    world.guide = judged(world, paper)  # type: ignore[method-assign]
    result = world.train_with(optimizer, shaken, budget=Budget(steps=12), store=store)
    return result, [world.prompt.data, [n.hex() for n in world.vector.data.tolist()]]


def judged(world: Any, paper: Paper) -> Any:
    """A world's guide, which says that it is asked."""
    guide = world.guide

    def said(case: Any, output: Any) -> Any:
        paper.write("judged")
        return guide(case, output)

    return said


def forked(folder: Path, training: Callable[[], Any]) -> int:
    """Train in another process; what comes out is written to a file, whole or not at all."""
    pid = os.fork()
    if pid:
        return pid
    try:
        told = json.dumps(training())
        (folder / "part").write_text(told)
        (folder / "part").rename(folder / "result")
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def one(folder: Path, seed: int, chance: random.Random) -> Counter[str]:
    """Train a seed with and without kills, and compare; counts the kills and what they cost."""
    whole, cut = folder / f"whole {seed}", folder / f"cut {seed}"
    whole.mkdir()
    cut.mkdir()
    began = time.monotonic()
    _, status = os.waitpid(forked(whole, partial(train, whole, seed)), 0)
    lasted = time.monotonic() - began
    assert status == 0, f"seed {seed}: the training failed"
    kills = 0
    while not (cut / "result").exists():
        pid = forked(cut, partial(train, cut, seed))
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
    tensors = seed % 3 == 2  # outputs that torch follows are judged again
    workers = 1 if tensors else WORKERS
    asked, calls = repeated("asked", once, again)
    ran, runs = repeated("run", once, again)
    assert not asked, f"seed {seed}: {asked} calls whose replies were kept were repeated"
    assert calls <= kills * workers, f"seed {seed}: {calls} calls too many in {kills} kills"
    assert runs <= kills * workers, f"seed {seed}: {runs} runs too many in {kills} kills"
    assert not ran, f"seed {seed}: {ran} runs that were kept were repeated"
    verdicts = again["judged"] - once["judged"]
    assert tensors or verdicts <= kills * workers, f"seed {seed}: {verdicts} verdicts too many"
    return Counter({
        "kills": kills, "model calls that were complete": asked, "model calls under way": calls,
        "workflow runs that were complete": ran, "workflow runs under way": runs,
        "verdicts": verdicts,
    })  # fmt: skip


def repeated(what: str, once: Counter[str], again: Counter[str]) -> tuple[int, int]:
    """How often a thing that was kept was done again, and how often anything was."""
    more = {line for line in again if line.startswith(what)} - once.keys()
    assert not more, f"other things were done: {more}"
    complete = whole = 0
    for line, count in once.items():
        if line.startswith(what):
            lost = again[line] - again[f"kept {line.removeprefix('asked ')}"]
            assert again[line] >= count, f"it was not done: {line}"
            whole += again[line] - count
            complete += max(0, again[line] - count - lost)
    return complete, whole


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
