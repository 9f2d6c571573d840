"""One value and how it was made.

A node holds its value, the operation that made it and that operation's inputs: nothing else. No
node knows its users, so dropping an output frees its graph. Ids come from one counter: an input's
id is smaller than its user's, and sorting by id is a topological order.

A node behaves like its value. Operators, indexing, iteration and methods record an operation;
``bool``, ``len``, ``in``, ``==`` and ``hash`` answer plainly.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

from tracegraph import operators
from tracegraph.failure import Failure, joined
from tracegraph.kinds import ATOMS, is_tensor, preview, show
from tracegraph.lifting import CUT, can_lift, cut, lift, lift_beside
from tracegraph.lowering import Holder, lower, unwrap
from tracegraph.operators import Operation, changes, copied, named
from tracegraph.recorder import Frame, Policy, current

if TYPE_CHECKING:
    from tracegraph.parameter import Parameter

__all__ = [
    "Node",
    "apply",
    "described",
    "distinct",
    "failed",
    "leaf",
    "lower",
    "next_id",
    "raise_failed",
    "record",
    "unwrap",
]

T = TypeVar("T")

_ids = itertools.count(1)
next_id: Callable[[], int] = _ids.__next__
"""A fresh id, larger than every id before."""

_HOLD_NO_NODES = frozenset({"builtins", "numpy", "torch", "torch.nn.parameter"})
"""Where types come from whose methods give no nodes: their results are not searched."""
_MUTABLE = frozenset({list, dict, set, bytearray})
_ELSEWHERE = {
    "children": "a node does not know its users; ask Graph.of(outputs).users(node)",
    "_set": "a node does not change; a Parameter takes a new value by .assign(value)",
    "level": "ids order the graph: an input's id is smaller than its user's",
    "parameter_dependencies": "ask Graph.of([node]).parameters",
    "zero_feedback": "feedback is kept by parameters; call optimizer.zero_feedback()",
    "feedback": "it is kept by parameters: parameter.feedback",
    "expandable_dependencies": "ask Graph.of([node]).nodes; .inner of one is its inner graph's output",
    "hidden_dependencies": "ask Graph.of([node.inner]).parameters",
}
_FORMER: dict[str, Callable[..., Any]] = {
    "eq": lambda node, other: apply(operators.FUNCTIONS["eq"], (node, other)),
    "neq": lambda node, other: apply(operators.FUNCTIONS["ne"], (node, other)),
    "len": lambda node: apply(operators.FUNCTIONS["len_"], (node,)),
    "getattr": lambda node, name: node.__getattr__(name),
    "call": lambda node, name, /, *args, **kwargs: node.__getattr__(name)(*args, **kwargs),
}
"""Methods that every node of Microsoft Trace has; a method of the value comes first."""


class Node(Holder, Generic[T]):
    """One value of a trace, and how it was made; make one with `node`.

    Attributes:
        id: grows along the graph; unique in the process.

    >>> import tracegraph as tg
    >>> x = tg.node(2, name="x")
    >>> y = x * 3 + 1
    >>> y.data, y.op, [n.data for n in y.inputs.values()]
    (7, 'add', [6, 1])
    """

    __slots__ = ("__weakref__", "_data", "_extra", "_inputs", "_names", "_operation", "id")
    __pandas_priority__ = 10_000  # ``frame * node`` asks the node, not each of its items

    _data: T
    _extra: dict[str, Any] | None
    _inputs: tuple[Node[Any], ...]
    _names: tuple[str, ...]
    _operation: Operation | None
    id: int

    def __init__(self, value: T, *, name: str | None = None, description: str | None = None):
        self._data = value
        self._operation = None
        self._inputs = ()
        self._names = ()
        self._extra = described(name, description)
        self.id = next_id()
        _keep_preview(self, value)

    # What a node is

    @property
    def data(self) -> T:
        """The value. Inside a call of a bundle, reading it makes this node an input of the call."""
        policy = current()
        if policy is None or policy.frame is None:
            return self._data
        found = self._leaf()
        policy.frame.read(found)
        return found._data

    @data.setter
    def data(self, value: Any) -> NoReturn:
        raise AttributeError(
            f"{self.name} does not change by .data = ...: "
            + (
                "a parameter takes a new value by .assign(value), which checks it first"
                if self.parameter is not None
                else "a node is what a value was when it was recorded; make another by node(value)"
            )
        )

    @property
    def op(self) -> str | None:
        """The name of the operation that made this node; ``None`` for a leaf."""
        return None if self._operation is None else self._operation.name

    @property
    def operation(self) -> Operation | None:
        """The operation that made this node; ``None`` for a leaf."""
        return self._operation

    @property
    def inputs(self) -> Mapping[str, Node[Any]]:
        """The inputs by argument name, in order."""
        return dict(zip(self._names, self._inputs, strict=True))

    @property
    def parents(self) -> list[Node[Any]]:
        """The distinct inputs, in order."""
        return list({n.id: n for n in self._inputs}.values())

    @property
    def name(self) -> str:
        """A readable name, unique in the process: ``add:7``, ``prompt:1``."""
        return f"{self.label}:{self.id}"

    @property
    def py_name(self) -> str:
        """The name as a Python identifier, unique in the process."""
        text = "".join(c if f"_{c}".isidentifier() else "_" for c in self.label)
        return f"{text if text.isidentifier() else f'_{text}'}_{self.id}"

    @property
    def label(self) -> str:
        """The name without its id: as given, or the operation's, or the type's."""
        extra = self._extra or {}
        label = extra.get("name") or self.op or type(self._data).__name__
        return f"{extra.get('scope', '')}{label}"

    @property
    def given_name(self) -> str | None:
        """The name that a person gave, or ``None``."""
        return (self._extra or {}).get("name")

    @property
    def description(self) -> str | None:
        """What a person said of this value, or what the operation's documentation says."""
        said = (self._extra or {}).get("description")
        if said is None and self._operation is not None:
            return self._operation.doc or None
        return cast("str | None", said)

    @property
    def preview(self) -> str:
        """The value as short text; for containers that can change, as it was when recorded."""
        return (self._extra or {}).get("preview") or show(self._data, 200)

    @property
    def is_leaf(self) -> bool:
        """Whether no operation made this node."""
        return self._operation is None

    is_root = is_leaf

    @property
    def trainable(self) -> bool:
        """Whether optimizers may change this value."""
        return False

    @property
    def parameter(self) -> Parameter[T] | None:
        """The parameter whose value this leaf is, or ``None``."""
        return (self._extra or {}).get("parameter")

    @property
    def version(self) -> int | None:
        """The version of the parameter that this leaf holds, or ``None``."""
        return (self._extra or {}).get("version")

    @property
    def failure(self) -> Failure | None:
        """What the call said that failed, or ``None``."""
        return (self._extra or {}).get("failure")

    @property
    def captured(self) -> tuple[str, ...]:
        """The names of the inputs that were read inside the call, not passed to it."""
        names: tuple[str, ...] = (self._extra or {}).get("captured", ())
        return names

    @property
    def inner(self) -> Node[Any] | None:
        """The output of the inner graph, for a call of a traceable bundle."""
        return (self._extra or {}).get("inner")

    @property
    def info(self) -> Mapping[str, Any]:
        """Further facts of the recorded call: whatever it kept beside its value."""
        return dict(self._extra or {})

    def _leaf(self) -> Node[T]:
        """The node that stands for this value in a graph."""
        return self

    def forget_inputs(self) -> None:
        """Let go of the inputs, so that what lies behind can be freed."""
        self._inputs = ()
        self._names = ()
        self._operation = None

    # Feedback

    def backward(
        self,
        feedback: Any = "",
        *,
        weight: float = 1.0,
        strict: bool = False,
        create_graph: bool = False,
        inspect: Iterable[Node[Any]] = (),
        **former: Any,
    ) -> Mapping[Node[Any], Any]:
        """Carry `feedback` on this value back to the parameters behind it.

        Args:
            feedback: a sentence, a number, a gradient, an exception, or any `Feedback`; left out at
                a torch loss of one number, the gradient 1.
            weight: how much it counts beside other outputs.
            strict: raise `StaleFeedback` where a parameter changed since, instead of warning.
            create_graph: keep gradients differentiable, as torch does.
            inspect: nodes on the way whose messages are wanted too.

        Returns:
            What each parameter received, by parameter, and what came to the nodes to inspect. What
            a parameter received is added to `Parameter.feedback`.
        """
        return _walk[0](
            [(self, feedback, weight)],
            strict=strict,
            create_graph=create_graph,
            inspect=inspect,
            **former,
        )

    def create_feedback(self, style: str = "simple") -> str:
        """The failure as feedback: its message, or with ``style="full"`` the marked line too."""
        failure = self.failure
        if failure is None:
            return show(self._data)
        return failure.text() if style == "full" else str(failure)

    # Copies

    def clone(self) -> Node[T]:
        """A recorded copy of the value."""
        return cast("Node[T]", apply(operators.FUNCTIONS["clone"], (self,)))

    def detach(self) -> Node[T]:
        """A leaf with a copy of the value, outside this graph."""
        return copy.deepcopy(self)

    def __copy__(self) -> Node[T]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Node[T]:
        twin: Node[T] = Node(copy.deepcopy(self._data, memo), name=self.given_name)
        memo[id(self)] = twin
        return twin

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            f"{self.name} cannot be pickled: a node belongs to the process that recorded it; "
            "send its value (node.data) instead"
        )

    # What answers plainly

    def __repr__(self) -> str:
        return f"Node({self.name}, {self.preview})"

    def __str__(self) -> str:
        return str(self.data)

    def __format__(self, spec: str) -> str:
        return format(self.data, spec)

    def __bool__(self) -> bool:
        return bool(self.data)

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]

    def __contains__(self, item: object) -> bool:
        return unwrap(item) in self.data  # type: ignore[operator]

    def __eq__(self, other: object) -> bool:
        return cast(bool, self.data == unwrap(other))

    def __ne__(self, other: object) -> bool:
        return cast(bool, self.data != unwrap(other))

    def __hash__(self) -> int:
        return id(self) >> 4

    def __int__(self) -> int:
        return int(self.data)  # type: ignore[call-overload, no-any-return]

    def __float__(self) -> float:
        return float(self.data)  # type: ignore[arg-type]

    def __complex__(self) -> complex:
        return complex(self.data)  # type: ignore[call-overload, no-any-return]

    def __index__(self) -> int:
        return cast(Any, self.data).__index__()  # type: ignore[no-any-return]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        import numpy  # the value decides: an array asks for this only where numpy is at work

        return numpy.asarray(self.data, dtype=dtype)

    # What records

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        if name in Node.__slots__:
            raise AttributeError(f"this node is not complete yet: it has no {name!r}")
        try:
            attribute = getattr(self._data, name)
        except AttributeError as error:
            if name in _FORMER:
                return partial(_FORMER[name], self)
            hint = _ELSEWHERE.get(name)
            if hint is not None:
                raise AttributeError(f"nodes have no {name!r} here: {hint}") from error
            raise
        policy = current()
        if policy is not None and policy.opaque:
            cast(Frame, policy.frame).read(self._leaf())
            return attribute
        if callable(attribute) and not isinstance(attribute, Node):
            return _Method(self, name)
        return apply(operators.GETATTR, (self, name))

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the value, and record it."""
        return apply(operators.CALL, (self, *args), kwargs, foreign=True)

    def __round__(self, ndigits: Any = None) -> Any:
        return apply(operators.ROUND, (self,) if ndigits is None else (self, ndigits))

    def __iter__(self) -> Iterator[Any]:
        policy = current()
        data: Any = self.data
        if policy is not None and policy.opaque:
            return cast("Iterator[Any]", iter(data))
        try:
            items = iter(data)
        except TypeError:  # a, b = answer(), and the answer is None: a failed step like others
            return cast("Iterator[Any]", apply(operators.ITERATE, (self,), function=iter))
        return self._elements(items)

    def __reversed__(self) -> Iterator[Any]:
        policy = current()
        data: Any = self.data
        if policy is not None and policy.opaque:
            return cast("Iterator[Any]", reversed(data))
        return self._elements(reversed(data))

    def _elements(self, items: Iterator[Any]) -> Iterator[Any]:
        source = self._leaf()
        for index, item in enumerate(items):
            yield apply(operators.ITERATE, (source, index), result=item)

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise TypeError(
            f"{self.name} does not change: a node is what a value was when it was recorded; "
            "make a changed copy: x = tracegraph.setitem(x, key, value)"
        )

    def __delitem__(self, key: Any) -> NoReturn:
        self.__setitem__(key, None)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if kwargs.get("out") is not None:
            raise TypeError(
                f"numpy.{ufunc.__name__}(out=...) would change a node's value in place; "
                "leave out= away and use the result"
            )
        name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
        return apply(named(name), inputs, kwargs, function=getattr(ufunc, method))

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return apply(named(func.__name__), args, kwargs, function=func)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", str(func))
        if name == "__get__":  # an attribute of a tensor, asked of the class
            return func(unwrap(args[0]))
        known = operators.BINARY.get(name) or operators.REFLECTED.get(name)
        kwargs = kwargs or {}
        if isinstance(kwargs.get("out"), Node):
            raise TypeError(
                f"torch {name}(out=...) would change a node's value in place; leave out= away and "
                "use the result"
            )
        changing = kwargs.get("inplace") or (name.endswith("_") and not name.endswith("__"))
        if changing and args and isinstance(args[0], Node):
            return apply(
                named(name.strip("_")), args, kwargs,
                function=lambda x, /, *rest, **more: func(operators.copied(x), *rest, **more),
            )  # fmt: skip
        return apply(known or named(name.strip("_")), args, kwargs, function=func)

    if TYPE_CHECKING:

        def __add__(self, other: Any) -> Node[Any]: ...
        def __radd__(self, other: Any) -> Node[Any]: ...
        def __sub__(self, other: Any) -> Node[Any]: ...
        def __rsub__(self, other: Any) -> Node[Any]: ...
        def __mul__(self, other: Any) -> Node[Any]: ...
        def __rmul__(self, other: Any) -> Node[Any]: ...
        def __truediv__(self, other: Any) -> Node[Any]: ...
        def __rtruediv__(self, other: Any) -> Node[Any]: ...
        def __floordiv__(self, other: Any) -> Node[Any]: ...
        def __rfloordiv__(self, other: Any) -> Node[Any]: ...
        def __mod__(self, other: Any) -> Node[Any]: ...
        def __rmod__(self, other: Any) -> Node[Any]: ...
        def __divmod__(self, other: Any) -> Node[Any]: ...
        def __rdivmod__(self, other: Any) -> Node[Any]: ...
        def __pow__(self, other: Any) -> Node[Any]: ...
        def __rpow__(self, other: Any) -> Node[Any]: ...
        def __lshift__(self, other: Any) -> Node[Any]: ...
        def __rlshift__(self, other: Any) -> Node[Any]: ...
        def __rshift__(self, other: Any) -> Node[Any]: ...
        def __rrshift__(self, other: Any) -> Node[Any]: ...
        def __and__(self, other: Any) -> Node[Any]: ...
        def __rand__(self, other: Any) -> Node[Any]: ...
        def __or__(self, other: Any) -> Node[Any]: ...
        def __ror__(self, other: Any) -> Node[Any]: ...
        def __xor__(self, other: Any) -> Node[Any]: ...
        def __rxor__(self, other: Any) -> Node[Any]: ...
        def __matmul__(self, other: Any) -> Node[Any]: ...
        def __rmatmul__(self, other: Any) -> Node[Any]: ...
        def __lt__(self, other: Any) -> Node[Any]: ...
        def __le__(self, other: Any) -> Node[Any]: ...
        def __gt__(self, other: Any) -> Node[Any]: ...
        def __ge__(self, other: Any) -> Node[Any]: ...
        def __getitem__(self, key: Any) -> Node[Any]: ...
        def __neg__(self) -> Node[Any]: ...
        def __pos__(self) -> Node[Any]: ...
        def __invert__(self) -> Node[Any]: ...
        def __abs__(self) -> Node[Any]: ...
        def __floor__(self) -> Node[Any]: ...
        def __ceil__(self) -> Node[Any]: ...
        def __trunc__(self) -> Node[Any]: ...


_walk: list[Callable[..., Mapping[Any, Any]]] = []
"""The walk behind `Node.backward`; `propagate`, which knows nodes, puts itself here."""


class _Method:
    """A method of a node's value, waiting for its arguments."""

    __slots__ = ("__name__", "_owner")

    def __init__(self, owner: Node[Any], name: str) -> None:
        self._owner = owner
        self.__name__ = name

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        name, value = self.__name__, self._owner._data
        function = _copying(name) if changes(value, name) else _calling(name)
        foreign = type(value).__module__ not in _HOLD_NO_NODES
        return apply(named(name), (self._owner, *args), kwargs, function=function, foreign=foreign)

    def __getattr__(self, name: str) -> Any:
        """What can be called may hold more: the layers of a module of torch."""
        if name in _Method.__slots__ or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        return getattr(self._attribute(), name)

    def __getitem__(self, key: Any) -> Any:
        """What can be called may be indexed, too: ``frame.loc[0]``."""
        return self._attribute()[key]

    def _attribute(self) -> Any:
        return apply(operators.GETATTR, (self._owner, self.__name__))

    def __repr__(self) -> str:
        return f"<recorded method {self.__name__} of {self._owner.name}>"


