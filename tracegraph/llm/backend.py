"""The only door to litellm, which reaches the models of all providers.

litellm takes seconds to import, so it is imported at the first call. Its own retries, caches,
budgets and telemetry stay off: Retrying, Cached and Budgeted do that work.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import re
import traceback
import warnings
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, final
from urllib.parse import urlsplit

from pydantic import SecretStr

from tracegraph.errors import MissingExtra, MissingKey, ModelFailed, WrongModel
from tracegraph.forking import new_lock
from tracegraph.llm.messages import Price, Reply, Request, Usage
from tracegraph.llm.model import ModelBase
from tracegraph.llm.passing import apassed, passed

__all__ = ["LiteLLM"]

_OURS = {
    "caching": "Cached(model)",
    "cache": "Cached(model)",
    "fallbacks": "Fallback(model, other)",
    "max_budget": "Budgeted(model, dollars=...)",
    "max_retries": "Retrying(model)",
    "num_retries": "Retrying(model)",
    "stream": "nothing: a reply is returned whole",
}
_ADDRESSES = ("API_BASE", "API_VERSION", "BASE_URL")
_SECRET_NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD")
_LONGEST_MESSAGE = 1_000
_SHORTEST_SECRET = 8
"""A shorter "secret", such as the word that a server of one's own asks for, stands in other words by chance:
hidden there, it would spoil the message, and tell of itself. It is hidden where it is a word."""
_lock = new_lock()


@cache
def _litellm() -> Any:
    """The litellm package, set to stay off the network and silent until it is asked."""
    with _lock:
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                litellm: Any = importlib.import_module("litellm")
                litellm.ModelResponse()  # its types are built at the first use, with warnings
        except ModuleNotFoundError as error:
            raise MissingExtra(
                f"asking a language model by name needs the package litellm ({error}): "
                "pip install 'tracegraph[llm]'. Or give a callable as llm"
            ) from error
        litellm.suppress_debug_info = True
        litellm.telemetry = False
        logging.getLogger("LiteLLM").addFilter(_is_for_a_person)
        return litellm


def _is_for_a_person(record: logging.LogRecord) -> bool:
    """Whether a line of litellm's log tells more than that ``asyncio.run`` was called again."""
    return not record.getMessage().startswith("LoggingWorker: event loop changed")


