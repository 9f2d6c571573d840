"""Record a workflow as a graph, and send feedback back through it.

Decorate functions with `bundle`, make values with `node`, give feedback with `Node.backward`, look
at the trace with `Graph`. Optimizers live in the package ``optimizers`` beside this one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tracegraph import events
from tracegraph.bundle import Bundle, bundle
from tracegraph.constraint import Constraint
from tracegraph.errors import (
    BudgetExceeded,
    CyclicValue,
    DuplicateName,
    ExecutionError,
    FeedbackError,
    Forbidden,
    MissingExtra,
    NoRule,
    NotReached,
    OptimizerError,
    OutOfMemory,
    ParameterError,
    Rejected,
    SandboxError,
    StaleFeedback,
    TimedOut,
    TracegraphError,
    UnreadableReply,
    nearest,
)
from tracegraph.failure import failed_node
from tracegraph.feedback import Feedback, Gradient, Preference, Ranking, Remark, Score
from tracegraph.functions import (
    cond,
    eq,
    in_,
    is_,
    is_not,
    len_,
    ne,
    not_,
    not_in,
    setitem,
)
from tracegraph.graph import Graph
from tracegraph.lowering import unwrap
from tracegraph.module import Map, Module, Seq, model, named_parameters
from tracegraph.moved import not_here
from tracegraph.namesake import watch as _watch
from tracegraph.node import Node
from tracegraph.overlay import Overlay
from tracegraph.parameter import Parameter, node
from tracegraph.propagate import StaleFeedbackWarning, backward, register_rule
from tracegraph.recorder import recording, scope, stop_tracing
from tracegraph.structure import apply

if TYPE_CHECKING:
    from tracegraph.asking import acall_llm, call_llm
    from tracegraph.exporting import export
    from tracegraph.history import History, run
    from tracegraph.problem import Problem

__version__ = "0.1.0"

__all__ = [
    "BudgetExceeded",
    "Bundle",
    "Constraint",
    "CyclicValue",
    "DuplicateName",
    "ExecutionError",
    "Feedback",
    "FeedbackError",
    "Forbidden",
    "Gradient",
    "Graph",
    "History",
    "Map",
    "MissingExtra",
    "Module",
    "NoRule",
    "Node",
    "NotReached",
    "OptimizerError",
    "OutOfMemory",
    "Overlay",
    "Parameter",
    "ParameterError",
    "Preference",
    "Problem",
    "Ranking",
    "Rejected",
    "Remark",
    "SandboxError",
    "Score",
    "Seq",
    "StaleFeedback",
    "StaleFeedbackWarning",
    "TimedOut",
    "TracegraphError",
    "UnreadableReply",
    "acall_llm",
    "apply",
    "backward",
    "bundle",
    "call_llm",
    "cond",
    "eq",
    "export",
    "failed_node",
    "in_",
    "is_",
    "is_not",
    "len_",
    "model",
    "named_parameters",
    "ne",
    "node",
    "not_",
    "not_in",
    "recording",
    "register_rule",
    "run",
    "scope",
    "setitem",
    "stop_tracing",
    "unwrap",
]

_LAZY = {
    "History": "tracegraph.history",
    "Problem": "tracegraph.problem",
    "acall_llm": "tracegraph.asking",
    "call_llm": "tracegraph.asking",
    "export": "tracegraph.exporting",
    "run": "tracegraph.history",
}
"""What is imported at its first use. Not everything can be: `bundle` and `node` are names of modules too, and
importing `tracegraph.node`, which any part does, would put the module in the function's place."""

_FORMER = {
    "GRAPH": "there is no global graph here: values hold it. Graph.of(node) cuts it out, "
    "stop_tracing() switches recording off, and there is nothing to clear",
    "NAME_SCOPES": "use `with tracegraph.scope(name):`",
    "ParameterNode": "it is called Parameter; make one with node(value, trainable=True)",
    "MessageNode": "every node is a Node; node.op says which operation made it",
    "ExceptionNode": "every node is a Node; node.failure says how the call failed",
    "TraceMissingInputsError": "it is never raised: what a call reads is recorded as its input",
    "FunModule": "it is called Bundle",
    "ParameterContainer": "it is called Module",
    "NodeContainer": "nodes inside dataclasses and pydantic models are found without a base class",
    "Projection": "constraint= says what a parameter may be",
    "apply_op": "it is called apply, and gives a new structure: z = apply(function, x, y)",
    "propagators": "rules belong to operations: register_rule, or bundle(rules=...)",
    "BlackCodeFormatter": "code is kept as it was written; constraint= says what it may be",
    "TraceGraph": "Graph.of(output) is the graph, and an optimizer's problem() what a model is shown",
    "Propagator": "rules belong to operations: register_rule, or bundle(rules=...)",
    "GraphPropagator": "each kind of feedback has its own rule; register_rule changes one",
    "SumPropagator": "feedback adds up by itself, see Score and Remark; register_rule changes a rule",
    "batchify": "give several outputs at once: backward([(first, feedback), (second, feedback)])",
    "disable_external_dependencies_check": "there is no such check: what a call reads is its input",
    "LLM": "give llm='name' to an optimizer, or make a tracegraph.llm.LiteLLM",
    "LiteLLM": "it is in tracegraph.llm",
    "CustomLLM": "use tracegraph.llm.LiteLLM('openai/NAME', api_base=...)",
    "DummyLLM": "any callable is a model; tracegraph.llm.Scripted answers from a list",
    "TracedLLM": "call_llm asks a model as a traced operation",
}
"""Names of Microsoft Trace that are not here, and what to use."""


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _FORMER:
        raise not_here(__name__, name, _FORMER[name])
    near = nearest(name, __all__)
    raise AttributeError(
        f"module {__name__!r} has no attribute {name!r}"
        + (f"; did you mean {near!r}?" if near else "")
    )


_watch()


def _automatic_run() -> events.Watcher | None:
    """Keep this run where a directory ``.tracegraph`` exists and nobody keeps it otherwise."""
    if not os.path.isdir(".tracegraph") or os.environ.get("TRACEGRAPH_HISTORY") == "off":
        return None
    from tracegraph.history import automatic_run

    return automatic_run()  # type: ignore[no-any-return]


events.absent.append(_automatic_run)
