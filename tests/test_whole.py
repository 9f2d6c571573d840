"""Whole classes and whole modules as one parameter."""

import asyncio
import contextlib
import copy
import dataclasses
import importlib.util
import itertools
import re
import sys
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import pytest

import tracegraph as tg
from optimizers import OptoPrime
from tests.interleaving import Once
from tracegraph import Overlay, ParameterError, Rejected, SandboxError, bundle, failed_node, node
from tracegraph.definitions import ClassSource
from tracegraph.lasting import LostStateWarning
from tracegraph.sandbox import Result
from tracegraph.together import code_of

PLACES = ("in place", "apart")


def rewrite(parameter, text, place):
    """Give a code parameter a text that an optimizer wrote, trusted where it shall run in place."""
    parameter.assign(text, origin="optimizer")
    if place == "in place":
        parameter.trust()


def counter():
    @bundle(trainable=True)
    class Counter:
        """Counts up."""

        STEP = 1

        def __init__(self, start, *, names=()):
            self.count = start
            self.names = list(names)

        def add(self, amount):
            """Add an amount."""
            self._grow(amount)
            return self.count

        def _grow(self, amount):
            self.count += amount * self.STEP

        @property
        def double(self):
            return 2 * self.count

        @double.setter
        def double(self, value):
            self.count = value // 2

        @staticmethod
        def twice(x):
            return 2 * x

        @classmethod
        def at(cls, start):
            return cls(start)

        def me(self):
            return self

        def __len__(self):
            return self.count

        def __eq__(self, other):
            return isinstance(other, Counter) and self.count == other.count

        __hash__ = None

        def __add__(self, other):
            return Counter(self.count + other.count)

        def items(self):
            yield from range(self.count)

        async def later(self, x):
            return self.count + x

        def __call__(self, x):
            return x + self.count

    return Counter


def faster(Counter):
    """The text of Counter with another step, a helper more, and everything doubled."""
    return (
        Counter.parameter.data.replace("STEP = 1", "STEP = 10")
        .replace("return 2 * self.count", "return 20 * self.count")
        .replace("return self.count + x", "return self._extra() + x")
        .replace("def _grow", "def _extra(self):\n        return 100\n\n    def _grow")
    )


def test_the_class_stays_the_class_that_it_is():
    Counter = counter()
    made = Counter(3, names=["a"])
    assert isinstance(Counter, type)
    assert isinstance(made, Counter)
    assert (Counter.__name__, Counter.__doc__) == ("Counter", "Counts up.")
    assert (made.count, made.names, made.double, len(made)) == (3, ["a"], 6, 3)
    assert made.add.__doc__ == "Add an amount."
    assert (Counter.parameter.kind.name, Counter.parameter.origin) == ("code", "person")
    assert made == Counter(3)
    assert Counter.parameter.data.startswith("class Counter:")


def test_public_methods_are_recorded_with_the_one_code():
    Counter = counter()
    made = Counter(3)
    result = made.add(node(2, name="amount"))
    assert result.data == 5
    assert list(result.inputs) == ["amount", "__code"]
    other = made(1)
    assert other.inputs["__code"] is result.inputs["__code"]
    received = (result + other).backward("more")
    assert Counter.parameter in received
    assert isinstance(made.double, int)


@pytest.mark.parametrize("place", PLACES)
def test_everything_a_class_can_do_follows_the_text(place):
    Counter = counter()
    made = Counter(3)
    rewrite(Counter.parameter, faster(Counter), place)
    assert made.add(2).data == 23
    assert made.count == 23
    assert made.STEP == 10
    assert Counter.STEP == 10
    assert made.double == 460
    made.double = 8
    assert made.count == 4
    assert len(made) == 4
    assert Counter.twice(4).data == 8
    assert made.me().data is made
    assert [n.data for n in made.items()] == [0, 1, 2, 3]
    assert asyncio.run(_awaited(made.later(1))).data == 101
    assert made(1).data == 5
    assert made == Counter(4)
    assert made != Counter(5)
    both = made + Counter(6)
    assert type(both) is Counter
    assert both.count == 10
    assert type(Counter.at(9).data) is Counter
    assert isinstance(Counter(1), Counter)


async def _awaited(call):
    return await call


