"""Everything that tracegraph raises, in one tree.

Every class also derives from the builtin that fits, so that ``except ValueError`` keeps working::

    TracegraphError
      ExecutionError               a recorded call failed; also an instance of the original type
      CyclicValue(ValueError)      nodes inside a container that contains itself
      FeedbackError
        NoRule(TypeError)          an operation cannot carry this type of feedback
        StaleFeedback(RuntimeError)  feedback for a version that is gone
        NotReached(ValueError)     no parameter was reached
      ParameterError
        Rejected(ValueError)       a value that a parameter does not take
        DuplicateName(ValueError)  two parameters of one name
      OptimizerError
        UnreadableReply(ValueError)   a model's reply could not be read
        BudgetExceeded(RuntimeError)  the allowance is spent
        NonFinite(FloatingPointError) a gradient is NaN or infinite
      ModelError
        ModelFailed(RuntimeError)  a language model could not be reached, or refused
        MissingKey(LookupError)    no key for a language model's provider
        NotRecorded(LookupError)   a scripted or replayed model has no such reply
        WrongModel(ValueError)     what was given cannot serve as a language model
      SandboxError
        TimedOut(TimeoutError)
        OutOfMemory(MemoryError)
        Forbidden(PermissionError)
      PictureError(ValueError)     a picture cannot be drawn
      HistoryError(RuntimeError)   a run cannot be kept or read back
        NoSuchRun(LookupError)     a history has no such run
        CheckpointError(ValueError)  a checkpoint cannot be written or read back
      MissingExtra(ImportError)    an optional package is not installed
      Shadowed(ImportError)        a module of the user's hides one of ours

A message says what happened with names and values, why that is a problem, and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracegraph.node import Node

__all__ = [
    "BudgetExceeded",
    "CheckpointError",
    "CyclicValue",
    "DuplicateName",
    "ExecutionError",
    "FeedbackError",
    "Forbidden",
    "HistoryError",
    "MissingExtra",
    "MissingKey",
    "ModelError",
    "ModelFailed",
    "NoRule",
    "NoSuchRun",
    "NonFinite",
    "NotReached",
    "NotRecorded",
    "OptimizerError",
    "OutOfMemory",
    "ParameterError",
    "PictureError",
    "Rejected",
    "SandboxError",
    "Shadowed",
    "StaleFeedback",
    "TimedOut",
    "TracegraphError",
    "UnreadableReply",
    "WrongModel",
]


class TracegraphError(Exception):
    """The root of every exception that tracegraph raises."""


class ExecutionError(TracegraphError):
    """A recorded call failed; `exception_node` is the node that remembers it.

    What is raised is also an instance of the original exception's type, and has the original as
    its ``__cause__``.
    """

    exception_node: Node[Any]


class CyclicValue(TracegraphError, ValueError):
    """A container holds itself, so the nodes inside it cannot be listed."""


class FeedbackError(TracegraphError):
    """Feedback could not be carried back."""


class NoRule(FeedbackError, TypeError):
    """An operation has no rule for a type of feedback."""


class StaleFeedback(FeedbackError, RuntimeError):
    """Feedback was computed for a version of a parameter that is gone."""


class NotReached(FeedbackError, ValueError):
    """No trainable parameter lies behind an output that was given feedback."""


class ParameterError(TracegraphError):
    """A parameter was misused."""


class Rejected(ParameterError, ValueError):
    """A parameter does not take a value; `reason` says why, for a person and a model alike."""

    def __init__(self, *, parameter: Any, reason: str) -> None:
        label = getattr(parameter, "label", None)
        super().__init__(reason if label is None else f"{label}: {reason}")
        self.parameter = parameter
        self.reason = reason


class DuplicateName(ParameterError, ValueError):
    """Two parameters of one collection have the same name."""


class OptimizerError(TracegraphError):
    """An optimizer could not do its step."""


class UnreadableReply(OptimizerError, ValueError):
    """A model's reply could not be read; `reply` is its text, `reason` what was wrong."""

    def __init__(self, *, reply: str, reason: str) -> None:
        super().__init__(reason)
        self.reply = reply
        self.reason = reason


class BudgetExceeded(OptimizerError, RuntimeError):
    """The allowance of calls, tokens, money or time is spent."""


class ModelError(TracegraphError):
    """A language model could not be asked, or gave no answer."""


class ModelFailed(ModelError, RuntimeError):
    """A language model could not be reached, or refused to answer.

    `status` is the HTTP status where there was one (408 for a timeout) and `retry_after` the
    seconds that the provider asked to wait.
    """

    def __init__(
        self, message: str, *, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class MissingKey(ModelError, LookupError):
    """No key was found for a language model; the message names the variable to set."""


class NotRecorded(ModelError, LookupError):
    """A scripted or replayed language model has no reply for a request."""


class WrongModel(ModelError, ValueError):
    """What was given cannot serve as a language model, or an option of one is wrong."""


class NonFinite(OptimizerError, FloatingPointError):
    """A gradient holds NaN or infinity, and the optimizer was asked to refuse those."""


class SandboxError(TracegraphError):
    """Code that ran in the sandbox was stopped, or the sandbox could not start."""


class TimedOut(SandboxError, TimeoutError):
    """Code ran longer than its limit and was ended."""


class OutOfMemory(SandboxError, MemoryError):
    """Code asked for more memory than its limit."""


class Forbidden(SandboxError, PermissionError):
    """Code tried something that the sandbox does not allow."""


class PictureError(TracegraphError, ValueError):
    """A picture cannot be drawn as it was asked for."""


class HistoryError(TracegraphError, RuntimeError):
    """A run cannot be kept, or a kept one cannot be read back."""


class NoSuchRun(HistoryError, LookupError):
    """There is no such run, and the message names the nearest; or no history at all."""


class CheckpointError(HistoryError, ValueError):
    """A checkpoint cannot be written, or is none, damaged, or of another program."""


class MissingExtra(TracegraphError, ImportError):
    """An optional package is needed and not installed; the message names the extra."""


class Shadowed(TracegraphError, ImportError):
    """A module of the user's has the name of one of ours and is found first; both are named."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Which of the `known` names a wrong one may have meant; None where none is near.

    >>> nearest("bundel", ["bundle", "node"])
    'bundle'
    """
    if name.startswith("__"):  # Python itself asks; nobody has mistyped it
        return None
    import difflib  # here: only a mistake needs it

    return next(iter(difflib.get_close_matches(name, list(known), 1)), None)
