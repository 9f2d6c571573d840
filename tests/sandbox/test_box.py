"""A call in the sandbox gives what the function gives, tells what went wrong, and leaves nothing."""

from __future__ import annotations

import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tracegraph.errors import Forbidden, OutOfMemory, SandboxError, TimedOut
from tracegraph.sandbox import Policy, Sandbox
from tracegraph.sandbox.launch import Zygote
from tracegraph.sandbox.policy import LAYERS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")

QUICK = Policy(timeout=5, preload=())
ECHO = "def f(*args, **kwargs):\n    return args, kwargs\n"


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(Policy(timeout=5)) as opened:
        yield opened


@pytest.fixture(scope="module")
def plain() -> Iterator[Sandbox]:
    with Sandbox(Policy(timeout=10), walls="plain") as opened:
        yield opened


@pytest.fixture(params=["zygote", "plain"])
def either(request: pytest.FixtureRequest, box: Sandbox, plain: Sandbox) -> Sandbox:
    return box if request.param == "zygote" else plain


def code(text: str) -> str:
    return textwrap.dedent(text).lstrip("\n")


def test_the_start_loads_little_and_leaves_the_garbage_collector_on() -> None:
    source = "import gc, sys\ndef f():\n    return gc.isenabled(), sorted(sys.modules)\n"
    for walls in ("zygote", "plain"):
        with Sandbox(QUICK, walls=walls) as box:
            collects, loaded = box.call(source, "f").unwrap()
        assert collects
        assert {"dataclasses", "inspect", "asyncio", "pathlib", "numpy"}.isdisjoint(loaded)


def test_every_layer_is_active(box: Sandbox) -> None:
    assert set(box.layers) == set(LAYERS)
    assert box.missing == {}


def test_arguments_and_values_pass(either: Sandbox) -> None:
    array = np.arange(6.0).reshape(2, 3)
    given = ((1, "a", None), {"x": {2.5, b"y"}, "array": array})
    args, kwargs = either.call(ECHO, "f", *given).unwrap()
    assert args == given[0]
    assert kwargs["x"] == given[1]["x"]
    assert np.array_equal(kwargs["array"], array)


def test_an_asynchronous_entry_runs_to_its_end(either: Sandbox) -> None:
    source = code("""
        import asyncio
        async def f(x):
            return await asyncio.gather(*(asyncio.sleep(0.001, i) for i in range(x)))
    """)
    assert either.call(source, "f", (3,)).unwrap() == [0, 1, 2]


def test_definitions_of_every_kind_work(box: Sandbox) -> None:
    source = code("""
        from __future__ import annotations
        import dataclasses, enum, functools, re, collections
        @dataclasses.dataclass
        class Point:
            x: int
            def norm(self) -> Point | int:
                return abs(self.x)
        class Colour(enum.Enum):
            RED = 1
        @functools.lru_cache
        def fib(n):
            return n if n < 2 else fib(n - 1) + fib(n - 2)
        def f(n):
            import statistics
            return Point(-n).norm(), Colour.RED.value, fib(30), statistics.mean([1, 3]), __name__
    """)
    assert box.call(source, "f", (3,)).unwrap() == (3, 1, 832040, 2, "__candidate__")


FAILING = code("""
    def helper(values):
        total = 0
        for value in values:
            total += 1 / value
        return total

    def f(values):
        print("starting")
        return helper(values)
""")


def test_a_failure_tells_line_variables_and_output(either: Sandbox) -> None:
    result = either.call(FAILING, "f", ([1, 0],))
    assert type(result.error) is ZeroDivisionError
    assert not result.ok
    failure = result.failure
    assert failure is not None
    assert (failure.type, failure.line) == ("ZeroDivisionError", 4)
    assert failure.locals == {"values": "[1, 0]", "total": "1.0", "value": "0"}
    assert "> 4 |         total += 1 / value" in failure.excerpt
    assert failure.traceback.splitlines()[1:] == [
        "line 9, in f: return helper(values)",
        "line 4, in helper: total += 1 / value",
    ]
    assert result.stdout == "starting\n"
    with pytest.raises(ZeroDivisionError) as caught:
        result.unwrap()
    assert "> 4 |" in caught.value.__notes__[0]


