"""A language model whose replies are written down beforehand, for tests and demonstrations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias, final

from tracegraph.errors import NotRecorded, WrongModel
from tracegraph.forking import new_lock
from tracegraph.llm.keeping import kept
from tracegraph.llm.messages import Reply, Request
from tracegraph.llm.model import ModelBase

__all__ = ["Scripted"]

Line: TypeAlias = str | Reply | BaseException | Callable[[Request], "str | Reply"]


@final
class Scripted(ModelBase):
    """A language model that gives the replies it was given, in order.

    A reply is a text, a Reply, an exception (which is raised), or a callable of the request. Optimizers
    that ask several questions at once ask these one after the other, in the same order every time. A
    callable in place of the list answers every request. `requests` keeps what was asked.

    >>> model = Scripted(["first", lambda request: request.messages[0].text.upper()])
    >>> model("Go").text, model("shout").text, len(model.requests)
    ('first', 'SHOUT', 2)
    """

    def __init__(
        self, replies: Iterable[Line] | Callable[[Request], str | Reply], *, name: str = "scripted"
    ) -> None:
        if isinstance(replies, str):
            raise WrongModel(
                "Scripted takes a list of replies, got one text; write Scripted([...])"
            )
        self._always = replies if callable(replies) else None
        self._lines: list[Line] = [] if callable(replies) else list(replies)
        self._name = name
        self._lock = new_lock()
        self.requests: list[Request] = []

    @property
    def name(self) -> str:
        """The name given, "scripted" by default."""
        return self._name

    @property
    def in_order(self) -> bool:
        """Whether it was given a list."""
        return self._always is None

    def ask(self, request: Request) -> Reply:
        """The next reply of the script."""
        return kept(self, request, self._ask)

    def _ask(self, request: Request) -> Reply:
        line = self._next(request)
        if isinstance(line, BaseException):
            raise line
        said = line(request) if callable(line) else line
        if isinstance(said, Reply):
            return said
        if isinstance(said, str):
            return Reply.to(request, said, model=self._name)
        raise WrongModel(f"a scripted reply is a text or a Reply, got {type(said).__name__}")

    async def aask(self, request: Request) -> Reply:
        """The next reply of the script."""
        return self.ask(request)

    def _next(self, request: Request) -> Line:
        with self._lock:
            number = len(self.requests)
            self.requests.append(request)
        if self._always is not None:
            return self._always
        if number >= len(self._lines):
            raise NotRecorded(
                f"{self._name!r} was asked {number + 1} times and its script has "
                f"{len(self._lines)} replies; add one, or ask less. The last message was: "
                f"{request.messages[-1].text!r:.200}"
            )
        return self._lines[number]
