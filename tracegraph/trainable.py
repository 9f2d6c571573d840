"""Functions, classes and modules whose text is a parameter, with what new texts must pass."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterable
from typing import Any, cast

from tracegraph.calling import Binding
from tracegraph.codechecks import CodeCheck, PassesTests
from tracegraph.constraint import Constraint
from tracegraph.definitions import ClassSource, ModuleSource
from tracegraph.errors import ParameterError
from tracegraph.hosting import hosted
from tracegraph.isolation import apart, many
from tracegraph.kinds import KINDS, show
from tracegraph.marking import BadSource, refuse_unseen
from tracegraph.operators import Operation
from tracegraph.parameter import Parameter
from tracegraph.profiling import way_of
from tracegraph.recorded import Bundle, Way, operation_of, text_of
from tracegraph.source import Source
from tracegraph.speed import Faster, IsFaster
from tracegraph.travel import method_apart
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
        raise ParameterError(str(error)) from None

    def made(text: str) -> Callable[..., Any]:
        new = source.replaced(text)
        if way.trust:
            return new.compile(target)
        if Binding(target).skip:
            return method_apart(
                text, new.entry, target, way.sandbox, hosted(way.host), text_of=text_of
            )
        return apart(text, new.entry, target, way.sandbox, way.host)

    def calls_of(calls: tuple[tuple[Any, ...], ...], text: str) -> Callable[[], object]:
        if way.trust:
            function = made(text)
            return lambda: [function(*call) for call in calls]
        entry = source.replaced(text).entry
        return functools.partial(many(text, entry, target, way.sandbox, way.host), calls)

    plain = way_of(target) == "value" and not Binding(target).skip
    tests, timed = _conditions(checks, source.text, made, calls_of if plain else None)
    kept = f"defines exactly `{source.header}`" + (" and yields" if source.yields else "")
    parameter = _code_parameter(source, kept, [constraint, *tests], timed, operation.doc)
    return Bundle(target, operation, parameter=parameter, source=source, way=way)


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
        raise ParameterError(str(error)) from None
    code = ClassCode(target, source, Place(way.trust, way.sandbox, hosted(way.host), way.profile))
    tests, timed = _conditions(checks, source.text, code.to_test)
    kept = source.describe()
    code.parameter = _code_parameter(source, kept, [constraint, *tests], timed, said)
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
        raise ParameterError(str(error)) from None
    program = Program(module, source, Place(way.trust, way.sandbox, hosted(way.host), way.profile))
    said = description or inspect.getdoc(module) or ""
    tests, timed = _conditions(checks, source.text, program.to_test)
    kept = source.describe()
    program.parameter = _code_parameter(source, kept, [constraint, *tests], timed, said)
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
    conditions: list[Any],
    timed: list[IsFaster],
    description: str,
) -> Parameter[str]:
    def fits(text: str) -> bool:
        source.replaced(text)
        if text != source.text:
            refuse_unseen(text)
        return True

    fits.__name__ = "the check of the code"  # as an error names it
    fits.__doc__ = kept
    parameter = Parameter(
        source.text,
        name=source.entry,
        description=description or None,
        constraint=Constraint(fits, [*conditions, *timed]),
        kind=KINDS["code"],
    )
    for check in timed:
        check.follow(parameter)
    return parameter


Calls = Callable[[tuple[tuple[Any, ...], ...], str], Callable[[], object]]
"""What makes all calls of a text's function once: ``(calls, text)``."""


def _conditions(
    checks: Any, first: str, made: Callable[[str], Any], calls_of: Calls | None = None
) -> tuple[list[Any], list[IsFaster]]:
    """The checks as parts of a constraint: those of the text, then the tests together; then those of time."""
    found = _listed(checks)
    texts: list[Any] = [check for check in found if isinstance(check, CodeCheck)]
    timed = [check for check in found if isinstance(check, Faster)]
    tests = [check for check in found if not isinstance(check, (CodeCheck, Faster))]
    if timed and not tests:
        raise TypeError("Faster needs a test beside it in checks=: fast and wrong is easy")
    if calls_of is None and any(check.uses is None for check in timed):
        raise TypeError(
            "Faster((...), ...) calls plain functions; of methods, classes, modules and what is awaited or "
            "gone through it times a function that uses them: Faster(lambda it: it(...))"
        )

    def work(check: Faster, text: str) -> Callable[[], object]:
        if check.uses is None:
            return cast(Calls, calls_of)(check.calls, text)
        return functools.partial(check.uses, made(text))

    limits = [IsFaster(check, functools.partial(work, check), first) for check in timed]
    return texts + ([PassesTests(tests, made, first)] if tests else []), limits


def _listed(checks: Any) -> list[Any]:
    found = list(checks) if isinstance(checks, Iterable) and not isinstance(checks, str) else None
    if found is None or not all(callable(check) for check in found):
        raise TypeError(
            "checks= takes a list of checks of the text (AllowedImports, MaxSize, ...) and of tests, "
            f"functions that are given the function; got {show(checks, 80)}"
        )
    return found
