"""Keep a run while it happens: steps, parameters, graphs, prompts, money.

What is kept is taken at once, while it is true, and written by another thread. Nothing that goes
wrong with keeping stops the run: it is said once, as a `HistoryWarning`.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import sqlite3
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path
from threading import get_ident
from types import TracebackType
from typing import Any, Self, final

from tracegraph.again import REPLAY
from tracegraph.errors import HistoryError
from tracegraph.events import watching
from tracegraph.forking import new_lock
from tracegraph.history.capture import Captured, capture, cut, feedback_on, mean_score, text_of
from tracegraph.history.parameters import Taken, take
from tracegraph.history.redact import Redactor
from tracegraph.history.started import again_of
from tracegraph.history.store import HistoryWarning, keep_text, kept_text, store_path
from tracegraph.history.surroundings import surroundings
from tracegraph.history.writer import Job, Writer
from tracegraph.kinds import show
from tracegraph.node import Node
from tracegraph.parameter import Parameter
from tracegraph.recorder import timed
from tracegraph.warning import warn

__all__ = ["Run", "automatic_run", "run"]

_LONGEST = 1_000_000  # characters of one problem, prompt or reply
_LATEST = 8  # steps that were kept by themselves and may be completed
_EVENT = 10_000  # characters of one event's facts


@final
class Run:
    """A run that is being kept; made by `run`.

    Attributes:
        name: what the run is called; several runs may have one name.
    """

    def __init__(
        self,
        name: str,
        *,
        store: str | Path | None = None,
        config: Mapping[str, Any] | None = None,
        seed: int | None = None,
        graphs: bool = True,
        automatic: bool = True,
        largest_tensor: int = 1_000_000,
    ) -> None:
        if not isinstance(name, str) or not name.strip():
            raise HistoryError(f"a run's name is a text, got {show(name, 60)}")
        self.name = name
        self._path = store_path(store)
        self._config = {key: _plain(value) for key, value in (config or {}).items()}
        self._seed = seed
        self._graphs = graphs
        self._automatic = automatic
        self._largest = largest_tensor
        self._redactor = Redactor()
        self._lock = new_lock()
        self._number = 0
        self._latest = 0.0
        self._last: deque[tuple[Any, int]] = deque(maxlen=_LATEST)
        self._drafts: dict[tuple[int, int], _Draft] = {}
        self._named: dict[int, tuple[Parameter[Any], str]] = {}
        self._names: dict[str, Parameter[Any]] = {}
        self._versions: dict[int, int] = {}
        self._learned: set[int] = set()
        self._said = False
        self._states: list[dict[str, Any]] = []
        self._id: int | None = None
        self._stack = ExitStack()
        self._writer: Writer | None = None

    # The block

    def __enter__(self) -> Self:
        if self._writer is not None:
            raise HistoryError(
                f"the run {self.name!r} was begun before; make a new one with run({self.name!r})"
            )
        self._redactor.learn(self._config)
        self._writer = Writer(self._opening(), _places(self._path))
        self._stack.enter_context(timed())
        if self._automatic:
            self._stack.enter_context(watching(self._watch))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()
        status = "done" if error is None else "failed"
        if isinstance(error, KeyboardInterrupt):
            status = "interrupted"
        self.close(status, None if error is None else f"{type(error).__name__}: {error}")

    def close(self, status: str = "done", error: str | None = None) -> None:
        """Write what is waiting and end the run; leaving the ``with`` block does it."""
        writer, ended = self._open_writer(), self._now()

        def job(connection: sqlite3.Connection, path: Path) -> None:
            connection.execute(
                "UPDATE runs SET ended=?, status=?, error=? WHERE id=?",
                (ended, status, error and self._redactor.clean_name(error)[:10_000], self._id),
            )

        writer.put(job)
        writer.close()
        self._warn()

    def flush(self) -> None:
        """Wait until everything that was kept so far is on disk."""
        self._open_writer().flush()
        self._warn()

    @property
    def id(self) -> int:
        """The run's number in its history.

        Raises:
            HistoryError: it has none, because no file could be written yet.
        """
        self._open_writer().flush()
        if self._id is None:
            raise HistoryError(f"the run {self.name!r} could not be written yet and has no number")
        return self._id

    @property
    def path(self) -> Path:
        """The file that keeps this run."""
        return self._open_writer().path

    # What is kept

    def step(
        self,
        outputs: Node[Any] | Iterable[Node[Any]] | None = None,
        *,
        feedback: Any = None,
        update: Any = None,
        score: float | None = None,
        problem: Any = None,
        parameters: Mapping[str, Parameter[Any]] | None = None,
        seconds: float | None = None,
        note: str = "",
    ) -> int:
        """Keep one step; gives its number.

        Steps of optimizers are kept by themselves. An `update` that was kept so is completed here,
        not kept twice.

        Args:
            outputs: a node or several: the graph behind them is kept.
            feedback: what was said of them: a text, a number, feedback, or a list of these.
            update: what an optimizer's ``step`` gave.
            score: how good this step was; larger is better.
            problem: the `Problem` or the text that a model was given.
            parameters: by name; those that `outputs` and `update` know need not be given.
            seconds: how long it took.
            note: a few words.
        """
        ends = [outputs] if isinstance(outputs, Node) else list(outputs or ())
        captured = capture(ends) if ends else None
        found = {} if captured is None else dict(captured.parameters)
        found |= dict(parameters or {})
        found |= {change.name: change.parameter for change in getattr(update, "changes", ())}
        draft = _Draft(found, self._now())
        draft.seconds = seconds
        draft.captured = captured if self._graphs else None
        draft.score = None if score is None else float(score)
        draft.details["feedback"] = _said(feedback)
        if problem is not None:
            text = problem.text() if hasattr(problem, "text") else str(problem)
            draft.details["problem"] = cut(text, _LONGEST)
        for known, number in () if update is None else tuple(self._last):
            if known is update:
                self._amend(number, draft, note)
                return number
        self._take_first(draft, update)
        draft.updated(update)
        if note:
            draft.note = note
        return self._finish(draft)

    def log(self, kind: str, **facts: Any) -> None:
        """Keep an event: a word for what happened, and facts about it, bounded."""
        text = json.dumps({key: _plain(value) for key, value in facts.items()})[:_EVENT]
        row = (self._number, self._now(), self._redactor.clean_name(kind))

        def job(connection: sqlite3.Connection, path: Path) -> None:
            connection.execute(
                "INSERT INTO events (run, step, time, kind, facts) VALUES (?,?,?,?,?)",
                (self._id, *row, self._redactor.clean(text)),
            )

        self._put(job)

    def candidate(
        self,
        id: str,
        *,
        parents: Iterable[str] = (),
        score: float | None = None,
        scores: Mapping[str, float] | None = None,
        status: str = "",
        **details: Any,
    ) -> None:
        """Keep a candidate of a search, or what became of it.

        A later call with the same `id` adds to it: what it leaves out stays as it was.

        Args:
            id: its name within the run.
            parents: the ids of those that it was made from.
            score: how good it is; larger is better.
            scores: the same for each objective, by name.
            status: what became of it, in a word.
            **details: anything else, bounded.
        """
        if scores:
            details["scores"] = {name: float(value) for name, value in scores.items()}
        own, *above, status = map(self._redactor.clean_name, (id, *parents, status))
        row = (own, json.dumps(above), self._number, self._now(), score, status)
        text = json.dumps({key: _plain(value, 10_000) for key, value in details.items()})

        def job(connection: sqlite3.Connection, path: Path) -> None:
            known = connection.execute(
                "SELECT details FROM candidates WHERE run=? AND id=?", (self._id, own)
            ).fetchone()
            before = json.loads(kept_text(connection, known[0]) or "{}") if known else {}
            merged = {**before, **json.loads(self._redactor.clean(text))}
            sha = keep_text(connection, json.dumps(merged))
            connection.execute(
                "INSERT INTO candidates VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (run, id) DO UPDATE SET "
                "parents=iif(excluded.parents='[]', parents, excluded.parents), "
                "score=coalesce(excluded.score, score), details=excluded.details, "
                "status=iif(excluded.status='', status, excluded.status)",
                (self._id, *row, sha),
            )

        self._put(job)

    # Inside

    def _watch(self, kind: str, facts: dict[str, Any]) -> None:
        """Keep what an optimizer, or anyone, said with `tracegraph.events.observe`."""
        if self._writer is None or not self._writer.here:
            return
        try:
            rule = _RULES.get(kind)
            if rule is not None:
                rule(self, facts)
            else:
                self.log(kind, **facts)
        except Warning:
            raise  # warnings are errors here: that is what was asked for
        except Exception as error:  # keeping must not break what is kept
            self._complain(f"a {kind} of the run {self.name!r} could not be kept: {error!r}")

    def _step_started(self, facts: dict[str, Any]) -> None:
        optimizer = facts["optimizer"]
        members = facts.get("members", [optimizer])
        named = [dict(getattr(m, "named_parameters", {})) for m in members]
        draft = _Draft({n: p for found in named for n, p in found.items()}, self._now())
        draft.optimizer = type(optimizer).__name__
        for member in members:
            self._learn(getattr(member, "llm", None))
            log = getattr(member, "log", None)
            draft.last_exchanges.append((member, log[-1] if log else None))
        arrived = [p.feedback for p in draft.parameters.values()]
        ends = {i: node for feedback in arrived for i, node in feedback.outputs.items()}
        if ends and self._graphs:
            draft.captured = capture([ends[i] for i in sorted(ends)])
        numbers = {} if draft.captured is None else draft.captured.numbers
        draft.details["feedback"] = feedback_on(draft.parameters, numbers)
        draft.score = mean_score(draft.parameters.values())
        self._take_parameters(draft, before=True)
        self._drafts[id(optimizer), get_ident()] = draft
        draft.clock = time.perf_counter()

    def _step_ended(self, facts: dict[str, Any]) -> None:
        optimizer = facts["optimizer"]
        draft = self._drafts.pop((id(optimizer), get_ident()), None)
        if draft is None:
            return
        draft.seconds = time.perf_counter() - draft.clock
        draft.asked([e for member, last in draft.last_exchanges for e in _exchanges(member, last)])
        update, error = facts.get("update"), facts.get("error")
        if error is not None:
            draft.status = "failed"
            draft.details["error"] = f"{type(error).__name__}: {error}"
        elif facts.get("bypassing"):
            draft.status = "bypassed"
        draft.updated(update)
        draft.tested(facts.get("event"))
        number = self._finish(draft)
        if update is not None:
            self._last.append((update, number))

    def _candidate(self, facts: dict[str, Any]) -> None:
        self.candidate(**facts)

    def _reply(self, facts: dict[str, Any]) -> None:
        """Keep a question to a model and its reply, whoever asked."""
        from tracegraph.llm.tape import plain_reply  # loaded already by whoever asked

        request, reply, model = facts["request"], facts["reply"], facts["model"].name
        self._learn(facts["model"])
        usage = (
            (None, None) if reply.usage is None else (reply.usage.prompt, reply.usage.completion)
        )
        row = (self._number, self._now(), request.key(model), model, *usage, reply.cost)
        asked, said = request.canonical(model), json.dumps(plain_reply(reply))

        def job(connection: sqlite3.Connection, path: Path) -> None:
            texts = [keep_text(connection, self._redactor.clean(text)) for text in (asked, said)]
            connection.execute(
                "INSERT INTO replies (run, step, time, key, model, tokens_in, tokens_out, cost, "
                "request, reply) VALUES (?,?,?,?,?,?,?,?,?,?)",
                (self._id, *row, *texts),
            )

        self._put(job)

    def _state(self, facts: dict[str, Any]) -> None:
        """Keep once that a loop's state is kept under a name."""
        if facts not in self._states:
            self._states.append(facts)
            self.log("state", **facts)

    def _finish(self, draft: _Draft) -> int:
        with self._lock:
            self._number += 1
            number = self._number
        self._take_parameters(draft, before=False)
        if draft.after and not draft.changes:
            draft.changes = len(draft.after)
            draft.details["changes"] = [taken.name for taken in draft.after]
        self._put(lambda connection, path: self._write(connection, path, number, draft))
        return number

    def _take_parameters(self, draft: _Draft, *, before: bool) -> None:
        """Take the values that are new to this run: before the step, or made by it."""
        for name, parameter in draft.parameters.items():
            if self._versions.get(id(parameter)) == parameter.version:
                continue
            taken = take(self._name(name, parameter), parameter, largest=self._largest)
            self._versions[id(parameter)] = taken.version
            (draft.before if before else draft.after).append(taken)

    def _take_first(self, draft: _Draft, update: Any) -> None:
        """Take the values that this run has not seen, as they were before `update`."""
        changed = {id(c.parameter): c for c in getattr(update, "changes", ())}
        for name, parameter in draft.parameters.items():
            if id(parameter) in self._versions:
                continue
            change = changed.get(id(parameter))
            own = self._name(name, parameter)
            taken = take(own, parameter, largest=self._largest)
            if change is not None:
                old = take(own, parameter, largest=self._largest, value=change.before)
                taken = replace(old, version=change.version - 1, origin="", trusted=False)
            else:
                self._versions[id(parameter)] = taken.version
            draft.before.append(taken)

    def _name(self, name: str, parameter: Parameter[Any]) -> str:
        """The parameter's name in this run; numbered where another one has it."""
        known = self._named.get(id(parameter))
        if known is None:
            numbered = (name if i == 1 else f"{name}_{i}" for i in count(1))
            free = next(n for n in numbered if self._names.setdefault(n, parameter) is parameter)
            known = self._named.setdefault(id(parameter), (parameter, free))
        return known[1]

    def _write(
        self, connection: sqlite3.Connection, path: Path, number: int, draft: _Draft
    ) -> None:
        own = self._id or 0
        for step, values in ((number - 1, draft.before), (number, draft.after)):
            for taken in values:
                taken.write(connection, path, own, step, self._redactor)
        graph, shown, spent = self._keep_graph(connection, draft, draft.started)
        details = {key: value for key, value in draft.details.items() if value}
        connection.execute(
            f"INSERT OR REPLACE INTO steps VALUES ({','.join('?' * 19)})",
            (
                own, number, draft.started, draft.seconds, draft.status, draft.optimizer,
                self._redactor.clean_name(draft.note), draft.score, draft.changes, draft.rejections,
                *draft.usage, _count(draft.captured),
                self._keep_json(connection, details) if details else None, graph, shown,
                spent,
            ),
        )  # fmt: skip

    def _amend(self, number: int, draft: _Draft, note: str) -> None:
        """Add to a step that was kept by itself what a person says of it."""
        added = {key: value for key, value in draft.details.items() if value}

        def job(connection: sqlite3.Connection, path: Path) -> None:
            row = connection.execute(
                "SELECT details, started FROM steps WHERE run=? AND number=?", (self._id, number)
            ).fetchone()
            details, started = row or (None, draft.started)
            known = json.loads(kept_text(connection, details) or "{}")
            merged = {**known, **{k: v for k, v in added.items() if k != "feedback"}}
            merged["feedback"] = [*known.get("feedback", []), *added.get("feedback", [])]
            graph, shown, spent = self._keep_graph(connection, draft, started)
            connection.execute(
                "UPDATE steps SET score=coalesce(?, score), seconds=coalesce(?, seconds), "
                "note=coalesce(nullif(?, ''), note), details=?, nodes=coalesce(?, nodes), "
                "graph=coalesce(?, graph), shown=coalesce(?, shown), "
                "spent=iif(?, ?, spent) WHERE run=? AND number=?",
                (draft.score, draft.seconds, self._redactor.clean_name(note),
                 self._keep_json(connection, merged), _count(draft.captured), graph, shown,
                 graph is not None, spent, self._id, number),
            )  # fmt: skip

        self._put(job)

    def _keep_graph(
        self, connection: sqlite3.Connection, draft: _Draft, since: float
    ) -> tuple[bytes | None, bytes | None, bytes | None]:
        captured = draft.captured
        if captured is None:
            return None, None, None
        return (
            self._keep_json(connection, captured.structure),
            self._keep_json(connection, captured.shown),
            self._keep_json(connection, draft.spent(since)) if captured.spent else None,
        )

    def _keep_json(self, connection: sqlite3.Connection, data: Any) -> bytes:
        text = json.dumps(data, separators=(",", ":"), default=show)
        return keep_text(connection, self._redactor.clean(text))

    def _opening(self) -> Job:
        created = self._now()
        replayed = " (replay)" if REPLAY in os.environ else ""

        def job(connection: sqlite3.Connection, path: Path) -> None:
            about = {
                "config": self._config, **surroundings(self._seed), **again_of(self.name)
            }  # fmt: skip
            self._id = connection.execute(
                "INSERT INTO runs (name, created, status, host, pid, about) VALUES (?,?,?,?,?,?)",
                (self._redactor.clean_name(self.name) + replayed, created, "running", socket.gethostname(),
                 os.getpid(), self._keep_json(connection, about)),
            ).lastrowid  # fmt: skip

        return job

    def _now(self) -> float:
        """The time, later than any that this run kept before, even where the clock was set back."""
        with self._lock:
            self._latest = max(time.time(), self._latest + 1e-6)
            return self._latest

    def _learn(self, model: Any) -> None:
        if model is not None and id(model) not in self._learned:
            self._learned.add(id(model))
            self._redactor.learn(model)

    def _put(self, job: Job) -> None:
        self._open_writer().put(job)
        self._warn()

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise HistoryError(
                f"the run {self.name!r} was not begun: write `with tracegraph.run(...) as run:`"
            )
        return self._writer

    def _warn(self) -> None:
        for message in self._open_writer().complaints():
            warn(message, HistoryWarning)

    def _complain(self, message: str) -> None:
        if not self._said:
            self._said = True
            warn(self._redactor.clean(message), HistoryWarning)


