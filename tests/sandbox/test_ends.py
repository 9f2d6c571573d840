"""No process, descriptor or thread outlives its sandbox, however either ends."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.processes import descendants, eventually, idle, running
from tracegraph.errors import SandboxError
from tracegraph.sandbox import Policy, Sandbox

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")

QUICK = Policy(timeout=5, preload=())
ECHO = "def f(*args, **kwargs):\n    return args, kwargs\n"
COUNTER = "count = 0\ndef f():\n    global count\n    count += 1\n    return count\n"


def test_an_interrupt_in_a_host_function_passes_and_ends_the_child() -> None:
    def model() -> None:
        raise KeyboardInterrupt

    before = len(descendants(os.getpid()))
    with Sandbox(QUICK) as box:
        with pytest.raises(KeyboardInterrupt):
            box.call("def f():\n    return model()", "f", host={"model": model})
        assert eventually(lambda: len(descendants(os.getpid())) == before + idle(box))


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((1, "f"), {}, "source must be a str"),
        ((ECHO, None), {}, "entry must be a str"),
        ((ECHO, "f", (object(),)), {}, r"args\[0\] is of type object"),
        ((ECHO, "f", "text"), {}, "must be a tuple or a list, got 'text'"),
        ((ECHO, "f", 5), {}, "must be a tuple or a list, got 5"),
        ((ECHO, "f", (), {1: 2}), {}, "must be a mapping of names"),
        ((ECHO, "f"), {"host": {"not a name": len}}, "host must map names to functions"),
        ((ECHO, "f", (b"x" * (65 << 20),)), {}, "too large"),
    ],
)
def test_bad_input_is_refused_before_anything_starts(
    args: Any, kwargs: dict[str, Any], text: str
) -> None:
    before = descendants(os.getpid())
    box = Sandbox(QUICK)
    with pytest.raises(SandboxError, match=text):
        box.call(*args, **kwargs)
    assert descendants(os.getpid()) == before


def test_a_module_that_cannot_be_preloaded_is_named_and_nothing_is_left() -> None:
    before = descendants(os.getpid())
    with pytest.raises(SandboxError, match="no_such_module"):
        Sandbox(Policy(preload=("no_such_module",))).call(ECHO, "f")
    assert eventually(lambda: descendants(os.getpid()) == before)


# Several threads, several ends


def test_threads_share_a_sandbox_and_their_calls_run_side_by_side() -> None:
    source = "import time\ndef f(x):\n    time.sleep(0.5)\n    return x * x\n"
    with Sandbox(QUICK) as box, ThreadPoolExecutor(8) as pool:
        began = time.monotonic()
        values = list(pool.map(lambda x: box.call(source, "f", (x,)).unwrap(), range(8)))
        assert values == [x * x for x in range(8)]
        assert time.monotonic() - began < 8 * 0.5
        mixed = pool.map(lambda x: box.call(COUNTER, "f", fresh=bool(x % 2)).ok, range(40))
        assert all(mixed)


def test_a_sandbox_made_in_a_thread_outlives_it() -> None:
    made: list[Sandbox] = []
    thread = threading.Thread(target=lambda: made.append(Sandbox(QUICK).__enter__()))
    thread.start()
    thread.join()
    with made[0] as box:
        assert box.call(COUNTER, "f").unwrap() == 1


def test_closing_ends_every_process_and_a_later_call_starts_anew() -> None:
    before = descendants(os.getpid())
    box = Sandbox(QUICK)
    for _ in range(2):
        assert box.call(COUNTER, "f").unwrap() == 1
        assert box.call(COUNTER, "f", fresh=False).unwrap() == 1
        assert eventually(
            lambda: len(descendants(os.getpid()) - before) == idle(box) + 1  # and the kept one
        )
        box.close()
        assert eventually(lambda: descendants(os.getpid()) == before)


def test_a_child_that_is_let_go_leaves_no_cycle_behind() -> None:
    gc.disable()
    try:
        with Sandbox(QUICK) as box:
            box.call(COUNTER, "f", fresh=False)
            child = weakref.ref(box._kept[0].child)
            assert child() is not None
        assert child() is None
    finally:
        gc.enable()


def test_dropping_a_sandbox_ends_every_process() -> None:
    before = descendants(os.getpid())
    box = Sandbox(QUICK)
    box.call(COUNTER, "f", fresh=False)
    del box
    gc.collect()
    assert eventually(lambda: descendants(os.getpid()) == before)


def kill(pids: set[int]) -> None:
    # Stopped first, so that none tells of another's end.
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # it ended with the one before it
                os.kill(pid, number)


@pytest.mark.parametrize("walls", ["zygote", "plain"])
def test_where_memory_runs_out_the_kernel_ends_the_sandbox_before_its_owner(walls: str) -> None:
    before = descendants(os.getpid())
    found = set()

    def look() -> None:
        for pid in descendants(os.getpid()) - before:
            found.add(Path(f"/proc/{pid}/oom_score_adj").read_text().strip())

    with Sandbox(QUICK, walls=walls) as box:
        box.call("def f():\n    look()\n", "f", host={"look": look}).unwrap()
    assert found == {"1000"}


def test_a_zygote_that_was_killed_is_started_again() -> None:
    before = descendants(os.getpid())
    with Sandbox(QUICK) as box:
        for _ in range(2):
            doomed = descendants(os.getpid()) - before
            assert doomed
            kill(doomed)
            assert eventually(lambda doomed=doomed: not any(map(running, doomed)))
            assert box.call(COUNTER, "f").unwrap() == 1


def test_a_zygote_that_is_killed_during_a_call_is_told_and_started_again() -> None:
    before = descendants(os.getpid())
    with Sandbox(QUICK) as box:

        def model() -> None:
            kill(descendants(os.getpid()) - before)

        result = box.call("def f():\n    return model()", "f", host={"model": model})
        assert isinstance(result.error, SandboxError)
        assert "the next call starts another" in str(result.error)
        assert box.call(COUNTER, "f").unwrap() == 1
    assert eventually(lambda: descendants(os.getpid()) == before)


def test_nothing_is_left_open_after_a_hundred_errors() -> None:
    outside = len(descendants(os.getpid()))
    with Sandbox(QUICK) as box:
        box.call(COUNTER, "f")
        before = (len(os.listdir("/proc/self/fd")), threading.active_count())
        for body in ("import os; os._exit(1)", "raise ValueError", "return f", "return 1") * 25:
            box.call(f"def f():\n    {body}\n", "f")
        assert eventually(lambda: len(descendants(os.getpid())) == outside + idle(box))
        assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before


OWNER = textwrap.dedent("""
    import os, sys, threading, time
    from tracegraph.sandbox import Policy, Sandbox
    box = Sandbox(Policy(timeout=60, preload=()))
    spin = "import sys\\ndef f():\\n    started()\\n    while True:\\n        pass\\n"
    ready = threading.Semaphore(0)
    def run():
        # Without a host function the zygote's clock runs; with one, only this process's.
        box.call(spin, "f", host={"started": ready.release})
    for _ in range(3):
        threading.Thread(target=run, daemon=True).start()
    for _ in range(3):
        ready.acquire()
    if sys.argv[1] == "fork":
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
    print("ready", flush=True)
    time.sleep(60)
