"""Make a language model of whatever a user gave for one."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeAlias

from tracegraph.errors import WrongModel
from tracegraph.llm.backend import LiteLLM
from tracegraph.llm.calling import FromCallable
from tracegraph.llm.model import LanguageModel, is_foreign
from tracegraph.llm.passing import Foreign
from tracegraph.llm.retrying import Retrying

__all__ = ["DEFAULT_MODEL", "LanguageModelLike", "as_language_model"]

LanguageModelLike: TypeAlias = LanguageModel | str | Callable[..., Any] | None

DEFAULT_MODEL = "gpt-4o-mini"
_VARIABLES = ("TRACEGRAPH_MODEL", "TRACE_LITELLM_MODEL", "DEFAULT_LITELLM_MODEL")


def as_language_model(llm: LanguageModelLike = None) -> LanguageModel:
    """A language model from a model, a litellm name, a callable, or nothing.

    A name is reached through litellm, with retries. None takes the name from the environment
    variable TRACEGRAPH_MODEL (or TRACE_LITELLM_MODEL, DEFAULT_LITELLM_MODEL, as in Microsoft
    Trace), else "gpt-4o-mini". A model of a class of your own is asked as it is, and its replies can
    be kept. Makes no request and imports nothing heavy.

    >>> as_language_model("ollama/llama3")
    Retrying(LiteLLM('ollama/llama3'))
    >>> as_language_model(str.upper)("hello").text
    'HELLO'
    """
    if llm is None:
        names = (os.environ.get(variable, "").strip() for variable in _VARIABLES)
        llm = next(filter(None, names), DEFAULT_MODEL)
    if isinstance(llm, str):
        return Retrying(LiteLLM(llm))
    if isinstance(llm, LanguageModel) and not isinstance(llm, type):
        return Foreign(llm) if is_foreign(llm) else llm
    if callable(llm) and not isinstance(llm, type):
        return FromCallable(llm)
    raise WrongModel(
        "llm must be a model's name such as 'gpt-4o-mini', a LanguageModel, a callable, or None, "
        f"got {llm!r:.200}"
    )
