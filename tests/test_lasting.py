"""What code changes and would keep is lost where it runs apart: that is said, and to whom it matters."""

import asyncio
import contextlib
import warnings

import pytest

from optimizers import OptoPrime
from tracegraph import Graph, bundle, failed_node, lasting
from tracegraph.lasting import LostStateWarning, changes, lost
from tracegraph.llm import Scripted

total = 0
MODULE = pytest
x: list[int] = []
SEEN: list[int] = []
TABLE: dict[str, list[int]] = {"a": []}

KEEPERS = {
    "total": "def keep(x):\n    global total\n    total += x\n    return total\n",
    "SEEN": "def keep(x):\n    SEEN.append(x)\n    return len(SEEN)\n",
    "TABLE['a']": "def keep(x):\n    TABLE['a'].append(x)\n    return len(TABLE['a'])\n",
    "TABLE": "def keep(x):\n    TABLE[str(len(TABLE))] = x\n    return len(TABLE)\n",
    "own": "own = []\ndef keep(x):\n    own.append(x)\n    return len(own)\n",
    "keep.calls": "def keep(x):\n    keep.calls = getattr(keep, 'calls', 0) + x\n    return keep.calls\n",
}


def keep(x): ...


def keeping(text, **options):
    @bundle(trainable=True, **options)
    def keep(x):
        return x

    keep.parameter.assign(text, origin="optimizer")
    return keep


