"""A large picture seen from afar: one image that moves, and is worked as the boxes themselves."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tracegraph as tg
from tests.view.chromium import Opened
from tests.view.firefox import FIREFOX, Firefox
from tracegraph.view import Frame, Page, Picture, write_html
from tracegraph.view.svg import drawing

HIDDEN = "document.querySelector('.overview').hidden"
DRAWN = f"!{HIDDEN}"
COUNTED = """() => {
  const write = CanvasRenderingContext2D.prototype.fillText;
  CanvasRenderingContext2D.prototype.fillText = function (...given) {
    (window.written = window.written || []).push(given[0]);
    return write.apply(this, given);
  };
  for (const name of ["stroke", "fillRect"]) {
    const kept = CanvasRenderingContext2D.prototype[name];
    CanvasRenderingContext2D.prototype[name] = function (...given) {
      window.strokes = (window.strokes || 0) + 1;
      return kept.apply(this, given);
    };
  }
}"""
COLOURS = """() => {
  const canvas = document.querySelector(".overview"), copy = document.createElement("canvas");
  [copy.width, copy.height] = [canvas.width, canvas.height];
  const brush = copy.getContext("2d", { willReadFrequently: true });
  brush.drawImage(canvas, 0, 0);
  const data = brush.getImageData(0, 0, canvas.width, canvas.height).data;
  const found = {};
  for (let at = 0; at < data.length; at += 4) if (data[at + 3] === 255) {
    const colour = `rgb(${data[at]}, ${data[at + 1]}, ${data[at + 2]})`;
    found[colour] = (found[colour] || 0) + 1;
  }
  return found;
}"""


@pytest.fixture(scope="module")
def tangle() -> Picture:
    """Sums of earlier values: 500 boxes, two arrows to most."""
    draw = random.Random(2)
    made: list[tg.Node[Any]] = [tg.node(n, trainable=True, name=f"p{n}") for n in range(10)]
    while len(made) < 500:
        made.append(draw.choice(made[-12:]) + draw.choice(made[-60:]))
    return tg.Graph.of(made).picture()


@pytest.fixture(scope="module")
def written(tangle: Picture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the tangle, which nobody changes."""
    folder = tmp_path_factory.mktemp("overview")
    return write_html(Page("", (Frame(picture=tangle),)), folder / "page.html")


@pytest.fixture
def opened(browser: Any, written: Path) -> Iterator[Opened]:
    """The tangle, seen whole."""
    page = Opened(browser, written)
    page.tab.evaluate(COUNTED)
    page.tab.keyboard.press("0")
    rested(page)
    yield page
    assert page.wrong == []
    page.tab.close()


def rested(page: Opened) -> None:
    """Wait until the picture is at rest."""
    page.moved
    page.tab.wait_for_timeout(400)


def middle(page: Opened, picture: Picture, number: int) -> tuple[float, float]:
    """Where the middle of a box stands in the window."""
    left, top, right, bottom = (
        drawing(picture, alone=False).parts[len(picture.arrows) + number].area
    )
    x, y, scale = page.tab.evaluate(
        "(() => { const area = document.getElementById('graph').getBoundingClientRect();"
        "const m = new DOMMatrix(document.querySelector('.stage').style.transform);"
        "return [m.e + area.left, m.f + area.top, m.a]; })()"
    )
    return x + (left + right) / 2 * scale, y + (top + bottom) / 2 * scale


def ink(page: Opened, name: str) -> str:
    found: str = page.tab.evaluate(
        f"getComputedStyle(document.querySelector('.probe .tg-{name} > .tg-body')).stroke"
    )
    return found


def test_it_is_one_image_with_every_kind_of_box_and_moves_without_being_drawn(
    opened: Opened, tangle: Picture
) -> None:
    tab = opened.tab
    assert tab.evaluate(DRAWN)
    assert tab.locator(".tg-arrow[data-tail]:visible").count() == 0
    assert tab.locator(".tg-box:visible").count() == 1  # the one that the keys begin at
    colours = tab.evaluate(COLOURS)
    assert colours[ink(opened, "output")] > 100
    assert colours[ink(opened, "parameter")] > 10
    strokes = tab.evaluate("window.strokes")
    assert strokes >= len(tangle.arrows) + len(tangle.boxes)
    before = opened.moved
    tab.mouse.move(300, 300)
    tab.mouse.down()
    for step in range(30):
        tab.mouse.move(300 + step * 8, 300 + step * 3)
    tab.mouse.up()
    rested(opened)
    assert opened.moved != before
    assert tab.evaluate("window.strokes") == strokes


