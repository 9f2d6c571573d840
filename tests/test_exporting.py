"""What is exported is plain Python that makes the same things again."""

import ast
import asyncio
import contextlib
import dataclasses
import enum
import functools
import math
import os
import subprocess
import sys
import typing
from collections import abc
from collections.abc import Callable
from functools import lru_cache
from typing import Generic, Literal, ParamSpec, TypeVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

import tracegraph as tg
from tracegraph import ParameterError, bundle, export, node
from tracegraph.formatting import formatted
from tracegraph.literals import Unwritable, literal

RATE = 3
GREETING = node("Hello", trainable=True, name="GREETING")


def loaded(text):
    """The names that an exported file defines, in a module of its own."""
    names = {"__name__": "exported"}
    exec(compile(text, "<exported>", "exec"), names)
    return names


def unformatted(things):
    """What is exported before a formatter, which takes a tenth of a second, has seen it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tracegraph.exporting.formatted", lambda text: text)
        return export(things)


def same(before, after):
    """Equal, of one type, and equally so for not-a-number."""
    if type(before) is not type(after):
        return False
    if isinstance(before, (list, tuple)):
        return len(before) == len(after) and all(map(same, before, after))
    if isinstance(before, dict):
        return list(before) == list(after) and all(same(before[k], after[k]) for k in before)
    if isinstance(before, float) and math.isnan(before):
        return math.isnan(after)
    if isinstance(before, float):
        return before == after and math.copysign(1, before) == math.copysign(1, after)
    return before == after


ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.integers(min_value=2**20_000, max_value=2**20_001)
)
KEYS = st.text() | st.integers() | st.booleans() | st.tuples(st.text())
VALUES = st.recursive(
    ATOMS,
    lambda inside: st.lists(inside) | st.tuples(inside, inside) | st.dictionaries(KEYS, inside)
    | st.frozensets(st.text() | st.integers()) | st.sets(st.integers()),
    max_leaves=12,
)  # fmt: skip


@given(VALUES)
def test_a_literal_evaluates_to_the_very_value(value):
    text = literal(value)
    assert same(value, eval(text, {"__builtins__": {"float": float, "set": set,
                                                     "frozenset": frozenset}}))  # fmt: skip


HOSTILE = [
    '__import__("os").system("touch /tmp/pwned")',
    "hello",
    '"""', "'''", "\\", "\\'", "'\"", "a\nb", "a\r\nb\rc", "\x00\x1b\u2028\u202e", "{x}", "#",
    "def f(): pass", "\n\n\n", "\N{PILE OF POO}" * 100, "x = 1\n" * 30, "')\nimport os\n('",
    "-*- coding: utf-16 -*-", "\ufeff", "\x0c", "'" * 200 + '"' * 200 + "\n" * 3 + "\\" * 99,
]  # fmt: skip


