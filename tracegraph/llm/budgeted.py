"""Stop before an allowance of calls, tokens, dollars or seconds is exceeded."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, MutableMapping
from dataclasses import astuple, dataclass, fields
from typing import Any, final
from uuid import uuid4

from tracegraph.errors import BudgetExceeded, ModelError, ModelFailed, WrongModel
from tracegraph.forking import new_lock
from tracegraph.llm.keeping import recalled
from tracegraph.llm.messages import Price, Reply, Request, Usage
from tracegraph.llm.model import Ask, LanguageModel, Pause, Steps, Wrapper
from tracegraph.llm.retrying import status_of
from tracegraph.llm.tokens import bound_tokens, count_tokens

__all__ = ["Budgeted", "Spent"]

_POLL = 0.01


@dataclass(frozen=True, slots=True)
class Spent:
    """Calls, tokens, dollars, and seconds since the first call."""

    calls: int = 0
    tokens: int = 0
    dollars: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.calls + other.calls,
            self.tokens + other.tokens,
            self.dollars + other.dollars,
            self.seconds + other.seconds,
        )

    def __sub__(self, other: Spent) -> Spent:
        return self + Spent(-other.calls, -other.tokens, -other.dollars, -other.seconds)


@final
class Budgeted(Wrapper):
    """A language model that refuses a call before it could exceed an allowance.

    Before a call the most that it can take is set aside: one call, an upper bound of the prompt's
    tokens, `reply_tokens` for the answer (sent as max_tokens where the request sets none), and
    the dollars that these cost at `price` (where not given, the model's own). So the allowance
    holds with any number of calls at once, as far as the provider keeps to max_tokens. A call
    that does not fit waits while others are under way, because what they leave over comes back;
    else it raises BudgetExceeded, and no request is made. A reply that was paid for is always
    returned. A failed call gives its tokens and dollars back when the provider refused it, and
    not when it may have worked on it (a timeout). Where nobody reports usage, it is estimated by
    `count_tokens`. `seconds` run from the first call and also bound each call's timeout. In a
    training with a store (`fit`) the allowance holds over kills.

    >>> from tracegraph.llm import Scripted
    >>> model = Budgeted(Scripted(["one", "two"]), calls=1)
    >>> model("Go").text, model.spent.calls
    ('one', 1)
    >>> model("Go")
    Traceback (most recent call last):
    tracegraph.errors.BudgetExceeded: ...
    """

    def __init__(
        self,
        inner: LanguageModel,
        *,
        calls: int | None = None,
        tokens: int | None = None,
        dollars: float | None = None,
        seconds: float | None = None,
        reply_tokens: int = 4_096,
        price: Price | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(inner)
        limits = {"calls": calls, "tokens": tokens, "dollars": dollars, "seconds": seconds}
        for name, limit in limits.items():
            if limit is not None and not (math.isfinite(limit) and limit >= 0):
                raise WrongModel(f"{name} must be a finite number of 0 or more, got {limit!r}")
        if reply_tokens < 1:
            raise WrongModel(f"reply_tokens must be 1 or more, got {reply_tokens}")
        self._limits = {name: limit for name, limit in limits.items() if limit is not None}
        self._reply_tokens, self._price, self._clock = reply_tokens, price, clock
        self._started: float | None = None
        self._settled, self._reserved = Spent(), Spent()
        self._lock = new_lock()
        self._journal: MutableMapping[str, Any] | None = None
        self._prefix = ""
        self._ended: list[str] = []  # notes in the journal of what is settled

    @property
    def spent(self) -> Spent:
        """What was used so far, calls under way included as one call each."""
        with self._lock:
            calls = Spent(calls=self._reserved.calls)
            return self._settled + calls + Spent(seconds=self._elapsed())

    def account(self) -> tuple[Spent, list[str]]:
        """What was used by calls that have ended, and which notes in the journal say no more than that."""
        with self._lock:
            ended, self._ended = self._ended, []
            return self._settled + Spent(seconds=self._elapsed()), ended

    def go_on(
        self, before: Spent, journal: MutableMapping[str, Any] | None = None, prefix: str = ""
    ) -> None:
        """Count what was spent before, by an earlier process or by this one: the larger of the two.

        Args:
            before: what had been spent when it was last written down.
            journal: a dict on disk, where each call is noted before it is made, with the most that it can
                cost, and then with what it did. What an earlier process left there counts, and what
                a keeper has of its replies (see `tracegraph.llm.keeping`) is free.
            prefix: what the keys of this model begin with.
        """
        notes = {n: Spent(*row) for n, row in (journal or {}).items() if n.startswith(prefix)}
        with self._lock:
            now = self._settled + Spent(seconds=self._elapsed())
            known = {
                f.name: max(getattr(now, f.name), getattr(before, f.name)) for f in fields(now)
            }
            seconds = max([known.pop("seconds"), *(note.seconds for note in notes.values())])
            self._settled = Spent(**known)
            for note in notes.values():
                self._settled += Spent(note.calls, note.tokens, note.dollars)
            if seconds:
                self._started = self._clock() - seconds
            self._journal, self._prefix, self._ended = journal, prefix, list(notes)

    def steps(self, request: Request) -> Steps:
        """Set aside, ask, settle."""
        request = self._bounded(request)
        if self._journal is not None and (known := recalled(self._inner, request)) is not None:
            return known  # an earlier process paid for it, and that is counted
        most = self._most(request)
        while not self._reserve(most):
            yield Pause(_POLL)
        taken = most
        note = self._note(most)
        try:
            reply: Reply = yield Ask(self._inner, self._timed(request))
            taken = self._taken(request, reply, most)
            return reply
        except Exception as error:
            if isinstance(error, ModelError) and not isinstance(error, ModelFailed):
                taken = Spent()
            elif status_of(error) not in (None, 408):
                taken = Spent(calls=1)
            raise
        finally:
            self._note(taken, note)
            self._settle(most, taken, note)

    def _note(self, cost: Spent, note: str | None = None) -> str:
        """Note in the journal what a call costs: all that it could before it is made, then what it did."""
        name = note or f"{self._prefix}{uuid4().hex}"
        if self._journal is not None:
            self._journal[name] = list(astuple(cost + Spent(seconds=self._elapsed())))
        return name

    def _bounded(self, request: Request) -> Request:
        if not self._limits.keys() & {"tokens", "dollars"}:
            return request
        if request.options.keys() & {"max_tokens", "max_completion_tokens"}:
            return request
        return request.with_options(max_tokens=self._reply_tokens)

    def _most(self, request: Request) -> Spent:
        """The most that a request can take."""
        if not self._limits.keys() & {"tokens", "dollars"}:
            return Spent(calls=1)
        options = request.options
        answer = int(options.get("max_tokens") or options.get("max_completion_tokens") or 0)
        usage = Usage(bound_tokens(request), answer * int(options.get("n") or 1))
        dollars = self._price_known().of(usage) if "dollars" in self._limits else 0.0
        return Spent(1, usage.total, dollars)

    def _price_known(self) -> Price:
        price = self._price or self.price()
        if price is None:
            raise WrongModel(
                f"a budget in dollars needs the price of {self.name!r}, which is not known; give "
                "price=Price(prompt=..., completion=...) in dollars per token, or 0 for a model of "
                "your own"
            )
        return price

    def _reserve(self, most: Spent) -> bool:
        """Set `most` aside; False when it may fit once calls under way are settled."""
        with self._lock:
            if self._started is None:
                self._started = self._clock()
            if (name := self._over(self._settled + most)) is not None:
                raise self._exceeded(name, most)
            if self._over(self._settled + self._reserved + most) is not None:
                return False
            self._reserved += most
            return True

    def _over(self, spent: Spent) -> str | None:
        """The first allowance that `spent` would exceed."""
        for name, limit in self._limits.items():
            if name == "seconds":
                if self._elapsed() >= limit:
                    return name
            elif getattr(spent, name) > limit:
                return name
        return None

    def _exceeded(self, name: str, most: Spent) -> BudgetExceeded:
        limit, used = self._limits[name], getattr(self._settled, name)
        if name == "seconds":
            return BudgetExceeded(
                f"the budget of {limit:g} seconds for {self.name!r} is over; no request was made. "
                "Raise seconds=, or use what was achieved so far"
            )
        return BudgetExceeded(
            f"the budget of {limit:g} {name} for {self.name!r} does not allow another call: "
            f"{used:g} used, and the call can take up to {getattr(most, name):g}; no request was "
            f"made. Raise {name}=, or use what was achieved so far"
        )

    def _timed(self, request: Request) -> Request:
        if "seconds" not in self._limits:
            return request
        left = max(0.001, self._limits["seconds"] - self._elapsed())
        return request.with_options(timeout=min(left, request.timeout or left))

    def _taken(self, request: Request, reply: Reply, most: Spent) -> Spent:
        usage = reply.usage
        if usage is None:
            prompt = sum(count_tokens(message.text) for message in request.messages)
            usage = Usage(prompt, count_tokens(reply.text))
        if reply.cost is not None:
            return Spent(1, usage.total, reply.cost)
        dollars = self._price_known().of(usage) if "dollars" in self._limits else 0.0
        return Spent(1, usage.total, dollars)

    def _settle(self, most: Spent, taken: Spent, note: str) -> None:
        with self._lock:
            left = self._reserved - most
            self._reserved = left if left.calls else Spent()  # no dust of floating point
            self._settled += taken
            if self._journal is not None:
                self._ended.append(note)

    def _elapsed(self) -> float:
        return 0.0 if self._started is None else self._clock() - self._started
