"""What every search without a model has: candidates are made by mutations of earlier ones."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from random import Random
from typing import Any, Final

from optimizers.asktell import AskTell
from optimizers.candidate import Candidate, Trial, identity
from optimizers.search.mutate import Variation, moves, mutated
from tracegraph.errors import OptimizerError
from tracegraph.kinds import show

__all__ = ["Search"]

_TRIES: Final = 60


class Search(AskTell):
    """A search by mutations; derive from it and say how a brood is made.

    Args:
        parameters: of any kind, see `Optimizer`.
        seed: see `AskTell`; so is `minimize`.
        phrases: sentences that a text may receive.
        expressions: Python expressions that code may receive, besides its own ingredients.
        logarithmic: names of the numbers that are varied by factors; by default those whose bounds
            are positive and three orders of magnitude apart.

    Raises:
        OptimizerError: an option cannot be used; the message says which.
    """

    def __init__(
        self,
        parameters: Any,
        *,
        seed: int = 0,
        minimize: bool = False,
        phrases: Iterable[str] = (),
        expressions: Iterable[str] = (),
        logarithmic: Iterable[str] = (),
    ) -> None:
        super().__init__(parameters, seed=seed, minimize=minimize)
        self.phrases = _texts(phrases, "phrases")
        self.expressions = _texts(expressions, "expressions")
        self.logarithmic = _texts(logarithmic, "logarithmic")
        for name in self.logarithmic:
            if name not in self.named_parameters:
                raise OptimizerError(
                    f"logarithmic= names {name!r}, but the parameters are "
                    f"{', '.join(self.named_parameters)}"
                )
        for expression in self.expressions:
            try:
                compile(expression, "<expressions>", "eval")
            except (SyntaxError, ValueError) as error:
                raise OptimizerError(
                    f"expressions= takes Python expressions, got {expression!r}: {error}"
                ) from error

    @abstractmethod
    def _brood(self) -> int:
        """How many candidates are made at a time."""

    @abstractmethod
    def _bred(self, random: Random, effort: int, chosen: list[Trial]) -> Candidate:
        """A candidate; asked again with growing `effort` while what it gives was there before.

        `chosen` are the trials that have a score, the best first.
        """

    def _refill(self, ranked: list[Trial]) -> None:
        first = self._made == 1  # the first brood has the first values among it
        for _ in range(max(1, self._brood() - first)):
            candidate = self._new(ranked)
            if candidate is None:
                break
            self._waiting.append(candidate)

    def _new(self, ranked: list[Trial]) -> Candidate | None:
        """A candidate that was not there before; its chance comes from its own number alone."""
        random = Random(f"{self.seed}/{self._made}")
        for effort in range(_TRIES):
            bred = self._bred(random, effort, ranked)
            if identity(bred.values) not in self._trials:
                return self._admitted(bred.values, bred.parents, bred.step)
        return None

    def _varied(
        self,
        name: str,
        value: Any,
        random: Random,
        step: float = 0.3,
        *,
        times: int = 1,
        suspects: Mapping[int, float] | None = None,
    ) -> Any:
        """`value` after some mutations of its kind; `suspects` are lines of `value` itself."""
        parameter = self.named_parameters[name]
        said = True if name in self.logarithmic else None
        for _ in range(times):
            blamed = suspects or {}
            variation = Variation(random, step, said, self.phrases, self.expressions, blamed)
            value, suspects = mutated(parameter, value, variation), None
        return value

    def _free(self) -> tuple[list[str], list[str]]:
        """The names of the parameters that may change: those that move by steps, and the others."""
        free = {name: p for name, p in self.named_parameters.items() if p.trainable}
        moving = [name for name, parameter in free.items() if moves(parameter)]
        return moving, [name for name in free if name not in moving]

    def _options(self) -> dict[str, Any]:
        own = {
            "phrases": list(self.phrases),
            "expressions": list(self.expressions),
            "logarithmic": list(self.logarithmic),
        }
        return {**super()._options(), **own}


def _texts(given: Iterable[str], option: str) -> tuple[str, ...]:
    if isinstance(given, str):
        raise OptimizerError(f"{option}= takes a list of texts, got the one text {given!r}")
    texts = tuple(given)
    for text in texts:
        if not isinstance(text, str):
            raise OptimizerError(f"{option}= takes texts, got {show(text, 60)}")
    return texts
