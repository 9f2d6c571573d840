"""What `bundle` promises: the same function, run once, with every node it read as an input."""

import asyncio
import copy
import dataclasses
import functools
import gc
import inspect
import itertools
import pickle
import typing
import weakref
from collections import OrderedDict, UserList, defaultdict, namedtuple

import pydantic
import pytest

import tracegraph as tg
from tracegraph import Node, bundle, node
from tracegraph.source import Source


@dataclasses.dataclass(frozen=True)
class Frozen:
    text: object
    rest: tuple = ()


@dataclasses.dataclass(slots=True)
class Slotted:
    text: object
    number: int = 0


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    text: object
    items: list = []


class FrozenModel(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True, frozen=True)
    text: object


Pair = namedtuple("Pair", ["left", "right"])


@dataclasses.dataclass
class WithPost:
    """A dataclass whose fields are not all arguments of ``__init__``."""

    text: object
    upper: object = dataclasses.field(init=False, default=None)


# The function stays the function


def plain(a: int, /, b: int = 2, *rest: int, c: int, d: int = 4, **more: int) -> int:
    """Add everything.

    With a second paragraph.
    """
    return a + b + sum(rest) + c + d + sum(more.values())


@pytest.mark.parametrize(
    "made",
    [bundle(plain), bundle()(plain), bundle(name="plus")(plain), bundle(trainable=True)(plain)],
    ids=["bare", "parentheses", "named", "trainable"],
)
def test_the_metadata_is_the_functions_own(made):
    assert made.__name__ == "plain"
    assert made.__qualname__ == plain.__qualname__
    assert made.__module__ == plain.__module__
    assert made.__doc__ == plain.__doc__
    assert made.__wrapped__ is plain
    assert made.__annotations__ == plain.__annotations__
    assert typing.get_type_hints(made) == typing.get_type_hints(plain)
    assert inspect.signature(made) == inspect.signature(plain)
    assert inspect.getdoc(made) == inspect.getdoc(plain)
    assert inspect.getsource(made) == inspect.getsource(plain)
    assert inspect.unwrap(made) is plain
    assert callable(made)


def test_inspect_tells_the_kind_of_function():
    async def coroutine(): ...

    async def agen():
        yield 1

    def gen():
        yield 1

    assert inspect.iscoroutinefunction(bundle(coroutine))
    assert asyncio.iscoroutinefunction(bundle(coroutine)) if _before_314() else True
    assert inspect.isasyncgenfunction(bundle(agen))
    assert inspect.isgeneratorfunction(bundle(gen))
    for function in (coroutine, agen, gen, plain):
        made = bundle(function)
        for question in (
            inspect.iscoroutinefunction,
            inspect.isasyncgenfunction,
            inspect.isgeneratorfunction,
        ):
            assert question(made) == question(function)


def _before_314() -> bool:
    import sys

    return sys.version_info < (3, 14)


