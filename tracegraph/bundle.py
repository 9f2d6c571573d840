"""Turn a function into one recorded operation.

A bundle runs its function exactly once per call, with plain values, and remembers the call as a
node. Its signature, name, documentation and exceptions stay what they were. With ``trainable=True``
its source text is a parameter too.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Awaitable, Callable, Iterable, Mapping
from keyword import iskeyword
from typing import Any, ParamSpec, TypeVar, overload

from tracegraph.errors import nearest
from tracegraph.kinds import show
from tracegraph.recorded import Bundle, Way, operation_of

__all__ = ["Bundle", "bundle"]

P = ParamSpec("P")
R = TypeVar("R")

_OP_NAME = r"\s*\[([^\]]+)\]\s*"


@overload
def bundle(function: Callable[P, Awaitable[R]], /) -> Bundle[P, Any]: ...
@overload
def bundle(function: Callable[P, R], /) -> Bundle[P, R]: ...
@overload
def bundle(
    function: str | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    trainable: bool = False,
    traceable: bool = False,
    constraint: Any = None,
    checks: Iterable[Callable[..., Any]] = (),
    rules: Mapping[type, Callable[..., Any]] | None = None,
    trust: bool = False,
    sandbox: Any = "isolated",
    host: Mapping[str, Callable[..., Any]] | None = None,
    profile: bool = False,
    catch_execution_error: bool = True,
    **former: Any,
) -> Callable[[Callable[P, R]], Bundle[P, R]]: ...


def bundle(
    function: Any = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    trainable: bool = False,
    traceable: bool = False,
    constraint: Any = None,
    checks: Iterable[Callable[..., Any]] = (),
    rules: Mapping[type, Callable[..., Any]] | None = None,
    trust: bool = False,
    sandbox: Any = "isolated",
    host: Mapping[str, Callable[..., Any]] | None = None,
    profile: bool = False,
    catch_execution_error: bool = True,
    **former: Any,
) -> Any:
    """Record every call of a function as one node.

    Works with and without parentheses, on functions, methods, async functions, generators, lambdas
    and partials. The function runs once per call, on plain values: nodes among its arguments, also
    inside lists, dicts, dataclasses and pydantic models, are inputs, and so are nodes that it reads
    without being given them. What it raises stays an instance of its type, see `failed_node`.

    With ``trainable=True`` a class stays a class: its text is one parameter (``Class.parameter``), and its
    public methods are recorded. ``bundle(module, trainable=True)`` gives a stand-in for a module whose
    text is one parameter, and whose public functions are recorded.

    Args:
        name: of the operation; by default the function's.
        description: what the operation does; by default its documentation.
        trainable: make the source text a parameter (`Bundle.parameter`).
        traceable: run the body on nodes and keep the graph inside (`Node.inner`); parameters used
            there receive feedback.
        constraint: what texts the code may have, see `Constraint`; for trainable bundles.
        checks: what new code must pass before it is taken: a `CodeCheck` of its text, or a test that
            is given the function, calls it, and raises or returns ``False`` to refuse it. The tests run
            here and the function where it would run: in the sandbox, unless ``trust=True``. With `Faster`
            code is taken only when it is faster, too.
        rules: how feedback goes from the result to the inputs, by feedback type:
            ``rule(node, feedback) -> {input name: feedback}``.
        trust: run code that an optimizer wrote in this process, without asking. By default it runs
            in the sandbox until `Parameter.trust`.
        sandbox: where code that is not trusted runs: ``"isolated"``, ``"bwrap"``, ``"wasm"``, ``"none"``,
            the limits as a `tracegraph.sandbox.Policy`, or a `Sandbox` of your own.
        host: functions of this process that such code may call, by name; they run here, and the
            nodes of their calls become inputs of the call that asked.
        profile: measure the lines of a trainable function: ``info["profile"]`` of the node has them,
            the failure of a call tells them, and optimizers read them. It slows calls down.
        catch_execution_error: ``False`` raises what the function raises, without recording it.

    Raises:
        ParameterError: the function cannot be trainable; the message says why.
        TypeError: an option is not known, or has no meaning for code that is not trainable.
        SandboxError: `sandbox` is no name of one, no limits, and no object that is one.

    >>> import tracegraph as tg
    >>> @tg.bundle
    ... def area(width, height):
    ...     return width * height
    >>> result = area(tg.node(3), 4)
    >>> result.data, result.op, list(result.inputs)
    (12, 'area', ['width', 'height'])
    """
    if isinstance(function, str):
        function, description = None, function
    options, rules = _options(former), _checked_rules(rules)
    name = name or options.get("name")
    for said, text in (("name", name), ("description", description)):
        if text is not None and not isinstance(text, str):
            raise TypeError(f"{said} must be text, got {show(text, 80)}")
    if not trainable:
        _refuse_idle(constraint=constraint, checks=checks, host=host, profile=profile)
    for said, switch in (("trust", trust), ("profile", profile)):
        if not isinstance(switch, bool):
            raise TypeError(f"{said}= is True or False, got {show(switch, 80)}")
    if host is not None and not (isinstance(host, Mapping) and all(map(callable, host.values()))):
        raise TypeError(f"host= maps names to functions, got {show(host, 80)}")
    for given in host or ():
        if not (isinstance(given, str) and given.isidentifier() and not iskeyword(given)):
            raise TypeError(f"host= maps names that code can call to functions, got {given!r}")
    _check_sandbox(sandbox)
    fine = callable(function) or _descriptor(function) or isinstance(function, types.ModuleType)
    if function is not None and not fine:
        raise TypeError(f"@bundle decorates a function, got {show(function, 80)}")

    def decorate(target: Callable[..., Any]) -> Any:
        return _bundled(
            target,
            name=name,
            description=description,
            trainable=trainable,
            constraint=constraint,
            checks=checks,
            rules=rules,
            way=Way(
                traceable or options.get("traceable", False),
                catch_execution_error,
                trust,
                sandbox,
                host,
                profile,
            ),
        )

    return decorate if function is None else decorate(function)


def _check_sandbox(sandbox: Any) -> None:
    if isinstance(sandbox, str) and sandbox == "isolated":
        return  # what most code has asks for no import
    from tracegraph.sandbox import Policy, runner

    if not isinstance(sandbox, Policy):
        runner.check(sandbox)


def _refuse_idle(**given: Any) -> None:
    """Refuse what has no meaning for code that stays as it is."""
    idle = [
        f"{name}="
        for name, value in given.items()
        if value is not None and value not in ((), [], False)
    ]
    if idle:
        raise TypeError(
            f"{' and '.join(idle)} {'is' if len(idle) == 1 else 'are'} for code that optimizers may "
            "change; add trainable=True or leave it out"
        )


_FORMER: dict[str, str] = {
    "_process_inputs": "traceable=True gives the body nodes",
    "projections": "constraint= says what the code may be",
}


_OPTIONS = (
    "name", "description", "trainable", "traceable", "constraint", "checks", "rules", "trust", "sandbox",
    "host", "profile", "catch_execution_error",
)  # fmt: skip


def _options(former: dict[str, Any]) -> dict[str, Any]:
    """Options of Microsoft Trace that mean the same here; the others are an error that names ours."""
    taken: dict[str, Any] = {}
    for key, value in former.items():
        if key == "traceable_code":
            taken["traceable"] = bool(value)
        elif key == "output_name":
            taken["name"] = value
        elif key in ("allow_external_dependencies", "overwrite_python_recursion"):
            continue  # always so here: what a call reads is recorded, and recursion is one node
        elif key in _FORMER:
            raise TypeError(f"bundle() has no option {key!r}: {_FORMER[key]}")
        else:
            near = nearest(key, _OPTIONS)
            instead = f"did you mean {near!r}?" if near else f"it has {', '.join(_OPTIONS)}"
            raise TypeError(f"bundle() has no option {key!r}; {instead}")
    return taken


def _descriptor(target: Any) -> bool:
    return isinstance(target, (staticmethod, classmethod))


def _bundled(
    target: Any,
    *,
    name: str | None,
    description: str | None,
    trainable: bool,
    constraint: Any,
    checks: Iterable[Callable[..., Any]],
    rules: Any,
    way: Way,
) -> Any:
    if _descriptor(target):
        inside = _bundled(
            target.__func__, name=name, description=description, trainable=trainable,
            constraint=constraint, checks=checks, rules=rules, way=way,
        )  # fmt: skip
        return type(target)(inside)
    if isinstance(target, Bundle):
        raise TypeError(f"{target!r} is a bundle already; decorate it once")
    if trainable:  # here: most functions are recorded as they are
        from tracegraph.trainable import trainable_class, trainable_function, trainable_module
    if isinstance(target, types.ModuleType):
        if not trainable:
            raise TypeError(f"bundle records functions; a module needs trainable=True: {target!r}")
        return trainable_module(target, description, constraint, checks, rules, way)
    raw = target
    while isinstance(raw, functools.partial):
        raw = raw.func
    said = description or inspect.getdoc(raw) or ""
    named_op = re.match(_OP_NAME, said) if description else None
    if named_op:
        name, said = name or named_op[1], said[named_op.end() :]
    label = str(name or getattr(raw, "__name__", type(raw).__name__))
    operation = operation_of(target, label, said, rules)
    if not trainable:
        return Bundle(target, operation, way=way)
    if isinstance(target, type):
        return trainable_class(target, said, _is_bundle, constraint, checks, rules, way)
    return trainable_function(target, operation, _is_bundle, constraint, checks, way)


def _is_bundle(found: Any) -> bool:
    return found is bundle


def _checked_rules(rules: Any) -> Any:
    if rules is None:
        return None
    if not isinstance(rules, Mapping) or not all(
        isinstance(kind, type) and callable(rule) for kind, rule in rules.items()
    ):
        raise TypeError(
            f"rules= maps a feedback type to a function (node, feedback) -> {{input: feedback}}, got "
            f"{show(rules, 80)}"
        )
    return dict(rules)