def test_a_timeout_tells_where_the_code_was_and_what_it_printed() -> None:
    source = "def f():\n    count = 7\n    print('here')\n    while True:\n        pass\n"
    with Sandbox(Policy(timeout=0.5, preload=())) as box:
        result = box.call(source, "f")
    assert type(result.error) is TimedOut
    assert result.failure is not None
    assert result.failure.line in (4, 5)
    assert result.failure.locals == {"count": "7"}
    assert result.stdout == "here\n"


def test_a_kept_child_that_hangs_at_a_later_call_tells_where_it_was() -> None:
    source = "def f(x):\n    while x:\n        pass\n"
    with Sandbox(Policy(timeout=1.5, preload=())) as box:
        assert box.call(source, "f", (0,), fresh=False).ok
        result = box.call(source, "f", (1,), fresh=False)
    assert type(result.error) is TimedOut
    assert result.failure is not None
    assert result.failure.line in (2, 3)


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        ("raise KeyError('k')", KeyError, "'k'"),
        ("raise ValueError('a', 2)", ValueError, "('a', 2)"),
        ("open('/nowhere/at/all')", OSError, "/nowhere/at/all"),
        ("b'\\xff'.decode()", UnicodeError, "can't decode"),
        ("raise ExceptionGroup('several', [ValueError(1)])", SandboxError, "several"),
        ("class Odd(LookupError): pass\n    raise Odd('x')", LookupError, "Odd: x"),
        ("class Odd(Exception): pass\n    raise Odd('x')", SandboxError, "Odd: x"),
        ("raise StopIteration(3)", SandboxError, "StopIteration: 3"),
        ("raise ValueError('\\ud800')", ValueError, r"\\ud800"),
        ("raise SystemExit(3)", SandboxError, "SystemExit: 3"),
        ("raise KeyboardInterrupt", SandboxError, "KeyboardInterrupt"),
        ("raise MemoryError", OutOfMemory, "MemoryError"),
        ("raise PermissionError('no')", Forbidden, "no"),
        ("return f", SandboxError, "the returned value is of type function"),
        ("return {'a': [f]}", SandboxError, r"the returned value\['a'\]\[0\] is of type function"),
        ("assert 1 == 2, 'unequal'", AssertionError, "unequal"),
    ],
)
def test_an_exception_comes_back_as_its_builtin_type(
    box: Sandbox, body: str, kind: type[Exception], text: str
) -> None:
    error = box.call(f"def f():\n    {body}\n", "f").error
    assert isinstance(error, kind)
    with pytest.raises(kind, match=text.replace("(", r"\(").replace(")", r"\)")):
        raise error


def test_a_source_that_does_not_parse_tells_its_line(either: Sandbox) -> None:
    result = either.call("def f():\n    return (1,,2)\n", "f")
    assert isinstance(result.error, SyntaxError)
    assert result.failure is not None
    assert result.failure.line == 2


def test_output_is_kept_up_to_its_limit() -> None:
    source = "import sys\ndef f():\n    print('x' * 50)\n    print('y' * 50, file=sys.stderr)\n"
    with Sandbox(Policy(max_output=10, preload=())) as box:
        result = box.call(source, "f")
    assert (result.stdout, result.stderr, result.error) == ("x" * 10, "y" * 10, None)


def test_what_a_call_cost_is_told(box: Sandbox) -> None:
    result = box.call("def f():\n    return sum(range(300_000))\n", "f")
    assert result.seconds > 0
    assert result.cpu_seconds is not None
    assert 0 < result.cpu_seconds < 5
    assert result.max_rss is not None
    assert 1 << 20 < result.max_rss < 1 << 30


def test_the_zygotes_own_clock_ends_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracegraph.sandbox.exchange._GRACE", 30.0)
    with Sandbox(Policy(timeout=0.3, cpu=60, preload=())) as box:
        result = box.call("def f():\n    while True:\n        pass\n", "f")
    assert isinstance(result.error, TimedOut)
    assert result.seconds < 20


def test_an_exception_that_bites_is_told_without_touching_it(box: Sandbox) -> None:
    source = code("""
        class Meta(type):
            @property
            def __name__(cls):
                raise SystemExit
        class Bomb(Exception, metaclass=Meta):
            pass
        def f():
            raise Bomb
    """)
    assert "when it was looked at" in str(box.call(source, "f").error)


