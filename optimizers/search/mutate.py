"""Mutations: one table from a kind of parameter to the function that varies its values.

A mutator may suggest anything: what the parameter does not take is drawn again, a bounded number of
times. Numbers and tensors move by a step size that adapts itself; the other kinds make one edit.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Any, Final

from optimizers.encoding import encoded
from optimizers.search.code import varied_code
from optimizers.search.text import varied_text
from tracegraph.errors import Rejected
from tracegraph.kinds import KINDS, is_tensor, show
from tracegraph.parameter import Parameter

__all__ = ["Mutator", "Variation", "moves", "mutated", "register"]

_TRIES: Final = 30


@dataclass(frozen=True, slots=True)
class Variation:
    """What a mutator may use.

    Attributes:
        random: the only source of chance.
        step: how far a number moves, relative to the width of its range (or to its size).
        logarithmic: whether a number moves by factors; ``None`` where nobody said.
        phrases: sentences for texts.
        expressions: Python expressions for code.
        suspects: how suspicious each line of a code is, by its number; see `suspects`.
    """

    random: Random
    step: float = 0.3
    logarithmic: bool | None = None
    phrases: Sequence[str] = ()
    expressions: Sequence[str] = ()
    suspects: Mapping[int, float] = field(default_factory=dict)


Mutator = Callable[[Parameter[Any], Any, Variation], Any]
"""``mutator(parameter, value, variation) -> another value``; changes none of its arguments."""

_mutators: dict[str, Mutator] = {}


def register(kind: str, mutator: Mutator) -> None:
    """Say how values of a kind of parameter are varied, in the place of what was said before.

    Args:
        kind: the name of the kind: text, number, choice, code, json, tensor, or one of your own.
        mutator: see `Mutator`.
    """
    if not callable(mutator):
        raise TypeError(f"a mutator is a function, got {show(mutator, 80)}")
    _mutators[kind] = mutator


def mutated(parameter: Parameter[Any], value: Any, variation: Variation) -> Any:
    """Another value that `parameter` takes, made from `value`; `value` itself if none was found.

    >>> import tracegraph as tg
    >>> mutated(tg.node(True, trainable=True), True, Variation(Random(0)))
    False
    """
    mutator = _mutators.get(parameter.kind.name)
    if mutator is None:
        return value
    before = encoded(value)
    for _ in range(_TRIES):
        try:
            found = mutator(parameter, value, variation)
            if found is value:  # the mutator knows no other value
                return value
            found = parameter.check(found)
        except (Rejected, OverflowError):
            continue
        if encoded(found) != before:
            return found
    return value


def moves(parameter: Parameter[Any]) -> bool:
    """Whether values of the parameter move by steps, as numbers and tensors do."""
    return parameter.kind in (KINDS["number"], KINDS["tensor"])


# Numbers


def _number(parameter: Parameter[Any], value: Any, variation: Variation) -> Any:
    low, high = parameter.constraint.bounds
    grid = parameter.constraint.multiple_of
    whole = isinstance(parameter.initial, int)
    logarithmic = variation.logarithmic
    if logarithmic is None:
        logarithmic = low > 0 and math.isfinite(high) and high >= 1000 * low
    if logarithmic and value > 0:
        moved = _moved_by_factor(float(value), low, high, variation)
    else:
        width = high - low
        scale = width if math.isfinite(width) else max(abs(float(parameter.initial)), 1.0)
        moved = _reflected(value + variation.step * scale * variation.random.gauss(0, 1), low, high)
    if grid:
        moved = round(moved / grid) * grid
    if not whole:
        return moved
    rounded = round(moved)
    return (
        rounded if rounded != value else value + round(grid or 1) * variation.random.choice((-1, 1))
    )


def _moved_by_factor(value: float, low: float, high: float, variation: Variation) -> float:
    least = math.log(low) if low > 0 else -math.inf
    most = math.log(high) if math.isfinite(high) else math.inf
    width = most - least
    scale = width if math.isfinite(width) else math.log(10)
    moved = math.log(value) + variation.step * scale * variation.random.gauss(0, 1)
    return min(max(math.exp(_reflected(moved, least, most)), low), high)


def _reflected(value: float, low: float, high: float) -> float:
    """`value` folded back into the range, as a mirror at each end would."""
    if math.isfinite(low) and math.isfinite(high):
        width = high - low
        if width <= 0:
            return low
        turned = (value - low) % (2 * width)
        value = low + (turned if turned <= width else 2 * width - turned)
    elif value < low:
        value = 2 * low - value
    elif value > high:
        value = 2 * high - value
    return min(max(value, low), high)


def _tensor(parameter: Parameter[Any], value: Any, variation: Variation) -> Any:
    import numpy

    chance = numpy.random.default_rng(variation.random.getrandbits(64))
    kind = str(value.dtype).removeprefix("torch.")
    shape = tuple(int(n) for n in value.shape)
    if kind == "bool":
        flips = chance.random(shape) < 1 / max(1, math.prod(shape))
        return value ^ _alike(value, flips)
    noise = variation.step * _spread(parameter.initial) * chance.standard_normal(shape)
    if "int" in kind:
        noise = numpy.rint(noise)
        if not noise.any() and noise.size:
            noise.flat[chance.integers(noise.size)] = chance.choice((-1, 1))
    return value + _alike(value, noise)


def _alike(value: Any, array: Any) -> Any:
    """A numpy array as a tensor or array of the type of `value`."""
    if is_tensor(value):
        return value.detach().new_tensor(array.tolist()).reshape(value.shape)
    return array.astype(value.dtype)


def _spread(value: Any) -> float:
    """The root of the mean square; 1 for a value that is zero everywhere."""
    exact = value.detach().double() if is_tensor(value) else value.astype(float)
    size = float((exact**2).mean()) ** 0.5 if math.prod(value.shape) else 0.0
    return size or 1.0


# What is edited


def _choice(parameter: Parameter[Any], value: Any, variation: Variation) -> Any:
    choices: Sequence[Any] | None = parameter.constraint.choices
    if choices is None:
        choices = list(type(value)) if isinstance(value, Enum) else (True, False)
    others = [choice for choice in choices if choice != value or type(choice) is not type(value)]
    return variation.random.choice(others) if others else value


def _text(parameter: Parameter[Any], value: Any, variation: Variation) -> Any:
    return varied_text(value, variation.random, variation.phrases)


def _code(parameter: Parameter[Any], value: Any, variation: Variation) -> Any:
    return varied_code(value, variation.random, variation.expressions, suspects=variation.suspects)


def _json(parameter: Parameter[Any], value: Any, variation: Variation) -> Any:
    """One leaf changes, or one item of a list is doubled, dropped or swapped."""
    places = list(_places(value, ()))
    if not places:
        return value
    path = variation.random.choice(places)
    found = _rebuilt(value, path, lambda old: _varied(old, variation))
    kind = type(found)
    if hasattr(kind, "model_validate"):  # a changed copy of a model is not checked by itself
        try:
            return kind.model_validate(found.model_dump(round_trip=True))
        except ValueError as error:
            raise Rejected(parameter=parameter, reason=str(error)) from error
    return found


_Path = tuple[Any, ...]


def _places(value: Any, path: _Path) -> Iterator[_Path]:
    """The ways to every leaf that can vary, and to every list with items."""
    if isinstance(value, (bool, int, float, str, Enum)):
        yield path
        return
    if isinstance(value, list) and value:
        yield path
    for key, item in _parts(value):
        yield from _places(item, (*path, key))


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, (list, tuple)):
        yield from enumerate(value)
    elif dataclasses.is_dataclass(value):
        yield from ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value) if f.init)
    elif hasattr(type(value), "model_fields"):
        yield from ((name, getattr(value, name)) for name in type(value).model_fields)


def _rebuilt(value: Any, path: _Path, change: Callable[[Any], Any]) -> Any:
    """A copy of `value` in which what stands at the end of `path` is changed."""
    if not path:
        return change(value)
    key, *rest = path
    part = dict(_parts(value))[key]
    new = _rebuilt(part, tuple(rest), change)
    if isinstance(value, Mapping):
        return type(value)({**value, key: new})  # type: ignore[call-arg]
    if isinstance(value, (list, tuple)):
        items = [*value[:key], new, *value[key + 1 :]]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{key: new})
    return value.model_copy(update={key: new})


def _varied(leaf: Any, variation: Variation) -> Any:
    random = variation.random
    if isinstance(leaf, Enum):
        return random.choice(list(type(leaf)))
    if isinstance(leaf, bool):
        return not leaf
    if isinstance(leaf, int):
        moved = round(random.gauss(leaf, variation.step * max(abs(leaf), 1)))
        return moved if moved != leaf else leaf + random.choice((-1, 1))
    if isinstance(leaf, float):
        return random.gauss(leaf, variation.step * max(abs(leaf), 1.0))
    if isinstance(leaf, str):
        return varied_text(leaf, random, variation.phrases)
    return _varied_list(leaf, random)


def _varied_list(items: list[Any], random: Random) -> list[Any]:
    place, other = random.randrange(len(items)), random.randrange(len(items))
    edit = random.randrange(3)
    new = copy.copy(items)
    if edit == 0:
        del new[place]
    elif edit == 1:
        new.insert(other, copy.deepcopy(items[place]))
    else:
        new[place], new[other] = new[other], new[place]
    return new


_mutators.update(number=_number, tensor=_tensor, choice=_choice, text=_text, code=_code, json=_json)