@pytest.mark.parametrize("place", PLACES)
def test_a_failure_marks_the_innermost_line_of_the_text(place):
    @bundle(trainable=True)
    class Shares:
        def __init__(self, total):
            self.total = total

        def of(self, parts):
            return self.total

    shares = Shares(12)
    text = (
        "class Shares:\n"
        "    def __init__(self, total):\n"
        "        self.total = total\n"
        "    def of(self, parts):\n"
        "        return self._divided(parts)\n"
        "    def _divided(self, parts):\n"
        "        wanted = parts - 1\n"
        "        return self.total / wanted\n"
    )
    rewrite(Shares.parameter, text, place)
    assert shares.of(4).data == 4
    with pytest.raises(ZeroDivisionError) as caught:
        shares.of(1)
    feedback = failed_node(caught.value).create_feedback("full")
    assert re.search(r"8 \|         return self.total / wanted  <--- \(ZeroDivisionError", feedback)
    assert "wanted = 0" in feedback
    assert "self.total = 12" in feedback
    assert " at 0x" not in feedback


def test_a_failure_in_a_helper_of_the_first_text_is_marked_there():
    @bundle(trainable=True)
    class Shares:
        def of(self, parts):
            return self._divided(parts)

        def _divided(self, parts):
            wanted = parts - 1
            return 1 / wanted

    with pytest.raises(ZeroDivisionError) as caught:
        Shares().of(1)
    feedback = failed_node(caught.value).create_feedback("full")
    assert "return 1 / wanted  <--- (ZeroDivisionError)" in feedback
    assert "wanted = 0" in feedback


REFUSED = {
    "class Box:\n    def __init__(self, x):\n        self.x = x\n": "keep 'Box.get'",
    "class Box:\n    def __init__(self): pass\n    def get(self, k): pass\n": "must stay",
    "class Box:\n    def __init__(self, x): pass\n    async def get(self, k): pass\n": "must stay",
    "class Box:\n    def __init__(self, x): pass\n    @property\n    def get(self, k): pass\n": "must",
    "class Box(list):\n    def __init__(self, x): pass\n    def get(self, k): pass\n": "must stay",
    "class Box:\n  def __init__(self, x): pass\n  def get(self, k): pass\n  def __del__(self): pass\n": (
        "__del__"
    ),
    "class Box:\n  __slots__ = ('x',)\n  def __init__(self, x): pass\n  def get(self, k): pass\n": (
        "__slots__"
    ),
    "def Box(x): pass": "must define 'Box'",
    "class Box:\n  def __init__(self, x): pass\n  def get(self, k): pass\nreturn 1": "return",
}


@pytest.mark.parametrize(("text", "word"), REFUSED.items(), ids=map(str, range(len(REFUSED))))
def test_a_text_that_does_not_fit_changes_nothing(text, word):
    @bundle(trainable=True)
    class Box:
        def __init__(self, x):
            self.x = x

        def get(self, k):
            return self.x

    before = Box.parameter.data
    with pytest.raises(Rejected, match=re.escape(word)) as caught:
        Box.parameter.assign(text)
    assert Box.parameter.data == before
    assert Box(3).get(0).data == 3
    assert "<---" in str(caught.value) or "must define" in str(caught.value)


def test_what_an_optimizer_wrote_never_runs_here_unasked(tmp_path):
    @bundle(trainable=True)
    class Quiet:
        def get(self):
            return 1

    mark = tmp_path / "mark"
    text = (
        f"open({str(mark)!r}, 'w')\n"
        "class Quiet:\n"
        f"    open({str(mark)!r}, 'w')\n"
        "    def get(self):\n"
        "        return 1\n"
    )
    Quiet.parameter.assign(text, origin="optimizer")
    for use in (Quiet().get, lambda: Quiet.get(Quiet())):
        with pytest.raises(PermissionError):
            use()
    assert not mark.exists()


class Forger:
    """A sandbox whose code has taken over its process, and says what it likes."""

    layers = {}

    def __init__(self, told):
        self.told = told

    def call(self, source, entry, args=(), kwargs=None, *, host=None, fresh=True):
        return Result(value=self.told)

    def map(self, source, entry, many, *, host=None, fresh=False):
        return [self.call(source, entry) for _ in many]

    def close(self):
        pass


@pytest.mark.parametrize(
    "told",
    [
        ("value", 1, {"__class__": 1}),
        ("value", 1, {"_bundle_get": 1}),
        ("value", 1, {1: 2}),
        ("value", 1, 7),
        ("value", 1, {"prompt": "Be rude."}),
        ("value", 1, {}),
        ("object", {"__class__": 1}, {"prompt": "Be kind."}),
        ("object", 3, {"prompt": "Be kind."}),
        ("value", 1),
        (1, 2, 3),
        None,
    ],
)
def test_a_forged_answer_does_not_reach_the_object(told):
    @bundle(trainable=True, sandbox=Forger(told))
    class Box:
        def __init__(self):
            self.prompt = node("Be kind.", trainable=True)

        def get(self):
            return 1

    box = Box()
    before = dict(vars(box))
    rewrite(Box.parameter, Box.parameter.data.replace("return 1", "return 2"), "apart")
    with pytest.raises(SandboxError):
        box.get()
    assert vars(box) == before
    assert type(box) is Box