_RULES: dict[str, Any] = {
    "step_started": Run._step_started,
    "step": Run._step_ended,
    "step_failed": Run._step_ended,
    "candidate": Run._candidate,
    "reply": Run._reply,
    "state": Run._state,
}


class _Draft:
    """A step that is being put together."""

    def __init__(self, parameters: dict[str, Parameter[Any]], started: float) -> None:
        self.parameters = parameters
        self.started = started
        self.origin = self.clock = time.perf_counter()
        self.seconds: float | None = None
        self.status = "done"
        self.optimizer: str | None = None
        self.note = ""
        self.score: float | None = None
        self.changes = self.rejections = 0
        self.usage: tuple[int | None, int | None, int | None, float | None] = (None,) * 4
        self.details: dict[str, Any] = {}
        self.captured: Captured | None = None
        self.before: list[Taken] = []
        self.after: list[Taken] = []
        self.last_exchanges: list[tuple[Any, Any]] = []

    def spent(self, since: float) -> dict[int, tuple[Any, ...]]:
        """What the calls of the graph took; when they began is counted from `since`."""
        told = {} if self.captured is None else self.captured.spent
        shift = self.started - since - self.origin
        return {
            number: (None if began is None else round(began + shift, 7), *rest)
            for number, (began, *rest) in told.items()
        }

    def asked(self, exchanges: list[dict[str, Any]]) -> None:
        """Take what models were asked; it is the cost, until an ``Update`` says more."""
        self.details["exchanges"] = exchanges
        if exchanges:
            tokens = [e["usage"] for e in exchanges if e["usage"] is not None]
            costs = [e["cost"] for e in exchanges if e["cost"] is not None]
            self.usage = (
                len(exchanges),
                sum(prompt for prompt, _ in tokens),
                sum(completion for _, completion in tokens),
                sum(costs) if costs else None,
            )

    def tested(self, event: Any) -> None:
        """Take what became of a training's step, read by its attributes."""
        if event is None:
            return
        self.note = str(event)
        self.score = event.before if event.score is None else event.score
        if event.kind == "rejected":
            self.rejections = 1
            self.details["rejections"] = [
                {"name": event.candidate, "value": None, "reason": event.note}
            ]

    def updated(self, update: Any) -> None:
        """Take what an ``Update`` says, read by its attributes."""
        if update is None:
            return
        changes, rejections = tuple(update.changes), tuple(update.rejections)
        self.changes, self.rejections = len(changes), len(rejections)
        self.note = update.note
        self.details["changes"] = [change.name for change in changes]
        self.details["rejections"] = [
            {"name": r.name, "value": show(r.value, 4_000), "reason": r.reason} for r in rejections
        ]
        self.details["reasoning"] = update.reasoning
        usage = update.usage
        self.usage = (usage.calls, usage.tokens_in, usage.tokens_out, usage.cost)


