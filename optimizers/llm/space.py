"""A space of numbers and choices: how a model is told of it, and how its answers are read back.

Only what has bounds can be drawn at random and put on a grid: a number needs a least and a largest
value. Nothing is moved into the bounds: what lies outside is refused with the reason.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from enum import Enum
from random import Random
from typing import Any, Final, final

from tracegraph.errors import OptimizerError, Rejected
from tracegraph.kinds import show
from tracegraph.parameter import Parameter

__all__ = ["Space"]

_TRIES: Final = 60
_WIDE: Final = 1_000.0
"""A range of positive numbers this many times as large at its end is even in the logarithm."""


@final
class Space:
    """The values that some numbers and choices can have, by name; frozen ones keep theirs.

    Raises:
        OptimizerError: a parameter is neither, or a number lacks a bound.

    >>> import tracegraph as tg
    >>> from typing import Annotated
    >>> from pydantic import Field
    >>> rate = tg.node(0.1, trainable=True, constraint=Annotated[float, Field(ge=0, le=1)])
    >>> space = Space({"rate": rate, "fast": tg.node(True, trainable=True)})
    >>> print(space.describe())
    rate: a number from 0 to 1
    fast: one of false, true
    >>> space.read({"rate": 2, "fast": True})[1]
    'rate: Input should be less than or equal to 1, got 2'
    """

    def __init__(self, parameters: Mapping[str, Parameter[Any]]) -> None:
        self.parameters = dict(parameters)
        self.choices: dict[str, tuple[Any, ...]] = {}
        for name, parameter in self.free().items():
            low, high = parameter.constraint.bounds
            if parameter.kind.name == "choice":
                self.choices[name] = parameter.constraint.choices or (False, True)
            elif parameter.kind.name != "number":
                raise OptimizerError(
                    f"{name!r} is {parameter.kind.name}; only numbers and choices are searched here. "
                    "OptoPrime and Evolve take parameters of any kind"
                )
            elif not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise OptimizerError(
                    f"the number {name!r} needs a least and a largest value, it has {low:g} and "
                    f"{high:g}: node(..., constraint=Annotated[float, Field(ge=0, le=1)])"
                )

    def free(self) -> dict[str, Parameter[Any]]:
        """The parameters that may change, by name."""
        return {name: p for name, p in self.parameters.items() if p.trainable}

    def describe(self) -> str:
        """A line for each parameter that may change: what values it takes."""
        return "\n".join(
            f"{name}: {self._about(name, parameter)}" for name, parameter in self.free().items()
        )

    def row(self, values: Mapping[str, Any]) -> str:
        """Values as one line of JSON; members of an `Enum` by their names."""
        return json.dumps({name: _plain(values[name]) for name in self.free()})

    def read(self, given: Any) -> tuple[dict[str, Any] | None, str]:
        """The values that a JSON object means, or None and the reason why it is refused."""
        if not isinstance(given, Mapping):
            return None, f"{show(given, 60)} is no object of names and values"
        values = {name: p.data for name, p in self.parameters.items()}
        for name, parameter in self.free().items():
            if name not in given:
                return None, f"{name!r} is missing"
            try:
                values[name] = parameter.read(given[name])
            except Rejected as error:
                return None, f"{name}: {error.reason}"
        return values, ""

    def drawn(self, random: Random) -> dict[str, Any] | None:
        """Values drawn evenly; None where none were found that the parameters take."""
        for _ in range(_TRIES):
            values = self.at({name: random.random() for name in self.free()})
            if values is not None:
                return values
        return None

    def at(self, places: Mapping[str, float]) -> dict[str, Any] | None:
        """The values at some places between 0 and 1; None where a parameter does not take its own."""
        values = {name: p.data for name, p in self.parameters.items()}
        for name, place in places.items():
            try:
                values[name] = self.parameters[name].check(self._value(name, place))
            except Rejected:
                return None
        return values

    def places(self, values: Mapping[str, Any]) -> dict[str, float]:
        """Where values lie, between 0 and 1."""
        return {name: self._place(name, values[name]) for name in self.free()}

    def _value(self, name: str, place: float) -> Any:
        parameter = self.parameters[name]
        if name in self.choices:
            options = self.choices[name]
            return options[min(int(place * len(options)), len(options) - 1)]
        low, high = parameter.constraint.bounds
        value = low * (high / low) ** place if _wide(low, high) else low + place * (high - low)
        value = min(max(value, low), high)
        grid = parameter.constraint.multiple_of
        if grid:
            value = (
                min(max(round(value / grid), math.ceil(low / grid)), math.floor(high / grid)) * grid
            )
        return round(value) if isinstance(parameter.initial, int) else value

    def _place(self, name: str, value: Any) -> float:
        if name in self.choices:
            options = self.choices[name]
            return (options.index(value) + 0.5) / len(options)
        low, high = self.parameters[name].constraint.bounds
        if _wide(low, high):
            return math.log(value / low) / math.log(high / low)
        return (float(value) - low) / (high - low)

    def _about(self, name: str, parameter: Parameter[Any]) -> str:
        said = f"  # {parameter.description}" if parameter.description else ""
        if name in self.choices:
            shown = ", ".join(json.dumps(_plain(choice)) for choice in self.choices[name])
            return f"one of {shown}{said}"
        low, high = parameter.constraint.bounds
        kind = "a whole number" if isinstance(parameter.initial, int) else "a number"
        even = ", even in the logarithm" if _wide(low, high) else ""
        return f"{kind} from {low:g} to {high:g}{even}{said}"


def _wide(low: float, high: float) -> bool:
    return low > 0 and high >= _WIDE * low


def _plain(value: Any) -> Any:
    return value.name if isinstance(value, Enum) else value
