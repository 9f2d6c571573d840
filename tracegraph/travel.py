"""Run methods in the sandbox: the values of the object go there with each call, and come back.

An object itself cannot pass the wall, its values can. In the sandbox an object of the text's own class
is made of them; when the call is over its values are taken home. They are data that hostile
code may have written: they become attributes, never the class or anything of the recorder's.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, final

from tracegraph.companions import companions, written
from tracegraph.errors import SandboxError
from tracegraph.held import can_hold, drop, held, put
from tracegraph.isolation import as_called, away
from tracegraph.lasting import lost
from tracegraph.lowering import lower
from tracegraph.node import Node
from tracegraph.prelude import is_plain, names_around, prelude, without_defaults
from tracegraph.profiling import way_of
from tracegraph.recorder import current
from tracegraph.source import class_of
from tracegraph.variables import attributes, listed

__all__ = ["Traveller", "actor", "method_apart"]

TextOf = Callable[[Any, Any], str | None]
"""The text in force of a method of an object: ``(object or None, method)``; None where it is no parameter."""

_HELD = "_bundle_"  # attributes of this name belong to the recorder, and stay
_MADE_OF = f"{_HELD}made_of"  # nodes that were given where the object was made, apart
_OWNER = "_Object"
_ATTRIBUTE = re.compile(r"args\[2\]\['(\w+)'\](.*)", re.DOTALL)


@final
class Traveller:
    """What is asked of objects of one class, answered by code in the sandbox.

    Args:
        kind: the class of the objects here.
        act: runs `actor`'s code there.
    """

    def __init__(self, kind: type, act: Callable[..., Any]) -> None:
        self._kind, self._act = kind, act

    def ask(self, task: str, name: str, instance: Any, args: Any, kwargs: Any) -> Any:
        """Do a task: "make" an object, "call" a method, "get", "set" or "delete" an attribute.

        Raises:
            SandboxError: a value cannot travel, or the answer is none.
        """
        nodes: list[Node[Any]] = []
        sent = {} if instance is None else self._values(instance, nodes)
        given = [self._packed(arg, nodes) for arg in args]
        named = {key: lower(arg, key, nodes, []) for key, arg in kwargs.items()}
        policy = current()
        if policy is not None and policy.frame is not None:
            for node in nodes:
                policy.frame.read(node)
        values = None if instance is None or task == "make" else sent
        try:
            told = self._act(task, name, values, given, named)
        except SandboxError as error:
            found = _ATTRIBUTE.match(str(error))
            if found is None:
                raise
            raise SandboxError(
                f"{self._kind.__name__}.{found[1]}{found[2]}; where the code is trusted "
                "(parameter.trust()) it runs here, and takes any object"
            ) from error
        except Exception as error:
            told = [listed(attributes(instance))]  # a failed call left them as they were
            if isinstance(error, AttributeError | TypeError):
                told.append(_lacking(self._kind))
                if told[-1]:
                    error.add_note(told[-1])
            if "marked" in error.__dict__:
                error.__dict__["marked"] = "\n".join(
                    filter(None, [error.__dict__["marked"], *told])
                )
            raise
        match told:
            case ("value" | "self" | "object" as kind, result, after):
                pass
            case _:
                raise SandboxError(f"the sandbox gave no answer of a {self._kind.__name__}")
        if kind == "object":
            result = self._object(result)
        if instance is not None:
            self._take(instance, sent, result if task == "make" else after)
            if task == "make" and nodes and hasattr(instance, "__dict__"):
                vars(instance)[_MADE_OF] = tuple(nodes)
        if task == "make":
            return None
        return instance if kind == "self" else result

    def _values(self, instance: Any, nodes: list[Node[Any]]) -> dict[str, Any]:
        """The values of an object without nodes; those that are in it, or made it, are added."""
        values = held(instance)
        nodes += values.get(_MADE_OF, ())
        sent = {k: v for k, v in values.items() if not k.startswith(("__", _HELD))}
        return dict(lower(sent, "", nodes, []))

    def _packed(self, arg: Any, nodes: list[Node[Any]]) -> tuple[str, Any]:
        if type(arg) is self._kind:
            return "object", self._values(arg, nodes)
        return "value", lower(arg, "", nodes, [])

    def _object(self, values: Any) -> Any:
        self._check(values)
        twin: Any = object.__new__(self._kind)
        for name, value in values.items():
            put(twin, name, value)
        return twin

    def _check(self, values: object) -> None:
        if not isinstance(values, dict) or not all(
            isinstance(k, str) and not k.startswith(("__", _HELD)) for k in values
        ):
            raise SandboxError(f"the sandbox gave no values of a {self._kind.__name__}")
        lost = [name for name in values if not can_hold(self._kind, name)]
        if lost:
            raise SandboxError(
                f"the code gave an object of {self._kind.__name__} a value of the name {lost[0]!r}, for "
                f"which its __slots__ have no place; hold it in one of the slots that there are"
            )

    def _take(self, instance: Any, sent: Mapping[str, Any], values: Any) -> None:
        """Give an object the values that came back; what did not change stays the very object."""
        self._check(values)
        for name in values.keys() - sent.keys():
            member = inspect.getattr_static(self._kind, name, None)
            if isinstance(member, classmethod) or (
                callable(member) and not isinstance(member, type)
            ):
                raise SandboxError(
                    f"the code gave an object of {self._kind.__name__} a value of the name {name!r}, which "
                    "is a method and would be hidden by it; give the value another name"
                )
        changed = {k: v for k, v in values.items() if k not in sent or not _same(sent[k], v)}
        gone = sent.keys() - values.keys()
        if not changed and not gone:
            return
        before = held(instance)
        for name in [*changed, *gone]:
            if isinstance(before.get(name), Node):
                raise SandboxError(
                    f"the code replaced {self._kind.__name__}.{name}, which is a node of this program; "
                    "code that is not trusted may only read it"
                )
        for name in gone:
            drop(instance, name)
        for name, value in changed.items():
            put(instance, name, value)


def _lacking(kind: type) -> str:
    """What objects of a class hold that does not go to the sandbox, or nothing."""
    for base in kind.__mro__[:-1]:
        home = base.__module__
        if home in sys.stdlib_module_names and home not in ("abc", "typing"):
            return (
                f"{kind.__name__} builds on {base.__name__}, and what an object holds by that stays "
                "outside the sandbox; where the code is trusted (parameter.trust()) it runs here"
            )
    return ""


def method_apart(
    text: str,
    entry: str,
    original: Callable[..., Any],
    sandbox: Any,
    host: Mapping[str, Callable[..., Any]] | None,
    *,
    text_of: TextOf,
    profile: bool = False,
) -> Callable[..., Any]:
    """The method `entry` of a text, run in a sandbox on the values of the object that it is given.

    It has the object's attributes, the plain ones of its class, and its other methods (`companions`), of
    which `text_of` gives the text in force where it is a parameter.
    """
    raw: Any = inspect.unwrap(original)
    way = way_of(raw)
    names, within = names_around(raw), class_of(raw)
    private = within and re.search(r"\b__\w", text)
    naming = f"{_PRIVATE}_as_in_a_class({entry}, {within.lstrip('_')!r})\n" if private else ""
    before = prelude(text, names)
    sent, given = without_defaults(text, entry, raw, before)
    ends = lost(text, raw)

    def run(instance: Any, /, *args: Any, **kwargs: Any) -> Any:
        if given is not None:
            (_, *args), kwargs = given((instance, *args), kwargs)
        kind = instance if isinstance(instance, type) else type(instance)
        target = None if isinstance(instance, type) else instance
        mine = functools.partial(text_of, target)
        along, used = companions(kind, text, entry, mine, owner=within)
        held = {name: getattr(kind, name) for name in sorted(used) if hasattr(kind, name)}
        body = [f"    {name} = {value!r}" for name, value in held.items() if is_plain(value)]
        bound = entry
        if target is None:  # of a classmethod whose text stands below its decorator, that is added
            bound = f"{entry} if isinstance({entry}, classmethod) else classmethod({entry})"
        owner = naming + "\n".join(
            [
                f"\n\nclass {_OWNER}:",
                _MAKES_NONE.format(kind.__name__),
                *body,
                f"    {entry} = {bound}\n",
            ]
        )
        owner += written(along, _OWNER)
        act = away(
            text,
            f"_act_of_{_OWNER}",
            before=before,
            after=owner + actor(_OWNER, way),
            sandbox=sandbox,
            host=host,
            profile=way if profile else "",
            known=names,
            sent=sent,
            ends=ends,
        )
        return Traveller(kind, act).ask("call", entry, target, args, kwargs)

    return as_called(run, way)


_PRIVATE = """

