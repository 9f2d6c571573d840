"""What code says to the host beside its reply: requests to host functions, output, items."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

import tracegraph as tg
from tracegraph import bundle, failed_node
from tracegraph.errors import SandboxError
from tracegraph.sandbox import Policy, Sandbox

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")

QUICK = Policy(preload=(), max_value=1 << 16, timeout=20)
HUGE = "1 << 200_000"  # Python refuses to show so long an integer


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(QUICK) as box:
        yield box


def refuse(what: Any) -> None:
    raise RuntimeError(what)


@pytest.mark.parametrize("look", [{}.__getitem__, refuse], ids=["KeyError", "RuntimeError"])
def test_a_hosts_error_that_cannot_be_shown_is_an_error_like_others(
    look: Any, box: Sandbox
) -> None:
    source = f"def f():\n    return look({HUGE})\n"
    error = box.call(source, "f", host={"look": look}).error
    assert isinstance(error, (KeyError, RuntimeError))
    assert error.args == (1 << 200_000,)
    caught = f"def f():\n    try:\n        look({HUGE})\n    except Exception as e:\n        return str(e)\n"
    said = box.call(caught, "f", host={"look": look}).unwrap()
    assert "<its text cannot be had: ValueError>" in said

    @bundle(trainable=True, host={"look": look}, sandbox=box)
    def f() -> None:
        pass

    f.parameter.assign(source, origin="optimizer")
    with pytest.raises((KeyError, RuntimeError)) as told:
        f()
    failed = failed_node(told.value)
    assert failed is not None
    assert "return look(1 << 200_000)  <--- " in str(failed.create_feedback("full"))


@pytest.mark.parametrize("what", ["bytes(60_000)", "'x' * 15_000"])
def test_all_that_host_functions_are_given_in_a_call_is_bounded(what: str, box: Sandbox) -> None:
    given: list[Any] = []
    source = f"def f():\n    for _ in range(200):\n        keep({what})\n"
    result = box.call(source, "f", host={"keep": given.append})
    assert isinstance(result.error, SandboxError)
    assert "give less at a time" in str(result.error)
    assert 15 << 16 < sum(map(len, given)) <= 16 << 16
    few = source.replace("200", "3")
    assert box.call(few, "f", host={"keep": given.append}).error is None


@pytest.mark.parametrize("items", ["5", "'abc'", "{1: 2}", "None"])
def test_items_are_a_list_whatever_code_makes_of_what_collects_them(
    items: str, box: Sandbox
) -> None:
    @bundle(trainable=True, sandbox=box)
    def count(n: int) -> Iterator[int]:
        yield n

    text = f"def list(items):\n    return {items}\n\ndef count(n):\n    yield n\n"
    count.parameter.assign(text, origin="optimizer")
    with pytest.raises(tg.SandboxError, match="in the place of a list of the items"):
        list(count(3))