def test_lines_are_counted_as_python_counts_them(box: Sandbox) -> None:
    source = "x = '\x0c\u2028'\r\ndef f():\r\n    return 1 / 0  # here\r\n"
    failure = box.call(source, "f").failure
    assert failure is not None
    assert failure.line == 3
    assert "> 3 |     return 1 / 0  # here" in failure.excerpt


def test_code_sees_its_own_lines_in_a_traceback(either: Sandbox) -> None:
    source = "import traceback\n# \x0c\u2028\x85\ndef f():\n    try:\n        1 / 0  # here\n" + (
        "    except ZeroDivisionError:\n        return traceback.format_exc()\n"
    )
    assert "line 5, in f\n    1 / 0  # here\n" in either.call(source, "f").value


def test_arguments_that_do_not_fit_are_told_apart_from_a_crash() -> None:
    with Sandbox(Policy(memory_mb=64, preload=())) as box:
        result = box.call(ECHO, "f", (b"x" * (60 << 20),))
    assert isinstance(result.error, OutOfMemory)
    assert "memory_mb" in str(result.error)


def test_too_much_processor_time_ends_a_call() -> None:
    with Sandbox(Policy(timeout=20, cpu=1, preload=())) as box:
        result = box.call("def f():\n    while True:\n        pass\n", "f")
    assert isinstance(result.error, TimedOut)
    assert "processor" in str(result.error)


# Fresh children and kept ones

COUNTER = "count = 0\ndef f():\n    global count\n    count += 1\n    return count\n"


def test_a_fresh_child_remembers_nothing_and_a_kept_one_its_own_source(box: Sandbox) -> None:
    assert [box.call(COUNTER, "f").unwrap() for _ in range(3)] == [1, 1, 1]
    kept = [box.call(COUNTER, "f", fresh=False).unwrap() for _ in range(3)]
    assert kept == [1, 2, 3]
    another = COUNTER + "# another"
    assert box.call(another, "f", fresh=False).unwrap() == 1


def test_an_alarm_that_code_leaves_behind_does_not_ring_in_a_kept_child(box: Sandbox) -> None:
    source = code("""
        import signal
        seen, real = [], signal.setitimer
        def watched(which, *seconds):
            seen.append(seconds)
            return real(which, *seconds)
        def ring(number, frame):
            raise KeyboardInterrupt
        def f():
            told = [*seen], signal.getsignal(signal.SIGALRM) is ring
            signal.setitimer = watched
            signal.signal(signal.SIGALRM, ring)
            real(signal.ITIMER_REAL, 1000)
            return told
    """)
    assert box.call(source, "f", fresh=False).unwrap() == ([], False)
    stopped, started = (0.0, 0.0), (4.0, 0.5)
    assert box.call(source, "f", fresh=False).unwrap() == ([stopped, started], False)


def test_a_kept_child_serves_no_other_source(box: Sandbox) -> None:
    source = "import os\ndef f():\n    return os.getpid()\n"
    first = box.call(source, "f", fresh=False).unwrap()
    assert box.call(source, "f", fresh=False).unwrap() == first
    assert box.call(source + "# another", "f", fresh=False).unwrap() != first


def test_a_reply_that_was_sent_before_the_call_is_no_reply_to_it(box: Sandbox) -> None:
    source = (
        "import os, struct\ndef f(x):\n    text = b'[\"forged\",0]'\n"
        "    if x == 1:\n        os.write(3, struct.pack('<cIQ', b'R', len(text), 0) + text)\n"
        "    return x\n"
    )
    assert box.call(source, "f", (0,), fresh=False).value == 0
    assert box.call(source, "f", (1,), fresh=False).value == "forged"
    time.sleep(0.05)  # until the honest reply has come, too
    assert box.call(source, "f", (2,), fresh=False).value == 2


@pytest.mark.parametrize(
    "claim", ["-Infinity", "NaN", "-1", "1.5", "true", "4611686018427387904", '"1"', "null"]
)
def test_a_processor_time_that_makes_no_sense_is_not_told(box: Sandbox, claim: str) -> None:
    source = (
        f"import os, struct\ndef f():\n    text = b'[\"x\",{claim}]'\n"
        "    os.write(3, struct.pack('<cIQ', b'R', len(text), 0) + text)\n    os.read(3, 100)\n"
    )
    result = box.call(source, "f", fresh=False)
    assert (result.value, result.cpu_seconds) == ("x", None)


