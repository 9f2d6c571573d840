"""Code of an optimizer runs apart, and its call looks like any other."""

import asyncio
import dataclasses
import enum
import functools
import json
import os
import re
import sys
from collections import Counter  # noqa: F401 - code that runs apart names it
from collections.abc import Callable
from math import sqrt  # noqa: F401
from typing import Generic, NamedTuple, TypeVar

import pytest

import tracegraph as tg
from optimizers import OptoPrime
from tracegraph import Graph, bundle, failed_node, node
from tracegraph.isolation import Ran
from tracegraph.llm import Scripted
from tracegraph.sandbox import Policy


def rewritten(function, body, *, header=None):
    """`function` with a body that an optimizer wrote."""
    head = header or function._source.header
    text = f"{head}\n" + "".join(f"    {line}\n" for line in body.splitlines())
    function.parameter.assign(text, origin="optimizer")
    return function


def test_what_is_known_of_the_run_stays_on_the_node():
    @bundle(trainable=True)
    def f(x):
        return x

    assert "ran" not in f(1).info
    rewritten(f, "import sys\nprint('hello')\nprint('there', file=sys.stderr)\nreturn x + 1")
    result = f(1)
    ran = result.info["ran"]
    assert result.data == 2
    assert isinstance(ran, Ran)
    assert (ran.stdout, ran.stderr) == ("hello\n", "there\n")
    assert ran.seconds > 0
    f.parameter.trust()
    assert "ran" not in f(1).info


def test_a_failure_marks_the_line_and_tells_variables_and_output():
    @bundle(trainable=True)
    def f(x):
        return x

    rewritten(f, "half = x / 2\nprint('half is', half)\nreturn half / 0")
    with pytest.raises(ZeroDivisionError) as caught:
        f(3)
    failed = failed_node(caught.value)
    feedback = failed.create_feedback("full")
    for part in (
        "   4 |     return half / 0  <--- (ZeroDivisionError)",
        "half = 1.5",
        "printed before: half is 1.5",
    ):
        assert part in feedback
    assert failed.info["ran"].stdout == "half is 1.5\n"
    assert f.parameter in failed.backward("x")


def test_what_is_printed_is_bounded():
    @bundle(trainable=True)
    def f(x):
        return x

    rewritten(f, "print('a' * 50_000 + 'end')\nraise ValueError('no')")
    with pytest.raises(ValueError, match="no") as caught:
        f(1)
    failed = failed_node(caught.value)
    assert len(failed.info["ran"].stdout) == 10_000
    assert len(failed.failure.source) < 1_500
    assert failed.failure.source.endswith("end")


def test_a_policy_says_the_limits():
    @bundle(trainable=True, sandbox=Policy(timeout=0.3, preload=()))
    def f(x):
        return x

    rewritten(f, "while True:\n    x += 1")
    with pytest.raises(tg.TimedOut, match=r"0\.3 s") as caught:
        f(1)
    assert isinstance(caught.value, TimeoutError)
    rewritten(f, "return x + 1")
    assert f(1).data == 2


@pytest.fixture
def answering():
    prompt = node("Be kind.", trainable=True, name="prompt")

    @bundle
    def ask(question):
        if question == "bad":
            raise KeyError(question)
        return f"{prompt} {question}"

    @bundle(trainable=True, host={"ask": ask})
    def answer(question):
        return ask(question)

    return prompt, answer


def test_a_host_function_is_recorded_and_feedback_reaches_what_it_read(answering):
    prompt, answer = answering
    rewritten(answer, "return ask(question).upper() + ask('why')")
    result = answer("who")
    assert result.data == "BE KIND. WHOBe kind. why"
    calls = [n for n in result.parents if n.op == "ask"]
    assert [n.data for n in calls] == ["Be kind. who", "Be kind. why"]
    assert set(result.captured) == {name for name, n in result.inputs.items() if n.op == "ask"}
    assert all(n.id < result.id for n in calls)
    received = result.backward("too long")
    assert set(received) == {prompt, answer.parameter}


