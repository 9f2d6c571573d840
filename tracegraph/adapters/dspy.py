"""A DSPy module as a traced workflow: its predictors' instructions, and demos if wanted, are parameters.

The module runs as it is. Each call of a predictor is a node, an input of the module's own node. A
value that goes unchanged from one predictor to another links their nodes, alone or in a list or
dict; a text that the module makes anew (an f-string) is linked to those values of the same run that
stand in it word for word, by an operation that says so. Credit goes by the predictor itself, never
by its signature. The module that was given is not changed: a copy is run.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Mapping
from typing import Any, cast, final

from tracegraph.bundle import bundle
from tracegraph.errors import MissingExtra, ParameterError
from tracegraph.failure import failed_node
from tracegraph.kinds import show
from tracegraph.module import Module
from tracegraph.node import Node
from tracegraph.parameter import Parameter, node
from tracegraph.recorder import Policy, beside, current, under

__all__ = ["TracedModule", "from_dspy"]

_KEY = "tracegraph_run"  # DSPy hands its settings on to the threads that it starts
# What a predictor takes beside its inputs.
_OPTIONS = ("signature", "demos", "config", "lm", "_trace")
# Of these, equal values are often one object, which says nothing of where it came from.
_SHARED = (bool, int, float, type(None))
# Shorter texts stand in others by chance: "yes", a number, a name.
_SHORTEST = 8
_NOT_A_NAME = re.compile(r"\W+")


def from_dspy(module: Any, *, demos: bool = False, name: str = "") -> TracedModule:
    """A DSPy module whose calls are recorded and whose instructions optimizers may change.

    Args:
        module: a ``dspy.Module``; it stays as it is.
        demos: make the demonstrations of each predictor a parameter, too: a list of dicts.
        name: put before the parameters' names, for workflows of several modules.

    Raises:
        MissingExtra: the package dspy is not installed.
        TypeError: no ``dspy.Module``.
        ParameterError: a demonstration holds what JSON cannot.

    >>> import dspy
    >>> from dspy.utils import DummyLM
    >>> shop = from_dspy(dspy.Predict("question -> answer"))
    >>> with dspy.context(lm=DummyLM([{"answer": "At nine."}])):
    ...     answer = shop(question="When do you open?")
    >>> answer["answer"].data, list(shop.named_parameters())
    ('At nine.', ['instructions'])
    """
    try:
        library = importlib.import_module("dspy")
    except ImportError as error:
        raise MissingExtra(
            "from_dspy() needs the package dspy: pip install 'tracegraph[dspy]'"
        ) from error
    if not isinstance(module, library.Module):
        raise TypeError(f"from_dspy() takes a dspy.Module, got {show(module, 80)}")
    return TracedModule(library, module, demos, f"{name}." if name else "")


@final
class TracedModule(Module):
    """A DSPy module as a workflow; made by `from_dspy`. Call it as you would call the module."""

    def __init__(self, library: Any, module: Any, demos: bool, prefix: str) -> None:
        self._library, self._module = library, module
        self._twin = _twin(module)
        self._predictors = {
            name: _predictor(library, name, predictor, demos, prefix)
            for name, predictor in self._twin.named_predictors()
        }
        for mine in self._predictors.values():
            for parameter in mine.parameters:  # found by their names, which have dots
                self.__dict__[cast(str, parameter.given_name)] = parameter
        own = type(module).__module__.partition(".")[0] != "dspy"
        about = (inspect.getdoc(type(module)) if own else "") or "Run a DSPy module"
        self._run = bundle(name=type(module).__name__, description=about)(_Run.run)
        self._arun = bundle(name=type(module).__name__, description=about)(_Run.arun)

    def forward(self, *args: Any, **inputs: Any) -> Any:
        """Run the module; gives the node of its prediction."""
        run = _Run(self._library, self._twin)
        given, named = run.started(args, inputs)
        return self._run(run, *given, **named)

    async def acall(self, *args: Any, **inputs: Any) -> Any:
        """Run the module, awaiting its predictors; gives the node of its prediction."""
        run = _Run(self._library, self._twin)
        given, named = run.started(args, inputs)
        return await cast(Any, self._arun(run, *given, **named))

    def to_dspy(self) -> Any:
        """A copy of the DSPy module with the present instructions and demos."""
        made = _twin(self._module)
        for name, predictor in made.named_predictors():
            mine = self._predictors[name]
            predictor.signature = mine.signature(predictor.signature, mine.instructions.data)
            if mine.demos is not None:
                predictor.demos = _examples(self._library, mine.demos.data)
        return made


def _composed(text: str, *parts: Any) -> str:
    policy = current()
    if policy is not None and policy.frame is not None:
        policy.frame.keep("inferred", "the text holds these values word for word")
    return text


_COMPOSED = bundle(name="composed", description="A text in which these values stand")(_composed)


@final
class _Run:
    """One run of a module: under which policy, and where its values came from."""

    def __init__(self, library: Any, module: Any = None) -> None:
        self.library, self.module = library, module
        self.policy: Policy | None = current()
        self._sources: dict[int, tuple[Any, Node[Any], str | None]] = {}

    def started(self, args: Any, inputs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments as nodes, known as sources of their values."""
        nodes = [node(value) for value in args], {k: node(v, k) for k, v in inputs.items()}
        for given in (*nodes[0], *nodes[1].values()):
            self._known(given._data, given, None)
        return nodes

    def run(self, *args: Any, **inputs: Any) -> Any:
        self.policy = current()
        with self.library.context(**{_KEY: self}):
            return self.module(*args, **inputs)

    async def arun(self, *args: Any, **inputs: Any) -> Any:
        self.policy = current()
        with self.library.context(**{_KEY: self}):
            return await self.module.acall(*args, **inputs)

    def source(self, value: Any) -> Any:
        """The node that a value came from; or one of what stands in it; else the value."""
        if id(value) in self._sources:
            return self._node(*self._sources[id(value)][1:])
        if type(value) in (list, tuple):
            return type(value)(map(self.source, value))
        if type(value) is dict:
            return {key: self.source(inner) for key, inner in value.items()}
        parts = self._parts(value) if isinstance(value, str) else []
        return _COMPOSED(value, *parts) if parts else value

    def _node(self, source: Node[Any], key: str | None) -> Any:
        return source if key is None else source[key]

    def _parts(self, text: str) -> list[Any]:
        """The values of this run that stand in a text, the longest first, of equals the latest.

        What stands in a longer one only is no part by itself.
        """
        known: dict[str, tuple[Node[Any], str | None]] = {}
        for value, source, key in self._sources.values():
            if isinstance(value, str) and len(value.strip()) >= _SHORTEST:
                known[value.strip()] = source, key
        found = []
        for value in sorted(known, key=len, reverse=True):
            if value in text:
                text = text.replace(value, "\0")
                found.append(self._node(*known[value]))
        return found

    def asked(self, made: Any) -> Any:
        """The prediction of a predictor's node, which the module's node has read."""
        if not isinstance(made, Node):
            return made  # the run is part of a call that records nothing inside
        self._read(made)
        for key, value in made._data.items():
            self._known(value, made, key)
        return made._data

    def failed(self, error: Exception) -> None:
        """A predictor raised; the module may go on without it."""
        refused = failed_node(error)
        if refused is not None:
            self._read(refused)

    def _read(self, made: Node[Any]) -> None:
        if self.policy is not None and self.policy.frame is not None:
            self.policy.frame.read(made)

    def _known(self, value: Any, source: Node[Any], key: str | None) -> None:
        if not isinstance(value, _SHARED) and not (isinstance(value, str) and len(value) < 2):
            self._sources[id(value)] = value, source, key


