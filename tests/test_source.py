"""Code as data: taken by its syntax tree, replaced only by what fits."""

import ast
import functools
import linecache
import textwrap
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracegraph import bundle
from tracegraph.marking import BadSource, marked, numbered
from tracegraph.source import Source, dedented

SAMPLE = Source("def f(a, b=1, *rest, c, d=2, **more):\n    return a\n", entry="f")


def original(a, b=1, *rest, c, d=2, **more):
    return a


def test_what_a_replacement_keeps():
    assert SAMPLE.header == "def f(a, b=1, *rest, c, d=2, **more):"
    for text in (
        "def f(a, b=1, *rest, c, d=2, **more): return b",
        "def f(a: int, b: int = 1, *rest: str, c, d=2, **more) -> int:\n    return 1",
        "import os\nX = 1\ndef helper(): pass\ndef f(a, b=1, *rest, c, d=2, **more):\n  return X",
        '"""Doc."""\ndef f(a, b = 1, *rest, c, d = 2, **more):\n\treturn a',
        "class Helper: pass\ndef f(a, b=1, *rest, c, d=2, **more): return Helper",
    ):
        replaced = SAMPLE.replaced(text)
        assert replaced.text == text
        replaced.compile(original)


BAD = {
    "def f(a): pass": "signature",
    "def f(a, b=2, *rest, c, d=2, **more): pass": "signature",
    "def f(a, b=1, *others, c, d=2, **more): pass": "signature",
    "async def f(a, b=1, *rest, c, d=2, **more): pass": "signature",
    "def g(): pass": "'g'",
    "x = 1": "nothing",
    "": "nothing",
    "f = lambda: 1": "'f', it defines another thing of that name: write it with `def`",
    "class f: pass": "'f', it defines another thing of that name: write it with `def`",
    "def f(:": "parse",
    "def f(a, b=1, *rest, c, d=2, **more):\n    break": "break",
    "def f(a, b=1, *rest, c, d=2, **more):\n    await x": "await",
    "def f(a, b=1, *rest, c, d=2, **more):\n    nonlocal zz": "zz",
    "def f(a, b=1, *rest, c, d=2, **more):\n    from os import *": "import",
    "def f(a, b=1, *rest, c, d=2, **more): pass\nreturn 1": "return",
    "def f(a, b=1, *rest, c, d=2, **more): pass\nyield 1": "yield",
    "def f(a, b=1, *rest, c, d=2, **more): pass\nx = await y": "await",
    "def f(a, b=1, *rest, c, d=2, **more): pass\nif 1:\n    return 5": "return",
    "def f(a, b=1, *rest, c, d=2, **more):\n    x = (\n": "parse",
    "def f(a, b=1, *rest, c, d=2, **more):\n    return 'a\x00'": "null",
    "def f(a, b=1, *rest, c, d=2, **more):\n        x\n    y": "indent",
    "(" * 10_000: "parse",
    "from __future__ import annotations\ndef f(a, b=1, *rest, c, d=2, **more): pass": "leave out",
    "def f(a, b=1, *rest, c, d=2, **more):\n    if a:\n        x = yield a": "return, not yield",
    "def f(a, b=1, *rest, c, d=2, **more):\n    yield from rest": "return, not yield",
}


@pytest.mark.parametrize(("text", "word"), BAD.items(), ids=map(str, range(len(BAD))))
def test_what_does_not_fit_is_refused_with_the_reason(text, word):
    with pytest.raises(BadSource, match=word):
        SAMPLE.replaced(text)


@pytest.mark.parametrize("word", ["def", "async def"])
def test_a_generator_stays_one_and_marks_its_first_line(word):
    source = Source(f"{word} f(n):\n    for i in range(n):\n        yield i\n", entry="f")
    assert source.replaced(f"{word} f(n):\n    g = lambda: 1\n    yield g").yields
    inner = (
        f"{word} f(n):\n    def inner():\n        yield 1\n    g = lambda: (yield)\n    return n"
    )
    with pytest.raises(BadSource) as caught:
        source.replaced(inner)
    assert f"   1 | {word} f(n):  <--- must yield its items" in str(caught.value)
    assert not Source(inner, entry="f").yields


