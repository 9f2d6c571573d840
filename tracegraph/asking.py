"""Ask a language model as one recorded operation of a workflow.

What was asked are the inputs of the node, the answer is its value, and what it cost stands beside it
as ``node.info["usage"]``. Asked inside an opaque bundle, the answer is a plain text and the cost is
added to the node of that bundle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tracegraph.bundle import bundle
from tracegraph.errors import ModelFailed, WrongModel
from tracegraph.llm import LanguageModelLike, Message, Reply, Request, Schema, as_language_model
from tracegraph.recorder import current

__all__ = ["Asked", "acall_llm", "call_llm"]

_USAGE = "usage"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the model calls behind one node cost; `cost` in dollars, ``None`` where it is unknown.

    `tokens_in` and `tokens_out` count only the calls whose provider reported them.
    """

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float | None = 0.0

    def __add__(self, other: Asked) -> Asked:
        unknown = self.cost is None or other.cost is None
        return Asked(
            self.calls + other.calls,
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            None if unknown else (self.cost or 0.0) + (other.cost or 0.0),
        )


@bundle
def call_llm(
    llm: LanguageModelLike,
    system_prompt: str | None,
    *user_prompts: str,
    schema: Schema | None = None,
    **options: Any,
) -> Any:
    """Ask a language model; gives the node of its answer.

    The value is the text of the answer; with `schema` it is what was read by it, such as an instance of
    a pydantic model. Every prompt may be a node or a parameter.

    Args:
        llm: what `as_language_model` takes: a name, a model, a callable, or ``None``.
        system_prompt: how the model shall behave; ``None`` or empty for no such message.
        user_prompts: one message each; at least one where there is no system prompt.
        schema: the form of the answer. Wrap the model in `Structured` to have it mended.
        options: sent with the request, such as ``temperature=0``.

    Raises:
        WrongModel: there is nothing to say.
        ModelFailed: the answer does not fit the schema; the message shows it.
        ModelError: the model could not be asked.

    >>> import tracegraph as tg
    >>> prompt = tg.node("Answer in capitals.", trainable=True, name="prompt")
    >>> said = tg.call_llm(lambda text: text.upper(), prompt, "Who?")
    >>> said.data, said.info["usage"].calls
    ('ANSWER IN CAPITALS.\\n\\nWHO?', 1)
    >>> list(said.backward("Too loud."))
    [Parameter(prompt, text, version 0, "'Answer in capitals.'")]
    """
    request = _request(system_prompt, user_prompts, schema, options)
    return _answer(as_language_model(llm).ask(request), request)


@bundle
async def acall_llm(
    llm: LanguageModelLike,
    system_prompt: str | None,
    *user_prompts: str,
    schema: Schema | None = None,
    **options: Any,
) -> Any:
    """`call_llm`, awaited."""
    request = _request(system_prompt, user_prompts, schema, options)
    return _answer(await as_language_model(llm).aask(request), request)


def _request(
    system_prompt: str | None, user_prompts: tuple[str, ...], schema: Schema | None, options: Any
) -> Request:
    given = [("system", system_prompt)] if system_prompt else []
    given += [("user", prompt) for prompt in user_prompts]
    for role, said in given:
        if not isinstance(said, str):
            raise WrongModel(
                f"the {role} prompt is a text, got {type(said).__name__}: {said!r:.80}"
            )
    if not given:
        raise WrongModel("call_llm has nothing to say: give a system prompt or a user prompt")
    messages = [Message(role, said) for role, said in given]
    return Request.of(messages, schema=schema, **options)


def _answer(reply: Reply, request: Request) -> Any:
    """The value of the call; what it cost goes to the node that will be recorded for it."""
    usage = reply.usage
    asked = Asked(1, usage.prompt if usage else 0, usage.completion if usage else 0, reply.cost)
    policy = current()
    frame = None if policy is None else policy.frame
    while frame is not None:
        frame.keep(_USAGE, (frame.facts or {}).get(_USAGE, Asked()) + asked)
        frame = None if frame.outer is None or frame.outer.traceable else frame.outer
    if request.schema is None:
        return reply.text
    if reply.parsed is None:
        raise ModelFailed(
            f"the answer does not fit the schema: {reply.text!r:.200}; wrap the model in "
            "Structured(model) to have it read leniently and mended"
        )
    return reply.parsed
