"""Several optimizers over one set of parameters, and which one fits which kind."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from optimizers.base import Optimizer, Proposal, Update, Usage, collect, walk, why_idle
from tracegraph.errors import DuplicateName, OptimizerError
from tracegraph.events import observed
from tracegraph.kinds import is_tensor, show

__all__ = ["Partition", "optimize", "parameters_of"]


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
        for optimizer in optimizers:
            if not callable(getattr(optimizer, "step", None)):
                raise OptimizerError(
                    f"Partition takes optimizers one by one, Partition(first, second), got "
                    f"{show(optimizer, 80)} ({type(optimizer).__name__}), which has no step()"
                )
        self.optimizers = optimizers
        owners: dict[int, Any] = {}
        for optimizer in optimizers:
            for parameter in parameters_of(optimizer):
                if owners.setdefault(id(parameter), optimizer) is not optimizer:
                    raise DuplicateName(
                        f"{getattr(parameter, 'label', 'a tensor')!r} is given to two optimizers, "
                        f"{type(owners[id(parameter)]).__name__} and {type(optimizer).__name__}; each "
                        "parameter has one"
                    )

    @property
    def parameters(self) -> list[Any]:
        """The parameters of all of them."""
        return [p for optimizer in self.optimizers for p in parameters_of(optimizer)]

    def zero_feedback(self) -> None:
        """Forget what has arrived, everywhere."""
        for optimizer in self.optimizers:
            (getattr(optimizer, "zero_feedback", None) or optimizer.zero_grad)()

    zero_grad = zero_feedback

    def backward(self, outputs: Any, feedback: Any = None, **options: Any) -> Mapping[Any, Any]:
        """Carry feedback back in one walk, to the parameters of all of them, torch's tensors too.

        Raises:
            NotReached: no parameter at all lies behind any of the outputs.
        """
        tensors = [p for p in self.parameters if is_tensor(p)]
        return walk(outputs, feedback, self.parameters, {"tensors": tensors, **options})

    def step(self, *, bypassing: bool = False, **options: Any) -> Update:
        """Step every optimizer; gives what all of them did.

        First every optimizer that proposes is asked, those that search last; then all assign; then the
        others move. If one of them cannot propose, for example because the model is down, nothing
        has moved and the feedback stays.

        Args:
            bypassing: only say what would change; optimizers that do not propose are left out.
            **options: what every `propose` takes.
        """
        proposing = [o for o in self.optimizers if isinstance(o, Optimizer)]
        if bypassing:
            return _joined([o.step(bypassing=True, **options) for o in proposing])
        ready = [o for o in sorted(proposing, key=_searches) if o.ready()]
        proposals = [(o, o.propose(**options)) for o in ready]
        updates = [_settled(o, proposal) for o, proposal in proposals]
        if proposing and not ready:
            updates.append(Update(note=why_idle([p for o in proposing for p in o.parameters])))
        moved = [o.step() for o in self.optimizers if not isinstance(o, Optimizer)]
        return _joined([u for u in (*updates, *moved) if isinstance(u, Update)])

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
    tensors = [p for p in found.values() if is_tensor(p._data)]
    others = {name: p for name, p in found.items() if not is_tensor(p._data)}
    if llm is None and "OptoPrime" in options:
        raise OptimizerError("options for OptoPrime were given and no model; give llm= as well")
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


def _settled(optimizer: Optimizer, proposal: Proposal) -> Update:
    with observed("step", optimizer=optimizer, bypassing=False) as facts:
        update = optimizer.settle(proposal)
        facts["update"] = update
    return update


def _searches(optimizer: Optimizer) -> bool:
    """Whether proposing changes what an optimizer knows, so that it shall come last."""
    return hasattr(optimizer, "tell")


def parameters_of(optimizer: Any) -> list[Any]:
    """The parameters of an optimizer, or the tensors of one of torch's."""
    if hasattr(optimizer, "parameters"):
        return list(optimizer.parameters)
    return [p for group in getattr(optimizer, "param_groups", ()) for p in group["params"]]


def _joined(updates: list[Update]) -> Update:
    return Update(
        changes=tuple(c for u in updates for c in u.changes),
        rejections=tuple(r for u in updates for r in u.rejections),
        reasoning="\n".join(u.reasoning for u in updates if u.reasoning),
        usage=sum((u.usage for u in updates), Usage()),
        note="; ".join(u.note for u in updates if u.note),
    )
