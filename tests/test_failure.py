"""A failed call: the caller catches what it always caught, and finds the node."""

import asyncio
import json
import linecache
import pickle
import traceback
import unicodedata
import urllib.error
from pathlib import Path

import pydantic
import pytest

import tracegraph as tg
from tracegraph import bundle, failed_node, node


class NoArgs(Exception):
    pass


class CustomInit(Exception):
    def __init__(self, code, *, detail):
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class NoSuper(Exception):
    def __init__(self, a, b):
        self.a, self.b = a, b

    def __str__(self):
        return f"{self.a}-{self.b}"


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self, code):
        super().__init__("slotted")
        self.code = code


class NewRefuses(Exception):
    def __new__(cls, *args):
        if cls is not NewRefuses:
            raise TypeError("no subclasses")
        return super().__new__(cls, *args)


class Final(Exception):
    def __init_subclass__(cls):
        raise TypeError("final")


class Meta(type):
    pass


class WithMeta(Exception, metaclass=Meta):
    pass


class SideEffect(Exception):
    made = 0

    def __init__(self):
        type(self).made += 1
        super().__init__("once")


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __str__


class ReadOnly(Exception):
    @property
    def code(self):
        return 5

    def __setattr__(self, name, value):
        if name in ("code", "detail"):
            raise AttributeError(name)
        super().__setattr__(name, value)


class ChildOfOs(OSError):
    def __init__(self, path):
        super().__init__(2, "gone", path)
        self.extra = 1


class ChildOfStop(StopIteration):
    pass


def _os():
    Path("/no/such/file").read_text()


def _unicode():
    b"\xff".decode("utf-8")


def _encode():
    "\u00e9".encode("ascii")


def _import():
    from json import nothing  # noqa: F401


def _syntax():
    compile("a b", "<file>", "exec")


def _group():
    raise ExceptionGroup("several", [ValueError("a"), KeyError("b")])


def _json():
    json.loads("{bad")


def _pydantic():
    pydantic.TypeAdapter(int).validate_python("x")


def _name():
    undefined_name  # noqa: F821


def _attribute():
    (5).missing


def _http():
    raise urllib.error.HTTPError("http://x", 404, "gone", None, None)


def _raise(error):
    def run():
        raise error

    return run


CASES = {
    "no arguments": (_raise(NoArgs()), NoArgs),
    "plain": (_raise(ValueError("no")), ValueError),
    "many arguments": (_raise(ValueError("a", 2, [3])), ValueError),
    "custom init": (_raise(CustomInit(5, detail="d")), CustomInit),
    "no super": (_raise(NoSuper(1, 2)), NoSuper),
    "slots": (_raise(Slotted(7)), Slotted),
    "new refuses": (_raise(NewRefuses("x")), NewRefuses),
    "final": (_raise(Final("x")), Final),
    "metaclass": (_raise(WithMeta("x")), WithMeta),
    "unprintable": (_raise(Unprintable("x")), Unprintable),
    "read only": (_raise(ReadOnly("x")), ReadOnly),
    "os": (_os, FileNotFoundError),
    "own os": (_raise(ChildOfOs("/x")), ChildOfOs),
    "decode": (_unicode, UnicodeDecodeError),
    "encode": (_encode, UnicodeEncodeError),
    "import": (_import, ImportError),
    "syntax": (_syntax, SyntaxError),
    "key": (lambda: {}["k"], KeyError),
    "index": (lambda: [][0], IndexError),
    "stop iteration": (_raise(StopIteration(3)), StopIteration),
    "own stop": (_raise(ChildOfStop(3)), ChildOfStop),
    "stop async": (_raise(StopAsyncIteration()), StopAsyncIteration),
    "group": (_group, ExceptionGroup),
    "json": (_json, json.JSONDecodeError),
    "pydantic": (_pydantic, pydantic.ValidationError),
    "name": (_name, NameError),
    "attribute": (_attribute, AttributeError),
    "http": (_http, urllib.error.HTTPError),
    "zero": (lambda: 1 / 0, ZeroDivisionError),
    "type": (lambda: len(5), TypeError),
    "recursion": (_raise(RecursionError("deep")), RecursionError),
    "memory": (_raise(MemoryError()), MemoryError),
    "timeout": (_raise(TimeoutError()), TimeoutError),
    "assert": (_raise(AssertionError()), AssertionError),
    "pickle": (_raise(pickle.PicklingError("p")), pickle.PicklingError),
    "lookup": (lambda: unicodedata.lookup("no such thing"), KeyError),
    "own tree": (_raise(tg.Rejected(parameter=1, reason="r")), tg.Rejected),
    "reply": (_raise(tg.UnreadableReply(reply="x", reason="r")), tg.UnreadableReply),
    "cancelled style": (_raise(tg.TimedOut("t")), TimeoutError),
}
REFUSE_JOINING = {"new refuses", "final", "pydantic", "unprintable"}


