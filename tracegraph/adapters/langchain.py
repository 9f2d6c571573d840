"""A LangChain runnable as a traced workflow: each step is a node, prompt templates are parameters.

Looks into sequences, parallels, branches, fallbacks, ``RunnablePassthrough.assign`` and prompt
templates; any other runnable (a model, a parser, a function, a binding) is one step. Templates keep
their fields. Jinja2 templates are programs, and are left as they are. The runnable that was given is not
changed.
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NoReturn, final

from tracegraph.adapters.steps import (
    Assign,
    Branch,
    Chain,
    Fallbacks,
    Parallel,
    Prompt,
    Single,
    Step,
)
from tracegraph.errors import MissingExtra
from tracegraph.graph import renumber
from tracegraph.kinds import show
from tracegraph.module import Module
from tracegraph.node import Node, next_id
from tracegraph.parameter import Parameter, node

__all__ = ["TracedRunnable", "from_langchain"]

_ONLY_A_FIELD = re.compile(r"\s*\{+[^{}\s]*\}+\s*")


def from_langchain(runnable: Any, *, name: str = "") -> TracedRunnable:
    """A LangChain runnable whose steps are recorded and whose prompts optimizers may change.

    Parameters are named after the role of the message (``system``, ``human``, ``system_2``), or
    ``prompt`` for a template without roles.

    Args:
        runnable: a sequence, or any other ``Runnable``; it stays as it is.
        name: put before the parameters' names, for workflows of several runnables.

    Raises:
        MissingExtra: the package langchain-core is not installed.
        TypeError: no ``Runnable``.

    >>> from langchain_core.language_models import FakeListChatModel
    >>> from langchain_core.prompts import ChatPromptTemplate
    >>> prompt = ChatPromptTemplate([("system", "Be brief."), ("human", "{question}")])
    >>> chain = from_langchain(prompt | FakeListChatModel(responses=["At nine."]))
    >>> chain({"question": "When do you open?"}).content.data, list(chain.named_parameters())
    ('At nine.', ['system'])
    """
    library = _library()
    if not isinstance(runnable, library.runnables.Runnable):
        raise TypeError(
            f"from_langchain() takes a Runnable, got {show(runnable, 80)}; make a function one with "
            "RunnableLambda(function)"
        )
    return TracedRunnable(library, runnable, f"{name}." if name else "")


@final
class TracedRunnable(Module):
    """A LangChain runnable as a workflow; made by `from_langchain`. Call it with the input."""

    def __init__(self, library: _Library, runnable: Any, prefix: str) -> None:
        reader = _Reader(library, prefix)
        self._step = reader.step(runnable)
        self.__dict__.update(reader.found)  # found by their names, which may have dots

    def forward(self, given: Any) -> Any:
        """Run the steps, one after the other; gives the node of the last."""
        return self._step.run(node(given))

    async def ainvoke(self, given: Any) -> Any:
        """Run the steps, awaiting each, and the branches of a parallel at once."""
        return await self._step.arun(node(given))

    invoke = forward

    def batch(
        self, inputs: Iterable[Any], *, workers: int = 8, return_exceptions: bool = False
    ) -> list[Any]:
        """Run several inputs in threads; gives the nodes in the order of the inputs.

        Args:
            inputs: one for each run.
            workers: how many run at once.
            return_exceptions: give an error in place of its node; by default the first one is raised.
        """
        given = list(inputs)
        begun = self._begun()
        with ThreadPoolExecutor(max(1, min(workers, len(given)))) as pool:
            runs = [pool.submit(contextvars.copy_context().run, self.forward, i) for i in given]
        return _settled([run.exception() or run.result() for run in runs], begun, return_exceptions)

    async def abatch(
        self, inputs: Iterable[Any], *, workers: int = 8, return_exceptions: bool = False
    ) -> list[Any]:
        """`batch`, awaited."""
        begun = self._begun()
        room = asyncio.Semaphore(max(1, workers))

        async def run(given: Any) -> Any:
            async with room:
                return await self.ainvoke(given)

        ended = await asyncio.gather(*map(run, inputs), return_exceptions=True)
        return _settled(ended, begun, return_exceptions)

    def stream(self, *args: Any, **options: Any) -> NoReturn:
        """Refused: a step's node is whole.

        Raises:
            TypeError: always; it says what to do instead.
        """
        raise TypeError(
            "a traced runnable gives no stream, because a node holds a whole value and feedback is given "
            "to whole outputs; call it, or stream without tracing: chain.to_langchain().stream(...)"
        )

    astream = astream_events = stream

    def _begun(self) -> tuple[int, list[Any]]:
        """The first id of what follows, and the parameters' leaves, one for all threads."""
        return next_id(), [parameter._leaf() for parameter in self.parameters()]

    def to_langchain(self) -> Any:
        """A copy of the runnable with the present templates."""
        return self._step.restored()


@dataclass(frozen=True, slots=True)
class _Library:
    runnables: Any
    prompts: Any
    strings: Any
    messages: Any


