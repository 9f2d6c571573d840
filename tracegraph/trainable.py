"""Functions, classes and modules whose text is a parameter, with what new texts must pass."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterable
from typing import Any

from tracegraph.codechecks import CodeCheck, PassesTests
from tracegraph.constraint import Constraint
from tracegraph.definitions import ClassSource, ModuleSource
from tracegraph.errors import ParameterError
from tracegraph.hosting import hosted
from tracegraph.isolation import apart, many
from tracegraph.kinds import KINDS, show
from tracegraph.operators import Operation
from tracegraph.parameter import Parameter
from tracegraph.profiling import way_of
from tracegraph.recorded import Bundle, Way, operation_of
from tracegraph.source import BadSource, Source
from tracegraph.speed import Faster, IsFaster
from tracegraph.whole import ClassCode, Place, Program

__all__ = ["trainable_class", "trainable_function", "trainable_module"]

Marker = Callable[[Any], bool]
"""Whether a decorator is the one that made something trainable: its text begins below it."""


def trainable_function(
    target: Any,
    operation: Operation,
    is_marker: Marker,
    constraint: Any,
    checks: Iterable[Callable[..., Any]],
    way: Way,
) -> Bundle[Any, Any]:
    """The bundle of `target`, its text a parameter."""
    try:
        source = Source.of(target, is_marker)
    except BadSource as error:
        raise ParameterError(str(error)) from error

    def made(text: str) -> Callable[..., Any]:
        new = source.replaced(text)
        if way.trust:
            return new.compile(target)
        return apart(text, new.entry, target, way.sandbox, way.host)

    listed = _listed(checks)
    tests = [check for check in listed if not isinstance(check, Faster)]
    timed = [
        IsFaster(check, functools.partial(_round, source, target, way, check.calls), source.text)
        for check in listed
        if isinstance(check, Faster)
    ]
    if timed and all(isinstance(check, CodeCheck) for check in tests):
        raise TypeError("Faster needs a test beside it in checks=: fast and wrong is easy")
    if timed and way_of(target) != "value":
        raise TypeError(f"Faster times plain functions, and {source.entry!r} is none")
    conditions = [constraint, *_conditions(tests, source.text, made), *timed]
    kept = f"defines exactly `{source.header}`"
    parameter = _code_parameter(source, kept, conditions, operation.doc)
    for check in timed:
        check.follow(parameter)
    return Bundle(target, operation, parameter=parameter, source=source, way=way)


def _round(
    source: Source, target: Any, way: Way, calls: tuple[tuple[Any, ...], ...], text: str
) -> Callable[[], object]:
    """What runs all `calls` of the function of a text once, where the text would run."""
    new = source.replaced(text)
    if way.trust:
        function = new.compile(target)
        return lambda: [function(*call) for call in calls]
    return functools.partial(many(text, new.entry, target, way.sandbox, way.host), calls)


def trainable_class(
    target: type,
    said: str,
    is_marker: Marker,
    constraint: Any,
    checks: Any,
    rules: Any,
    way: Way,
) -> type:
    """`target` itself, its public methods recorded, its text one parameter."""
    bundled = [n for n, m in vars(target).items() if isinstance(getattr(m, "__func__", m), Bundle)]
    if bundled:
        raise ParameterError(
            f"{target.__name__}.{bundled[0]} is a bundle already; a trainable class records its public "
            "methods itself, so leave the decorator out"
        )
    if "parameter" in vars(target):
        raise ParameterError(
            f"{target.__name__}.parameter will be the code of the class; give the attribute of this "
            "name another"
        )
    try:
        source = ClassSource.of(target, is_marker)
    except BadSource as error:
        raise ParameterError(str(error)) from error
    code = ClassCode(target, source, Place(way.trust, way.sandbox, hosted(way.host), way.profile))
    conditions = [constraint, *_conditions(checks, source.text, code.to_test)]
    code.parameter = _code_parameter(source, source.describe(), conditions, said)
    code.install(_recorder(code.parameter, rules, way))
    target.parameter = code.parameter  # type: ignore[attr-defined]
    return target


def trainable_module(
    module: types.ModuleType,
    description: str | None,
    constraint: Any,
    checks: Any,
    rules: Any,
    way: Way,
) -> Program:
    """A stand-in for `module` whose functions are recorded, and whose text is one parameter."""
    try:
        source = ModuleSource.of(module)
    except BadSource as error:
        raise ParameterError(str(error)) from error
    program = Program(module, source, Place(way.trust, way.sandbox, hosted(way.host), way.profile))
    said = description or inspect.getdoc(module) or ""
    conditions = [constraint, *_conditions(checks, source.text, program.to_test)]
    program.parameter = _code_parameter(source, source.describe(), conditions, said)
    program.install(_recorder(program.parameter, rules, way))
    return program


def _recorder(parameter: Parameter[str], rules: Any, way: Way) -> Any:
    """Makes recorded operations of the functions whose common text is `parameter`."""

    def record(name: str, raw: Any, versions: Any, method: bool) -> Bundle[Any, Any]:
        operation = operation_of(raw, name, inspect.getdoc(raw) or "", rules)
        return Bundle(
            raw, operation, parameter=parameter, method=method, way=way, versions=versions
        )

    return record


def _code_parameter(
    source: Source | ClassSource | ModuleSource,
    kept: str,
    constraint: Any,
    description: str,
) -> Parameter[str]:
    def fits(text: str) -> bool:
        source.replaced(text)
        return True

    fits.__name__ = "the check of the code"  # as an error names it
    fits.__doc__ = kept
    made = Constraint(fits, constraint)
    return Parameter(
        source.text,
        name=source.entry,
        description=description or None,
        constraint=made,
        kind=KINDS["code"],
    )


def _conditions(checks: Any, first: str, made: Callable[[str], Any]) -> list[Any]:
    """The checks as parts of a constraint: those of the text first, then the tests together."""
    found = _listed(checks)
    if any(isinstance(check, Faster) for check in found):
        raise TypeError("Faster times plain functions, not classes and modules")
    tests = [check for check in found if not isinstance(check, CodeCheck)]
    texts: list[Any] = [check for check in found if isinstance(check, CodeCheck)]
    return texts + ([PassesTests(tests, made, first)] if tests else [])


def _listed(checks: Any) -> list[Any]:
    found = list(checks) if isinstance(checks, Iterable) and not isinstance(checks, str) else None
    if found is None or not all(callable(check) for check in found):
        raise TypeError(
            "checks= takes a list of checks of the text (AllowedImports, MaxSize, ...) and of tests, "
            f"functions that are given the function; got {show(checks, 80)}"
        )
    return found