def test_methods_are_methods():
    class Thing:
        @bundle
        def speak(self, word):
            return word

        @bundle
        async def later(self, word):
            return word

    thing = Thing()
    assert inspect.ismethod(thing.speak)
    assert inspect.signature(thing.speak) == inspect.Signature(
        [inspect.Parameter("word", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    )
    assert thing.speak.__self__ is thing
    assert thing.speak.__name__ == "speak"
    assert inspect.iscoroutinefunction(thing.later)


CALLS = [
    ((1,), {"c": 3}),
    ((1, 5), {"c": 3}),
    ((1, 5, 6, 7), {"c": 3, "d": 1}),
    ((1,), {"b": 9, "c": 3, "e": 5, "f": 6}),
    ((), {"c": 3}),
    ((1,), {}),
    ((1,), {"a": 1, "c": 3}),
    ((1, 2), {"b": 2, "c": 1}),
]


@pytest.mark.parametrize(("args", "kwargs"), CALLS)
@pytest.mark.parametrize("nodes", [False, True], ids=["plain", "nodes"])
def test_arguments_bind_as_python_binds_them(args, kwargs, nodes):
    made = bundle(plain)
    given = [node(a) for a in args] if nodes else args
    named = {k: node(v) for k, v in kwargs.items()} if nodes else kwargs
    fault = None
    try:
        expected = plain(*args, **kwargs)
    except TypeError as error:
        fault = str(error)
    if fault is not None:
        with pytest.raises(TypeError) as caught:
            made(*given, **named)
        assert str(caught.value) == fault
        assert isinstance(caught.value, tg.ExecutionError)
    else:
        result = made(*given, **named)
        assert result.data == expected
        if nodes:
            assert {n.id for n in result.inputs.values()} >= {n.id for n in given}
            assert {n.id for n in result.inputs.values()} >= {n.id for n in named.values()}


def test_inputs_are_named_by_the_parameters():
    made = bundle(plain)
    result = made(node(1), 2, 3, node(4), c=5, e=node(6))
    assert list(result.inputs) == ["a", "b", "rest_0", "rest_1", "c", "e"]
    assert [n.data for n in result.inputs.values()] == [1, 2, 3, 4, 5, 6]


def test_a_variadic_name_cannot_hide_a_keyword():
    @bundle
    def f(*args, **kwargs):
        return (args, kwargs)

    result = f(node(1), args_0=node(2))
    assert result.data == ((1,), {"args_0": 2})
    assert len(result.inputs) == 2
    assert sorted(n.data for n in result.inputs.values()) == [1, 2]


def test_the_function_runs_exactly_once_on_plain_values():
    seen = []

    @bundle
    def f(x, y=node(5), *rest, **more):  # noqa: B008
        seen.append((x, y, rest, more))
        return x

    f(node(1), node([1, node(2)]), node(3), z=node("a"))
    assert seen == [(1, [1, 2], (3,), {"z": "a"})]


def test_a_node_as_default_is_an_input():
    prompt = node("Be kind.", trainable=True, name="prompt")

    @bundle
    def f(x, prompt=prompt, *, tail=prompt):
        return f"{prompt} {x} {tail}"

    result = f("you")
    assert result.data == "Be kind. you Be kind."
    assert result.backward("good")[prompt]
    prompt.assign("Be brief.")
    assert f("you").data == "Be brief. you Be brief."
    assert prompt not in tg.Graph.of(f("you", "a", tail="b")).parameters


# Nodes in containers


CONTAINERS = {
    "list": lambda a, b: [a, b],
    "tuple": lambda a, b: (a, b),
    "dict": lambda a, b: {"a": a, "b": b},
    "set": lambda a, b: {a, b},
    "frozenset": lambda a, b: frozenset({a, b}),
    "deep": lambda a, b: {"x": [({"y": a},), [[[b]]]]},
    "namedtuple": lambda a, b: Pair(a, b),
    "frozen dataclass": lambda a, b: Frozen(a, (b,)),
    "slotted dataclass": lambda a, b: [Slotted(a), Slotted(b)],
    "field without init": lambda a, b: [WithPost(a), WithPost(b)],
    "pydantic": lambda a, b: Model(text=a, items=[b]),
    "frozen pydantic": lambda a, b: (FrozenModel(text=a), FrozenModel(text=b)),
    "defaultdict": lambda a, b: defaultdict(list, {"a": [a], "b": [b]}),
    "OrderedDict": lambda a, b: OrderedDict(a=a, b=b),
    "Seq": lambda a, b: tg.Seq(a, b),
    "Map": lambda a, b: tg.Map({"a": a, "b": b}),
    "dict keys": lambda a, b: {a: 1, b: 2},
    "list subclass": lambda a, b: type("Mine", (list,), {})([a, b]),
    "dict subclass": lambda a, b: type("Mine", (dict,), {})(a=a, b=b),
    "node of a list of nodes": lambda a, b: node([a, b]),
}


@pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS.keys())
@pytest.mark.parametrize("how", ["position", "keyword", "variadic", "captured"])
def test_nodes_in_containers_are_inputs_and_arrive_as_values(make, how):
    a, b = node("A", trainable=True, name="a"), node("B", trainable=True, name="b")
    given = make(a, b)
    seen = []

    def walk(value):
        assert not isinstance(value, Node), value
        if isinstance(value, str):
            seen.append(value)
        elif isinstance(value, (tg.Map,)):
            walk(dict(value))
        elif isinstance(value, dict):
            walk([*value.keys(), *value.values()])
        elif isinstance(value, (list, tuple, set, frozenset, UserList)):
            for item in value:
                walk(item)
        elif dataclasses.is_dataclass(value):
            walk([getattr(value, f.name) for f in dataclasses.fields(value)])
        elif isinstance(value, pydantic.BaseModel):
            walk([getattr(value, name) for name in type(value).model_fields])

    if how == "captured":

        @bundle
        def f():
            walk(tg.unwrap(given))
            return 1

        result = f()
    else:

        @bundle
        def f(x=None, *rest):
            assert type(rest[0] if rest else x) is type(tg.unwrap(given))
            walk([x, *rest])
            return 1

        result = (
            f(given) if how == "position" else f(x=given) if how == "keyword" else f(None, given)
        )
    assert {"A", "B"} <= set(seen)
    assert set(tg.Graph.of(result).parameters) == {a, b}
    assert set(result.backward("hm")) == {a, b}


def test_the_callers_container_is_not_changed():
    a = node(1)
    given = {"x": [a, {"y": a}], "z": Frozen(a)}

    @bundle
    def f(x):
        x["x"].append(3)
        return x

    f(given)
    assert given == {"x": [a, {"y": a}], "z": Frozen(a)}
    assert given["x"][0] is a
    assert given["z"].text is a


def test_a_container_without_nodes_is_passed_itself():
    """What a function does to an argument, its caller sees: decorating changes no meaning."""
    given = [1, [2], {"a": 3}]

    @bundle
    def f(x):
        x.append(4)
        return x

    result = f(given)
    assert given[-1] == 4
    assert result.data is given


def test_shared_parts_and_one_node_twice():
    a = node("A", trainable=True, name="a")
    part = [a]

    @bundle
    def f(x, y):
        return x

    result = f([part, part, a], a)
    assert result.data == [["A"], ["A"], "A"]
    assert result.parents == [a._leaf()] or len(result.parents) == 1
    assert result.backward("x")[a]


def test_cyclic_containers():
    loop: list = [1]
    loop.append(loop)

    @bundle
    def f(x):
        return len(x)

    assert f(loop).data == 2
    loop.append(node(1))
    with pytest.raises(tg.CyclicValue) as caught:
        f(loop)
    assert isinstance(caught.value, ValueError)
    assert "x" in str(caught.value)
    ring: dict = {"n": node(1)}
    ring["me"] = ring
    with pytest.raises(tg.CyclicValue):
        f(x=ring)


@dataclasses.dataclass
class Link:
    value: object
    after: "Link | None" = None


@bundle
def values_of(link):
    found = []
    while link is not None:
        found.append(link.value)
        link = link.after
    return found


def test_a_very_deep_container_does_not_break():
    chain = None
    for number in range(5_000):
        chain = Link(number, chain)
    assert values_of(chain).data == list(range(4_999, -1, -1))
    assert values_of(chain).inputs["link"].data is chain
    a = node("a", trainable=True)
    b = node("b", trainable=True)
    chain.value, chain.after.value, chain.after.after.value = a, b, a
    last = chain
    while last.after is not None:
        last = last.after
    last.value = b
    result = values_of(chain)
    assert result.data == ["a", "b", "a", *range(4_996, 0, -1), "b"]
    assert last.value is b
    near, further, again, far = result.inputs
    assert (near, further, again) == ("link.value", "link.after.value", "link.after.after.value")
    assert far == f"link(+4980){'.after' * 19}.value"
    assert set(result.backward("shorter")) == {a, b}


def test_what_stands_twice_in_a_container_is_read_once():
    shared: list = [node("a", trainable=True)]
    for _ in range(200):
        shared = [shared, shared]  # 2**200 ways lead to the node

    @bundle
    def same(x):
        while isinstance(x, list) and len(x) == 2:
            first, second = x
            assert first is second
            x = first
        return x

    result = same(shared)
    assert result.data == ["a"]
    assert len(result.inputs) == 1
    bare: list = [1]
    for _ in range(200):
        bare = [bare, bare]
    assert same(bare).inputs["x"].data is bare


@pytest.mark.parametrize("trainable", [False, True])
def test_a_traceable_call_that_fails_marks_its_own_line(trainable):
    @bundle
    def refuse(word):
        raise ValueError(f"no {word}")

    @bundle(traceable=True, trainable=trainable)
    def answer(word, number):
        word = word + "!"
        return refuse(word) if number else word + number

    a = node("a", trainable=True)
    for number, error, said in ((1, ValueError, "no a!"), (0, TypeError, "can only concatenate")):
        with pytest.raises(error) as caught:
            answer(a, number)
        failure = tg.failed_node(caught.value)
        assert (failure.op, failure.inner.op) == ("answer", "refuse" if number else "add")
        (marked,) = [t for t in failure.create_feedback("full").splitlines() if "<---" in t]
        assert "return refuse(word) if number else word + number  <---" in marked
        assert said in marked


# Captured reads

WORLD = node("world", trainable=True, name="world_parameter")


def test_nodes_read_but_not_passed_are_captured():
    closed = node("closed", trainable=True, name="closed")

    class Agent:
        def __init__(self):
            self.mine = node("mine", trainable=True, name="mine")

        @bundle
        def speak(self, word):
            return f"{self.mine} {word} {closed.data} {WORLD}"

    agent = Agent()
    result = agent.speak("and")
    assert result.data == "mine and closed world"
    assert set(result.captured) == {"mine", "closed", "world_parameter"}
    assert set(result.backward("no")) == {agent.mine, closed, WORLD}


READS = {
    "data": lambda n: n.data,
    "str": str,
    "format": lambda n: f"{n:>5}",
    "bool": bool,
    "eq": lambda n: n == "x",
    "ne": lambda n: n != "x",
    "len": len,
    "contains": lambda n: "x" in n,
    "add": lambda n: n + "y",
    "radd": lambda n: "y" + n,
    "iter": list,
    "unpack": lambda n: [*n],
    "method": lambda n: n.upper(),
    "join": lambda n: "-".join(n),
    "index": lambda n: n[0],
    "unwrap": lambda n: tg.unwrap([n]),
    "returned": lambda n: n,
    "returned inside": lambda n: [{"a": n}],
    "eq_": lambda n: tg.eq(n, "x"),
    "passed on": lambda n: _inner(n),
    "lt": lambda n: n < "z",
    "min": lambda n: min(n, key=str),
    "percent": lambda n: "%s" % n,  # noqa: UP031
    "percent2": lambda n: n % (),
    "sorted": sorted,
    "reflected in": lambda n: n in ["x", "y"],
    "mul": lambda n: 3 * n,
    "isinstance of data": lambda n: isinstance(n.data, str),
}


@bundle
def _inner(x):
    return x


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
@pytest.mark.parametrize("kind", ["node", "parameter"])
def test_every_way_of_reading_captures(read, kind):
    source = node("abc", name="source", trainable=kind == "parameter")

    @bundle
    def f():
        return read(source)

    result = f()
    assert source._leaf() in tg.Graph.of(result).nodes, result.inputs
    assert not isinstance(result.data, Node)


def test_numbers_are_captured_by_every_conversion():
    n = node(3, name="n")
    for read in (int, float, complex, range, abs, round, divmod, hex):

        @bundle
        def f(read=read):
            return read(n, 2) if read is divmod else read(n)

        assert n in f().parents, read


def test_unread_nodes_are_no_inputs():
    unread = node("x")

    @bundle
    def f(x):
        return unread is not None and x

    assert unread not in f(1).parents


def test_what_a_nested_call_reads_belongs_to_the_outer_call_too():
    prompt = node("P", trainable=True, name="prompt")

    @bundle
    def inner(x):
        return x + prompt.data

    @bundle
    def outer(x):
        got = inner(x)
        assert got == "xP"
        assert not isinstance(got, Node)
        return got

    result = outer("x")
    assert len(tg.Graph.of(result)) == 3
    assert prompt in result.backward("hm")


def test_captured_names_do_not_collide_with_arguments():
    hidden = node(2, name="x")
    other = node(3, name="x")

    @bundle
    def f(x):
        return x + hidden.data + other.data

    result = f(node(1))
    assert len(result.inputs) == 3
    assert sorted(n.data for n in result.inputs.values()) == [1, 2, 3]


def test_nodes_made_inside_an_opaque_call_stay_inside():
    @bundle
    def f(x):
        temporary = node(5)
        return x + (temporary + 1)

    result = f(1)
    assert result.data == 7
    assert not isinstance(result.data, Node)


# Kinds of functions


def test_coroutines():
    prompt = node("P", trainable=True, name="prompt")

    @bundle
    async def ask(x):
        await asyncio.sleep(0)
        return f"{prompt}{x}"

    async def main():
        return await asyncio.gather(*(ask(node(i)) for i in range(5)))

    results = asyncio.run(main())
    assert [r.data for r in results] == [f"P{i}" for i in range(5)]
    for r in results:
        assert prompt in tg.Graph.of(r).parameters
        assert len(tg.Graph.of(r)) == 3


def test_a_coroutine_sees_the_policy_and_leaves_it_clean():
    @bundle
    async def ask(x):
        raise KeyError(x)

    async def main():
        with pytest.raises(KeyError) as caught:
            await ask(node(1))
        assert isinstance(caught.value, tg.ExecutionError)
        assert tg.failed_node(caught.value).op == "ask"
        assert isinstance(node(1) + 1, Node)

    asyncio.run(main())


def test_a_cancelled_coroutine_leaves_no_frame_open():
    @bundle
    async def wait():
        await asyncio.sleep(60)

    async def main():
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert isinstance(node(1) + 1, Node)

    asyncio.run(main())


def test_generators_give_a_node_per_item_and_the_return_value():
    @bundle
    def count(n):
        for i in range(n):
            got = yield i
            if got:
                yield got
        return "end"

    start = node(3, name="n")
    items = list(count(start))
    assert [i.data for i in items] == [0, 1, 2]
    assert all(start in i.parents for i in items)

    def drain():
        return (yield from count(1))

    walker = drain()
    next(walker)
    with pytest.raises(StopIteration) as end:
        next(walker)
    assert end.value.value == "end"


def test_generators_send_throw_and_close():
    log = []

    @bundle
    def talk():
        try:
            while True:
                try:
                    got = yield "?"
                    log.append(got)
                except KeyError as error:
                    log.append(repr(error))
        finally:
            log.append("closed")

    it = talk()
    assert next(it).data == "?"
    assert it.send("hi").data == "?"
    assert it.throw(KeyError("k")).data == "?"
    it.close()
    assert log == ["hi", "KeyError('k')", "closed"]
    assert isinstance(node(1) + 1, Node)


def test_between_two_items_the_consumer_records_its_own():
    @bundle
    def count():
        yield 1
        yield 2

    total = node(0)
    for item in count():
        total = total + item
    assert total.data == 3
    assert len([n for n in tg.Graph.of(total) if n.op == "count"]) == 2


def test_a_generator_that_fails_raises_its_own_error():
    @bundle
    def bad():
        yield 1
        raise LookupError("second")

    it = bad()
    assert next(it).data == 1
    with pytest.raises(LookupError, match="second") as caught:
        next(it)
    assert isinstance(caught.value, tg.ExecutionError)


def test_generator_reads_after_the_first_item_are_captured():
    late = node("late", trainable=True, name="late")

    @bundle
    def words():
        yield "first"
        yield late.data

    first, second = words()
    assert late in tg.Graph.of(second).parameters
    assert first.data == "first"
    # Each item knows what had been read when it was made: nothing yet at the first.
    assert late not in tg.Graph.of(first).parameters


def test_async_generators():
    late = node("late", trainable=True, name="late")

    @bundle
    async def words(x):
        yield x
        await asyncio.sleep(0)
        yield late.data

    async def main():
        return [item async for item in words(node("a"))]

    first, second = asyncio.run(main())
    assert (first.data, second.data) == ("a", "late")
    assert late in tg.Graph.of(second).parameters


def test_async_generators_close_and_throw():
    log = []

    @bundle
    async def words():
        try:
            while True:
                try:
                    yield 1
                except KeyError:
                    log.append("thrown")
        finally:
            log.append("closed")

    async def main():
        it = words()
        await anext(it)
        assert (await it.athrow(KeyError())).data == 1
        await it.aclose()

    asyncio.run(main())
    assert log == ["thrown", "closed"]


def test_methods_of_every_kind():
    class Base:
        tag = node("T", trainable=True, name="tag")

        @bundle
        def method(self, x):
            return f"{x}{self.tag}"

        @bundle
        @classmethod
        def below_class(cls, x):
            return f"{cls.__name__}{x}"

        @classmethod
        @bundle
        def above_class(cls, x):
            return f"{cls.__name__}{x}"

        @bundle
        @staticmethod
        def below_static(x):
            return x

        @staticmethod
        @bundle
        def above_static(x):
            return x

        @property
        @bundle
        def prop(self):
            return f"p{self.tag}"

        @functools.cached_property
        @bundle
        def cached(self):
            return f"c{self.tag}"

    class Child(Base):
        @bundle
        def method(self, x):
            return super().method(x) + "!"

    x = node("x", trainable=True, name="x")
    for thing in (Base(), Child()):
        name = type(thing).__name__
        assert thing.below_class(x).data == f"{name}x"
        assert thing.above_class(x).data == f"{name}x"
        assert type(thing).below_class(x).data == f"{name}x"
        assert thing.below_static(x).data == "x"
        assert type(thing).above_static(x).data == "x"
        assert thing.prop.data == "pT"
        assert Base.tag in tg.Graph.of(thing.prop).parameters
        assert list(thing.above_class(x).inputs) == ["x"]
        assert list(thing.below_class(x).inputs) == ["x"]
    assert Base().cached.data == "cT"
    assert Base().method(x).data == "xT"
    assert Base.method(Base(), x).data == "xT"
    assert set(tg.Graph.of(Child().method(x)).parameters) == {x, Base.tag}
    assert Child().method(x).data == "xT!"


def test_slotted_objects_and_objects_with_own_eq():
    class Slot:
        __slots__ = ("__weakref__", "x")

        @bundle(trainable=True)
        def f(self):
            return self.x

        def __eq__(self, other):
            raise RuntimeError("no comparing")

        __hash__ = None

    thing, other = Slot(), Slot()
    thing.x, other.x = 1, 2
    assert (thing.f().data, other.f().data) == (1, 2)
    assert thing.f.__func__ is thing.f.__func__
    assert thing.f.__func__ is not other.f.__func__


def test_lambdas_and_partials():
    double = bundle(lambda x: 2 * x)
    assert double(node(4)).data == 8
    assert double.__name__ == "<lambda>"
    offset = node(100, trainable=True, name="offset")
    part = bundle(functools.partial(plain, 1, c=offset))
    result = part(node(2))
    assert result.data == plain(1, 2, c=100)
    assert offset in tg.Graph.of(result).parameters
    assert functools.partial(bundle(plain), 1, c=3)(node(5)).data == plain(1, 5, c=3)
    asynchronous = functools.partial(bundle(_later), node(1))
    assert asyncio.run(asynchronous()).data == 1


async def _later(x):
    return x


def test_builtins_and_callable_objects():
    class Adder:
        def __call__(self, x, y=1):
            """Add."""
            return x + y

    assert bundle(len)(node([1, 2])).data == 2
    assert bundle(max)(node(1), node(5)).data == 5
    assert bundle(Adder())(node(1), y=node(2)).data == 3
    assert bundle(str.upper)(node("a")).data == "A"
    assert bundle("".join)(node(["a", "b"])).data == "ab"
    assert bundle(sorted)(node([2, 1]), reverse=node(True)).data == [2, 1]
    assert bundle(int)(node("12")).data == 12


def test_functions_typed_into_an_interpreter():
    namespace = {"bundle": bundle}
    exec("@bundle\ndef typed(x):\n    '''Doc.'''\n    return x + 1", namespace)
    typed = namespace["typed"]
    assert typed(node(1)).data == 2
    assert typed.__doc__ == "Doc."
    exec("@bundle\ndef bad(x):\n    return x / 0", namespace)
    with pytest.raises(ZeroDivisionError) as caught:
        namespace["bad"](node(1))
    assert tg.failed_node(caught.value) is not None
    with pytest.raises(tg.ParameterError, match="source"):
        exec("@bundle(trainable=True)\ndef typed(x):\n    return x", namespace)


def test_recursion_is_one_node():
    calls = []

    @bundle
    def fib(n):
        calls.append(n)
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    result = fib(node(10))
    assert result.data == 55
    assert len(tg.Graph.of(result)) == 2
    assert len(calls) == 177


def test_deep_recursion_gives_recursion_error_and_a_clean_state():
    @bundle
    def down(n):
        return down(n + 1)

    with pytest.raises(RecursionError):
        down(0)
    assert isinstance(node(1) + 1, Node)


def test_bundles_are_values_too():
    @bundle(trainable=True)
    def tool(x):
        return x + 1

    @bundle
    def agent(tools, x):
        for t in tools:
            x = t(x)
        return x

    result = agent([tool, tool], 1)
    assert result.data == 3
    assert tool.parameter in tg.Graph.of(result).parameters


def test_a_lambda_cannot_be_trainable():
    with pytest.raises(tg.ParameterError, match="lambda"):
        bundle(trainable=True)(lambda x: x)


# Traceable


def test_hidden_parameters_of_a_traceable_call_receive_feedback():
    hidden = node(3, trainable=True, name="hidden")
    unused = node(4, trainable=True, name="unused")

    @bundle(traceable=True)
    def inner(x):
        unused + 1
        y = x * hidden
        return y + 1

    x = node(2, trainable=True, name="x")
    result = inner(x)
    assert result.data == 7
    assert result.inner.op == "add"
    assert [n.op for n in tg.Graph.of(result) if n.op] == ["inner"]
    assert {n.op for n in tg.Graph.of(result.inner) if n.op} == {"multiply", "add"}
    assert set(result.backward("more")) >= {hidden, x}


def test_traceable_calls_nest():
    deep = node(3, trainable=True, name="deep")

    @bundle(traceable=True)
    def innermost(x):
        return x * deep

    @bundle(traceable=True)
    def middle(x):
        return innermost(x) + 1

    @bundle
    def opaque(x):
        return middle(x)

    assert deep in middle(node(2)).backward("x")
    assert middle(node(2)).data == 7
    result = opaque(node(2))
    assert result.data == 7
    assert deep in result.backward("x")


def test_a_traceable_body_returns_containers():
    hidden = node(3, trainable=True, name="hidden")

    @bundle(traceable=True)
    def inner(x):
        return {"a": x * hidden, "b": [x]}

    result = inner(node(2))
    assert result.data == {"a": 6, "b": [2]}
    assert hidden in result.backward("x")


def test_a_traceable_body_that_fails():
    hidden = node(0, trainable=True, name="hidden")

    @bundle(traceable=True)
    def inner(x):
        return x / hidden

    with pytest.raises(ZeroDivisionError) as caught:
        inner(node(1))
    failed = tg.failed_node(caught.value)
    assert failed.op == "inner"
    assert hidden in failed.backward("avoid zero")


def test_a_traceable_body_that_chooses_by_a_node():
    """What decided a branch was read: it belongs to the inputs though it is not in the value."""
    switch = node(True, trainable=True, name="switch")

    @bundle(traceable=True)
    def inner(x):
        if switch:
            return x + 1
        return x

    assert switch in inner(node(1)).backward("x")


# Trainable


def test_a_trainable_bundle_is_a_parameter_and_an_input():
    @bundle(trainable=True)
    def price(a, b):
        """Add."""
        return a + b

    (code,) = price.parameters()
    assert code is price.parameter
    assert code.kind.name == "code"
    assert code.data.startswith("def price(a, b):")
    result = price(1, node(2))
    assert set(result.backward("x")) == {code}
    code.assign("def price(a, b):\n    return a * b + 10")
    assert price(2, 3).data == 16
    assert result.data == 3


REFUSED = {
    "syntax": "def price(a, b:\n return 1",
    "other name": "def cost(a, b):\n    return 1",
    "other signature": "def price(a):\n    return 1",
    "async": "async def price(a, b):\n    return 1",
    "twice": "def price(a, b):\n    return 1\ndef price(a, b):\n    return 2",
    "empty": "",
    "null bytes": "def price(a, b):\n    return '\0'",
    "prose": "Here is the code you asked for.",
    "class": "class price:\n    pass",
    "nested": "if True:\n    def price(a, b):\n        return 1",
    "return outside": "def price(a, b):\n    return 1\nreturn 5",
    "no text": None,
    "number": 3,
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_text_that_is_no_replacement_is_refused_and_nothing_changes(text):
    @bundle(trainable=True)
    def price(a, b):
        return a + b

    before = price.parameter.data
    with pytest.raises(tg.Rejected) as caught:
        price.parameter.assign(text)
    assert caught.value.parameter is price.parameter
    assert caught.value.reason
    assert price.parameter.data == before
    assert price.parameter.version == 0
    assert price(1, 2).data == 3


def test_code_of_an_optimizer_is_not_run_unasked():
    @bundle(trainable=True)
    def price(a):
        return a

    price.parameter.assign("def price(a):\n    return a + 1", origin="optimizer")
    assert price(1).data == 2  # in the sandbox
    price.parameter.trust()
    assert price(1).data == 2


def test_trainable_keeps_closures_defaults_and_globals():
    step = 1

    def outer():
        total = 10

        @bundle(trainable=True)
        def f(x, y=step):
            nonlocal total
            total += 1
            return x + y + total

        def change():
            nonlocal total
            total = 100

        return f, change

    f, change = outer()
    assert f(1).data == 13
    change()
    assert f(1).data == 103
    f.parameter.assign(f.parameter.data.replace("total += 1", "total += 2"))
    assert f(1).data == 105


def test_trainable_methods_belong_to_one_object():
    class Agent:
        @bundle(trainable=True)
        def act(self, x):
            return x

        @bundle(trainable=True)
        def other(self, x):
            return -x

    one, two = Agent(), Agent()
    one.act.parameter.assign("def act(self, x):\n    return x + 1")
    assert (one.act(1).data, two.act(1).data, one.other(1).data) == (2, 1, -1)
    assert one.act.parameter is one.act.parameter
    assert one.act.parameter is not two.act.parameter
    assert one.act(1).backward("x").keys() == {one.act.parameter}


def test_trainable_with_super_and_dunder_class():
    class Base:
        def act(self, x):
            return x

    class Child(Base):
        @bundle(trainable=True)
        def act(self, x):
            return super().act(x) + 1

        @bundle(trainable=True)
        def named(self):
            return __class__.__name__

    child = Child()
    assert child.act(1).data == 2
    assert child.named().data == "Child"
    child.act.parameter.assign("def act(self, x):\n    return super().act(x) + 5")
    assert child.act(1).data == 6


@pytest.mark.parametrize("profile", [False, True])
def test_a_copy_runs_the_text_in_force(profile):
    class Agent(tg.Module):
        @bundle(trainable=True, profile=profile)
        def act(self, x):
            return x

    @bundle(trainable=True, profile=profile)
    def act(x):
        return x

    assert copy.deepcopy(act)(1).data == 1
    act.parameter.assign("def act(x):\n    return x + 1\n")
    again = copy.deepcopy(copy.deepcopy(act))  # before the text has run, and after
    assert (again(1).data, act(1).data, copy.deepcopy(act)(1).data) == (2, 2, 2)
    act.parameter.assign("def act(x):\n    return x + 2\n", origin="optimizer")
    assert copy.deepcopy(act)(1).data == 3
    with tg.Overlay({act.parameter: "def act(x):\n    return x + 3\n"}, origin="person"):
        inside = copy.deepcopy(act)
    assert (inside(1).data, act(1).data, again(1).data) == (4, 3, 2)

    agent = Agent()
    agent.act.parameter.assign("def act(self, x):\n    return x + 1\n")
    twin, sharing = copy.deepcopy(agent), agent.copy()
    assert (twin.act(1).data, sharing.act(1).data) == (2, 2)
    twin.act.parameter.assign("def act(self, x):\n    return x + 2\n")
    assert (twin.act(1).data, sharing.act(1).data, agent.act(1).data) == (3, 2, 2)
    Agent.act.parameter.assign("def act(self, x):\n    return x + 5\n")
    assert (Agent().act(1).data, agent.act(1).data) == (6, 2)


def test_a_new_text_may_ask_super_where_the_first_did_not():
    class Base:
        def act(self, x):
            return x

    class Child(Base):
        @bundle(trainable=True)
        def act(self, x):
            return 0

    child = Child()
    child.act.parameter.assign("def act(self, x):\n    return super().act(x) + 1, __class__\n")
    assert child.act(1).data == (2, Child)
    assert copy.deepcopy(child).act(1).data == (2, Child)


@pytest.mark.parametrize("slots", [False, True])
def test_a_trainable_method_may_call_the_trainable_one_that_it_overrides(slots):
    class Base:
        __slots__ = ("__dict__", "__weakref__") if not slots else ("__weakref__",)

        @bundle(trainable=True)
        def act(self, x):
            return f"base {x}"

    class Child(Base):
        __slots__ = ()

        @bundle(trainable=True)
        def act(self, x):
            return f"child, {super().act(x)}"

    class Heir(Child):
        __slots__ = ()

    for kind in (Child, Heir):
        child = kind()
        result = child.act(1)
        assert result.data == "child, base 1"
        assert set(result.backward("shorter")) == {child.act.parameter, Base.act.parameter}
        child.act.parameter.assign("def act(self, x):\n    return f'now, {super().act(x)}'\n")
        assert child.act(1).data == "now, base 1"
    Base.act.parameter.assign("def act(self, x):\n    return f'basis {x}'\n")
    assert child.act(1).data == "now, basis 1"
    base, other = Base(), Child()
    base.act.parameter.assign("def act(self, x):\n    return f'mine {x}'\n")
    assert (base.act(1).data, other.act(1).data) == ("mine 1", "child, basis 1")


def test_trainable_methods_of_one_name_stay_apart():
    def speaker(word):
        @bundle(trainable=True)
        def say(self):
            return word

        return say

    class Agent(tg.Module):
        yes = speaker("yes")
        no = speaker("no")

    agent = Agent()
    assert (agent.yes().data, agent.no().data) == ("yes", "no")
    assert agent.yes.parameter is not agent.no.parameter
    assert agent.named_parameters() == {
        "yes": agent.yes.parameter, "no": agent.no.parameter
    }  # fmt: skip


def test_trainable_staticmethods_and_classmethods():
    class Agent:
        @staticmethod
        @bundle(trainable=True)
        def static(x):
            return x

        @classmethod
        @bundle(trainable=True)
        def of(cls, x):
            return cls.__name__, x

        @bundle(trainable=True)
        @staticmethod
        def below(x):
            return x

    assert Agent.static(1).data == 1
    assert Agent().below(1).data == 1
    assert Agent.of(2).data == ("Agent", 2)
    Agent.static.parameter.assign("def static(x):\n    return x + 1")
    assert Agent().static(1).data == 2


@pytest.mark.parametrize("origin", ["person", "optimizer"])
def test_a_trainable_classmethod_takes_a_new_text_above_and_below_its_decorator(origin):
    class Agent:
        factor = 3

        @classmethod
        @bundle(trainable=True)
        def above(cls, x):
            return x

        @bundle(trainable=True)
        @classmethod
        def below(cls, x):
            return x

    for method in (Agent.above, Agent.below):
        text = method.parameter.data.replace("return x", "return x * cls.factor")
        method.parameter.assign(text, origin=origin)
        assert method(2).data == 6
    assert Agent().above(2).data == Agent().below(2).data == 6


@pytest.mark.parametrize("origin", ["person", "optimizer"])
@pytest.mark.parametrize("above", ["@property", "@(lambda function: 7)"])
def test_a_text_that_makes_what_cannot_be_called_fails_as_a_call(origin, above):
    @bundle(trainable=True)
    def f(x):
        return x

    f.parameter.assign(f"{above}\ndef f(x):\n    return x\n", origin=origin)
    with pytest.raises(TypeError, match=r"'f' is a .*, which cannot be called") as caught:
        f(1)
    assert set(tg.failed_node(caught.value).backward("wrong")) == {f.parameter}


def test_a_text_may_be_wrapped_by_what_has_no_name_of_its_own():
    @bundle(trainable=True)
    def f(x):
        return x

    f.parameter.assign("@(lambda function: abs)\ndef f(x):\n    return x\n")
    assert f(-3).data == 3


def test_trainable_async_and_generators():
    @bundle(trainable=True)
    async def ask(x):
        return x

    @bundle(trainable=True)
    def count(n):
        yield from range(n)

    assert asyncio.run(ask(1)).data == 1
    assert [i.data for i in count(2)] == [0, 1]
    ask.parameter.assign("async def ask(x):\n    return x + 1")
    count.parameter.assign("def count(n):\n    yield n\n    yield n")
    assert asyncio.run(ask(1)).data == 2
    assert [i.data for i in count(2)] == [2, 2]


def test_trainable_recursion_uses_the_new_text():
    @bundle(trainable=True)
    def fact(n):
        return 1 if n == 0 else n * fact(n - 1)

    assert fact(5).data == 120
    fact.parameter.assign("def fact(n):\n    return 0 if n == 0 else n + fact(n - 1)")
    result = fact(4)
    assert result.data == 10
    assert len(tg.Graph.of(result)) == 3


def test_trainable_text_may_bring_helpers_and_imports():
    @bundle(trainable=True)
    def f(x):
        return x

    f.parameter.assign(
        "import math\nfrom math import pi as PI\nK = 2\ndef help_(x):\n    return math.floor(x) * K\n"
        "def f(x):\n    return help_(x) + int(PI)"
    )
    assert f(2.5).data == 7


def test_a_version_is_compiled_once_however_often_it_runs(monkeypatch):
    @bundle(trainable=True)
    def f(x):
        return x

    compiled = []
    made = Source.compile
    monkeypatch.setattr(Source, "compile", lambda *args: compiled.append(1) or made(*args))
    for version in range(1, 4):
        f.parameter.assign(f"def f(x):\n    return x + {version}")
        assert [f(x).data for x in range(5)] == [x + version for x in range(5)]
        assert len(compiled) == version


def test_a_call_makes_no_new_leaf_for_its_text():
    @bundle(trainable=True)
    def f(x):
        return x

    (first,) = [n for n in f(1).parents if n.parameter is not None]
    number = first.id
    del first
    assert [n.id for n in f(2).parents if n.parameter is not None] == [number]
    f.parameter.assign("def f(x):\n    return x + 1")
    assert [n.id for n in f(3).parents if n.parameter is not None] != [number]


def test_a_failure_in_new_code_shows_its_own_line():
    import traceback

    @bundle(trainable=True)
    def f(x):
        return x

    f.parameter.assign("def f(x):\n    y = x\n    return y / 0  # here")
    with pytest.raises(ZeroDivisionError) as caught:
        f(1)
    assert "return y / 0  # here" in "".join(traceback.format_exception(caught.value))
    full = tg.failed_node(caught.value).create_feedback("full")
    assert "return y / 0  # here  <---" in full


# Options


def test_descriptions_and_names():
    @bundle(description="[add_up] Adds (x")
    def f(x):
        return x

    assert f.name == "add_up"
    assert f(1).op == "add_up"
    assert f(1).description == "Adds (x"
    assert bundle("[g] does")(plain).name == "g"
    assert bundle(name="given", description="[ignored] says")(plain).name == "given"
    assert bundle(description="no brackets")(plain).name == "plain"


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"projections": []}, "constraint"),
        ({"_process_inputs": False}, "traceable"),
        ({"trainabel": True}, "trainable"),
        ({"colour": 1}, "has no option"),
        ({"rules": 3}, "rules"),
        ({"rules": {"Gradient": print}}, "rules"),
        ({"name": 3}, "name must be text, got 3"),
        ({"output_name": 3}, "name must be text, got 3"),
        ({"description": 3}, "description must be text, got 3"),
        ({"constraint": "short"}, "constraint= is for code .* add trainable=True"),
        ({"checks": [len], "host": {"f": len}}, "checks= and host= are for code"),
        ({"profile": True}, "profile= is for code"),
        ({"trainable": True, "host": 3}, "host= maps names to functions, got 3"),
        ({"trainable": True, "host": {"f": 3}}, "host= maps names to functions"),
        ({"trainable": True, "trust": "no"}, "trust= is True or False, got 'no'"),
        ({"trainable": True, "profile": 1}, "profile= is True or False, got 1"),
        ({"trainable": True, "host": {"a b": len}}, "host= maps names that code can call .*'a b'"),
        ({"trainable": True, "host": {"def": len}}, "host= maps names that code can call .*'def'"),
    ],
)
def test_wrong_options_are_named(options, word):
    with pytest.raises(TypeError, match=word):
        bundle(**options)(plain)


