"""What new code must pass before it is taken."""

import ast
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tracegraph as tg
from tracegraph import Rejected, bundle
from tracegraph.codechecks import (
    AllowedImports,
    CodeCheck,
    Fault,
    MaxComplexity,
    MaxSize,
    TypeChecks,
)
from tracegraph.marking import BadSource

BRANCHES = {
    "nothing": ("return x", 1),
    "if": ("if x:\n        return 1\n    return 2", 2),
    "elif": ("if x:\n        return 1\n    elif x > 1:\n        return 2\n    return 3", 3),
    "and or": ("return x and x or x", 3),
    "loops": ("for i in x:\n        while i:\n            i -= 1\n    return x", 3),
    "comprehension": ("return [i for i in x if i if i > 1]", 4),
    "handlers": ("try:\n        x()\n    except A:\n        x\n    except B:\n        return 2", 3),
    "match": ("match x:\n        case 1:\n            return 1\n        case _:\n            return 2", 3),
    "inner function": ("def g(y):\n        return 1 if y else 2\n    return g(x)", 1),
    "lambda": ("return lambda y: 1 if y else 2", 2),
}  # fmt: skip


@pytest.mark.parametrize(("body", "paths"), BRANCHES.values(), ids=BRANCHES.keys())
def test_complexity_counts_decisions(body, paths):
    text = f"def f(x):\n    {body}\n"
    if "inner" not in body and "def g" not in body:
        assert MaxComplexity(paths)(text)
        if paths > 1:
            with pytest.raises(BadSource, match=f"complexity of {paths}, more than {paths - 1}"):
                MaxComplexity(paths - 1)(text)
    else:
        with pytest.raises(BadSource, match="'g' has a cyclomatic complexity of 2") as caught:
            MaxComplexity(1)(text)
        assert caught.value.line == 2


IMPORTS = {
    "import os": "os",
    "import math, os.path": "os.path",
    "from os import path": "os",
    "from . import x": ".",
    "from .math import x": ".math",
    "import mathematics": "mathematics",
    "y = __import__('os')": "__import__",
    "y = __builtins__['eval']": "__builtins__",
    "y = math.__loader__.load_module('os')": "__loader__",
    "def g():\n    import os": "os",
}


@pytest.mark.parametrize(("line", "name"), IMPORTS.items(), ids=IMPORTS.keys())
def test_imports_that_are_not_allowed_are_named_with_their_line(line, name):
    check = AllowedImports("math", "json.decoder")
    with pytest.raises(BadSource) as caught:
        check(f"import math\n{line}\n")
    assert caught.value.reason.startswith(f"may not import {name!r}")
    assert "  <--- may not import" in str(caught.value)
    marked = next(part for part in str(caught.value).splitlines() if "<---" in part)
    assert f"{caught.value.line:>4} | " in marked


def test_allowed_imports():
    check = AllowedImports("math", "json")
    assert check("import math\nfrom json.decoder import JSONDecoder\nimport json.encoder as e\n")
    assert AllowedImports("json.decoder")("from json.decoder import JSONDecoder")
    assert AllowedImports("os.path")("from os import path, path as p\nfrom os.path import join")
    for line in ("from os import path, system", "from os import *", "import os"):
        with pytest.raises(BadSource, match="may not import 'os'"):
            AllowedImports("os.path")(line)
    with pytest.raises(BadSource):
        AllowedImports("json.decoder")("import json")
    with pytest.raises(BadSource, match="imports nothing"):
        AllowedImports()("import math")


@given(st.integers(1, 30), st.integers(1, 30))
def test_sizes_are_counted_as_they_are(lines, limit):
    text = "\n".join(f"x{i} = {i}" for i in range(lines))
    for check in (MaxSize(lines=limit), MaxSize(nodes=4 * limit + 1)):
        if lines <= limit:
            assert check(text)
        else:
            with pytest.raises(BadSource, match="more than"):
                check(text)
    assert MaxSize(characters=len(text))(text)
    if len(text) > 1:
        with pytest.raises(BadSource, match="characters"):
            MaxSize(characters=len(text) - 1)(text)


@given(st.text(max_size=30))
def test_any_text_is_taken_or_refused_with_a_reason(text):
    for check in (AllowedImports(), MaxSize(lines=1, characters=10, nodes=5), MaxComplexity(1)):
        with contextlib.suppress(BadSource):
            assert check(text)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "9"])
