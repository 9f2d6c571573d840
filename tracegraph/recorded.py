"""A function whose calls are recorded: what `bundle` makes.

A call runs the function exactly once, with plain values, and is remembered as a node (`calling`). The
signature, name, documentation and exceptions stay the function's own. Where its text is a parameter,
the text in force runs.
"""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import types
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast

from tracegraph.bounded import make_room
from tracegraph.calling import Binding, Call
from tracegraph.cell import Value
from tracegraph.feedback import Gradient
from tracegraph.hosting import hosted
from tracegraph.node import Node, raise_failed
from tracegraph.operators import Operation
from tracegraph.parameter import Parameter
from tracegraph.recorder import current, enter_frame, leave
from tracegraph.stepping import awaited, mode_of
from tracegraph.warning import warn

if TYPE_CHECKING:
    from tracegraph.source import Source

__all__ = ["Bundle", "Way", "bundle_of", "operation_of", "text_of"]

_numbers = itertools.count()
P = ParamSpec("P")
R = TypeVar("R")

_MOST_COMPILED = 32


@dataclass(frozen=True, slots=True)
class Way:
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
        way: Way | None = None,
        versions: Callable[[Value], Callable[..., Any]] | None = None,
    ) -> None:
        self.operation = operation
        self.parameter = parameter
        self._way = way or Way()
        self.traceable = self._way.traceable
        self._function = function
        self._source = source
        self._versions = versions
        self._compiled: dict[Value, Callable[..., Any]] = {}
        if parameter is not None:
            self._compiled[parameter._own.now] = self._measured(function)
        self._sources: dict[Value, Source] = {}  # of what is compiled: a source knows its lines
        self._held: Node[Any] | None = None  # the code's leaf lives on, so that a call makes none
        self._method = method
        self._owner: type | None = None  # the class that it stands in, and what that calls it
        self._attribute = ""
        self._key = f"_bundle_{operation.name}_{next(_numbers)}"  # where an object holds its own
        self._binding = Binding(function)
        self._mode = mode_of(function)
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
        self._owner, self._attribute = owner, name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        shared = self.parameter is None or self._versions is not None or isinstance(instance, type)
        mine = self if shared else self._for(instance)
        return types.MethodType(mine, instance)

    def __deepcopy__(self, memo: dict[int, Any]) -> Bundle[P, R]:
        return self._twin(copy.deepcopy(self.parameter, memo))

    def _for(self, instance: Any) -> Bundle[P, R]:
        """The bundle of one object: every object owns the code of its methods.

        One that can neither hold it nor be weakly referred to shares that of its class. What a subclass
        overrides, and calls by ``super()``, is no method of the object: it stays the class's.
        """
        held = getattr(instance, "__dict__", None)
        if held is not None:
            mine = held.get(self._key)
            if mine is None:
                if self._is_overridden(type(instance)):
                    return self
                mine = held.setdefault(self._key, self._twin(copy.deepcopy(self.parameter)))
            return cast("Bundle[P, R]", mine)
        entry = self._kept.get(id(instance))
        if entry is None or entry[0]() is not instance:
            if self._is_overridden(type(instance)):
                return self
            forget = functools.partial(self._kept.pop, id(instance), None)
            try:
                known = weakref.ref(instance, lambda _: forget())
            except TypeError:  # nobody could tell when a tuple ends, or slots without __weakref__
                return self
            if entry is not None and self._kept.get(id(instance)) is entry:
                self._kept.pop(id(instance), None)  # of an object that is gone
            entry = self._kept.setdefault(
                id(instance), (known, self._twin(copy.deepcopy(self.parameter)))
            )
        return entry[1]

    def _is_overridden(self, kind: type) -> bool:
        """Whether objects of `kind` have another member of this name."""
        for owner in kind.__mro__:
            member = vars(owner).get(self._attribute)
            if member is not None:
                return member is not self
        return False

    def _within(self) -> str:
        """The name of what holds the text that this function is a part of; by default itself."""
        if self._versions is None:
            return ""
        name: str = inspect.unwrap(self._function).__qualname__
        return name.rpartition(".")[0]

    def _twin(self, parameter: Parameter[str] | None) -> Bundle[P, R]:
        twin: Bundle[P, R] = Bundle(
            self._function,
            self.operation,
            parameter=parameter,
            source=self._source,
            method=self._method,
            way=self._way,
            versions=self._versions,
        )
        twin._owner = self._owner
        if self.parameter is not None and parameter is not None:
            # a copy begins at version 0 with the text that was in force: not with that of the function
            now, copied = self.parameter._cell().now, parameter._own.now
            same = now.data == copied.data and now.trusted == copied.trusted
            known = self._compiled.get(now) if same else None
            twin._compiled = {} if known is None else {copied: known}
        return twin

    # Calling

    def __call__(self, /, *args: Any, **kwargs: Any) -> Node[R]:
        """Run the function once and give the node of the call."""
        if self._mode is not None:
            return self._mode(self, args, kwargs)  # type: ignore[no-any-return]
        call = Call(self, args, kwargs)
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
                return awaited(call, result)  # type: ignore[return-value]
            return call.finished(result)  # type: ignore[no-any-return]
        try:
            raise_failed(failure, call.failed(failure))
        finally:
            del failure

    def _now(self, value: Value) -> Callable[..., Any]:
        """The function to run for a value of the parameter: the one that was decorated, or its text."""
        known = self._compiled.get(value)
        if known is not None:
            return known
        make_room(self._compiled, _MOST_COMPILED)
        make_room(self._sources, _MOST_COMPILED)
        make = self._version if self._versions is None else self._versions
        function = make(value)
        if value.trusted:
            function = self._measured(function)
        else:
            self._warn_of_lost(value.data)
        return self._compiled.setdefault(value, function)  # another thread may have been faster

    def _warn_of_lost(self, text: str) -> None:
        """Say what a text that runs apart changes and would keep: it ends with each call."""
        # here: most programs have no such text
        from tracegraph.lasting import LostStateWarning, lost

        said = lost(text, inspect.unwrap(self._function))
        if said:
            warn(f"{cast('Parameter[str]', self.parameter).label}: {said}", LostStateWarning)

    def _measured(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, its lines measured where that was asked for."""
        if not self._way.profile:
            return function
        from tracegraph.profiling import in_place

        return in_place(function, self._within())

    def _version(self, value: Value) -> Callable[..., Any]:
        """The function that a version's text defines."""
        source = cast("Source", self._source)
        if value.data != source.text:
            source = source.replaced(value.data)
        self._source = source = self._sources.setdefault(value, source)
        if value.trusted:
            return source.compile(self._function, self._owner)
        from tracegraph import isolation, travel  # here: most programs run their own code alone

        host = hosted(self._way.host)
        run: Any = isolation.isolated
        if self._method or self._binding.skip:
            run = functools.partial(travel.method_apart, text_of=text_of)
        return run(  # type: ignore[no-any-return]
            source.text, source.entry, self._function, self._way.sandbox, host,
            profile=self._way.profile,
        )  # fmt: skip


def bundle_of(value: Any) -> Bundle[Any, Any] | None:
    """The bundle that `value` is, or that stands under other decorators (``__wrapped__``); or None."""
    seen: set[int] = set()
    while not isinstance(value, Bundle):
        seen.add(id(value))
        value = getattr(value, "__dict__", {}).get("__wrapped__")
        if value is None or isinstance(value, type) or id(value) in seen:
            return None
    return value


def text_of(instance: Any, method: Any) -> str | None:
    """The text in force of another method that goes along with one; the call has read it."""
    if not isinstance(method, Bundle) or method.parameter is None:
        return None
    mine = method if instance is None or method._versions is not None else method._for(instance)
    parameter = cast("Parameter[str]", mine.parameter)
    now, policy = parameter._cell().now, current()
    if policy is not None and policy.frame is not None:
        policy.frame.read(parameter._leaf(now))
    return str(now.data)


def operation_of(target: Any, label: str, said: str, rules: Any) -> Operation:
    """What a node remembers of a function `target`."""
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
        rules=rules,
        cuts=rules is not None and Gradient in rules,
        code=getattr(inspect.unwrap(raw), "__code__", None),
    )