def test_options_of_microsoft_trace_mean_the_same():
    hidden = node(2, trainable=True, name="hidden")

    @bundle(traceable_code=True, allow_external_dependencies=True, overwrite_python_recursion=True)
    def f(x):
        return x * hidden

    assert f(node(1)).inner.op == "multiply"

    @bundle(output_name="answer")
    def g(x):
        return x

    assert g(1).op == "answer" or g(1).label == "answer"

    @bundle(catch_execution_error=False)
    def h(x):
        raise KeyError("k")

    with pytest.raises(KeyError) as caught:
        h(1)
    assert not isinstance(caught.value, tg.ExecutionError)


@pytest.mark.parametrize("target", [3, 5.0, [print]])
def test_what_is_no_function_is_refused(target):
    with pytest.raises(TypeError):
        bundle(target)


def test_a_bundle_is_decorated_once():
    with pytest.raises(TypeError, match="already"):
        bundle(bundle(plain))


def test_other_decorators_around_and_below():
    def logged(function):
        @functools.wraps(function)
        def run(*args, **kwargs):
            return function(*args, **kwargs)

        return run

    @logged
    @bundle
    def above(x):
        return x

    @bundle
    @logged
    def below(x):
        return x

    @bundle(trainable=True)
    @logged
    def train(x):
        return x

    assert above(node(1)).data == below(node(1)).data == train(node(1)).data == 1
    assert inspect.signature(below) == inspect.signature(below.__wrapped__)


