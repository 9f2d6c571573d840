"""A LangChain runnable as a traced workflow: each step is a node, prompt templates are parameters.

Looks into sequences, parallels, ``RunnablePassthrough.assign`` and prompt templates; any other
runnable (a model, a parser, a function, a binding, a branch) is one step. Templates keep their
fields. Jinja2 templates are programs, and are left as they are. The runnable that was given is not
changed.
"""

from __future__ import annotations

import asyncio
import importlib
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast, final

from tracegraph.bundle import bundle
from tracegraph.errors import MissingExtra
from tracegraph.kinds import show
from tracegraph.module import Module
from tracegraph.parameter import Parameter, node

__all__ = ["TracedRunnable", "from_langchain"]

_ONLY_A_FIELD = re.compile(r"\s*\{+[^{}\s]*\}+\s*")
_NOT_A_NAME = re.compile(r"\W+")


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


# The steps


class _Step(Protocol):
    def run(self, given: Any) -> Any: ...

    async def arun(self, given: Any) -> Any: ...

    def restored(self) -> Any:
        """The runnable with the present values."""


@final
class _Single:
    """Any runnable, as one operation."""

    def __init__(self, runnable: Any) -> None:
        self.runnable = runnable
        name = _named(runnable)
        self._ask = bundle(name=name, description=f"The runnable {name}")(_Single.invoke)
        self._aask = bundle(name=name, description=f"The runnable {name}")(_Single.ainvoke)

    def invoke(self, given: Any) -> Any:
        return self.runnable.invoke(given)

    async def ainvoke(self, given: Any) -> Any:
        return await self.runnable.ainvoke(given)

    def run(self, given: Any) -> Any:
        return self._ask(self, given)

    async def arun(self, given: Any) -> Any:
        return await cast(Any, self._aask(self, given))

    def restored(self) -> Any:
        return self.runnable


@final
class _Prompt:
    """A prompt template: an operation on the input and its texts."""

    def __init__(
        self, template: Any, texts: Mapping[str, Parameter[str]], filled: Callable[..., Any]
    ) -> None:
        self.texts, self._template, self._filled = texts, template, filled
        name = _named(template)
        self._ask = bundle(name=name, description="Fill a prompt template")(_Prompt.fill)
        self._aask = bundle(name=name, description="Fill a prompt template")(_Prompt.afill)

    def fill(self, given: Any, /, **texts: str) -> Any:
        return self._filled(texts).invoke(given)

    async def afill(self, given: Any, /, **texts: str) -> Any:
        return await self._filled(texts).ainvoke(given)

    def run(self, given: Any) -> Any:
        return self._ask(self, given, **self.texts)

    async def arun(self, given: Any) -> Any:
        return await cast(Any, self._aask(self, given, **self.texts))

    def restored(self) -> Any:
        return self._filled({name: text.data for name, text in self.texts.items()})


@final
class _Sequence:
    def __init__(self, runnable: Any, steps: list[_Step]) -> None:
        self._runnable, self._steps = runnable, steps

    def run(self, given: Any) -> Any:
        for step in self._steps:
            given = step.run(given)
        return given

    async def arun(self, given: Any) -> Any:
        for step in self._steps:
            given = await step.arun(given)
        return given

    def restored(self) -> Any:
        first, *middle, last = (step.restored() for step in self._steps)
        return self._runnable.model_copy(update={"first": first, "middle": middle, "last": last})


@final
class _Parallel:
    def __init__(self, runnable: Any, steps: Mapping[str, _Step]) -> None:
        self._runnable, self._steps = runnable, steps

    def run(self, given: Any) -> Any:
        return node({key: step.run(given) for key, step in self._steps.items()})

    async def arun(self, given: Any) -> Any:
        made = await asyncio.gather(*(step.arun(given) for step in self._steps.values()))
        return node(dict(zip(self._steps, made, strict=True)))

    def restored(self) -> Any:
        steps = {key: step.restored() for key, step in self._steps.items()}
        return self._runnable.model_copy(update={"steps__": steps})


@final
class _Assign:
    """``RunnablePassthrough.assign``: the input, and beside it what a parallel gives."""

    def __init__(self, runnable: Any, mapper: _Step) -> None:
        self._runnable, self._mapper = runnable, mapper
        self._join = bundle(name="assign", description="Add to the input")(_Assign.join)

    def join(self, given: Any, added: Any) -> Any:
        return {**given, **added}

    def run(self, given: Any) -> Any:
        return self._join(self, given, self._mapper.run(given))

    async def arun(self, given: Any) -> Any:
        return self._join(self, given, await self._mapper.arun(given))

    def restored(self) -> Any:
        return self._runnable.model_copy(update={"mapper": self._mapper.restored()})


# Reading a runnable


class _Reader:
    """Makes the steps of a runnable, and the parameters of the templates in it."""

    def __init__(self, library: _Library, prefix: str) -> None:
        self.found: dict[str, Parameter[str]] = {}
        self._library, self._prefix = library, prefix
        self._taken: Counter[str] = Counter()
        self._made: dict[int, _Step] = {}  # a runnable that is used twice is one step

    def step(self, runnable: Any) -> _Step:
        if id(runnable) not in self._made:
            self._made[id(runnable)] = self._new(runnable)
        return self._made[id(runnable)]

    def _new(self, runnable: Any) -> _Step:
        kinds, prompts = self._library.runnables, self._library.prompts
        if isinstance(runnable, kinds.RunnableSequence):
            return _Sequence(runnable, [self.step(step) for step in runnable.steps])
        if isinstance(runnable, kinds.RunnableParallel):
            return _Parallel(runnable, {k: self.step(s) for k, s in runnable.steps__.items()})
        if isinstance(runnable, kinds.RunnableAssign):
            return _Assign(runnable, self.step(runnable.mapper))
        if type(runnable) is prompts.ChatPromptTemplate:
            return self._chat(runnable)
        if type(runnable) is prompts.PromptTemplate and (
            text := self._template("prompt", runnable)
        ):
            name, parameter = text
            return _Prompt(
                runnable,
                {name: parameter},
                lambda texts: runnable.model_copy(update={"template": texts[name]}),
            )
        return _Single(runnable)

    def _chat(self, prompt: Any) -> _Step:
        texts: dict[str, Parameter[str]] = {}
        places: dict[int, str] = {}
        for place, message in enumerate(prompt.messages):
            if (text := self._message(message)) is not None:
                places[place], texts[text[0]] = text
        if not texts:
            return _Single(prompt)

        def filled(values: Mapping[str, str]) -> Any:
            messages = [
                _with_text(message, values[places[place]]) if place in places else message
                for place, message in enumerate(prompt.messages)
            ]
            return prompt.model_copy(update={"messages": messages})

        return _Prompt(prompt, texts, filled)

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


def _named(runnable: Any) -> str:
    return _NOT_A_NAME.sub("_", runnable.get_name()).strip("_") or type(runnable).__name__
