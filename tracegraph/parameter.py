"""A parameter: a value that optimizers may change, with a version, a kind and a constraint.

Reading a parameter in a recorded operation gives the leaf of its current version. Feedback remembers
the version that it was computed at; a new value makes the old feedback void.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload
from weakref import ref

from tracegraph.cell import Cell, Origin, Received, Value, begin_all
from tracegraph.constraint import Constraint
from tracegraph.errors import ParameterError, Rejected
from tracegraph.kinds import Kind, is_tensor, show
from tracegraph.lowering import lower, unwrap
from tracegraph.node import Node, described, distinct, leaf, record
from tracegraph.operators import COLLECT
from tracegraph.recorder import current

if TYPE_CHECKING:
    from tracegraph import view

__all__ = ["Arrived", "Parameter", "assign_all", "node"]

T = TypeVar("T")

_NOTHING: dict[str, Any] = {}


class Arrived(Mapping[type, Any]):
    """The feedback that has arrived at a parameter, merged, by type; falsy when there is none."""

    __slots__ = ("_received",)

    def __init__(self, received: dict[type, Received]) -> None:
        self._received = received

    def __getitem__(self, kind: type) -> Any:
        return self._received[kind].message

    def __iter__(self) -> Any:
        return iter(self._received)

    def __len__(self) -> int:
        return len(self._received)

    def __repr__(self) -> str:
        return f"Arrived({', '.join(map(str, self.values()))})" if self else "Arrived()"

    @property
    def outputs(self) -> dict[int, Node[Any]]:
        """The outputs that the feedback was given at, by id."""
        return {i: n for got in self._received.values() for i, n in got.outputs.items()}

    @property
    def version(self) -> int | None:
        """The version of the parameter that the feedback is about."""
        return next((got.version for got in self._received.values()), None)


class Parameter(Node[T]):
    """A value that optimizers may change; make one with ``node(value, trainable=True)``.

    It can be used like the value it holds. Assign through `assign`, which checks first. A floating
    torch tensor is the user's own, and is told to require a gradient.

    Attributes:
        kind: text, number, choice, code, json or tensor.
        constraint: what values are taken.

    Raises:
        ParameterError: no kind fits the value.
        Rejected: the value does not meet the constraint.

    >>> import tracegraph as tg
    >>> from typing import Annotated
    >>> from pydantic import Field
    >>> rate = tg.node(0.5, trainable=True, name="rate",
    ...                constraint=Annotated[float, Field(ge=0, le=1)])
    >>> rate.assign(0.7)
    >>> rate.data, rate.version, (rate * 2).data
    (0.7, 1, 1.4)
    >>> rate.assign(7.0)
    Traceback (most recent call last):
    tracegraph.errors.Rejected: rate: Input should be less than or equal to 1, got 7.0
    """

    __slots__ = (
        "_frozen",
        "_own",
        "constraint",
        "initial",
        "kind",
    )

    def __init__(
        self,
        value: T,
        *,
        name: str | None = None,
        description: str | None = None,
        constraint: Any = None,
        kind: Kind | None = None,
    ) -> None:
        self._own = Cell(value)
        super().__init__(value, name=name, description=description)
        made = constraint if isinstance(constraint, Constraint) else Constraint(constraint)
        made = made.typed(value)
        fitting = kind or made.kind(value)
        if fitting is None:
            raise ParameterError(
                f"{show(value, 80)} cannot be a parameter: no kind (text, number, choice, code, json, "
                f"tensor) fits a {type(value).__name__}; give constraint= with its type (a dataclass "
                "or pydantic model), or make its parts parameters"
            )
        self.constraint = made
        self.kind = fitting
        self.initial = value
        self._frozen = False
        self.check(value)
        _follow(value)

    # The cell: its own, or that of an overlay that is in force here

    def _cell(self) -> Cell:
        policy = current()
        if policy is None or policy.cells is None:
            return self._own
        found: Cell = policy.cells.get(id(self), self._own)
        return found

    @property
    def _data(self) -> T:
        return self._cell().now.data  # type: ignore[no-any-return]

    @_data.setter
    def _data(self, value: T) -> None:
        self._cell().change(data=value)

    @property
    def origin(self) -> Origin:
        """Who wrote the current value, a person or an optimizer."""
        return self._cell().now.origin

    @origin.setter
    def origin(self, origin: Origin) -> None:
        self._cell().change(origin=origin)

    @property
    def trusted(self) -> bool:
        """Whether the current value may run in place, if it is code."""
        return self._cell().now.trusted

    @trusted.setter
    def trusted(self, trusted: bool) -> None:
        self._cell().change(trusted=trusted)

    # Reading

    def _leaf(self, value: Value | None = None) -> Node[T]:
        if value is None:
            policy = current()
            plain = policy is None or policy.cells is None
            value = (self._own if plain else self._cell()).now
        known = value.leaf
        now: Node[T] | None = None if known is None else known()
        if now is not None:
            return now
        made = leaf(value.data)
        made._extra = {
            **(made._extra or _NOTHING),
            **(self._extra or _NOTHING),
            "parameter": self,
            "version": value.version,
            "origin": value.origin,
            "trusted": value.trusted,
        }
        if value.lifted is not None and not self._frozen:
            made._extra["lifted"] = value.lifted
        mine = ref(made)
        # threads take turns at calls, and there is none from here to the assignment
        if value.leaf is known:
            value.leaf = mine
            return made
        return self._leaf(value)  # another thread was faster

    def _lifted(self, number: float, tensor: Any) -> None:
        """Keep what `number` was lifted to for the next forward, while it is the value."""
        now = self._cell().now
        if now.data is number:
            now.lifted = tensor

    @property
    def label(self) -> str:
        """The name without a number."""
        extra = self._extra or {}
        return f"{extra.get('scope', '')}{extra.get('name') or type(self._data).__name__}"

    @property
    def version(self) -> int:
        """How many new values it has had."""
        return self._cell().now.version

    @property
    def parameter(self) -> Parameter[T]:
        """This parameter itself."""
        return self

    @property
    def trainable(self) -> bool:
        """Whether optimizers may change it; see `freeze`."""
        return not self._frozen

    def freeze(self) -> None:
        """Keep optimizers from changing it."""
        self._frozen = True

    def unfreeze(self) -> None:
        """Let optimizers change it again."""
        self._frozen = False

    def __repr__(self) -> str:
        said = self.kind.show(self._data, 60)
        return f"Parameter({self.label}, {self.kind.name}, version {self.version}, {said!r})"

    def _card(self) -> view.Card:
        """The parameter on a card, for a notebook or a terminal: value, changes, feedback."""
        from tracegraph import view  # drawing is loaded when something is drawn

        facts = {
            "kind": self.kind.name,
            "version": str(self.version),
            "written by": self.origin,
            "trainable": "yes" if self.trainable else "no, frozen",
        }
        if self.kind.name == "code":
            facts["may run in place"] = "yes" if self.trusted else "no, not trusted"
        now, first = (
            value if isinstance(value, str) else self.kind.show(value, 4_000)
            for value in (self._data, self.initial)
        )
        parts: list[view.Part] = [view.Facts(facts), view.Words("value", now)]
        if now != first and self.kind.name != "tensor":
            parts.append(view.Difference("since the start", first, now))
        parts += [
            view.Words(f"feedback ({type(message).__name__})", str(message))
            for message in self.feedback.values()
        ]
        return view.Card(self.label, tuple(parts))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return self._card().bundle(repr(self))

    def __rich__(self) -> view.Card:
        return self._card()

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter[T]:
        now = self._cell().now
        twin: Parameter[T] = Parameter(
            self.kind.copy(now.data),
            name=self.given_name,
            description=(self._extra or {}).get("description"),
            constraint=self.constraint,
            kind=self.kind,
        )
        twin.constraint = self.constraint.following(twin)
        twin._own.change(origin=now.origin, trusted=now.trusted)
        # What it began with stays that: code is known by it as the program's own.
        twin.initial = twin.data if now.data is self.initial else self.kind.copy(self.initial)
        twin._frozen = self._frozen
        memo[id(self)] = twin
        return twin

    # Changing

    def read(self, raw: Any) -> T:
        """The value that a piece of JSON from a model means, checked.

        For code also search/replace blocks that change the present text, see `tracegraph.edits`.

        Raises:
            Rejected: it is no value for this parameter; the reason says why.
        """
        try:
            meant = self.kind.revised(self.kind.read(raw), self._data)
            value = self.constraint.read(meant)
        except ValueError as error:
            raise Rejected(parameter=self, reason=str(error)) from error
        if isinstance(self.initial, (tuple, set, frozenset)) and isinstance(value, list):
            value = type(self.initial)(value)
        if type(self.initial) is float and type(value) is int:
            with suppress(OverflowError):  # too large a number is refused below
                value = float(value)
        return self.check(value)

    def check(self, value: Any) -> T:
        """Give `value` back if this parameter takes it.

        Raises:
            Rejected: it does not, with the reason.
        """
        reason = self.kind.fault(value, self.initial) or self.constraint.fault(value)
        if reason is not None:
            raise Rejected(parameter=self, reason=reason)
        return value  # type: ignore[no-any-return]

    def assign(
        self, value: T, *, origin: Origin | None = None, trusted: bool | None = None
    ) -> None:
        """Take a new value, if it is allowed; a new version begins and old feedback is void.

        Args:
            value: the value, or a node that holds it.
            origin: who wrote it; by default a person, or of another parameter who wrote that.
            trusted: whether it may run in place, if it is code; by default what a person wrote may, and
                of another parameter what may there.

        Raises:
            Rejected: the value is refused; nothing has changed.
            TypeError: `origin` or `trusted` is none.
        """
        written = _written(value) if origin is None and trusted is None else None
        if written is not None:
            value, origin, trusted = written.data, written.origin, written.trusted
        by = "person" if origin is None else origin
        allowed = by == "person" if trusted is None else trusted
        _check_words(by, allowed)
        data = self.check(unwrap(value))
        _follow(data)
        self._cell().begin(data, by, allowed)

    def trust(self) -> None:
        """Let the current value run in place: someone has looked at it."""
        self._cell().trust()

    def bump(self) -> None:
        """Begin a new version: the value was changed in place."""
        self._cell().bump()

    _set = assign

    # Feedback

    @property
    def feedback(self) -> Arrived:
        """The feedback that has arrived since the last step; falsy when nothing has."""
        return Arrived(self._cell().received)

    def receive(self, message: Any, outputs: Mapping[int, Node[Any]], version: int) -> bool:
        """Take in feedback about `version`; False where a newer one has begun, and nothing is taken."""
        return self._cell().receive(message, outputs, version)

    def zero_feedback(self, heard: Arrived | None = None) -> None:
        """Forget the feedback that has arrived, or that part of it which was `heard`.

        Args:
            heard: what `feedback` gave once; what has arrived since then stays.
        """
        self._cell().forget(None if heard is None else heard._received)


def assign_all(values: Iterable[tuple[Parameter[Any], Any, Origin, bool]]) -> list[int]:
    """Take values that were checked, all of them or, when that is interrupted, none.

    Args:
        values: parameters, each with its value, who wrote that, and whether it is trusted.

    Returns:
        The versions that begin.

    Raises:
        TypeError: it is not said in words that are known who wrote a value, or whether it is trusted.
    """
    cells = [(p._cell(), unwrap(value), by, trusted) for p, value, by, trusted in values]
    for _, _, by, trusted in cells:
        _check_words(by, trusted)
    for _, data, *_ in cells:
        _follow(data)
    return [made.version for made in begin_all(cells)]


def _check_words(origin: object, trusted: object) -> None:
    if origin not in ("person", "optimizer") or not isinstance(trusted, bool):
        raise TypeError(
            "origin is 'person' or 'optimizer' and trusted is True or False, got "
            f"{show(origin, 40)} and {show(trusted, 40)}"
        )


def _written(value: Any) -> Value | None:
    """What is known of the value of another parameter, or of a node that it was read by."""
    if isinstance(value, Parameter):
        return value._cell().now
    facts = value.info if isinstance(value, Node) else _NOTHING
    if "trusted" not in facts:
        return None
    return Value(value.data, facts["version"], facts["origin"], facts["trusted"])


def _follow(value: Any) -> None:
    """Tell torch to follow a floating tensor that nothing made: what trains needs a gradient."""
    if is_tensor(value) and value.is_leaf and (value.is_floating_point() or value.is_complex()):
        value.requires_grad_(True)


@overload
def node(
    value: T,
    name: str | None = None,
    *,
    trainable: Literal[True],
    description: str | None = None,
    constraint: Any = None,
) -> Parameter[T]: ...


@overload
def node(
    value: T,
    name: str | None = None,
    *,
    trainable: Literal[False] = False,
    description: str | None = None,
    constraint: None = None,
) -> Node[T]: ...


def node(
    value: Any,
    name: str | None = None,
    *,
    trainable: bool = False,
    description: str | None = None,
    constraint: Any = None,
) -> Node[Any]:
    """Make a node of `value`; with ``trainable=True`` a parameter that optimizers may change.

    Args:
        value: anything. A node is given back as it is, and the nodes inside a container are the
            inputs of a new one; made trainable, its plain value becomes a new parameter's.
        name: a readable name; unique among the parameters of one optimizer.
        trainable: whether optimizers may change the value.
        description: what the value means, for people and models.
        constraint: what values are allowed, see `Constraint`.

    Raises:
        ParameterError: no kind of parameter fits the value.
        Rejected: the value does not meet its own constraint.
        TypeError: a constraint for a value that is not trainable.

    >>> import tracegraph as tg
    >>> prompt = tg.node("Answer the customer.", trainable=True, name="prompt")
    >>> prompt.kind, prompt.version
    (<kind text>, 0)
    """
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be text, got {show(name, 80)}: it labels the node for people")
    if description is not None and not isinstance(description, str):
        raise TypeError(f"description must be text, got {show(description, 80)}")
    if trainable:
        held = unwrap(value)
        given = name or (value.given_name if isinstance(value, Node) else None)
        return Parameter(held, name=given, description=description, constraint=constraint)
    if constraint is not None:
        raise TypeError(
            "constraint= is for values that optimizers may change; add trainable=True or leave it out"
        )
    if isinstance(value, Node):
        return value
    policy = current()
    if policy is not None and (policy.opaque or not policy.active):
        return Node(unwrap(value), name=name, description=description)
    inside: list[Node[Any]] = []
    paths: list[str] = []
    plain = lower(value, "", inside, paths)
    if inside:
        said = described(name, description)
        return record(COLLECT, distinct(paths), tuple(inside), plain, said)
    return Node(value, name=name, description=description)
