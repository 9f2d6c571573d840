"""Attacks on a host that has taken off what Python guards itself with, or has much open."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")

PROJECT = Path(__file__).parents[2]
SENDING = """
    import os, socket, struct
    def send(kind, text):
        data = struct.pack('<cIQ', kind, len(text), 0) + text
        while data:
            data = data[os.write(3, data):]
"""
ASKING = '{"dict":["name","echo","args",{"tuple":[]},"kwargs",{"dict":[]}]}'


def told(host: str, attack: str) -> list[str]:
    """What a process of its own prints that does `host`, is attacked, and then makes another call."""
    program = f"""
import os, resource, signal, sys
from tracegraph.sandbox import Policy, Sandbox
def echo():
    return 1
{textwrap.dedent(host)}
with Sandbox(Policy(preload=(), timeout=20)) as box:
    result = box.call({textwrap.dedent(SENDING + attack)!r}, "attack", host={{"echo": echo}})
    print(f"{{type(result.error).__name__}}: {{result.error}}")
    print(box.call("def f():\\n    return 1\\n", "f").value)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stdout.splitlines()


def test_brackets_do_not_end_the_stack_of_a_host_that_lets_itself_recurse() -> None:
    attack = """
    def attack():
        send(b'R', b'[' * 1_000_000)  # as many as a frame may have
        os.read(3, 100)
    """
    assert told("sys.setrecursionlimit(1_000_000)", attack) == [
        "SandboxError: a frame that is nested deeper than any value",
        "1",
    ]


def test_digits_do_not_keep_a_host_busy_that_reads_any_number() -> None:
    attack = """
    def attack():
        send(b'R', b'[' + b'1' * 4_000_000 + b',0]')
        os.read(3, 100)
    """
    error, next_call = told("sys.set_int_max_str_digits(0)", attack)
    assert error.endswith("an integer of 4000000 digits")
    assert next_call == "1"


def test_a_child_that_hangs_up_does_not_end_a_host_that_broken_pipes_end() -> None:
    attack = f"""
    def attack():
        channel = socket.socket(fileno=3)
        channel.shutdown(socket.SHUT_RD)
        send(b'A', b'{ASKING}')
        while True:
            pass
    """
    error, next_call = told("signal.signal(signal.SIGPIPE, signal.SIG_DFL)", attack)
    assert error.startswith("SandboxError: the code's process was ended")
    assert next_call == "1"


def test_a_zygote_that_dies_is_replaced_in_a_host_with_many_open_files() -> None:
    host = """
    from tests.sandbox.test_ends import kill
    from tests.sandbox.processes import descendants
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    def echo():
        kill(descendants(os.getpid()))
    """
    attack = """
    def attack():
        echo()
    """
    assert told(host, attack) == [
        "SandboxError: the sandbox ended during the call; the next call starts another",
        "1",
    ]