@lru_cache(maxsize=1024)
def _calling(name: str) -> Callable[..., Any]:
    return lambda x, /, *args, **kwargs: getattr(x, name)(*args, **kwargs)


def _copying(name: str) -> Callable[..., Any]:
    """Call a method that changes its object on a copy: the recorded value stays as it was."""

    def run(x: Any, /, *args: Any, **kwargs: Any) -> Any:
        changed = copied(x)
        result = getattr(changed, name)(*args, **kwargs)
        return changed if result is None else result

    return run


# Making nodes


def leaf(value: Any) -> Node[Any]:
    """A node that no operation made."""
    made: Node[Any] = _new(Node)
    made._data = value
    made._operation = None
    made._inputs = made._names = ()
    made._extra = None
    made.id = next_id()
    if type(value) in _MUTABLE:
        _keep_preview(made, value)
    return made


def record(
    operation: Operation,
    names: tuple[str, ...],
    inputs: tuple[Node[Any], ...],
    value: Any,
    extra: dict[str, Any] | None = None,
) -> Node[Any]:
    """The node of a finished step, told to whoever watches."""
    made: Node[Any] = _new(Node)
    made._data = value
    made._operation = operation
    made._inputs = inputs
    made._names = names
    made._extra = extra
    made.id = next_id()
    if type(value) in _MUTABLE:
        _keep_preview(made, value)
    policy = current()
    if policy is not None:
        _told(made, policy)
    return made


