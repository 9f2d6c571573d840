"""Whether functions of a person's own can be called as a training calls them, seen before anything runs."""

from __future__ import annotations

import inspect
from typing import Any

from tracegraph.errors import OptimizerError
from tracegraph.kinds import show

__all__ = ["check_callable", "check_workflow"]


def check_callable(name: str, function: Any, *arguments: str, instead: str = "") -> None:
    """Refuse what cannot be called with these arguments; a signature that nobody knows passes.

    Args:
        name: what it is, for the error.
        function: what will be called.
        arguments: the names of what it will be given, by position.
        instead: what a person can do, for the error.

    Raises:
        OptimizerError: it is no function, or takes other arguments.

    >>> check_callable("guide", lambda example: 1.0, "example", "output")
    Traceback (most recent call last):
    tracegraph.errors.OptimizerError: guide is called as guide(example, output), and takes (example): too \
many positional arguments
    """
    if not callable(function):
        raise OptimizerError(f"{name} must be callable, got {show(function, 80)}")
    try:  # what a decorator gives takes what the decorator says, not what is behind it
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise OptimizerError(
            f"{name} is called as {name}({', '.join(arguments)}), and takes {signature}: {error}"
            + (f"; {instead}" if instead else "")
        ) from None


def check_workflow(workflow: Any, *, called: bool) -> None:
    """Refuse a workflow that gives no output when it is called with an example.

    Args:
        workflow: what is improved.
        called: whether a function of the person's own calls it, with whatever it takes.

    Raises:
        OptimizerError: it is no function, takes other arguments, or is a generator.
    """
    if called and callable(workflow):
        return
    check_callable(
        "workflow", workflow, "example",
        instead="say how it is called: fit(..., call=lambda workflow, example: workflow(*example))",
    )  # fmt: skip
    if inspect.isgeneratorfunction(workflow) or inspect.isasyncgenfunction(workflow):
        raise OptimizerError(
            f"workflow must return one output for an example, and {show(workflow, 80)} yields several: "
            "return the last, or decorate it with @bundle"
        )
