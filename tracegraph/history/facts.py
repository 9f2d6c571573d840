"""Small facts by key, on disk before the call returns: a cache, or the state of a loop.

They lie in the same file as the runs, each in a named space. What is kept survives the process.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

from tracegraph.again import REPLAY
from tracegraph.errors import HistoryError
from tracegraph.events import observe
from tracegraph.forking import new_lock
from tracegraph.history.redact import Redactor
from tracegraph.history.store import keep_text, kept_text, open_store, store_path, transaction
from tracegraph.history.values import pack, unpack

__all__ = ["Facts", "State", "forget_states"]


@final
class Facts(MutableMapping[str, Any]):
    """A dict on disk, from texts to values that JSON can hold; several processes may share it.

    Args:
        space: what the facts are about; spaces do not see each other.
        store: see `tracegraph.run`.

    Raises:
        HistoryError: the file cannot be used.

    >>> import tempfile
    >>> facts = Facts("evaluations", tempfile.mkdtemp())
    >>> facts["a1/example 3"] = {"score": 0.5}
    >>> facts.get("a1/example 3"), facts.get("a2")
    ({'score': 0.5}, None)
    >>> facts.close()
    """

    def __init__(self, space: str, store: str | Path | None = None) -> None:
        self.space = space
        self.path = store_path(store)
        self._lock = new_lock()
        self._redactor = Redactor()
        try:
            self._opened = os.getpid(), _shared(self.path)
        except (sqlite3.Error, OSError) as error:
            raise HistoryError(f"{self.path} cannot be used: {error}") from error

    @property
    def _connection(self) -> sqlite3.Connection:
        """That of this process: one that was forked opens its own, and leaves its parent's alone."""
        process, connection = self._opened
        if process != os.getpid():
            _of_parents.append(connection)
            connection = _shared(self.path)
            self._opened = os.getpid(), connection
        return connection

    def get(self, key: str, default: Any = None) -> Any:
        """The value kept under `key`."""
        with self._lock:
            row = self._connection.execute(
                "SELECT value FROM facts WHERE space=? AND key=?", (self.space, key)
            ).fetchone()
            text = None if row is None else kept_text(self._connection, row[0])
        return default if text is None else unpack(json.loads(text), {})

    def __getitem__(self, key: str) -> Any:
        found = self.get(key, self)
        if found is self:
            raise KeyError(key)
        return found

    def __setitem__(self, key: str, value: Any) -> None:
        """Keep `value`; it is on disk when this returns, and a killed process has not lost it.

        Raises:
            HistoryError: it cannot be written and read back, or the file cannot be written.
        """
        tensors: dict[str, Any] = {}
        data = pack(value, tensors, path=key)
        if tensors:
            raise HistoryError(f"{key} holds a tensor; facts are small: keep a checkpoint instead")
        text = self._redactor.clean(json.dumps(data, separators=(",", ":")))
        try:
            with self._lock, transaction(self._connection):
                sha = keep_text(self._connection, text)
                self._connection.execute(
                    "INSERT OR REPLACE INTO facts VALUES (?,?,?,?)",
                    (self.space, key, time.time(), sha),
                )
        except sqlite3.Error as error:
            raise HistoryError(f"{self.path} cannot be written: {error}") from error

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.get(key, self) is not self

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            rows = self._connection.execute(
                "SELECT key FROM facts WHERE space=? ORDER BY key", (self.space,)
            ).fetchall()
        return iter([key for (key,) in rows])

    def __len__(self) -> int:
        with self._lock:
            (count,) = self._connection.execute(
                "SELECT count(*) FROM facts WHERE space=?", (self.space,)
            ).fetchone()
        return int(count)

    def __delitem__(self, key: str) -> None:
        with self._lock, transaction(self._connection):
            row = "DELETE FROM facts WHERE space=? AND key=?"
            if not self._connection.execute(row, (self.space, key)).rowcount:
                raise KeyError(key)

    def clear(self) -> None:
        """Forget everything in this space."""
        with self._lock, transaction(self._connection):
            self._connection.execute("DELETE FROM facts WHERE space=?", (self.space,))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


_of_parents: list[sqlite3.Connection] = []
"""Connections that were open when this process was forked: who used or closed them would harm the parent."""


def _shared(path: Path) -> sqlite3.Connection:
    """A connection that several threads may use, one at a time."""
    return open_store(path, threads=True)


@final
class State:
    """The state of a loop under a name, for ``fit(store=State("first try"))``: exact resume.

    Secrets in it are taken out, as everywhere in the history: a candidate that holds one cannot be
    gone on from.

    >>> import tempfile
    >>> state = State("first try", tempfile.mkdtemp())
    >>> state.load() is None
    True
    >>> state.save({"position": 3})
    >>> state.load()
    {'position': 3}
    """

    def __init__(self, name: str, store: str | Path | None = None) -> None:
        tape = os.environ.get(REPLAY)
        self.name = f"{name}{_mark(tape)}" if tape else name  # a replay begins at the beginning
        self._store = store

    def load(self) -> Any:
        """The state that was saved last, or ``None``; in a replay, only what it saved itself."""
        with Facts("state", self._store) as facts:
            return facts.get(self.name)

    def save(self, state: Any) -> None:
        """Keep a state, all of it or none; it is on disk when this returns."""
        with Facts("state", self._store) as facts:
            facts[self.name] = state
            observe("state", name=self.name, store=str(facts.path.absolute()))

    def journal(self, about: str) -> Facts:
        """Facts that belong to this state, each on disk at once: what was paid for since the last save."""
        return Facts(f"{about} of {self.name}", self._store)

    def folder(self) -> Path:
        """Where files of this state lie, such as checkpoints of tensors; it need not be there yet."""
        return self._beside("files")

    @contextmanager
    def hold(self) -> Iterator[None]:
        """A block in which no other process or thread may hold this state.

        The system lets go of it when the process ends, however it ends.

        Raises:
            HistoryError: another one holds it.
        """
        lock_file = self._beside("lock")
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        lock = sqlite3.connect(lock_file, isolation_level=None, timeout=0)
        try:
            try:
                lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                raise HistoryError(
                    f"the state {self.name!r} in {store_path(self._store)} is in use by another run; "
                    "wait for its end, or give this one another name or place"
                ) from error
            yield
        finally:
            lock.close()

    def _beside(self, ending: str) -> Path:
        """A place beside the history that is this state's own."""
        history = store_path(self._store)
        digest = hashlib.sha256(self.name.encode()).hexdigest()[:12]
        return history.with_name(f"{history.stem}-{digest}.{ending}")


def forget_states(store: str | Path, tape: Path) -> None:
    """Forget the states of the replay with this tape, and all that is kept under their names."""
    mark = _mark(str(tape))
    with Facts("state", store) as facts:
        for state in [State(name, store) for name in facts if name.endswith(mark)]:
            shutil.rmtree(state.folder(), ignore_errors=True)
            state._beside("lock").unlink(missing_ok=True)
        with facts._lock, transaction(facts._connection):
            facts._connection.execute(
                "DELETE FROM facts WHERE substr(key, -?) = ? OR substr(space, -?) = ?",
                (len(mark), mark, len(mark), mark),
            )


def _mark(tape: str) -> str:
    return f" (replay {hashlib.sha256(tape.encode()).hexdigest()[:12]})"
