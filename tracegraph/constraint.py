"""What values a parameter takes: Python annotations checked by pydantic, patterns, predicates, words.

Checking is strict: a value of another type is refused with a reason, never converted in a way that
changes its meaning.
"""

from __future__ import annotations

import copy
import enum
import json
import math
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any, Literal, get_args, get_origin

from tracegraph.kinds import KINDS, Kind, kind_of, show
from tracegraph.marking import BadSource, numbered

__all__ = ["Constraint"]

_FEW_LINES = 2


class Constraint:
    """The values that a parameter takes.

    Args:
        *parts: each one of: a type or annotation (``Annotated[float, Field(ge=0, le=1)]``,
            ``Literal["a", "b"]``, a pydantic model), an `annotated_types` bound (``MaxLen(200)``), a
            compiled regular expression that the whole text must match, a predicate
            ``value -> bool`` (or one that raises ValueError with the reason), or a sentence, which
            is shown to models and people and not checked.

    Raises:
        TypeError: a part is none of these.

    >>> Constraint(Literal["red", "green"]).fault("blue")
    "Input should be 'red' or 'green', got 'blue'"
    """

    __slots__ = ("_adapter", "_predicates", "annotation", "patterns", "sentences")

    def __init__(self, *parts: Any) -> None:
        self.annotation: Any = None
        self.patterns: tuple[re.Pattern[str], ...] = ()
        self.sentences: tuple[str, ...] = ()
        self._predicates: tuple[Callable[[Any], Any], ...] = ()
        self._adapter: Any = None
        bounds = []
        for part in _flat(parts):
            if isinstance(part, str):
                self.sentences += (part,)
            elif isinstance(part, re.Pattern):
                self.patterns += (part,)
            elif _is_annotation(part):
                if self.annotation is not None:
                    raise TypeError(
                        f"a constraint takes one annotation, got {self.annotation!r} and {part!r}; "
                        "join them with Annotated[...]"
                    )
                self.annotation = part
            elif type(part).__module__.startswith(("annotated_types", "pydantic")):
                bounds.append(part)
            elif callable(part):
                self._predicates += (part,)
            else:
                raise TypeError(
                    f"{part!r} is no constraint: give an annotation, a bound such as MaxLen(200), a "
                    "compiled regular expression, a predicate, or a sentence"
                )
        if bounds:
            base = Any if self.annotation is None else self.annotation
            self.annotation = typing.Annotated[(base, *bounds)]

    def __bool__(self) -> bool:
        return bool(self.annotation or self.patterns or self.sentences or self._predicates)

    @property
    def choices(self) -> tuple[Any, ...] | None:
        """The values to choose from, where the constraint lists them."""
        annotation = _bare(self.annotation)
        if get_origin(annotation) is Literal:
            return get_args(annotation)
        if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
            return tuple(annotation)
        return None

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest number that is taken; infinite where none is set."""
        low, high = -math.inf, math.inf
        for bound in _metadata(self.annotation):
            for name in ("ge", "gt"):
                value = getattr(bound, name, None)
                low = low if value is None else max(low, float(value))
            for name in ("le", "lt"):
                value = getattr(bound, name, None)
                high = high if value is None else min(high, float(value))
        return low, high

    @property
    def multiple_of(self) -> float | None:
        """The number that every value is a multiple of, or ``None``."""
        found = [getattr(bound, "multiple_of", None) for bound in _metadata(self.annotation)]
        return next((n for n in found if isinstance(n, int | float) and n > 0), None)

    @property
    def max_length(self) -> int | None:
        """The longest text or list that is taken, or ``None``."""
        found = [getattr(b, "max_length", None) for b in _metadata(self.annotation)]
        lengths = [n for n in found if n is not None]
        return min(lengths) if lengths else None

    def typed(self, value: Any) -> Constraint:
        """This constraint, with the type of `value` where that says what its parts are.

        So for members of an `Enum`, pydantic models, and dataclasses that pydantic understands.
        """
        kind = type(value)
        structured = isinstance(value, enum.Enum) or hasattr(kind, "model_fields")
        if self.annotation is not None or not (structured or is_dataclass(value)):
            return self
        twin = copy.copy(self)
        twin.annotation = kind
        try:
            return twin if twin.choices is not None or twin._types() else self
        except Exception:  # a type that pydantic cannot describe stays without one
            return self

    def kind(self, value: Any) -> Kind | None:
        """The kind of a parameter that holds `value` under this constraint."""
        if self.choices is not None:
            return KINDS["choice"]
        return kind_of(value) or (KINDS["json"] if self.annotation is not None else None)

    def read(self, raw: Any) -> Any:
        """The typed value that a piece of JSON means; `raw` itself where nothing says its type.

        Raises:
            ValueError: it is no value of the annotated type; the message says why.
        """
        if self.annotation is None:
            return raw
        from pydantic import ValidationError

        choices = self.choices
        if choices is not None:
            return next((c for c in choices if _meant(c, raw)), raw)
        try:
            return self._types().validate_json(json.dumps(raw), strict=True)
        except ValidationError as error:
            raise ValueError(_lines(error, raw)) from error
        except (TypeError, ValueError):
            return raw

    def following(self, parameter: Any) -> Constraint:
        """The same for a copy of a parameter: conditions that look at its value look at the copy's."""
        told = [getattr(predicate, "following", None) for predicate in self._predicates]
        if not any(told):
            return self
        twin = copy.copy(self)
        twin._predicates = tuple(
            predicate if follow is None else follow(parameter)
            for predicate, follow in zip(self._predicates, told, strict=True)
        )
        return twin

    def fault(self, value: Any) -> str | None:
        """Why `value` is not taken, or ``None`` when it is."""
        if self.annotation is not None:
            problem = self._type_fault(value)
            if problem is not None:
                return problem
        for pattern in self.patterns:
            if not isinstance(value, str) or pattern.fullmatch(value) is None:
                return f"must match the pattern {pattern.pattern!r}, got {show(value, 120)}"
        for predicate in self._predicates:
            problem = _refusal(predicate, value)
            if problem is not None:
                return problem
        return None

    def schema(self) -> Mapping[str, Any] | None:
        """The JSON schema of the values, or ``None`` where there is no annotation."""
        if self.annotation is None:
            return None
        from pydantic import PydanticUserError

        try:
            schema = self._types().json_schema()
        except PydanticUserError:
            return None
        return typing.cast("Mapping[str, Any]", schema)

    def describe(self) -> str:
        """The constraint in words, for a person and a model."""
        said = []
        choices = self.choices
        if choices is not None:
            said.append("one of " + ", ".join(_plain(c) for c in choices))
        elif self.annotation is not None:
            schema = dict(self.schema() or {})
            said.append(json.dumps(schema, sort_keys=True) if schema else str(self.annotation))
        said += [f"matches the regular expression {p.pattern}" for p in self.patterns]
        said += [_said(p) for p in self._predicates]
        said += self.sentences
        return "; ".join(part for part in said if part)

    def _types(self) -> Any:
        if self._adapter is None:
            from pydantic import TypeAdapter  # costs 70 ms: only parameters with a type pay

            self._adapter = TypeAdapter(self.annotation)
        return self._adapter

    def _type_fault(self, value: Any) -> str | None:
        from pydantic import ValidationError

        choices = self.choices
        if choices is not None and not any(_same_choice(c, value) for c in choices):
            return f"Input should be {_alternatives(choices)}, got {show(value, 120)}"
        try:
            taken = self._types().validate_python(value, strict=True)
        except ValidationError as error:
            return _lines(error, value)
        if not _unchanged(taken, value):
            return f"Input should be like {show(taken, 120)}, got {show(value, 120)}"
        return None


