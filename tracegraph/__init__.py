"""Record a workflow as a graph, and send feedback back through it.

Decorate functions with `bundle`, make values with `node`, give feedback with `Node.backward`, look
at the trace with `Graph`. Optimizers live in the package ``optimizers`` beside this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
from tracegraph.module import Map, Module, Seq, apply, model, named_parameters
from tracegraph.node import Node, unwrap
from tracegraph.parameter import Parameter, node
from tracegraph.propagate import StaleFeedbackWarning, backward, register_rule
from tracegraph.recorder import recording, scope, stop_tracing

if TYPE_CHECKING:
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
    "Map",
    "MissingExtra",
    "Module",
    "NoRule",
    "Node",
    "NotReached",
    "OptimizerError",
    "OutOfMemory",
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
    "apply",
    "backward",
    "bundle",
    "cond",
    "eq",
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
    "scope",
    "setitem",
    "stop_tracing",
    "unwrap",
]

_LAZY = {"Problem": "tracegraph.problem"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