def _as_in_a_class(function, owner):
    def renamed(code):
        names = [
            f"_{owner}{n}" if owner and n.startswith("__") and not n.endswith("__") else n
            for n in code.co_names
        ]
        inner = [renamed(c) if isinstance(c, type(code)) else c for c in code.co_consts]
        return code.replace(co_names=tuple(names), co_consts=tuple(inner))

    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    if hasattr(function, "__code__"):
        function.__code__ = renamed(function.__code__)

"""
"""Gives a function that stands alone its private names (``self.__x``) as the body of a class gives them."""

_MAKES_NONE = """
    def __new__(cls, *args, **kwargs):
        raise TypeError(
            "the code runs apart from the class {}, and makes no object of it; "
            "where the code is trusted (parameter.trust()) it runs here"
        )
"""

_RESULTS = {
    "value": "{0}",
    "items": "list({0})",
    "async": "await {0}",
    "items of async": "[item async for item in {0}]",
}


def actor(entry: str, way: str) -> str:
    """The code that does in the sandbox what is asked of an object of the class `entry`."""
    word = "async def" if "async" in way else "def"
    result = _RESULTS[way].format("getattr(owner, name)(*args, **kwargs)")
    return f"""

def _slots_of_{entry}(made):
    members = [item for kind in type(made).__mro__[::-1] for item in vars(kind).items()]
    return {{name: m for name, m in members if type(m).__name__ == "member_descriptor"}}

