"""Ask a language model.

A model answers a `Request` with a `Reply`, blocking or awaiting. `as_language_model` makes one of
a name, a callable, or nothing; wrappers compose around any model::

    model = Budgeted(Cached(Retrying(LiteLLM("gpt-4o-mini")), "replies.jsonl"), dollars=1.0)
    model("Name a prime number.").text
"""

from typing import Never

from tracegraph.llm.backend import LiteLLM
from tracegraph.llm.budgeted import Budgeted, Spent
from tracegraph.llm.calling import FromCallable
from tracegraph.llm.choose import DEFAULT_MODEL, LanguageModelLike, as_language_model
from tracegraph.llm.fallback import Fallback
from tracegraph.llm.messages import Message, Price, Prompt, Reply, Request, Schema, Usage
from tracegraph.llm.model import Ask, LanguageModel, ModelBase, Pause, Steps, Wrapper
from tracegraph.llm.ratelimited import RateLimited
from tracegraph.llm.retrying import Retrying, worth_retrying
from tracegraph.llm.scripted import Scripted
from tracegraph.llm.structured import Structured
from tracegraph.llm.tape import Cached, Recorded, Replay, Tape
from tracegraph.llm.tokens import bound_tokens, count_tokens, truncate

__all__ = [
    "DEFAULT_MODEL",
    "Ask",
    "Budgeted",
    "Cached",
    "Fallback",
    "FromCallable",
    "LanguageModel",
    "LanguageModelLike",
    "LiteLLM",
    "Message",
    "ModelBase",
    "Pause",
    "Price",
    "Prompt",
    "RateLimited",
    "Recorded",
    "Replay",
    "Reply",
    "Request",
    "Retrying",
    "Schema",
    "Scripted",
    "Spent",
    "Steps",
    "Structured",
    "Tape",
    "Usage",
    "Wrapper",
    "as_language_model",
    "bound_tokens",
    "count_tokens",
    "truncate",
    "worth_retrying",
]

_FORMER = {
    "LLM": "use as_language_model(), which takes the model that the environment names; "
    "its answer to llm([{...}, ...]) has .text",
    "AutoGenLLM": "any callable that takes messages= is a model here",
    "CustomLLM": 'use LiteLLM("openai/NAME", api_base=...)',
    "DummyLLM": "any callable is a model here; Scripted answers from a list",
}
"""Names of Microsoft Trace that are not here, and what to use."""


def __getattr__(name: str) -> Never:
    if name in _FORMER:
        raise ImportError(f"tracegraph.llm has no {name!r}: {_FORMER[name]}", name=__name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