def test_values_that_cannot_travel_are_named_with_what_to_do():
    @bundle(trainable=True)
    class Holder:
        def __init__(self, lock):
            self.lock = lock

        def get(self):
            return 1

    holder = Holder(threading.Lock())
    rewrite(Holder.parameter, Holder.parameter.data.replace("return 1", "return 2"), "apart")
    with pytest.raises(SandboxError, match=r"^Holder\.lock is of type lock.*parameter\.trust"):
        holder.get()
    Holder.parameter.trust()
    assert holder.get().data == 2


def test_nodes_in_an_object_are_read_and_stay():
    @bundle(trainable=True)
    class Agent:
        def __init__(self, prompt):
            self.prompt = prompt
            self.asked = 0

        def ask(self, question):
            return question

    prompt = node("Be kind.", trainable=True, name="prompt")
    agent = Agent(prompt)
    body = "self.asked += 1\n        return self.prompt + question"
    rewrite(Agent.parameter, Agent.parameter.data.replace("return question", body), "apart")
    answer = agent.ask("Why?")
    assert answer.data == "Be kind.Why?"
    assert agent.prompt is prompt
    assert agent.asked == 1
    assert {prompt, Agent.parameter} <= set(answer.backward("rude"))
    made = Agent(prompt).ask("How?")  # made apart: what made it counts as read
    assert prompt in made.backward("rude")
    body = "self.prompt = 'Be rude.'\n        return question"
    rewrite(Agent.parameter, Agent.parameter.data.replace("return self.prompt + question", body),
            "apart")  # fmt: skip
    with pytest.raises(SandboxError, match=r"replaced Agent\.prompt"):
        agent.ask("Why?")
    assert agent.prompt is prompt


def test_a_call_that_fails_apart_leaves_the_object_as_it_was():
    Counter = counter()
    made = Counter(3)
    text = Counter.parameter.data.replace("return self.count\n", "raise ValueError('no')\n", 1)
    rewrite(Counter.parameter, text, "apart")
    with pytest.raises(ValueError, match="no"):
        made.add(1)
    assert made.count == 3


def test_bases_closures_super_and_decorators_below():
    bonus = 5

    class Base:
        def worth(self, x):
            return x + 1

    @bundle(trainable=True)
    @dataclasses.dataclass
    class Heir(Base):
        rate: float = 1.0

        def worth(self, x):
            return super().worth(x) * self.rate + bonus

    heir = Heir(2.0)
    assert heir == Heir(2.0)
    assert heir.worth(1).data == 9
    text = Heir.parameter.data
    assert text.startswith("@dataclasses.dataclass\nclass Heir(Base):")
    rewrite(Heir.parameter, text.replace("+ bonus", "- bonus"), "in place")
    bonus = 6
    assert heir.worth(1).data == -2
    assert repr(heir).endswith("Heir(rate=2.0)")
    assert Heir(3.0).rate == 3.0
    assert Heir(3.0) == Heir(3.0)
    Heir.parameter.trusted = False
    with pytest.raises(SandboxError, match=r"derives from 'Base'.*trust"):
        heir.worth(1)


def test_bases_of_python_itself_go_along():
    @bundle(trainable=True)
    class Shape(ABC):  # noqa: B024
        def area(self, x):
            return x

    text = Shape.parameter.data.replace("return x", "return x * x")
    rewrite(Shape.parameter, text, "apart")
    assert Shape().area(3).data == 9


def test_what_the_decorators_of_a_class_make_stays():
    @bundle(trainable=True)
    @dataclasses.dataclass
    class Point:
        x: int
        y: int = 0

        def size(self):
            return self.x + self.y

    text = Point.parameter.data
    for old, new, word in [
        ("@dataclasses.dataclass\n", "", "must stay `@dataclasses.dataclass class Point`"),
        ("x: int\n", "x: int\n    z: int\n", "must stay `fields x, y=...`"),
        ("y: int = 0", "y: int", "must stay `fields x, y=...`"),
    ]:
        with pytest.raises(Rejected, match=re.escape(word)):
            Point.parameter.assign(text.replace(old, new))
    Point.parameter.assign(text.replace("+ self.y", "* self.y").replace("y: int", "y: float"))
    assert Point(2, 3).size().data == 6