def test_a_host_function_that_fails_is_found_behind_the_failure(answering):
    _, answer = answering
    rewritten(answer, "return ask('bad')")
    with pytest.raises(KeyError) as caught:
        answer("who")
    failed = failed_node(caught.value)
    assert failed.op == "answer"
    behind = [n for n in failed.parents if n.op == "ask"]
    assert len(behind) == 1
    assert behind[0].failure.type == "KeyError"


def test_code_may_catch_what_a_host_function_raises(answering):
    _, answer = answering
    rewritten(answer, "try:\n    return ask('bad')\nexcept KeyError:\n    return 'sorry'")
    result = answer("who")
    assert result.data == "sorry"
    assert [n.failure.type for n in result.parents if n.op == "ask"] == ["KeyError"]


def test_inside_another_call_a_host_function_is_part_of_that_call(answering):
    prompt, answer = answering
    rewritten(answer, "return ask(question)")

    @bundle
    def outer(question):
        return answer(question)

    result = outer("who")
    assert result.data == "Be kind. who"
    assert {n.op for n in Graph.of(result).nodes} == {None, "outer"}
    assert prompt in result.backward("x")

    @bundle(traceable=True)
    def open_call(question):
        return answer(question)

    result = open_call("who")
    assert "ask" in {n.op for n in Graph.of(result.inner).nodes}
    assert prompt in result.backward("x")


def test_nothing_is_recorded_where_tracing_is_off(answering):
    _, answer = answering
    rewritten(answer, "return ask(question)")
    with tg.stop_tracing():
        assert answer("who").inputs == {}


def test_generators_and_async_functions_run_apart():
    @bundle(trainable=True)
    def count(n):
        yield from range(n)

    @bundle(trainable=True)
    async def later(x):
        return x

    @bundle(trainable=True)
    async def stream(n):
        for i in range(n):
            yield i

    rewritten(count, "for i in range(n):\n    yield i * 10")
    assert [item.data for item in count(3)] == [0, 10, 20]
    rewritten(later, "import asyncio\nawait asyncio.sleep(0)\nreturn x + 1")
    rewritten(stream, "for i in range(n):\n    yield i + 1")

    async def run():
        return (await later(1)).data, [item.data async for item in stream(2)]

    assert asyncio.run(run()) == (2, [1, 2])
    rewritten(count, "while True:\n    yield 1")
    with pytest.raises((tg.TimedOut, tg.OutOfMemory)):
        list(count(3))


# Who wrote it, and whether it is trusted


def test_the_picture_tells_who_wrote_the_code_and_where_it_ran():
    @bundle(trainable=True)
    def f(x):
        return x

    def lines(result):
        return [line for box in Graph.of(result).picture().boxes for line in box.lines]

    by_hand = f(1)
    rewritten(f, "return x + 1")
    by_model = f(1)
    f.parameter.trust()
    trusted = f(1)
    assert not any("optimizer" in line or "isolated" in line for line in lines(by_hand))
    assert "by an optimizer, isolated" in lines(by_model)
    assert "ran isolated" in lines(by_model)
    assert "by an optimizer, trusted" in lines(trusted)
    assert "ran isolated" not in lines(trusted)
    assert "by an optimizer, isolated" in Graph.of(by_model).to_svg()


def test_an_optimizer_or_a_bundle_that_is_trusted():
    reply = '{"reasoning": "r", "suggestion": {"f": "def f(x):\\n    return x + 1\\n"}}'

    def run(*, bundle_trust, optimizer_trust):
        @bundle(trainable=True, trust=bundle_trust)
        def f(x):
            return x

        optimizer = OptoPrime(f, llm=Scripted([reply]))
        optimizer.trust = optimizer_trust
        optimizer.backward(f(1), "more")
        optimizer.step()
        result = f(1)
        assert result.data == 2
        assert f.parameter.origin == "optimizer"
        return f.parameter.trusted, "ran" in result.info

    assert run(bundle_trust=False, optimizer_trust=False) == (False, True)
    assert run(bundle_trust=True, optimizer_trust=False) == (True, False)
    assert run(bundle_trust=False, optimizer_trust=True) == (True, False)


