"""Turn a function into one recorded operation.

A bundle runs its function exactly once per call, with plain values, and remembers the call as a
node. Its signature, name, documentation and exceptions stay what they were. With ``trainable=True``
its source text is a parameter too.
"""

from __future__ import annotations

import copy
import difflib
import functools
import inspect
import re
import types
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextvars import Token
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar, cast, overload

from tracegraph.codechecks import CodeCheck, PassesTests
from tracegraph.constraint import Constraint
from tracegraph.definitions import ClassSource, ModuleSource
from tracegraph.errors import ParameterError
from tracegraph.failure import failed_node, innermost, original
from tracegraph.feedback import Gradient
from tracegraph.isolation import apart, isolated, many
from tracegraph.kinds import ATOMS, KINDS, show
from tracegraph.lifting import cut, is_cut
from tracegraph.node import Node, distinct, failed, leaf, lower, next_id, raise_failed, record
from tracegraph.operators import Operation
from tracegraph.parameter import Cell, Parameter
from tracegraph.profiling import in_place, told, way_of
from tracegraph.recorder import Frame, Policy, beside, current, enter_frame, leave
from tracegraph.source import BadSource, Source
from tracegraph.speed import Faster, IsFaster
from tracegraph.travel import method_apart
from tracegraph.variables import variables
from tracegraph.whole import ClassCode, Place, Program

__all__ = ["Bundle", "bundle"]

P = ParamSpec("P")
R = TypeVar("R")

_OP_NAME = re.compile(r"\s*\[([^\]]+)\]\s*")
_CODE = "__code"
_MOST_COMPILED = 32


@dataclass(frozen=True, slots=True)
class _Way:
    """How the function runs: what `bundle` was told beside the function."""

    traceable: bool = False
    catch: bool = True
    trust: bool = False
    sandbox: Any = "isolated"
    host: Mapping[str, Callable[..., Any]] | None = None
    profile: bool = False