@given(st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"])))
def test_a_text_is_always_a_string_literal(text):
    made = unformatted({"prompt": node(text, trainable=True)})
    tree = ast.parse(made)
    assert [type(s) for s in tree.body] == [ast.Assign]
    assert ast.literal_eval(tree.body[0].value) == text
    assert loaded(made)["prompt"] == text


class Colour(enum.Enum):
    RED = 1
    GREEN = "green"


@dataclasses.dataclass
class Point:
    x: int
    tags: list[str] = dataclasses.field(default_factory=list)


class Order(BaseModel):
    item: str
    count: int = 1


def test_values_of_every_kind():
    things = {
        "prompt": node("Be\nkind", trainable=True),
        "rate": node(0.25, trainable=True),
        "level": node("low", trainable=True, constraint=Literal["low", "high"]),
        "colour": node(Colour.GREEN, trainable=True),
        "point": node(Point(1, ["a"]), trainable=True),
        "order": node(Order(item="x", count=2), trainable=True),
        "weights": node(np.arange(6, dtype=np.float32).reshape(2, 3), trainable=True),
        "tensor": node(torch.tensor([[1.5, float("inf")]], dtype=torch.bfloat16), trainable=True),
        "steps": node([1, (2, {"a": None})], trainable=True),
        "plain": 7,
    }
    made = loaded(export(things))
    assert (made["prompt"], made["rate"], made["level"]) == ("Be\nkind", 0.25, "low")
    assert (made["colour"].value, made["colour"].name) == ("green", "GREEN")
    assert dataclasses.asdict(made["point"]) == {"x": 1, "tags": ["a"]}
    assert made["order"].model_dump() == {"item": "x", "count": 2}
    assert made["weights"].dtype == np.float32
    assert np.array_equal(made["weights"], np.arange(6).reshape(2, 3))
    assert made["tensor"].dtype == torch.bfloat16
    assert torch.equal(made["tensor"], torch.tensor([[1.5, float("inf")]], dtype=torch.bfloat16))
    assert made["steps"] == [1, (2, {"a": None})]
    assert made["plain"] == 7


@given(st.lists(st.floats(width=32), max_size=6), st.sampled_from(["<f4", ">f8", "<c8", "<i2"]))
def test_arrays_come_back_bit_for_bit(numbers, kind):
    with np.errstate(all="ignore"):
        array = np.array([n if math.isfinite(n) else 0 for n in numbers]).astype(kind)
    again = loaded(unformatted({"a": node(array, trainable=True)}))["a"]
    assert again.dtype == array.dtype
    assert again.tobytes() == array.tobytes()


class Strange:
    pass


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (Strange(), "type Strange"),
        ([[Strange()]], "type Strange"),
        (np.zeros(100_001), "100,001 elements"),
        (np.array([object()]), "array of object"),
        ({"a": type("Text", (str,), {})("x")}, "type Text"),
    ],
)
def test_what_no_expression_says_is_refused(value, word):
    with pytest.raises(Unwritable, match=word):
        literal(value, lambda thing: thing.__name__)
    with pytest.raises(ParameterError, match=f"x cannot be exported.*{word}"):
        export({"x": value})


def test_a_value_that_contains_itself_is_refused():
    value = []
    value.append(value)
    with pytest.raises(Unwritable, match="contains itself"):
        literal(value)


# Functions


@bundle(trainable=True)
def price(weight):
    """The price of a parcel."""
    return weight * RATE


@bundle
def label(name):
    """A greeting."""
    return f"{GREETING.data}, {shout(name)}: {price(2)}"


def shout(text):
    return os.path.basename(text).upper()


def test_functions_bring_what_they_name():
    price.parameter.assign(price.parameter.initial.replace("* RATE", "* RATE + 1"))
    text = export([label, price])
    made = loaded(text)
    assert made["label"]("a/b") == "Hello, B: 7" == label("a/b").data
    assert made["price"](1) == 4
    assert "tracegraph" not in text.partition("\n")[2]
    price.parameter.assign(price.parameter.initial)


def test_it_needs_no_tracegraph(tmp_path):
    export([label], tmp_path / "plain.py")
    program = "import sys; sys.modules['tracegraph'] = None; import plain; print(plain.label('x'))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "Hello, X: 6\n"


def doubled(function):
    @functools.wraps(function)
    def run(*args):
        return 2 * function(*args)

    return run


def test_decorators_below_stay_and_ours_go():
    @bundle(trainable=True)
    @doubled
    def f(x):
        return x

    @lru_cache
    def g(x):
        return f"{x}"

    made = loaded(export([f, g]))
    assert made["f"](3) == 6
    assert made["g"](3) == "3"
    assert made["g"].cache_info().misses == 1


def wrapped(function):
    @functools.wraps(function)
    def run(*args):
        return -function(*args)

    return run


class Caller:
    @wrapped
    @bundle(trainable=True)
    def f(self, x):
        return x

    @wrapped
    def g(self, x):
        return x


def test_decorators_above_stay_above_the_text_of_today():
    @wrapped
    @bundle(trainable=True)
    @wrapped
    def f(x):
        return x

    (parameter,) = tg.named_parameters(f).values()
    parameter.assign(parameter.data.replace("return x", "return x + 1"))
    assert f(1).data == 2
    text = export({"f": f})
    assert loaded(text)["f"](1) == 2
    assert "bundle" not in text

    agent = tg.model(Caller)()
    assert list(tg.named_parameters(agent)) == ["f"]
    tg.named_parameters(agent)["f"].assign("def f(self, x):\n    return x + 1\n")
    assert agent.f(1).data == -2
    made = loaded(export(agent))["Caller"]()
    assert (made.f(1), made.g(1)) == (-2, -1)


def test_methods_are_exported_with_their_object():
    for method in (Agent("Ann").answer, Caller().g):
        with pytest.raises(ParameterError, match="is a method: export the object"):
            export({"method": method})