def run(
    name: str,
    *,
    store: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
    seed: int | None = None,
    graphs: bool = True,
    automatic: bool = True,
    largest_tensor: int = 1_000_000,
) -> Run:
    """Keep what happens in a block: ``with tracegraph.run("first try") as run:``.

    Every step of an optimizer in the block is kept by itself: its feedback, graph, prompts,
    replies, parameters, usage. Keys and the environment are not.

    Args:
        name: what the run is called; it need not be unique.
        store: a directory or a file ``*.sqlite``; by default ``.tracegraph`` where you are.
        config: settings to keep with the run.
        seed: the seed of the run, to keep with it.
        graphs: whether the trace graph of each step is kept.
        automatic: whether the steps of optimizers are kept without a call of `Run.step`.
        largest_tensor: in bytes; larger ones are kept as their statistics.

    Raises:
        HistoryError: `name` is no name.

    >>> import tempfile, tracegraph as tg
    >>> folder = tempfile.mkdtemp()
    >>> with tg.run("first try", store=folder) as run:
    ...     number = run.step(tg.node(2) + 3, score=0.5)
    >>> tg.History(folder).run("first try").steps[0].score
    0.5
    """
    return Run(
        name, store=store, config=config, seed=seed, graphs=graphs, automatic=automatic,
        largest_tensor=largest_tensor,
    )  # fmt: skip


