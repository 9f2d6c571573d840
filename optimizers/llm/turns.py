"""Several proposals at once: only waiting for a model is side by side, all else goes in a fixed order.

Each job has a thread. One of them has the turn and runs; when it asks a model it passes the turn on, and
goes on when the turn is its own again. So what the jobs read and change they read and change in the
same order every time, however long the replies take. A job may start jobs of its own: in one turn of its,
each of them has one.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, final, overload

__all__ = ["OfThread", "aside", "at_once", "in_turns"]

T = TypeVar("T")


class _Abandoned(BaseException):
    """Whoever started the jobs has gone."""


@dataclass(frozen=True, slots=True)
class _Seat:
    """A job's place at a table, and the seat of the job that set the table up.

    The turn further out is held by the whole table, until each place has had a turn here.
    """

    table: _Table
    place: int
    outer: _Seat | None

    def take(self) -> None:
        """Wait for the turn, here and then further out."""
        self.table.wait(self.place)
        if self.outer is not None and not self.table.holds:
            self.outer.take()
            self.table.holds = True

    def leave(self) -> None:
        """Pass the turn on here, and further out before it comes to the first place again."""
        self._leave_outer()
        self.table.leave(self.place)

    def end(self) -> None:
        """Pass the turn on, for good."""
        self._leave_outer()
        self.table.finish(self.place)

    def _leave_outer(self) -> None:
        if self.outer is not None and self.table.is_last(self.place):
            self.table.holds = False
            self.outer.leave()

    def rooms(self) -> Iterator[threading.Semaphore]:
        """What bounds how many may be aside, here and further out."""
        yield self.table.room
        if self.outer is not None:
            yield from self.outer.rooms()


_seat: contextvars.ContextVar[_Seat | None] = contextvars.ContextVar(
    "optimizers_turns", default=None
)


@contextmanager
def aside() -> Iterator[None]:
    """A block that other jobs do not wait for; outside of jobs nothing special."""
    seat = _seat.get()
    if seat is None:
        yield
        return
    seat.leave()
    try:
        with ExitStack() as rooms:
            for room in seat.rooms():
                rooms.enter_context(room)
            yield
    finally:
        seat.take()


def at_once(jobs: Sequence[Callable[[], T]], *, workers: int) -> list[T]:
    """What each job gives, in their order; they share nothing, and run when they like.

    Args:
        jobs: each runs in a copy of this context.
        workers: how many run at once.

    Raises:
        Exception: what the first of them that failed raised, in their order.

    >>> at_once([lambda: 1, lambda: 2], workers=2)
    [1, 2]
    """

    def run(job: Callable[[], T], context: contextvars.Context) -> T:
        context.run(_seat.set, None)
        return context.run(job)

    with ThreadPoolExecutor(workers, "tracegraph-job") as pool:
        futures = [pool.submit(run, job, contextvars.copy_context()) for job in jobs]
        try:
            return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def in_turns(jobs: Sequence[Callable[[], T]], *, workers: int) -> list[T | Exception]:
    """What each job gives, or the exception that it raises, in their order.

    Args:
        jobs: they run one after the other, but for what stands under `aside`.
        workers: how many may be aside at once.

    >>> in_turns([lambda: 1, lambda: 1 // 0], workers=2)
    [1, ZeroDivisionError('integer division or modulo by zero')]
    """
    table, outer = _Table(len(jobs), workers), _seat.get()
    found: dict[int, T | Exception] = {}
    ended: list[BaseException] = []

    def run(place: int) -> None:
        seat = _Seat(table, place, outer)
        _seat.set(seat)
        try:
            seat.take()
            found[place] = jobs[place]()
        except Exception as error:
            found[place] = error
        except _Abandoned:
            pass
        except BaseException as error:  # no outcome of a job: it ends whoever waits for all of them
            ended.append(error)
            table.abandon()
        finally:
            seat.end()

    threads = [
        threading.Thread(
            target=contextvars.copy_context().run, args=(run, place), daemon=True,
            name=f"tracegraph-proposal-{place}",
        )
        for place in range(len(jobs))
    ]  # fmt: skip
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:
        table.abandon()
        raise
    if outer is not None and not table.holds:
        outer.take()
    if ended:
        raise ended[0]
    return [found[place] for place in range(len(jobs))]


@final
class _Table:
    """Whose turn it is."""

    def __init__(self, places: int, workers: int) -> None:
        self.room = threading.Semaphore(workers)
        self.holds = True  # the turn further out; told by whoever has the turn here
        self._changed = threading.Condition()
        self._present = list(range(places))
        self._turn = 0
        self._abandoned = False

    def wait(self, place: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned or self._turn == place)
            if self._abandoned:
                raise _Abandoned

    def leave(self, place: int) -> None:
        with self._changed:
            self._pass_on(place)

    def finish(self, place: int) -> None:
        with self._changed:
            if self._turn == place:
                self._pass_on(place)
            self._present.remove(place)

    def is_last(self, place: int) -> bool:
        """Whether a place has the turn, and nobody after it."""
        with self._changed:
            return self._turn == place == self._present[-1] and not self._abandoned

    def abandon(self) -> None:
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def _pass_on(self, place: int) -> None:
        later = [other for other in self._present if other > place]
        self._turn = (later or self._present)[0]
        self._changed.notify_all()


@final
class OfThread(Generic[T]):
    """An attribute that each thread has for itself: what one proposal knows while it is made.

    >>> class Box:
    ...     mark = OfThread("none")
    >>> box = Box()
    >>> box.mark = "here"
    >>> in_turns([lambda: box.mark], workers=1), box.mark
    (['none'], 'here')
    """

    def __init__(self, default: T) -> None:
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"{name} of thread"

    @overload
    def __get__(self, instance: None, owner: type) -> OfThread[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is None:
            return self
        return getattr(self._local(instance), "value", self._default)

    def __set__(self, instance: object, value: T) -> None:
        self._local(instance).value = value

    def _local(self, instance: object) -> _Local:
        local: _Local = vars(instance).setdefault(self._name, _Local())
        return local


class _Local(threading.local):
    def __deepcopy__(self, memo: dict[int, Any]) -> _Local:
        return _Local()