@final
class LiteLLM(ModelBase):
    """A language model by its litellm name, such as "gpt-4o-mini" or "ollama/llama3".

    The key is taken from `api_key` or from the provider's environment variable, at each call; it
    is never shown or stored. `api_base` is the address of a server of your own; one that speaks
    OpenAI's protocol is reached as ``LiteLLM("openai/NAME", api_base="http://.../v1")``, without a
    key if it asks for none. `timeout` is in seconds. `structured` says whether a schema is sent to
    the provider; None asks litellm whether it is supported. Other options go with every request.

    Raises MissingExtra without litellm, MissingKey without a key, both before any request, and
    ModelFailed when the provider fails. A reply's `cost` is None where the price is not known.

    >>> LiteLLM("gpt-4o-mini", api_key="sk-secret", temperature=0.0)
    LiteLLM('gpt-4o-mini', temperature=0.0)
    """

    def __init__(
        self,
        model: str,
        *,
        api_base: str | None = None,
        api_key: str | None = None,
        temperature: float | None = None,
        timeout: float = 120.0,
        structured: bool | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(model, str) or not model.strip():
            raise WrongModel(
                f"a model's name is a text such as 'gpt-4o-mini' or 'ollama/llama3', got {model!r}"
            )
        for name in sorted(options.keys() & _OURS.keys()):
            raise WrongModel(f"LiteLLM takes no option {name!r}; instead use {_OURS[name]}")
        if not timeout > 0:
            raise WrongModel(f"timeout must be a number of seconds above 0, got {timeout!r}")
        if api_base is not None and not _is_address(api_base):
            raise WrongModel(
                "api_base is the address of a server, such as 'http://localhost:8000/v1'; "
                "what was given is none"
            )
        if temperature is not None:
            options["temperature"] = temperature
        self._model, self._api_base, self._timeout = model, api_base, timeout
        self._key = None if api_key is None else SecretStr(api_key)
        self._options, self._structured = options, structured

    @property
    def name(self) -> str:
        """The name of the model, with its server where one was given."""
        if self._api_base is None:
            return self._model
        return f"{self._model} at {_host(self._api_base)}"

    def __repr__(self) -> str:
        shown = [repr(self._model)]
        if self._api_base is not None:
            shown.append(f"api_base={_host(self._api_base)!r}")
        for name, value in sorted(self._options.items()):
            plain = isinstance(value, int | float | bool) and not _is_secret(name)
            shown.append(f"{name}={value!r}" if plain else f"{name}=...")
        return f"LiteLLM({', '.join(shown)})"

    def price(self) -> Price | None:
        """The price in the table that comes with litellm; None where it is not there."""
        litellm = _litellm()
        try:
            info = litellm.get_model_info(self._model)
            return Price(float(info["input_cost_per_token"]), float(info["output_cost_per_token"]))
        except Exception:  # litellm raises a bare Exception for a model that it does not know
            return None

    def ask(self, request: Request) -> Reply:
        """One request to the provider."""
        return passed(self, request, self._ask)

    async def aask(self, request: Request) -> Reply:
        """One request to the provider, awaited."""
        return await apassed(self, request, self._aask)

    def _ask(self, request: Request) -> Reply:
        litellm = _litellm()
        arguments = self._arguments(litellm, request)
        try:
            answer = litellm.completion(**arguments)
        except Exception as error:
            failure = self._failure(error)
        else:
            return self._reply(litellm, answer, request)
        raise failure

    async def _aask(self, request: Request) -> Reply:
        litellm = _litellm()
        arguments = self._arguments(litellm, request)
        try:
            answer = await litellm.acompletion(**arguments)
        except Exception as error:
            failure = self._failure(error)
        else:
            return self._reply(litellm, answer, request)
        raise failure

    def _arguments(self, litellm: Any, request: Request) -> dict[str, Any]:
        key = self._checked_key(litellm)
        timeout = self._timeout if request.timeout is None else min(request.timeout, self._timeout)
        arguments = {
            **self._options,
            **request.options,
            "model": self._model,
            "messages": [message.to_dict() for message in request.messages],
            "timeout": timeout,
            "num_retries": 0,
            "max_retries": 0,
            "caching": False,
            "drop_params": True,
        }
        if self._api_base is not None:
            arguments["api_base"] = self._api_base
        if key is not None:
            arguments["api_key"] = key
        if request.schema is not None and self._takes_schema(litellm):
            arguments["response_format"] = _response_format(request)
        return arguments

    def _takes_schema(self, litellm: Any) -> bool:
        if self._structured is not None:
            return self._structured
        return bool(litellm.supports_response_schema(self._model))

    def _checked_key(self, litellm: Any) -> str | None:
        """The key given, or None where litellm finds one itself; MissingKey where there is none."""
        if self._key is not None:
            return self._key.get_secret_value()
        try:
            _, provider, *_ = litellm.get_llm_provider(self._model, api_base=self._api_base)
            found = litellm.validate_environment(self._model)
        except Exception as error:  # litellm has no type of its own for this
            raise WrongModel(
                f"litellm knows no provider for the model {self._model!r}; write it as "
                "'provider/name', for example 'openai/gpt-4o-mini' or 'ollama/llama3'"
            ) from error
        missing = [v for v in found["missing_keys"] if not v.endswith(_ADDRESSES)]
        if not missing:
            return None
        if self._api_base is not None:
            return "none"  # the client insists on some key; a server of one's own may want none
        raise self._missing_key(provider, missing)

    def _missing_key(self, provider: str, missing: list[str]) -> MissingKey:
        return MissingKey(
            f"the model {self._model!r} of {provider} needs a key, and {' or '.join(missing)} is "
            f"not set; nothing was sent and nothing is lost. Set it (export {missing[-1]}=...), "
            "give api_key=..., name another model in TRACEGRAPH_MODEL or llm=..., use one on "
            "this machine (llm='ollama/llama3'), or a server of your own "
            "(LiteLLM('openai/NAME', api_base='http://localhost:8000/v1'))"
        )

    def _reply(self, litellm: Any, answer: Any, request: Request) -> Reply:
        choices = getattr(answer, "choices", None)
        if not choices:
            raise ModelFailed(f"the model {self.name!r} returned no answer", status=502)
        usage = getattr(answer, "usage", None)
        counted = None
        if usage is not None and usage.total_tokens:
            counted = Usage(int(usage.prompt_tokens or 0), int(usage.completion_tokens or 0))
        return Reply.to(
            request,
            choices[0].message.content or "",
            usage=counted,
            cost=self._cost(litellm, answer) if counted else None,
            model=self._model,
            finish=choices[0].finish_reason,
        )

    def _cost(self, litellm: Any, answer: Any) -> float | None:
        try:
            return float(litellm.completion_cost(completion_response=answer, model=self._model))
        except Exception:  # a model without a price; litellm's types for it differ by version
            return None

    def _failure(self, error: Exception) -> ModelFailed:
        """The provider's error in our words, with every secret taken out."""
        secrets = self._secrets()
        status = getattr(error, "status_code", None)
        failure = ModelFailed(
            f"the model {self.name!r} failed with {type(error).__name__}: "
            + _scrubbed(str(error), secrets)[:_LONGEST_MESSAGE],
            status=status if isinstance(status, int) else None,
            retry_after=_retry_after(error),
        )
        whole = "".join(traceback.format_exception(error))
        if _scrubbed(whole, secrets) == whole:
            failure.__cause__ = error
        return failure

    def _secrets(self) -> list[str]:
        own = [] if self._key is None else [self._key.get_secret_value()]
        given = [v for k, v in self._options.items() if _is_secret(k) and isinstance(v, str)]
        if self._api_base is not None and (password := urlsplit(self._api_base).password):
            given.append(password)
        ambient = [
            value
            for name, value in os.environ.items()
            if _is_secret(name) and len(value) >= _SHORTEST_SECRET
        ]
        return [secret for secret in (*own, *given, *ambient) if secret]


def _is_secret(name: str) -> bool:
    return name.upper().endswith(_SECRET_NAMES)


def _scrubbed(text: str, secrets: list[str]) -> str:
    """`text` without the secrets, the short ones taken out only where they are words.

    >>> _scrubbed("exactly: x is no key, nor is correct-horse", ["x", "correct-horse"])
    'exactly: *** is no key, nor is ***'
    """
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
        else:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    return text


def _is_address(api_base: object) -> bool:
    if not isinstance(api_base, str):
        return False
    try:
        parts = urlsplit(api_base)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _host(api_base: str) -> str:
    """An address without the name, password and query that it may carry."""
    parts = urlsplit(api_base)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"


def _retry_after(error: Exception) -> float | None:
    """Seconds of the Retry-After header, which may be a date (RFC 9110, 10.2.3); None without one."""
    answered = getattr(error, "response", None)
    for headers in (
        getattr(error, "litellm_response_headers", None),
        getattr(answered, "headers", None),
    ):
        if not isinstance(headers, Mapping):
            continue
        written = str(headers.get("retry-after", ""))
        with suppress(ValueError):
            seconds = float(written)
            if 0 <= seconds < math.inf:
                return seconds
        with suppress(ValueError, TypeError):
            until = parsedate_to_datetime(written)
            until = until if until.tzinfo else until.replace(tzinfo=UTC)
            return max(0.0, (until - datetime.now(UTC)).total_seconds())
    return None


def _response_format(request: Request) -> Any:
    if not isinstance(request.schema, Mapping):
        return request.schema
    name = str(request.schema.get("title", "answer"))
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)[:64]
    described = {"name": kept or "answer", "schema": dict(request.schema), "strict": False}
    return {"type": "json_schema", "json_schema": described}