@pytest.mark.parametrize("place", PLACES)
def test_a_helper_that_went_is_no_attribute(place):
    @bundle(trainable=True)
    class Box(ABC):  # noqa: B024
        def get(self):
            return self._x()

        def _x(self):
            return 1

    box = Box()
    assert box._x() == 1
    rewrite(Box.parameter, "class Box(ABC):\n    def get(self):\n        return 2\n", place)
    assert box.get().data == 2
    assert isinstance(box, Box)
    with pytest.raises(AttributeError, match="_x"):
        box._x()


@pytest.mark.parametrize("place", PLACES)
def test_our_own_module_class_as_a_base(place):
    @bundle(trainable=True)
    class Agent(tg.Module):
        def __init__(self):
            self.prompt = node("Hello", trainable=True, name="prompt")

        def forward(self, x):
            return self.prompt + x

    agent = Agent()
    assert agent("!").data == "Hello!"
    text = Agent.parameter.data.replace("+ x", "+ x + self._more(x)")
    text += "\n    def _more(self, x):\n        return self.__class__.__name__[:2] + x\n"
    rewrite(Agent.parameter, text, place)
    answer = agent("?")
    assert answer.data == "Hello?Ag?"
    assert agent.prompt in answer.backward("longer")


CLASSES = {
    "__getattribute__": "class A:\n    def __getattribute__(self, name): return 1\n    def f(self): pass\n",
    "__del__": "class A:\n    def __del__(self): pass\n    def f(self): pass\n",
    "no method": "class A:\n    x = 1\n",
    "bundle already": "from tracegraph import bundle\nclass A:\n    @bundle\n    def f(self): pass\n",
    "parameter will be": "class A:\n    def parameter(self): pass\n",
}


@pytest.mark.parametrize("word", CLASSES)
def test_classes_that_cannot_be_trainable_are_refused_with_the_reason(word, tmp_path):
    made = module(tmp_path, "refused", CLASSES[word])
    with pytest.raises(ParameterError, match=word):
        bundle(trainable=True)(made.A)


WHOLE = """
class Registry(type):
    made = []

    def __new__(meta, name, bases, body):
        kind = super().__new__(meta, name, bases, body)
        meta.made.append(name)
        return kind


class Slotted:
    __slots__ = ("held", "limit")
    SCALE = 2

    def __init__(self, limit):
        self.held, self.limit = [], limit

    def add(self, x):
        self.held.append(x)
        return len(self.held) * self.SCALE

    @property
    def size(self):
        return len(self.held)

    @classmethod
    def small(cls):
        return cls(1)


class Listing(list):
    def add(self, x):
        self.append(x)
        return len(self)

    def append(self, x):
        super().append(x)


class Refusal(ValueError):
    def add(self, x):
        return f"{self}: {x}"


class Single:
    known = {}

    def __new__(cls, name):
        if name not in cls.known:
            cls.known[name] = super().__new__(cls)
        return cls.known[name]

    def __init__(self, name):
        self.name = name

    def add(self, x):
        return self.name + x


class Registered(metaclass=Registry):
    def add(self, x):
        return x
"""


@pytest.fixture
def whole(tmp_path):
    return module(tmp_path, "wholes", WHOLE)


def trained(kind, old, new):
    """`kind`, trainable, with a text in force in which `old` became `new`, and nobody trusts it yet."""
    made = bundle(trainable=True)(kind)
    assert old in made.parameter.data
    made.parameter.assign(made.parameter.data.replace(old, new), origin="optimizer")
    return made


@pytest.mark.parametrize("place", PLACES)
def test_slots_hold_the_values_whatever_the_text(whole, place):
    Slotted = bundle(trainable=True)(whole.Slotted)
    made = Slotted(3)
    assert made.add("a").data == 2
    text = Slotted.parameter.data.replace("SCALE = 2", "SCALE = 5").replace(
        "len(self.held) * self.SCALE", "self._double() * self.SCALE"
    )
    text += "\n    def _double(self):\n        return 2 * self.size\n"
    Slotted.parameter.assign(text, origin="optimizer")
    if place == "in place":
        Slotted.parameter.trust()
    assert made.add("b").data == 20
    assert (made.held, made.size, made.SCALE) == (["a", "b"], 2, 5)
    if place == "in place":
        assert made._double() == 4
    assert not hasattr(made, "__dict__")
    small = Slotted.small().data
    assert type(small) is Slotted
    assert small.limit == 1
    Slotted.parameter.assign(Slotted.parameter.initial)
    assert made.add("c").data == 6
    assert not hasattr(made, "_double")
    with pytest.raises(Rejected, match=r"must stay `__slots__"):
        Slotted.parameter.assign(text.replace('"limit"', '"other"'))