class Holder(tg.Module):
    def __init__(self):
        @bundle(trainable=True)
        def f(x):
            return x

        self.f = f


def test_trust_through_a_file(tmp_path):
    path = tmp_path / "a.json"
    one = Holder()
    rewritten(one.f, "return x + 1")
    one.f.parameter.trust()
    one.save(path)
    plain, trusting = Holder(), Holder()
    plain.load(path)
    trusting.load(path, trust=True)
    assert (plain.f.parameter.origin, plain.f.parameter.trusted) == ("optimizer", False)
    assert (trusting.f.parameter.origin, trusting.f.parameter.trusted) == ("optimizer", True)
    one.load(path)  # it holds this very text, and trusts it
    assert one.f.parameter.trusted


def test_a_file_cannot_say_that_a_person_wrote_it(tmp_path):
    path = tmp_path / "a.json"
    Holder().save(path)
    same = Holder()
    same.load(path)
    assert same.f.parameter.trusted  # the text that the program was written with
    stored = json.loads(path.read_text())
    stored["f"]["value"] = "def f(x):\n    return open('/etc/passwd').read()\n"
    path.write_text(json.dumps(stored))
    forged = Holder()
    forged.load(path)
    assert forged.f.parameter.origin == "person"
    assert not forged.f.parameter.trusted
    with pytest.raises(tg.Forbidden):
        forged.f(1)


def test_names_of_pythons_own_modules_go_along():
    @bundle(trainable=True)
    def f(x):
        return x

    rewritten(f, "return [sqrt(x), dict(Counter('aab'))]")
    assert f(4).data == [2.0, {"a": 2, "b": 1}]


class Opaque:
    pass


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((Opaque(), 1), {}, r"^the argument x is of type Opaque, .*parameter\.trust\(\)"),
        ((1, {"a": [Opaque()]}), {}, r"^the argument y\['a'\]\[0\] is of type Opaque"),
        ((1,), {"y": Opaque()}, "^the argument y is of type Opaque"),
        ((1, 2, Opaque()), {}, "^the argument number 2 is of type Opaque"),
    ],
)
def test_an_argument_that_cannot_travel_is_named(args, kwargs, text):
    @bundle(trainable=True)
    def f(x, y, *more):
        return x

    f.parameter.assign("def f(x, y, *more):\n    return y\n", origin="optimizer")
    with pytest.raises(tg.SandboxError, match=text):
        f(*args, **kwargs)


def test_so_it_is_where_a_gradient_is_wanted():
    torch = pytest.importorskip("torch")

    @bundle(trainable=True)
    def f(x, y, z=None):
        return x

    rewritten(f, "return y")
    weight = node(torch.ones(1), trainable=True)
    with pytest.raises(tg.SandboxError, match=r"^the argument y\[1\] is of type Opaque"):
        f(weight, [1, Opaque()])
    with pytest.raises(tg.SandboxError, match=r"^the argument z is of type Opaque"):
        f(weight, 1, Opaque())
    with pytest.raises(tg.SandboxError, match=r"^the argument y is of type Opaque"):
        f(weight, y=Opaque())


def helper(x):
    return x


def test_a_value_that_stays_here_is_told_and_a_strange_name_is_not():
    @bundle(trainable=True)
    def f(x):
        return x

    for body, told in (("return TABLE", True), ("return nobody_knows(x)", False)):
        rewritten(f, body)
        with pytest.raises(NameError) as caught:
            f(1)
        feedback = failed_node(caught.value).create_feedback("full")
        assert ("TABLE is a value of the program" in feedback) is told
        assert ("runs apart from it" in feedback) is told