def test_a_spot_is_clicked_searched_and_walked_from_by_keys(
    opened: Opened, tangle: Picture
) -> None:
    tab = opened.tab
    tab.mouse.click(*middle(opened, tangle, 0))
    assert opened.picked == ["p0"]
    assert "p0" in opened.side.inner_text()
    rested(opened)
    pick = ink(opened, "picked")
    assert tab.evaluate(COLOURS)[pick] > 10  # it, and its arrows
    tab.keyboard.press("Escape")
    tab.keyboard.press("Escape")
    rested(opened)
    assert pick not in tab.evaluate(COLOURS)
    tab.mouse.click(20, 400)  # nothing is near
    assert opened.picked == []
    tab.keyboard.press("/")
    tab.keyboard.type("p7")
    rested(opened)
    assert tab.evaluate(COLOURS)[pick] > 5
    tab.keyboard.press("Enter")
    rested(opened)
    assert opened.picked == ["p7"]
    assert tab.evaluate(HIDDEN)  # it came near, so that it can be read
    assert tab.locator(".picked").is_visible()
    tab.keyboard.press("Escape")
    tab.keyboard.press("Escape")
    tab.keyboard.press("Escape")
    tab.keyboard.press("0")
    rested(opened)
    assert tab.evaluate(DRAWN)
    tab.get_by_role("button", name="Help ( ? )").focus()
    tab.keyboard.press("Tab")  # the canvas has no boxes, but one is there to begin at
    assert "tg-box" in tab.evaluate("document.activeElement.className.baseVal || ''")
    tab.keyboard.press("n")
    rested(opened)
    assert tab.evaluate(HIDDEN)
    label = tab.evaluate("document.activeElement.getAttribute('aria-label')")
    assert label.startswith("p1, number parameter")


def test_the_image_stays_until_the_boxes_are_there_and_follows_the_dark(opened: Opened) -> None:
    tab = opened.tab
    light = ink(opened, "output")
    tab.emulate_media(color_scheme="dark")
    rested(opened)
    dark = ink(opened, "output")
    assert dark != light
    colours = tab.evaluate(COLOURS)
    assert dark in colours
    assert light not in colours
    for _ in range(20):
        tab.keyboard.press("+")
    rested(opened)
    opened.until(HIDDEN)
    seen = tab.locator(".tg-box:visible").count()
    assert 1 < seen < 200
    assert tab.locator(".tg-arrow[data-tail]:visible").count() > 1


def test_halfway_titles_stand_in_the_image(opened: Opened) -> None:
    tab = opened.tab
    assert not tab.evaluate("window.written")  # no word could be read
    while tab.evaluate("new DOMMatrix(document.querySelector('.stage').style.transform).a") < 0.35:
        tab.keyboard.press("+")
        opened.moved
    rested(opened)
    assert tab.evaluate(DRAWN)
    assert set(tab.evaluate("window.written")) <= {"add", *(f"p{n}" for n in range(10))}
    assert "add" in tab.evaluate("window.written")


def test_from_afar_all_boxes_are_in_a_list(opened: Opened, tangle: Picture) -> None:
    tab = opened.tab
    tab.keyboard.press("l")
    listed = opened.side.locator(".links button")
    assert listed.count() == 201  # and one that tells of more
    listed.last.focus()
    assert listed.last.inner_text() == "200 more of 300"
    tab.keyboard.press("Enter")
    assert listed.count() == 401
    name = tab.evaluate("document.activeElement.querySelector('b').textContent")
    assert name == tangle.boxes[200].title
    tab.keyboard.press("Enter")
    rested(opened)
    assert opened.picked == [name]
    assert tab.evaluate(HIDDEN)  # it came near


def test_on_paper_it_is_boxes_and_arrows(opened: Opened, tangle: Picture) -> None:
    opened.tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert opened.tab.evaluate(HIDDEN)
    assert opened.tab.locator(".tg-box[data-key]:visible").count() == len(tangle.boxes)
    opened.tab.evaluate("window.dispatchEvent(new Event('afterprint'))")
    rested(opened)
    assert opened.tab.evaluate(DRAWN)
    opened.tab.keyboard.press("n")  # near, where what is out of the window is hidden
    opened.until(HIDDEN)
    rested(opened)
    assert opened.tab.locator(".tg-box[data-key]:visible").count() < len(tangle.boxes)
    opened.tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert opened.tab.locator(".tg-box[data-key]:visible").count() == len(tangle.boxes)


@pytest.mark.skipif(FIREFOX is None, reason="no Firefox is installed")
def test_firefox_draws_it_too(written: Path, tmp_path: Path) -> None:
    with Firefox(tmp_path) as fox:
        fox.open(written)
        fox.press("0")
        fox.run("return new Promise((done) => setTimeout(done, 400))")
        assert fox.run(f"return {DRAWN}")
        body = "getComputedStyle(document.querySelector('.probe .tg-output > .tg-body'))"
        colours = fox.run(f"return ({COLOURS})()")
        inks = fox.run(f"return [{body}.fill, {body}.stroke]")
        assert sum(colours.get(ink, 0) for ink in inks) > 100