@final
class _Turn:
    """One call of a predictor: what is done with the instructions, demos and inputs."""

    def __init__(self, forward: Any, options: dict[str, Any], predictor: Any, library: Any) -> None:
        self.forward, self.options = forward, options
        self.predictor, self.library = predictor, library

    def ask(self, instructions: str, demos: Any = None, /, **inputs: Any) -> Any:
        return self.forward(**self._with(instructions, demos), **inputs)

    async def aask(self, instructions: str, demos: Any = None, /, **inputs: Any) -> Any:
        return await self.forward(**self._with(instructions, demos), **inputs)

    def _with(self, instructions: str, demos: Any) -> dict[str, Any]:
        made = {"signature": _Predictor.signature(self.predictor.signature, instructions)}
        if demos is not None:
            made["demos"] = _examples(self.library, demos)
        return {**made, **self.options}


@final
class _Predictor:
    """What is known of one predictor: its parameters, and its two operations."""

    def __init__(
        self,
        library: Any,
        name: str,
        about: str,
        instructions: Parameter[str],
        demos: Parameter[Any] | None,
    ) -> None:
        self.library, self.instructions, self.demos = library, instructions, demos
        self.ask = bundle(name=name, description=about)(_Turn.ask)
        self.aask = bundle(name=name, description=about)(_Turn.aask)

    @property
    def parameters(self) -> list[Parameter[Any]]:
        return [self.instructions] if self.demos is None else [self.instructions, self.demos]

    @staticmethod
    def signature(signature: Any, instructions: str) -> Any:
        same = signature.instructions == instructions
        return signature if same else signature.with_instructions(instructions)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Predictor:
        return self  # DSPy copies modules as it runs (BestOfN, Refine): their parameters are ours


