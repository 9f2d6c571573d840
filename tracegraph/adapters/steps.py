"""The steps of a traced LangChain runnable: each runs one runnable, blocking or awaiting, as operations.

A step takes and gives nodes, or plain values inside of a call that records nothing. It knows how to make its
runnable anew with the present values.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, final

from tracegraph.bundle import bundle
from tracegraph.failure import failed_node
from tracegraph.kinds import show
from tracegraph.lowering import unwrap
from tracegraph.parameter import Parameter, node
from tracegraph.recorder import current

__all__ = ["Step", "named"]

_NOT_A_NAME = re.compile(r"\W+")


class Step(Protocol):
    """A part of a runnable that is recorded."""

    def run(self, given: Any) -> Any:
        """What it gives for an input."""

    async def arun(self, given: Any) -> Any:
        """The same, awaited."""

    def restored(self) -> Any:
        """The runnable with the present values."""


@final
class Single:
    """Any runnable, as one operation."""

    def __init__(self, runnable: Any) -> None:
        self.runnable = runnable
        name = named(runnable)
        self._ask = bundle(name=name, description=f"The runnable {name}")(Single.invoke)
        self._aask = bundle(name=name, description=f"The runnable {name}")(Single.ainvoke)

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
class Prompt:
    """A prompt template: an operation on the input and its texts."""

    def __init__(
        self, template: Any, texts: Mapping[str, Parameter[str]], filled: Callable[..., Any]
    ) -> None:
        self.texts, self._template, self._filled = texts, template, filled
        name = named(template)
        self._ask = bundle(name=name, description="Fill a prompt template")(Prompt.fill)
        self._aask = bundle(name=name, description="Fill a prompt template")(Prompt.afill)

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
class Chain:
    """``RunnableSequence``: one step after the other."""

    def __init__(self, runnable: Any, steps: list[Step]) -> None:
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
class Parallel:
    """``RunnableParallel``: the same input to each step; awaited, at once."""

    def __init__(self, runnable: Any, steps: Mapping[str, Step]) -> None:
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
class Assign:
    """``RunnablePassthrough.assign``: the input, and beside it what a parallel gives."""

    def __init__(self, runnable: Any, mapper: Step) -> None:
        self._runnable, self._mapper = runnable, mapper
        self._join = bundle(name="assign", description="Add to the input")(Assign.join)

    def join(self, given: Any, added: Any) -> Any:
        return {**given, **added}

    def run(self, given: Any) -> Any:
        return self._join(self, given, self._mapper.run(given))

    async def arun(self, given: Any) -> Any:
        return self._join(self, given, await self._mapper.arun(given))

    def restored(self) -> Any:
        return self._runnable.model_copy(update={"mapper": self._mapper.restored()})


@final
class Branch:
    """``RunnableBranch``: each condition that is looked at, and what the first that holds leads to."""

    def __init__(self, runnable: Any, branches: Sequence[tuple[Step, Step]], default: Step) -> None:
        self._runnable, self._branches, self._default = runnable, list(branches), default
        self._choose = bundle(name=named(runnable), description="Take the branch of a condition")(
            Branch.choose
        )

    def choose(self, made: Any, /, *conditions: Any) -> Any:
        return made

    def run(self, given: Any) -> Any:
        seen = []
        for condition, step in self._branches:
            seen.append(condition.run(given))
            if seen[-1]:
                return self._choose(self, step.run(given), *seen)
        return self._choose(self, self._default.run(given), *seen)

    async def arun(self, given: Any) -> Any:
        seen = []
        for condition, step in self._branches:
            seen.append(await condition.arun(given))
            if seen[-1]:
                return self._choose(self, await step.arun(given), *seen)
        return self._choose(self, await self._default.arun(given), *seen)

    def restored(self) -> Any:
        branches = [(one.restored(), two.restored()) for one, two in self._branches]
        update = {"branches": branches, "default": self._default.restored()}
        return self._runnable.model_copy(update=update)


@final
class Fallbacks:
    """``RunnableWithFallbacks``: what answers, and what failed before."""

    def __init__(self, runnable: Any, steps: Sequence[Step]) -> None:
        self._runnable, self._steps = runnable, list(steps)
        self._handled = tuple(runnable.exceptions_to_handle)
        self._take = bundle(name=named(runnable), description="Take what did not fail")(Fallen.take)
        self._tell = bundle(name="tell", description="Add an error to the input")(Fallen.tell)

    def run(self, given: Any) -> Any:
        fallen = self._begun(given)
        for step in self._steps:
            try:
                return self._take(fallen, step.run(self._input(fallen, given)))
            except self._handled as error:
                fallen.errors.append(error)
        raise fallen.errors[0]

    async def arun(self, given: Any) -> Any:
        fallen = self._begun(given)
        for step in self._steps:
            try:
                return self._take(fallen, await step.arun(self._input(fallen, given)))
            except self._handled as error:
                fallen.errors.append(error)
        raise fallen.errors[0]

    def _begun(self, given: Any) -> Fallen:
        key = self._runnable.exception_key
        if key is not None and not isinstance(unwrap(given), dict):
            raise ValueError(
                f"with exception_key={key!r} the input must be a dict, got {show(unwrap(given), 80)}"
            )
        return Fallen(key, [])

    def _input(self, fallen: Fallen, given: Any) -> Any:
        told = fallen.key is not None and fallen.errors
        return self._tell(fallen, given) if told else given

    def restored(self) -> Any:
        first, *others = (step.restored() for step in self._steps)
        return self._runnable.model_copy(update={"runnable": first, "fallbacks": others})


@final
@dataclass(frozen=True, slots=True)
class Fallen:
    """What has failed in one run, and under which key the next one is told."""

    key: str | None
    errors: list[BaseException]

    def take(self, made: Any) -> Any:
        policy = current()
        for failed in map(failed_node, self.errors):
            if failed is not None and policy is not None and policy.frame is not None:
                policy.frame.read(failed)  # who failed hears of it as well
        return made

    def tell(self, given: Any) -> Any:
        return {**given, self.key: self.errors[-1]}


def named(runnable: Any) -> str:
    """The name of a runnable, as one that an operation can have."""
    return _NOT_A_NAME.sub("_", runnable.get_name()).strip("_") or type(runnable).__name__