class Bundle(Generic[P, R]):
    """A function whose calls are recorded; made by `bundle`.

    Attributes:
        parameter: the source text as a parameter, for a trainable bundle.
        operation: what a node remembers of the function.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        operation: Operation,
        *,
        parameter: Parameter[str] | None = None,
        source: Source | None = None,
        method: bool = False,
        way: _Way | None = None,
        versions: Callable[[Cell], Callable[..., Any]] | None = None,
    ) -> None:
        self.operation = operation
        self.parameter = parameter
        self._way = way or _Way()
        self.traceable = self._way.traceable
        self._function = function
        self._source = source
        self._versions = versions
        self._compiled: dict[tuple[int, bool], Callable[..., Any]] = {
            (0, True): self._measured(function)
        }
        self._sources: list[Source] = []  # of what is compiled: a source knows its lines
        self._held: Node[Any] | None = None  # the code's leaf lives on, so that a call makes none
        self._method = method
        self._binding = _Binding(function)
        self._mode = _mode(function)
        self._kept: dict[int, tuple[weakref.ref[Any], Bundle[P, R]]] = {}
        functools.update_wrapper(self, function)

    # A function like the one it wraps

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function)

    @property
    def __code__(self) -> Any:
        return getattr(inspect.unwrap(self._function), "__code__", None)

    @property
    def __defaults__(self) -> Any:
        return getattr(inspect.unwrap(self._function), "__defaults__", None)

    @property
    def __kwdefaults__(self) -> Any:
        return getattr(inspect.unwrap(self._function), "__kwdefaults__", None)

    @property
    def name(self) -> str:
        """The name of the operation."""
        return self.operation.name

    @property
    def trainable(self) -> bool:
        """Whether the source text is a parameter."""
        return self.parameter is not None

    def parameters(self) -> list[Parameter[Any]]:
        """The source text, for a trainable bundle; else nothing."""
        return [] if self.parameter is None else [self.parameter]

    def __repr__(self) -> str:
        return f"<{'trainable ' if self.trainable else ''}bundle {self.operation.name}>"

    def __set_name__(self, owner: type, name: str) -> None:
        self._method = True

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        shared = self.parameter is None or self._versions is not None or isinstance(instance, type)
        mine = self if shared else self._for(instance)
        return types.MethodType(mine, instance)

    def __deepcopy__(self, memo: dict[int, Any]) -> Bundle[P, R]:
        return self._twin(copy.deepcopy(self.parameter, memo))

    def _for(self, instance: Any) -> Bundle[P, R]:
        """The bundle of one object: every object owns the code of its methods."""
        held = getattr(instance, "__dict__", None)
        key = f"_bundle_{getattr(self, '__name__', self.name)}"
        if held is not None:
            mine = held.get(key)
            if mine is None:
                mine = self._twin(copy.deepcopy(self.parameter))
                held[key] = mine
            return cast("Bundle[P, R]", mine)
        entry = self._kept.get(id(instance))
        if entry is None or entry[0]() is not instance:
            forget = functools.partial(self._kept.pop, id(instance), None)
            entry = (
                weakref.ref(instance, lambda _: forget()),
                self._twin(copy.deepcopy(self.parameter)),
            )
            self._kept[id(instance)] = entry
        return entry[1]

    def _within(self) -> str:
        """The name of what holds the text that this function is a part of; by default itself."""
        if self._versions is None:
            return ""
        name: str = inspect.unwrap(self._function).__qualname__
        return name.rpartition(".")[0]

    def _twin(self, parameter: Parameter[str] | None) -> Bundle[P, R]:
        return Bundle(
            self._function,
            self.operation,
            parameter=parameter,
            source=self._source,
            method=self._method,
            way=self._way,
            versions=self._versions,
        )

    # Calling

    def __call__(self, /, *args: Any, **kwargs: Any) -> Node[R]:
        """Run the function once and give the node of the call."""
        if self._mode is not None:
            return self._mode(self, args, kwargs)  # type: ignore[no-any-return]
        call = _Call(self, args, kwargs)
        failure = None
        token = enter_frame(call.frame)
        try:
            result = call.plain(call.function(*call.args, **call.kwargs))
        except Exception as error:
            failure = error
        finally:
            leave(token)
        if failure is None:
            if type(result) is types.CoroutineType:
                return _awaited(call, result)  # type: ignore[return-value]
            return call.finished(result)  # type: ignore[no-any-return]
        try:
            raise_failed(failure, call.failed(failure))
        finally:
            del failure

    def _now(self, cell: Cell) -> Callable[..., Any]:
        """The function to run: the one that was decorated, or the current text of it."""
        if self._way.trust:
            cell.trusted = True
        trusted = cell.trusted
        known = self._compiled.get((cell.version, trusted))
        if known is not None:
            return known
        if len(self._compiled) >= _MOST_COMPILED:
            self._compiled, self._sources = {}, []
        make = self._version if self._versions is None else self._versions
        function = make(cell)
        if trusted:
            function = self._measured(function)
        self._compiled[cell.version, trusted] = function
        return function

    def _measured(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, its lines measured where that was asked for."""
        return in_place(function, self._within()) if self._way.profile else function

    def _version(self, cell: Cell) -> Callable[..., Any]:
        """The function that a version's text defines."""
        source = cast(Source, self._source)
        if cell.data != source.text:
            source = source.replaced(cell.data)
        self._source = source
        self._sources.append(source)
        if cell.trusted:
            return source.compile(self._function)
        host = _host(self._way)
        run = method_apart if self._method or self._binding.skip else isolated
        return run(
            source.text, source.entry, self._function, self._way.sandbox, host,
            profile=self._way.profile,
        )  # fmt: skip


def _host(way: _Way) -> dict[str, Callable[..., Any]]:
    return {name: _bridged(function) for name, function in (way.host or {}).items()}


class _Binding:
    """How arguments become named inputs, worked out once at decoration."""

    __slots__ = ("defaults", "names", "skip", "variadic")

    def __init__(self, function: Callable[..., Any]) -> None:
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (ValueError, TypeError):  # some builtins have no signature
            parameters = []
        by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self.names = tuple(p.name for p in parameters if p.kind in by_position)
        self.variadic = next(
            (p.name for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL), "args"
        )
        owner = getattr(function, "__qualname__", "").rpartition(".")[0]
        in_class = bool(owner) and not owner.endswith("<locals>")
        self.skip = in_class and bool(self.names) and self.names[0] in ("self", "cls")
        self.defaults = {
            p.name: p.default
            for p in parameters
            if p.default is not p.empty and _holds_node(p.default)
        }

    def name(self, position: int) -> str:
        if position < len(self.names):
            return self.names[position]
        return f"{self.variadic}_{position - len(self.names)}"


