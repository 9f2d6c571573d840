"""The pool is an executor like any other, and what it runs is walled in."""

from __future__ import annotations

import concurrent.futures
import importlib.metadata
import linecache
import os
import shutil
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.sandbox.processes import descendants
from tracegraph.errors import Forbidden, MissingExtra, SandboxError, TimedOut
from tracegraph.sandbox import Code, Policy, Sandbox, SandboxPool, open_sandbox
from tracegraph.sandbox import runner as runners

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")

QUICK = Policy(timeout=5, preload=())
SQUARE = Code("def f(x):\n    return x * x\n", "f")


def double(x: int) -> int:
    return 2 * x


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


@decorated
def triple(x: int) -> int:
    return 3 * x


def test_futures_carry_values_and_the_codes_own_exceptions() -> None:
    with SandboxPool(2, policy=QUICK) as pool:
        assert isinstance(pool, concurrent.futures.Executor)
        futures = [pool.submit(SQUARE, x) for x in range(10)]
        done, left = concurrent.futures.wait(futures, timeout=60)
        assert (len(done), len(left)) == (10, 0)
        assert [future.result() for future in futures] == [x * x for x in range(10)]
        assert list(pool.map(SQUARE, range(5))) == [0, 1, 4, 9, 16]
        failed = pool.submit(Code("def f():\n    return 1 / 0\n", "f"))
        assert isinstance(failed.exception(), ZeroDivisionError)
        stolen = pool.submit(Code("def f():\n    return open('/etc/passwd').read()\n", "f"))
        assert isinstance(stolen.exception(), Forbidden)


def test_one_that_hangs_or_dies_does_not_harm_the_others() -> None:
    with SandboxPool(2, policy=Policy(timeout=1, preload=())) as pool:
        hung = pool.submit(Code("def f():\n    while True: pass\n", "f"))
        dead = pool.submit(Code("import os\ndef f():\n    os._exit(1)\n", "f"))
        fine = [pool.submit(SQUARE, x) for x in range(5)]
        assert [future.result() for future in fine] == [0, 1, 4, 9, 16]
        assert isinstance(dead.exception(), SandboxError)
        assert isinstance(hung.exception(), TimedOut)


def test_shutting_down_leaves_no_process_and_no_thread() -> None:
    before = (descendants(os.getpid()), threading.active_count())
    pool = SandboxPool(3, policy=QUICK)
    future = pool.submit(SQUARE, 3)
    pool.shutdown()
    assert future.result() == 9
    assert (descendants(os.getpid()), threading.active_count()) == before
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.submit(SQUARE, 3)


def test_what_was_submitted_is_done_after_a_shutdown_that_does_not_wait() -> None:
    before = (descendants(os.getpid()), threading.active_count())
    pool = SandboxPool(1, policy=QUICK)
    futures = [pool.submit(SQUARE, x) for x in range(5)]
    pool.shutdown(wait=False)
    assert [future.result(timeout=30) for future in futures] == [0, 1, 4, 9, 16]
    for thread in threading.enumerate():
        if thread.name == "sandbox-shutdown":
            thread.join(30)
    assert (descendants(os.getpid()), threading.active_count()) == before


def test_only_code_is_taken() -> None:
    with SandboxPool(1, policy=QUICK) as pool:
        with pytest.raises(SandboxError, match=r"Code\.of"):
            pool.submit(double, 1)
        assert pool.submit(Code.of(double), 4).result() == 8
        assert pool.submit(Code.of(triple), 4).result() == 12
    with pytest.raises(SandboxError, match="workers"):
        SandboxPool(0)
    with pytest.raises(SandboxError, match="not called here"):
        SQUARE(1)


def test_code_of_begins_at_the_definition_whatever_its_decorators_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "@(lambda f: f)  # a\u2028def decoy():\ndef kept():\n    return 1\n"
    lines = [f"{line}\n" for line in text.split("\n")]
    monkeypatch.setitem(linecache.cache, "<kept>", (len(text), None, lines, "<kept>"))
    made: dict[str, Any] = {}
    exec(compile(text, "<kept>", "exec"), made)
    assert Code.of(made["kept"]) == Code("def kept():\n    return 1\n", "kept")


def test_code_of_refuses_what_has_no_text_of_its_own() -> None:
    around = 3
    for function, why in (
        (lambda: 1, "made by `def`"),
        (len, "made by `def`"),
        (lambda: around, "made by `def`"),
    ):
        with pytest.raises(SandboxError, match=why):
            Code.of(function)

    def inner() -> int:
        return around

    with pytest.raises(SandboxError, match="uses around from around it"):
        Code.of(inner)
    made: dict[str, Any] = {}
    exec("def ghost():\n    return 1\n", made)
    with pytest.raises(SandboxError, match="cannot be found"):
        Code.of(made["ghost"])


@pytest.mark.parametrize("name", ["isolated", "none"])
def test_runners_are_chosen_by_name_and_agree(name: str) -> None:
    with open_sandbox(name, QUICK) as box:
        result = box.call("def f(x):\n    return given(x)\n", "f", (2,), host={"given": str})
        assert result.unwrap() == "2"
        failed = box.call("def f(x):\n    y = x\n    return 1 / y\n", "f", (0,))
        assert isinstance(failed.error, ZeroDivisionError)
        assert failed.failure is not None
        assert (failed.failure.line, failed.failure.locals) == (3, {"x": "0", "y": "0"})
        assert [one.value for one in box.map("def f(x):\n    return -x\n", "f", [(1,), (2,)])] == [
            -1,
            -2,
        ]


def test_your_own_object_is_taken_as_it_is_and_nothing_starts() -> None:
    before = descendants(os.getpid())
    mine = Sandbox(QUICK)
    assert open_sandbox(mine) is mine
    assert descendants(os.getpid()) == before
    with pytest.raises(SandboxError, match="call, map, close"):
        open_sandbox(object())  # type: ignore[arg-type]


def test_names_that_lead_nowhere_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(runners.shutil, "which", lambda name: None)
    monkeypatch.setattr(importlib.metadata, "version", absent)
    for name in ("bwrap", "wasm"):
        with pytest.raises(MissingExtra):
            open_sandbox(name)
    with pytest.raises(SandboxError, match="choose one of isolated"):
        open_sandbox("docker")
    with pytest.raises(SandboxError, match="in place there are no layers"):
        open_sandbox("none", Policy(require=("seccomp",)))


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_bubblewrap_hides_even_that_a_file_exists() -> None:
    source = "import os\ndef f(path):\n    return os.path.exists(path), os.path.exists('/proc/1')\n"
    before = descendants(os.getpid())
    made: list[Any] = []
    thread = threading.Thread(target=lambda: made.append(open_sandbox("bwrap").__enter__()))
    thread.start()
    thread.join()  # the sandbox must outlive the thread that started it
    with made[0] as box:
        assert box.call(source, "f", ("/etc/passwd",)).unwrap() == (False, False)
        assert {"landlock", "seccomp"} <= set(box.layers)
        looped = box.call("def f():\n    while True: pass\n", "f")
        assert isinstance(looped.error, TimedOut)
    assert descendants(os.getpid()) == before


def test_a_system_without_walls_gets_a_plain_process_and_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runners.sys, "platform", "darwin")
    with pytest.warns(RuntimeWarning, match="none of the sandbox's walls"):
        box = open_sandbox("isolated", QUICK)
    with box:
        assert box.layers == {}
        assert box.call(SQUARE.source, "f", (3,)).unwrap() == 9
