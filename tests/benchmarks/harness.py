"""Measure time and memory, in this process, the same way for everyone.

Times are medians of several repeats, with the garbage collector emptied before each; it rests while
single operations are timed and works while whole walks are. Memory is what `tracemalloc` sees.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

__all__ = ["bytes_kept", "import_seconds", "seconds", "seconds_per_operation"]


def seconds_per_operation(
    run: Callable[[int], object], *, operations: int, repeats: int = 5
) -> float:
    """The median time of one operation, where `run(n)` does n of them."""
    run(max(1, operations // 10))
    with _collector_resting():
        times = [_timed(lambda: run(operations)) for _ in range(repeats)]
    return statistics.median(times) / operations


def seconds(prepare: Callable[[], Callable[[], object]], *, repeats: int = 3) -> float:
    """The median time of what `prepare()` returns; the preparation is not counted."""
    times = []
    for _ in range(repeats):
        action = prepare()
        gc.collect()
        times.append(_timed(action))
        del action
    return statistics.median(times)


def bytes_kept(run: Callable[[int], object], *, operations: int) -> float:
    """Bytes per operation that are still allocated while the result of `run(n)` is held."""
    held = run(max(1, operations // 10))
    del held
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        held = run(operations)
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    del held
    return (after - before) / operations


def import_seconds(module: str, *, repeats: int = 5) -> float:
    """The median time of `import module` in a fresh interpreter, its start not counted."""
    program = (
        "from time import perf_counter\nstart = perf_counter()\n"
        f"import {module}\nprint(perf_counter() - start)"
    )
    return statistics.median(
        float(
            subprocess.run(
                [sys.executable, "-c", program],
                capture_output=True,
                text=True,
                check=True,
                timeout=120,
                stdin=subprocess.DEVNULL,
            ).stdout.splitlines()[-1]
        )
        for _ in range(repeats)
    )


def _timed(action: Callable[[], object]) -> float:
    gc.collect()
    start = perf_counter()
    kept = action()
    took = perf_counter() - start
    del kept
    return took


@contextmanager
def _collector_resting() -> Iterator[None]:
    was_working = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_working:
            gc.enable()
