"""Parameters as candidates: take their present values, and put a candidate's into them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from optimizers.base import collect
from optimizers.candidate import Candidate, identity
from optimizers.encoding import decoded
from tracegraph.cell import Origin
from tracegraph.parameter import Parameter, assign_all

__all__ = ["Values"]


@final
class Values:
    """The parameters that some optimizers propose values for, by name.

    Names that two optimizers use get the optimizer's number.
    """

    def __init__(self, proposers: Sequence[Any]) -> None:
        self.parameters: dict[str, Parameter[Any]] = {
            name: p for member in proposers for name, p in _unique(member, proposers).items()
        }

    def present(self) -> Candidate:
        """The values as they are."""
        return self.candidate({name: p.data for name, p in self.parameters.items()})

    def candidate(self, values: Mapping[str, Any], parents: tuple[str, ...] = ()) -> Candidate:
        """A candidate of copies of these values."""
        copies = {name: self.parameters[name].kind.copy(v) for name, v in values.items()}
        return Candidate.of(copies, parents)

    def assign(self, candidate: Candidate) -> None:
        """Put a candidate's values into the parameters, all or none; those that are there stay."""
        changed: list[tuple[Parameter[Any], Any, Origin, bool]] = []
        for name, value in candidate.values.items():
            parameter, this = self.parameters[name], identity({"": value})
            if identity({"": parameter.data}) == this:
                continue
            new = parameter.kind.copy(parameter.check(value))
            original = identity({"": parameter.initial}) == this
            changed.append((parameter, new, "person" if original else "optimizer", original))
        assign_all(changed)

    def restored(self, values: Mapping[str, Any], parents: Sequence[str]) -> Candidate:
        """The candidate of encoded values."""
        made = {
            name: parameter.check(decoded(values[name], parameter.initial))
            for name, parameter in self.parameters.items()
        }
        return Candidate.of(made, tuple(parents))


def _unique(member: Any, members: Sequence[Any]) -> dict[str, Any]:
    own = collect(member.parameters) if not hasattr(member, "named_parameters") else None
    named: dict[str, Any] = dict(member.named_parameters if own is None else own)
    others = {n for m in members if m is not member for n in getattr(m, "named_parameters", ())}
    at = members.index(member)
    return {(f"{name}#{at}" if name in others else name): p for name, p in named.items()}