def _holds_node(value: Any) -> bool:
    nodes: list[Node[Any]] = []
    lower(value, "", nodes, [])
    return bool(nodes)


class _Call:
    """One call of a bundle: its plain arguments, its inputs, and what to do with the result."""

    __slots__ = (
        "args", "bundle", "extra", "first", "frame", "function", "inputs", "kwargs", "names",
        "opaque", "policy",
    )  # fmt: skip

    def __init__(self, bundle: Bundle[Any, Any], args: Any, kwargs: Any) -> None:
        policy = current()
        outer = None if policy is None else policy.frame
        self.bundle = bundle
        self.policy = policy
        self.opaque = outer is not None and not outer.traceable
        self.extra: dict[str, Any] | None = None
        self.inputs: list[Node[Any]] = []
        self.names: Any = []
        traceable = bundle.traceable and not self.opaque
        self.first = next_id() if traceable else 0
        self.frame = Frame(outer, traceable, self.first)
        self.args, self.kwargs = self._bind(args, kwargs)
        if bundle.parameter is None:
            self.function = bundle._function
        else:
            parameter = bundle.parameter
            plain = policy is None or policy.cells is None
            cell = parameter._own if plain else parameter._cell()
            known = bundle._compiled.get((cell.version, cell.trusted))
            self.function = self._loaded(cell) if known is None else known
            held = bundle._held
            if held is None or cell.leaf is None or cell.leaf() is not held:
                held = bundle._held = parameter._leaf(cell)
            self.inputs.append(held)
            self.names.append(_CODE)
        if self.opaque:
            for found in self.inputs:
                if found._extra is None or "argument" not in found._extra:
                    cast(Frame, outer).read(found)

    def _loaded(self, cell: Cell) -> Callable[..., Any]:
        """What runs; code that fails when it is loaded fails as a call does."""
        try:
            return self.bundle._now(cell)
        except ParameterError:
            raise
        except Exception as error:
            return functools.partial(_fail, error)

    def _bind(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        binding = self.bundle._binding
        inputs = self.inputs
        names: list[str] = []
        values = []
        skip = binding.skip or self.bundle._method
        traced = self.frame.traceable
        missing = binding.defaults
        for position, arg in enumerate(args):
            if skip and position == 0 and not isinstance(arg, Node):
                values.append(arg)
                continue
            kind = type(arg)
            if kind is Node and not traced:
                inputs.append(arg)
                names.append(binding.name(position))
                values.append(arg._data)
            elif kind in ATOMS and not traced:
                if not self.opaque:
                    inputs.append(leaf(arg))
                    names.append(binding.name(position))
                values.append(arg)
            else:
                values.append(self._lowered(arg, binding.name(position), names))
        plain = {key: self._lowered(arg, key, names) for key, arg in kwargs.items()}
        if missing:
            for name, default in missing.items():
                position = binding.names.index(name) if name in binding.names else len(args)
                if name not in kwargs and position >= len(args):
                    plain[name] = self._lowered(default, name, names)
        self.names = names
        return values, plain

    def _lowered(self, arg: Any, name: str, names: list[str]) -> Any:
        inputs = self.inputs
        before = len(inputs)
        value = lower(arg, name, inputs, names)
        if len(inputs) == before:
            if not self.opaque:
                inputs.append(leaf(value))
                names.append(name)
        elif not isinstance(arg, Node):
            shown = (self.extra or {}).get("nested", {})
            self.extra = {**(self.extra or {}), "nested": {**shown, name: show(value, 200)}}
        if not self.frame.traceable:
            return value
        if isinstance(arg, Node) or len(inputs) == before + 1:
            return self._placeholder(inputs[-1], name)
        return arg

    def _placeholder(self, outer: Node[Any], name: str) -> Node[Any]:
        inner = leaf(outer._data)
        inner._extra = {**(inner._extra or {}), "name": name, "argument": outer}
        return inner

    def start(self) -> Any:
        """Make the coroutine or the generator; a wrong call fails at once."""
        try:
            return self.function(*self.args, **self.kwargs)
        except Exception as error:
            raise_failed(error, self.failed(error))

    # The end of the call

    def plain(self, result: Any) -> Any:
        """The result without nodes; those that are in it count as read."""
        if self.frame.traceable:
            return result
        if type(result) in ATOMS:
            return result
        found: list[Node[Any]] = []
        value = lower(result, "", found, [])
        for node in found:
            self.frame.read(node)
        return value

    def finished(self, result: Any) -> Any:
        """The node of the call; inside an opaque call the plain result."""
        inner = None
        if self.frame.traceable:
            found: list[Node[Any]] = []
            inner = result if isinstance(result, Node) else None
            result = lower(result, "", found, [])
            self._capture(_behind(found, self.frame))
        elif self.frame.captured:
            self._capture(self.frame.captured)
        if self.opaque:
            return result
        if self.policy is not None and not self.policy.active:
            return leaf(result)
        if inner is not None:
            self.extra = {**(self.extra or {}), "inner": inner}
        self._keep_facts()
        if is_cut(self.bundle.operation):
            result = cut(result, self.inputs)
        return record(
            self.bundle.operation, distinct(self.names), tuple(self.inputs), result, self.extra
        )

    def failed(self, error: Exception) -> Exception:
        """Record the failure; gives the exception that the caller shall see."""
        if self.opaque or not self.bundle._way.catch:
            return error
        if self.frame.traceable:
            inner = failed_node(error)
            self._capture(_behind([] if inner is None else [inner], self.frame))
            if inner is not None:
                self.extra = {**(self.extra or {}), "inner": inner}
        elif self.frame.captured:
            self._capture(self.frame.captured)
        self._keep_facts()
        quiet = self.policy is not None and not self.policy.active
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        first = original(error)
        if self.bundle.trainable:
            code = innermost(first, code, self.bundle._within())
        return failed(
            self.bundle.operation,
            () if quiet else distinct(self.names),
            () if quiet else tuple(self.inputs),
            first,
            code,
            self.extra,
            self._told(first, code),
        )

    def _told(self, error: Exception, code: Any) -> str:
        """What stands below the marked line of a trainable function that failed."""
        if not self.bundle.trainable:
            return ""
        return "\n".join(filter(None, [variables(error, code), told(self.extra)]))

    def _keep_facts(self) -> None:
        """Keep with the node what was said of the call while it ran."""
        if self.frame.facts is not None:
            self.extra = {**(self.extra or {}), **self.frame.facts}

    def _capture(self, captured: Mapping[int, Node[Any]]) -> None:
        known = {n.id for n in self.inputs}
        taken = set(self.names)
        names = []
        for number, found in sorted(captured.items()):
            if number in known:
                continue
            label = found.label
            while label in taken:
                label += "_"
            taken.add(label)
            names.append(label)
            self.inputs.append(found)
        if names:
            self.names = [*self.names, *names]
            self.extra = {**(self.extra or {}), "captured": tuple(names)}


def _bridged(function: Callable[..., Any]) -> Callable[..., Any]:
    """A host function for code that runs apart; what it records becomes an input of that call."""

    def ask(*args: Any, **kwargs: Any) -> Any:
        policy = current()
        frame = None if policy is None else policy.frame
        found: list[Node[Any]] = []
        try:
            with beside():
                return lower(function(*args, **kwargs), "", found, [])
        except Exception as error:
            refused = failed_node(error)
            found += [] if refused is None else [refused]
            raise
        finally:
            if frame is not None:
                for node in found:
                    frame.read(node)

    return ask


def _fail(error: Exception, /, *args: Any, **kwargs: Any) -> NoReturn:
    raise error


def _behind(outputs: list[Node[Any]], frame: Frame) -> dict[int, Node[Any]]:
    """The nodes from outside that an inner graph was made of, without its arguments."""
    todo = [*outputs, *(frame.captured or {}).values()]
    seen: set[int] = set()
    outside: dict[int, Node[Any]] = {}
    while todo:
        found = todo.pop()
        if found.id in seen:
            continue
        seen.add(found.id)
        if "argument" in (found._extra or {}):
            continue
        if found.id < frame.first_id or found.parameter is not None:
            outside[found.id] = found
        else:
            todo.extend(found._inputs)
    return outside


# Async functions and generators: the same call, opened and closed around each step


def _run_coroutine(self: Bundle[Any, Any], args: Any, kwargs: Any) -> Awaitable[Any]:
    call = _Call(self, args, kwargs)
    return _awaited(call, call.start())


def _awaited(call: _Call, source: Awaitable[Any]) -> Awaitable[Any]:
    """The node of the call, once `source` has given its result."""

    async def run() -> Any:
        token: Token[Policy | None] | None = enter_frame(call.frame)
        try:
            result = call.plain(await source)
        except Exception as error:
            leave(cast(Any, token))
            token = None
            raise_failed(error, call.failed(error))
        finally:
            if token is not None:
                leave(token)
        return call.finished(result)

    return run()


def _run_generator(self: Bundle[Any, Any], args: Any, kwargs: Any) -> Iterator[Any]:
    call = _Call(self, args, kwargs)
    source = call.start()

    def run() -> Iterator[Any]:
        step: Callable[[], Any] = functools.partial(next, source)
        try:
            while True:
                token: Token[Policy | None] | None = enter_frame(call.frame)
                try:
                    item = call.plain(step())
                except StopIteration as end:
                    return cast(None, end.value)  # whatever the generator returned
                except Exception as error:
                    leave(cast(Any, token))
                    token = None
                    raise_failed(error, call.failed(error))
                finally:
                    if token is not None:
                        leave(token)
                try:
                    sent = yield call.finished(item)
                except GeneratorExit:
                    raise
                except BaseException as thrown:
                    step = functools.partial(source.throw, thrown)
                else:
                    step = functools.partial(source.send, sent)
        finally:
            source.close()

    return run()


def _run_async_generator(self: Bundle[Any, Any], args: Any, kwargs: Any) -> AsyncIterator[Any]:
    call = _Call(self, args, kwargs)
    source = call.start()

    async def run() -> AsyncIterator[Any]:
        step: Callable[[], Awaitable[Any]] = functools.partial(anext, source)
        try:
            while True:
                token: Token[Policy | None] | None = enter_frame(call.frame)
                try:
                    item = call.plain(await step())
                except StopAsyncIteration:
                    return
                except Exception as error:
                    leave(cast(Any, token))
                    token = None
                    raise_failed(error, call.failed(error))
                finally:
                    if token is not None:
                        leave(token)
                try:
                    sent = yield call.finished(item)
                except GeneratorExit:
                    raise
                except BaseException as thrown:
                    step = functools.partial(source.athrow, thrown)
                else:
                    step = functools.partial(source.asend, sent)
        finally:
            await source.aclose()

    return run()


def _mode(function: Callable[..., Any]) -> Callable[..., Any] | None:
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    if inspect.iscoroutinefunction(inner):
        return _run_coroutine
    if inspect.isasyncgenfunction(inner):
        return _run_async_generator
    if inspect.isgeneratorfunction(inner):
        return _run_generator
    return None


# The decorator


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
    options = _options(former)
    if profile and not trainable:
        raise TypeError("profile=True measures the lines of trainable code; add trainable=True")
    fine = callable(function) or _descriptor(function) or isinstance(function, types.ModuleType)
    if function is not None and not fine:
        raise TypeError(f"@bundle decorates a function, got {show(function, 80)}")

    def decorate(target: Callable[..., Any]) -> Any:
        return _bundled(
            target,
            name=name or options.get("name"),
            description=description,
            trainable=trainable,
            constraint=constraint,
            checks=checks,
            rules=rules,
            way=_Way(
                traceable or options.get("traceable", False),
                catch_execution_error,
                trust,
                sandbox,
                host,
                profile,
            ),
        )

    return decorate if function is None else decorate(function)


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
            near = difflib.get_close_matches(key, _OPTIONS, 1)
            raise TypeError(
                f"bundle() has no option {key!r}"
                + (f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(_OPTIONS)}")
            )
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
    way: _Way,
) -> Any:
    if _descriptor(target):
        inside = _bundled(
            target.__func__, name=name, description=description, trainable=trainable,
            constraint=constraint, checks=checks, rules=rules, way=way,
        )  # fmt: skip
        return type(target)(inside)
    if isinstance(target, Bundle):
        raise TypeError(f"{target!r} is a bundle already; decorate it once")
    if isinstance(target, types.ModuleType):
        if not trainable:
            raise TypeError(f"bundle records functions; a module needs trainable=True: {target!r}")
        return _trainable_module(target, description, constraint, checks, rules, way)
    raw = target
    while isinstance(raw, functools.partial):
        raw = raw.func
    said = description or inspect.getdoc(raw) or ""
    named_op = _OP_NAME.match(said) if description else None
    if named_op:
        name, said = name or named_op[1], said[named_op.end() :]
    label = str(name or getattr(raw, "__name__", type(raw).__name__))
    operation = _operation(target, label, said, rules)
    if not trainable:
        return Bundle(target, operation, way=way)
    if isinstance(target, type):
        return _trainable_class(target, said, constraint, checks, rules, way)
    try:
        source = Source.of(target, lambda found: found is bundle)
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
    parameter = _code_parameter(source, kept, conditions, said)
    for check in timed:
        check.follow(parameter)
    return Bundle(target, operation, parameter=parameter, source=source, way=way)


