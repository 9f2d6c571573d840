"""What the sandbox costs: run `python -m tests.benchmarks.sandbox` on a quiet machine."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tracegraph.errors import TimedOut
from tracegraph.sandbox import Policy, Sandbox

SOURCE = "def f(x):\n    return x\n"
CANDIDATES, EXAMPLES = 100, 10


def times(action: Callable[[], object], repeats: int, *, pause: float = 0.0) -> list[float]:
    """Seconds of each of `repeats` runs, each after a pause that does not count."""
    taken = []
    for _ in range(repeats):
        time.sleep(pause)
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return taken


def started_in(preload: tuple[str, ...]) -> tuple[list[float], list[float]]:
    """Seconds until the walls are up, and until a bare interpreter has imported the same, in turns."""
    taken, bare = [], []
    command = [
        sys.executable,
        "-I",
        "-c",
        "\n".join(f"import {name}" for name in preload) or "pass",
    ]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for _ in range(7):
        box = Sandbox(Policy(preload=preload))
        taken += times(lambda: box.layers, 1)  # noqa: B023
        box.close()
        bare += times(lambda: subprocess.run(command, check=True, env=one_thread), 1)
    return taken, bare


def echoes(size: int, repeats: int, *, fresh: bool = False) -> list[float]:
    """Seconds of a trip of `size` bytes to a forked process and back: what no sandbox can be under.

    With `fresh`, each trip has a new process, which was forked and waits before its time begins.
    """
    given = memoryview(bytes(size))
    taken: list[float] = []
    while len(taken) < repeats:
        ours, theirs = socket.socketpair()
        child = os.fork()
        if child == 0:
            ours.close()
            while theirs.recv(1, socket.MSG_PEEK):
                theirs.sendall(received(theirs, size))
            os._exit(0)
        theirs.close()
        time.sleep(0.005)

        def trip() -> None:
            ours.sendall(given)  # noqa: B023
            received(ours, size)  # noqa: B023

        taken += times(trip, 1 if fresh else repeats)
        ours.close()
        os.waitpid(child, 0)
    return taken


def received(channel: socket.socket, size: int) -> memoryview:
    """The next `size` bytes, in memory of their own."""
    room = np.empty(size, dtype=np.uint8).data
    at = 0
    while at < size:
        at += channel.recv_into(room[at:])
    return room


def candidates(box: Sandbox) -> None:
    """Many candidates, each on some examples in a child of its own, from two threads."""
    sources = [f"def f(x):\n    return x + {number}\n" for number in range(CANDIDATES)]
    with ThreadPoolExecutor(2) as threads:
        many = [(x,) for x in range(EXAMPLES)]
        results = list(threads.map(lambda source: box.map(source, "f", many), sources))
    if not all(result.ok for batch in results for result in batch):
        raise RuntimeError("a candidate failed")


def hanging() -> None:
    """An endless loop with a limit of one second, and the next call."""
    with Sandbox(Policy(timeout=1, preload=())) as box:
        result = box.call("def f():\n    while True:\n        pass\n", "f")
        if not isinstance(result.error, TimedOut) or not box.call(SOURCE, "f", (1,)).ok:
            raise RuntimeError(f"the loop was not ended: {result}")


def main() -> None:
    """Measure, and print a table."""
    array = np.random.default_rng(0).random(1_310_720)
    rows: list[tuple[str, float | None, list[float]]] = []
    for start, limit, preload in (("start", 60.0, ()), ("start with numpy", 150.0, ("numpy",))):
        started, bare = started_in(preload)
        rows += [(start, limit, started), (f"  bare interpreter, {start}", None, bare)]
    with Sandbox(Policy(preload=("numpy",))) as box:
        box.call(SOURCE, "f", (1,), fresh=False)
        rows += [
            ("call, fresh child", 5.0, times(lambda: box.call(SOURCE, "f", (1,)), 200)),
            (
                "  30 ms after the last",
                None,
                times(lambda: box.call(SOURCE, "f", (1,)), 100, pause=0.03),
            ),
            (
                "call, kept child",
                0.1,
                times(lambda: box.call(SOURCE, "f", (1,), fresh=False), 2000),
            ),
            ("  40 bytes to another process and back", None, echoes(40, 2000)),
            ("100 candidates x 10 examples", 2000.0, times(lambda: candidates(box), 3)),
            (
                "10 MB in and out, kept",
                15.0,
                times(lambda: box.call(SOURCE, "f", (array,), fresh=False), 20),
            ),
            ("10 MB in and out, fresh", 15.0, times(lambda: box.call(SOURCE, "f", (array,)), 20)),
            (
                "  10 MB to a new process and back",
                None,
                echoes(array.nbytes, 20, fresh=True),
            ),
        ]
    rows.append(("endless loop, limit 1 s, and the next call", 1200.0, times(hanging, 3)))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; milliseconds")
    print(f"{'what':44}{'goal':>8}{'median':>10}{'best':>10}")
    for what, goal, taken in rows:
        aim = "" if goal is None else f"{goal:.1f}"
        print(f"{what:44}{aim:>8}{1e3 * statistics.median(taken):10.2f}{1e3 * min(taken):10.2f}")


if __name__ == "__main__":
    main()