def _relative(x):
    from . import test_bundle as tests
    from . import test_parsing
    from .architecture.test_imports import __name__ as name

    return tests.__name__, test_parsing.__name__, name


class Relative:
    def run(self):
        from . import test_bundle

        return test_bundle.__name__


def test_relative_imports_are_given_their_whole_names():
    text = export([bundle(trainable=True)(_relative), Relative])
    made = loaded(text)
    assert made["_relative"](1) == (
        "tests.test_bundle", "tests.test_parsing", "tests.architecture.test_imports",
    )  # fmt: skip
    assert made["Relative"]().run() == "tests.test_bundle"


T = TypeVar("T")
Number = TypeVar("Number", int, float)
Weight = TypeVar("Weight", bound=int)
Vague = TypeVar("Vague", bound="list[int]")
P = ParamSpec("P")


def test_variables_of_types_are_written():
    def first(x: list[T], y: Number, z: Weight, call: Callable[P, Number]) -> T:
        return x[0]

    made = loaded(export(first))
    hints = made["first"].__annotations__
    assert made["first"]([3], 1, 2, len) == 3
    assert hints["y"].__constraints__ == (int, float)
    assert hints["z"].__bound__ is int
    assert hints["return"].__name__ == "T"

    def vague(x: Vague) -> None:
        """Nothing."""

    with pytest.raises(ParameterError, match="Vague cannot be exported: ~Vague, whose bound"):
        export(vague)


class Box(Generic[T]):
    """Holds one."""


@pytest.mark.parametrize(
    "alias",
    [
        tuple[int, int], tuple[int, ...], tuple[()], list[dict[str, "Point"]], type[Colour],
        int | None, list[int] | Colour, typing.Optional[int], typing.Union[int, str],  # noqa: UP007, UP045
        typing.List[int], typing.Dict[str, typing.Any], typing.Tuple[int, ...],  # noqa: UP006
        typing.Tuple[()], typing.Type[int],  # noqa: UP006
        abc.Callable[[int, Colour], str], abc.Callable[..., None], typing.Callable[[], int],
        typing.Callable[..., int], abc.Iterator[int], typing.Iterator[int], Box[int],
        Literal["a", "b\nc" * 60, 1, None, Colour.RED], typing.Annotated[list[int], "units", 3],
        typing.ClassVar[int], abc.Mapping[str, list[Literal["'"]]],
    ],
    ids=str,
)  # fmt: skip
def test_types_put_together_are_written(alias):
    made = loaded(unformatted({"Alias": alias}))["Alias"]
    assert type(made) is type(alias)
    assert (made, repr(made)) == (alias, repr(alias))


def test_a_function_brings_the_aliases_that_it_names():
    made = loaded(export(swapped))
    assert made["swapped"]((1, 2)) == (2, 1)
    assert made["Pair"] == tuple[int, int]


Pair: typing.TypeAlias = tuple[int, int]


def swapped(pair: Pair) -> Pair:
    return pair[1], pair[0]


def test_an_alias_of_a_variable_is_refused():
    with pytest.raises(ParameterError, match="Boxes cannot be exported: types that depend on the"):
        export({"Boxes": list[T]})


@bundle(trainable=True)
def of_many_blocks(xs):
    """Blocks of every kind."""
    total = 0
    for x in xs:
        """no documentation"""
        with contextlib.suppress(ZeroDivisionError):
            if x:
                while total < 3:
                    total += 1
            try:
                total += 1 / x
            except TypeError:
                total = 0
        match x:
            case 5:
                return -1
    return total


def test_blocks_of_every_kind_are_laid_out_and_stay_what_they_are():
    text = export(of_many_blocks)
    assert loaded(text)["of_many_blocks"]([0, 1]) == of_many_blocks([0, 1]).data == 4
    assert formatted(text.replace("total = 0\n", "total  =  0\n")) == text


def test_closures_are_written_as_their_values():
    bonus, text = 5, "def x(): pass"

    @bundle(trainable=True)
    def f(x):
        return x + bonus, text

    made = loaded(export(f))
    assert made["f"](1) == (6, "def x(): pass")


