"""One thread that writes what a run hands it, so that steps need not wait for the disk.

A step waits only until the one before it is on disk: a killed process loses the last step at most.
When the disk is full, read-only or locked, what is waiting stays in memory and is tried again; a
damaged file is left alone and another one is begun, and one that somebody deleted is made again. Each
is said once.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from tracegraph.history.store import open_store, transaction

__all__ = ["Job", "Writer"]

Job = Callable[[sqlite3.Connection, Path], object]
"""Writes something; may be run again when the first try failed, so it changes nothing else."""

_PATIENCE = 1.0  # seconds that a step waits for the one before
_AGAIN = 0.5  # seconds until a failed write is tried again
_PASSING = frozenset(
    (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
)
_MOST_WAITING = 10_000  # jobs in memory while nothing can be written


class Writer:
    """Writes jobs in order, each completely or not at all.

    Args:
        opening: the first job; it is run again at the start of every further file.
        places: the file to write, and those to turn to, in order, when it cannot be used.
    """

    def __init__(self, opening: Job, places: Sequence[Path]) -> None:
        self._opening = opening
        self._places = deque(places)
        self.path = self._places.popleft()
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._failing = False
        self._behind = False
        self._said: list[str] = []
        self._lost = 0
        self._process = os.getpid()
        self._jobs.append(opening)
        self._thread = threading.Thread(target=self._main, name="tracegraph-history", daemon=True)
        self._thread.start()

    @property
    def here(self) -> bool:
        """Whether this is the process that began; a forked child writes nothing."""
        return os.getpid() == self._process

    def put(self, job: Job) -> None:
        """Hand over `job`; waits until the one before is written, but never for long."""
        if not self.here:
            return
        with self._changed:
            if not self._failing and not self._behind:
                self._behind = not self._changed.wait_for(
                    lambda: not self._jobs or self._failing, _PATIENCE
                )
            if len(self._jobs) >= _MOST_WAITING:
                self._lost += 1
                return
            self._jobs.append(job)
            self._changed.notify_all()

    def flush(self, timeout: float = 30.0) -> bool:
        """Wait until everything is written; false when that failed or took too long."""
        if not self.here:
            return True
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs or self._failing, timeout) and (
                not self._jobs
            )

    def close(self, timeout: float = 60.0) -> None:
        """Write what is waiting, turning to the next file if need be, and end the thread."""
        if not self.here:
            return
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        left = len(self._jobs) + self._lost
        if left:
            self._complain(f"{left} records of this run are lost: no file could be written")

    def complaints(self) -> list[str]:
        """What went wrong since this was asked last."""
        if not self._said:
            return []
        with self._changed:
            said, self._said = self._said, []
        return said

    # In the thread

    def _main(self) -> None:
        # The connection is this frame's alone: a forked child, which has no such thread, never
        # closes it.
        connection: sqlite3.Connection | None = None
        opened: tuple[int, int] | None = None
        singly = False
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closing)
                batch = [self._jobs[0]] if singly and self._jobs else list(self._jobs)
            if not batch:
                break
            if connection is not None and _file(self.path) != opened:
                self._complain(
                    f"{self.path} was deleted or replaced while this run was kept in it; what comes "
                    "from now on is kept there anew"
                )
                _close(connection)
                connection = None
                self._begin_again()
                continue
            try:
                if connection is None:
                    connection = open_store(self.path, warn=self._complain)
                    opened = _file(self.path)
                with transaction(connection):
                    for job in batch:
                        job(connection, self.path)
            except Exception as error:  # nothing that goes wrong here may end the run
                if _is_at_fault(error, batch, self._opening) and connection is not None:
                    if len(batch) == 1:
                        self._complain(f"a record could not be kept: {error}")
                        self._written(1)
                    singly = True
                    continue
                if self._give_up(error):
                    if connection is not None:
                        _close(connection)
                    connection = None
                    if not self._next(error):
                        break
                continue
            singly = singly and len(self._jobs) > len(batch)
            self._written(len(batch))
        if connection is not None:
            _close(connection)

    def _written(self, count: int) -> None:
        with self._changed:
            self._failing = False
            for _ in range(count):
                self._jobs.popleft()
            self._behind = self._behind and bool(self._jobs)
            self._changed.notify_all()

    def _give_up(self, error: Exception) -> bool:
        """Whether this file is done with; if not, waits before the next try."""
        first = not self._failing
        with self._changed:
            self._failing = True
            self._changed.notify_all()
        if not _is_passing(error):
            return True
        if first:
            self._complain(
                f"{self.path} cannot be written ({error}); the run goes on, and what it keeps waits "
                "in memory until it can"
            )
        until = time.monotonic() + _AGAIN
        with self._changed:
            if self._closing and not first:
                return True
            self._changed.wait_for(lambda: self._closing, until - time.monotonic())
        return False

    def _next(self, error: Exception) -> bool:
        """Turn to the next file; false when there is none."""
        if not self._places:
            with self._changed:
                self._changed.notify_all()
            return False
        before, self.path = self.path, self._places.popleft()
        self._complain(
            f"{before} cannot be used ({error}) and is left as it is; this run is kept in {self.path}"
        )
        self._begin_again()
        return True

    def _begin_again(self) -> None:
        """Let the file that comes next start with the opening."""
        with self._changed:
            if not self._jobs or self._jobs[0] is not self._opening:
                self._jobs.appendleft(self._opening)

    def _complain(self, message: str) -> None:
        with self._changed:
            self._said.append(message)


def _is_at_fault(error: Exception, batch: list[Job], opening: Job) -> bool:
    """Whether a record is to blame for `error`, and not the file."""
    if batch == [opening]:
        return False
    if isinstance(error, sqlite3.Error):
        return isinstance(
            error, sqlite3.IntegrityError | sqlite3.ProgrammingError | sqlite3.DataError
        )
    return not isinstance(error, OSError)


def _is_passing(error: Exception) -> bool:
    """Whether the same write may succeed later: the file is locked, the disk is full."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in _PASSING
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _file(path: Path) -> tuple[int, int] | None:
    """Which file has this name now."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _close(connection: sqlite3.Connection) -> None:
    try:
        connection.close()
    except sqlite3.Error:
        return