@pytest.mark.parametrize(("function", "kind"), CASES.values(), ids=CASES.keys())
def test_exceptions_of_every_shape_stay_what_they_are(function, kind, request):
    try:
        function()
    except Exception as error:
        plain = error
    source = node(1, trainable=True, name="source")

    @bundle
    def call(x):
        return function()

    with pytest.raises(kind) as caught:
        call(source)
    error = caught.value
    assert isinstance(error, type(plain))
    assert type(error).__name__ == type(plain).__name__
    if kind is not ExceptionGroup:
        assert error.args == plain.args
    if "unprintable" not in request.node.callspec.id:
        assert str(error) == str(plain)
    for name, value in vars(plain).items():
        if name not in ("exception_node", "fp", "file", "_closer"):
            assert getattr(error, name) is value or getattr(error, name) == value
    for name in (
        "errno", "strerror", "filename", "filename2", "reason", "start", "end", "object", "encoding",
        "name", "obj", "path", "value", "exceptions", "message", "msg", "lineno", "offset", "text",
        "code", "doc", "pos", "colno", "url",
    ):  # fmt: skip
        if name in ("obj", "exceptions", "doc"):
            assert hasattr(error, name) == hasattr(plain, name)
            continue
        try:
            expected = getattr(plain, name)
        except AttributeError:
            continue
        assert getattr(error, name) == expected, name
    made = failed_node(error)
    assert made is not None
    assert made.op == "call"
    assert source._leaf() in made.parents
    assert made.failure.type == type(plain).__name__
    assert isinstance(made.data, str)
    assert source in made.backward(error)
    if request.node.callspec.id not in REFUSE_JOINING:
        assert isinstance(error, tg.ExecutionError)
        assert error.exception_node is made
        assert error.__cause__ is not None
        assert type(error.__cause__) is type(plain)
        assert type(error.__cause__).__mro__ == type(plain).__mro__


def test_the_joined_class_is_made_once_per_type():
    @bundle
    def call(x):
        raise NoArgs

    kinds = set()
    for _ in range(3):
        try:
            call(1)
        except NoArgs as error:
            kinds.add(type(error))
    assert len(kinds) == 1


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, BaseException])
def test_base_exceptions_pass_untouched_and_leave_no_frame(kind):
    boom = kind("out")

    @bundle
    def call(x):
        raise boom

    with pytest.raises(kind) as caught:
        call(1)
    assert caught.value is boom
    assert isinstance(node(1) + 1, tg.Node)


def test_a_base_exception_group_passes():
    @bundle
    def call():
        raise BaseExceptionGroup("g", [KeyboardInterrupt()])

    with pytest.raises(BaseExceptionGroup):
        call()


def test_except_star_works():
    @bundle
    def call():
        raise ExceptionGroup("g", [ValueError("v"), KeyError("k")])

    got = []
    try:
        call()
    except* ValueError as group:
        got.append(type(group.exceptions[0]))
    except* KeyError as group:
        got.append(type(group.exceptions[0]))
    assert got == [ValueError, KeyError]


def test_notes_cause_context_and_suppression_are_kept():
    @bundle
    def call():
        try:
            raise KeyError("inner")
        except KeyError as inner:
            error = ValueError("outer")
            error.add_note("a note")
            raise error from inner

    with pytest.raises(ValueError, match="outer") as caught:
        call()
    text = "".join(traceback.format_exception(caught.value))
    assert "a note" in text
    assert "KeyError: 'inner'" in text
    assert caught.value.__notes__ == ["a note"]


def test_both_excepts_catch():
    @bundle
    def call(x):
        raise LookupError("k")

    for kind in (LookupError, tg.ExecutionError, tg.TracegraphError, Exception):
        with pytest.raises(kind) as caught:
            call(1)
        assert failed_node(caught.value).op == "call"


def test_the_innermost_failing_call_is_found_through_wrapping():
    @bundle
    def inner(x):
        raise ValueError("deep")

    def outer():
        try:
            inner(node(1))
        except ValueError as error:
            raise RuntimeError("wrapped") from error

    with pytest.raises(RuntimeError) as caught:
        outer()
    assert failed_node(caught.value).op == "inner"
    assert failed_node(ValueError("never recorded")) is None


