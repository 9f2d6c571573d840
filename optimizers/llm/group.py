"""What optimizers around several others share: one set of parameters, and whose proposal it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optimizers.base import Optimizer, Proposal, Update
from tracegraph.errors import OptimizerError
from tracegraph.kinds import show

__all__ = ["Group"]


class Group(Optimizer):
    """Optimizers over the same parameters; what is decided of a proposal goes to the one that made it.

    Raises:
        OptimizerError: there is none, one cannot propose, or their parameters differ.
    """

    def __init__(self, optimizers: Sequence[Any]) -> None:
        members = list(optimizers)
        for member in members:
            if not isinstance(member, Optimizer):
                raise OptimizerError(
                    f"{type(self).__name__} takes optimizers that propose, got {show(member, 80)}"
                )
        if not members:
            raise OptimizerError(f"{type(self).__name__} needs at least one optimizer")
        super().__init__(members[0].named_parameters)
        wanted = {name: id(p) for name, p in members[0].named_parameters.items()}
        for member in members[1:]:
            if {name: id(p) for name, p in member.named_parameters.items()} != wanted:
                raise OptimizerError(
                    f"{type(self).__name__} takes optimizers over the same parameters; the first has "
                    f"{', '.join(wanted)}, another {', '.join(member.named_parameters)}. Partition is "
                    "for optimizers with parameters of their own"
                )
        self.optimizers: list[Optimizer] = members
        self._owner: Optimizer = members[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}([{', '.join(map(repr, self.optimizers))}])"

    def settle(self, proposal: Proposal, *, bypassing: bool = False) -> Update:
        """Check and assign, by the optimizer that made the proposal."""
        self._owner.trust = self.trust or self._owner.trust
        return self._owner.settle(proposal, bypassing=bypassing)

    def refuse(self, proposal: Proposal, reason: str, *, score: float | None = None) -> None:
        """Tell the optimizer that made the proposal."""
        self._owner.refuse(proposal, reason, score=score)

    def state_dict(self) -> dict[str, Any]:
        """What each of them remembers."""
        return {
            "optimizers": [member.state_dict() for member in self.optimizers],
            "owner": self.optimizers.index(self._owner),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember what `state_dict` gave."""
        try:
            owner = self.optimizers[int(state["owner"])]
            pairs = list(zip(self.optimizers, state["optimizers"], strict=True))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise OptimizerError(
                f"this is no state of {type(self).__name__}: {show(state, 80)}"
            ) from error
        for member, own in pairs:
            member.load_state_dict(own)
        self._owner = owner