def _flat(parts: tuple[Any, ...]) -> list[Any]:
    flat: list[Any] = []
    for part in parts:
        if isinstance(part, (list, tuple)):
            flat += _flat(tuple(part))
        elif part is not None:
            flat.append(part)
    return flat


def _is_annotation(part: Any) -> bool:
    return isinstance(part, type) or get_origin(part) is not None or part is Any


def _bare(annotation: Any) -> Any:
    while get_origin(annotation) is typing.Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def _metadata(annotation: Any) -> list[Any]:
    found = []
    while get_origin(annotation) is typing.Annotated:
        annotation, *extra = get_args(annotation)
        for item in extra:
            found += [item, *getattr(item, "metadata", ())]
    return found


def _unchanged(taken: Any, value: Any) -> bool:
    """Whether pydantic took `value` as it is: a dict is no model, though it could become one."""
    if not isinstance(value, type(taken)):
        return type(taken) is float and type(value) is int
    try:
        return bool(taken == value) or show(taken) == show(value)
    except Exception:  # values that cannot be compared are taken as they are
        return True


def _alternatives(choices: tuple[Any, ...]) -> str:
    *most, last = [_plain(c) for c in choices]
    return f"{', '.join(most)} or {last}" if most else last


def _meant(choice: Any, raw: Any) -> bool:
    """Whether a piece of JSON means `choice`: a member goes by its name or by its value."""
    if isinstance(choice, enum.Enum) and not isinstance(raw, enum.Enum):
        return raw in (choice.name, choice.value) and not isinstance(raw, bool)
    return _same_choice(choice, raw)


def _same_choice(choice: Any, raw: Any) -> bool:
    return type(choice) is type(raw) and bool(choice == raw)


def _plain(choice: Any) -> str:
    return choice.name if isinstance(choice, enum.Enum) else repr(choice)


def _refusal(predicate: Callable[[Any], Any], value: Any) -> str | None:
    try:
        accepted = predicate(value)
    except BadSource as error:  # it names the line and shows the code itself
        return str(error)
    except Exception as error:  # a predicate may say no by raising, with the reason
        return f"{_name(predicate)} refused {show(value, 120)}: {error}"
    if accepted or accepted is None:
        return None
    said = _said(predicate)
    if isinstance(value, str) and value.count("\n") > _FEW_LINES:  # is read by its lines
        return f"{said.rstrip('.')}, got\n{numbered(value)}"
    return f"{said}, got {show(value, 120)}"


def _name(predicate: Callable[[Any], Any]) -> str:
    return str(getattr(predicate, "__name__", type(predicate).__name__))


def _said(predicate: Callable[[Any], Any]) -> str:
    describe = getattr(predicate, "describe", None)
    if describe is not None:
        return str(describe())
    doc = (getattr(predicate, "__doc__", None) or "").strip().splitlines()
    return doc[0] if doc else f"must pass the check {_name(predicate)!r}"


def _lines(error: Any, value: Any) -> str:
    return "; ".join(_line(e, value) for e in error.errors(include_url=False)[:3])


def _line(error: Any, value: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    return (
        f"{where + ': ' if where else ''}{error['msg']}, got {show(error.get('input', value), 120)}"
    )
