"""Let any callable serve as a language model."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, TypeAlias, final

from tracegraph.errors import WrongModel
from tracegraph.llm.messages import Message, Reply, Request, Usage
from tracegraph.llm.model import ModelBase
from tracegraph.llm.passing import apassed, passed

__all__ = ["FromCallable"]

Takes: TypeAlias = Literal["prompt", "messages"]


@final
class FromCallable(ModelBase):
    """A language model made of a function, sync or async.

    The function is called with ``messages=[{"role": ..., "content": ...}, ...]`` when it has a
    parameter of that name or takes keywords only (as the models of Microsoft Trace do); else with
    one text, the contents of the messages with a blank line between. `takes` overrides the guess.
    Options that its signature names are passed on. It returns a text, a Reply, or an object in
    OpenAI's form, whose text is ``.choices[0].message.content``.

    >>> FromCallable(lambda prompt: prompt.upper())("hello").text
    'HELLO'
    >>> FromCallable(lambda messages: messages[-1]["content"])("hello").text
    'hello'
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        takes: Takes | None = None,
        name: str | None = None,
    ) -> None:
        if not callable(function):
            raise WrongModel(f"FromCallable needs a callable, got {type(function).__name__}")
        if takes not in (None, "prompt", "messages"):
            raise WrongModel(f"takes must be 'prompt' or 'messages', got {takes!r}")
        self._function = function
        self._options = _option_names(function)
        self._takes: Takes = takes or _guess(function)
        self._name = name or str(getattr(function, "__qualname__", type(function).__qualname__))

    @property
    def name(self) -> str:
        """The name of the function."""
        return self._name

    def ask(self, request: Request) -> Reply:
        """Call the function; an async one is run to its end where no event loop is running."""
        return passed(self, request, self._ask)

    async def aask(self, request: Request) -> Reply:
        """Call the function; a sync one runs in a thread so that the event loop goes on."""
        return await apassed(self, request, self._aask)

    def _ask(self, request: Request) -> Reply:
        said = self._call(request)
        if inspect.isawaitable(said):
            said = asyncio.run(_awaited(said))
        return self._reply(said, request)

    async def _aask(self, request: Request) -> Reply:
        if inspect.iscoroutinefunction(inspect.unwrap(self._function)):
            said = self._call(request)
        else:
            said = await asyncio.to_thread(self._call, request)
        if inspect.isawaitable(said):
            said = await said
        return self._reply(said, request)

    def _call(self, request: Request) -> Any:
        options = {
            name: value
            for name, value in request.options.items()
            if self._options is None or name in self._options
        }
        if self._takes == "messages":
            return self._function(messages=[m.to_dict() for m in request.messages], **options)
        if self._options is None:
            options = {}  # a function of a prompt that takes any keyword was not written for ours
        return self._function("\n\n".join(m.text for m in request.messages), **options)

    def _reply(self, said: Any, request: Request) -> Reply:
        if isinstance(said, Reply):
            return said
        if isinstance(said, str):
            return Reply.to(request, said, model=self._name)
        text, finish = _openai_text(said)
        if text is None:
            raise WrongModel(
                f"the callable {self._name!r} must return a text, a Reply, or an object with "
                f".choices[0].message.content, got {type(said).__name__}"
            )
        return Reply.to(
            request, text, usage=_usage(_get(said, "usage")), model=self._name, finish=finish
        )


async def _awaited(said: Awaitable[Any]) -> Any:
    return await said


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # some builtins have none
        return {}


def _guess(function: Callable[..., Any]) -> Takes:
    parameters = _parameters(function)
    if "messages" in parameters:
        return "messages"
    kinds = {p.kind for p in parameters.values()}
    named = kinds & {
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    }
    return "messages" if inspect.Parameter.VAR_KEYWORD in kinds and not named else "prompt"


def _option_names(function: Callable[..., Any]) -> frozenset[str] | None:
    """The keywords that a function names; None where it takes any."""
    parameters = _parameters(function).values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return None
    by_keyword = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    return frozenset(p.name for p in parameters if p.kind in by_keyword) - {"messages", "prompt"}


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _openai_text(said: Any) -> tuple[str | None, str | None]:
    choices = _get(said, "choices")
    if not isinstance(choices, list | tuple) or not choices:
        return None, None
    message = _get(choices[0], "message")
    content = _get(message, "content")
    if isinstance(content, list | tuple):
        content = Message("assistant", tuple(content)).text
    finish = _get(choices[0], "finish_reason")
    text = content if isinstance(content, str) else None
    return text, finish if isinstance(finish, str) else None


def _usage(given: Any) -> Usage | None:
    prompt, completion = _get(given, "prompt_tokens"), _get(given, "completion_tokens")
    if isinstance(prompt, int) and isinstance(completion, int):
        return Usage(prompt, completion)
    return None
