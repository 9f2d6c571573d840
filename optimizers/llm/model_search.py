"""What searches over numbers and choices that ask a model share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from optimizers.asktell import AskTell
from optimizers.base import Usage
from optimizers.llm.questions import Questions, usage_of
from optimizers.llm.space import Space
from tracegraph.errors import OptimizerError
from tracegraph.kinds import show
from tracegraph.llm import LanguageModelLike, Message
from tracegraph.llm.lenient import Lenient

__all__ = ["ModelSearch"]

_MOST_REFUSED = 5


class ModelSearch(Questions, AskTell):
    """A search that asks a model; use it by `ask` and `tell`, or step by step with scores.

    Args:
        parameters: numbers with two bounds, and choices.
        llm: see `ModelOptimizer`; so are `max_tokens`, `budget`, and further options.
        objective: what is wanted, in words; the model is told.
        seed: see `AskTell`; so is `minimize`.
        mask: sections to leave out of what the model is shown, such as ``["History"]``.

    Attributes:
        usage: what was paid so far.
    """

    default_objective = "Find values that score as well as possible."
    _sections: ClassVar[tuple[str, ...]] = ("Objective", "Space", "History", "Refused")
    _moving: ClassVar[tuple[str, ...]] = (*AskTell._moving, "refused")

    def __init__(
        self,
        parameters: Any,
        llm: LanguageModelLike = None,
        *,
        objective: str | None = None,
        seed: int = 0,
        minimize: bool = False,
        budget: int = 4_000,
        max_tokens: int = 4_096,
        mask: Iterable[str] = (),
        **options: Any,
    ) -> None:
        AskTell.__init__(self, parameters, seed=seed, minimize=minimize)
        Questions.__init__(self, llm, max_tokens=max_tokens, options=options)
        self.space = Space(self.named_parameters)
        self.objective = objective or self.default_objective
        self.budget = budget
        self.mask = frozenset(name.lstrip("#").casefold() for name in mask)
        unknown = self.mask - {name.casefold() for name in self._sections}
        if unknown:
            raise OptimizerError(
                f"mask names {', '.join(sorted(unknown))}; the sections are {', '.join(self._sections)}"
            )
        self.usage = Usage()
        self.refused: list[str] = []
        self._unbilled = Usage()

    def state_dict(self) -> dict[str, Any]:
        """As for every search, which questions were asked how often, and what was refused."""
        own = {"asked": dict(self.asked), "refused": list(self.refused)}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave; see `AskTell.load_state_dict`."""
        try:
            asked = Counter({str(key): int(count) for key, count in state["asked"].items()})
            refused = list(map(str, state["refused"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise OptimizerError(
                f"this is no state of {type(self).__name__}: {show(state, 80)}"
            ) from error
        super().load_state_dict(state)
        self.asked, self.refused = asked, refused

    def _question(
        self, system: str, sections: Iterable[tuple[str, str | list[str]]]
    ) -> list[Message]:
        """Sections under their titles, without those that are masked or empty.

        Of a section that is a list of rows as many are shown as the budget has room for, the last first.
        """
        shown = [(t, text) for t, text in sections if text and t.casefold() not in self.mask]
        fixed = sum(len(t) + len(text) + 4 for t, text in shown if isinstance(text, str))
        room = self.budget * 4 - len(system) - fixed - 20
        parts = [
            f"#{title}\n{text if isinstance(text, str) else _last(text, room)}"
            for title, text in shown
        ]
        return [Message("system", system), Message("user", "\n\n".join(parts))]

    def _answers(
        self, messages: list[Message], schema: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """The JSON objects of the model's reply, in order."""
        reply = self.exchange(messages, schema=schema)
        self.usage += usage_of(reply)
        self._unbilled += usage_of(reply)
        yield from (found.value for found in Lenient(reply.text).objects())

    def _refuse_values(self, reason: str) -> None:
        self.refused = [*self.refused, reason][-_MOST_REFUSED:]

    def paid(self) -> Usage:
        """What was paid since this was asked last."""
        spent, self._unbilled = self._unbilled, Usage()
        return spent


def _last(rows: list[str], room: int) -> str:
    """The last of the rows, as many as fit into so many characters, at least one."""
    taken: list[str] = []
    for row in reversed(rows):
        room -= len(row) + 1
        if room < 0 and taken:
            break
        taken.append(row)
    return "\n".join(reversed(taken))