def test_lru_cache_below():
    @bundle
    @functools.lru_cache
    def f(x):
        return x + 1

    assert f(node(1)).data == 2
    assert f(node(1)).data == 2
    assert f.__wrapped__.cache_info().hits == 1


def test_bundles_cannot_be_pickled_into_another_process_silently():
    with pytest.raises((pickle.PicklingError, TypeError, AttributeError)):
        pickle.dumps(bundle(lambda x: x))


def test_previews_keep_what_was_true():
    given = [1]
    x = node(given, name="x")

    @bundle
    def push(items):
        items.append(2)
        return len(items)

    result = push(x)
    assert result.data == 2
    assert x.preview == "[1]"
    assert result.inputs["items"].preview == "[1]"
    fresh = push(given)
    assert fresh.inputs["items"].preview == "[1, 2]"
    given.append(3)
    assert fresh.inputs["items"].preview == "[1, 2]"


def test_a_result_that_is_a_node_or_holds_nodes_becomes_plain():
    source = node(1, name="source")

    @bundle
    def f():
        return source

    @bundle
    def g():
        return [source, {"x": source}]

    assert f().data == 1
    assert g().data == [1, {"x": 1}]
    assert source in f().parents
    assert source in g().parents


def test_none_is_a_result_like_any_other():
    assert bundle(lambda: None)().data is None