def failed(
    operation: Operation,
    names: tuple[str, ...],
    inputs: tuple[Node[Any], ...],
    error: Exception,
    code: Any = None,
    extra: dict[str, Any] | None = None,
    told: str = "",
    through: Exception | None = None,
) -> Exception:
    """Record that a step raised `error`; gives the exception to raise in its place."""
    failure = Failure.of(error, code, told, through)
    node = record(operation, names, inputs, str(failure), {**(extra or {}), "failure": failure})
    return joined(error, node)


def raise_failed(error: Exception, refused: Exception) -> NoReturn:
    """Raise what `failed` gave for `error`; no frame keeps it, so that it can be freed at once."""
    try:
        if refused is error:
            raise error
        raise refused from refused.__cause__
    finally:
        del error, refused


def distinct(names: list[str]) -> tuple[str, ...]:
    """`names`, with a number behind each one that came before: no input hides another."""
    if len(names) < 2 or len(set(names)) == len(names):
        return tuple(names)
    taken: dict[str, None] = {}
    for name in names:
        number, free = 1, name
        while free in taken:
            number += 1
            free = f"{name}_{number}"
        taken[free] = None
    return tuple(taken)


def _told(made: Node[Any], policy: Policy) -> None:
    if policy.scope:
        made._extra = {**(made._extra or {}), "scope": policy.scope}
    if policy.horizon is not None:
        policy.horizon.add(made)
    for observer in policy.observers:
        observer(made)