@pytest.mark.parametrize("name", KEEPERS)
def test_what_stays_in_place_is_lost_apart_and_said_once_a_version(name, monkeypatch):
    monkeypatch.setitem(globals(), "total", 0)
    monkeypatch.setitem(globals(), "SEEN", [])
    monkeypatch.setitem(globals(), "TABLE", {"a": []})
    text = KEEPERS[name]
    keep = keeping(text)
    with pytest.warns(LostStateWarning) as said:
        first = keep(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = keep(1)
    assert first.data == again.data
    (warning,) = said
    assert str(warning.message).startswith(f"keep: a change of {name} ends with the call")
    assert warning.filename == __file__
    assert "  <--- " in str(warning.message)
    for result in (first, again):
        assert result.info["ran"].lost == str(warning.message).removeprefix("keep: ")
    keep.parameter.trust()  # here, the change is there in the next call
    assert keep(1).data + 1 == keep(1).data


def test_a_text_is_searched_once_a_version(monkeypatch):
    parsed = []
    tree_of = lasting.tree_of
    monkeypatch.setattr(lasting, "tree_of", lambda text: parsed.append(text) or tree_of(text))
    text = "def keep(x):\n    SEEN.append('once')\n"
    keep = keeping(text, sandbox="none")
    with pytest.warns(LostStateWarning), contextlib.suppress(NameError):
        keep(1)
    assert parsed == [text]
    found = changes(text, "keep")
    found.clear()  # what is remembered is not the caller's
    assert len(changes(text, "keep")) == 1


@pytest.mark.parametrize("default", ["[]", "SEEN", "dict()", "{'a': 1}", "[0 for _ in 'ab']"])
@pytest.mark.parametrize(
    "change", ["kept[0] = x", "del kept[0]", "kept.update(x)", "kept['a'].sort()"]
)
@pytest.mark.parametrize("star", ["", "*, "])
def test_a_default_that_a_call_leaves_to_the_next(default, change, star):
    text = f"def keep(x, {star}kept={default}):\n    {change}\n"
    (found,) = changes(text, "keep")
    assert found.name == "the default of kept"
    assert "the default of kept" in lost(text, keep)


@pytest.mark.parametrize(
    "body",
    [
        "SEEN = []\n    SEEN.append(x)",
        "x.append(1)",
        "for SEEN in x: SEEN.count = 1",
        "with x as SEEN: SEEN[0] = 1",
        "[SEEN.append(1) for SEEN in x]",
        "(lambda SEEN: SEEN.append(1))(x)",
        "import numpy as SEEN\n    SEEN.random.state = 1",
        "match x:\n        case {'a': [*SEEN], **TABLE}: SEEN.sort(); TABLE.clear()",
        "try: pass\n    except E as SEEN: SEEN.note = 1",
        "def inner():\n        nonlocal x\n        x += 1\n        x.sort()\n    inner()",
        "def SEEN(): pass\n    SEEN.calls = 1",
        "MODULE.append(SEEN, x)",
        "len(SEEN)",
        "SEEN.count(x)",
        "unknSEEN.update(x)",
        "sorted(SEEN).append(x)",
    ],
)
def test_what_ends_with_a_call_anyhow_is_not_said(body):
    assert lost(f"def keep(x):\n    {body}\n", keep) == ""


def test_a_default_that_is_replaced_or_cannot_change_is_not_said():
    assert changes("def keep(x, kept=[]):\n    kept = [*kept]\n    kept.append(x)\n", "keep") == []
    assert changes("def keep(x, kept=None):\n    kept.append(x)\n", "keep") == []


def test_attributes_of_a_class_are_said_and_those_of_an_object_are_not():
    @bundle(trainable=True)
    class Counter:
        made = 0

        def __init__(self):
            self.own = 0

        def count(self):
            return self.own

    text = (
        "class Counter:\n    made = 0\n"
        "    def __init__(self):\n        self.own = 0\n"
        "    def count(self):\n        self.own += 1\n        return self.own\n"
    )
    counter = Counter()
    Counter.parameter.assign(text, origin="optimizer")
    assert [counter.count().data, counter.count().data] == [1, 2]  # warnings are errors here
    for way in ("Counter", "type(self)", "self.__class__"):
        Counter.parameter.assign(text.replace("self.own +=", f"{way}.made +="), origin="optimizer")
        with pytest.warns(LostStateWarning, match=r"Counter: a change of .*\.made ends"):
            counter.count()


def test_where_warnings_are_errors_the_call_fails_and_nothing_ran():
    keep = keeping(KEEPERS["SEEN"])
    for _ in range(2):
        with pytest.raises(LostStateWarning, match="SEEN"):
            keep(1)
    assert SEEN == []


def test_tests_of_a_text_do_not_warn_and_trusted_code_does_not():
    keep = keeping(KEEPERS["total"], checks=[lambda keep: keep(1) >= 1])
    keep.parameter.trust()
    keep(1)


def test_a_model_reads_it_in_its_problem_also_of_a_failure():
    keep = keeping(KEEPERS["SEEN"])
    optimizer = OptoPrime(keep, llm=Scripted([]))
    with pytest.warns(LostStateWarning):
        result = keep(1)
    optimizer.backward(result, "It must grow.")
    (step,) = optimizer.problem().steps
    assert step.lost.startswith("a change of SEEN ends with the call")
    assert step.lost in step.result
    assert "Lost with the call" in str(Graph.of(result).to_html())
    keep.parameter.assign(KEEPERS["SEEN"].replace("len(SEEN)", "SEEN[-2]"), origin="optimizer")
    with pytest.warns(LostStateWarning), pytest.raises(IndexError) as caught:
        keep(1)
    optimizer.backward(failed_node(caught.value), "It must not fail.")
    (step,) = optimizer.problem().steps
    assert step.failed
    assert "a change of SEEN ends with the call" in step.value


def test_only_what_a_call_may_run_is_said():
    text = (
        "def keep(x):\n    return helper(x)\n"
        "def helper(x):\n    return [inner(x) for inner in [lambda y: deeper(y)]]\n"
        "def deeper(x):\n    def step():\n        SEEN.append(x)\n    step()\n"
        "def other(x):\n    global total\n    total = x\n    keep(x)\n"
    )
    assert [(one.name, one.line) for one in changes(text, "keep")] == [("SEEN", 7)]
    assert [one.name for one in changes(text, "other")] == ["SEEN", "total"]


@pytest.mark.parametrize("word", ["items", "await", "items of await"])
def test_generators_and_async_functions_say_it_too(word):
    def gave(result):
        async def waited():
            if word == "await":
                return await result
            return [item async for item in result]

        return list(result) if word == "items" else asyncio.run(waited())

    if word == "items":

        @bundle(trainable=True)
        def keep(x):
            yield x

    elif word == "await":

        @bundle(trainable=True)
        async def keep(x):
            return x

    else:

        @bundle(trainable=True)
        async def keep(x):
            yield x

    text = keep.parameter.data.replace("    ", "    SEEN.append(x)\n    ", 1)
    keep.parameter.assign(text, origin="optimizer")
    with pytest.warns(LostStateWarning) as said:
        found = gave(keep(1))
    assert len(said) == 1
    node = found if word == "await" else found[0]
    assert node.data == 1
    assert "SEEN" in node.info["ran"].lost


@pytest.mark.parametrize("place", ["in place", "apart"])
def test_what_else_differs_is_as_the_table_says(place):
    @bundle(trainable=True)
    def keep(x):
        return x

    class Holder:
        count = 0

        @bundle(trainable=True)
        def add(self, fails):
            return self.count

    holder, given = Holder(), [1]
    keep.parameter.assign("def keep(x):\n    x.append(2)\n    return x\n", origin="optimizer")
    text = "def add(self, fails):\n    self.count += 1\n    return 1 / (not fails)\n"
    holder.add.parameter.assign(text, origin="optimizer")
    if place == "in place":
        keep.parameter.trust()
        holder.add.parameter.trust()
    assert keep(given).data == [1, 2]
    assert given == ([1, 2] if place == "in place" else [1])
    holder.add(False)
    assert holder.count == 1
    with pytest.raises(ZeroDivisionError):
        holder.add(True)
    assert holder.count == (2 if place == "in place" else 1)


@pytest.mark.parametrize("part", [".a", "[0]", "()"])
def test_a_long_chain_is_no_obstacle(part):
    for length in (1, 300, 900):
        text = f"def keep(x):\n    if x > 1: SEEN{part * length}[0] = x\n    return x\n"
        said = lost(text, keep)
        assert "ends with the call" in said or part == "()"
    keeper = keeping(text)
    with pytest.warns(LostStateWarning) if part != "()" else contextlib.nullcontext():
        assert keeper(1).data == 1
