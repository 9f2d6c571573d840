"""Kill a run at random moments and read back what it kept: ``python -m tests.history.killing N``.

One process forks the runs, so that a thousand of them take a minute. Prints what was wrong, and
ends with 1 if anything was.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import struct
import sys
import tempfile
import time
import warnings
from pathlib import Path

import tracegraph as tg
from tracegraph.history import History, run
from tracegraph.history.surroundings import surroundings

warnings.simplefilter("ignore", DeprecationWarning)


def child(folder: Path, pipe: int, seed: int) -> None:
    """Keep steps for ever; after each, say its number."""
    chance = random.Random(seed)
    text = tg.node("version 0", trainable=True, name="text")
    with run(f"run {seed}", store=folder) as kept:
        number = 0
        while True:
            number += 1
            text.assign(f"version {number} " + "x" * chance.randrange(3_000))
            kept.step(text + " done", score=number, note=f"step {number}")
            os.write(pipe, struct.pack("<I", number))
            if chance.random() < 0.3:
                time.sleep(chance.random() * 0.004)


def one(folder: Path, seed: int, chance: random.Random) -> int:
    """Kill one run and check what it left; gives how many steps it said that it had done."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            child(folder, writer, seed)
        finally:
            os._exit(1)
    os.close(writer)
    time.sleep(chance.random() * 0.15)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    said = b""
    while part := os.read(reader, 65_536):
        said += part
    os.close(reader)
    done = len(said) // 4
    check(folder, seed, done)
    return done


def check(folder: Path, seed: int, done: int) -> None:
    path = folder / "history.sqlite"
    if not path.exists():
        assert done <= 1, f"{done} steps done and no file"
        return
    connection = sqlite3.connect(path)
    (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    assert verdict == "ok", verdict
    try:
        history = History(folder)
    except tg.TracegraphError as error:  # killed before the tables were there
        if done > 1 or "empty" not in str(error):
            raise
        return
    runs = [r for r in history.runs() if r.name == f"run {seed}"]
    if not runs:
        assert done <= 1, f"{done} steps done and no run"
        return
    (kept,) = runs
    numbers = [step.number for step in kept.steps]
    assert numbers == list(range(1, len(numbers) + 1)), numbers
    assert len(numbers) >= done - 1, f"{done} steps done, {len(numbers)} kept"
    assert kept.status == "killed", kept.status
    for number in numbers[-2:]:
        assert kept.parameters(number)["text"].value.startswith(f"version {number} ")
        assert len(kept.graph(number)) == 3
    assert not any("part" in file.name for file in folder.glob("*.part"))


def main(times: int, seed: int = 0) -> int:
    """Kill `times` runs; gives how many steps were done in all."""
    chance = random.Random(seed)
    surroundings(None)  # asks git once, not in every child
    with tempfile.TemporaryDirectory() as folder:
        total = 0
        for number in range(times):
            place = Path(folder) / str(number // 50)
            place.mkdir(exist_ok=True)
            total += one(place, number, chance)
    return total


if __name__ == "__main__":
    sys.stdout.write(f"{sys.argv[1]} kills, {main(int(sys.argv[1]))} steps, nothing wrong\n")