def described(name: str | None, description: str | None) -> dict[str, Any] | None:
    """What a person said of a node, as it is kept."""
    extra = {k: v for k, v in (("name", name), ("description", description)) if v is not None}
    policy = current()
    if policy is not None and policy.scope:
        extra["scope"] = policy.scope
    return extra or None


def _keep_preview(made: Node[Any], value: Any) -> None:
    text = preview(value)
    if text is not None:
        made._extra = {**(made._extra or {}), "preview": text}


_new = object.__new__


# Recording an operation


def apply(
    operation: Operation,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    function: Callable[..., Any] | None = None,
    result: Any = NotImplemented,
    foreign: bool = False,
) -> Any:
    """Run one operation on nodes and plain values, and record it.

    Gives a node; inside an opaque call of a bundle, the plain result. `result` is the value when
    it is known already. Nodes inside the result of a `foreign` function are inputs too.
    """
    nodes: list[Node[Any]] = []
    names: list[str] = []
    policy = current()
    opaque = policy is not None and policy.opaque
    quiet = opaque or (policy is not None and not policy.active)
    known = operation.parameters
    values = []
    numbers = False
    for position, arg in enumerate(args):
        name = known[position] if position < len(known) else f"args_{position}"
        plain = _operand(arg, name, nodes, names, quiet)
        numbers = numbers or (plain is not arg and can_lift(plain))
        values.append(plain)
    named_values = {}
    for key, arg in (kwargs or {}).items():
        plain = named_values[key] = _operand(arg, key, nodes, names, quiet)
        numbers = numbers or (plain is not arg and can_lift(plain))
    if opaque:
        frame = cast(Frame, cast(Policy, policy).frame)
        for found in nodes:
            frame.read(found)
    run = function or operation.function
    if quiet:
        value = run(*values, **named_values) if result is NotImplemented else result  # type: ignore[misc]
        if opaque:
            return value
        return leaf(lower(value, "", [], []) if foreign or isinstance(value, Node) else value)
    if result is NotImplemented:
        try:
            if numbers:
                result = _lifting(run, args, values, kwargs or {}, named_values)
            else:
                result = run(*values, **named_values)  # type: ignore[misc]
        except Exception as error:
            raise_failed(error, failed(operation, distinct(names), tuple(nodes), error))
    if foreign or isinstance(result, Node):
        result = lower(result, "returned", nodes, names)
    if CUT and operation.name in CUT:
        result = cut(result, nodes)
    return record(operation, distinct(names), tuple(nodes), result)