def test_a_host_function_may_use_the_sandbox(box: Sandbox) -> None:
    source = "def f(x):\n    return x if x == 0 else again(x - 1) + 1\n"

    def again(x: int) -> Any:
        return box.call(source, "f", (x,), host={"again": again}, fresh=False).unwrap()

    for _ in range(2):
        assert again(4) == 4


def test_a_kept_child_is_replaced_after_it_was_ended(box: Sandbox) -> None:
    source = "import os\ndef f(x):\n    return os._exit(1) if x else os.getpid()\n"
    first = box.call(source, "f", (0,), fresh=False).unwrap()
    assert box.call(source, "f", (0,), fresh=False).unwrap() == first
    assert isinstance(box.call(source, "f", (1,), fresh=False).error, SandboxError)
    assert box.call(source, "f", (0,), fresh=False).unwrap() != first


def test_map_serves_all_from_one_child_and_goes_on_after_one_that_ends_it(either: Sandbox) -> None:
    source = code("""
        import os
        def f(x):
            if x == 2:
                os._exit(3)
            if x == 3:
                raise ValueError(x)
            return x, os.getpid()
    """)
    results = either.map(source, "f", [(x,) for x in range(6)])
    assert [result.ok for result in results] == [True, True, False, False, True, True]
    assert type(results[3].error) is ValueError
    pids = [result.value[1] for result in results if result.ok]
    assert pids[0] == pids[1] != pids[2] == pids[3]
    fresh = either.map(source, "f", [(0,), (1,)], fresh=True)
    assert fresh[0].value[1] != fresh[1].value[1]
    assert either.map(source, "f", []) == []


# The bridge

ASKING = "def f(x):\n    return model(x, times=2) + retrieve()\n"


def test_host_functions_run_here_in_this_thread(either: Sandbox) -> None:
    seen: list[object] = []

    def model(text: str, *, times: int) -> str:
        seen.append((text, times, threading.get_ident()))
        return text * times

    host = {"model": model, "retrieve": lambda: "!"}
    for fresh in (True, False):
        assert either.call(ASKING, "f", ("ab",), host=host, fresh=fresh).unwrap() == "abab!"
    assert seen == [("ab", 2, threading.get_ident())] * 2


def test_the_time_in_a_host_function_is_not_the_codes() -> None:
    with Sandbox(Policy(timeout=0.3, preload=())) as box:
        result = box.call(
            "def f():\n    return slow()", "f", host={"slow": lambda: time.sleep(0.5)}
        )
    assert result.ok
    assert result.seconds < 0.3


class Spent(Exception):
    pass


def test_a_host_functions_own_exception_comes_back_whole(box: Sandbox) -> None:
    error = Spent("no money left")

    def model() -> None:
        raise error

    result = box.call("def f():\n    return model()", "f", host={"model": model})
    assert result.error is error
    caught = (
        "def f():\n    try:\n        model()\n    except RuntimeError as e:\n        return str(e)"
    )
    assert box.call(caught, "f", host={"model": model}).unwrap() == "no money left"


def test_a_host_function_that_returns_what_cannot_travel_raises_in_the_code(box: Sandbox) -> None:
    result = box.call("def f():\n    return model()", "f", host={"model": object})
    assert isinstance(result.error, SandboxError)
    assert "what model returned is of type object" in str(result.error)


def test_host_functions_are_called_no_more_often_than_allowed() -> None:
    calls: list[int] = []
    source = "def f():\n    while True:\n        model()\n"
    with Sandbox(Policy(max_host_calls=5, preload=())) as box:
        result = box.call(source, "f", host={"model": lambda: calls.append(1)})
    assert "more than 5 times" in str(result.error)
    assert len(calls) == 5


# What a caller can get wrong