def test_slots_of_every_sort_travel_and_come_back():
    """Private ones, empty ones, ones that are emptied there, and those of an object that is made there."""

    @bundle(trainable=True)
    class Tool:
        __slots__ = ("__secret", "lost", "made", "never")

        def __init__(self, secret):
            self.__secret, self.lost, self.made = secret, [1], None

        def use(self, n):
            return n

        def twin(self):
            return self

    tool = Tool(4)
    kept = tool.lost
    rewrite(
        Tool.parameter,
        Tool.parameter.data.replace(
            "return n", "self.made = self.__secret + n; return self.made"
        ).replace("return self\n", "other = Tool(self.made); del other.lost; return other\n"),
        "apart",
    )
    assert tool.use(3).data == 7
    assert tool.made == 7
    assert tool.lost is kept  # what did not change is the very object
    assert not hasattr(tool, "never")
    other = tool.twin().data
    assert type(other) is Tool
    assert other._Tool__secret == 7
    assert not hasattr(other, "lost")
    rewrite(
        Tool.parameter,
        Tool.parameter.data.replace("self.made = self", "del self.lost; self.made = self"),
        "apart",
    )
    assert tool.use(1).data == 5
    assert not hasattr(tool, "lost")
    made = Tool(9)  # the constructor runs apart, too
    assert (made._Tool__secret, made.lost, made.made) == (9, [1], None)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"secret": 1, "extra": 2}, "'extra', for which its __slots__ have no place"),
        ({"__class__": 1}, "gave no values"),
        ({"size": 1}, "'size', for which its __slots__ have no place"),
    ],
)
def test_a_forged_answer_reaches_no_slot_that_is_none(values, said):
    """Nor a property: its setter would be code of this process that a forged name starts."""
    started = []

    @bundle(trainable=True, sandbox=Forger(("value", 1, values)))
    class Safe:
        __slots__ = ("secret",)

        def __init__(self):
            self.secret = 0

        def open(self):
            return 1

        @property
        def size(self):
            return 2

        @size.setter
        def size(self, value):
            started.append(value)

    safe = Safe()
    rewrite(Safe.parameter, Safe.parameter.data.replace("return 1", "return 3"), "apart")
    with pytest.raises(SandboxError, match=said):
        safe.open()
    assert not started
    assert safe.secret == 0


def test_bases_made_in_c_and_super_under_a_new_text(whole):
    Listing = trained(whole.Listing, "super().append(x)", "super().append(-x)")
    Listing.parameter.trust()
    made = Listing([1])
    assert made.add(2).data == 2
    assert made == [1, -2]
    Refusal = trained(whole.Refusal, "{self}: {x}", "{self.args[0]}! {x}")
    Refusal.parameter.trust()
    with pytest.raises(ValueError, match="no") as caught:
        raise Refusal("no")
    assert caught.value.add("y").data == "no! y"


def test_a_constructor_of_objects_follows_the_text(whole):
    Single = trained(whole.Single, "if name not in", "if name.upper() not in")
    with pytest.raises(SandboxError, match="has a __new__"):
        Single("a")
    Single.parameter.assign(
        Single.parameter.initial.replace("self.name + x", "x + self.name"), origin="optimizer"
    )
    Single.parameter.trust()
    assert Single("a") is Single("a")
    assert isinstance(Single("a"), Single)
    assert Single("a").add("b").data == "ba"
    plain = counter()
    with pytest.raises(Rejected, match="without __new__ of its own"):
        plain.parameter.assign(
            plain.parameter.data + "\n    def __new__(cls, *a, **k):\n        return 1\n"
        )


def test_a_metaclass_runs_once(whole):
    Registered = trained(whole.Registered, "return x", "return 2 * x")
    Registered.parameter.trust()
    assert Registered().add(2).data == 4
    assert whole.Registry.made == ["Registered"]


def test_heirs_follow_the_text_and_keep_what_they_change():
    Counter = counter()

    class Heir(Counter):
        def _grow(self, amount):
            super()._grow(10 * amount)

    made, plain = Heir(1), Counter(1)
    assert made.add(2).data == 21
    text = Counter.parameter.data.replace("amount * self.STEP", "self._size(amount)")
    text += "\n    def _size(self, amount):\n        return 100 * amount\n"
    Counter.parameter.assign(text, origin="optimizer")
    assert plain.add(1).data == 101  # apart
    with pytest.raises(SandboxError, match="Heir derives from it"):
        made.add(1)
    Counter.parameter.trust()
    result = made.add(1)
    assert result.data == 1021
    assert list(result.backward("more")) == [Counter.parameter]
    assert (plain.add(1).data, made.double, Heir.twice(3).data) == (201, 2042, 6)
    made.double = 8
    assert made.count == 4
    assert type(Heir.at(5).data) is Heir
    assert isinstance(made, Counter)


