"""Read kept runs back: what there is, what a step saw, what changed between two of them."""

from __future__ import annotations

import difflib
import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from tracegraph.errors import HistoryError, NoSuchRun
from tracegraph.history.display import runs_rows, steps_rows, summary_facts
from tracegraph.history.kept_graph import KeptGraph
from tracegraph.history.parameters import read_value, tensor_file
from tracegraph.history.store import collect_garbage, kept_text, open_store, store_path, transaction
from tracegraph.kinds import show
from tracegraph.view import Card, Facts, Part, Spark, Table, front
from tracegraph.view import Difference as Changed

__all__ = ["Difference", "Event", "History", "KeptCandidate", "KeptReply", "KeptRun", "KeptStep",
           "KeptValue", "differences"]  # fmt: skip

_STEP = (
    "number, started, seconds, status, optimizer, note, score, changes, rejections, calls, "
    "tokens_in, tokens_out, cost, nodes"
)
_SHOWN = 50  # rows of a table that is displayed: the latest
_CHANGED = 6  # parameters whose change a card shows
_RUN = "id, name, created, ended, status, error, host, pid, about"


@dataclass(frozen=True, slots=True)
class KeptStep:
    """One step, in numbers; `KeptRun.details` has its words.

    `status` is done, failed or bypassed; `seconds` its time; `cost` is in dollars.
    """

    number: int
    started: float
    seconds: float | None
    status: str
    optimizer: str | None
    note: str
    score: float | None
    changes: int
    rejections: int
    calls: int | None
    tokens_in: int | None
    tokens_out: int | None
    cost: float | None
    nodes: int | None


@dataclass(frozen=True, slots=True)
class KeptValue:
    """A parameter's value, from `step` on; `whole` is false where only a description was kept."""

    name: str
    kind: str
    value: Any
    version: int
    origin: str
    trusted: bool
    step: int
    whole: bool = True


@dataclass(frozen=True, slots=True)
class KeptCandidate:
    """A candidate of a search, by its id, with those that it was made from."""

    id: str
    parents: tuple[str, ...]
    step: int
    time: float
    score: float | None
    status: str
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scores(self) -> dict[str, float]:
        """Its score for each objective, by name; larger is better."""
        return dict(self.details.get("scores", {}))


