"""What goes to a language model and what comes back, as plain values.

A `Request` has a canonical form, so that replies can be cached and replayed; it never holds a
key or an address, so that it can be stored.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeAlias

from pydantic import BaseModel

from tracegraph.errors import WrongModel

__all__ = ["Message", "Price", "Prompt", "Reply", "Request", "Schema", "Usage", "as_request"]

Schema: TypeAlias = type[BaseModel] | Mapping[str, Any]
Content: TypeAlias = str | tuple[Mapping[str, Any], ...]

_NOT_OF_A_REQUEST = frozenset(
    {
        "api_base",
        "api_key",
        "authorization",
        "base_url",
        "extra_headers",
        "headers",
        "model",
        "organization",
    }
)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation: `role` is "system", "user", "assistant" or "tool".

    `content` is text, or a tuple of parts as OpenAI's chat format has them (text and images).

    >>> Message("user", "Hello").text
    'Hello'
    """

    role: str
    content: Content

    @classmethod
    def of(cls, given: Any) -> Message:
        """A message from a message or from a mapping with "role" and "content"."""
        if isinstance(given, Message):
            return given
        if not isinstance(given, Mapping) or not {"role", "content"} <= given.keys():
            raise WrongModel(
                f"a message is a mapping with 'role' and 'content' or a Message, got {given!r:.200}"
            )
        content = given["content"]
        if content is None:
            content = ""
        elif isinstance(content, list | tuple):
            content = tuple(content)
        elif not isinstance(content, str):
            raise WrongModel(
                f"the content of a message is text or a list of parts, "
                f"got {type(content).__name__}: {content!r:.200}"
            )
        return cls(str(given["role"]), content)

    @property
    def text(self) -> str:
        """The words of the message; images and other parts are left out."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(str(p.get("text", "")) for p in self.content if p.get("type") == "text")

    def to_dict(self) -> dict[str, Any]:
        """The message in OpenAI's chat format."""
        content = self.content if isinstance(self.content, str) else [dict(p) for p in self.content]
        return {"role": self.role, "content": content}


@dataclass(frozen=True, slots=True)
class Request:
    """Everything that decides an answer, apart from the model.

    `schema` is the form that the answer should have, a pydantic model or a JSON schema.
    `attempt` tells apart several answers to the same question: a cache and a replay keep one reply
    per attempt. `timeout` in seconds is no part of the canonical form. `options` (such as
    temperature, max_tokens, seed) go to the provider as they are and must be plain JSON.

    >>> Request.of("Hello", temperature=0.0).messages
    (Message(role='user', content='Hello'),)
    """

    messages: tuple[Message, ...]
    schema: Schema | None = None
    attempt: int = 0
    timeout: float | None = None
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def of(
        cls,
        messages: str | Sequence[Message | Mapping[str, Any]],
        *,
        schema: Schema | None = None,
        attempt: int = 0,
        timeout: float | None = None,
        **options: Any,
    ) -> Request:
        """A request from a text (one user message) or from a list of messages."""
        if isinstance(messages, str):
            turns: tuple[Message, ...] = (Message("user", messages),)
        elif isinstance(messages, Sequence):
            turns = tuple(Message.of(m) for m in messages)
        else:
            raise WrongModel(
                "a model is asked with a text, a list of messages or a Request, "
                f"got {type(messages).__name__}"
            )
        return cls(turns, schema, attempt, timeout, MappingProxyType(options))

    def __post_init__(self) -> None:
        if not self.messages:
            raise WrongModel("a request needs at least one message, got none")
        if foreign := sorted(_NOT_OF_A_REQUEST & self.options.keys()):
            raise WrongModel(
                f"{', '.join(map(repr, foreign))} cannot be an option of a request, because "
                "requests are stored; give it to the model: LiteLLM(model, api_key=..., "
                "api_base=...)"
            )
        if self.timeout is not None and not (math.isfinite(self.timeout) and self.timeout > 0):
            raise WrongModel(f"timeout must be a number of seconds above 0, got {self.timeout!r}")

    def with_options(self, *, timeout: float | None = None, **options: Any) -> Request:
        """The same request with some options and, where given, the timeout replaced."""
        merged = MappingProxyType({**self.options, **options})
        return replace(self, options=merged, timeout=self.timeout if timeout is None else timeout)

    def json_schema(self) -> dict[str, Any] | None:
        """The schema as JSON schema, or None."""
        if self.schema is None:
            return None
        if isinstance(self.schema, Mapping):
            return dict(self.schema)
        return self.schema.model_json_schema()

    def canonical(self, model: str) -> str:
        """The request to `model` as one line of JSON; equal requests give equal text."""
        form = {
            "attempt": self.attempt,
            "messages": [m.to_dict() for m in self.messages],
            "model": model,
            "options": dict(self.options),
            "schema": self.json_schema(),
        }
        try:
            return json.dumps(form, sort_keys=True, separators=(",", ":"))
        except (TypeError, ValueError) as error:
            raise WrongModel(
                f"a request must be plain JSON to be cached or replayed: {error}"
            ) from error

    def key(self, model: str) -> str:
        """The SHA-256 of the canonical form, in hexadecimal."""
        return hashlib.sha256(self.canonical(model).encode()).hexdigest()


Prompt: TypeAlias = Request | str | Sequence[Message | Mapping[str, Any]]


def as_request(prompt: Prompt) -> Request:
    """A request from a request, a text, or a list of messages."""
    return prompt if isinstance(prompt, Request) else Request.of(prompt)


@dataclass(frozen=True, slots=True)
class Usage:
    """How many tokens went in and came out, as the provider counted them."""

    prompt: int
    completion: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.prompt + self.completion


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, in dollars per token."""

    prompt: float
    completion: float

    def of(self, usage: Usage) -> float:
        """The dollars that a usage costs.

        >>> Price(1e-6, 2e-6).of(Usage(1_000_000, 500_000))
        2.0
        """
        return self.prompt * usage.prompt + self.completion * usage.completion


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered.

    `parsed` is the answer read by the request's schema, or None where none was given or the text
    does not fit it. `usage` and `cost` (dollars) are None where unknown. `finish` is the
    provider's reason for stopping: "stop", or "length" when the answer was cut off.
    """

    text: str
    parsed: Any = None
    usage: Usage | None = None
    cost: float | None = None
    model: str = ""
    finish: str | None = None

    @classmethod
    def to(cls, request: Request, text: str, **known: Any) -> Reply:
        """A reply whose `parsed` is read from the text by the request's schema."""
        return cls(text, _parsed(text, request.schema), **known)

    @property
    def truncated(self) -> bool:
        """Whether the answer was cut off at the limit of tokens."""
        return self.finish == "length"


def _parsed(text: str, schema: Schema | None) -> Any:
    if schema is None:
        return None
    try:
        if isinstance(schema, Mapping):
            return json.loads(text)
        return schema.model_validate_json(text)
    except (ValueError, RecursionError):
        return None