def _object_of_{entry}(values):
    made = object.__new__({entry})
    slots = _slots_of_{entry}(made)
    for name, value in values.items():
        if name in slots:
            slots[name].__set__(made, value)
        else:
            made.__dict__[name] = value
    return made

def _values_of_{entry}(made):
    values = dict(getattr(made, "__dict__", {{}}))
    for name, slot in _slots_of_{entry}(made).items():
        try:
            values[name] = slot.__get__(made)
        except AttributeError:
            pass
    return values

{word} _act_of_{entry}(task, name, values, args, kwargs):
    args = [_object_of_{entry}(v) if kind == "object" else v for kind, v in args]
    if task == "make":
        return "value", _values_of_{entry}({entry}(*args, **kwargs)), None
    owner = {entry} if values is None else _object_of_{entry}(values)
    if task == "call":
        result = {result}
    else:
        result = {{"get": getattr, "set": setattr, "delete": delattr}}[task](owner, name, *args)
    after = None if values is None else _values_of_{entry}(owner)
    if result is owner:
        return "self", None, after
    if type(result) is {entry}:
        return "object", _values_of_{entry}(result), after
    return "value", result, after
"""


def _same(before: Any, after: Any) -> bool:
    from tracegraph.sandbox.values import pack  # only when code ran in it

    try:
        return bool(pack(before) == pack(after))
    except SandboxError:
        return False