TABLE = [[1, 2], object()]


def test_defaults_are_those_of_decoration_apart_as_well():
    def made():
        table = {"a": 1}

        @bundle(trainable=True)
        def f(x, y=table, *, z=TABLE[0], w=7):
            return x

        return f

    f = rewritten(made(), "return [x, y, z, w]")
    assert f(0).data == [0, {"a": 1}, [1, 2], 7]
    assert f(0, 1, z=2, w=3).data == [0, 1, 2, 3]
    with pytest.raises(TypeError, match="x"):
        f()


class Stall(tg.Module):
    RATE = 10

    def __init__(self):
        self.base = node(3, trainable=True, name="base")
        self.seen = []

    @bundle(trainable=True)
    def price(self, x):
        return x

    @bundle(trainable=True)
    async def later(self, x):
        return x

    @bundle(trainable=True)
    @classmethod
    def rated(cls, x):
        return x

    @bundle(trainable=True)
    @staticmethod
    def alone(x):
        return x


def test_methods_run_apart_on_the_values_of_their_object():
    stall = Stall()
    code = stall.price.parameter
    text = (
        "def price(self, x):\n    self.seen.append(x)\n    self.last = x\n"
        "    return self.base * x + self.RATE\n"
    )
    code.assign(text, origin="optimizer")
    result = stall.price(2)
    assert result.data == 16
    assert (stall.seen, stall.last) == ([2], 2)
    assert {stall.base, code} <= set(result.backward("dear"))
    assert isinstance(stall.base, tg.Parameter)
    other = Stall()
    assert other.price(2).data == 2
    assert other.seen == []
    code.assign("def price(self, x):\n    self.base = 1\n    return x\n", origin="optimizer")
    with pytest.raises(tg.SandboxError, match=r"replaced Stall\.base"):
        stall.price(2)
    code.assign("def price(self, x):\n    return self.rated(x)\n", origin="optimizer")
    assert stall.price(2).data == 2


ROUND = 2


class Till:
    """Has methods of every kind beside the one that an optimizer may write."""

    RATE = 3

    def __init__(self):
        self.sales = []
        self.__open = True

    @bundle(trainable=True)
    def sell(self, price):
        return price

    @bundle(trainable=True)
    def discount(self, price):
        return price // 2

    def total(self, *, extra=1):
        """Uses another method, a constant of the module, and a private name."""
        return round(self._sum() + extra, ROUND) if self.__open else 0

    def _sum(self):
        return sum(self.sales) * self.RATE

    @property
    def count(self):
        return len(self.sales)

    @staticmethod
    def half(x):
        return x / 2

    @classmethod
    def rate(cls):
        return cls.RATE

    def __len__(self):
        return 10 * len(self.sales)

    def __contains__(self, price):
        return price in self.sales

    def close(self):
        self.sales.clear()

    __STEP = 4

    def __next(self, price):
        return price + self.__STEP if self.__open else None

    def spy(self):
        import os

        return os.getpid()

    def named(self):
        return super().__repr__()

    @functools.lru_cache  # noqa: B019
    def cached(self):
        return 1