def test_arguments_that_resist_comparing_and_hashing():
    class Odd:
        def __eq__(self, other):
            raise RuntimeError("no")

        __hash__ = None

        def __repr__(self):
            raise RuntimeError("no")

        def __getattr__(self, name):
            raise RuntimeError("no")

        def __bool__(self):
            raise RuntimeError("no")

    odd = Odd()
    result = bundle(lambda x, y: x)(odd, [odd])
    assert result.data is odd
    assert isinstance(result.preview, str)


def test_generators_as_arguments_are_not_consumed():
    items = iter([1, 2, 3])
    assert bundle(lambda it: next(it))(items).data == 1
    assert list(items) == [2, 3]


def test_a_huge_number_of_arguments():
    result = bundle(lambda *xs: sum(xs))(*(node(i) for i in range(1000)))
    assert result.data == sum(range(1000))
    assert len(result.inputs) == 1000


def test_calls_in_a_thread_started_inside_a_call():
    """A thread has its own context: what it records is its own graph."""
    import threading

    made = []

    @bundle
    def f():
        thread = threading.Thread(target=lambda: made.append(node(1) + 1))
        thread.start()
        thread.join()
        return 1

    f()
    assert isinstance(made[0], Node)


def test_to_thread_keeps_the_frame():
    prompt = node("P", trainable=True, name="prompt")

    @bundle
    async def f():
        return await asyncio.to_thread(lambda: prompt.data)

    assert prompt in tg.Graph.of(asyncio.run(f())).parameters