""")


@pytest.mark.parametrize("manner", ["alone", "fork"])
def test_no_process_outlives_an_owner_that_is_killed(manner: str) -> None:
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONWARNINGS": "ignore"}
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, manner], stdout=subprocess.PIPE, env=env, text=True
    )
    assert owner.stdout is not None
    forked: set[int] = set()
    try:
        assert owner.stdout.readline() == "ready\n"
        started = descendants(owner.pid)
        assert len(started) >= 5
        # A forked owner still has the owner's command; the sandbox's processes have their own.
        forked = {p for p in started if OWNER[:30] in Path(f"/proc/{p}/cmdline").read_text()}
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()
    try:
        watched = started - forked
        assert eventually(lambda: not any(map(running, watched)))
    finally:
        for pid in forked:
            os.kill(pid, signal.SIGKILL)


def test_a_forked_process_has_a_sandbox_of_its_own() -> None:
    with Sandbox(QUICK) as box:
        assert box.call(COUNTER, "f", fresh=False).unwrap() == 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            try:
                fine = box.call(COUNTER, "f", fresh=False).unwrap() == 1
                box.close()
                os._exit(0 if fine else 1)
            finally:
                os._exit(2)
        assert os.waitpid(pid, 0)[1] == 0
        assert box.call(COUNTER, "f", fresh=False).unwrap() == 2
