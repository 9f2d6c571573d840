"""The operator that `torch.compile` sees in the place of a step, and what keeps other steps out of it.

Imported where a step is first compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from optimizers.numeric.captured import run
from optimizers.numeric.rules.table import RULES

__all__ = ["step_", "uncompiled"]


@torch.library.custom_op("tracegraph::step_", mutates_args=("params", "states"))
def step_(
    params: list[Tensor],
    grads: list[Tensor],
    states: list[Tensor],
    rows: Tensor,
    rule: str,
    state: str,
    backend: str,
    rounding: str,
    guarded: bool,
) -> None:
    """One step of all tensors of a param group, in place; see `captured.run`."""
    run(params, grads, states, rows, RULES[rule], state, backend, rounding, guarded)


step_.register_fake(lambda *arguments: None)


def _run(step: Callable[[Any], Any], closure: Callable[[], Any] | None) -> Any:
    return step(closure)


_disable: Any = torch.compiler.disable

uncompiled = _disable(_run, reason="this optimizer's step decides on the host; it runs as it is")
"""``uncompiled(step, closure)`` is ``step(closure)`` outside of what is compiled."""
