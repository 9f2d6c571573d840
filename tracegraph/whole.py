"""A class or a module whose whole text is one parameter: what runs for which version.

A trainable class stays the class that it is: it is made, checked with ``isinstance`` and read as
before. Its objects belong to no version: they hold values, and every access asks the text that is in
force. Text that is trusted runs in place, on the object's own ``__dict__``. Text that is not runs
in the sandbox: the object's values go there with each call, and come back changed.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

from tracegraph.bounded import make_room
from tracegraph.cell import Value
from tracegraph.definitions import ClassSource, ModuleSource, has_metaclass
from tracegraph.errors import SandboxError
from tracegraph.isolation import as_called, away, isolated
from tracegraph.lasting import lost
from tracegraph.parameter import Parameter
from tracegraph.prelude import prelude
from tracegraph.profiling import way_of
from tracegraph.spans import replaced, span
from tracegraph.together import MARK, Together
from tracegraph.travel import Traveller, actor

__all__ = ["ClassCode", "Place", "Program", "is_function"]

_MOST_COMPILED = 32
_UNTOUCHED = frozenset({"__init_subclass__", "__class_getitem__", "__subclasshook__"})
_MODULE = "_Module = type('Module', (), {'__call__': lambda self, *a, **k: self.forward(*a, **k)})"
"""What of our `Module` a class needs in the sandbox."""

Record = Callable[[str, Any, Callable[[Value], Callable[..., Any]], bool], Any]
"""Makes the recorded operation of a member: ``(name, as it was written, its versions, is a method)``."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where code that is not trusted runs, whether any is, and whether its lines are measured."""

    trust: bool = False
    sandbox: Any = "isolated"
    host: Mapping[str, Callable[..., Any]] | None = None
    profile: bool = False


def is_function(member: Any) -> bool:
    """Whether a member of a class is called: a method, a static or a class method."""
    if isinstance(member, (staticmethod, classmethod)):
        return True
    return callable(member) and not isinstance(member, type)