def test_a_syntax_error_marks_its_line():
    with pytest.raises(BadSource) as caught:
        SAMPLE.replaced("x = 1\ny = (\nz")
    assert "   2 | y = (  <---" in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_is_refused_or_compiles(text):
    try:
        SAMPLE.replaced(text).compile(original)
    except BadSource as error:
        fault = str(error)
    else:
        return
    assert fault


def marker(found):
    return found is bundle


def test_taking_the_text_of_functions_of_every_layout():
    @bundle(trainable=True, description="unbalanced ( bracket ')")
    def one(x):  # a comment (
        """Doc with # and ( ."""
        return {
            "a": x,
        }

    assert one.parameter.data == (
        'def one(x):  # a comment (\n    """Doc with # and ( ."""\n'
        '    return {\n        "a": x,\n    }\n'
    )

    @bundle(
        trainable=True,
    )
    def two(
        x,
        y=")",
    ):
        return """
    text that is not indented
        """

    assert two.parameter.data.startswith("def two(\n    x,")
    assert two(1).data == "\n    text that is not indented\n        "
    two.parameter.assign(two.parameter.data + "# changed\n")
    assert two(1).data == "\n    text that is not indented\n        "

    class Holder:
        @bundle(trainable=True)
        def method(self, x):
            return """a
b"""

    assert Holder().method(1).data == "a\nb"
    code = Holder().method.parameter
    assert code.data == 'def method(self, x):\n    return """a\nb"""\n'


def test_kept_decorators_below_the_marker():
    @bundle(trainable=True)
    @functools.lru_cache
    def f(x):
        return x

    assert f.parameter.data.startswith("@functools.lru_cache\ndef f(x):")
    f.parameter.assign("@functools.lru_cache\ndef f(x):\n    return x + 1\n")
    assert f(1).data == 2


def test_a_wrapper_above_is_not_part_of_the_text():
    def logged(function):
        @functools.wraps(function)
        def run(*args):
            return function(*args)

        return run

    @logged
    @bundle(trainable=True)
    def f(x):
        return x

    assert f.__wrapped__.parameter.data.startswith("def f(x):")


def test_defaults_and_annotations_whose_names_are_gone():
    def outer():
        start = [1]

        class Local:
            pass

        @bundle(trainable=True)
        def f(x: Local, y=start, *, z=start) -> Local:
            return x, y, z

        return f, start

    f, start = outer()
    f.parameter.assign(f.parameter.data.replace("return x, y, z", "return z, y, x"))
    result = f(1).data
    assert result == ([1], [1], 1)
    assert result[0] is start


def test_globals_are_those_of_the_module():
    namespace = {"K": 1, "__name__": "made"}
    exec(compile("def f():\n    return K\n", "<made>", "exec"), namespace)
    source = Source("def f():\n    return K + 1\n", entry="f")
    function = source.compile(namespace["f"])
    assert function() == 2
    namespace["K"] = 10
    assert function() == 11


def test_global_statements_write_to_the_module():
    namespace = {"K": 1}
    exec(compile("def f():\n    return K\n", "<made>", "exec"), namespace)
    source = Source("def f():\n    global K\n    K += 1\n    return K\n", entry="f")
    assert source.compile(namespace["f"])() == 2
    assert namespace["K"] == 2


def test_source_cannot_be_had():
    namespace: dict = {}
    exec("def typed(x): return x", namespace)
    for function in (namespace["typed"], len, functools.partial(original, 1)):
        with pytest.raises(BadSource):
            Source.of(function, marker)


def test_lines_are_forgotten_with_the_source():
    source = Source("def f(): pass", entry="f")
    name = source.filename
    assert name in linecache.cache
    del source
    assert name not in linecache.cache


def test_future_annotations_are_kept():
    text = textwrap.dedent(
        """
        from __future__ import annotations
        def f(x: Missing): return x
        """
    )
    namespace: dict = {}
    exec(compile(text, "<made>", "exec"), namespace)
    code = namespace["f"].__code__
    import __future__

    flags = code.co_flags & __future__.annotations.compiler_flag
    source = Source("def f(x: Missing):\n    return x", entry="f", flags=flags)
    assert source.compile(namespace["f"])(3) == 3


