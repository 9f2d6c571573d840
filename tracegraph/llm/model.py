"""What a language model is, and how wrappers around one are written once for sync and async.

A wrapper is a generator of steps: it yields `Ask` and `Pause` and returns a `Reply`. The two
drivers below run the steps, blocking or awaiting; the wrapper itself neither waits nor knows.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeAlias, final, runtime_checkable

from tracegraph.errors import WrongModel
from tracegraph.llm.keeping import akept, kept
from tracegraph.llm.messages import Price, Prompt, Reply, Request, Schema, as_request

__all__ = ["Ask", "LanguageModel", "ModelBase", "Pause", "Steps", "Wrapper", "is_foreign"]


@runtime_checkable
class LanguageModel(Protocol):
    """Answers requests, blocking (`ask`) and awaiting (`aask`).

    Whatever has these three is a language model to tracegraph; `ModelBase` adds the convenience
    of calling it with a text.
    """

    @property
    def name(self) -> str:
        """Which model answers; part of the key under which replies are stored."""
        ...

    def ask(self, request: Request) -> Reply:
        """The reply to a request."""
        ...

    async def aask(self, request: Request) -> Reply:
        """The reply to a request, awaited."""
        ...


def is_foreign(model: object) -> bool:
    """Whether this is a language model of a person's own class, which knows no keepers.

    >>> is_foreign("gpt-4o-mini")
    False
    """
    ours = type(model).__module__.startswith("tracegraph.llm.")
    return isinstance(model, LanguageModel) and not isinstance(model, type) and not ours


class ModelBase(ABC):
    """A language model that can also be called: ``model("Hello").text``.

    A copy of what holds a model asks this same model, with its one budget, rate and cache.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Which model answers; part of the key under which replies are stored."""

    @abstractmethod
    def ask(self, request: Request) -> Reply:
        """The reply to a request."""

    @abstractmethod
    async def aask(self, request: Request) -> Reply:
        """The reply to a request, awaited."""

    def price(self) -> Price | None:
        """What the model costs per token, or None where unknown."""
        return None

    @property
    def in_order(self) -> bool:
        """Whether a reply depends on how many questions came before, so that none may overtake another."""
        return False

    @final
    def __call__(
        self, prompt: Prompt, *, schema: Schema | None = None, attempt: int = 0, **options: Any
    ) -> Reply:
        """The reply to a text, a list of messages, or a request."""
        return self.ask(_request(prompt, schema, attempt, options))

    @final
    async def acall(
        self, prompt: Prompt, *, schema: Schema | None = None, attempt: int = 0, **options: Any
    ) -> Reply:
        """The reply to a text, a list of messages, or a request, awaited."""
        return await self.aask(_request(prompt, schema, attempt, options))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def _request(
    prompt: Prompt, schema: Schema | None, attempt: int, options: dict[str, Any]
) -> Request:
    if not isinstance(prompt, Request):
        return Request.of(prompt, schema=schema, attempt=attempt, **options)
    if schema is not None or attempt or options:
        raise WrongModel("a Request already has its schema, attempt and options; give them there")
    return as_request(prompt)


@dataclass(frozen=True, slots=True)
class Ask:
    """A step: ask this model; the step's result is its reply."""

    model: LanguageModel
    request: Request

    def run(self) -> Reply:
        """Ask, blocking."""
        if is_foreign(self.model):
            return kept(self.model, self.request, self.model.ask)
        return self.model.ask(self.request)

    async def arun(self) -> Reply:
        """Ask, awaiting."""
        if is_foreign(self.model):
            return await akept(self.model, self.request, self.model.aask)
        return await self.model.aask(self.request)


@dataclass(frozen=True, slots=True)
class Pause:
    """A step: wait this many seconds."""

    seconds: float

    def run(self) -> None:
        """Wait, blocking."""
        time.sleep(self.seconds)

    async def arun(self) -> None:
        """Wait, awaiting."""
        await asyncio.sleep(self.seconds)


Steps: TypeAlias = Generator[Ask | Pause, Any, Reply]


class Wrapper(ModelBase):
    """A model around another one; what it does is written in `steps`."""

    def __init__(self, inner: LanguageModel) -> None:
        if not isinstance(inner, LanguageModel):
            raise WrongModel(
                f"{type(self).__name__} wraps a language model, got {type(inner).__name__}; "
                "as_language_model() makes one of a name or a callable"
            )
        self._inner = inner

    @property
    def name(self) -> str:
        """The name of the model inside."""
        return self._inner.name

    def price(self) -> Price | None:
        """The price of the model inside."""
        return self._inner.price() if isinstance(self._inner, ModelBase) else None

    @property
    def in_order(self) -> bool:
        """Whether that matters to the model inside."""
        return isinstance(self._inner, ModelBase) and self._inner.in_order

    @abstractmethod
    def steps(self, request: Request) -> Steps:
        """Yield what is to be done, return the reply."""

    @final
    def ask(self, request: Request) -> Reply:
        """The reply to a request."""
        steps = self.steps(request)
        try:
            step = next(steps)
            while True:
                try:
                    result = step.run()
                except BaseException as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration as done:
            return _reply(done.value)

    @final
    async def aask(self, request: Request) -> Reply:
        """The reply to a request, awaited."""
        steps = self.steps(request)
        try:
            step = next(steps)
            while True:
                try:
                    result = await step.arun()
                except BaseException as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration as done:
            return _reply(done.value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._inner!r})"


def _reply(value: Any) -> Reply:
    if isinstance(value, Reply):
        return value
    raise WrongModel(f"a language model returns a Reply, got {type(value).__name__}")