def test_closures_that_cannot_stand_alone_are_refused():
    total = 0

    @bundle(trainable=True)
    def count(x):
        nonlocal total
        total += x
        return total

    with pytest.raises(ParameterError, match=r"count cannot stand by itself.*nonlocal"):
        export(count)
    held = Strange()

    @bundle(trainable=True)
    def other(x):
        return held

    with pytest.raises(ParameterError, match=r"held cannot be exported.*Strange"):
        export(other)


def test_two_meanings_of_one_name_are_refused():
    def made(rate):
        @bundle(trainable=True)
        def f(x):
            return x * rate

        return f

    with pytest.raises(ParameterError, match="two things are named 'f'"):
        export([made(2), made(3)])
    with pytest.raises(ParameterError, match="'rate' names two things"):
        export({"f": made(2), "g": made(3)})


def test_helpers_of_two_texts_do_not_mix():
    @bundle(trainable=True)
    def f(x):
        return x

    @bundle(trainable=True)
    def g(x):
        return x

    f.parameter.assign(
        "import math\ndef part(x):\n    return x + 1\ndef f(x):\n    return part(x)\n"
    )
    g.parameter.assign(
        "import math\ndef part(x):\n    return x - 1\ndef g(x):\n    return part(x)\n"
    )
    with pytest.raises(ParameterError, match="'part' names two things"):
        export([f, g])
    g.parameter.assign(g.parameter.data.replace("x - 1", "x + 1"))
    assert loaded(export([f, g]))["g"](1) == 2
    g.parameter.assign("RATE = 5\ndef g(x):\n    return x * RATE\n")
    with pytest.raises(ParameterError, match="'RATE' names two things"):
        export([price, g])


def test_async_functions_and_generators():
    @bundle(trainable=True)
    async def later(x):
        return x + 1

    @bundle(trainable=True)
    def items(n):
        yield from range(n)

    made = loaded(export([later, items]))
    assert asyncio.run(made["later"](1)) == 2
    assert list(made["items"](3)) == [0, 1, 2]


def test_untrusted_code_is_written_only_when_asked_and_marked():
    @bundle(trainable=True)
    def f(x):
        return x

    f.parameter.assign("def f(x):\n    return x + 1\n", origin="optimizer")
    with pytest.raises(ParameterError, match=r"nobody has trusted it.*untrusted=True"):
        export(f)
    text = export(f, untrusted=True)
    assert "# An optimizer wrote this and nobody has trusted it" in text
    f.parameter.trust()
    assert "nobody" not in export(f)
    assert loaded(export(f))["f"](1) == 2


@pytest.mark.parametrize(
    ("things", "word"),
    [
        ([node(1)], "no name"),
        ({"not a name": 1}, "cannot name anything"),
        ({"class": 1}, "cannot name anything"),
        ([price.parameter], "export the function itself"),
        ([lambda x: x], "lambda"),
        ([node(1, name="a"), node(2, name="a")], "two things are named 'a'"),
    ],
)
def test_what_cannot_be_exported_says_why(things, word, tmp_path):
    with pytest.raises(ParameterError, match=word):
        export(things, tmp_path / "out.py")
    assert list(tmp_path.iterdir()) == []


# Objects


class Speaker(tg.Module):
    @bundle(trainable=True)
    def speak(self, word):
        return f"speaker: {word}"


class Loud(Speaker):
    @bundle(trainable=True)
    def speak(self, word):
        return super().speak(word).upper()


def test_a_method_that_overrides_another_is_written_beside_it(tmp_path):
    loud = Loud()
    before = loud.speak("a").data
    loud.speak.parameter.assign(
        "def speak(self, word):\n    return super().speak(word).upper() + '!'\n"
    )
    text = tg.export(loud, tmp_path / "loud.py")
    assert text.count("def speak(self, word):") == 2
    there: dict = {}
    exec(text, there)
    assert (before, there["Loud"]().speak("a")) == ("SPEAKER: A", "SPEAKER: A!")
    assert there["Speaker"]().speak("a") == "speaker: a"


class Base(tg.Module):
    def __init__(self):
        self.style = node("kind", trainable=True)