def test_an_heir_may_be_trainable_itself():
    Counter = counter()

    @bundle(trainable=True, trust=True)
    class Louder(Counter):
        def add(self, amount):
            return super().add(2 * amount)

    made = Louder(0)
    assert made.add(1).data == 2
    Louder.parameter.assign(Louder.parameter.data.replace("2 * amount", "3 * amount"))
    assert made.add(1).data == 5
    Counter.parameter.assign(Counter.parameter.data.replace("amount * self", "amount * 2 * self"))
    assert made.add(1).data == 11
    assert Louder.parameter is not Counter.parameter


def test_texts_in_threads_do_not_mix_on_one_object(whole):
    Slotted = bundle(trainable=True, trust=True)(whole.Slotted)
    made, seen = Slotted(3), {}
    made.held.append(0)
    texts = {
        n: Slotted.parameter.data.replace("self.held.append(x)\n", "pass\n").replace(
            "self.SCALE\n", f"self._by{n}()\n"
        )
        + f"\n    def _by{n}(self):\n        return {n}\n"
        for n in range(3, 7)
    }

    def run(number):
        with Overlay({Slotted.parameter: texts[number]}, origin="person"):
            answers = {made.add(0).data for _ in range(30)}
            others = [n for n in texts if hasattr(made, f"_by{n}")]
            seen[number] = answers, others

    threads = [threading.Thread(target=run, args=(n,)) for n in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {n: ({n}, [n]) for n in texts}


def test_overlays_in_threads_share_the_objects():
    Counter = counter()
    made = Counter(2)
    texts = [Counter.parameter.data.replace("2 * x", f"{n} * x") for n in range(3, 7)]
    seen = {}

    def run(number, text):
        with Overlay({Counter.parameter: text}, origin="person"):
            seen[number] = [Counter.twice(10).data for _ in range(20)] + [made(1).data]

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(texts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {n: [10 * (n + 3)] * 20 + [3] for n in range(4)}
    assert Counter.twice(10).data == 20


def test_objects_are_copied_and_found(tmp_path):
    @tg.model
    @bundle(trainable=True)
    class Agent:
        def __init__(self):
            self.prompt = node("Be kind.", trainable=True, name="prompt")

        def ask(self, question):
            return self.prompt + question

    agent = Agent()
    assert agent.ask("?").data == "Be kind.?"
    assert list(agent.named_parameters()) == ["Agent", "prompt"]
    twin = copy.deepcopy(agent)
    assert twin.ask("!").data == "Be kind.!"
    rewrite(
        Agent.parameter, Agent.parameter.data.replace("+ question", "+ ' ' + question"), "apart"
    )
    agent.save(tmp_path / "agent.json")
    Agent.parameter.assign(Agent.parameter.initial)
    agent.load(tmp_path / "agent.json")
    assert (Agent.parameter.origin, Agent.parameter.trusted) == ("optimizer", False)
    assert agent.ask("?").data == "Be kind. ?"


def test_checks_test_the_class_apart():
    def counts(made):
        counter = made(0)
        counter.add(2)
        assert counter.add(3) == 5

    @bundle(trainable=True, checks=[counts])
    class Tally:
        def __init__(self, start):
            self.total = start

        def add(self, n):
            self.total += n
            return self.total

    with pytest.raises(Rejected, match=r"(?s)'counts' failed: .*assert counter.add"):
        Tally.parameter.assign(Tally.parameter.data.replace("+= n", "= n"), origin="optimizer")
    Tally.parameter.assign(Tally.parameter.data.replace("+= n", "+= 1 * n"), origin="optimizer")
    assert Tally(1).add(1).data == 2


@pytest.mark.parametrize("base", [object, dict])
def test_checks_test_trusted_texts_of_slots_and_bases_made_in_c(base):
    def counts(made):
        counter = made(0)
        counter.add(2)
        assert counter.add(3) == 5

    @bundle(trainable=True, trust=True, checks=[counts])
    class Tally(base):
        __slots__ = ("total",)

        def __new__(cls, start):
            made = super().__new__(cls)
            made.total = start
            return made

        def __init__(self, start):
            super().__init__()

        def add(self, n):
            self.total += n
            return self.total

    with pytest.raises(Rejected, match=r"(?s)'counts' failed: .*assert counter.add"):
        Tally.parameter.assign(Tally.parameter.data.replace("+= n", "= n"))
    Tally.parameter.assign(Tally.parameter.data.replace("+= n", "+= 1 * n"))
    assert Tally(1).add(1).data == 2


def test_no_test_is_given_a_class_of_which_a_metaclass_would_see_a_second_text():
    seen = []

    class Keeping(type):
        def __init__(cls, name, bases, body):
            super().__init__(name, bases, body)
            seen.append(name)

    @bundle(trainable=True, trust=True, checks=[lambda made: made().one() == 1])
    class Kept(metaclass=Keeping):
        def one(self):
            return 1

    with pytest.raises(Rejected, match="the metaclass Keeping, which sees the first text alone"):
        Kept.parameter.assign(Kept.parameter.data.replace("return 1", "return 2 - 1"))
    assert seen == ["Kept"]


def test_a_model_rewrites_a_class():
    @bundle(trainable=True)
    class Price:
        """The price of a parcel."""

        def __init__(self, rate):
            self.rate = rate

        def of(self, weight):
            """The price of one parcel."""
            return weight

    def model(prompt):
        assert "class Price:" in prompt
        return (
            '{"reasoning": "", "suggestion": {"Price": "<<<<<<< SEARCH\\n        return weight\\n'
            '=======\\n        return self.rate * weight\\n>>>>>>> REPLACE"}}'
        )

    optimizer = OptoPrime([Price], llm=model)
    price = Price(3)
    optimizer.zero_feedback()
    optimizer.backward(price.of(2), "The rate is ignored.")
    update = optimizer.step()
    assert "self.rate * weight" in str(update) or Price.parameter.version == 1
    assert Price.parameter.origin == "optimizer"
    assert price.of(2).data == 6


def test_an_abstract_class_stays_one():
    @bundle(trainable=True)
    class Shape(ABC):
        @abstractmethod
        def area(self):
            """The area."""

    with pytest.raises(TypeError, match="abstract"):
        Shape()


# Modules


PRICES = '''"""Prices."""

from __future__ import annotations

import decimal
import functools
import math

RATE = 2
_calls = 0


class Parcel:
    def __init__(self, weight):
        self.weight = weight


def price(weight: float) -> float:
    """The price of a parcel."""
    return _rounded(weight * RATE)


def _rounded(x):
    global _calls
    _calls += 1
    return math.floor(x)


def steps(n):
    yield from range(n)


async def later(x):
    return x


def taxed(x, rate=RATE):
    return x * rate


@functools.singledispatch
def told(x):
    return "other"


@told.register
def _(x: decimal.Decimal):
    return "decimal"


def worth(text):
    return told(decimal.Decimal(text))
'''


def module(folder, name, text):
    """A module of a file, as import would make it."""
    path = folder / f"{name}.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    try:
        spec.loader.exec_module(made)
    finally:
        del sys.modules[name]
    return made


@pytest.fixture
def prices(tmp_path):
    return bundle(module(tmp_path, "prices", PRICES), trainable=True)


def test_a_module_is_one_parameter(prices):
    result = prices.price(node(1.75, name="weight"))
    assert result.data == 3
    assert list(result.inputs) == ["weight", "__code"]
    assert prices.parameter in result.backward("dear")
    assert prices.parameter.data == PRICES
    assert (prices.RATE, prices.__name__, prices.__doc__) == (2, "prices", "Prices.")
    assert prices.Parcel(3).weight == 3
    assert tg.named_parameters({"prices": prices}) == {"prices": prices.parameter}


@pytest.mark.parametrize("place", PLACES)
def test_a_new_text_of_a_module_is_in_force_everywhere(prices, place):
    rewrite(prices.parameter, PRICES.replace("RATE = 2", "RATE = 3"), place)
    apart = pytest.warns(LostStateWarning, match="prices: a change of _calls ends with the call")
    with apart if place == "apart" else contextlib.nullcontext():
        assert prices.price(1.75).data == 5
    assert prices.RATE == 3
    assert prices.taxed(2).data == 6
    assert prices.worth("1").data == "decimal"
    assert [n.data for n in prices.steps(3)] == [0, 1, 2]
    assert asyncio.run(_awaited(prices.later(4))).data == 4
    if place == "in place":
        assert prices.Parcel(3).weight == 3
    else:
        with pytest.raises(SandboxError, match=r"prices.Parcel .*parameter.trust\(\)"):
            prices.Parcel


def test_state_of_a_module_in_place_lives_as_long_as_its_version(prices):
    prices.price(1)
    prices.price(1)
    assert prices._calls == 2
    rewrite(prices.parameter, PRICES.replace("RATE = 2", "RATE = 3"), "in place")
    prices.price(1)
    assert prices._calls == 1


def test_of_many_texts_those_of_late_are_remembered(prices, monkeypatch):
    monkeypatch.setattr("tracegraph.whole._MOST_COMPILED", 4)

    def calls_of(rate):
        rewrite(prices.parameter, PRICES.replace("RATE = 2", f"RATE = {rate}"), "in place")
        prices.price(1)
        return prices._calls

    assert calls_of(2) == 1
    assert [calls_of(rate) for rate in (3, 4, 5, 6)] == [1] * 4
    assert [calls_of(rate) for rate in (5, 6)] == [2, 2]
    assert [calls_of(rate) for rate in (7, 3)] == [1, 1]  # that began anew
    assert calls_of(2) == 2  # the module itself is always there


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("def price(weight: float)", "def price(weight, more)", "must stay `def price(weight)`"),
        ("def steps(n)", "def _steps(n)", "keep 'steps'"),
        ("def __init__(self, weight)", "def __init__(self)", "Parcel.__init__"),
        ("class Parcel:", "class Package:", "keep 'Parcel'"),
        ("yield from", "yield from from", "does not parse"),
        ("yield from", "return", "'steps' must yield its items"),
        ("return _rounded", "yield _rounded", "'price' must return, not yield"),
    ],
)
def test_what_a_module_must_keep(prices, old, new, word):
    with pytest.raises(Rejected, match=re.escape(word)):
        prices.parameter.assign(PRICES.replace(old, new))
    assert prices.price(1).data == 2