def selling(body):
    till = Till()
    till.sales = [1, 2]
    till.sell.parameter.assign(f"def sell(self, price):\n    {body}\n", origin="optimizer")
    return till


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("return self.total()", 10),
        ("return self.total(extra=price)", 16),
        ("return self.count", 2),
        ("return self.half(price)", 3.5),
        ("return self.rate()", 3),
        ("return len(self)", 20),
        ("return 1 in self, 5 in self", (True, False)),
        ("return self.discount(9)", 4),
    ],
    ids=str,
)
def test_other_methods_of_the_object_go_along(body, wanted):
    assert selling(body).sell(7).data == wanted


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("return self.__open", True),
        ("return f'{self.__open}'", "True"),
        ("return [(lambda: self.__STEP)() for _ in range(2)]", [4, 4]),
        ("return self.__next(price)", 11),
        ("self.__open = False; return self.total(), self.__next(price)", (0, None)),
        ("self.__new = price; return self.__dict__['_Till__new']", 7),
        ("class Own:\n        __x = 1\n    return Own._Own__x", 1),
        ("return self.__class__.__name__.startswith('__')", False),
        ("return self.discount(3)", (True, 3)),
    ],
    ids=str,
)
def test_private_names_are_those_of_the_class_apart_and_in_place(body, wanted):
    apart, here = selling(body), selling(body)
    for till in (apart, here):
        text = "def discount(self, price):\n    return self.__open, price\n"
        till.discount.parameter.assign(text, origin="optimizer")
    here.sell.parameter.trust()
    here.discount.parameter.trust()
    assert apart.sell(7).data == here.sell(7).data == wanted
    values = [
        {k: v for k, v in vars(till).items() if not k.startswith("_bundle_")}
        for till in (apart, here)
    ]
    assert values[0] == values[1]


def test_a_private_name_that_is_not_there_is_told_with_its_line():
    with pytest.raises(AttributeError, match="_Till__gone") as caught:
        selling("return self.__gone").sell(7)
    marked = failed_node(caught.value).create_feedback("full")
    assert "   2 |     return self.__gone  <--- (AttributeError)" in marked


def test_other_methods_work_there_on_the_values_and_nothing_runs_here():
    till = selling("self.sales.append(price); self.close(); return self.spy()")
    assert till.sell(7).data != os.getpid()
    assert till.sales == []


def test_the_text_of_another_method_is_the_one_in_force_and_is_read():
    till = selling("return self.discount(price)")
    till.discount.parameter.assign(
        "def discount(self, price):\n    return 10 * price\n", origin="optimizer"
    )
    result = till.sell(7)
    assert result.data == 70
    assert {till.sell.parameter, till.discount.parameter} <= set(result.backward("dear"))
    assert Till().sell(7).data == 7


@pytest.mark.parametrize(
    ("name", "why"), [("named", r"uses super\(\)"), ("cached", "a decorator stands above it")]
)
def test_a_method_that_cannot_go_along_says_why(name, why):
    with pytest.raises(AttributeError, match=f"{name} stays outside the sandbox: .*{why}"):
        selling(f"return self.{name}()").sell(7)


class Guarded(tg.Module):
    @bundle(trainable=True)
    def act(self):
        return 1

    def allows(self):
        return False

    @classmethod
    def default(cls):
        return "no"


@pytest.mark.parametrize("name", ["act", "allows", "default"])
def test_a_value_that_comes_back_hides_no_method(name):
    one = Guarded()
    rewritten(one.act, f"self.{name} = 'yes'\nreturn 1")
    with pytest.raises(tg.SandboxError, match=f"{name!r}, which is a method"):
        one.act()
    assert (one.allows(), one.default()) == (False, "no")
    assert list(one.named_parameters()) == ["act"]


def test_methods_of_every_kind_run_apart():
    stall = Stall()
    stall.later.parameter.assign(
        "async def later(self, x):\n    return self.base + x\n", origin="optimizer"
    )

    async def main():
        return await stall.later(2)

    assert asyncio.run(main()).data == 5
    Stall.rated.parameter.assign(
        "@classmethod\ndef rated(cls, x):\n    return cls.RATE * x\n", origin="optimizer"
    )
    assert Stall.rated(2).data == 20
    Stall.alone.parameter.assign(
        "@staticmethod\ndef alone(x):\n    return -x\n", origin="optimizer"
    )
    assert Stall.alone(2).data == -2


def test_a_failing_method_marks_its_line_without_its_object():
    stall = Stall()
    stall.price.parameter.assign(
        "def price(self, x):\n    part = x - 1\n    return self.base / part\n", origin="optimizer"
    )
    with pytest.raises(ZeroDivisionError) as caught:
        stall.price(1)
    feedback = failed_node(caught.value).create_feedback("full")
    assert "   3 |     return self.base / part  <--- (ZeroDivisionError)" in feedback
    assert "where x = 1, part = 0" in feedback


