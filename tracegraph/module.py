"""Objects that hold parameters: find them, save their values, load them again.

A `Module` is any object whose attributes hold parameters, trainable bundles, containers of these,
or other modules. Names are paths: ``retriever.prompt``, ``tools[0]``.
"""

from __future__ import annotations

import copy
import functools
import json
from collections import UserDict, UserList
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tracegraph.bundle import Bundle
from tracegraph.cell import Origin, Value
from tracegraph.errors import DuplicateName, ParameterError
from tracegraph.kinds import ATOMS, is_array, is_tensor, show
from tracegraph.node import Node
from tracegraph.parameter import Parameter, assign_all
from tracegraph.recorded import bundle_of
from tracegraph.together import Together, code_of
from tracegraph.writing import write_whole

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Map", "Module", "Seq", "is_module", "model", "named_parameters"]

C = TypeVar("C", bound=type)


def named_parameters(holder: Any) -> dict[str, Parameter[Any]]:
    """The parameters inside `holder`, by the path that leads to each.

    Looks into parameters, bundles, modules, objects of `model` classes, lists, tuples and dicts; of an
    object also at the parameters, bundles and modules that stand in its class. A parameter that is found
    twice is listed once, by its first path.
    """
    found: dict[str, Parameter[Any]] = {}
    owners: set[int] = set()
    for path, parameter in _search(holder, "", set()):
        if id(parameter) not in owners:
            owners.add(id(parameter))
            found[path or parameter.label] = parameter
    return found


def _search(value: Any, path: str, open_: set[int]) -> Iterator[tuple[str, Parameter[Any]]]:
    if isinstance(value, Parameter):
        yield path, value
        return
    if isinstance(value, Node) or id(value) in open_:
        return
    open_ = open_ | {id(value)}
    if callable(value) and (bundled := bundle_of(value)) is not None:
        if bundled.parameter is not None:
            yield path, bundled.parameter
    elif hasattr(value, "__func__") and isinstance(value.__func__, Bundle):
        yield from _search(value.__func__, path, open_)
    elif isinstance(value, functools.partial):
        yield from _search(value.func, path, open_)
        yield from _search(value.args, path, open_)
        yield from _search(value.keywords, path, open_)
    elif isinstance(value, (Mapping, UserDict)):
        for key, item in value.items():
            if isinstance(key, Node):
                yield from _search(key, f"{path}.keys", open_)
            named = isinstance(key, str) and not path
            yield from _search(item, key if named else f"{path}[{key!r}]", open_)
    elif isinstance(value, (list, tuple, UserList)):
        for index, item in enumerate(value):
            yield from _search(item, f"{path}[{index}]", open_)
    elif isinstance(value, Together):
        yield path, value.parameter
    elif isinstance(value, type):
        if (code := code_of(value)) is not None:
            yield path, code.parameter
    elif is_module(value):
        if (code := code_of(value)) is not None:
            name = type(value).__name__
            yield f"{path}.{name}" if path else name, code.parameter
        for name in _attributes(value):
            yield from _search(getattr(value, name), f"{path}.{name}" if path else name, open_)


def is_module(value: Any) -> bool:
    """Whether `value` is an object whose attributes may hold parameters.

    So are a `Module`, an object of a `model` class, and an object of a trainable class.
    """
    kind = type(value)
    return isinstance(value, Module) or hasattr(kind, "__tracegraph_model__") or (
        not isinstance(value, type) and code_of(value) is not None
    )  # fmt: skip


def _attributes(holder: Any) -> list[str]:
    own = [n for n in list(getattr(holder, "__dict__", ())) if not n.startswith("_bundle_")]
    for kind in type(holder).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        own += [n for n in ((slots,) if isinstance(slots, str) else slots) if hasattr(holder, n)]
    shared = [
        name
        for kind in reversed(type(holder).__mro__)
        for name, member in list(vars(kind).items())
        if _is_held(member.__func__ if isinstance(member, staticmethod | classmethod) else member)
    ]
    return list(dict.fromkeys([*own, *shared]))


def _is_held(member: Any) -> bool:
    """Whether what stands in a class is, or has, parameters: of all its objects, where it is no method."""
    if (bundled := bundle_of(member)) is not None:
        return bundled.trainable
    return isinstance(member, Parameter) or is_module(member)


class StateDict(dict[str, Any]):
    """Values by path, as `Module.state_dict` gives them.

    Attributes:
        written: by path, of texts and numbers: the value that was held, who wrote it, and whether it
            was trusted.
    """

    def __init__(self, values: Mapping[str, Any], written: Mapping[str, Value]) -> None:
        super().__init__(values)
        self.written = written