def test_a_failure_in_a_module_marks_its_line(prices):
    rewrite(prices.parameter, PRICES.replace("math.floor(x)", "math.floor(x) // 0"), "apart")
    with pytest.warns(LostStateWarning), pytest.raises(ZeroDivisionError) as caught:
        prices.price(1)
    apart = failed_node(caught.value).create_feedback("full")
    prices.parameter.trust()
    with pytest.raises(ZeroDivisionError) as caught:
        prices.price(1)
    here = failed_node(caught.value).create_feedback("full")
    line = "  26 |     return math.floor(x) // 0  <--- (ZeroDivisionError)"
    assert line in apart
    assert line in here


def test_a_module_without_functions_is_refused(tmp_path):
    with pytest.raises(TypeError, match="trainable=True"):
        bundle(module(tmp_path, "prices", PRICES))
    with pytest.raises(ParameterError, match="no public function"):
        bundle(module(tmp_path, "empty", "X = 1\n"), trainable=True)


def test_a_module_is_tested_before_it_is_taken(tmp_path):
    def cheap(prices):
        assert prices.price(10) < 30

    prices = bundle(module(tmp_path, "prices", PRICES), trainable=True, checks=[cheap])
    with pytest.raises(Rejected, match="'cheap' failed"):
        prices.parameter.assign(PRICES.replace("RATE = 2", "RATE = 3"))
    prices.parameter.assign(PRICES.replace("RATE = 2", "RATE = 1"))
    assert prices.price(10).data == 10