@dataclass(frozen=True, slots=True)
class KeptReply:
    """A question to a model and its reply, whoever asked; in order of time.

    `request` and `reply` are plain data, as a tape holds them (`tracegraph.llm.Tape`); `key` is that
    of the request. `cost` is in dollars.
    """

    step: int
    time: float
    key: str
    model: str
    tokens_in: int | None
    tokens_out: int | None
    cost: float | None
    request: Mapping[str, Any]
    reply: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a run, after the step of that number."""

    step: int
    time: float
    kind: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """A parameter that is not the same in two places; ``None`` where it is missing."""

    name: str
    before: Any
    after: Any

    @property
    def text(self) -> str:
        """The difference, line by line."""
        lines = difflib.unified_diff(
            _text(self.before).splitlines(), _text(self.after).splitlines(),
            f"{self.name} before", f"{self.name} after",
            lineterm="", n=2,
        )  # fmt: skip
        return "\n".join(lines)


@final
class History:
    """The runs that are kept in one place.

    Args:
        store: a directory or a file ``*.sqlite``; by default ``.tracegraph`` where you are.

    Raises:
        HistoryError: there is none, or it is damaged, or of another program or later version.
    """

    def __init__(self, store: str | Path | None = None) -> None:
        self.path = store_path(store)
        with self._reading():
            pass

    def __repr__(self) -> str:
        return f"History({str(self.path)!r})"

    def __rich__(self) -> Card:
        return self._card()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return self._card().bundle(repr(self))

    def _card(self) -> Card:
        """The latest runs on a card, for a notebook or a terminal."""
        return Card(str(self.path), (Table("the latest runs", *runs_rows(self.runs()[-_SHOWN:])),))

    def runs(self) -> list[KeptRun]:
        """Every run, the oldest first."""
        with self._reading() as connection:
            rows = connection.execute(f"SELECT {_RUN} FROM runs ORDER BY id").fetchall()
        return [self._made(row) for row in rows]

    def run(self, name: str | int | None = None) -> KeptRun:
        """A run by its number or its name: of several of one name, the latest.

        Args:
            name: the number or the name; by default the latest run.

        Raises:
            NoSuchRun: there is none; the message names the nearest.
        """
        wanted = int(name) if isinstance(name, str) and name.isdecimal() else name
        if wanted is None:
            where, values = "1", ()
        elif isinstance(wanted, int):
            where, values = "id=?", (wanted,)  # type: ignore[assignment]
        else:
            where, values = "name=?", (wanted,)  # type: ignore[assignment]
        with self._reading() as connection:
            row = connection.execute(
                f"SELECT {_RUN} FROM runs WHERE {where} ORDER BY id DESC LIMIT 1", values
            ).fetchone()
            if row is None and isinstance(wanted, int):  # a name may be a number
                row = connection.execute(
                    f"SELECT {_RUN} FROM runs WHERE name=? ORDER BY id DESC LIMIT 1", (str(name),)
                ).fetchone()
        if row is None:
            raise NoSuchRun(self._missing(name))
        return self._made(row)

    def prune(self, runs: Iterable[KeptRun], *, dry: bool = False) -> tuple[int, int]:
        """Delete runs and what only they referred to; a run that is going on is left.

        Returns:
            How many runs were (or, with `dry`, would be) deleted, and how many bytes that freed.
        """
        gone = [run for run in runs if run.status != "running"]
        if dry or not gone:
            return len(gone), 0
        before = self._size()
        with self._guarded("changed"):
            connection = open_store(self.path)
            try:
                with transaction(connection):
                    connection.executemany("DELETE FROM runs WHERE id=?", [(r.id,) for r in gone])
                collect_garbage(connection)
                self._drop_tensors(connection)
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                connection.close()
        return len(gone), max(before - self._size(), 0)

    def _drop_tensors(self, connection: sqlite3.Connection) -> None:
        used = set()
        rows = connection.execute("SELECT DISTINCT value FROM params WHERE codec='tensors'")
        for (sha,) in rows.fetchall():
            used.add(json.loads(kept_text(connection, sha) or "{}").get("file"))
        folder = tensor_file(self.path, "x").parent
        for file in folder.glob("*.safetensors*") if folder.is_dir() else ():
            old = time.time() - file.stat().st_mtime > 3_600  # else a run may be about to name it
            if old and file.name.partition(".")[0] not in used:
                file.unlink(missing_ok=True)

    def _size(self) -> int:
        files = [self.path, self.path.with_name(self.path.name + "-wal")]
        files += tensor_file(self.path, "x").parent.glob("*")
        return sum(file.stat().st_size for file in files if file.exists())

    def _missing(self, name: Any) -> str:
        if name is None:
            return f"no run is kept in {self.path} yet"
        with self._reading() as connection:
            names = [n for (n,) in connection.execute("SELECT DISTINCT name FROM runs LIMIT 10000")]
            (last,) = connection.execute("SELECT max(id) FROM runs").fetchone()
        if str(name).isdecimal() and last:
            return f"{self.path} has no run {name}; the latest is run {last}"
        near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.4)
        hint = (
            f"did you mean {near[0]!r}?" if near else "`tracegraph runs list` shows what there is"
        )
        return f"{self.path} has no run {name!r}; {hint}"

    def _made(self, row: tuple[Any, ...]) -> KeptRun:
        number, name, created, ended, status, error, host, pid, about = row
        if status == "running" and host == socket.gethostname() and not _alive(pid):
            status = "killed"
        return KeptRun(self, number, name, created, ended, status, error, about, host)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._guarded():
            connection = open_store(self.path, writing=False)
            try:
                yield connection
            finally:
                connection.close()

    @contextmanager
    def _guarded(self, done: str = "read") -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise HistoryError(
                f"{self.path} cannot be {done} now ({error}): is it locked or read-only, or its disk "
                "full or gone?"
            ) from error
        except sqlite3.DatabaseError as error:
            raise HistoryError(
                f"{self.path} is damaged ({error}); it is left as it is. Rescue what can be read with "
                f"`sqlite3 {self.path.name} .recover`, or keep runs in another directory"
            ) from error


@final
class KeptRun:
    """One kept run.

    `status` is running, done, failed, interrupted, or killed (its process is gone); `host` is the name
    of its machine.
    """

    def __init__(
        self, history: History, id: int, name: str, created: float, ended: float | None,
        status: str, error: str | None, about: bytes | None, host: str | None,
    ) -> None:  # fmt: skip
        self._history = history
        self.id = id
        self.name = name
        self.created = created
        self.ended = ended
        self.status = status
        self.error = error
        self.host = host
        self._about = about

    def __repr__(self) -> str:
        return f"<kept run {self.id} {self.name!r}, {self.status}>"

    def __rich__(self) -> Card:
        return self._card()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return self._card().bundle(repr(self))

    def _card(self) -> Card:
        """The run on a card, for a notebook or a terminal: totals, scores, steps, what changed."""
        steps, facts = self.steps, summary_facts(self)
        scores = [step.score for step in steps if step.score is not None]
        parts: list[Part] = [Facts(facts)]
        if scores:
            parts.append(Spark("score", scores))
        if steps:
            parts.append(Table("the latest steps", *steps_rows(steps[-_SHOWN:])))
        parts += [
            Changed(f"{d.name}, since the start", _text(d.before), _text(d.after))
            for d in differences(self._values("min(step)"), self.parameters())[:_CHANGED]
        ]
        return Card(f"run {self.id} {self.name}: {self.status}", tuple(parts))

    @property
    def about(self) -> dict[str, Any]:
        """Its ``config``, ``versions``, ``commit``, ``machine``, ``program``, ``seeds``, ``started``."""
        with self._history._reading() as connection:
            return dict(json.loads(kept_text(connection, self._about) or "{}"))

    @property
    def steps(self) -> list[KeptStep]:
        """The steps in order."""
        with self._history._reading() as connection:
            rows = connection.execute(
                f"SELECT {_STEP} FROM steps WHERE run=? ORDER BY number", (self.id,)
            ).fetchall()
        return [KeptStep(*row) for row in rows]

    @property
    def summary(self) -> dict[str, Any]:
        """How many steps, the best and last score, and what the steps took: tokens, calls, dollars.

        ``replies`` and ``paid`` (dollars) count every reply of a model, those that the program asked
        for itself too; ``seconds`` is the time of the whole run.
        """
        with self._history._reading() as connection:
            row = connection.execute(
                "SELECT count(*), max(score), sum(calls), sum(tokens_in), sum(tokens_out), sum(cost),"
                " max(started + coalesce(seconds, 0)) FROM steps WHERE run=?",
                (self.id,),
            ).fetchone()
            replies, paid = connection.execute(
                "SELECT count(*), sum(cost) FROM replies WHERE run=?", (self.id,)
            ).fetchone()
            last = connection.execute(
                "SELECT score FROM steps WHERE run=? AND score IS NOT NULL "
                "ORDER BY number DESC LIMIT 1",
                (self.id,),
            ).fetchone()
        steps, best, calls, tokens_in, tokens_out, cost, until = row
        return {
            "steps": steps, "best_score": best, "last_score": last[0] if last else None,
            "calls": calls, "tokens_in": tokens_in, "tokens_out": tokens_out, "cost": cost,
            "replies": replies, "paid": paid,
            "seconds": (self.ended or until or self.created) - self.created,
        }  # fmt: skip

    def details(self, step: int) -> dict[str, Any]:
        """What was said in a step: ``feedback``, ``changes``, ``rejections`` with reasons,
        ``reasoning``, ``problem``, ``exchanges`` (prompts and replies), ``error``; each if any.

        Raises:
            HistoryError: the run has no such step.
        """
        with self._history._reading() as connection:
            (sha,) = self._row(connection, "details", step)
            return dict(json.loads(kept_text(connection, sha) or "{}"))

    def graph(self, step: int) -> KeptGraph:
        """The trace graph of a step.

        Raises:
            HistoryError: the run has no such step, or the step has no graph.
        """
        with self._history._reading() as connection:
            began, *kept = self._row(connection, "started, graph, shown, spent", step)
            graph, shown, spent = kept
            if graph is None:
                raise HistoryError(f"step {step} of run {self.id} was kept without a graph")
            structure = json.loads(kept_text(connection, graph) or "")
            values = json.loads(kept_text(connection, shown) or "")
            times = json.loads(kept_text(connection, spent) or "{}")
        title = f"{self.name}, step {step}"
        return KeptGraph.read(structure, values, title, spent=times, began=began)

    def parameters(self, step: int | None = None) -> dict[str, KeptValue]:
        """Every parameter as it was after `step`; 0 is the start, and by default the end."""
        return self._values("max(step)", 2**62 if step is None else step)

    def _values(self, which: str, until: int = 2**62) -> dict[str, KeptValue]:
        """By name, the value that each parameter had at `which` of the steps that gave it one."""
        with self._history._reading() as connection:
            rows = connection.execute(
                f"SELECT name, kind, value, version, origin, trusted, {which}, codec FROM params "
                "WHERE run=? AND step<=? GROUP BY name ORDER BY name",
                (self.id, until),
            ).fetchall()
            return {row[0]: self._value(connection, row) for row in rows}

    def versions(self, name: str) -> list[KeptValue]:
        """Every value that a parameter had, in order.

        Raises:
            HistoryError: the run has no such parameter.
        """
        with self._history._reading() as connection:
            rows = connection.execute(
                "SELECT name, kind, value, version, origin, trusted, step, codec FROM params "
                "WHERE run=? AND name=? ORDER BY step",
                (self.id, name),
            ).fetchall()
            if not rows:
                known = ", ".join(self.parameters()) or "none"
                raise HistoryError(f"run {self.id} kept no parameter {name!r}; it has {known}")
            return [self._value(connection, row) for row in rows]

    def diff(self, before: int, after: int | None = None) -> list[Difference]:
        """What the steps after `before`, up to `after`, changed."""
        return differences(self.parameters(before), self.parameters(after))

    @property
    def replies(self) -> list[KeptReply]:
        """Every question to a model and its reply: those of optimizers, and those of the program."""
        with self._history._reading() as connection:
            rows = connection.execute(
                "SELECT step, time, key, model, tokens_in, tokens_out, cost, request, reply "
                "FROM replies WHERE run=? ORDER BY id",
                (self.id,),
            ).fetchall()
            return [
                KeptReply(
                    *row[:7], *(json.loads(kept_text(connection, sha) or "{}") for sha in row[7:])
                )
                for row in rows
            ]

    @property
    def candidates(self) -> list[KeptCandidate]:
        """The candidates of its searches, in the order in which they were met."""
        with self._history._reading() as connection:
            rows = connection.execute(
                "SELECT id, parents, step, time, score, status, details FROM candidates "
                "WHERE run=? ORDER BY time",
                (self.id,),
            ).fetchall()
            return [
                KeptCandidate(
                    id, tuple(json.loads(parents)), step, when, score, status,
                    json.loads(kept_text(connection, sha) or "{}"),
                )
                for id, parents, step, when, score, status, sha in rows
            ]  # fmt: skip

    def front(self, objectives: Iterable[str] | None = None) -> list[KeptCandidate]:
        """The Pareto front: the candidates that no other one is at least as good as in every
        objective and better than in one; larger is better.

        Args:
            objectives: names of `KeptCandidate.scores`; by default all that any candidate has. A
                candidate that lacks one of them, or has one that is not finite, is left out.
        """
        return front(self.candidates, objectives)

    @property
    def events(self) -> list[Event]:
        """What happened, in order."""
        with self._history._reading() as connection:
            rows = connection.execute(
                "SELECT step, time, kind, facts FROM events WHERE run=? ORDER BY id", (self.id,)
            ).fetchall()
        return [Event(step, when, kind, _facts(facts)) for step, when, kind, facts in rows]

    def _row(self, connection: sqlite3.Connection, columns: str, step: int) -> tuple[Any, ...]:
        row = connection.execute(
            f"SELECT {columns} FROM steps WHERE run=? AND number=?", (self.id, step)
        ).fetchone()
        if row is None:
            (last,) = connection.execute(
                "SELECT max(number) FROM steps WHERE run=?", (self.id,)
            ).fetchone()
            has = f"it has steps 1 to {last}" if last else "it has none"
            raise HistoryError(f"run {self.id} ({self.name!r}) has no step {step!r}; {has}")
        return tuple(row)

    def _value(self, connection: sqlite3.Connection, row: tuple[Any, ...]) -> KeptValue:
        name, kind, sha, version, origin, trusted, step, codec = row
        value = read_value(connection, self._history.path, codec, sha)
        return KeptValue(name, kind, value, version, origin, bool(trusted), step, codec != "shown")


def differences(
    before: Mapping[str, KeptValue], after: Mapping[str, KeptValue]
) -> list[Difference]:
    """The parameters that are not the same on both sides."""
    found = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is None or new is None or not _same(old.value, new.value):
            found.append(Difference(name, old and old.value, new and new.value))
    return found


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if hasattr(one, "shape"):
        return one.shape == other.shape and one.dtype == other.dtype and bool((one == other).all())
    return bool(one == other)


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else show(value, 10_000)


def _facts(text: str) -> Mapping[str, Any]:
    try:
        return dict(json.loads(text))
    except ValueError:  # cut: it was too long
        return {"text": text}


def _alive(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
