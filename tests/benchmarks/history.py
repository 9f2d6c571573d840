"""What keeping a run costs: run `python -m tests.benchmarks.history` on a quiet machine.

A step is a workflow of some small nodes with a pause in it, as where a model is asked; the same
steps are run without and with history, in turns, and the medians are compared.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import tracegraph as tg
from tests.history.killing import main as killed
from tracegraph.history import History
from tracegraph.history.capture import capture
from tracegraph.history.live import Run

PAUSE = 0.05  # seconds in a step that is spent elsewhere; a model's reply takes longer


def chain(nodes: int) -> Any:
    """A graph of about that many small nodes."""
    node: Any = tg.node(1, trainable=True, name="x")
    for number in range(nodes // 2):
        node = node + number
    return node


def work(parameter: Any, number: int) -> Any:
    """One step of some 40 nodes, and a pause."""
    parameter.assign(f"version {number} of a prompt of usual length. " * 10)
    node = parameter + "!"
    for index in range(20):
        node = node + str(index)
    time.sleep(PAUSE)
    return node


def step_overhead(steps: int) -> tuple[float, float, float]:
    """The median step without and with history, and of that what `Run.step` took, in seconds."""
    prompt: Any = tg.node("", trainable=True, name="prompt")
    plain: list[float] = []
    kept: list[float] = []
    called: list[float] = []
    with tempfile.TemporaryDirectory() as folder, tg.run("overhead", store=folder) as run:
        for number in range(steps):
            began = time.perf_counter()
            work(prompt, number)
            plain.append(time.perf_counter() - began)
            began = time.perf_counter()
            node = work(prompt, number)
            middle = time.perf_counter()
            run.step(node, score=number, feedback="too long")
            kept.append(time.perf_counter() - began)
            called.append(time.perf_counter() - middle)
    return statistics.median(plain), statistics.median(kept), statistics.median(called)


def per_node(nodes: int, steps: int) -> tuple[float, float]:
    """Seconds for each node: taken by the step itself, and until it is on disk."""
    end = chain(nodes)
    count = len(tg.Graph.of(end))
    began = time.perf_counter()
    for _ in range(steps):
        capture([end])
    taken = (time.perf_counter() - began) / steps / count
    with tempfile.TemporaryDirectory() as folder, tg.run("nodes", store=folder) as run:
        run.step(end)
        run.flush()
        began = time.perf_counter()
        for _ in range(steps):
            run.step(end)
        run.flush()
        whole = (time.perf_counter() - began) / steps / count
    return taken, whole


def opening(steps: int) -> tuple[float, float, float]:
    """Seconds to write so many steps, to open the history and read all of them; its bytes."""
    with tempfile.TemporaryDirectory() as folder:
        prompt: Any = tg.node("version 0", trainable=True, name="prompt")
        began = time.perf_counter()
        with Run("long", store=folder) as run:
            for number in range(steps):
                prompt.assign(f"version {number}")
                run.step(prompt + "!", score=number, feedback=f"remark {number}")
        wrote = time.perf_counter() - began
        size = sum(file.stat().st_size for file in Path(folder).glob("*.sqlite*"))
        read = []
        for _ in range(5):
            began = time.perf_counter()
            found = History(folder).run("long")
            if len(found.steps) != steps or found.parameters(steps // 2) == found.parameters():
                raise RuntimeError("the history is not whole")
            read.append(time.perf_counter() - began)
        return wrote, min(read), size


def help_time() -> float:
    """Seconds of ``tracegraph --help``, the best of several."""
    taken = []
    for _ in range(7):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", "from tracegraph.cli import main; main()", "--help"],
            check=True, stdout=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip
        taken.append(time.perf_counter() - began)
    return min(taken)


def main(*, quick: bool = False) -> None:
    """Measure, and print a table."""
    plain, kept, called = step_overhead(20 if quick else 100)
    print(f"step of {plain * 1e3:.1f} ms and 42 nodes: the call takes {called * 1e6:.0f} us, "
          f"{called / plain * 100:.2f} %; whole steps differ by {(kept / plain - 1) * 100:+.2f} %"
          "   (reach: 2 %)")  # fmt: skip
    for nodes in (40, 1_000):
        taken, whole = per_node(nodes, 5 if quick else 30)
        print(f"small node of {nodes:,}: {taken * 1e6:.1f} us in the step, "
              f"{whole * 1e6:.1f} us until on disk   (reach: 50 us)")  # fmt: skip
    steps = 1_000 if quick else 10_000
    wrote, read, size = opening(steps)
    print(f"{steps:,} steps: written in {wrote / steps * 1e6:.0f} us each, {size / steps:.0f} bytes "
          f"each, opened and read in {read:.3f} s   (reach: 0.2 s for 10,000)")  # fmt: skip
    print(f"tracegraph --help: {help_time():.3f} s   (reach: 0.15 s)")
    kills = 10 if quick else 100
    print(f"{kills} kills at random moments: {killed(kills)} steps done, nothing wrong")


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
