"""Several optimizers over one set of parameters, and which one fits which kind."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from optimizers.base import Update, Usage, collect
from tracegraph.errors import DuplicateName, OptimizerError
from tracegraph.node import Node
from tracegraph.propagate import backward

__all__ = ["Partition", "optimize"]


class Partition:
    """Several optimizers, each over its own parameters, stepped as one.

    Args:
        *optimizers: any with ``step`` and ``zero_feedback`` (or ``zero_grad``).

    Raises:
        OptimizerError: there is none.
        DuplicateName: two of them have the same parameter.
    """

    def __init__(self, *optimizers: Any) -> None:
        if not optimizers:
            raise OptimizerError("Partition needs at least one optimizer")
        self.optimizers = optimizers
        owners: dict[int, Any] = {}
        for optimizer in optimizers:
            for parameter in _parameters(optimizer):
                if owners.setdefault(id(parameter), optimizer) is not optimizer:
                    raise DuplicateName(
                        f"{getattr(parameter, 'label', 'a tensor')!r} is given to two optimizers, "
                        f"{type(owners[id(parameter)]).__name__} and {type(optimizer).__name__}; each "
                        "parameter has one"
                    )

    @property
    def parameters(self) -> list[Any]:
        """The parameters of all of them."""
        return [p for optimizer in self.optimizers for p in _parameters(optimizer)]

    def zero_feedback(self) -> None:
        """Forget what has arrived, everywhere."""
        for optimizer in self.optimizers:
            getattr(optimizer, "zero_feedback", optimizer.zero_grad)()

    zero_grad = zero_feedback

    def backward(self, outputs: Any, feedback: Any = None, **options: Any) -> Mapping[Any, Any]:
        """Carry feedback back in one walk, to the parameters of all of them."""
        entries = [(outputs, feedback)] if isinstance(outputs, Node) else list(outputs)
        return backward(entries, **options)

    def step(self, **options: Any) -> Update:
        """Step every optimizer; gives what all of them did.

        Optimizers that propose (a model is asked) come first: if one of them raises, no tensor has
        moved.
        """
        ordered = sorted(self.optimizers, key=lambda o: not hasattr(o, "propose"))
        updates = [o.step(**(options if hasattr(o, "propose") else {})) for o in ordered]
        return _joined([u for u in updates if isinstance(u, Update)])

    def __repr__(self) -> str:
        return f"Partition({', '.join(map(repr, self.optimizers))})"


def optimize(parameters: Any, *, llm: Any = None, **options: Any) -> Any:
    """An optimizer for each kind among `parameters`: `AdamW` for tensors, and for the rest
    `OptoPrime` where a model is given, `Evolve` where none is.

    Args:
        parameters: what `Optimizer` takes.
        llm: a model's name, a `LanguageModel`, or a callable; ``None`` asks no model.
        **options: by optimizer name, a dict of its options: ``AdamW={"lr": 1e-2}``.

    Returns:
        The one optimizer that is needed, or a `Partition`.

    >>> import tracegraph as tg
    >>> optimize([tg.node(0.5, trainable=True, name="rate")])
    Evolve(['rate'])
    """
    found = collect(parameters)
    tensors = [p for p in found.values() if p.kind.name == "tensor"]
    others = {name: p for name, p in found.items() if p.kind.name != "tensor"}
    made = []
    if tensors:
        made.append(_named("AdamW")(tensors, **options.pop("AdamW", {})))
    if others:
        name = "Evolve" if llm is None else "OptoPrime"
        own = options.pop(name, {})
        chosen = _named(name)
        made.append(chosen(others, **own) if llm is None else chosen(others, llm=llm, **own))
    if options:
        raise OptimizerError(
            f"options for {', '.join(options)} were given, but no parameter goes there; the kinds are "
            + ", ".join(f"{n} ({p.kind.name})" for n, p in found.items())
        )
    return made[0] if len(made) == 1 else Partition(*made)


def _named(name: str) -> Any:
    return getattr(importlib.import_module("optimizers"), name)


def _parameters(optimizer: Any) -> list[Any]:
    if hasattr(optimizer, "parameters"):
        return list(optimizer.parameters)
    return [p for group in optimizer.param_groups for p in group["params"]]


def _joined(updates: list[Update]) -> Update:
    costs = [u.usage.cost for u in updates if u.usage.cost is not None]
    return Update(
        changes=tuple(c for u in updates for c in u.changes),
        rejections=tuple(r for u in updates for r in u.rejections),
        reasoning="\n".join(u.reasoning for u in updates if u.reasoning),
        usage=Usage(
            calls=sum(u.usage.calls for u in updates),
            tokens_in=sum(u.usage.tokens_in for u in updates),
            tokens_out=sum(u.usage.tokens_out for u in updates),
            cost=sum(costs) if costs else None,
        ),
        note="; ".join(u.note for u in updates if u.note),
    )
