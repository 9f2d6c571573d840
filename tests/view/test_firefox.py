"""The page in Firefox: it opens, is styled, is clicked and worked by keys, and runs no other script."""

from __future__ import annotations

from pathlib import Path

import pytest

import tracegraph as tg
from tests.view.firefox import FIREFOX, Firefox
from tracegraph.view import Candidate, Curve, Frame, Page, Version, lineage, write_html

pytestmark = pytest.mark.skipif(FIREFOX is None, reason="no Firefox is installed")

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


def test_it_opens_is_styled_and_is_worked_by_mouse_and_keys(tmp_path: Path) -> None:
    prompt = tg.node(HOSTILE, trainable=True, name="prompt")
    answer = (prompt + "!").upper()
    answer.backward("Too <b>long</b>.")
    frame = tg.Graph.of(answer).page().frames[0]
    frames = tuple(
        Frame(
            picture=frame.picture, details=frame.details, title=f"step {n}", score=n / 10,
            parameters={"prompt": Version(number=n, text=f"{HOSTILE}\nline {n}")},
        )
        for n in range(3)
    )  # fmt: skip
    tried = (
        Candidate(id="first", score=0.1, values={"prompt": "Be kind."}),
        Candidate(id="second", parents=("first",), score=0.2, note=HOSTILE, status="accepted"),
    )
    curves = (Curve("Best score", ((0, 0.1), (1, 0.2))),)
    path = write_html(Page("a run", frames, lineage(tried), curves), tmp_path / "run.html")
    profile = tmp_path / "profile"
    profile.mkdir()
    with Firefox(profile) as fox:
        fox.open(path)
        title = "document.querySelector('aside h2').textContent"
        body = "getComputedStyle(document.querySelector('.tg-parameter > .tg-body'))"
        assert fox.run(f"return {body}.fill") not in ("", "none", "rgb(0, 0, 0)")
        fox.click(".tg-parameter[data-key]")
        assert fox.run(f"return {title}") == "prompt"
        assert HOSTILE in fox.run("return document.querySelector('aside').textContent")
        fox.press("\ue015")  # arrow down: to the user
        assert fox.run(f"return {title}") == "add"
        fox.press(",")
        assert fox.run("return document.querySelector('.bar output').textContent") == "2 / 3"
        fox.click("#tab-step")
        added = "[...document.querySelectorAll('.diff .add')].map(line => line.textContent)"
        assert fox.run(f"return {added}") == ["+ line 1"]
        fox.click(".bar button[aria-label^=Candidates]")
        assert fox.run("return document.querySelectorAll('.tg-box').length") == 2
        assert fox.run("return document.querySelectorAll('.chart .curve').length") == 1
        fox.click(".tg-output[data-key]")
        assert HOSTILE in fox.run("return document.querySelector('aside').textContent")
        assert fox.run("return window.hacked === undefined")