def test_a_nested_opaque_call_fails_once_with_the_outermost_node():
    @bundle
    def inner(x):
        raise ValueError("deep")

    @bundle
    def outer(x):
        return inner(x)

    with pytest.raises(ValueError, match="deep") as caught:
        outer(node(1))
    assert failed_node(caught.value).op == "outer"
    assert isinstance(caught.value, tg.ExecutionError)
    assert type(caught.value.__cause__) is ValueError


def test_an_inner_failure_that_is_handled_leaves_no_trace():
    @bundle
    def inner(x):
        raise ValueError("deep")

    @bundle
    def outer(x):
        try:
            return inner(x)
        except ValueError:
            return "handled"

    result = outer(node(1))
    assert result.data == "handled"
    assert result.failure is None


def test_the_same_exception_object_raised_by_two_calls():
    same = ValueError("same")

    @bundle
    def first(x):
        raise same

    @bundle
    def second(x):
        raise same

    nodes = []
    for call in (first, second, first):
        with pytest.raises(ValueError, match="same") as caught:
            call(1)
        nodes.append(failed_node(caught.value).op)
    assert nodes == ["first", "second", "first"]


def test_a_joined_exception_passing_through_an_outer_call_is_joined_once():
    @bundle
    def inner(x):
        raise KeyError("k")

    try:
        inner(1)
    except KeyError as error:
        kept = error

    @bundle
    def outer(x):
        raise kept

    with pytest.raises(KeyError) as caught:
        outer(1)
    assert failed_node(caught.value).op == "outer"
    assert type(caught.value).__mro__.count(tg.ExecutionError) == 1


def test_the_failing_line_is_marked():
    @bundle
    def call(x):
        y = x + 1
        return y / 0  # the line

    with pytest.raises(ZeroDivisionError) as caught:
        call(1)
    failed = failed_node(caught.value)
    full = failed.create_feedback("full")
    assert "return y / 0  # the line  <--- (ZeroDivisionError) division by zero" in full
    assert failed.create_feedback() == "(ZeroDivisionError) division by zero"
    assert failed.data == "(ZeroDivisionError) division by zero"
    assert failed.preview


def test_the_traceback_shows_the_users_line():
    @bundle
    def call(x):
        return x / 0  # user line

    with pytest.raises(ZeroDivisionError) as caught:
        call(1)
    assert "return x / 0  # user line" in "".join(traceback.format_exception(caught.value))


def test_a_long_message_is_cut():
    @bundle
    def call():
        raise ValueError("x" * 1_000_000)

    with pytest.raises(ValueError, match="x") as caught:
        call()
    assert len(failed_node(caught.value).data) < 3_000
    assert len(str(caught.value)) == 1_000_000


def test_operators_fail_like_python():
    for run, kind in (
        (lambda: node(1) / 0, ZeroDivisionError),
        (lambda: node("a") + 1, TypeError),
        (lambda: node([])[0], IndexError),
        (lambda: node({})["k"], KeyError),
        (lambda: -node("a"), TypeError),
        (lambda: node("a").index("z"), ValueError),
        (lambda: node(5)(), TypeError),
        (lambda: node(1) @ 2, TypeError),
    ):
        with pytest.raises(kind) as caught:
            run()
        assert isinstance(caught.value, tg.ExecutionError)
        assert failed_node(caught.value).failure.type == kind.__name__


def test_exceptions_pickle_as_little_as_nodes_but_never_crash_formatting():
    with pytest.raises(ZeroDivisionError) as caught:
        node(1) / 0
    assert repr(caught.value)
    assert traceback.format_exception(caught.value)


def test_failures_inside_tasks_and_groups():
    @bundle
    async def call(i):
        await asyncio.sleep(0)
        raise ValueError(i)

    async def main():
        got = await asyncio.gather(*(call(i) for i in range(5)), return_exceptions=True)
        assert [failed_node(e).failure.message for e in got] == list("01234")

    asyncio.run(main())


def test_source_lines_of_failed_code_do_not_pile_up():
    @bundle(trainable=True)
    def f(x):
        return x

    before = len([k for k in linecache.cache if "code of f" in k])
    for i in range(100):
        f.parameter.assign(f"def f(x):\n    return x + {i}")
        f(1)
    now = len([k for k in linecache.cache if "code of f" in k])
    assert now <= before + 32 + 1  # as many versions as stay compiled, and the first