def test_a_function_of_the_module_that_code_cannot_see_is_explained():
    @bundle(trainable=True)
    def f(x):
        return helper(x)

    rewritten(f, "return helper(x) + 1")
    with pytest.raises(NameError) as caught:
        f(1)
    assert "bundle(host={'helper': helper})" in failed_node(caught.value).create_feedback("full")
    assert any("bundle(host={'helper': helper})" in note for note in caught.value.__notes__)


Own = TypeVar("Own")


class Order:
    RATE = 2


def doubled(function):
    @functools.wraps(function)
    def run(*args):
        return 2 * function(*args)

    return run


def test_annotations_that_name_what_stays_here_are_no_matter():
    @bundle(trainable=True)
    def f(
        x: "Own", *rest: Order, key: Callable[[Own], Own] = lambda v: -v, **more: Own
    ) -> dict[str, Own]:
        return x

    body = """def inner(y: Order) -> Own:
    return 1 / y
def g(z: Order): return key(z)
return [inner(x), g(x)]"""
    head = f.parameter.data.partition("        return")[0].rpartition(":")[0]
    f.parameter.assign(
        f"{head}:\n" + "".join(f"    {line}\n" for line in body.splitlines()), origin="optimizer"
    )
    assert f(2).data == [0.5, -2]
    with pytest.raises(ZeroDivisionError) as caught:
        f(0)
    feedback = failed_node(caught.value).create_feedback("full")
    assert "5 |         return 1 / y  <--- (ZeroDivisionError)" in feedback


class Shop(Generic[Own]):
    def __init__(self):
        self.rate = 3

    @bundle(trainable=True)
    def price(self, order: Order, pair: tuple[Own, Own] | None = None, *, of=Order.RATE) -> Own:
        return order


def test_methods_of_annotated_and_generic_classes_run_apart():
    shop = Shop[int]()
    shop.price.parameter.assign(
        shop.price.parameter.data.replace("return order", "return order * self.rate * of"),
        origin="optimizer",
    )
    assert shop.price(1).data == 6
    assert shop.price(1, of=1).data == 3


class Colour(enum.Enum):
    RED = 1

    @bundle(trainable=True)
    def shown(self):
        return "first"


class Pair(NamedTuple):
    first: int

    @bundle(trainable=True)
    def twice(self):
        return self.first

    @bundle(trainable=True)
    @classmethod
    def made(cls, first):
        return cls(first)


def test_objects_that_own_no_code_share_that_of_their_class():
    @dataclasses.dataclass(frozen=True, slots=True)
    class Point:
        x: int

        @bundle(trainable=True)
        def moved(self):
            return self.x + 1

    assert Point(1).moved().data == 2
    assert Pair(2).twice().data == 2
    assert Point(1).moved.parameter is Point(5).moved.parameter
    Point(1).moved.parameter.assign("def moved(self):\n    return self.x - 1\n")
    assert Point(5).moved().data == 4


def _closed():
    count = 0

    @bundle(trainable=True)
    def f(x):
        nonlocal count
        count += x
        return count

    return f


@bundle(trainable=True)
@doubled
def decorated(x):
    return x


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (_closed(), "nonlocal changes a variable of the program"),
        (decorated, "doubled is a decorator of the program, .* put it above @bundle"),
        (Pair(1).twice, "Pair builds on tuple"),
        (Pair.made, "runs apart from the class Pair, and makes no object of it"),
        (Colour.RED.shown, "Colour builds on Enum"),
    ],
    ids=lambda case: getattr(case, "__name__", "")[:20],
)
def test_what_cannot_be_had_apart_is_explained(function, said):
    args = () if "self" in function.parameter.data else (1,)
    text = function.parameter.data
    function.parameter.assign(text.replace('"first"', "self.name") + "\n", origin="optimizer")
    try:
        with pytest.raises((SyntaxError, NameError, AttributeError, TypeError)) as caught:
            function(*args)
        feedback = failed_node(caught.value).create_feedback("full")
        assert re.search(said, feedback)
        assert "parameter.trust()" in feedback or "@bundle" in feedback
    finally:
        function.parameter.assign(text, origin="person")


