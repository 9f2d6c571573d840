"""Every attack fails, and afterwards the host is as it was."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.sandbox.attacks import ATTACKS, Attack
from tests.sandbox.judge import HOSTS, LIMITS, PATIENT, QUICK, SECRET, traces, untouched
from tests.sandbox.processes import descendants, eventually, idle
from tracegraph.errors import TimedOut
from tracegraph.sandbox import Policy, Sandbox
from tracegraph.sandbox.policy import LAYERS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")

TABLE = Path(__file__).parents[2] / "docs" / "explanation" / "sandbox.md"


class Boxes:
    """Two sandboxes behind the same walls: one that waits long for a call, and one that does not."""

    open: ClassVar[list[Boxes]] = []
    others: ClassVar[frozenset[int]] = frozenset()
    """The processes that tests before these have left waiting: other sandboxes."""

    def __init__(self, layers: tuple[str, ...]) -> None:
        if not self.open:
            type(self).others = frozenset(descendants(os.getpid()))
        self._boxes = {
            timeout: Sandbox(Policy(**LIMITS, timeout=timeout, layers=layers, require=layers))
            for timeout in (QUICK, PATIENT)
        }
        for box in self._boxes.values():
            assert set(box.layers) == set(layers)
        self.open.append(self)

    def suited(self, attack: Attack) -> Sandbox:
        kinds = attack.error if isinstance(attack.error, tuple) else (attack.error,)
        return self._boxes[QUICK if TimedOut in kinds else PATIENT]

    @property
    def idle(self) -> int:
        return sum(map(idle, self._boxes.values()))

    def close(self) -> None:
        for box in self._boxes.values():
            box.close()
        self.open.remove(self)


@pytest.fixture(scope="module")
def walled() -> Iterator[Boxes]:
    with contextlib.closing(Boxes(LAYERS)) as boxes:
        yield boxes


@pytest.fixture(scope="module")
def without_namespaces() -> Iterator[Boxes]:
    layers = tuple(layer for layer in LAYERS if layer != "namespaces")
    with contextlib.closing(Boxes(layers)) as boxes:
        yield boxes


def attempt(boxes: Boxes, attack: Attack, world: dict[str, Any], listening: Any) -> None:
    box = boxes.suited(attack)
    assert box.call("def f():\n    return 1", "f").unwrap() == 1
    before = traces(Boxes.others) | {"processes": sum(one.idle for one in Boxes.open)}
    assert eventually(lambda: traces(Boxes.others) == before)

    host = {name: HOSTS[name] for name in attack.host}
    result = box.call(attack.source, "attack", (world,), host=host)

    if attack.error is None:
        assert result.error is None, result
        assert result.value == attack.value
    else:
        assert isinstance(result.error, attack.error), result
        timed = attack.error if isinstance(attack.error, tuple) else (attack.error,)
        assert TimedOut in timed or not isinstance(result.error, TimedOut), result
    untouched(result, world, listening)
    assert len(repr(result)) < 3 * box.policy.max_output
    assert eventually(lambda: traces(Boxes.others) == before)
    assert box.call("def f():\n    return len('ab')", "f").unwrap() == 2


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack_fails(attack: Attack, walled: Boxes, world: Any, listening: Any) -> None:
    attempt(walled, attack, world, listening)


NOT_TIMED = [attack for attack in ATTACKS if attack.walls != "the clock"]


@pytest.mark.parametrize("attack", NOT_TIMED, ids=lambda attack: attack.name)
def test_attack_fails_where_there_are_no_namespaces(
    attack: Attack, without_namespaces: Boxes, world: Any, listening: Any
) -> None:
    attempt(without_namespaces, attack, world, listening)


ALONE = sorted({layer for attack in ATTACKS for layer in attack.alone})


@pytest.mark.parametrize("layer", ALONE)
def test_a_layer_alone_stops_what_the_table_says(layer: str, world: Any, listening: Any) -> None:
    with contextlib.closing(Boxes((layer,))) as boxes:
        for attack in ATTACKS:
            if layer in attack.alone:
                attempt(boxes, attack, world, listening)


def test_no_secret_lies_in_the_environment_that_the_sandbox_was_started_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("API_KEY", SECRET)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    before = descendants(os.getpid())
    source = "import os\ndef f():\n    return dict(os.environ)\n"
    with Sandbox(Policy(preload=())) as box:
        assert box.call(source, "f").unwrap().keys().isdisjoint({"API_KEY", "LD_LIBRARY_PATH"})
        for pid in descendants(os.getpid()) - before:
            try:
                started_with = Path(f"/proc/{pid}/environ").read_text()
            except PermissionError:
                continue  # it cannot be read even by its owner
            assert SECRET not in started_with


def test_the_documentation_says_which_wall_stops_each_attack() -> None:
    table = (
        TABLE.read_text().partition("| attack | stopped by |\n|---|---|\n")[2].partition("\n\n")[0]
    )
    told = dict(re.findall(r"^\| (.+?) \| (.+?) \|$", table, re.MULTILINE))
    assert told == {attack.name: attack.walls for attack in ATTACKS}


def test_every_layer_that_stops_an_attack_alone_is_named_in_its_row() -> None:
    for attack in ATTACKS:
        assert set(attack.alone) <= set(attack.walls.split(", ")), attack.name