def test_limits_that_are_none(limit):
    with pytest.raises(TypeError, match="whole number"):
        MaxComplexity(limit)
    with pytest.raises(TypeError, match="whole number"):
        MaxSize(lines=limit)
    with pytest.raises(TypeError, match="names of modules"):
        AllowedImports("os path")


class NoLoops(CodeCheck):
    def describe(self):
        return "has no loop"

    def fault(self, tree, text):
        loops = [n for n in ast.walk(tree) if isinstance(n, ast.While)]
        return Fault("a loop may not end", loops[0].lineno) if loops else None


def test_checks_of_the_text_compose_in_constraint_and_in_checks():
    @bundle(trainable=True, constraint=[MaxSize(lines=4)], checks=[NoLoops(), AllowedImports()])
    def f(x):
        return x

    said = f.parameter.constraint.describe()
    for part in ("has at most 4 lines", "has no loop", "imports nothing"):
        assert part in said
    for text, word in (
        ("def f(x):\n    while x:\n        x -= 1\n    return x", "may not end"),
        ("def f(x):\n    import os\n    return x", "import 'os'"),
        ("def f(x):\n\n\n\n    return x", "5 lines"),
    ):
        with pytest.raises(tg.Rejected, match=word) as caught:
            f.parameter.assign(text, origin="optimizer")
        assert "<---" in caught.value.reason
    assert f.parameter.version == 0
    f.parameter.assign("def f(x):\n    return x + 1", origin="optimizer")


def test_a_function_that_breaks_its_own_rule_is_refused_at_once():
    with pytest.raises(tg.Rejected, match="imports nothing"):

        @bundle(trainable=True, checks=[AllowedImports()])
        def f(x):
            import math

            return math.pi


@pytest.mark.parametrize("checks", [3, "abc", [3], None])
def test_what_is_no_check_is_refused(checks):
    with pytest.raises(TypeError, match="checks="):

        @bundle(trainable=True, checks=checks)
        def f(x):
            return x


# Tests that the function must pass


def sorts(f):
    """Sorts numbers"""
    assert f([3, 1, 2]) == [1, 2, 3]
    assert f([]) == []


def keeps_length(f):
    return len(f([1, 1])) == 2


@pytest.fixture
def order():
    @bundle(trainable=True, checks=[sorts, keeps_length])
    def order(items):
        return items

    return order


REFUSED = {
    "wrong": ("return items[:]", "== [1, 2, 3]`; the last call was f([3, 1, 2]) = [3, 1, 2]"),
    "false": ("return sorted(set(items))", "'keeps_length' said no; the last call was f([1, 1]) = [1]"),
    "raises": ("return items[9]", "which raised (IndexError)"),
    "loops": ("while True:\n        pass", "longer than"),
    "reads": ("return open('/etc/passwd').read()", "Forbidden"),
    "ends": ("import os\n    os._exit(0)", "exit code 0"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "word"), REFUSED.values(), ids=REFUSED.keys())
def test_a_failed_test_tells_the_call(order, body, word):
    before = order.parameter.data
    with pytest.raises(tg.Rejected) as caught:
        order.parameter.assign(f"def order(items):\n    {body}\n", origin="optimizer")
    assert word in caught.value.reason
    assert order.parameter.data == before
    assert order.parameter.version == 0


def test_an_error_in_the_code_marks_its_line_and_tells_the_variables(order):
    with pytest.raises(tg.Rejected) as caught:
        order.parameter.assign("def order(items):\n    n = 9\n    return items[n]\n")
    assert "   3 |     return items[n]  <--- (IndexError)" in caught.value.reason
    assert "n = 9" in caught.value.reason


def test_code_that_passes_is_taken_and_tested_once(order):
    text = "def order(items):\n    return sorted(items)\n"
    calls = []

    def counted(f):
        calls.append(1)
        return f([2, 1]) == [1, 2]

    @bundle(trainable=True, checks=[counted])
    def order(items):
        return items

    assert not calls  # the first text may be what is to be repaired
    order.parameter.assign(text, origin="optimizer")
    order.parameter.assign(text, origin="optimizer")
    assert calls == [1]
    assert order([2, 3, 1]).data == [1, 2, 3]
    assert "passes the tests: counted" in order.parameter.constraint.describe()