NOT_THERE = "reads no files but Python's own .* no network, no threads and no other processes"
ENDS = {
    "open('/etc/passwd')": NOT_THERE,
    "import subprocess\nsubprocess.run(['ls'])": NOT_THERE,
    "import threading\nthreading.Thread(target=print).start()": NOT_THERE,
    "import socket\nsocket.socket()": NOT_THERE,
    "[0] * (1 << 40)": r"the code may use 1,024 MiB \(Policy.memory_mb\)",
    "import os\nos._exit(3)": "exit code 3 and no reply; it must return or raise",
    "import os\nos.abort()": r"ended by signal 6 \(SIGABRT\)",
}


@pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")
@pytest.mark.parametrize(("body", "said"), ENDS.items(), ids=range(len(ENDS)))
def test_what_code_may_not_do_is_told_with_what_to_do(body, said):
    @bundle(trainable=True, sandbox=Policy(preload=()))
    def f(x):
        return x

    rewritten(f, body)
    with pytest.raises((tg.SandboxError, RuntimeError)) as caught:
        f(1)
    assert re.search(said, failed_node(caught.value).create_feedback("full"))


def test_a_class_that_code_cannot_see_is_explained():
    @bundle(trainable=True)
    def f(x):
        return x

    rewritten(f, "return Order.RATE")
    with pytest.raises(NameError) as caught:
        f(1)
    assert "Order is a class of the program" in failed_node(caught.value).create_feedback("full")


@pytest.mark.parametrize("line", ["from . import here", "import tests.test_isolation"])
def test_a_module_that_code_cannot_import_is_explained(line):
    @bundle(trainable=True)
    def f(x):
        return x

    rewritten(f, f"{line}\nreturn x")
    with pytest.raises(ImportError) as caught:
        f(1)
    feedback = failed_node(caught.value).create_feedback("full")
    assert f"   2 |     {line}  <--- " in feedback
    assert "this imports a module of the program" in feedback


def test_super_that_code_cannot_ask_is_explained():
    class Agent:
        @bundle(trainable=True)
        def act(self):
            return "first"

    agent = Agent()
    agent.act.parameter.assign(
        "def act(self):\n    return super().__repr__()\n", origin="optimizer"
    )
    with pytest.raises(RuntimeError) as caught:
        agent.act()
    said = "super() asks the class of the program"
    assert said in failed_node(caught.value).create_feedback("full")
    assert any(said in note for note in caught.value.__notes__)
    agent.act.parameter.trust()
    assert "Agent object" in agent.act().data


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (7, "a sandbox of your own needs call, map, close; got 7"),
        (None, "a sandbox of your own needs call, map, close; got None"),
        (
            "isolatd",
            "no sandbox 'isolatd' (did you mean 'isolated'?); choose one of isolated, bwrap",
        ),
        ("moat", "no sandbox 'moat'; choose one of isolated, bwrap, wasm, none"),
    ],
)
@pytest.mark.parametrize("trainable", [True, False])
def test_what_is_no_sandbox_is_refused_when_it_is_given(wrong, text, trainable):
    with pytest.raises(tg.SandboxError, match=re.escape(text)):
        bundle(trainable=trainable, sandbox=wrong)


def test_a_variable_around_it_may_get_its_value_later():
    @bundle(trainable=True)
    def f(x):
        return x if x < 2 else x * later

    rewritten(f, "return x + 1 if x < 2 else x * later")
    assert f(1).data == 2
    later = 10
    rewritten(f, "return x + 2 if x < 2 else x * later")
    assert f(2).data == 20
