"""Measure the lines of one text while it runs: time, passes, and memory.

This file runs here, and as plain text in the sandbox beside code that a model wrote, so it needs nothing
but Python itself. Time spent in other code counts for the line that called it. Measuring slows
every line of the text down, so times are for comparing lines, not for a stopwatch.
"""

import sys
import threading
import time
import tracemalloc
import types

__all__ = ["LineMeter", "metered"]

_REPORT_EVERY = 0.2
_MOST_LINES = 10_000
_MOST_TRIES = 10_000
_lock = threading.Lock()
_users = 0
_began = False


def _memory_on():
    """Count memory until `_memory_off` was called as often."""
    global _users, _began
    with _lock:
        _users += 1
        if _users == 1 and not tracemalloc.is_tracing():
            tracemalloc.start(1)
            _began = True


def _memory_off():
    global _users, _began
    with _lock:
        _users -= 1
        if _began and _users == 0:
            tracemalloc.stop()
            _began = False


def _trace(function):
    """`sys.settrace`, again and again while another thread is in the middle of it.

    CPython 3.11 refuses it then, and an audit hook written in Python (filelock has one, which
    torch's compiler loads) lets other threads run in that middle.
    """
    for _ in range(_MOST_TRIES):
        try:
            return sys.settrace(function)
        except RuntimeError:
            time.sleep(0.0001)
    return sys.settrace(function)


class LineMeter:
    """Counts, for every line of the code that `is_own` tells, passes, seconds and bytes.

    `report` is told ``[[line, passes, seconds, bytes], ...]`` at the end, and now and then before:
    the bytes are the most that one pass needed in addition.
    """

    def __init__(self, is_own, report):
        self._is_own, self._report = is_own, report
        self._lines = {}
        self._open = []  # the lines that wait for the own code they called
        self._line = 0
        self._last = self._told = self._held = 0

    def run(self, step):
        """Run `step` and measure it."""
        before = sys.gettrace()
        _memory_on()
        self._open, self._line = [], 0
        self._told = time.perf_counter()
        self._begin()
        try:
            _trace(self._entered)
            return step()
        finally:
            _trace(before)
            self._count()
            _memory_off()
            self._tell()

    def _entered(self, frame, event, arg):
        if not self._is_own(frame.f_code):
            return None
        self._count()
        self._open.append(self._line)
        self._line = 0
        self._begin()
        return self._inside

    def _inside(self, frame, event, arg):
        if event == "line":
            self._count()
            self._line = frame.f_lineno
            row = self._lines.get(self._line)
            if row is None and len(self._lines) < _MOST_LINES:
                row = self._lines[self._line] = [0, 0.0, 0]
            if row is not None:
                row[0] += 1
            if self._last - self._told > _REPORT_EVERY:
                self._tell()
            self._begin()
        elif event == "return":
            self._count()
            self._line = self._open.pop() if self._open else 0
            self._begin()
        return self._inside

    def _begin(self):
        if tracemalloc.is_tracing():
            tracemalloc.reset_peak()
            self._held = tracemalloc.get_traced_memory()[0]
        self._last = time.perf_counter()

    def _count(self):
        now = time.perf_counter()
        row = self._lines.get(self._line)
        if row is not None:
            row[1] += now - self._last
            peak = tracemalloc.get_traced_memory()[1] if tracemalloc.is_tracing() else 0
            row[2] = max(row[2], peak - self._held)
        self._last = now

    def _tell(self):
        self._told = self._last
        self._report([[line, *row] for line, row in sorted(self._lines.items())])


def metered(function, way, is_own, report):
    """`function` as it is, and measured while it runs; `way` says what calling it gives.

    "value", "items" (a generator), "async", or "items of async".
    """

    def meter():
        return LineMeter(is_own, report)

    def run(*args, **kwargs):
        return meter().run(lambda: function(*args, **kwargs))

    def items(*args, **kwargs):
        return (yield from _stepped(meter(), function(*args, **kwargs)))

    async def run_async(*args, **kwargs):
        return await _stepped(meter(), function(*args, **kwargs))

    async def items_async(*args, **kwargs):
        mine, source = meter(), function(*args, **kwargs)
        step = source.__anext__()
        while True:
            try:
                item = await _stepped(mine, step.__await__())
            except StopAsyncIteration:
                return
            step = source.asend((yield item))

    ways = {"value": run, "items": items, "async": run_async, "items of async": items_async}
    return ways[way]


@types.coroutine
def _stepped(meter, inner):
    """A generator or coroutine, measured in its steps and not between them."""
    step = lambda: inner.send(None)  # noqa: E731
    try:
        while True:
            try:
                item = meter.run(step)
            except StopIteration as end:
                return end.value
            try:
                sent = yield item
            except GeneratorExit:
                raise
            except BaseException as thrown:
                step = _later(inner.throw, thrown)
            else:
                step = _later(inner.send, sent)
    finally:
        inner.close()


def _later(action, value):
    return lambda: action(value)
