"""What models replied in one place of a training: kept there, given again there, and counted.

A place is a stretch of work that is done once in a training, such as one run of one example in one step.
Replies are kept by place, question and turn, so that the same question elsewhere, or once more, is asked
anew, as it would be without a store.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import MutableMapping
from typing import Any, final

from optimizers.base import Usage
from tracegraph.forking import new_lock
from tracegraph.llm import Reply, Request
from tracegraph.llm.tape import plain_reply, reply_of

__all__ = ["Place"]


@final
class Place:
    """A keeper of replies (see `tracegraph.llm.keeping`) that knows what they cost.

    A reply that was kept before counts as paid, because this training did pay for it.

    Args:
        name: the same in every process that does this work, and of no other work.
        journal: where replies are kept; a dict on disk, or ``None`` to count only.
    """

    def __init__(self, name: str, journal: MutableMapping[str, Any] | None = None) -> None:
        self.name = name
        self._journal = journal
        self._turns: Counter[str] = Counter()
        self._lock = new_lock()
        self._replies: list[Reply] = []
        self._recalled = Usage()

    @property
    def usage(self) -> Usage:
        """What was paid here so far."""
        with self._lock:
            usages = [reply.usage for reply in self._replies if reply.usage is not None]
            costs = [reply.cost for reply in self._replies if reply.cost is not None]
            asked = Usage(
                len(self._replies), sum(u.prompt for u in usages),
                sum(u.completion for u in usages), math.fsum(costs) if costs else None,
            )  # fmt: skip
            return asked + self._recalled

    def recall(self, usage: Usage) -> None:
        """Count what was paid here by an earlier process, whose questions need not be asked again."""
        self._recalled = usage

    def part(self, name: str) -> Place:
        """A place for a part of the work, done beside others; what is paid there is paid here."""
        made = Place(f"{self.name}/{name}", self._journal)
        made._lock, made._replies = self._lock, self._replies
        return made

    def find(self, request: Request, model: str) -> Reply | None:
        """The reply that this question got at this turn, by an earlier process."""
        if self._journal is None:
            return None
        key = request.key(model)
        with self._lock:
            kept = self._journal.get(self._entry(key))
            if kept is None:
                return None
            reply = reply_of(kept, request)
            self._turns[key] += 1
            self._replies.append(reply)
        return reply

    def keep(self, request: Request, model: str, reply: Reply) -> None:
        """Take in a reply; it is on disk when this returns."""
        key = "" if self._journal is None else request.key(model)
        with self._lock:
            if self._journal is not None:
                self._journal[self._entry(key)] = plain_reply(reply)
                self._turns[key] += 1
            self._replies.append(reply)

    def _entry(self, key: str) -> str:
        return f"{self.name}/{key}/{self._turns[key]}"
