"""EvoLLM: an evolution strategy whose next centre a model reads off the sorted history.

Source: Lange, Tian and Tang, "Large Language Models As Evolution Strategies", 2024 (arXiv 2402.18381):
candidates are drawn around a mean, ``x = mean + sigma * noise``; the model is shown the best
members of the best generations on a grid of whole numbers, from the least to the most fit, and is asked
for the mean at a better score. Many parameters are asked for in blocks. Where no answer can be read the
mean stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any, ClassVar, Final, final

from optimizers.candidate import Trial, identity
from optimizers.llm.model_search import ModelSearch
from tracegraph.errors import BudgetExceeded, ModelError, OptimizerError
from tracegraph.kinds import show

__all__ = ["EvoLLM"]

_TRIES: Final = 60
_SYSTEM = """\
You guide an evolution strategy. Each line of #History is a point that was tried and its score, the worst
first. A coordinate is a whole number: the place of a number within its bounds, or the number of an
option. The next points will be drawn around a centre that you choose. Answer with one JSON object
{"mean": {"name": whole number, ...}}: the centre that should reach the score asked for."""


@final
class EvoLLM(ModelSearch):
    """Draws points around a mean, and asks the model for the next mean once per generation.

    Args:
        parameters: see `ModelSearch`, as for the other options.
        population: how many points a generation has; each needs a run, and one call serves all.
        sigma: how far points lie from the mean, relative to the bounds; a choice is another one with
            this probability. In the first generation, before the model has seen anything, each option
            has its turn.
        decay: what `sigma` is multiplied by whenever the model has given a mean.
        generations: how many of the best generations are shown (K in the paper).
        members: how many of the best members of each (M in the paper).
        block: how many parameters one call is about.
        resolution: the grid: a number is shown as its place from 0 to this.

    >>> import tracegraph as tg
    >>> from typing import Annotated
    >>> from pydantic import Field
    >>> from tracegraph.llm import Scripted
    >>> rate = tg.node(0.0, trainable=True, name="rate", constraint=Annotated[float, Field(ge=0, le=10)])
    >>> evollm = EvoLLM([rate], Scripted(['{"mean": {"rate": 700}}']), population=4, sigma=0.01)
    >>> for _ in range(2):
    ...     for candidate in evollm.ask(4):
    ...         evollm.tell(candidate, -abs(candidate.values["rate"] - 7))
    >>> update = evollm.finish()
    >>> abs(rate.data - 7) < 0.5, evollm.usage.calls
    (True, 1)
    """

    _sections = ("Coordinates", "Objective", "History", "Wanted", "Refused")
    _moving: ClassVar[tuple[str, ...]] = (*ModelSearch._moving, "mean", "sigma", "broods")

    def __init__(
        self,
        parameters: Any,
        *args: Any,
        population: int = 8,
        sigma: float = 0.2,
        decay: float = 0.9,
        generations: int = 5,
        members: int = 5,
        block: int = 12,
        resolution: int = 1_000,
        **options: Any,
    ) -> None:
        super().__init__(parameters, *args, **options)
        for name, number, least in (
            ("population", population, 2), ("generations", generations, 1), ("members", members, 1),
            ("block", block, 1), ("resolution", resolution, 2),
        ):  # fmt: skip
            if not isinstance(number, int) or number < least:
                raise OptimizerError(f"{name} must be a whole number from {least}, got {number!r}")
        if not (0 < sigma <= 1 and 0 < decay <= 1):
            raise OptimizerError(f"sigma and decay lie in (0, 1], got {sigma!r} and {decay!r}")
        self.population, self.sigma, self.decay = population, float(sigma), decay
        self.generations, self.members = generations, members
        self.block, self.resolution = block, resolution
        self.mean = self.space.places(self._root.values)
        self.broods: list[list[str]] = [[self._root.id]]

    def state_dict(self) -> dict[str, Any]:
        """As for every search, and the mean, the step size and the generations."""
        own = {
            "mean": dict(self.mean),
            "sigma": self.sigma,
            "broods": [list(b) for b in self.broods],
        }
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave; see `AskTell.load_state_dict`."""
        try:
            mean = {str(name): float(place) for name, place in state["mean"].items()}
            sigma, broods = float(state["sigma"]), [list(map(str, b)) for b in state["broods"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise OptimizerError(f"this is no state of EvoLLM: {show(state, 80)}") from error
        super().load_state_dict(state)
        self.mean, self.sigma, self.broods = mean, sigma, broods

    def _options(self) -> dict[str, Any]:
        own = {
            "population": self.population, "decay": self.decay, "generations": self.generations,
            "members": self.members, "block": self.block, "resolution": self.resolution,
        }  # fmt: skip
        return {**super()._options(), **own}

    def _refill(self, ranked: list[Trial]) -> None:
        whole = len(self.broods) > 1 or len(self.broods[0]) >= self.population
        if whole and ranked:
            self._move(ranked)
        if whole:
            self.broods = [*self.broods, []]
        while len(self.broods[-1]) < self.population:
            values = self._drawn()
            if values is None:
                return
            candidate = self._admitted(values)
            self._waiting.append(candidate)
            self.broods = [*self.broods[:-1], [*self.broods[-1], candidate.id]]

    def _drawn(self) -> dict[str, Any] | None:
        """Values around the mean that were not there before."""
        random = Random(f"{self.seed}/{self._made}")
        for attempt in range(_TRIES):
            sigma = min(1.0, self.sigma * (1 + attempt / 10))  # wider where all near was tried
            places = {
                name: self._near(name, place, sigma, random) for name, place in self.mean.items()
            }
            if len(self.broods) == 1 and not attempt:
                places |= self._options_in_turn()
            values = self.space.at(places)
            if values is not None and identity(values) not in self._trials:
                return values
        return None

    def _options_in_turn(self) -> dict[str, float]:
        """Of each choice the next option, before a model has seen any: one is as good as another."""
        turn = {}
        for name, options in self.space.choices.items():
            order = list(range(len(options)))
            Random(f"{self.seed}/{name}").shuffle(order)
            turn[name] = (order[self._made % len(order)] + 0.5) / len(order)
        return turn

    def _near(self, name: str, place: float, sigma: float, random: Random) -> float:
        if name in self.space.choices:
            return random.random() if random.random() < sigma else place
        return min(max(place + sigma * random.gauss(0, 1), 0.0), 1.0)

    def _move(self, ranked: list[Trial]) -> None:
        """Ask for the next mean, block by block; what cannot be read stays as it is."""
        names, moved = list(self.mean), False
        shown = self._shown(ranked)
        mean = dict(self.mean)
        for start in range(0, len(names), self.block):
            block = names[start : start + self.block]
            try:
                given = self._asked_mean(block, shown)
            except (BudgetExceeded, ModelError):
                if not moved:
                    raise
                break  # the blocks before are paid for
            mean.update(given)
            moved = moved or bool(given)
        self.mean = mean
        if moved:
            self.sigma *= self.decay

    def _shown(self, ranked: list[Trial]) -> list[Trial]:
        """The best members of the best generations, the best last."""
        place = {trial.candidate.id: number for number, trial in enumerate(ranked)}
        broods = [sorted((place[i], i) for i in brood if i in place) for brood in self.broods]
        best = sorted((brood for brood in broods if brood), key=lambda brood: brood[0])
        kept = sorted(n for brood in best[: self.generations] for n, _ in brood[: self.members])
        return [ranked[number] for number in reversed(kept)]

    def _asked_mean(self, block: list[str], shown: list[Trial]) -> dict[str, float]:
        rows = [
            f"score {trial.score:.6g}: {self._point(block, trial.candidate.values)}"
            for trial in shown
        ]
        best, worst = shown[-1].score, shown[0].score
        blank = ", ".join(f'"{name}": ?' for name in block)
        messages = self._question(
            _SYSTEM,
            [
                ("Objective", self.objective),
                ("Coordinates", "\n".join(self._axis(name) for name in block)),
                ("History", rows),
                ("Refused", "\n".join(self.refused)),
                ("Wanted", f"score {best + 0.5 * (best - worst):.6g}: {{{blank}}}"),
            ],
        )
        self.refused = []
        for found in self._answers(messages, _schema(block, self.resolution)):
            mean = found.get("mean", found)
            if isinstance(mean, Mapping) and any(name in mean for name in block):
                return {n: p for n in block if (p := self._read(n, mean.get(n))) is not None}
        self._refuse_values('the reply had no object {"mean": {...}}')
        return {}

    def _read(self, name: str, given: Any) -> float | None:
        """The place that a coordinate means; None, with a note for the next question, for another."""
        most = self._most(name)
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= most:
            self._refuse_values(f"{name}: a whole number from 0 to {most}, got {show(given, 40)}")
            return None
        if name in self.space.choices:
            return (round(given) + 0.5) / (most + 1)
        return given / most

    def _most(self, name: str) -> int:
        return len(self.space.choices[name]) - 1 if name in self.space.choices else self.resolution

    def _point(self, block: list[str], values: Mapping[str, Any]) -> str:
        places = self.space.places(values)
        shown = {}
        for name in block:
            if name in self.space.choices:
                shown[name] = self.space.choices[name].index(values[name])
            else:
                shown[name] = round(places[name] * self.resolution)
        return "{" + ", ".join(f'"{name}": {number}' for name, number in shown.items()) + "}"

    def _axis(self, name: str) -> str:
        if name in self.space.choices:
            options = enumerate(self.space.choices[name])
            return f"{name}: " + ", ".join(f"{n} is {show(option, 40)}" for n, option in options)
        low, high = self.named_parameters[name].constraint.bounds
        return f"{name}: 0 is {low:g}, {self.resolution} is {high:g}"


def _schema(block: list[str], most: int) -> dict[str, Any]:
    place = {"type": "integer", "minimum": 0, "maximum": most}
    mean = {"type": "object", "properties": dict.fromkeys(block, place), "required": block}
    return {"type": "object", "properties": {"mean": mean}, "required": ["mean"]}