class Module:
    """An object with parameters; derive from it, or decorate a class with `model`.

    >>> import tracegraph as tg
    >>> class Greeter(tg.Module):
    ...     def __init__(self):
    ...         self.word = tg.node("Hello", trainable=True, name="word")
    ...     def forward(self, name):
    ...         return self.word + " " + name
    >>> greeter = Greeter()
    >>> greeter("you").data, list(greeter.named_parameters())
    ('Hello you', ['word'])
    """

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What calling the module does; a subclass says it."""
        raise NotImplementedError(
            f"{type(self).__name__} has no forward(); define it to make the module callable"
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do what `forward` does."""
        return self.forward(*args, **kwargs)

    def named_parameters(self) -> dict[str, Parameter[Any]]:
        """The parameters by path."""
        return named_parameters(self)

    parameters_dict = named_parameters

    def parameters(self) -> list[Parameter[Any]]:
        """The parameters, each once."""
        return list(named_parameters(self).values())

    def state_dict(self) -> StateDict:
        """The values of the parameters by path, copied."""
        held = {path: (p, p._cell().now) for path, p in named_parameters(self).items()}
        return StateDict(
            {path: p.kind.copy(now.data) for path, (p, now) in held.items()},
            {
                path: Value(now.data, now.version, now.origin, now.trusted)
                for path, (_, now) in held.items()
                if type(now.data) in ATOMS
            },
        )

    def load_state_dict(self, state: Mapping[str, Any], *, trust: bool = False) -> None:
        """Take the values of `state`, all or none.

        Code that `state_dict` gave is as trusted as it was then. Other code that this program does not
        hold itself runs isolated.

        Args:
            state: the values by path.
            trust: let all code in it run in place: for texts that someone has read.

        Raises:
            ParameterError: a path is missing or unknown; nothing has changed.
            Rejected: a value is not allowed; nothing has changed.
        """
        written = state.written if isinstance(state, StateDict) else {}
        values: list[tuple[Parameter[Any], Any, Origin, bool]] = []
        for path, (parameter, value) in zip(state, _fitting(self, state), strict=True):
            then = written.get(path)
            known = then if then is not None and _is_same(then.data, value) else None
            said = trust or (parameter.kind.name != "code" if known is None else known.trusted)
            allowed = is_trusted(parameter, value, said=said, trust=True)
            by = "person" if known is None else known.origin
            values.append((parameter, parameter.kind.copy(value), by, allowed))
        assign_all(values)

    def save(self, path: str | Path) -> None:
        """Write the values of the parameters as JSON; tensors and arrays as lists with their type."""
        text = json.dumps(
            {name: _entry(name, p) for name, p in named_parameters(self).items()}, indent=1
        )
        write_whole(path, text.encode())

    def load(self, path: str | Path, *, trust: bool = False) -> None:
        """Read what `save` wrote, all or none.

        Code that this program does not hold itself runs isolated, whoever the file says wrote it.

        Args:
            path: the file.
            trust: let code run as it was allowed to when it was saved; for files that nobody else
                can write.

        Raises:
            ParameterError: the file is no such file, or does not fit these parameters.
            Rejected: a value is not allowed.
        """
        try:
            with open(path, encoding="utf-8") as file:
                stored = json.load(file)
            entries = {name: dict(entry) for name, entry in stored.items()}
        except (ValueError, AttributeError, TypeError) as error:
            raise ParameterError(
                f"{path} is no file of parameters, a JSON object with an object for each by its name, as "
                f"save() writes it: {error}"
            ) from error
        own = named_parameters(self)
        state = {
            name: _from_json(entry.get("value"), own[name]) if name in own else None
            for name, entry in entries.items()
        }
        assign_all([
            (
                parameter,
                parameter.kind.copy(value),
                "optimizer" if entry.get("origin") == "optimizer" else "person",
                is_trusted(parameter, value, said=bool(entry.get("trusted")), trust=trust),
            )
            for (parameter, value), entry in zip(
                _fitting(self, state), entries.values(), strict=True
            )
        ])  # fmt: skip

    def export(self, path: str | Path | None = None, *, untrusted: bool = False) -> str:
        """The class as plain Python, with the values and the code of this object; see `tg.export`.

        Raises:
            ParameterError: it cannot be written faithfully, or holds code that nobody has trusted.
        """
        from tracegraph.exporting import export  # needs this module

        return export(self, path, untrusted=untrusted)

    def copy(self) -> Any:
        """A copy of the object that shares the parameters."""
        memo: dict[int, Any] = {id(p): p for p in named_parameters(self).values()}
        return copy.deepcopy(self, memo)


for _method in ("state_dict", "load_state_dict", "save", "load", "parameters_dict"):
    setattr(Bundle, _method, vars(Module)[_method])  # a trainable bundle is saved by itself too


def model(cls: C) -> C:
    """Make a class a `Module`: its instances list, save and load their parameters.

    The class keeps its name, its bases and its ``__init__``.

    >>> import tracegraph as tg
    >>> @tg.model
    ... class Agent:
    ...     def __init__(self):
    ...         self.prompt = tg.node("Be kind.", trainable=True, name="prompt")
    >>> Agent().parameters()[0].data
    'Be kind.'
    """
    if not isinstance(cls, type):
        raise TypeError(f"@model decorates a class, got {show(cls, 80)}")
    for name, member in vars(Module).items():
        if not name.startswith("__") and not hasattr(cls, name):
            setattr(cls, name, member)
    if not any("__call__" in vars(kind) for kind in cls.__mro__):
        type.__setattr__(cls, "__call__", Module.__call__)
    cls.__tracegraph_model__ = True  # type: ignore[attr-defined]
    return cls


