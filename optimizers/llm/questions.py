"""Ask one model with the same options every time, and keep what was said."""

from __future__ import annotations

import copy
import logging
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from optimizers.base import Usage
from optimizers.llm.turns import aside
from tracegraph.errors import OptimizerError, nearest
from tracegraph.forking import new_lock
from tracegraph.kinds import show
from tracegraph.llm import (
    LanguageModelLike,
    Message,
    ModelBase,
    Reply,
    Request,
    as_language_model,
)
from tracegraph.llm.thinking import spoken

__all__ = ["Exchange", "Questions", "options_of", "usage_of"]

logger = logging.getLogger("optimizers")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question to the model and its answer."""

    messages: tuple[Message, ...]
    reply: Reply


class Questions:
    """What asks a model: the part of an optimizer that talks.

    Args:
        llm: a model's name for litellm (``"gpt-4o-mini"``, ``"ollama/llama3"``), a `LanguageModel`,
            any callable, or ``None`` for the one that the environment names.
        max_tokens: how long the model's reply may be.
        options: sent with every request, such as ``temperature=0``.

    ``copy.deepcopy`` gives one that asks the same model, with parameters and memory of its own.
    """

    def __init__(
        self, llm: LanguageModelLike, *, max_tokens: int, options: Mapping[str, Any]
    ) -> None:
        if not isinstance(max_tokens, int) or max_tokens < 1:
            raise OptimizerError(
                f"max_tokens must be a whole number from 1, got {show(max_tokens, 40)}"
            )
        self.llm = as_language_model(llm)
        self.max_tokens = max_tokens
        self.options = options_of(options)
        self.log: deque[Exchange] = deque(maxlen=100)
        self.asked: Counter[str] = Counter()
        self._asking = new_lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        memo[id(self._asking)] = new_lock()
        memo[id(self)] = twin = object.__new__(type(self))
        vars(twin).update(copy.deepcopy(vars(self), memo))
        return twin

    def exchange(
        self,
        messages: list[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        verbose: bool = False,
        **options: Any,
    ) -> Reply:
        """Ask the model, and take what it says without what it thought aloud.

        The same question, asked again, is a new attempt for caches and replays.
        """
        request = Request.of(
            messages,
            schema=schema,
            **{"max_tokens": self.max_tokens, **self.options, **options},
        )
        key = request.key(self.llm.name)
        with self._asking:
            request = replace(request, attempt=request.attempt + self.asked[key])
            self.asked[key] += 1
        reply = self._reply(request)
        self.log.append(Exchange(tuple(messages), reply))
        said = spoken(reply.text)
        if verbose:
            logger.info(
                "asked %s:\n%s\nit replied:\n%s", self.llm.name, messages[-1].text, reply.text
            )
        return reply if said == reply.text else replace(reply, text=said)

    def _reply(self, request: Request) -> Reply:
        if not (isinstance(self.llm, ModelBase) and self.llm.in_order):
            with aside():
                return self.llm.ask(request)
        try:
            return self.llm.ask(request)
        finally:
            with aside():  # the turn goes on as with every other model
                pass


_ELSEWHERE = {
    "propagator": "rules belong to operations: tracegraph.register_rule or @bundle(rules=...)",
    "prompt_symbols": "override messages() to say it in other words",
    "json_keys": "the reply's form is fixed and read leniently",
    "include_example": "the form of the reply is described by a schema",
    "highlight_variables": "variables have a section of their own",
    "use_json_object_format": "a schema is sent where the model supports one",
    "log": "the last exchanges are in .log",
}


_OWN = (
    "parameters", "llm", "objective", "memory_size", "budget", "max_tokens", "mask",
    "ignore_extraction_error", "repairs", "temperature", "top_p", "seed", "stop", "presence_penalty",
    "frequency_penalty", "reasoning_effort", "timeout",
)  # fmt: skip


_SENT = frozenset(
    {
        "extra_body", "frequency_penalty", "logit_bias", "max_completion_tokens", "min_p",
        "presence_penalty", "reasoning_effort", "repetition_penalty", "seed", "service_tier", "stop",
        "temperature", "timeout", "top_k", "top_p", "user", "verbosity",
    }
)  # fmt: skip
"""Options that go to the provider with every request."""


def options_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options for the provider; those of Microsoft Trace and misspelled ones are explained."""
    quiet = {"log", "use_json_object_format", "include_example"}
    for name in options.keys() & _ELSEWHERE.keys() - quiet:
        raise TypeError(f"there is no option {name!r} here: {_ELSEWHERE[name]}")
    for name in options.keys() - _ELSEWHERE.keys() - set(_OWN):
        if name in _SENT:
            continue
        near = nearest(name, (*_OWN, *_SENT))
        raise TypeError(
            f"there is no option {name!r} here"
            + (f"; did you mean {near!r}?" if near else ".")
            + " An option of the model belongs to the model: llm=LiteLLM(name, option=...)"
        )
    return {k: v for k, v in options.items() if k not in _ELSEWHERE}


def usage_of(reply: Reply) -> Usage:
    """What a reply cost."""
    if reply.usage is None:
        return Usage(calls=1, cost=reply.cost)
    return Usage(1, reply.usage.prompt, reply.usage.completion, reply.cost)
