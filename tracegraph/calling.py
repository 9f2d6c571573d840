"""One call of a bundle, from its arguments to its node.

Top to bottom: the arguments become plain values and named inputs, the text in force is found, the caller
runs it, and the result or the failure is recorded.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, cast

from tracegraph.errors import ParameterError
from tracegraph.failure import failed_node, innermost, original
from tracegraph.kinds import ATOMS, show
from tracegraph.lifting import cut, is_cut
from tracegraph.lowering import lower
from tracegraph.node import Node, distinct, failed, leaf, next_id, raise_failed, record
from tracegraph.recorder import Frame, current
from tracegraph.variables import variables

if TYPE_CHECKING:
    from tracegraph.cell import Value
    from tracegraph.recorded import Bundle

__all__ = ["Binding", "Call"]

_CODE = "__code"


class Binding:
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
        """What the argument at a position is called."""
        if position < len(self.names):
            return self.names[position]
        return f"{self.variadic}_{position - len(self.names)}"


def _holds_node(value: Any) -> bool:
    nodes: list[Node[Any]] = []
    lower(value, "", nodes, [])
    return bool(nodes)


class Call:
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
            now = cell.now
            known = bundle._compiled.get(now)
            if known is None:
                if bundle._way.trust:
                    now = cell.trust()
                known = self._loaded(now)
            self.function = known
            held = bundle._held
            if held is None or now.leaf is None or now.leaf() is not held:
                held = bundle._held = parameter._leaf(now)
            self.inputs.append(held)
            self.names.append(_CODE)
        if self.opaque:
            for found in self.inputs:
                if found._extra is None or "argument" not in found._extra:
                    cast(Frame, outer).read(found)

    def _loaded(self, now: Value) -> Callable[..., Any]:
        """What runs; code that fails when it is loaded fails as a call does."""
        try:
            return self.bundle._now(now)
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
        # in a traceable call an operation inside has raised in the place of `first`
        through = error if self.frame.traceable else first
        if self.bundle.trainable:
            code = innermost(through, code, self.bundle._within())
        return failed(
            self.bundle.operation,
            () if quiet else distinct(self.names),
            () if quiet else tuple(self.inputs),
            first,
            code,
            self.extra,
            self._told(through, code),
            through,
        )

    def _told(self, error: Exception, code: Any) -> str:
        """What stands below the marked line of a trainable function that failed."""
        if not self.bundle.trainable:
            return ""
        profile = (self.extra or {}).get("profile")
        lines = "" if profile is None else profile.text()
        return "\n".join(filter(None, [variables(error, code), lines]))

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
