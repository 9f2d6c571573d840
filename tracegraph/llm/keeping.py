"""Let whoever is answerable for a piece of work keep what models reply in it, and give it again.

A keeper is ambient: it sees what is asked in its block, by whomever, also in threads and tasks that run
in a copy of its context. It stands at the provider: what a cache answers, it never sees, and of a
question that is asked again after a failure it sees the reply alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from tracegraph.llm.messages import Reply, Request

if TYPE_CHECKING:
    from tracegraph.llm.model import LanguageModel

__all__ = ["Keeper", "akept", "keeping", "kept", "part", "recalled"]


class Keeper(Protocol):
    """Keeps replies; may be asked by several threads at once."""

    def find(self, request: Request, model: str) -> Reply | None:
        """A reply to this request that was kept before and not given again yet, or ``None``."""
        ...

    def keep(self, request: Request, model: str, reply: Reply) -> None:
        """Take in a reply."""
        ...

    def part(self, name: str) -> Keeper:
        """A keeper of a part of the same work: the same question in another part is another one."""
        ...


_keepers: ContextVar[tuple[Keeper, ...]] = ContextVar("tracegraph_keepers", default=())


@contextmanager
def keeping(*keepers: Keeper) -> Iterator[None]:
    """A block in which keepers are asked before a model is, and given what the model replies.

    Blocks nest: the innermost keeper is asked first, and all that did not have a reply are given it.
    Without keepers nothing is kept in the block.
    """
    token = _keepers.set((*keepers, *_keepers.get()) if keepers else ())
    try:
        yield
    finally:
        _keepers.reset(token)


@contextmanager
def part(name: str) -> Iterator[None]:
    """A block that is a part of the work, and may be done beside others; named as in every process."""
    token = _keepers.set(tuple(keeper.part(name) for keeper in _keepers.get()))
    try:
        yield
    finally:
        _keepers.reset(token)


def kept(model: LanguageModel, request: Request, ask: Callable[[Request], Reply]) -> Reply:
    """The reply that a keeper has; else what `ask` gives, which is kept once, whoever asks within."""
    reply, lacking = _found(model, request)
    if reply is None:
        with keeping():
            reply = ask(request)
    for keeper in lacking:
        keeper.keep(request, model.name, reply)
    return reply


async def akept(
    model: LanguageModel, request: Request, ask: Callable[[Request], Awaitable[Reply]]
) -> Reply:
    """`kept`, awaited."""
    reply, lacking = _found(model, request)
    if reply is None:
        with keeping():
            reply = await ask(request)
    for keeper in lacking:
        keeper.keep(request, model.name, reply)
    return reply


def recalled(model: LanguageModel, request: Request) -> Reply | None:
    """The reply that a keeper has, if one does; nobody else is asked."""
    reply, lacking = _found(model, request)
    if reply is not None:
        for keeper in lacking:
            keeper.keep(request, model.name, reply)
    return reply


def _found(model: LanguageModel, request: Request) -> tuple[Reply | None, list[Keeper]]:
    """The reply that a keeper has, and the keepers that lack it."""
    lacking: list[Keeper] = []
    for keeper in _keepers.get():
        reply = keeper.find(request, model.name)
        if reply is not None:
            return reply, lacking
        lacking.append(keeper)
    return None, lacking