def _library() -> _Library:
    names = ("runnables", "prompts", "prompts.string", "messages")
    try:
        return _Library(*(importlib.import_module(f"langchain_core.{name}") for name in names))
    except ImportError as error:
        raise MissingExtra(
            "from_langchain() needs the package langchain-core: pip install 'tracegraph[langchain]'"
        ) from error


# Reading a runnable


class _Reader:
    """Makes the steps of a runnable, and the parameters of the templates in it."""

    def __init__(self, library: _Library, prefix: str) -> None:
        self.found: dict[str, Parameter[str]] = {}
        self._library, self._prefix = library, prefix
        self._taken: Counter[str] = Counter()
        self._made: dict[int, Step] = {}  # a runnable that is used twice is one step

    def step(self, runnable: Any) -> Step:
        if id(runnable) not in self._made:
            self._made[id(runnable)] = self._new(runnable)
        return self._made[id(runnable)]

    def _new(self, runnable: Any) -> Step:
        kinds, prompts = self._library.runnables, self._library.prompts
        if isinstance(runnable, kinds.RunnableSequence):
            return Chain(runnable, [self.step(step) for step in runnable.steps])
        if isinstance(runnable, kinds.RunnableParallel):
            return Parallel(runnable, {k: self.step(s) for k, s in runnable.steps__.items()})
        if isinstance(runnable, kinds.RunnableAssign):
            return Assign(runnable, self.step(runnable.mapper))
        if isinstance(runnable, kinds.RunnableBranch):
            pairs = [(self.step(when), self.step(then)) for when, then in runnable.branches]
            return Branch(runnable, pairs, self.step(runnable.default))
        if isinstance(runnable, kinds.RunnableWithFallbacks):
            return Fallbacks(runnable, [self.step(step) for step in runnable.runnables])
        if type(runnable) is prompts.ChatPromptTemplate:
            return self._chat(runnable)
        if type(runnable) is prompts.PromptTemplate and (
            text := self._template("prompt", runnable)
        ):
            name, parameter = text
            return Prompt(
                runnable,
                {name: parameter},
                lambda texts: runnable.model_copy(update={"template": texts[name]}),
            )
        return Single(runnable)

    def _chat(self, prompt: Any) -> Step:
        texts: dict[str, Parameter[str]] = {}
        places: dict[int, str] = {}
        for place, message in enumerate(prompt.messages):
            if (text := self._message(message)) is not None:
                places[place], texts[text[0]] = text
        if not texts:
            return Single(prompt)

        def filled(values: Mapping[str, str]) -> Any:
            messages = [
                _with_text(message, values[places[place]]) if place in places else message
                for place, message in enumerate(prompt.messages)
            ]
            return prompt.model_copy(update={"messages": messages})

        return Prompt(prompt, texts, filled)

    def _message(self, message: Any) -> tuple[str, Parameter[str]] | None:
        kind = type(message).__name__.removesuffix("PromptTemplate").removesuffix("Message").lower()
        if isinstance(message, self._library.messages.BaseMessage):
            fixed = message.content
            return self._text(kind, fixed, None) if isinstance(fixed, str) and fixed else None
        return self._template(kind, getattr(message, "prompt", None))

    def _template(self, kind: str, prompt: Any) -> tuple[str, Parameter[str]] | None:
        if type(prompt) is not self._library.prompts.PromptTemplate:
            return None
        if prompt.template_format == "jinja2" or _ONLY_A_FIELD.fullmatch(prompt.template):
            return None
        return self._text(kind, prompt.template, self._keeps_fields(prompt))

    def _text(self, kind: str, text: str, constraint: Any) -> tuple[str, Parameter[str]]:
        self._taken[kind] += 1
        short = kind if self._taken[kind] == 1 else f"{kind}_{self._taken[kind]}"
        name = f"{self._prefix}{short}"
        about = "A message for a language model" if constraint is None else "A prompt template"
        self.found[name] = node(
            text, name, trainable=True, description=about, constraint=constraint
        )
        return short, self.found[name]

    def _keeps_fields(self, prompt: Any) -> Any:
        form = prompt.template_format
        fields_of = self._library.strings.get_template_variables
        needed = fields_of(prompt.template, form)

        def keeps_fields(text: str) -> bool:
            try:
                fields = fields_of(text, form)
            except ValueError as error:
                raise ValueError(f"it is no template ({form}): {error}") from error
            if fields != needed:
                said = ", ".join(needed) or "none"
                raise ValueError(
                    f"a template must have the fields that it had ({said}), this has "
                    f"{', '.join(fields) or 'none'}; write braces that are no field twice"
                )
            return True

        return keeps_fields


def _with_text(message: Any, text: str) -> Any:
    if hasattr(message, "prompt"):
        return message.model_copy(
            update={"prompt": message.prompt.model_copy(update={"template": text})}
        )
    return message.model_copy(update={"content": text})


def _settled(ended: list[Any], begun: tuple[int, list[Any]], return_exceptions: bool) -> list[Any]:
    """The nodes of several runs, numbered as if they had been made in turn."""
    errors = [end for end in ended if isinstance(end, BaseException)]
    if errors and not return_exceptions:
        raise errors[0]
    renumber([end for end in ended if isinstance(end, Node)], begun[0])
    return ended
