"""What the allowances of models (`Budgeted`) have spent, kept so that they hold over kills.

Each allowance is found where the program holds it: in the workflow, the guide, an optimizer. The saved state
has what it had spent by then, and a journal each call since, which is noted before it is made. So a call
that was under way at a kill counts with all that it could cost: nobody can know whether it was paid.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import asdict
from typing import Any, final

from tracegraph.history.at_hand import AtHand
from tracegraph.llm import Budgeted
from tracegraph.llm.budgeted import Spent

__all__ = ["Allowances"]


@final
class Allowances:
    """The `Budgeted` models that a training holds.

    Args:
        hand: knows where they are.
        journal: keeps what calls cost; a dict on disk.
    """

    def __init__(self, hand: AtHand, journal: MutableMapping[str, Any] | None) -> None:
        self._models = hand.all_of(Budgeted)
        self._journal = journal
        self._told: list[str] = []  # notes in the journal that the state has by now

    def spent(self) -> dict[str, Any]:
        """What each of them has spent, as JSON-able data."""
        accounts = {way: model.account() for way, model in self._models.items()}
        self._told += [note for _, ended in accounts.values() for note in ended]
        return {way: asdict(spent) for way, (spent, _) in accounts.items()}

    def saved(self) -> None:
        """Forget what stands in the saved state by now."""
        told, self._told = self._told, []
        for note in told:
            if self._journal is not None:
                self._journal.pop(note, None)

    def go_on(self, spent: Mapping[str, Any], *, stored: bool) -> None:
        """Count what they had spent when the state was saved and, from the journal, what they have since."""
        for way, model in self._models.items():
            before = Spent(**spent.get(way, {}))
            model.go_on(before, self._journal if stored else None, f"{way}/")