def test_gathered_calls_inside_a_call_all_count_as_read():
    parts = [node(f"p{i}", trainable=True, name=f"p{i}") for i in range(10)]

    @bundle
    async def part(i):
        await asyncio.sleep(0)
        return parts[i].data

    @bundle
    async def whole():
        return "".join(await asyncio.gather(*(part(i) for i in range(10))))

    result = asyncio.run(whole())
    assert result.data == "".join(p.data for p in parts)
    assert set(tg.Graph.of(result).parameters) == set(parts)


def test_ids_of_inputs_are_smaller():
    @bundle
    def f(x, *rest, **more):
        return x

    for result in (f(1, 2, 3, y=4), f([node(1)], {"a": node(2)})):
        assert all(n.id < result.id for n in result.inputs.values())


def test_itertools_and_map_over_a_bundle():
    add = bundle(lambda a, b: a + b)
    assert [n.data for n in map(add, [node(1), 2], [3, node(4)])] == [4, 6]
    assert functools.reduce(add, [node(i) for i in range(5)]).data == 10
    assert list(itertools.accumulate([node(1), node(2)], add))[-1].data == 3


def test_a_plain_function_that_gives_a_coroutine_is_awaited():
    prompt = node("P", trainable=True, name="prompt")

    async def ask(x):
        await asyncio.sleep(0)
        return f"{prompt}{x}"

    class Caller:
        async def __call__(self, x):
            return await ask(x)

    for made in (bundle(lambda x: ask(x)), bundle(Caller())):
        result = asyncio.run(_waited(made(node("x"))))
        assert result.data == "Px"
        assert prompt in tg.Graph.of(result).parameters