_own: list[Run] = []
_own_lock = new_lock()


def automatic_run() -> Any:
    """The watcher of the run that is kept because the directory ``.tracegraph`` exists."""
    with _own_lock:
        if not _own:
            program = Path(sys.argv[0] if sys.argv else "")
            name = program.parent.name if program.stem == "__main__" else program.stem
            name = name or "interactive"
            started = Run(name, automatic=False).__enter__()
            _own.append(started)
            atexit.register(started.close)
    return _own[0]._watch


def _places(path: Path) -> list[Path]:
    """Where a run goes: its file, another beside it, one among the temporary files."""
    name = f"history-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.sqlite"
    user = os.getuid() if hasattr(os, "getuid") else 0
    return [path, path.with_name(name), Path(tempfile.gettempdir()) / f"tracegraph-{user}" / name]


def _count(captured: Captured | None) -> int | None:
    return None if captured is None else len(captured.shown["values"])


def _said(feedback: Any) -> list[dict[str, Any]]:
    if feedback is None:
        return []
    parts = feedback if isinstance(feedback, (list, tuple)) else [feedback]
    return [{"kind": type(p).__name__, "text": text_of(p)} for p in parts]


def _exchanges(optimizer: Any, last: Any) -> list[dict[str, Any]]:
    """What was asked and replied since `last`, from the optimizer's own log."""
    new: list[dict[str, Any]] = []
    for exchange in reversed(tuple(getattr(optimizer, "log", None) or ())):
        if exchange is last:
            break
        used = getattr(exchange.reply, "usage", None)
        new.append(
            {
                "prompt": [[m.role, cut(m.text, _LONGEST)] for m in exchange.messages],
                "reply": cut(exchange.reply.text, _LONGEST),
                "model": getattr(exchange.reply, "model", None),
                "usage": None if used is None else [used.prompt, used.completion],
                "cost": getattr(exchange.reply, "cost", None),
            }
        )
    return new[::-1]


def _plain(value: Any, limit: int = 1_000) -> Any:
    """A setting or a fact as JSON of bounded size."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return cut(value, limit)
    if isinstance(value, Mapping) and len(value) <= 200:
        return {str(key): _plain(item, limit) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and len(value) <= 200:
        return [_plain(item, limit) for item in value]
    if isinstance(value, BaseException):
        return cut(f"{type(value).__name__}: {value}", limit)
    return show(value, limit)