class _Recorded:
    """Put before a predictor's class: its calls are recorded in the run that is open."""

    _tracegraph: _Predictor
    signature: Any

    def forward(self, **inputs: Any) -> Any:
        """Predict, and record it."""
        run, turn = self._opened(super().forward, inputs)  # type: ignore[misc]
        mine = self._tracegraph
        try:
            with under(run.policy), beside():
                made = mine.ask(turn, *mine.parameters, **_linked(run, inputs))
        except Exception as error:
            run.failed(error)
            raise
        return run.asked(made)

    async def aforward(self, **inputs: Any) -> Any:
        """Predict, awaiting the model, and record it."""
        run, turn = self._opened(super().aforward, inputs)  # type: ignore[misc]
        mine = self._tracegraph
        try:
            with under(run.policy), beside():
                made = await cast(Any, mine.aask(turn, *mine.parameters, **_linked(run, inputs)))
        except Exception as error:
            run.failed(error)
            raise
        return run.asked(made)

    def _opened(self, forward: Any, inputs: dict[str, Any]) -> tuple[_Run, _Turn]:
        library = self._tracegraph.library
        options = {key: inputs.pop(key) for key in _OPTIONS if key in inputs}
        run = library.settings.get(_KEY) or _Run(library)  # a thread of the module's own: unread
        return run, _Turn(forward, options, self, library)


def _linked(run: _Run, inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {key: run.source(value) for key, value in inputs.items()}


def _twin(module: Any) -> Any:
    """A copy of a module, with the same language models."""
    made = module.deepcopy()
    for (_, copied), (_, given) in zip(
        made.named_predictors(), module.named_predictors(), strict=True
    ):
        copied.lm = given.lm
    return made


def _predictor(library: Any, name: str, predictor: Any, demos: bool, prefix: str) -> _Predictor:
    """Make the parameters of a predictor, and have its calls recorded."""
    path = prefix if name == "self" else f"{prefix}{name}."
    operation = type(predictor).__name__ if name == "self" else name.removesuffix(".predict")
    mine = _Predictor(
        library,
        _NOT_A_NAME.sub("_", operation).strip("_"),
        f"Ask a language model: {predictor.signature.signature}",
        node(
            predictor.signature.instructions, f"{path}instructions", trainable=True,
            description=f"What the language model is told to do: {predictor.signature.signature}",
        ),
        node(
            _plain(predictor.demos, f"{path}demos"), f"{path}demos", trainable=True,
            description="Examples that the language model is shown, by field",
            constraint=list[dict[str, Any]],
        ) if demos else None,
    )  # fmt: skip
    kind: Any = type(predictor)
    predictor._tracegraph = mine
    predictor.__class__ = type(kind)(kind.__name__, (_Recorded, kind), {})
    return mine


def _plain(demos: Any, name: str) -> list[dict[str, Any]]:
    made = [dict(demo.items()) for demo in demos]
    try:
        held = json.loads(json.dumps(made))
    except (TypeError, ValueError) as error:
        raise ParameterError(f"{name} hold what JSON cannot: {error}; use demos=False") from error
    return cast("list[dict[str, Any]]", held)


def _examples(library: Any, demos: Any) -> list[Any]:
    return [library.Example(**demo) for demo in demos]
