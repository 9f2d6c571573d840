"""Get an answer in the form that was asked for, and let the model mend one that is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, final

from pydantic import ValidationError

from tracegraph.errors import BudgetExceeded, ModelError, WrongModel
from tracegraph.llm.lenient import Lenient, read_value
from tracegraph.llm.messages import Message, Reply, Request, Schema, Usage
from tracegraph.llm.model import Ask, LanguageModel, Steps, Wrapper
from tracegraph.llm.thinking import spoken

__all__ = ["Structured"]

_MOST_REPAIRS = 2
_LONGEST_REASON = 1_000


@final
class Structured(Wrapper):
    """A language model whose answers fit the request's schema wherever that can be had.

    A provider that takes schemas is sent it, by the model inside. What comes back is read strictly,
    then leniently (fences, prose around it, trailing commas, Python's literals); an answer that still
    does not fit is sent back with the reason, up to `repairs` times. The reply's usage and cost are
    those of all answers. Where nothing fits, or no repair can be had, the last reply comes with
    ``parsed=None``: it was paid for.
    A request without a schema is passed on.

    A pydantic model is checked in full. Of a schema given as a mapping only the type and the required
    names of the outermost object are checked.

    >>> from pydantic import BaseModel
    >>> from tracegraph.llm import Scripted
    >>> class Verdict(BaseModel):
    ...     good: bool
    >>> model = Structured(Scripted(["I think so.", "Sure: {'good': True,}"]))
    >>> model("Is it good?", schema=Verdict).parsed
    Verdict(good=True)
    """

    def __init__(self, inner: LanguageModel, *, repairs: int = _MOST_REPAIRS) -> None:
        super().__init__(inner)
        if not isinstance(repairs, int) or not 0 <= repairs <= _MOST_REPAIRS:
            raise WrongModel(
                f"repairs is how often an answer may be mended, 0 to {_MOST_REPAIRS}, got {repairs!r}; "
                "a model that fails more often than that needs another prompt"
            )
        self._repairs = repairs

    def steps(self, request: Request) -> Steps:
        """Ask, read, and show the model what is wrong."""
        reply: Reply = yield Ask(self._inner, request)
        if request.schema is None:
            return reply
        for left in range(self._repairs, -1, -1):
            parsed, reason = _read(reply.text, request.schema)
            if not reason or not left:
                return replace(reply, parsed=parsed)
            mended = replace(
                request,
                messages=(
                    *request.messages,
                    Message("assistant", reply.text),
                    Message("user", f"Your answer cannot be used: {reason}\nSend it again, whole."),
                ),
            )
            try:
                following: Reply = yield Ask(self._inner, mended)
            except (BudgetExceeded, ModelError):
                return replace(reply, parsed=None)  # what there is was paid for
            reply = _together(reply, following)
        return reply


def _read(text: str, schema: Schema) -> tuple[Any, str]:
    """What a text says by a schema, or None and the reason."""
    reason = "it holds no JSON value"
    for value in _values(text):
        try:
            if not isinstance(schema, Mapping):
                return schema.model_validate(value), ""
        except ValidationError as error:
            reason = "; ".join(
                f"{'.'.join(map(str, e['loc'])) or 'the answer'}: {e['msg']}"
                for e in error.errors(include_url=False, include_context=False)
            )[:_LONGEST_REASON]
            continue
        missing = _missing(value, schema)
        if not missing:
            return value, ""
        reason = missing
    return None, reason


def _values(text: str) -> Iterator[Any]:
    """The values that a text may mean: all of it, else each object in it that has an end, the last first.

    What a model thought aloud is no part of its answer.
    """
    said = spoken(text).strip()
    try:
        yield read_value(said)
    except ValueError:
        yield from (found.value for found in reversed([*Lenient(said).objects()]) if found.complete)


def _missing(value: Any, schema: Mapping[str, Any]) -> str:
    wanted = {"object": dict, "array": list}.get(schema.get("type", "object"))
    if wanted is not None and not isinstance(value, wanted):
        return f"it is no JSON {schema.get('type', 'object')}"
    names = [n for n in schema.get("required", ()) if isinstance(value, dict) and n not in value]
    return f"{', '.join(map(repr, names))} is missing" if names else ""


def _together(first: Reply, second: Reply) -> Reply:
    """The second reply, with what both cost; where one is unknown the sum is."""
    usage = None
    if first.usage is not None and second.usage is not None:
        usage = Usage(
            first.usage.prompt + second.usage.prompt,
            first.usage.completion + second.usage.completion,
        )
    known = first.cost is not None and second.cost is not None
    cost = (first.cost or 0.0) + (second.cost or 0.0) if known else None
    return replace(second, usage=usage, cost=cost)
