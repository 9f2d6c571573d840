"""The optimizers of a training: those that propose values, and those that step by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from optimizers.base import Optimizer
from optimizers.partition import Partition, optimize
from optimizers.training.movers import Movers
from tracegraph.errors import OptimizerError
from tracegraph.kinds import show
from tracegraph.module import named_parameters

__all__ = ["Members"]


@final
class Members:
    """One optimizer, or the several of a `Partition`.

    Args:
        given: an optimizer, a function from parameters to one, or ``None`` for what `optimize`
            chooses.
        workflow: where parameters are looked for, if no optimizer is given that has them.

    Raises:
        OptimizerError: there is no parameter, or what was given is no optimizer.
    """

    def __init__(self, given: Any, workflow: Any) -> None:
        self.optimizer = _optimizer(given, workflow)
        self.all = (
            list(self.optimizer.optimizers)
            if isinstance(self.optimizer, Partition)
            else [self.optimizer]
        )
        self.proposers = [m for m in self.all if hasattr(m, "propose")]
        self.movers = Movers([m for m in self.all if not hasattr(m, "propose")])


def _optimizer(given: Any, workflow: Any) -> Any:
    if given is not None and hasattr(given, "backward") and not isinstance(given, type):
        if not isinstance(given, (Optimizer, Partition)) and not hasattr(given, "step"):
            raise OptimizerError(f"{show(given, 80)} is no optimizer: it has no step()")
        return given
    if given is not None and not callable(given):
        raise OptimizerError(
            f"optimizer must be an optimizer, a function from parameters to one, or None, got "
            f"{show(given, 80)}"
        )
    found = named_parameters(workflow)
    if not found:
        raise OptimizerError(
            f"no parameters were found in the workflow {show(workflow, 80)}: make it a Module that "
            "holds them, or give an optimizer that has them: fit(..., optimizer=OptoPrime([prompt]))"
        )
    make: Callable[[Any], Any] = optimize if given is None else given
    return make(found)