def _round(
    source: Source, target: Any, way: _Way, calls: tuple[tuple[Any, ...], ...], text: str
) -> Callable[[], object]:
    """What runs all `calls` of the function of a text once, where the text would run."""
    new = source.replaced(text)
    if way.trust:
        function = new.compile(target)
        return lambda: [function(*call) for call in calls]
    return functools.partial(many(text, new.entry, target, way.sandbox, way.host), calls)


def _trainable_class(
    target: type, said: str, constraint: Any, checks: Any, rules: Any, way: _Way
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
        source = ClassSource.of(target, lambda found: found is bundle)
    except BadSource as error:
        raise ParameterError(str(error)) from error
    code = ClassCode(target, source, Place(way.trust, way.sandbox, _host(way), way.profile))
    conditions = [constraint, *_conditions(checks, source.text, code.to_test)]
    code.parameter = _code_parameter(source, source.describe(), conditions, said)
    code.install(_recorder(code.parameter, rules, way))
    target.parameter = code.parameter  # type: ignore[attr-defined]
    return target


def _trainable_module(
    module: types.ModuleType,
    description: str | None,
    constraint: Any,
    checks: Any,
    rules: Any,
    way: _Way,
) -> Program:
    """A stand-in for `module` whose functions are recorded, and whose text is one parameter."""
    try:
        source = ModuleSource.of(module)
    except BadSource as error:
        raise ParameterError(str(error)) from error
    program = Program(module, source, Place(way.trust, way.sandbox, _host(way), way.profile))
    said = description or inspect.getdoc(module) or ""
    conditions = [constraint, *_conditions(checks, source.text, program.to_test)]
    program.parameter = _code_parameter(source, source.describe(), conditions, said)
    program.install(_recorder(program.parameter, rules, way))
    return program


def _recorder(parameter: Parameter[str], rules: Any, way: _Way) -> Any:
    """Makes recorded operations of the functions whose common text is `parameter`."""

    def record(name: str, raw: Any, versions: Any, method: bool) -> Bundle[Any, Any]:
        operation = _operation(raw, name, inspect.getdoc(raw) or "", rules)
        return Bundle(
            raw, operation, parameter=parameter, method=method, way=way, versions=versions
        )

    return record


def _operation(target: Any, label: str, said: str, rules: Any) -> Operation:
    raw = target
    while isinstance(raw, functools.partial):
        raw = raw.func
    try:
        signature = f"{label}{inspect.signature(target)}"
    except (ValueError, TypeError):
        signature = f"{label}(...)"
    return Operation(
        "lambda" if label == "<lambda>" else label,
        target,
        doc=said,
        signature=signature.replace("<lambda>", "lambda"),
        rules=_checked_rules(rules),
        cuts=rules is not None and Gradient in rules,
        code=getattr(inspect.unwrap(raw), "__code__", None),
    )


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