class Seq(UserList[Any]):
    """A list whose parameters are found: ``Seq(prompt, tool, 3)``."""

    def __init__(self, *items: Any) -> None:
        super().__init__(items[0] if len(items) == 1 and isinstance(items[0], list) else items)

    def parameters(self) -> list[Parameter[Any]]:
        """The parameters in the list, each once."""
        return list(named_parameters(self).values())

    def __traced_items__(self, item: Callable[[Any, str], Any], path: str) -> Any:
        """The list with the nodes in it replaced, for a recorded call."""
        plain = [item(v, f"{path}[{i}]") for i, v in enumerate(self.data)]
        return plain if any(a is not b for a, b in zip(plain, self.data, strict=True)) else self


class Map(UserDict[Any, Any]):
    """A dict whose parameters are found: ``Map({"prompt": prompt})``."""

    def parameters(self) -> list[Parameter[Any]]:
        """The parameters in the dict, each once."""
        return list(named_parameters(self).values())

    def __traced_items__(self, item: Callable[[Any, str], Any], path: str) -> Any:
        """The dict with the nodes in it replaced, for a recorded call."""
        plain = {}
        same = True
        for key, value in self.data.items():
            key_ = item(key, f"{path}.keys")
            plain[key_] = value_ = item(value, f"{path}[{key_!r}]")
            same = same and key_ is key and value_ is value
        return self if same else plain


def check_names(parameters: Mapping[str, Parameter[Any]]) -> None:
    """Refuse two parameters of one given name.

    Raises:
        DuplicateName: two have the same `Parameter.given_name`.
    """
    taken: dict[str, Parameter[Any]] = {}
    for parameter in parameters.values():
        name = parameter.given_name
        if name is None or parameter.kind.name == "code":
            continue
        if name in taken and taken[name] is not parameter:
            raise DuplicateName(
                f"two parameters are named {name!r}; feedback and replies go by name, so give each "
                "its own (node(..., name=...)), or hand over the module that holds them, or a dict of modules"
            )
        taken[name] = parameter


def _fitting(holder: Any, state: Mapping[str, Any]) -> list[tuple[Parameter[Any], Any]]:
    """The parameters in `holder` with the values that `state` has for them, in its order."""
    own = named_parameters(holder)
    missing, unknown = own.keys() - state.keys(), state.keys() - own.keys()
    if missing or unknown:
        raise ParameterError(
            "the state does not fit: "
            + "; ".join(
                f"{word} {', '.join(map(repr, sorted(names)))}"
                for word, names in (("it lacks", missing), ("it has unknown", unknown))
                if names
            )
        )
    return [(own[path], own[path].check(value)) for path, value in state.items()]


def is_trusted(parameter: Parameter[Any], value: Any, *, said: bool, trust: bool) -> bool:
    """Whether a value from elsewhere, of which that is `said`, is trusted.

    For code its word is not enough without `trust`, but the program itself may have this very code: it
    was decorated with it, or trusts it now.
    """
    if not isinstance(trust, bool):
        raise TypeError(f"trust= is True or False, got {show(trust, 40)}")
    if parameter.kind.name != "code" or (said and trust):
        return said
    now = parameter._cell().now
    return bool(value == parameter.initial or (now.trusted and value == now.data))


def _is_same(before: Any, after: Any) -> bool:
    return type(before) is type(after) and type(before) in ATOMS and bool(before == after)


def _entry(name: str, parameter: Parameter[Any]) -> dict[str, Any]:
    """What a file says of a parameter."""
    now = parameter._cell().now
    return {
        "kind": parameter.kind.name, "value": _to_json(now.data, name), "origin": now.origin,
        "trusted": now.trusted,
    }  # fmt: skip


def _to_json(value: Any, name: str) -> Any:
    if is_tensor(value) or is_array(value):
        return {"shape": list(value.shape), "dtype": str(value.dtype), "data": value.tolist()}
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        raise ParameterError(f"{name} cannot be saved as JSON: {error}") from error


def _from_json(stored: Any, parameter: Parameter[Any]) -> Any:
    now = parameter._data
    if is_tensor(now) or is_array(now):
        if not isinstance(stored, dict) or "data" not in stored:
            raise ParameterError(
                f"{parameter.label} expects a tensor, the file holds something else"
            )
        if is_tensor(now):
            return (
                now.new_tensor(stored["data"])
                .reshape(stored["shape"])
                .requires_grad_(now.requires_grad)
            )
        return (
            cast(Any, type(now).__array_ufunc__ and __import__("numpy"))
            .asarray(stored["data"], dtype=now.dtype)
            .reshape(stored["shape"])
        )
    return parameter.read(stored) if parameter.kind.name not in ("text", "code") else stored
