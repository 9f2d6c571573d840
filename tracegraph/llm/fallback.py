"""Ask the next model when one fails."""

from __future__ import annotations

from typing import final

from tracegraph.errors import MissingKey, ModelFailed, NotRecorded, WrongModel
from tracegraph.llm.messages import Price, Reply, Request
from tracegraph.llm.model import Ask, LanguageModel, ModelBase, Steps, Wrapper

__all__ = ["Fallback"]

_FAILURES = (ModelFailed, MissingKey, NotRecorded, TimeoutError, ConnectionError)


@final
class Fallback(Wrapper):
    """A language model that asks several in turn until one answers.

    It goes on after a failure of the model or of the way to it, never after a spent budget or a
    mistake in a program. `Reply.model` says who answered. When all fail, the last error is raised
    with a note for each of the others.

    >>> from tracegraph.llm import Scripted
    >>> Fallback(Scripted([]), Scripted(["from the second"]))("Go").text
    'from the second'
    """

    def __init__(self, *models: LanguageModel) -> None:
        if not models:
            raise WrongModel("Fallback needs at least one model, got none")
        for model in models:
            super().__init__(model)
        self._models = models

    @property
    def name(self) -> str:
        """The names of all, in order."""
        return " | ".join(model.name for model in self._models)

    def price(self) -> Price | None:
        """The highest price among the models; None where that of one is unknown."""
        prices = [m.price() if isinstance(m, ModelBase) else None for m in self._models]
        known = [price for price in prices if price is not None]
        if len(known) < len(prices):
            return None
        return Price(max(p.prompt for p in known), max(p.completion for p in known))

    @property
    def in_order(self) -> bool:
        """Whether that matters to one of the models."""
        return any(isinstance(model, ModelBase) and model.in_order for model in self._models)

    def steps(self, request: Request) -> Steps:
        """Ask one after the other."""
        notes: list[str] = []
        *others, last = self._models
        for model in others:
            try:
                reply: Reply = yield Ask(model, request)
                return reply
            except _FAILURES as error:
                notes.append(f"before, {model.name} failed: {error}")
        try:
            reply = yield Ask(last, request)
            return reply
        except _FAILURES as error:
            for note in notes:
                error.add_note(note)
            raise

    def __repr__(self) -> str:
        return f"Fallback({', '.join(map(repr, self._models))})"