@final
class ClassCode(Together):
    """The versions of a trainable class, and how its objects reach them.

    Attributes:
        parameter: the text; set before the first call.
        source: the text that the class was decorated with, and what is around it.
    """

    def __init__(
        self,
        target: type,
        source: ClassSource,
        place: Place,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        self._target, self.source, self._place = target, source, place
        bound = source.attributes()
        self._first = members or {
            name: member
            for name, member in vars(target).items()
            if name not in _UNTOUCHED
            and not isinstance(member, types.MemberDescriptorType)  # a slot: values, no text
            and (is_function(member) or (name in bound and not name.startswith("__")))
        }
        self._made: dict[
            tuple[str, bool], tuple[ClassSource, type]
        ] = {}  # a source knows its lines
        self._runs: dict[tuple[str, ...], Callable[..., Any]] = {}

    def install(self, record: Record | None = None) -> None:
        """Stand between the class and its members; `record` makes operations of public functions."""
        target: Any = self._target
        for name, member in self._first.items():
            public = is_function(member) and (not name.startswith("_") or name == "__call__")
            if record is not None and public:
                raw = getattr(member, "__func__", member)
                versions = functools.partial(self.function, name)
                made = record(name, raw, versions, not isinstance(member, staticmethod))
                if isinstance(member, (staticmethod, classmethod)):
                    made = type(member)(made)
            else:
                made = (_Data if isinstance(member, property) else _Member)(self, name, member)
            setattr(target, name, made)
        setattr(target, MARK, self)

    def to_test(self, text: str) -> type:
        """A class with this text that tests may use; it runs where the text would run."""
        source = self.source.replaced(text)
        if self._place.trust:
            if has_metaclass(self._target):
                raise SandboxError(
                    f"{source.entry!r} is made by the metaclass {type(self._target).__name__}, which sees "
                    "the first text alone, so no test can be given a class of another; let checks= be of "
                    "the text only (AllowedImports, MaxSize, ...)"
                )
            return source.compile()
        if self.stays(self._target):
            raise SandboxError(self._why_it_stays())
        twin = types.new_class(source.entry)
        code = ClassCode(twin, source, self._place, self._first)
        code.parameter = Parameter(text, name=source.entry)
        code.parameter.trusted = False
        code.install()
        return twin

    # Which text is in force

    def now(self) -> Value:
        """The code that is in force in this thread or task."""
        cell = self.parameter._cell()
        return cell.trust() if self._place.trust else cell.now

    def is_first(self, code: Value) -> bool:
        """Whether the text is the one that the class was decorated with, and runs in place."""
        return code.trusted and bool(code.data == self.source.text)

    def made(self, text: str, *, whole: bool = False) -> type:
        """The class that a trusted text defines, made once; as a `whole` for the objects themselves."""
        known = self._made.get((text, whole))
        if known is None:
            source = self.source.replaced(text)
            known = source, source.compile_for(self._target) if whole else source.compile()
            make_room(self._made, _MOST_COMPILED)
            # another thread may have been faster
            known = self._made.setdefault((text, whole), known)
            if whole:
                self._reach(known[1])
        return known[1]

    def _reach(self, made: type) -> None:
        """Let objects of the class find what only a new text has."""
        target = self._target
        for name in vars(made):
            if not (name.startswith("__") or hasattr(target, name)):
                setattr(target, name, _Member(self, name, _Absent()))

    def is_whole(self, owner: Any) -> bool:
        """Whether methods work on an object itself, as its values cannot be shared with a view."""
        return bool(self.source.around.whole) or self._is_heir(owner)

    def stays(self, owner: Any) -> bool:
        """Whether an object, or a class, cannot go into the sandbox: slots alone do not keep it."""
        return self.is_whole(owner) and not (self.source.around.slots and not self._is_heir(owner))

    def _is_heir(self, owner: Any) -> bool:
        kind = owner if isinstance(owner, type) else type(owner)
        return kind is not self._target and issubclass(kind, self._target)

    def _why_it_stays(self, owner: Any = None) -> str:
        kind = owner if isinstance(owner, type) else type(owner)
        heir = f"{kind.__name__} derives from it, and what that changes would not go along"
        around = self.source.around
        why = heir if around.slots or not around.whole else around.whole
        entry = self.source.entry
        return (
            f"objects of {entry!r} cannot go into the sandbox: {why}; read the text, and call "
            f"{entry}.parameter.trust(), or bundle with trust=True"
        )

    def function(self, name: str, now: Value) -> Callable[..., Any]:
        """What a function of the class does now; it takes the object first, or the class."""
        first = self._first[name]
        if self.is_first(now):
            return getattr(first, "__func__", first)  # type: ignore[no-any-return]
        if not now.trusted:
            return self._apart(name, now.data)
        if self.source.around.whole:
            return self._on_object(name, now.data)
        return self._in_place(name, now.data)

    # In place, on the object itself: where its values are not in a ``__dict__`` alone, and for heirs

    def _on_object(self, name: str, text: str) -> Callable[..., Any]:
        member = self.member(name, text)
        return getattr(member, "__func__", member)  # type: ignore[no-any-return]

    def member(self, name: str, text: str) -> Any:
        """A member of the class that a trusted text defines, which works on objects of this class.

        Raises:
            AttributeError: the text has no such member.
        """
        try:
            return vars(self.made(text, whole=True))[name]
        except KeyError:
            raise AttributeError(f"{self.source.entry!r} has no attribute {name!r} now") from None

    # In place: a method of the new class on a view of the object

    def view(self, instance: Any, made: type) -> Any:
        """An object of `made` that shares the ``__dict__`` of `instance`."""
        if type(instance) is not self._target:
            return instance
        twin: Any = object.__new__(made)
        object.__setattr__(twin, "__dict__", instance.__dict__)
        return twin

    def home(self, result: Any, made: type, instance: Any = None) -> Any:
        """A result without views: the object itself for its view, a new object for another one."""
        if type(result) is not made:
            return result
        if instance is not None and result.__dict__ is instance.__dict__:
            return instance
        twin: Any = object.__new__(self._target)
        object.__setattr__(twin, "__dict__", result.__dict__)
        return twin

    def _in_place(self, name: str, text: str) -> Callable[..., Any]:
        made = self.made(text)
        first, member = self._first[name], vars(made).get(name)
        static = isinstance(first, staticmethod)
        bound = static or isinstance(first, classmethod)

        def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
            instance = None if static else args[0]
            if not static and self.is_whole(instance):
                return self._on_object(name, text)(*args, **kwargs), None
            owner = made if bound else self.view(instance, made)
            given = [self.view(arg, made) for arg in (args if static else args[1:])]
            named = {key: self.view(arg, made) for key, arg in kwargs.items()}
            return getattr(owner, name)(*given, **named), None if bound else instance

        def run(*args: Any, **kwargs: Any) -> Any:
            result, instance = begin(args, kwargs)
            return self.home(result, made, instance)

        async def run_async(*args: Any, **kwargs: Any) -> Any:
            result, instance = begin(args, kwargs)
            return self.home(await result, made, instance)

        raw = None if member is None else inspect.unwrap(getattr(member, "__func__", member))
        function: Any = run_async if inspect.iscoroutinefunction(raw) else run
        if raw is not None:
            function.__wrapped__ = raw  # a failure is told by its line
        return function  # type: ignore[no-any-return]

    # Apart: the values of the object travel

    def _apart(self, name: str, text: str) -> Callable[..., Any]:
        first = self._first[name]
        raw = inspect.unwrap(getattr(first, "__func__", first))
        bound = isinstance(first, classmethod)
        static = bound or isinstance(first, staticmethod)
        way = way_of(raw)
        if self.stays(self._target):
            raise SandboxError(self._why_it_stays())
        act = self._act(text, way, lost(text, raw))

        def run(*args: Any, **kwargs: Any) -> Any:
            instance = None if static else args[0]
            if args and not isinstance(first, staticmethod) and self.stays(args[0]):
                raise SandboxError(self._why_it_stays(args[0]))
            given = args[1:] if bound or not static else args
            return act("make" if name == "__init__" else "call", name, instance, given, kwargs)

        return as_called(run, way)

    def ask(self, text: str, task: str, name: str, instance: Any, *values: Any) -> Any:
        """Read, set or delete an attribute that is not a function, where `text` may run."""
        if instance is not None and self.stays(instance):
            raise SandboxError(self._why_it_stays(instance))
        return self._act(text, "value")(task, name, instance, values, {})

    def _act(self, text: str, way: str, ends: str = "") -> Callable[..., Any]:
        known = self._runs.get((text, way, ends))
        if known is None:
            make_room(self._runs, _MOST_COMPILED)
            known = self._runs.setdefault((text, way, ends), self._acting(text, way, ends))
        return known

    def _acting(self, text: str, way: str, ends: str) -> Callable[..., Any]:
        entry, source, place = self.source.entry, self.source.replaced(text), self._place
        names = source.names
        before, sent = [*prelude(text, names), _MODULE], self._with_bases(source)
        act = away(
            text,
            f"_act_of_{entry}",
            before=before,
            after=actor(entry, way),
            sandbox=place.sandbox,
            host=place.host,
            profile=way if place.profile else "",
            known=names,
            sent=sent,
            ends=ends,
        )
        return Traveller(self._target, act).ask

    def _with_bases(self, source: ClassSource) -> str:
        """The text, with bases that the sandbox knows, line by line.

        Raises:
            SandboxError: a base is neither in the text nor of Python's own modules.
        """
        spans = []
        for written, base in source.bases():
            kind = getattr(base, "__origin__", base)
            home = str(getattr(kind, "__module__", "")).partition(".")[0]
            root = next(n.id for n in ast.walk(written) if isinstance(n, ast.Name))
            if home == "tracegraph" and kind.__name__ == "Module":
                height = (written.end_lineno or 0) - written.lineno
                spans.append(span(source.text, written, "_Module" + "\n" * height))
            elif root not in source.brings() and home not in sys.stdlib_module_names | {"builtins"}:
                raise SandboxError(
                    f"{source.entry!r} derives from {ast.unparse(written)!r}, which is not in its text, "
                    "so a text that is not trusted cannot run apart; write the base into the text, or "
                    f"read the text and call {source.entry}.parameter.trust()"
                )
        return replaced(source.text, spans)


class _Absent:
    """Stands for a member that the first text does not have."""

    __doc__ = None


class _Member:
    """A member of a trainable class that is no operation: it is what the text in force says."""

    def __init__(self, code: ClassCode, name: str, first: Any) -> None:
        self._code, self._name, self._first = code, name, first
        self.__doc__ = getattr(first, "__doc__", None)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        code, name, first = self._code, self._name, self._first
        now = code.now()
        if code.is_first(now):
            return _bound(first, name, instance, owner)
        holder = owner if instance is None else instance
        if now.trusted and (isinstance(first, _Absent) or code.is_whole(holder)):
            return _bound(code.member(name, now.data), name, instance, owner)
        if is_function(first):
            function = code.function(name, now)
            if isinstance(first, staticmethod) or (instance is None and not _is_class(first)):
                return function
            return types.MethodType(function, owner if _is_class(first) else instance)
        if now.trusted:
            made = code.made(now.data)
            return getattr(made if instance is None else code.view(instance, made), name)
        return code.ask(now.data, "get", name, instance)


def _bound(member: Any, name: str, instance: Any, owner: type | None) -> Any:
    """A member as an object, or its class, gives it."""
    if isinstance(member, _Absent):
        raise AttributeError(f"{getattr(owner, '__name__', '')!r} has no attribute {name!r} now")
    get = getattr(type(member), "__get__", None)
    return member if get is None else get(member, instance, owner)


class _Data(_Member):
    """A property: it is set and deleted through the text in force, too."""

    def __set__(self, instance: Any, value: Any) -> None:
        self._change(setattr, "set", instance, value)

    def __delete__(self, instance: Any) -> None:
        self._change(delattr, "delete", instance)

    def _change(self, action: Callable[..., None], task: str, instance: Any, *values: Any) -> None:
        code, now = self._code, self._code.now()
        if code.is_first(now):
            getattr(self._first, f"__{task}__")(instance, *values)
        elif now.trusted and code.is_whole(instance):
            getattr(code.member(self._name, now.data), f"__{task}__")(instance, *values)
        elif now.trusted:
            action(code.view(instance, code.made(now.data)), self._name, *values)
        else:
            code.ask(now.data, task, self._name, instance, *values)


def _is_class(member: Any) -> bool:
    return isinstance(member, classmethod)


@final
class Program(Together):
    """A module whose whole text is one parameter; made by ``bundle(module, trainable=True)``.

    Its public functions are recorded operations; everything else is what the text in force says.
    In the sandbox every call starts with the module as it is when it was just loaded.

    Attributes:
        parameter: the text.
    """

    def __init__(self, module: types.ModuleType, source: ModuleSource, place: Place) -> None:
        self.__name__ = module.__name__
        self.__doc__ = module.__doc__
        self._module, self.source, self._place = module, source, place
        self._made: dict[str, tuple[ModuleSource, types.ModuleType]] = {}
        self._operations: dict[str, Any] = {}

    def install(self, record: Record) -> None:
        """Make operations of the module's public functions."""
        for name in self.source.functions():
            raw = vars(self._module)[name]
            versions = functools.partial(self.function, name)
            self._operations[name] = record(name, raw, versions, False)

    def to_test(self, text: str) -> Any:
        """A module with this text that tests may use; its functions run where the text would run."""
        if self._place.trust:
            return self.source.replaced(text).compile(self._module)
        given = Value(text, 0, "optimizer", trusted=False)
        return types.SimpleNamespace(
            **{name: self.function(name, given) for name in self.source.functions()}
        )

    def parameters(self) -> list[Parameter[Any]]:
        """The text, alone."""
        return [self.parameter]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_operations" not in vars(self):
            raise AttributeError(f"{self._module.__name__!r} has no attribute {name!r}")
        if name in self._operations:
            return self._operations[name]
        now = self._now()
        if now.trusted:
            return getattr(self.made(now.data), name)
        if name in self.source.members:
            raise SandboxError(
                f"{self.__name__}.{name} cannot be used here: an optimizer wrote the text, and nobody "
                f"trusts it; read it, and call {self.__name__}.parameter.trust()"
            )
        get = "\ndef _get(name):\n    return globals()[name]\n"
        place = self._place
        return away(now.data, "_get", after=get, sandbox=place.sandbox, host=place.host)(name)

    def __dir__(self) -> list[str]:
        return sorted({*self.source.members, "parameter", "parameters"})

    def __repr__(self) -> str:
        return f"<trainable module {self.__name__}>"

    def _now(self) -> Value:
        cell = self.parameter._cell()
        return cell.trust() if self._place.trust else cell.now

    def function(self, name: str, now: Value) -> Callable[..., Any]:
        """What a public function of the module is now."""
        if now.trusted:
            return vars(self.made(now.data))[name]  # type: ignore[no-any-return]
        raw, place = vars(self._module)[name], self._place
        return isolated(
            now.data, name, raw, place.sandbox, place.host, alone=True, profile=place.profile
        )

    def made(self, text: str) -> types.ModuleType:
        """The module that a trusted text defines, loaded once."""
        if text == self.source.text:
            return self._module
        known = self._made.get(text)
        if known is None:
            source = self.source.replaced(text)
            known = source, source.compile(self._module)
            make_room(self._made, _MOST_COMPILED)
            known = self._made.setdefault(text, known)  # another thread may have been faster
        return known[1]