def test_private_names_are_those_of_the_class():
    class _Agent:
        def __init__(self):
            self.__secret = 5

        @bundle(trainable=True)
        def act(self):
            return self.__secret

    agent = _Agent()
    assert agent.act().data == 5
    agent.act.parameter.assign("def act(self):\n    self.__secret += 1\n    return self.__secret")
    assert agent.act().data == 6


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("def g(n):\n    return 1\n", "1 | def g(n):  <--- no 'f' here"),
        ("x = 1\n", "1 | x = 1  <--- no 'f' here"),
        ("def f(n):\n    return 1\nf = 3\n", "3 | f = 3  <--- 'f' again"),
        ("def f(n):\n    return 1\ndel f\n", "3 | del f  <--- 'f' again"),
        ("def f(n):\n    return 1\nfrom math import pi as f\n", "<--- 'f' again"),
        (
            "def f(n):\n    return 1\nif 1:\n    def f(n): return 2\n",
            "4 |     def f(n): return 2  <---",
        ),
        ("def f(n):\n    return 1\nfor f in []:\n    pass\n", "3 | for f in []:  <---"),
        ("def f(n):\n    return 1\nclass f: pass\n", "3 | class f: pass  <---"),
    ],
)
def test_the_entry_is_defined_once_and_the_line_marked(text, marked):
    with pytest.raises(BadSource) as caught:
        Source("def f(n):\n    return n\n", entry="f").replaced(text)
    assert marked in str(caught.value)


def test_inner_names_like_the_entry_are_no_second_entry():
    text = "def f(n):\n    f = n\n    return f\ndef g(f): return [f for f in f]\n"
    assert Source(text, entry="f").entry == "f"


ENDS_NO_LINE = ("\x0c", "\x0b", "\x1c", "\x1e", "\x85", "\u2028")


@pytest.mark.parametrize("mark", ENDS_NO_LINE, ids=ascii)
def test_lines_are_counted_as_python_counts_them(mark):
    """Python's parser knows three ends of a line; `str.splitlines` knows ten."""
    text = f"def f(x):\n    # a{mark}b{mark}c\n    y = 1\n    return y / x\n"
    at = ast.parse(text).body[0].body[-1].lineno
    assert marked(text, at, "here").endswith("return y / x  <--- here")
    assert numbered(text).splitlines()[-1] == f"{at:>4} |     return y / x"
    with pytest.raises(BadSource) as caught:
        Source(f"x = 1  # {mark}\ndef f(x:\n", entry="f")
    assert caught.value.line == 2
    assert "def f(x:  <---" in str(caught.value)
    source = Source(text, entry="f")  # its lines are known while it lives
    try:
        source.compile(lambda x: x)(0)
    except ZeroDivisionError as error:
        told = traceback.format_exception(error)
    assert "return y / x" in "".join(told)


@pytest.mark.parametrize("mark", ENDS_NO_LINE, ids=ascii)
def test_the_indent_goes_and_nothing_else(mark):
    text = f"    def f():\n        # a{mark}    b\n        return 'c{mark}    d'\n"
    assert dedented(text) == f"def f():\n    # a{mark}    b\n    return 'c{mark}    d'\n"


@pytest.mark.parametrize("trusted", [True, False])
def test_an_expression_may_be_as_long_as_python_reads_it(trusted):
    @bundle(trainable=True)
    def f(x):
        return x

    class Kind:
        @bundle(trainable=True)
        def get(self):
            return 1

    f.parameter.assign(f"def f(x):\n    return x{' + 1' * 800}\n", origin="optimizer")
    kind = Kind()
    kind.get.parameter.assign(f"def get(self):\n    return 0{' + 1' * 800}\n", origin="optimizer")
    if trusted:
        f.parameter.trust()
        kind.get.parameter.trust()
    assert (f(1).data, kind.get().data) == (801, 800)