async def _waited(awaitable):
    return await awaitable


@pytest.mark.parametrize("recorded", [True, False])
def test_what_a_step_raises_is_freed_with_what_it_holds(recorded):
    class Refusal(Exception):
        pass

    def made(function):
        return bundle(catch_execution_error=recorded)(function)

    @made
    async def awaited(x):
        raise Refusal

    @made
    def stepped(x):
        yield x
        raise Refusal

    @made
    async def stepped_later(x):
        yield x
        raise Refusal

    async def seen():
        found = []
        for asked in (awaited, stepped, stepped_later):
            try:
                if asked is awaited:
                    await asked(1)
                elif asked is stepped:
                    list(asked(1))
                else:
                    [item async for item in asked(1)]
            except Refusal as error:
                found.append(weakref.ref(error))
        return [error() for error in found]

    gc.disable()
    try:
        assert asyncio.run(seen()) == [None] * 3
    finally:
        gc.enable()


def test_parameters_may_have_any_name():
    @bundle
    def f(**words):
        return words

    given = {"self": 1, "function": 2, "error": 3, "x": 4, "args": 5, "bundle": 6, "name": 7}
    assert f(**given).data == given
    assert node(f.__wrapped__)(**given).data == given
    assert sorted(f(**{k: node(v) for k, v in given.items()}).inputs) == sorted(given)
