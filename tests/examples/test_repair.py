"""The repair example: a mistake is found and mended, and a function is written from examples."""

from __future__ import annotations

import io
from itertools import product
from typing import Any

from rich.console import Console

import tracegraph as tg
from examples import repair
from optimizers.search import suspects


def quiet() -> Console:
    return Console(file=io.StringIO())


def test_the_mistake_is_blamed_most() -> None:
    function = tg.bundle(repair.middle, trainable=True, profile=True)
    runs, failures = repair.attempt(function)
    assert failures
    blamed = suspects(runs, {"middle": function.parameter})["middle"]
    lines = function.parameter.data.splitlines()
    wrong = lines.index("        elif x < z:") + 2
    assert {line for line in blamed if blamed[line] == max(blamed.values())} == {wrong - 1, wrong}


def test_all_cases_pass_in_the_end() -> None:
    console = quiet()
    assert repair.repair(console, seed=0, steps=600) > 0
    assert "cases pass after" in console.file.getvalue()  # type: ignore[attr-defined]


def test_written_anew_from_its_cases_it_is_right_for_all_triples() -> None:
    """All 125 triples of five numbers are the threshold: a function that is right has no exceptions."""
    console = quiet()
    assert repair.rewrite(console) == 1
    text = console.file.getvalue()  # type: ignore[attr-defined]
    scope: dict[str, Any] = {}
    exec(text[text.index("def middle") :], scope)
    for triple in product(range(1, 6), repeat=3):
        assert scope["middle"](*triple) == sorted(triple)[1]


def test_shipping_is_right_on_what_was_kept_back() -> None:
    text = repair.write(quiet())
    assert text is not None
    scope: dict[str, object] = {}
    exec(text, scope)
    for parcel in repair.KEPT_BACK:
        assert scope["shipping"](*parcel) == repair.price(*parcel)  # type: ignore[operator]