class Agent(Base):
    """Answers."""

    def __init__(self, name):
        super().__init__()
        self.name = name
        self.prompt = tg.node(  # the text that is trained
            "Be kind.",
            trainable=True,
        )
        self.fixed = node(4)
        self.tools: list = [node("a", trainable=True), node("é", trainable=True), 3]
        self.more = tg.Map({"b": node("c", trainable=True)})
        self.helper = Helper()

    @bundle(trainable=True)
    def answer(self, question):
        """An answer."""
        text = """keeps
    its lines"""
        return f"{self.prompt.data} {question} {text}"

    @tg.bundle()
    @staticmethod
    def plain(x):
        return x

    def forward(self, x):
        return self.answer(x)


@tg.model
class Helper:
    def __init__(self):
        self.rate = node(0.5, trainable=True)

    def apply(self, x):
        return self.rate * x


def test_an_object_with_its_values_and_code():
    agent = Agent("Ann")
    agent.prompt.assign("Be \"rude\".\n'''")
    agent.helper.rate.assign(0.75)
    agent.tools[1].assign("import os")
    code = agent.answer.__func__.parameter
    code.assign(code.data.replace("{text}", "{text}!"))
    text = agent.export()
    assert "tracegraph" not in text.partition("\n")[2]
    made = loaded(text)
    twin = made["Agent"]("Ann")
    assert vars(twin) | {"helper": None} == {
        "name": "Ann", "style": "kind", "prompt": 'Be "rude".\n\'\'\'', "fixed": 4,
        "tools": ["a", "import os", 3], "more": {"b": "c"}, "helper": None,
    }  # fmt: skip
    assert twin("Why?") == agent("Why?").data
    assert twin.helper.apply(2) == 1.5
    assert made["Agent"].__doc__ == "Answers."
    assert twin.plain(3) == 3
    assert Agent("Ann").prompt.data == "Be kind."


def test_a_file_round_trips(tmp_path):
    agent = Agent("Ann")
    text = agent.export(tmp_path / "agent.py")
    assert (tmp_path / "agent.py").read_text(encoding="utf-8") == text
    assert [p.name for p in tmp_path.iterdir()] == ["agent.py"]


def test_an_untrusted_method_of_an_object():
    agent = Agent("Ann")
    code = agent.answer.__func__.parameter
    code.assign("def answer(self, question):\n    return 'no'\n", origin="optimizer")
    with pytest.raises(ParameterError, match="trusted"):
        agent.export()
    text = agent.export(untrusted=True)
    assert text.count("# An optimizer wrote this") == 1
    assert loaded(text)["Agent"]("x")("y") == "no"
    other = Agent("Ben")
    assert "keeps" in other.export()


def test_a_parameter_without_a_place_is_refused():
    agent = Agent("Ann")
    agent.late = node("x", trainable=True)
    with pytest.raises(ParameterError, match=r"late has no place"):
        agent.export()


def test_two_objects_of_one_class():
    class Pair(tg.Module):
        def __init__(self):
            self.a = Helper()
            self.b = Helper()

    pair = Pair()
    assert loaded(pair.export())["Pair"]().b.rate == 0.5
    pair.b.rate.assign(1.0)
    with pytest.raises(ParameterError, match="two objects of Helper hold different values"):
        pair.export()


@bundle(trainable=True)
class Tally:
    """Counts."""

    def __init__(self, start):
        self.total = start
        self.word = node("items", trainable=True)

    def add(self, n):
        self.total += n * RATE
        return f"{self.total} {self.word.data}"


def test_trainable_classes():
    Tally.parameter.assign(Tally.parameter.initial.replace("* RATE", "* RATE * 2"))
    made = loaded(export(Tally))
    assert made["Tally"](1).total == 1
    tally = Tally(1)
    tally.word.assign("'pieces'")
    made = loaded(export(tally))
    assert made["Tally"](1).add(2) == "13 'pieces'"
    Tally.parameter.assign(Tally.parameter.initial)


def test_the_formatter_keeps_what_it_is_given():
    ugly = "x  =  {  'a':1 }\nprompt = 'it''s'\n\n\n\n\ndef f( x ) :\n  '''Doc.\n  more'''\n  return x\n"
    laid_out = formatted(ugly)
    assert laid_out.startswith("x = {'a': 1}\nprompt = 'its'\n")
    assert loaded(laid_out)["prompt"] == "its"
    assert formatted("this is no Python") == "this is no Python"


def test_without_the_formatter(monkeypatch):
    monkeypatch.setitem(sys.modules, "ruff", None)
    text = Agent("Ann").export()
    assert loaded(text)["Agent"]("Ann").prompt == "Be kind."