def test_what_is_expected_never_reaches_the_code_under_test():
    found = []

    def secret(f):
        found.append(f(1))
        return found[-1] == 41

    @bundle(trainable=True, checks=[secret])
    def peek(x):
        return x

    spy = (
        "def peek(x):\n    import gc, sys\n"
        "    names = [n for m in list(sys.modules.values()) for n in vars(m)]\n"
        "    return 'secret' in names or 'pytest' in sys.modules\n"
    )
    with pytest.raises(tg.Rejected):
        peek.parameter.assign(spy, origin="optimizer")
    assert found == [False]


def test_trusted_bundles_are_tested_in_place():
    kept = []

    def keeps(f):
        return f(kept) is kept

    @bundle(trainable=True, trust=True, checks=[keeps])
    def same(x):
        return list(x)

    same.parameter.assign("def same(x):\n    return x\n", origin="optimizer")
    assert same(kept).data is kept


def test_async_code_is_tested_without_awaiting():
    def adds(f):
        return f(1) == 2

    @bundle(trainable=True, checks=[adds])
    async def later(x):
        return x

    later.parameter.assign("async def later(x):\n    return x + 1\n", origin="optimizer")
    with pytest.raises(tg.Rejected):
        later.parameter.assign("async def later(x):\n    return x + 2\n", origin="optimizer")


def test_a_rejected_proposal_tells_the_optimizer_why(order):
    from optimizers import OptoPrime
    from tracegraph.llm import Scripted

    text = "def order(items):\\n    return items\\n    pass\\n"
    model = Scripted(['{"reasoning": "r", "suggestion": {"order": "' + text + '"}}'])
    optimizer = OptoPrime(order, llm=model)
    optimizer.backward(order([2, 1]), "not sorted")
    update = optimizer.step()
    assert "the last call was f([3, 1, 2])" in update.rejections[0].reason
    assert order.parameter.version == 0


TYPED = "def f(x: int) -> str:\n    y = x + LIMIT\n    return {}\n"


@pytest.mark.parametrize(
    ("result", "word"),
    [
        pytest.param("str(y)", None, marks=pytest.mark.campaign),
        ("x + 1", r'expected "str".*\n(.*\n)*   3 \|     return x \+ 1  <---'),
    ],
)
def test_types_are_checked_as_far_as_the_text_goes(result, word):
    text = TYPED.format(result)
    if word is None:
        assert TypeChecks()(text)
    else:
        with pytest.raises(BadSource, match=word):
            TypeChecks()(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("# mypy: ignore-errors\n{}", 1),
        ("{}# mypy: disable-error-code=return-value\n", 3),
        ("{}    # type: ignore\n", 3),
        ("{}    #type:ignore[return-value]\n", 3),
        ("import typing as t\n@t.no_type_check\n{}", 2),
        ("from typing import no_type_check as fast\n@fast\n{}", 1),
    ],
)
def test_a_text_that_tells_mypy_to_look_away_is_refused(text, line):
    with pytest.raises(BadSource, match="make the types fit") as caught:
        TypeChecks()(text.format("def f(x: int) -> str:\n    return x\n"))
    assert caught.value.line == line


@pytest.mark.campaign
def test_words_in_a_text_are_no_comments():
    assert TypeChecks()("def f(x: int) -> str:\n    return '# type: ignore'\n")


@pytest.mark.campaign
def test_strict_types():
    with pytest.raises(BadSource, match="annotation"):
        TypeChecks(strict=True)("def f(x):\n    return x\n")


def test_a_predicate_shows_the_lines_of_the_text():
    def loops(text):
        """Has no while loop."""
        return "while" not in text

    @bundle(trainable=True, constraint=loops)
    def f(n):
        return n

    with pytest.raises(Rejected, match=r"(?s)Has no while loop, got\n   1 \| def f"):
        f.parameter.assign("def f(n):\n    while n:\n        n -= 1\n    return n\n")


def test_a_test_in_place_marks_the_line_too():
    def halves(f):
        assert f(0) == 0

    @bundle(trainable=True, trust=True, checks=[halves])
    def f(n):
        return n

    text = "def g(n):\n    return 1 / n\n\n\ndef f(n):\n    return g(n)\n"
    with pytest.raises(Rejected, match=r"return 1 / n  <--- \(ZeroDivisionError"):
        f.parameter.assign(text)