@pytest.mark.parametrize("whole", [False, True])
def test_a_class_of_a_text_is_made_once_for_all_threads(monkeypatch, whole):
    """An object of the one would be none of the other."""

    @bundle(trainable=True)
    class Counting:
        def count(self):
            return 1

    code = code_of(Counting)
    text = code.parameter.data.replace("1", "2")
    made = []
    once, replaced = Once(lambda: made.append(code.made(text, whole=whole))), ClassSource.replaced

    def replacing(self, text):
        once()
        return replaced(self, text)

    monkeypatch.setattr(ClassSource, "replaced", replacing)
    made.append(code.made(text, whole=whole))
    assert len(made) == 2
    assert made[0] is made[1]


def test_the_statement_of_a_class_is_found_wherever_its_functions_stand():
    @bundle(trainable=True)
    class Chosen:
        price = lambda self, x: x  # noqa: E731

        if not TYPE_CHECKING:

            def get(self, x):
                return self.price(x)

        class Chosen:
            def get(self, x):
                return -x

    class Outer:
        @bundle(trainable=True)
        class Chosen:
            with contextlib.nullcontext():

                def get(self, x):
                    return 2 * x

    assert Chosen.parameter.data.startswith("class Chosen:\n    price = ")
    assert Outer.Chosen.parameter.data.startswith("class Chosen:\n    with ")
    for kind, place in itertools.product((Chosen, Outer.Chosen), PLACES):
        rewrite(kind.parameter, kind.parameter.data.replace("return ", "return 10 + "), place)
    assert (Chosen().get(1).data, Outer.Chosen().get(1).data) == (21, 22)