def _lifting(run: Any, args: Any, values: list[Any], kwargs: Any, named_values: Any) -> Any:
    """Run on numbers lifted into torch; as they are, where torch takes nothing but plain numbers."""
    given = [*args, *kwargs.values()]
    plain = [*values, *named_values.values()]
    operands = lift(
        (value, arg._leaf() if isinstance(arg, Node) else None)
        for arg, value in zip(given, plain, strict=True)
    )
    if operands is None:
        return run(*values, **named_values)
    count = len(values)
    try:
        return run(*operands[:count], **dict(zip(kwargs, operands[count:], strict=True)))
    except TypeError:
        return run(*values, **named_values)


def _operand(arg: Any, name: str, nodes: list[Node[Any]], names: list[str], quiet: bool) -> Any:
    if isinstance(arg, Node):
        found = arg._leaf()
        nodes.append(found)
        names.append(name)
        return found._data
    before = len(nodes)
    plain = lower(arg, name, nodes, names)
    if len(nodes) == before and not quiet:
        nodes.append(leaf(plain))
        names.append(name)
    return plain


def _binary(operation: Operation, *, swapped: bool = False) -> Callable[[Any, Any], Any]:
    """The special method of an operator: the fast way for two nodes or a node and an atom."""
    function = cast("Callable[[Any, Any], Any]", operation.function)
    names = operation.parameters
    atoms = ATOMS
    policy_now = current
    new = object.__new__

    def method(self: Node[Any], other: Any) -> Any:
        policy = policy_now()
        kind = type(other)
        if policy is not None:
            if policy.frame is None and not policy.active and (kind is Node or kind in atoms):
                value = other._data if kind is Node else other
                made = new(Node)
                made._data = function(value, self._data) if swapped else function(self._data, value)
                made._inputs = made._names = ()
                made._operation = made._extra = None
                made.id = next_id()
                return made
            return apply(operation, (other, self) if swapped else (self, other))
        mine = self if type(self) is Node else self._leaf()
        if kind is Node:
            theirs = other
        elif kind in atoms:
            theirs = new(Node)
            theirs._data = other
            theirs._inputs = theirs._names = ()
            theirs._operation = theirs._extra = None
            theirs.id = next_id()
        elif isinstance(other, Node):
            theirs = other._leaf()
        else:
            return apply(operation, (other, self) if swapped else (self, other))
        left, right = (theirs, mine) if swapped else (mine, theirs)
        first, second = left._data, right._data
        if kind not in atoms and type(first) is not type(second):
            if is_tensor(first):
                if can_lift(second):
                    second = lift_beside(first, second, right)
            elif is_tensor(second) and can_lift(first):
                first = lift_beside(second, first, left)
        try:
            value = function(first, second)
        except Exception as error:
            raise_failed(error, failed(operation, names, (left, right), error))
        if CUT and operation.name in CUT:
            value = cut(value, (left, right))
        made = new(Node)
        made._data = value
        made._operation = operation
        made._inputs = (left, right)
        made._names = names
        made._extra = None
        made.id = next_id()
        if type(value) in _MUTABLE:
            _keep_preview(made, value)
        return made

    return method


def _power(two: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def power(self: Node[Any], other: Any, modulus: Any = None) -> Any:
        if modulus is None:
            return two(self, other)
        return apply(named("power", ("x", "y", "modulus")), (self, other, modulus), function=pow)

    return power


def _unary(operation: Operation) -> Callable[[Any], Any]:
    return lambda self: apply(operation, (self,))


def _install() -> None:
    for special, operation in operators.BINARY.items():
        setattr(Node, special, _binary(operation))
    Node.__pow__ = _power(Node.__pow__)  # type: ignore[method-assign]
    for special, operation in operators.REFLECTED.items():
        setattr(Node, special, _binary(operation, swapped=True))
    for special, operation in operators.UNARY.items():
        setattr(Node, special, _unary(operation))
    for special in (*operators.BINARY, *operators.REFLECTED, *operators.UNARY):
        method = getattr(Node, special)
        method.__name__ = special
        method.__qualname__ = f"Node.{special}"


_install()