def test_a_sandbox_of_nonsense_is_refused() -> None:
    with pytest.raises(SandboxError, match="policy must be a Policy, got a dict"):
        Sandbox({"timeout": 3})  # type: ignore[arg-type]
    with pytest.raises(SandboxError, match="choose 'zygote', 'plain' or 'wasm'"):
        Sandbox(walls="moat")


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": 0},
        {"timeout": float("nan")},
        {"cpu": True},
        {"memory_mb": 3},
        {"max_output": -1},
        {"max_value": 5},
        {"max_host_calls": 1.5},
        {"preload": "numpy"},
        {"read": ("/no/such/file",)},
        {"require": ("moat",)},
        {"layers": ("landlock", "moat")},
    ],
    ids=str,
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SandboxError, match=next(iter(wrong))):
        Policy(**wrong)


def test_a_required_layer_that_is_missing_keeps_the_sandbox_from_starting() -> None:
    layers = tuple(layer for layer in LAYERS if layer != "landlock")
    box = Sandbox(Policy(preload=(), layers=layers, require=("landlock",)))
    with pytest.raises(SandboxError, match=r"landlock \(not wanted"):
        box.call(ECHO, "f")
    with pytest.raises(SandboxError, match="plain process"):
        Sandbox(Policy(require=("landlock",)), walls="plain").call(ECHO, "f")


def test_missing_walls_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    from tracegraph.sandbox import launch

    whole = launch.Zygote._introduce

    def without(self: launch.Zygote) -> tuple[dict[str, str], dict[str, str]]:
        layers, missing = whole(self)
        return layers, missing | {"landlock": "the kernel is too old"}

    monkeypatch.setattr(launch.Zygote, "_introduce", without)
    with pytest.warns(RuntimeWarning, match="landlock: the kernel is too old"), Sandbox(QUICK):
        pass


def test_policy_read_opens_what_it_names_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "a.txt").write_text("yes")
    (tmp_path / "shut.txt").write_text("no")
    source = "def f(path):\n    return open(path).read()\n"
    with Sandbox(Policy(preload=(), read=(str(tmp_path / "open"),))) as box:
        assert box.call(source, "f", (str(tmp_path / "open" / "a.txt"),)).unwrap() == "yes"
        result = box.call(source, "f", (str(tmp_path / "shut.txt"),))
    assert isinstance(result.error, Forbidden)


def test_random_numbers_differ_from_child_to_child() -> None:
    source = "import random, numpy\ndef f():\n    return random.random(), numpy.random.random()\n"
    with Sandbox(Policy(preload=("random", "numpy.random"))) as box:
        drawn = [box.call(source, "f").unwrap() for _ in range(3)]
    assert all(len(set(column)) == 3 for column in zip(*drawn, strict=True))


def test_packages_are_found_where_this_process_finds_them_and_nothing_of_a_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("site-packages", "project"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"in_{folder[:4]}.py").write_text("answer = 42\n")
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    source = "def f(name):\n    return __import__(name).answer\n"
    with Sandbox(Policy(preload=("in_site",))) as box:
        assert box.call(source, "f", ("in_site",)).unwrap() == 42
        assert isinstance(box.call(source, "f", ("in_proj",)).error, ImportError)


@pytest.mark.parametrize("walls", ["zygote", "plain"])
def test_what_runs_while_a_sandbox_is_closed_is_not_kept(walls: str) -> None:
    box = Sandbox(QUICK, walls=walls)
    source = "def f():\n    close()\n    return 1\n"
    result = box.call(source, "f", host={"close": box.close}, fresh=False)
    assert box._kept == []
    assert walls == "zygote" or result.unwrap() == 1
    assert box.call("def f():\n    return 2\n", "f").unwrap() == 2
    box.close()


def test_a_child_that_is_asked_for_while_the_zygote_ends_is_not_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What has ended is started anew, and nothing of the first one stays open."""
    with Sandbox(QUICK) as box:
        first = box._launched()
        assert isinstance(first, Zygote)
        spares, closing = first._spare, threading.Thread(target=first.close)
        forked = Zygote._forked

        def asked(self: Zygote, request: dict[str, Any]) -> Any:
            made = forked(self, request)
            if self is first and not closing.ident:
                closing.start()
                closing.join(0.05)  # it waits for this, or would be through by now
            return made

        monkeypatch.setattr(Zygote, "_forked", asked)
        with suppress(SandboxError):
            box.call("def f():\n    return 1\n", "f")
        closing.join()
        assert spares == []
        assert not first.is_alive()
        assert box.call("def f():\n    return 2\n", "f").unwrap() == 2
