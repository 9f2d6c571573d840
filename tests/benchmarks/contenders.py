"""The two libraries behind one face, so that both do exactly the same work."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version
from typing import Any, Protocol

__all__ = ["Contender", "Ours", "Trace"]


class Contender(Protocol):
    """What a workload asks of a library."""

    name: str
    packages: tuple[str, str]
    """The modules to import for recording and for optimizing."""

    def node(self, value: Any, *, trainable: bool = False) -> Any:
        """A node that holds `value`."""

    def bundle(self, function: Callable[..., Any], *, trainable: bool = False) -> Any:
        """`function` as one recorded operation."""

    def untraced(self) -> AbstractContextManager[Any]:
        """A context in which nothing is recorded."""

    def backward(self, output: Any, feedback: str) -> None:
        """Send `feedback` back from `output`."""

    def optimizer(self, parameters: Sequence[Any]) -> Any:
        """OptoPrime over `parameters`; its model is never asked."""

    def problem(self, optimizer: Any) -> str:
        """What the model would be asked, as text."""

    def forget(self) -> None:
        """Drop what the library itself keeps between two workloads."""


def _unasked(*_: Any, **__: Any) -> str:
    raise RuntimeError("a benchmark must not ask a model")


class Ours:
    """tracegraph, from this working tree."""

    packages = ("tracegraph", "optimizers")

    def __init__(self) -> None:
        import optimizers
        import tracegraph

        self._tg: Any = tracegraph
        self._optimizers: Any = optimizers
        self.name = "tracegraph"

    def node(self, value: Any, *, trainable: bool = False) -> Any:
        return self._tg.node(value, trainable=trainable)

    def bundle(self, function: Callable[..., Any], *, trainable: bool = False) -> Any:
        return self._tg.bundle(trainable=trainable)(function)

    def untraced(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = self._tg.stop_tracing()
        return context

    def backward(self, output: Any, feedback: str) -> None:
        output.backward(feedback)

    def optimizer(self, parameters: Sequence[Any]) -> Any:
        return self._optimizers.OptoPrime(parameters, llm=_unasked)

    def problem(self, optimizer: Any) -> str:
        messages = optimizer.messages(optimizer.problem(), ())
        return "\n".join(message.text for message in messages)

    def forget(self) -> None:
        """Nothing is kept."""


class Trace:
    """Microsoft Trace, `trace-opt` on PyPI; raises ImportError where it is not installed."""

    packages = ("opto.trace", "opto.optimizers")

    def __init__(self) -> None:
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no request at import
        from opto import trace
        from opto.optimizers import OptoPrime
        from opto.trace.nodes import GRAPH

        self._trace: Any = trace
        self._graph: Any = GRAPH
        self._optoprime: Any = OptoPrime
        self.name = f"trace-opt {version('trace-opt')}"

    def node(self, value: Any, *, trainable: bool = False) -> Any:
        return self._trace.node(value, trainable=trainable)

    def bundle(self, function: Callable[..., Any], *, trainable: bool = False) -> Any:
        return self._trace.bundle(trainable=trainable)(function)

    def untraced(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = self._trace.stop_tracing()
        return context

    def backward(self, output: Any, feedback: str) -> None:
        output.backward(feedback)

    def optimizer(self, parameters: Sequence[Any]) -> Any:
        return self._optoprime(list(parameters), llm=_unasked)

    def problem(self, optimizer: Any) -> str:
        return "".join(optimizer.construct_prompt(optimizer.summarize()))

    def forget(self) -> None:
        """Empty the registry in which Trace keeps every node of the process."""
        self._graph.clear()
